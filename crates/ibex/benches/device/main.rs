//! The software device between two spinning processes, measured through the C interface: what `cargo xtask bench-device`
//! runs and judges.
//!
//! Requests are built and posted, and completions polled, by the raw verbs; memory is a shared region of the library, so
//! that whatever the device makes of such memory applies. Every payload is verified, and the reference of each figure
//! (UDP, memcpy) is measured in the same run, by the same two processes, in turns with it.
//!
//! - `end`: one side's device, memory and queue pair; `peer`: the other process; `place`: a core for each
//! - `latency`: round trips by WRITE, SEND and UDP; `rate`: messages per second; `bulk`: bandwidth; `alone`: one process
//!
//! Arguments: a row (`host`, `wire`, `bulk`, `direct`) and perhaps `--quick`. Prints one JSON object of figures. The link is
//! chosen by `IBEX_SOFT_LINK`, loss by `IBEX_SOFT_LOSS`. Without arguments it lists the rows, so that `cargo bench` has
//! something to say.

#![allow(missing_docs, reason = "a program")]

mod alone;
mod bulk;
mod end;
mod latency;
mod pattern;
mod peer;
mod place;
mod rate;

use peer::{Peer, Role};

/// Any failure ends the benchmark with its words.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Amount {
    /// Batches of a latency.
    batches: u64,
    /// Messages of a rate.
    messages: u64,
    /// Bytes of one round of a bandwidth, and rounds.
    round: u64,
    rounds: u64,
}

const WHOLE: Amount = Amount { batches: 1000, messages: 4_000_000, round: 512 << 20, rounds: 9 };
const QUICK: Amount = Amount { batches: 300, messages: 1_000_000, round: 128 << 20, rounds: 5 };

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let amount = if args.iter().any(|arg| arg == "--quick") { QUICK } else { WHOLE };
    let figures = match args.first().map(String::as_str) {
        Some("direct") => {
            place::settle(Role::Asking);
            alone::measure(amount)?
        }
        Some(row @ ("host" | "wire" | "bulk")) => {
            let answering = args.iter().any(|arg| arg == peer::ANSWER);
            let role = if answering { Role::Answering } else { Role::Asking };
            // Started first: it would inherit this side's core, and nothing but that.
            let mut peer = if answering { Peer::parent() } else { Peer::start(row, &args)? };
            place::settle(role);
            let figures = two(row, &mut peer, amount)?;
            peer.finish()?;
            if answering {
                return Ok(());
            }
            figures
        }
        _ => {
            println!("rows: host wire bulk direct; measured by `cargo xtask bench-device`");
            return Ok(());
        }
    };
    println!("{}", serde_json::Value::Object(figures));
    Ok(())
}

/// Figures by name; those of the answering side are empty but for errors.
type Figures = serde_json::Map<String, serde_json::Value>;

/// The rows of two processes. Both sides run through the same steps.
fn two(row: &str, peer: &mut Peer, amount: Amount) -> Result<Figures> {
    let mut figures = Figures::new();
    let mut errors = 0;
    {
        let mut put = |name: &str, measured: Measured| {
            errors += measured.errors;
            figures.insert(name.to_owned(), measured.value.into());
        };
        match row {
            "host" => {
                put("write_64_us", latency::write(peer, amount)?);
                put("send_64_us", latency::send(peer, amount)?);
                put("rate_64_mps", rate::send(peer, amount)?);
                for (name, size) in [("64k", 64 << 10), ("1m", 1 << 20)] {
                    let (write, copy) = bulk::write(peer, amount, size)?;
                    put(&format!("bw_{name}_gbytes_per_s"), write);
                    put(&format!("memcpy_{name}_gbytes_per_s"), copy);
                }
            }
            "wire" => {
                let (send, udp) = latency::send_and_udp(peer, amount)?;
                put("rtt_64_us", send);
                put("udp_rtt_64_us", udp);
            }
            // Every other row is refused before.
            _ => put("bulk_gbytes_per_s", bulk::write(peer, amount, 1 << 20)?.0),
        }
    }
    errors += peer.sum_errors(errors)?;
    figures.insert("errors".to_owned(), errors.into());
    Ok(figures)
}

/// One figure and how many messages were wrong.
#[derive(Clone, Copy, Debug)]
struct Measured {
    value: f64,
    errors: u64,
}

/// The middle of some values; those of the first tenth are left out, they warm up.
fn median(values: &[f64]) -> f64 {
    let mut rest = values[values.len() / 10..].to_vec();
    rest.sort_by(f64::total_cmp);
    rest.get(rest.len() / 2).copied().unwrap_or_default()
}
