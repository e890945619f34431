//! Debian's unmodified C programs as witnesses of the software device: `cargo xtask interop`.
//!
//! Every case is a program of `ibverbs-utils`, `perftest` or `rdmacm-utils`, run as two processes, server and client,
//! with the drop-in libraries in `LD_LIBRARY_PATH`:
//! - on this machine, the device on both ends: over the host link, over the wire link, in two network namespaces, over
//!   two addresses, and IPv6;
//! - in the virtual machine of [`crate::vm`], the device in a network namespace at one end and the kernel's rxe, with
//!   the system's libraries, at the other; both ways, without and with 1 % packet loss.
//!
//! [`cases`] is the list; [`link`] says where the two ends run; [`command`] makes command lines of both; [`process`] runs
//! them within a bound; [`verdict`] judges exit codes and output; [`report`] keeps `docs/interop.md`; [`lab`] repeats it
//! all inside the virtual machine, where this very program runs with `--in-guest`.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::{dropin, util};

mod cases;
mod command;
mod lab;
mod link;
mod process;
mod report;
mod verdict;

use cases::Case;
use link::{Link, Namespaces};
use report::Row;

/// Run Debian's C programs over the drop-in libraries.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A few cases of each kind, 6.1 as the only kernel; `docs/interop.md` is compared and not written.
    #[arg(long)]
    quick: bool,
    /// Leave out the cases against the kernel's rxe in a virtual machine.
    #[arg(long)]
    no_vm: bool,
    /// Kernel series of the virtual machine, instead of 6.1 and, without --quick, 6.12.
    #[arg(long, value_name = "SERIES")]
    kernel: Option<lab::Kernel>,
    /// Run the cases with rxe and the system's libraries at both ends instead, to learn whether the cases themselves ask
    /// for what the programs can do; nothing is compared or written.
    #[arg(long, conflicts_with = "no_vm")]
    reference: bool,
    /// Keep the drop-in libraries as they are, instead of building them.
    #[arg(long)]
    no_build: bool,
    /// Run each case so often, until it fails: for a failure that is not met every time.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    times: u32,
    /// Show the output of both processes of every case.
    #[arg(long, short)]
    verbose: bool,
    /// Only cases whose line contains this text, for example "ib_write_bw" or "rxe 6.1"; words are all needed.
    filter: Option<String>,
    /// Run the cases of the links with this share of lost packets, inside the virtual machine.
    #[arg(long, hide = true, value_name = "LOSS")]
    in_guest: Option<u32>,
}

/// Packages of the programs.
const PACKAGES: [&str; 3] = ["ibverbs-utils", "perftest", "rdmacm-utils"];

/// Runs the cases, writes or compares the table of results.
///
/// # Errors
/// If anything cannot be built or started, or any case fails.
pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(loss) = args.in_guest {
        return lab::inside(args, loss);
    }
    util::apt(&PACKAGES)?;
    util::apt(&["iproute2"])?;
    if args.reference {
        return lab::reference(args);
    }
    if !args.no_build {
        dropin::run(&dropin::Args { check: true })?;
    }
    let mut rows = Vec::new();
    let namespaces = Namespaces::create()?;
    for link in Link::local(&namespaces)? {
        rows.extend(run_link(&link, args, &mut |row| println!("{row}"))?);
    }
    if !args.no_vm {
        for series in lab::series(args) {
            rows.extend(lab::run(series, args)?);
        }
    }
    finish(args, &rows)
}

/// Every case of one link that the arguments ask for; each row is passed on as soon as it is known.
fn run_link(link: &Link, args: &Args, tell: &mut dyn FnMut(&Row)) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for case in cases::all(link) {
        if (args.quick && !case.quick) || !wanted(&case, link, args) {
            continue;
        }
        for _ in 0..args.times {
            let (outcome, took) = process::run(&case, link)?;
            let row = Row::new(&case, link, &outcome, took);
            if args.verbose {
                eprintln!("{}", outcome.transcript);
            }
            tell(&row);
            rows.push(row);
            if outcome.failure.is_some() {
                break;
            }
        }
    }
    Ok(rows)
}

fn wanted(case: &Case, link: &Link, args: &Args) -> bool {
    args.filter.as_ref().is_none_or(|filter| {
        let line = format!("{} {}", case.line(), link.name());
        filter.split_whitespace().all(|word| line.contains(word))
    })
}

/// The closing line, the verdict, the table.
fn finish(args: &Args, rows: &[Row]) -> Result<()> {
    judge(rows)?;
    let complete =
        !args.quick && !args.no_vm && args.filter.is_none() && args.kernel.is_none() && args.times == 1;
    if complete { report::write(rows) } else { report::compare(rows) }
}

/// The closing line and every failure.
fn judge(rows: &[Row]) -> Result<()> {
    let failed: Vec<&Row> = rows.iter().filter(|row| row.failure.is_some()).collect();
    let took: Duration = rows.iter().map(|row| row.took).sum();
    println!("{} passed, {} failed, {:.0} s", rows.len() - failed.len(), failed.len(), took.as_secs_f64());
    let repeated: u32 = rows.iter().map(|row| row.repeated).sum();
    if repeated > 0 {
        println!("{repeated} runs did not count: rxe left, and its last word was lost");
    }
    if !failed.is_empty() {
        for row in &failed {
            println!("\n{row}\n{}", row.failure.as_deref().unwrap_or_default());
        }
        bail!("{} of {} cases failed", failed.len(), rows.len());
    }
    if rows.is_empty() {
        bail!("no case was run: nothing matches the filter");
    }
    Ok(())
}
