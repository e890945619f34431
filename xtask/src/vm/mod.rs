//! Debian's stock kernels under emulation, with the kernel's software RDMA device: `cargo xtask vm`.
//!
//! The whole path, outermost first:
//! - [`suite`] builds the conformance binary, runs it on `rxe0` and judges what it printed by the [`ledger`] of known
//!   provider differences (`tests/vm/ledger.toml`); [`report`] reads the test runner's lines;
//! - [`mod@bench`] compares perftest on the software device and on rxe, in one boot (`cargo xtask vm-bench`);
//! - [`guest`] runs one shell script in the machine and returns its exit code and output: other tasks use this;
//! - [`qemu`] owns the process and its bounds, [`stream`] the marks in its output;
//! - [`kernel`] and [`initramfs`] provide what is booted, cached under `target/vm/`.
//!
//! The guest's side is `tests/vm/init.sh` (first process) and `tests/vm/lib.sh` (functions for scripts). Neither
//! KVM nor root is needed once the packages are installed.

use std::time::Duration;

use anyhow::Result;

pub(crate) mod bench;
pub(crate) mod guest;
mod initramfs;
pub(crate) mod kernel;
mod ledger;
mod qemu;
mod report;
mod stream;
mod suite;

pub(crate) use guest::{Guest, GuestOutput};
pub(crate) use kernel::Series;

/// Boots Debian's kernel in QEMU and runs the conformance suite on the kernel's rxe device.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kernel series to boot.
    #[arg(long, default_value = "6.1")]
    kernel: Choice,
    /// Seconds the whole machine may take, boot included.
    #[arg(long, default_value_t = 900, value_name = "SECONDS")]
    limit: u64,
    /// Keep the run's folder under target/vm/run: script, kernel messages, shared files.
    #[arg(long)]
    keep: bool,
    /// Show the output of the machine only if something is wrong.
    #[arg(long)]
    quiet: bool,
    /// Run this shell script instead of the suite; functions of tests/vm/lib.sh are at hand.
    #[arg(long, value_name = "SCRIPT", conflicts_with = "filters")]
    command: Option<String>,
    /// Test filter and other arguments of the test runner.
    #[arg(allow_hyphen_values = true, trailing_var_arg = true)]
    filters: Vec<String>,
}

/// Which kernels a command runs on.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Choice {
    #[value(name = "6.1")]
    V6_1,
    #[value(name = "6.12")]
    V6_12,
    All,
}

impl Choice {
    fn series(self) -> &'static [Series] {
        match self {
            Choice::V6_1 => &[Series::V6_1],
            Choice::V6_12 => &[Series::V6_12],
            Choice::All => &Series::ALL,
        }
    }
}

/// Runs the task; an error means that something differs from what the ledger says, or could not be run.
pub(crate) fn run(args: Args) -> Result<()> {
    let binary = match args.command {
        Some(_) => None,
        None => Some(suite::build()?),
    };
    let mut verdicts = Vec::new();
    for &series in args.kernel.series() {
        let guest =
            Guest::prepare(series)?.limit(Duration::from_secs(args.limit)).echo(!args.quiet).keep(args.keep);
        verdicts.push(match (&binary, &args.command) {
            (Some(binary), _) => suite::run(&guest, binary, &args.filters),
            (None, command) => run_script(&guest, command.as_deref().unwrap_or_default()),
        });
    }
    verdicts.into_iter().collect()
}

/// What was not shown while it ran, when `--quiet` hid it.
fn show(guest: &Guest, output: &GuestOutput) {
    if !guest.echoes() {
        print!("{}", output.stdout);
        eprint!("{}", output.stderr);
    }
}

/// Runs one script and passes its failure on.
fn run_script(guest: &Guest, script: &str) -> Result<()> {
    let output = guest.run(script)?;
    eprintln!(
        "vm: {} was ready after {:.1} s, ended after {:.1} s",
        guest.kernel().package,
        output.ready.as_secs_f64(),
        output.total.as_secs_f64()
    );
    if output.code != 0 {
        show(guest, &output);
        anyhow::bail!("the script ended with exit code {}", output.code);
    }
    Ok(())
}
