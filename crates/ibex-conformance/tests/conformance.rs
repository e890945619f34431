//! The suite, in libtest's format: `cargo test -p ibex-conformance --test conformance -- [filter]`.

use ibex_conformance::{cases, child, runner};

fn main() {
    // The suite starts this program again where a case needs a second process.
    if child::run_if_asked() {
        return;
    }
    runner::run(cases::all()).exit();
}
