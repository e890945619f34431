//! `cargo xtask vm-bench`: perftest on the software device and on the kernel's rxe, in one boot of one machine.
//!
//! Between two processes of one host, each on a processor of its own, rxe's packets turn round inside the kernel and the
//! software device (drop-in libraries, a network namespace of its own) has its host link and its wire link; between two
//! addresses joined by a veth pair both are on a wire. Time is emulated, so only ratios within one boot mean anything;
//! rounds alternate, and the best of each counts, since emulation only ever adds.
//!
//! See perftest's `ib_send_lat` (column `t_typical`) and `ib_write_bw` (column `BW average`).

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::guest::{Guest, quote};
use super::kernel::Series;
use crate::{dropin, util};

/// Rounds of each program on each device.
const ROUNDS: usize = 3;
/// Wall clock of the machine; a minute on an idle host.
const LIMIT: Duration = Duration::from_secs(1200);

/// What is compared, and how it is told.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Keep the drop-in libraries as they are, instead of building them.
    #[arg(long)]
    no_build: bool,
    /// Fail if a ratio misses the project's limit.
    #[arg(long)]
    check: bool,
}

/// A ratio of the software device to rxe, and its limit.
struct Row {
    name: &'static str,
    program: &'static str,
    ibex: &'static str,
    rxe: &'static str,
    limit: f64,
}

/// How many times better than rxe: latency of rxe by that of ibex, bandwidth of ibex by that of rxe. A device in user space
/// pays system calls on the wire that rxe does not, and twice the latency is allowed there.
const ROWS: [Row; 6] = [
    Row { name: "host_send_lat", program: "ib_send_lat", ibex: "host", rxe: "rxe", limit: 5.0 },
    Row { name: "host_write_bw", program: "ib_write_bw", ibex: "host", rxe: "rxe", limit: 5.0 },
    Row { name: "wire_send_lat", program: "ib_send_lat", ibex: "wire", rxe: "rxe", limit: 0.5 },
    Row { name: "wire_write_bw", program: "ib_write_bw", ibex: "wire", rxe: "rxe", limit: 1.0 },
    Row { name: "veth_send_lat", program: "ib_send_lat", ibex: "veth", rxe: "rxe-veth", limit: 0.5 },
    Row { name: "veth_write_bw", program: "ib_write_bw", ibex: "veth", rxe: "rxe-veth", limit: 1.0 },
];

/// One measured value.
#[derive(Clone, Debug, PartialEq)]
struct Sample {
    program: String,
    link: String,
    value: f64,
}

/// Boots, measures, prints, judges.
///
/// # Errors
/// If anything cannot be built or run, a program printed no result, or (with `--check`) a limit is missed.
pub(crate) fn run(args: &Args) -> Result<()> {
    util::apt(&["perftest", "util-linux"])?;
    if !args.no_build {
        dropin::run(&dropin::Args { check: false })?;
    }
    let guest = Guest::prepare(Series::V6_1)?.limit(LIMIT).echo(false).echo_errors(!args.json);
    let output = guest.run(&script()?)?;
    ensure!(output.code == 0, "the machine's script ended with code {}:\n{}", output.code, output.stderr);
    let samples: Vec<Sample> = output.stdout.lines().filter_map(parse).collect();
    let mut missed = Vec::new();
    let mut object = serde_json::Map::new();
    let mut table = format!("{}, one boot\n", guest.kernel().package);
    for row in &ROWS {
        let (ibex, rxe) = (best(&samples, row.program, row.ibex)?, best(&samples, row.program, row.rxe)?);
        let lower_is_better = is_latency(row.program);
        let ratio = if lower_is_better { rxe / ibex } else { ibex / rxe };
        let unit = if lower_is_better { "µs" } else { "MiB/s" };
        let mark = if ratio < row.limit { "  missed" } else { "" };
        table.push_str(&format!(
            "{:12} {:5} {ibex:>9.2} {unit:5}  rxe {rxe:>9.2} {unit:5}  {ratio:>6.2} times as good, limit {:.1}{mark}\n",
            row.program, row.ibex, row.limit
        ));
        object.insert(row.name.to_owned(), ((ratio * 100.0).round() / 100.0).into());
        if ratio < row.limit {
            missed.push(format!("{} is {ratio:.2} times as good as rxe, {:.1} wanted", row.name, row.limit));
        }
    }
    if args.json {
        println!("{}", serde_json::Value::Object(object));
    } else {
        print!("{table}");
    }
    if args.check && !missed.is_empty() {
        bail!("{}", missed.join("; "));
    }
    Ok(())
}

fn is_latency(program: &str) -> bool {
    program.ends_with("_lat")
}

/// The best of all rounds.
fn best(samples: &[Sample], program: &str, link: &str) -> Result<f64> {
    let values = samples.iter().filter(|sample| sample.program == program && sample.link == link);
    let values = values.map(|sample| sample.value);
    let best = if is_latency(program) { values.reduce(f64::min) } else { values.reduce(f64::max) };
    best.with_context(|| format!("{program} printed no result over {link}"))
}

/// A line `program link row`, in which the row is perftest's: bytes, iterations, then figures. A latency is the typical
/// one, the fifth column; a bandwidth the average, the fourth.
fn parse(line: &str) -> Option<Sample> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [program, link, bytes, iterations, figures @ ..] = words.as_slice() else { return None };
    (bytes.parse::<u64>().is_ok() && iterations.parse::<u64>().is_ok()).then_some(())?;
    let value = figures.get(if is_latency(program) { 2 } else { 1 })?.parse().ok()?;
    Some(Sample { program: (*program).to_owned(), link: (*link).to_owned(), value })
}

/// Runs every program over every link, [`ROUNDS`] times.
fn script() -> Result<String> {
    let libraries = dropin::folder().canonicalize().context("the drop-in libraries are not built")?;
    Ok(format!(
        "setup_rxe_dummy && setup_rxe_wire || exit 1\nlibraries={}\nrounds={ROUNDS}\n{}",
        quote(&libraries.to_string_lossy()),
        include_str!("../../../tests/vm/bench.sh")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_perftest_are_read() {
        let latency = "ib_send_lat rxe 64 1000 10.5 99.0 12.25 13.0 1.0 20.0 99.0";
        let wanted =
            |program: &str, value| Sample { program: program.to_owned(), link: "rxe".to_owned(), value };
        assert_eq!(parse(latency), Some(wanted("ib_send_lat", 12.25)));
        let bandwidth = "ib_write_bw rxe 65536 1000 50.2 43.5 0.0007";
        assert_eq!(parse(bandwidth), Some(wanted("ib_write_bw", 43.5)));
        assert_eq!(parse("ib_write_bw rxe"), None);
        assert_eq!(parse("ib_write_bw rxe Couldn't connect to it"), None);
    }

    #[test]
    fn the_best_round_counts() {
        let samples: Vec<Sample> = ["ib_send_lat host 64 9 1 9 3.0 4", "ib_send_lat host 64 9 1 9 2.0 4"]
            .into_iter()
            .filter_map(parse)
            .collect();
        assert_eq!(best(&samples, "ib_send_lat", "host").ok(), Some(2.0));
        assert!(best(&samples, "ib_send_lat", "wire").is_err());
    }
}
