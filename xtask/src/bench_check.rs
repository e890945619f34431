//! `cargo xtask bench-check`: runs `ibex bench --quick --json` and holds its figures against the project's limits.
//!
//! The limits are ratios to a reference measured in the same run where that is possible; the one absolute limit is far
//! below what a small machine reaches. Errors are never tolerated. A noisy neighbour may spoil one run, so a figure
//! counts as missed only when it is missed in each of [`RUNS`] runs; errors count at once.

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::util;

/// Runs before a missed figure is believed.
const RUNS: usize = 3;
/// SEND of 64 bytes may take this many times as long as UDP's round trip in the same run.
const SEND_TO_UDP: f64 = 2.0;
/// WRITE bandwidth at 1 MiB, GB/s.
const WRITE_BW: f64 = 1.5;

/// No options: the limits are the project's.
#[derive(clap::Args)]
pub(crate) struct Args {}

#[derive(Deserialize)]
struct Report {
    device: String,
    results: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    op: String,
    bytes: u64,
    iters: u64,
    p50_ns: f64,
    gbytes_per_s: f64,
    errors: u64,
}

impl Report {
    fn row(&self, op: &str, bytes: u64) -> Result<&Row> {
        self.results
            .iter()
            .find(|row| row.op == op && row.bytes == bytes)
            .with_context(|| format!("the report has no {op} at {bytes} bytes"))
    }
}

/// Figures that were missed, each as a sentence; errors in the data are an error at once.
fn judge(report: &Report) -> Result<Vec<String>> {
    for op in [
        "send_lat",
        "write_lat",
        "read_lat",
        "atomic_lat",
        "send_bw",
        "write_bw",
        "read_bw",
        "udp_lat",
        "tcp_lat",
        "tcp_bw",
    ] {
        let rows: Vec<&Row> = report.results.iter().filter(|row| row.op == op).collect();
        ensure!(!rows.is_empty(), "the report has no {op}");
        for row in rows {
            ensure!(row.iters > 0, "{op} at {} bytes measured nothing", row.bytes);
            ensure!(row.errors == 0, "{op} at {} bytes: {} errors", row.bytes, row.errors);
        }
    }
    let send = report.row("send_lat", 64)?.p50_ns;
    let udp = report.row("udp_lat", 64)?.p50_ns;
    let write = report.row("write_bw", 1 << 20)?.gbytes_per_s;
    println!(
        "{}: SEND 64 B p50 {send:.0} ns, UDP {udp:.0} ns, ratio {:.2} (limit {SEND_TO_UDP}); WRITE 1 MiB {write:.2} GB/s (limit {WRITE_BW})",
        report.device,
        send / udp
    );
    let mut missed = Vec::new();
    if send > SEND_TO_UDP * udp {
        missed.push(format!("SEND of 64 bytes took {:.2} times as long as UDP", send / udp));
    }
    if write < WRITE_BW {
        missed.push(format!("WRITE of 1 MiB moved {write:.2} GB/s"));
    }
    Ok(missed)
}

/// Runs the benchmark until every figure holds, at most [`RUNS`] times.
pub(crate) fn run(_: &Args) -> Result<()> {
    let mut missed = Vec::new();
    for _ in 0..RUNS {
        let output = util::cmd("cargo")
            .args(["run", "--release", "--quiet", "--", "bench", "--quick", "--json"])
            .stderr(std::process::Stdio::inherit())
            .output()
            .context("cannot start cargo")?;
        ensure!(output.status.success(), "ibex bench ended with {}", output.status);
        let report: Report =
            serde_json::from_slice(&output.stdout).context("the report is not the JSON it should be")?;
        missed = judge(&report)?;
        if missed.is_empty() {
            return Ok(());
        }
    }
    bail!("missed in each of {RUNS} runs: {}", missed.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(send_ns: f64, write: f64, errors: u64) -> Report {
        let row = |op: &str, bytes, p50_ns, gbytes_per_s, errors| Row {
            op: op.to_owned(),
            bytes,
            iters: 1,
            p50_ns,
            gbytes_per_s,
            errors,
        };
        let mut results =
            vec![row("send_lat", 64, send_ns, 0.1, errors), row("write_bw", 1 << 20, 1.0, write, 0)];
        for op in
            ["write_lat", "read_lat", "atomic_lat", "send_bw", "read_bw", "udp_lat", "tcp_lat", "tcp_bw"]
        {
            results.push(row(op, 64, 1000.0, 1.0, 0));
        }
        Report { device: "ibex0".to_owned(), results }
    }

    #[test]
    fn figures_within_the_limits_pass() {
        assert!(judge(&report(1999.0, 1.6, 0)).unwrap().is_empty());
    }

    #[test]
    fn each_missed_figure_is_named() {
        assert_eq!(judge(&report(2001.0, 1.4, 0)).unwrap().len(), 2);
    }

    #[test]
    fn an_error_in_the_data_is_not_a_figure() {
        assert!(judge(&report(1.0, 9.0, 1)).is_err());
    }

    #[test]
    fn a_missing_row_is_an_error() {
        let mut report = report(1.0, 9.0, 0);
        report.results.retain(|row| row.op != "tcp_bw");
        assert!(judge(&report).is_err());
    }
}
