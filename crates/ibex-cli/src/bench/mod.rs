//! `ibex bench`: latency and bandwidth between two processes, every payload verified, UDP and TCP beside it.
//!
//! Without a server the command starts its own second process: the same program with `--listen`, on this host. Layers:
//!
//! - `plan`: what is measured; `ask` and `answer`: the two sides; `message`: what they say to each other
//! - `latency`, `bandwidth`: over the device; `reference`: over sockets
//! - `session`: device, patterns and queue pairs of a run; `pattern`: payloads; `patience`: waits that end; `stats`: rows
//! - `second`: the second process; `cores`: where both run

mod answer;
mod ask;
mod bandwidth;
mod cores;
mod latency;
mod message;
mod patience;
mod pattern;
mod plan;
mod reference;
mod second;
mod session;
mod stats;

use std::io::IsTerminal;

use anyhow::{Context as _, Result, ensure};
use ibex::AtomicCap;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::args::{BenchArgs, DEFAULT_PORT, Wait};
use crate::control::Control;
use crate::output::{self, Align, Table};
use crate::{copy, device};
use cores::Side;
use plan::{Op, Plan};
use second::Second;
use stats::Row;

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    device: &'a str,
    results: &'a [Row],
}

/// First line of `--listen --json`.
#[derive(Serialize)]
struct Listening<'a> {
    listening: &'a str,
    device: &'a str,
}

/// Measures, or is the peer of a measurement.
///
/// # Errors
/// When the peer or the device fails, or any payload was wrong.
pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    match &args.listen {
        Some(address) => listen(args, address),
        None => measure(args),
    }
}

fn listen(args: &BenchArgs, address: &str) -> Result<()> {
    let listener = copy::listen(address)?;
    // What the device starts of its own shall be where this side is.
    let cores = cores::allowed();
    if args.once {
        cores::settle(Side::Answering, args.wait, &cores);
    }
    // The first process of a pair has said already what there is to say about the device.
    let context = device::open(args.device.as_deref(), args.once)?;
    let address = listener.local_addr().context("the socket has no address")?.to_string();
    let device = context.device().name();
    if args.json {
        output::print_json_line(&Listening { listening: &address, device })?;
    } else {
        output::print(&format!(
            "waiting on {address} with device {device}; end with Ctrl-C\nmeasure from elsewhere:  ibex bench {address}\n"
        ))?;
    }
    answer::serve(&listener, &context, args.once, &cores)
}

fn measure(args: &BenchArgs) -> Result<()> {
    let mut plan = Plan::new(args)?;
    ensure!(!plan.tests.is_empty(), "nothing to measure: no chosen operation exists at a chosen size");
    let (second, server) = match &args.server {
        Some(server) => (None, with_port(server)),
        None => {
            let mut second = Second::start(args.device.as_deref(), args.wait)?;
            let address = second.address()?;
            (Some(second), address)
        }
    };
    cores::settle(Side::Asking, args.wait, &cores::allowed());
    let context = device::open(args.device.as_deref(), args.json)?;
    if context.query_device()?.atomic_cap == AtomicCap::None && plan.remove(Op::AtomicLat) && !args.json {
        output::say(&format!(
            "ibex: device {} has no atomics; atomic_lat is left out",
            context.device().name()
        ));
    }
    let control = Control::connect(&server)?;
    let bar = progress(!args.json, plan.tests.len() as u64);
    let rows = ask::run(&control, &context, args.wait, &plan, |op, bytes| {
        bar.set_message(format!("{} {}", op.name(), output::bytes(bytes as u64)));
        bar.inc(1);
    });
    bar.finish_and_clear();
    let rows = rows?;
    drop(control);
    if let Some(second) = second {
        second.finish()?;
    }
    let device = context.device().name();
    if args.json {
        output::print_json(&Report { device, results: &rows })?;
    } else {
        output::print(&table(device, args.wait, &rows))?;
    }
    let errors: u64 = rows.iter().map(|row| row.errors).sum();
    ensure!(errors == 0, "{errors} messages were lost or wrong");
    Ok(())
}

/// What is being measured, on a terminal.
fn progress(visible: bool, tests: u64) -> ProgressBar {
    let visible = visible && std::io::stderr().is_terminal();
    let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(tests), target);
    bar.set_style(
        ProgressStyle::with_template("{pos}/{len}  {msg}").unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    bar
}

/// `HOST` or `HOST:PORT`.
fn with_port(server: &str) -> String {
    let has_port = server.rsplit_once(':').is_some_and(|(host, port)| {
        port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']'))
    });
    if has_port { server.to_owned() } else { format!("{server}:{DEFAULT_PORT}") }
}

fn table(device: &str, wait: Wait, rows: &[Row]) -> String {
    let mut table = Table::new(&[
        ("op", Align::Left),
        ("size", Align::Right),
        ("messages", Align::Right),
        ("p50", Align::Right),
        ("p99", Align::Right),
        ("p99.9", Align::Right),
        ("msgs/s", Align::Right),
        ("GB/s", Align::Right),
        ("errors", Align::Right),
    ]);
    for row in rows {
        table.row(vec![
            row.op.name().to_owned(),
            output::bytes(row.bytes),
            row.iters.to_string(),
            output::nanos(row.p50_ns),
            output::nanos(row.p99_ns),
            output::nanos(row.p999_ns),
            output::rate(row.msgs_per_s),
            format!("{:.3}", row.gbytes_per_s),
            row.errors.to_string(),
        ]);
    }
    let mode = match wait {
        Wait::Spin => "spinning",
        Wait::Block => "sleeping",
    };
    format!(
        "device {device}, two processes, both sides {mode}, every payload verified\n\
         send_lat, write_lat, udp_lat, tcp_lat: half the round trip; read_lat, atomic_lat: the whole operation\n\n{}{}",
        table.render(),
        comparison(rows)
    )
}

/// The figures most asked for, beside their reference.
fn comparison(rows: &[Row]) -> String {
    let find = |op: Op, bytes: u64| rows.iter().find(|row| row.op == op && row.bytes == bytes);
    let mut text = String::new();
    if let (Some(send), Some(udp)) = (find(Op::SendLat, 64), find(Op::UdpLat, 64)) {
        let ratio = send.p50_ns as f64 / udp.p50_ns.max(1) as f64;
        let (send, udp) = (output::nanos(send.p50_ns), output::nanos(udp.p50_ns));
        text.push_str(&format!("\nSEND of 64 B {send}, UDP {udp}: {} times", output::digits(ratio)));
    }
    if let (Some(write), Some(tcp)) = (find(Op::WriteBw, 1 << 20), find(Op::TcpBw, 1 << 20)) {
        let ratio = output::digits(write.gbytes_per_s / tcp.gbytes_per_s.max(f64::MIN_POSITIVE));
        let (write, tcp) = (output::digits(write.gbytes_per_s), output::digits(tcp.gbytes_per_s));
        text.push_str(&format!("\nWRITE of 1 MiB {write} GB/s, TCP {tcp} GB/s: {ratio} times"));
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::with_port;

    #[test]
    fn servers_get_a_port() {
        assert_eq!(with_port("db3"), "db3:7471");
        assert_eq!(with_port("db3:99"), "db3:99");
        assert_eq!(with_port("[::1]:99"), "[::1]:99");
        assert_eq!(with_port("[::1]"), "[::1]:7471");
    }
}
