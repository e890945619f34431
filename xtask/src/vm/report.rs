//! The test runner's lines, in libtest's format (libtest and libtest-mimic): one outcome a test, and the closing line.
//!
//! Forms of an outcome: `ok`, `FAILED`, `ignored`, `ignored, reason` (libtest), `ignored (reason)` (libtest-mimic).
//! A test may print between its name and its outcome; the outcome then stands at the start of a later line.
//! What the outcomes mean is [`super::ledger`]'s business.

use anyhow::{Context, Result, ensure};

/// How one test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Everything held.
    Passed,
    /// Something did not.
    Failed,
    /// It was not run, or the provider lacks the capability; with the reason if one was printed.
    Skipped(Option<String>),
}

/// A whole run.
#[derive(Debug)]
pub(crate) struct Report {
    /// Every test with its outcome, in the order printed.
    pub(crate) tests: Vec<(String, Outcome)>,
    /// The runner's closing line, as it stood.
    pub(crate) closing: String,
    /// Tests that passed.
    pub(crate) passed: usize,
    /// Tests that failed.
    pub(crate) failed: usize,
    /// Tests that were ignored.
    pub(crate) skipped: usize,
    /// Whether a filter left tests out.
    pub(crate) partial: bool,
}

impl Report {
    /// Reads a run's standard output.
    ///
    /// # Errors
    /// If the closing line is missing (the runner did not end by itself) or counts other tests than were read.
    pub(crate) fn parse(text: &str) -> Result<Report> {
        let mut tests = Vec::new();
        let mut closing = None;
        let mut open: Option<String> = None;
        for line in text.lines() {
            if let Some(counts) = line.strip_prefix("test result: ") {
                closing = Some((line.to_owned(), counts));
            } else if let Some((name, rest)) = start(line) {
                match outcome(rest) {
                    Some(outcome) => tests.push((name, outcome)),
                    None => open = Some(name),
                }
            } else if let (Some(name), Some(outcome)) = (&open, outcome(line)) {
                tests.push((name.clone(), outcome));
                open = None;
            }
        }
        let (closing, counts) = closing.with_context(|| match &open {
            Some(name) => format!("the runner ended without its closing line, in the test {name}"),
            None => "the runner ended without its closing line".to_owned(),
        })?;
        let count =
            |what| number_before(counts, what).with_context(|| format!("no count of {what} in: {closing}"));
        let report = Report {
            passed: count("passed")?,
            failed: count("failed")?,
            skipped: count("ignored")?,
            partial: count("filtered out")? > 0,
            tests,
            closing,
        };
        let read = (
            report.count(|outcome| *outcome == Outcome::Passed),
            report.count(|outcome| *outcome == Outcome::Failed),
            report.count(|outcome| matches!(outcome, Outcome::Skipped(_))),
        );
        ensure!(
            read == (report.passed, report.failed, report.skipped),
            "the runner counts otherwise than its lines say (read {} passed, {} failed, {} ignored): {}",
            read.0,
            read.1,
            read.2,
            report.closing
        );
        Ok(report)
    }

    fn count(&self, which: impl Fn(&Outcome) -> bool) -> usize {
        self.tests.iter().filter(|(_, outcome)| which(outcome)).count()
    }
}

/// Name and rest of a line `test [kind] name ... rest`.
fn start(line: &str) -> Option<(String, &str)> {
    let (name, rest) = line.strip_prefix("test ")?.split_once(" ... ").or_else(|| {
        // A trailing blank may have been trimmed.
        line.strip_prefix("test ")?.strip_suffix(" ...").map(|name| (name, ""))
    })?;
    let name = name.trim();
    let name = match name.strip_prefix('[').and_then(|name| name.split_once("] ")) {
        Some((_kind, name)) => name.trim(),
        None => name,
    };
    // Names have no blanks; prose that starts with "test" has.
    (!name.is_empty() && !name.contains(' ')).then(|| (name.to_owned(), rest))
}

/// The outcome a text says, if it says one and nothing else.
fn outcome(text: &str) -> Option<Outcome> {
    let text = text.trim();
    match text {
        "ok" => Some(Outcome::Passed),
        "FAILED" => Some(Outcome::Failed),
        _ => {
            let rest = text.strip_prefix("ignored")?;
            let reason = if rest.is_empty() {
                None
            } else if let Some(reason) = rest.strip_prefix(", ") {
                Some(reason)
            } else {
                Some(rest.strip_prefix(" (")?.strip_suffix(')')?)
            };
            Some(Outcome::Skipped(reason.map(str::to_owned)))
        }
    }
}

/// The number before ` what` among parts separated by `;` (the first part has the verdict before it).
fn number_before(counts: &str, what: &str) -> Option<usize> {
    counts
        .split(';')
        .find_map(|part| part.trim().strip_suffix(what)?.split_whitespace().next_back()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOSING: &str =
        "test result: FAILED. 2 passed; 1 failed; 2 ignored; 0 measured; 3 filtered out; finished in 1.02s";

    #[test]
    fn all_forms_of_outcome_are_read() {
        let text = format!(
            "\nrunning 5 tests\ntest a::one        ... ok\ntest [soft] b      ... FAILED\ntest c ... ignored (no XRC (yet))\n\
             test d ... ignored, no windows\ntest e ... noise\nmore noise\nok\n\nfailures:\n---- b ----\ntest of strength\n\
             \n{CLOSING}\n"
        );
        let report = Report::parse(&text).unwrap();
        let skipped = |reason: &str| Outcome::Skipped(Some(reason.to_owned()));
        assert_eq!(
            report.tests,
            [
                ("a::one".to_owned(), Outcome::Passed),
                ("b".to_owned(), Outcome::Failed),
                ("c".to_owned(), skipped("no XRC (yet)")),
                ("d".to_owned(), skipped("no windows")),
                ("e".to_owned(), Outcome::Passed),
            ]
        );
        assert_eq!((report.passed, report.failed, report.skipped, report.partial), (2, 1, 2, true));
        assert_eq!(report.closing, CLOSING);
    }

    #[test]
    fn a_runner_that_died_is_an_error_that_names_the_test() {
        let error = Report::parse("test a ... ok\ntest b ... \nthread panicked\n").unwrap_err();
        assert!(error.to_string().contains("in the test b"), "{error}");
    }

    #[test]
    fn lost_lines_are_an_error() {
        let error = Report::parse(&format!("test a ... ok\n{CLOSING}\n")).unwrap_err();
        assert!(error.to_string().contains("counts otherwise"), "{error}");
    }
}
