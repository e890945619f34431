//! The runner fails when it should: without a device, and when a case fails. A suite that passes on a machine without a
//! device proves nothing.
//!
//! This program starts itself again as a suite of the kind that its environment names, and looks at what that printed
//! and how it ended.

use std::process::{Command, Output};

use ibex_conformance::{Case, Outcome, cases, child, runner};

/// The environment variable that names the suite to run.
const SUITE: &str = "IBEX_CONFORMANCE_SUITE";

fn main() {
    if child::run_if_asked() {
        return;
    }
    let cases = match std::env::var(SUITE).as_deref() {
        Err(_) => checks(),
        Ok("whole") => cases::all(),
        Ok("passing") => vec![case("passes", || Outcome::Passed)],
        Ok("skipping") => vec![
            case("passes", || Outcome::Passed),
            case("skips", || Outcome::Skipped("the device has no windows".to_owned())),
        ],
        Ok("failing") => vec![
            case("passes", || Outcome::Passed),
            case("fails", || panic!("two is {}", 3)),
            case("passes_too", || Outcome::Passed),
        ],
        Ok(other) => panic!("no suite {other}"),
    };
    runner::run(cases).exit();
}

const fn case(name: &'static str, run: fn() -> Outcome) -> Case {
    Case { name, run }
}

fn checks() -> Vec<Case> {
    vec![
        case("runner::a_passing_suite_passes", a_passing_suite_passes),
        case(
            "runner::a_skipped_case_is_reported_with_its_reason",
            a_skipped_case_is_reported_with_its_reason,
        ),
        case("runner::a_failing_case_fails_the_suite", a_failing_case_fails_the_suite),
        case("runner::a_known_difference_is_ignored", a_known_difference_is_ignored),
        case("runner::a_known_difference_that_is_none_fails", a_known_difference_that_is_none_fails),
        case("runner::every_case_fails_without_its_device", every_case_fails_without_its_device),
        case("runner::an_unknown_provider_fails", an_unknown_provider_fails),
    ]
}

/// Runs a suite in a process of its own.
fn suite(name: &str, environment: &[(&str, &str)], arguments: &[&str]) -> (Output, String) {
    let output = Command::new(std::env::current_exe().expect("this program has a path"))
        .env(SUITE, name)
        .env_remove("IBEX_CONFORMANCE_PROVIDER")
        .env_remove("IBEX_DEVICE")
        .env_remove(runner::KNOWN)
        .envs(environment.iter().copied())
        .args(arguments)
        .output()
        .expect("this program can be started again");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output, text)
}

fn a_passing_suite_passes() -> Outcome {
    let (output, text) = suite("passing", &[], &[]);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed; 0 failed"), "{text}");
    Outcome::Passed
}

fn a_skipped_case_is_reported_with_its_reason() -> Outcome {
    let (output, text) = suite("skipping", &[], &[]);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed; 0 failed; 1 ignored"), "{text}");
    assert!(text.contains("the device has no windows"), "{text}");
    Outcome::Passed
}

fn a_failing_case_fails_the_suite() -> Outcome {
    let (output, text) = suite("failing", &[], &[]);
    // libtest's exit code of a run with failures.
    assert_eq!(output.status.code(), Some(101), "{text}");
    assert!(text.contains("2 passed; 1 failed"), "{text}");
    assert!(text.contains("two is 3"), "{text}");
    Outcome::Passed
}

fn a_known_difference_is_ignored() -> Outcome {
    let (output, text) = suite("failing", &[(runner::KNOWN, "fails")], &[]);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("2 passed; 0 failed; 1 ignored"), "{text}");
    assert!(text.contains(runner::KNOWN_REASON), "{text}");
    Outcome::Passed
}

fn a_known_difference_that_is_none_fails() -> Outcome {
    let (output, text) = suite("passing", &[(runner::KNOWN, "passes")], &[]);
    assert_eq!(output.status.code(), Some(101), "{text}");
    assert!(text.contains("0 passed; 1 failed"), "{text}");
    Outcome::Passed
}

fn every_case_fails_without_its_device() -> Outcome {
    let (output, text) = suite("whole", &[("IBEX_DEVICE", "nonexistent")], &[]);
    assert_eq!(output.status.code(), Some(101), "{text}");
    let all = cases::all().len();
    assert!(text.contains(&format!("0 passed; {all} failed; 0 ignored")), "{text}");
    assert!(text.contains("nonexistent"), "{text}");
    Outcome::Passed
}

fn an_unknown_provider_fails() -> Outcome {
    let environment = [("IBEX_CONFORMANCE_PROVIDER", "imaginary")];
    let (output, text) = suite("whole", &environment, &["device::"]);
    assert_eq!(output.status.code(), Some(101), "{text}");
    assert!(text.contains("IBEX_CONFORMANCE_PROVIDER is imaginary"), "{text}");
    Outcome::Passed
}
