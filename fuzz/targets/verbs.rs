//! Any bytes as a sequence of calls of the C interface on the built-in device, both ends in this process.

#![no_main]

use std::sync::OnceLock;

use ibex_conformance::lab::Lab;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|calls: &[u8]| {
    // Opened once: opening costs a hundred times what a sequence does.
    static LAB: OnceLock<Lab> = OnceLock::new();
    ibex_conformance::abuse::play(LAB.get_or_init(Lab::open), calls);
});
