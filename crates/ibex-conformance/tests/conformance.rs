//! The suite's runner, in libtest's format: `cargo test -p ibex-conformance --test conformance -- [filter]`.

use ibex_conformance::{Outcome, cases, child};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

fn main() {
    // The suite starts this program again where a case needs a second process.
    if child::run_if_asked() {
        return;
    }
    let mut arguments = Arguments::from_args();
    // Cases count completions and provoke retries: side by side on few cores they would only time each other out.
    arguments.test_threads.get_or_insert(1);
    let trials = cases::all()
        .into_iter()
        .map(|case| {
            Trial::ignorable_test(case.name, move || match std::panic::catch_unwind(case.run) {
                Ok(Outcome::Passed) => Ok(Completion::Completed),
                Ok(Outcome::Skipped(reason)) => Ok(Completion::ignored_with(reason)),
                Err(panic) => Err(Failed::from(message(&*panic))),
            })
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit();
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "panicked without a message".to_owned())
}
