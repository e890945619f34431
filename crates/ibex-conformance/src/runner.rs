//! The runner: cases in, libtest's output and an exit code out.
//!
//! Shared by the suite itself (`tests/conformance.rs`) and by the test that proves that the runner fails when it should
//! (`tests/runner.rs`).

use libtest_mimic::{Arguments, Completion, Conclusion, Failed, Trial};

use crate::{Case, Outcome};

/// Runs the cases as the command line says: filters, `--list`, `--exact`, `--skip`.
///
/// One at a time unless asked otherwise: cases count completions and provoke retries, and side by side on few cores they
/// would only time each other out.
pub fn run(cases: Vec<Case>) -> Conclusion {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(1);
    let trials = cases
        .into_iter()
        .map(|case| {
            Trial::ignorable_test(case.name, move || match std::panic::catch_unwind(case.run) {
                Ok(Outcome::Passed) => Ok(Completion::Completed),
                Ok(Outcome::Skipped(reason)) => Ok(Completion::ignored_with(reason)),
                Err(panic) => Err(Failed::from(message(&*panic))),
            })
        })
        .collect();
    libtest_mimic::run(&arguments, trials)
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "panicked without a message".to_owned())
}
