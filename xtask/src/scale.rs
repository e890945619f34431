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
    /// Fail if a SEND over all pairs in turn costs more than the project's limit.
    #[arg(long)]
    check: bool,
}

/// The limit: times what a SEND costs over one pair.
const MOST: &str = "1.3";

/// Runs that have to miss the limit for it to be believed: other programs on the machine only make it worse.
const RUNS: usize = 3;

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut command = util::cmd("cargo");
    command
        .args(["run", "--release", "--quiet", "--package", "ibex-conformance", "--example", "scale", "--"])
        .arg(args.pairs.to_string())
        .env("IBEX_SOFT_LINK", &args.link);
    if !args.check {
        return util::run(&mut command);
    }
    command.arg(MOST);
    (1..RUNS).find_map(|_| util::run(&mut command).ok()).map_or_else(|| util::run(&mut command), Ok)
}
