//! `cargo xtask soak`: random operations between processes on every link, with faults, processes killed and stopped.
//!
//! Owns the options. What a round does is `ibex_conformance::soak`'s.

use anyhow::{Result, bail};

use crate::util;

/// How long, and from which seed.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// No round is begun after this many seconds; at least one is run.
    #[arg(long, default_value_t = 1200)]
    seconds: u64,
    /// The first round's seed; each later one is one more [default: the time of day].
    #[arg(long)]
    seed: Option<u64>,
    /// Print every round.
    #[arg(long)]
    verbose: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    // Seeds below 2^16 give every round an address of its own.
    let now = || std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs() % (1 << 16));
    let seed = args.seed.unwrap_or_else(now);
    let mut command = util::cmd("cargo");
    command
        .args(["run", "--release", "--quiet", "--package", "ibex-conformance", "--example", "soak"])
        .env("IBEX_SOAK_SECONDS", args.seconds.to_string())
        .env("IBEX_SOAK_SEED", seed.to_string());
    if args.verbose {
        command.env("IBEX_SOAK_VERBOSE", "1");
    }
    if util::run(&mut command).is_err() {
        bail!("a round failed; the line that repeats it is above");
    }
    Ok(())
}
