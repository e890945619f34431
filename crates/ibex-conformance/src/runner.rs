//! The runner: cases in, libtest's output and an exit code out.
//!
//! A case that does not end ends the run: waits of the cases are bounded, but what they test may hang in a place of its own.
//!
//! Shared by the suite itself (`tests/conformance.rs`) and by the test that proves that the runner fails when it should
//! (`tests/runner.rs`).

use std::collections::BTreeSet;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use libtest_mimic::{Arguments, Completion, Conclusion, Failed, Trial};

use crate::lab::PATIENCE;
use crate::{Case, Outcome};

/// How long a case may take: several waits, each to the end of its patience.
const LIMIT: Duration = PATIENCE.saturating_mul(5);

/// libtest's exit code of a run with failures.
const FAILURE: i32 = 101;

/// The environment variable with the names of cases that this provider is known to fail, one a line.
///
/// They run all the same: one that fails is ignored with that reason, one that passes fails the run, since whoever wrote
/// the list has to learn that it is out of date.
pub const KNOWN: &str = "IBEX_CONFORMANCE_KNOWN";

/// What an ignored case says that failed as it is known to.
pub const KNOWN_REASON: &str = "known difference";

/// Runs the cases as the command line says: filters, `--list`, `--exact`, `--skip`.
///
/// One at a time unless asked otherwise: cases count completions and provoke retries, and side by side on few cores they
/// would only time each other out.
pub fn run(cases: Vec<Case>) -> Conclusion {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(1);
    let known = std::env::var(KNOWN).unwrap_or_default();
    let known: BTreeSet<&str> = known.lines().collect();
    let trials = cases.into_iter().map(|case| trial(case, known.contains(case.name))).collect();
    libtest_mimic::run(&arguments, trials)
}

fn trial(case: Case, known: bool) -> Trial {
    Trial::ignorable_test(case.name, move || {
        let _watch = watch(case.name);
        match (std::panic::catch_unwind(case.run), known) {
            (Ok(Outcome::Passed), true) => Err(Failed::from("passed, but is listed as a known difference")),
            (Err(_), true) => Ok(Completion::ignored_with(KNOWN_REASON)),
            (Ok(Outcome::Passed), false) => Ok(Completion::Completed),
            (Ok(Outcome::Skipped(reason)), _) => Ok(Completion::ignored_with(reason)),
            (Err(panic), false) => Err(Failed::from(message(&*panic))),
        }
    })
}

/// Ends the process if what this returns is not dropped within [`LIMIT`].
fn watch(name: &'static str) -> Sender<()> {
    let (watch, ended) = channel();
    std::thread::spawn(move || {
        if ended.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
            eprintln!("\n{name} has not ended within {LIMIT:?}: a wait that is not bounded");
            std::process::exit(FAILURE);
        }
    });
    watch
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "panicked without a message".to_owned())
}
