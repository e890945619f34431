//! The conformance suite on `rxe0`: its binary is built on the host, run in the guest and judged by the ledger.
//!
//! The suite itself is the crate `ibex-conformance`, which the environment tells to use the system's libibverbs.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};

use super::guest::{Guest, GuestOutput, quote};
use super::ledger::{self, Difference};
use super::report::Report;
use super::show;
use crate::util;

/// The provider's name in the ledger.
const PROVIDER: &str = "rxe";

/// Builds the suite and returns its executable.
///
/// # Errors
/// If it does not compile.
pub(crate) fn build() -> Result<PathBuf> {
    let output = util::cmd("cargo")
        .args(["test", "--package", "ibex-conformance", "--test", "conformance", "--no-run"])
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    ensure!(output.status.success(), "the conformance suite does not build");
    executable(&String::from_utf8_lossy(&output.stdout))
        .context("cargo named no executable of the conformance suite")
}

/// The executable among cargo's messages.
fn executable(messages: &str) -> Option<PathBuf> {
    messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()).find_map(
        |message| {
            let is_suite =
                message["reason"] == "compiler-artifact" && message["target"]["name"] == "conformance";
            is_suite.then(|| message["executable"].as_str().map(PathBuf::from)).flatten()
        },
    )
}

/// Runs the suite in the guest and prints the runner's lines, the known differences and the counts.
///
/// # Errors
/// If the machine fails, the runner does not reach its end, or a result differs from what the ledger says.
pub(crate) fn run(guest: &Guest, binary: &Path, arguments: &[String]) -> Result<()> {
    let differences = ledger::load(&util::root().join("tests/vm/ledger.toml"))?;
    let kernel = guest.kernel();
    println!("vm: {} on rxe0, kernel {}", binary.file_name().unwrap_or_default().display(), kernel.package);

    let known = ledger::failures(&differences, PROVIDER, kernel.series.name());
    let output = guest.run(&script(binary, arguments, &known))?;
    let verdict = verdict(guest, &output, &differences);
    if verdict.is_err() {
        show(guest, &output);
    }
    println!(
        "vm: kernel {}: ready after {:.1} s, ended after {:.1} s",
        kernel.series.name(),
        output.ready.as_secs_f64(),
        output.total.as_secs_f64()
    );
    verdict
}

/// Reads the runner's lines and judges them.
fn verdict(guest: &Guest, output: &GuestOutput, differences: &[Difference]) -> Result<()> {
    let kernel = guest.kernel();
    let report = Report::parse(&output.stdout).with_context(|| {
        format!("the suite ended with exit code {} under {}", output.code, kernel.package)
    })?;
    let judgement = ledger::judge(&report, differences, PROVIDER, kernel.series.name());
    for known in &judgement.known {
        println!("known difference: {} ({:?}): {}", known.test, known.expect, known.reason);
    }
    if !guest.echoes() {
        println!("{}", report.closing);
    }
    println!("{} passed, {} failed, {} skipped", report.passed, report.failed, report.skipped);
    // libtest's runner ends with 0, or with 101 if a test failed.
    let expected = if report.failed == 0 { 0 } else { 101 };
    ensure!(output.code == expected, "the runner ended with exit code {}; {}", output.code, report.closing);
    if !judgement.problems.is_empty() {
        bail!("on kernel {}:\n  {}", kernel.series.name(), judgement.problems.join("\n  "));
    }
    println!(
        "vm: kernel {}: green, the {} known differences are all in the ledger",
        kernel.series.name(),
        judgement.known.len()
    );
    Ok(())
}

/// Sets the device up and runs the binary on it; `known` are the tests that are to fail.
fn script(binary: &Path, arguments: &[String], known: &[&str]) -> String {
    let mut script = String::from("setup_rxe_dummy || exit 125\n");
    script.push_str(&format!("export IBEX_CONFORMANCE_KNOWN={}\n", quote(&known.join("\n"))));
    script.push_str("IBEX_CONFORMANCE_PROVIDER=system IBEX_DEVICE=rxe0 exec ");
    script.push_str(&quote(&binary.to_string_lossy()));
    for argument in arguments {
        script.push(' ');
        script.push_str(&quote(argument));
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_found_among_cargos_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"ibex"},"executable":null}"#,
            "\nnoise\n",
            r#"{"reason":"compiler-artifact","target":{"name":"conformance"},"executable":"/t/deps/conformance-1"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(executable(messages), Some(PathBuf::from("/t/deps/conformance-1")));
        assert_eq!(executable(r#"{"reason":"build-finished"}"#), None);
    }

    #[test]
    fn arguments_reach_the_runner_as_they_are() {
        let script =
            script(Path::new("/t/a b"), &["it's".to_owned(), "--exact".to_owned()], &["a::b", "c::d"]);
        assert!(script.contains("IBEX_CONFORMANCE_KNOWN='a::b\nc::d'\n"), "{script}");
        assert!(script.ends_with(r"exec '/t/a b' 'it'\''s' '--exact'"), "{script}");
    }
}
