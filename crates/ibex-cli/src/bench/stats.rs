//! From measured times to a row of the result.
//!
//! Owns the histogram and the arithmetic: percentiles, messages per second, GB/s (10^9 bytes).

use std::time::Duration;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::plan::Op;

/// One line of the result. The names are the JSON keys that users' scripts read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) op: Op,
    pub(crate) bytes: u64,
    /// Messages measured, warm-up excluded.
    pub(crate) iters: u64,
    pub(crate) p50_ns: u64,
    pub(crate) p99_ns: u64,
    pub(crate) p999_ns: u64,
    pub(crate) msgs_per_s: f64,
    pub(crate) gbytes_per_s: f64,
    /// Messages that were lost, failed, or did not contain what was sent.
    pub(crate) errors: u64,
}

/// Times and counts of one measurement while it runs.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    times: Histogram<u64>,
    messages: u64,
    elapsed: Duration,
    pub(crate) errors: u64,
}

impl Tally {
    /// Nothing measured yet.
    pub(crate) fn new() -> Result<Self> {
        // Three digits: a percentile is right to a thousandth of itself.
        let times = Histogram::new(3).context("cannot make a histogram")?;
        Ok(Self { times, messages: 0, elapsed: Duration::ZERO, errors: 0 })
    }

    /// Notes the time of one message.
    pub(crate) fn time(&mut self, time: Duration) {
        // The histogram grows as needed; 64 bits of nanoseconds are 584 years.
        let _ = self.times.record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Notes one message that was alone on its way and took `time`.
    pub(crate) fn message(&mut self, time: Duration) {
        self.time(time);
        self.add(1, time);
    }

    /// Notes that `messages` in one direction took `elapsed` in all.
    pub(crate) fn add(&mut self, messages: u64, elapsed: Duration) {
        self.messages += messages;
        self.elapsed += elapsed;
    }

    /// Messages so far.
    pub(crate) fn messages(&self) -> u64 {
        self.messages
    }

    /// The row.
    pub(crate) fn row(&self, op: Op, bytes: usize) -> Row {
        let seconds = self.elapsed.as_secs_f64();
        let rate = if seconds > 0.0 { self.messages as f64 / seconds } else { 0.0 };
        Row {
            op,
            bytes: bytes as u64,
            iters: self.messages,
            p50_ns: self.times.value_at_quantile(0.5),
            p99_ns: self.times.value_at_quantile(0.99),
            p999_ns: self.times.value_at_quantile(0.999),
            msgs_per_s: rate,
            gbytes_per_s: rate * bytes as f64 / 1e9,
            errors: self.errors,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_and_rates() {
        let mut tally = Tally::new().unwrap();
        for ns in 1..=1000 {
            tally.time(Duration::from_nanos(ns));
        }
        tally.add(1000, Duration::from_millis(1));
        let row = tally.row(Op::SendLat, 64);
        assert_eq!((row.p50_ns, row.p99_ns, row.p999_ns, row.iters), (500, 990, 999, 1000));
        assert!((row.msgs_per_s - 1e6).abs() < 1.0);
        assert!((row.gbytes_per_s - 0.064).abs() < 1e-9);
    }

    #[test]
    fn the_keys_are_the_documented_ones() {
        let row = serde_json::to_value(Tally::new().unwrap().row(Op::SendLat, 64)).unwrap();
        let keys: Vec<&String> = row.as_object().unwrap().keys().collect();
        let mut expected =
            ["op", "bytes", "iters", "p50_ns", "p99_ns", "p999_ns", "msgs_per_s", "gbytes_per_s", "errors"];
        expected.sort_unstable();
        assert_eq!(keys, expected);
        assert_eq!(row["op"], "send_lat");
    }
}
