//! Any bytes as a packet: parsing never panics, and what it accepts is consistent.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/ibex-wire/tests/parse/mod.rs"]
mod parse;

fuzz_target!(|bytes: &[u8]| parse::parse_anything(bytes));
