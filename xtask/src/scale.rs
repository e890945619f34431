//! `cargo xtask scale`: ten thousand queue pairs between two processes.
//!
//! Owns the options. What is measured, and checked, is in `crates/ibex-conformance/examples/scale.rs`.

use anyhow::Result;

use crate::util;

/// How many, and over which link.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Queue pairs in each process.
    #[arg(long, default_value_t = 10_000)]
    pairs: usize,
    /// The best link that may be used.
    #[arg(long, default_value = "auto", value_parser = ["auto", "host", "wire"])]
    link: String,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    util::run(
        util::cmd("cargo")
            .args([
                "run",
                "--release",
                "--quiet",
                "--package",
                "ibex-conformance",
                "--example",
                "scale",
                "--",
            ])
            .arg(args.pairs.to_string())
            .env("IBEX_SOFT_LINK", &args.link),
    )
}
