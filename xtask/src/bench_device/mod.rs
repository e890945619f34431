//! `cargo xtask bench-device`: the software device between two spinning processes, beside its references.
//!
//! Builds and runs the benchmark `device` of the crate `ibex` once for each link, puts the figures together and, with
//! `--check`, holds them against the project's limits. Figures and limits are in [`figures`]; [`ucx`] runs UCX beside it
//! where Debian's ucx-utils is installed.
//!
//! A payload that is not what was sent is an error at once. A figure counts as missed only when it is missed in each of
//! [`RUNS`] runs: a busy neighbour may spoil one.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::util;

mod figures;
mod ucx;

use figures::Report;

/// Runs before a missed figure is believed.
const RUNS: usize = 3;

/// What is measured, and how it is told.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Fewer messages: 10 s instead of a minute.
    #[arg(long)]
    quick: bool,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Hold the figures against the project's limits; a miss is believed after three runs.
    #[arg(long)]
    check: bool,
}

/// Measures, prints, judges.
///
/// # Errors
/// If the benchmark cannot be built or run, a payload was wrong, or (with `--check`) a limit is missed in every run.
pub(crate) fn run(args: &Args) -> Result<()> {
    let program = util::bench_binary("ibex", "device")?;
    let mut best: Option<Vec<figures::Verdict>> = None;
    let runs = if args.check { RUNS } else { 1 };
    for _ in 0..runs {
        let report = measure(&program, args.quick)?;
        let verdicts = report.verdicts();
        if args.json {
            println!("{}", serde_json::to_string(&report.json())?);
        } else {
            print!("{}", report.table());
        }
        let kept = best.take().map_or(verdicts.clone(), |before| figures::better(&before, &verdicts));
        let all_met = kept.iter().all(|verdict| verdict.met);
        best = Some(kept);
        if all_met {
            return Ok(());
        }
    }
    let missed: Vec<String> =
        best.unwrap_or_default().iter().filter(|verdict| !verdict.met).map(ToString::to_string).collect();
    if args.check && !missed.is_empty() {
        bail!("missed in each of {RUNS} runs: {}", missed.join("; "));
    }
    Ok(())
}

/// Every row of one run, one after the other.
fn measure(program: &Path, quick: bool) -> Result<Report> {
    let row = |name: &str, env: &[(&str, &str)]| row(program, name, env, quick);
    Ok(Report {
        host: row("host", &[])?,
        direct: row("direct", &[])?,
        wire: row("wire", &[("IBEX_SOFT_LINK", "wire")])?,
        bulk: row("bulk", &[("IBEX_SOFT_LINK", "wire")])?,
        bulk_loss: row("bulk", &[("IBEX_SOFT_LINK", "wire"), ("IBEX_SOFT_LOSS", "1")])?,
        ucx: ucx::measure(quick)?,
    })
}

/// Figures of one row.
fn row(program: &Path, name: &str, env: &[(&str, &str)], quick: bool) -> Result<Value> {
    let mut command = util::cmd(program);
    // The caller's choice of a link or of faults would measure something else.
    for variable in ["IBEX_SOFT_LINK", "IBEX_SOFT_LOSS", "IBEX_SOFT_DUP", "IBEX_SOFT_REORDER"] {
        command.env_remove(variable);
    }
    command.arg(name).envs(env.iter().copied()).stderr(Stdio::inherit());
    if quick {
        command.arg("--quick");
    }
    let output = command.output().context("cannot start the benchmark")?;
    ensure!(output.status.success(), "the benchmark {name} ended with {}", output.status);
    let figures: Value =
        serde_json::from_slice(&output.stdout).with_context(|| format!("{name} printed no figures"))?;
    let errors = figures["errors"].as_u64().with_context(|| format!("{name} did not count its errors"))?;
    ensure!(errors == 0, "{errors} messages of {name} were wrong");
    Ok(figures)
}
