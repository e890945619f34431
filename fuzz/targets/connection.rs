//! Any bytes as a script of calls, packets and accidents on two live queue pairs, with a hostile peer.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|script: &[u8]| ibex_proto::sim::play(script));
