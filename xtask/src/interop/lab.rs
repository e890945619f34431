//! The software device against the kernel's rxe, inside the virtual machine.
//!
//! On the host, [`run`] boots the machine with a script that makes both ends (`tests/vm/lib.sh`) and starts this very
//! program there with `--in-guest`; each row comes back as a line of JSON on standard output, and for the eye on standard
//! error. Inside, [`inside`] runs the cases of both directions at one share of lost packets.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::report::Row;
use super::{Args, Link, run_link};
use crate::util;
use crate::vm::{Guest, Series, guest::quote};

/// Choice on the command line.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum Kernel {
    #[value(name = "6.1")]
    V6_1,
    #[value(name = "6.12")]
    V6_12,
    /// Each series.
    All,
}

/// Shares of lost packets, per cent in each direction.
const LOSSES: [u32; 2] = [0, 1];

/// Wall clock for one machine: about 70 cases at a few emulated seconds each, and room for a crowded host.
const LIMIT: Duration = Duration::from_secs(2400);

/// The kernels that a run asks for: Debian 12's own in a quick one, each in a complete one.
pub(super) fn series(args: &Args) -> Vec<Series> {
    match args.kernel {
        Some(Kernel::V6_1) => vec![Series::V6_1],
        Some(Kernel::V6_12) => vec![Series::V6_12],
        None if args.quick => vec![Series::V6_1],
        Some(Kernel::All) | None => Series::ALL.to_vec(),
    }
}

/// Boots one kernel and runs its cases.
///
/// # Errors
/// If the machine cannot be had, or the cases do not all come back; a failed case is a row.
pub(super) fn run(series: Series, args: &Args) -> Result<Vec<Row>> {
    boot(series, &script(series, args)?)
}

/// Runs a script whose standard output is rows.
fn boot(series: Series, script: &str) -> Result<Vec<Row>> {
    let guest = Guest::prepare(series)?.limit(LIMIT).echo(false).echo_errors(true);
    println!("with {} in the virtual machine:", guest.kernel().package);
    let output = guest.run(script)?;
    let mut rows = Vec::new();
    for line in output.stdout.lines() {
        let row: Row = serde_json::from_str(line).with_context(|| format!("not a row: {line}"))?;
        rows.push(row);
    }
    ensure!(output.code == 0, "the cases in the virtual machine ended with code {}", output.code);
    Ok(rows)
}

/// The cases of one host with rxe at both ends.
///
/// # Errors
/// If the machine cannot be had or a case fails.
pub(super) fn reference(args: &Args) -> Result<()> {
    let series = args.kernel.map_or(vec![Series::V6_1], |_| series(args));
    for series in series {
        let run = command(series, args)?;
        let script = format!("{run} --reference --in-guest 0 || exit 1\n");
        super::judge(&boot(series, &format!("setup_rxe_dummy || exit 1\n{script}"))?)?;
    }
    Ok(())
}

/// This program, with the choices of `args`, as the machine starts it.
fn command(series: Series, args: &Args) -> Result<String> {
    let program = std::env::current_exe().context("cannot name this program")?;
    let target = quote(&util::target_dir().to_string_lossy());
    let program = quote(&program.to_string_lossy());
    let mut run = format!(
        "CARGO_TARGET_DIR={target} {program} interop --kernel {} --times {}",
        series.name(),
        args.times
    );
    if args.quick {
        run.push_str(" --quick");
    }
    if args.verbose {
        run.push_str(" --verbose");
    }
    if let Some(filter) = &args.filter {
        run.push_str(&format!(" {}", quote(filter)));
    }
    Ok(run)
}

/// Sets both ends up and runs this program once for each share of lost packets.
fn script(series: Series, args: &Args) -> Result<String> {
    let run = command(series, args)?;
    let mut script = "setup_netns_pair || exit 1\n".to_owned();
    for loss in LOSSES {
        script.push_str(&format!("set_loss {loss} || exit 1\n{run} --in-guest {loss} || exit 1\n"));
    }
    Ok(script)
}

/// Inside the machine: both directions at one share of lost packets, each row as a line of JSON on standard output.
///
/// # Errors
/// If a process cannot be started; a failed case is a row and no error.
pub(super) fn inside(args: &Args, loss: u32) -> Result<()> {
    let [series] = series(args)[..] else { bail!("--in-guest needs one --kernel") };
    let links =
        if args.reference { vec![Link::reference()] } else { Link::kernel(series.name(), loss)?.to_vec() };
    for link in links {
        run_link(&link, args, &mut |row| {
            // For whoever watches; the line of JSON is read when all is over. Plain data always has that form.
            eprintln!("{row}");
            println!("{}", serde_json::to_string(row).unwrap_or_default());
        })?;
    }
    Ok(())
}
