//! The ledger of known provider differences, and the judgement of a run by it.
//!
//! The ledger is the file `tests/vm/ledger.toml`: tables `[[difference]]` with the string keys `test`, `provider`,
//! `kernel` (optional; every kernel without it), `expect` (`fail` or `skip`) and `reason`. Only this much of TOML is read,
//! and anything else is refused with its line. A run is right if every failure and every skip stands in the
//! ledger and every entry still describes what happens: an entry that no longer does must go.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::report::{Outcome, Report};

/// What the suite's runner says of a test that failed as it is known to.
const KNOWN_REASON: &str = "known difference";

/// What a provider is known to do with a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    /// The test fails.
    Fail,
    /// The test says that the provider lacks what it needs.
    Skip,
}

/// One known difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Full name of the test.
    pub(crate) test: String,
    /// Provider it concerns, for example `rxe`.
    pub(crate) provider: String,
    /// Kernel series it concerns; all if absent.
    pub(crate) kernel: Option<String>,
    /// What happens.
    pub(crate) expect: Expect,
    /// Why.
    pub(crate) reason: String,
}

/// Reads the ledger.
///
/// # Errors
/// If it cannot be read, has an unknown or missing key, or two entries for one test, provider and kernel.
pub(crate) fn load(path: &Path) -> Result<Vec<Difference>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text).with_context(|| format!("in {}", path.display()))
}

fn parse(text: &str) -> Result<Vec<Difference>> {
    let mut tables: Vec<(usize, HashMap<&str, String>)> = Vec::new();
    for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line.trim())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line == "[[difference]]" {
            tables.push((number, HashMap::new()));
            continue;
        }
        let (key, value) = line
            .split_once('=')
            .and_then(|(key, value)| Some((key.trim(), string(value.trim())?)))
            .with_context(|| format!("line {number}: not `key = \"text\"`: {line}"))?;
        ensure!(
            ["test", "provider", "kernel", "expect", "reason"].contains(&key),
            "line {number}: unknown key {key}"
        );
        let (_, table) =
            tables.last_mut().with_context(|| format!("line {number}: before the first [[difference]]"))?;
        ensure!(table.insert(key, value).is_none(), "line {number}: {key} stands twice");
    }
    let mut differences: Vec<Difference> = Vec::new();
    for (number, mut table) in tables {
        let mut take = |key| {
            table
                .remove(key)
                .filter(|value| !value.is_empty())
                .with_context(|| format!("line {number}: no {key}"))
        };
        let difference = Difference {
            test: take("test")?,
            provider: take("provider")?,
            expect: match take("expect")?.as_str() {
                "fail" => Expect::Fail,
                "skip" => Expect::Skip,
                other => bail!("line {number}: expect is \"fail\" or \"skip\", not {other:?}"),
            },
            reason: take("reason")?,
            kernel: take("kernel").ok(),
        };
        let twice = differences.iter().any(|other| {
            other.test == difference.test
                && other.provider == difference.provider
                && (other.kernel == difference.kernel
                    || other.kernel.is_none()
                    || difference.kernel.is_none())
        });
        ensure!(!twice, "line {number}: a second entry for {}", difference.test);
        differences.push(difference);
    }
    Ok(differences)
}

/// The value of a basic string; `\"` and `\\` are the only escapes.
fn string(text: &str) -> Option<String> {
    let mut value = String::new();
    let mut characters = text.strip_prefix('"')?.chars();
    loop {
        match characters.next()? {
            '"' => break,
            '\\' => match characters.next()? {
                escaped @ ('"' | '\\') => value.push(escaped),
                _ => return None,
            },
            other => value.push(other),
        }
    }
    let rest = characters.as_str().trim();
    (rest.is_empty() || rest.starts_with('#')).then_some(value)
}

/// The tests that the ledger says fail on `provider` under `kernel`. The suite's runner is told them: it ignores those
/// that fail, and fails those that pass.
pub(crate) fn failures<'a>(ledger: &'a [Difference], provider: &str, kernel: &str) -> Vec<&'a str> {
    ledger
        .iter()
        .filter(|difference| difference.concerns(provider, kernel) && difference.expect == Expect::Fail)
        .map(|difference| difference.test.as_str())
        .collect()
}

impl Difference {
    fn concerns(&self, provider: &str, kernel: &str) -> bool {
        self.provider == provider && self.kernel.as_deref().is_none_or(|only| only == kernel)
    }
}

/// A run compared with the ledger.
pub(crate) struct Judgement {
    /// Entries that describe what happened.
    pub(crate) known: Vec<Difference>,
    /// What is wrong, one sentence each; empty if nothing is.
    pub(crate) problems: Vec<String>,
}

/// Compares a run on `provider` under `kernel` with the ledger.
pub(crate) fn judge(report: &Report, ledger: &[Difference], provider: &str, kernel: &str) -> Judgement {
    let here: Vec<&Difference> =
        ledger.iter().filter(|difference| difference.concerns(provider, kernel)).collect();
    let mut known = Vec::new();
    let mut problems = Vec::new();
    if report.tests.is_empty() {
        problems.push("no test ran; check the filter".to_owned());
    }
    for (name, outcome) in &report.tests {
        let entry = here.iter().find(|difference| difference.test == *name);
        match (entry.map(|entry| (entry, entry.expect)), outcome) {
            (None, Outcome::Passed) => {}
            // One that fails as it should is ignored by the runner with the reason that it is known to; one that is
            // skipped names what is missing.
            (Some((entry, expect)), Outcome::Skipped(reason))
                if (expect == Expect::Fail) == (reason.as_deref() == Some(KNOWN_REASON)) =>
            {
                known.push(Difference::clone(entry));
            }
            (None, Outcome::Failed) => problems.push(format!("{name} failed")),
            (None, Outcome::Skipped(reason)) => problems.push(format!(
                "{name} was skipped ({}), which the ledger does not allow",
                reason.as_deref().unwrap_or("no reason given")
            )),
            (Some((_, expect)), outcome) => problems.push(format!(
                "{name} {}, but the ledger says that it {}: correct or remove the entry",
                match (outcome, expect) {
                    // The runner fails a test that passes against its list.
                    (Outcome::Passed, _) | (Outcome::Failed, Expect::Fail) => "passed",
                    (Outcome::Failed, Expect::Skip) => "failed",
                    (Outcome::Skipped(_), _) => "was skipped",
                },
                match expect {
                    Expect::Fail => "fails",
                    Expect::Skip => "is skipped",
                }
            )),
        }
    }
    if !report.partial {
        for entry in here {
            if !report.tests.iter().any(|(name, _)| *name == entry.test) {
                problems.push(format!("the ledger names a test that does not exist: {}", entry.test));
            }
        }
    }
    Judgement { known, problems }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEDGER: &str = r#"
# Known differences.
[[difference]]
test = "a::fails"
provider = "rxe"
kernel = "6.1"  # fixed later
expect = "fail"
reason = "it says \"no\""

[[difference]]
test = "a::skips"
provider = "rxe"
expect = "skip"
reason = "has none"
"#;

    fn report(outcomes: &[(&str, Outcome)], partial: bool) -> Report {
        Report {
            tests: outcomes.iter().map(|(name, outcome)| ((*name).to_owned(), outcome.clone())).collect(),
            closing: String::new(),
            passed: 0,
            failed: 0,
            skipped: 0,
            partial,
        }
    }

    fn problems(outcomes: &[(&str, Outcome)], kernel: &str, partial: bool) -> Vec<String> {
        judge(&report(outcomes, partial), &parse(LEDGER).unwrap(), "rxe", kernel).problems
    }

    #[test]
    fn entries_are_read() {
        let ledger = parse(LEDGER).unwrap();
        assert_eq!(ledger.len(), 2);
        assert_eq!(ledger[0].kernel.as_deref(), Some("6.1"));
        assert_eq!(ledger[0].reason, "it says \"no\"");
        assert_eq!((ledger[1].expect, ledger[1].kernel.as_deref()), (Expect::Skip, None));
    }

    #[test]
    fn a_malformed_ledger_is_refused_with_its_line() {
        for (text, want) in [
            ("test = \"a\"", "line 1: before"),
            ("[[difference]]\ntest = a", "line 2: not"),
            ("[[difference]]\ntest = \"a\"\ncolour = \"red\"", "line 3: unknown key"),
            ("[[difference]]\ntest = \"a\"\nprovider = \"rxe\"\nexpect = \"skip\"", "line 1: no reason"),
            (
                "[[difference]]\ntest=\"a\"\nprovider=\"rxe\"\nexpect=\"pass\"\nreason=\"r\"",
                "line 1: expect is",
            ),
            (&format!("{LEDGER}{LEDGER}"), "a second entry for a::fails"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(want), "{error} for {text}");
        }
    }

    #[test]
    fn a_run_as_the_ledger_says_has_no_problem() {
        let outcomes = [
            ("a::passes", Outcome::Passed),
            ("a::fails", Outcome::Skipped(Some(KNOWN_REASON.to_owned()))),
            ("a::skips", Outcome::Skipped(None)),
        ];
        let judgement = judge(&report(&outcomes, false), &parse(LEDGER).unwrap(), "rxe", "6.1");
        assert_eq!(judgement.problems, Vec::<String>::new());
        assert_eq!(judgement.known.len(), 2);
    }

    #[test]
    fn each_deviation_is_a_problem() {
        let skipped = || Outcome::Skipped(Some("lacks".to_owned()));
        for (outcomes, want) in [
            (vec![("x", Outcome::Failed)], "x failed"),
            (vec![("x", skipped())], "x was skipped (lacks)"),
            (vec![("a::fails", Outcome::Passed)], "a::fails passed, but the ledger says that it fails"),
            (vec![("a::fails", Outcome::Failed)], "a::fails passed, but the ledger says that it fails"),
            (vec![("a::fails", skipped())], "a::fails was skipped, but the ledger says that it fails"),
            (vec![("a::skips", Outcome::Passed)], "a::skips passed, but the ledger says that it is skipped"),
            (vec![("a::skips", Outcome::Failed)], "a::skips failed, but the ledger says that it is skipped"),
            (vec![], "no test ran"),
        ] {
            let problems = problems(&outcomes, "6.1", true);
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].starts_with(want), "{problems:?}");
        }
    }

    #[test]
    fn an_entry_for_another_kernel_excuses_nothing() {
        assert_eq!(problems(&[("a::fails", Outcome::Failed)], "6.12", true), ["a::fails failed"]);
    }

    #[test]
    fn a_full_run_must_know_every_test_of_the_ledger() {
        let outcomes = [("a::fails", Outcome::Skipped(Some(KNOWN_REASON.to_owned())))];
        assert_eq!(
            problems(&outcomes, "6.1", false),
            ["the ledger names a test that does not exist: a::skips"]
        );
        assert_eq!(problems(&outcomes, "6.1", true), Vec::<String>::new());
    }
}
