//! What is measured: operations, sizes, and how long each may take.
//!
//! Owns the choice only; the measurements are in `latency`, `bandwidth` and `reference`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::args::BenchArgs;

/// One kind of measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Op {
    SendLat,
    WriteLat,
    ReadLat,
    AtomicLat,
    SendBw,
    WriteBw,
    ReadBw,
    UdpLat,
    TcpLat,
    TcpBw,
}

impl Op {
    /// In the order in which results are printed.
    pub(crate) const ALL: [Self; 10] = [
        Self::SendLat,
        Self::WriteLat,
        Self::ReadLat,
        Self::AtomicLat,
        Self::SendBw,
        Self::WriteBw,
        Self::ReadBw,
        Self::UdpLat,
        Self::TcpLat,
        Self::TcpBw,
    ];

    /// As it is written in results and on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::SendLat => "send_lat",
            Self::WriteLat => "write_lat",
            Self::ReadLat => "read_lat",
            Self::AtomicLat => "atomic_lat",
            Self::SendBw => "send_bw",
            Self::WriteBw => "write_bw",
            Self::ReadBw => "read_bw",
            Self::UdpLat => "udp_lat",
            Self::TcpLat => "tcp_lat",
            Self::TcpBw => "tcp_bw",
        }
    }

    /// Whether it can be measured at this size.
    fn fits(self, bytes: usize) -> bool {
        match self {
            // An atomic is 8 bytes; it is measured once.
            Self::AtomicLat => bytes == ATOMIC,
            Self::UdpLat => bytes <= LARGEST_DATAGRAM,
            _ => true,
        }
    }

    /// Whether it measures throughput.
    pub(crate) const fn is_bandwidth(self) -> bool {
        matches!(self, Self::SendBw | Self::WriteBw | Self::ReadBw | Self::TcpBw)
    }
}

/// Bytes of an atomic operation.
pub(crate) const ATOMIC: usize = 8;
/// UDP over IPv4: 65 535 less 20 bytes of IP header and 8 of UDP header.
const LARGEST_DATAGRAM: usize = 65_507;
/// `--quick` ends in under ten seconds; this is what its measurements share, the rest is for starting up.
const QUICK_TOTAL: Duration = Duration::from_millis(6500);
/// The time of one measurement without `--quick`.
const FULL_EACH: Duration = Duration::from_millis(400);
/// No measurement is shorter than this, whatever is left.
const LEAST: Duration = Duration::from_millis(20);
/// `--quick` measures these sizes: the smallest, a common small one, a page, and two large ones.
const QUICK_SIZES: [usize; 5] = [2, 64, 4096, 65536, 1 << 20];

/// Everything to measure.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// In the order of measurement: by size, so that a reference is measured next to what it is compared with.
    pub(crate) tests: Vec<(Op, usize)>,
    /// Exactly so many messages each.
    pub(crate) iters: Option<u64>,
    quick_until: Option<Instant>,
}

impl Plan {
    /// From the command line.
    ///
    /// # Errors
    /// When an operation's name is unknown.
    pub(crate) fn new(args: &BenchArgs) -> Result<Self> {
        let known = || Op::ALL.map(Op::name).join(", ");
        let find = |name: &String| {
            let op = Op::ALL.into_iter().find(|op| op.name() == name);
            op.with_context(|| format!("there is no measurement {name:?}; there are {}", known()))
        };
        let mut ops = args.ops.iter().map(find).collect::<Result<Vec<Op>>>()?;
        if ops.is_empty() {
            ops = Op::ALL.to_vec();
        }
        // Interleaved as far as possible: what is compared lies close together in time.
        ops.sort_by_key(|op| (op.is_bandwidth(), !matches!(op, Op::SendLat | Op::UdpLat), *op));
        ops.dedup();
        let mut sizes: Vec<usize> = args.sizes.iter().map(|size| *size as usize).collect();
        if sizes.is_empty() {
            sizes = if args.quick { QUICK_SIZES.to_vec() } else { (1..=20).map(|bit| 1 << bit).collect() };
        }
        sizes.sort_unstable();
        sizes.dedup();
        let mut tests = Vec::new();
        for size in sizes {
            tests
                .extend(ops.iter().filter(|op| **op != Op::AtomicLat && op.fits(size)).map(|op| (*op, size)));
        }
        if ops.contains(&Op::AtomicLat) {
            tests.push((Op::AtomicLat, ATOMIC));
        }
        let quick_until = args.quick.then(|| Instant::now() + QUICK_TOTAL);
        Ok(Self { tests, iters: args.iters, quick_until })
    }

    /// Leaves out what a device cannot do; whether it was there.
    pub(crate) fn remove(&mut self, op: Op) -> bool {
        let before = self.tests.len();
        self.tests.retain(|(test, _)| *test != op);
        self.tests.len() < before
    }

    /// The largest message.
    pub(crate) fn largest(&self) -> usize {
        self.tests.iter().map(|(_, size)| *size).max().unwrap_or(ATOMIC)
    }

    /// How long the next measurement may take when `left` remain, itself included.
    pub(crate) fn budget(&self, left: usize) -> Duration {
        let share = |until: Instant| {
            let rest = until.saturating_duration_since(Instant::now());
            (rest / u32::try_from(left.max(1)).unwrap_or(u32::MAX)).max(LEAST)
        };
        self.quick_until.map_or(FULL_EACH, share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser;

    fn plan(line: &str) -> Result<Plan> {
        let Command::Bench(args) = Cli::parse_from(line.split(' ')).command else { panic!("no bench") };
        Plan::new(&args)
    }

    #[test]
    fn quick_has_what_the_limits_are_about() {
        let plan = plan("ibex bench --quick").unwrap();
        for test in [(Op::SendLat, 64), (Op::UdpLat, 64), (Op::WriteBw, 1 << 20), (Op::AtomicLat, 8)] {
            assert!(plan.tests.contains(&test), "{test:?}");
        }
        assert!(!plan.tests.contains(&(Op::UdpLat, 1 << 20)));
        let send = plan.tests.iter().position(|test| *test == (Op::SendLat, 64)).unwrap();
        assert_eq!(plan.tests[send + 1], (Op::UdpLat, 64));
    }

    #[test]
    fn the_full_run_covers_two_bytes_to_one_mebibyte() {
        let plan = plan("ibex bench").unwrap();
        assert_eq!(plan.tests.iter().filter(|(op, _)| *op == Op::SendLat).count(), 20);
        assert_eq!(plan.largest(), 1 << 20);
        assert_eq!(plan.tests.iter().filter(|(op, _)| *op == Op::AtomicLat).count(), 1);
    }

    #[test]
    fn choices_are_taken_and_unknown_ones_named() {
        let plan_ = plan("ibex bench --ops udp_lat,send_lat --sizes 64,8").unwrap();
        assert_eq!(plan_.tests, [(Op::SendLat, 8), (Op::UdpLat, 8), (Op::SendLat, 64), (Op::UdpLat, 64)]);
        let error = plan("ibex bench --ops send").unwrap_err().to_string();
        assert!(error.contains("\"send\"") && error.contains("send_lat"), "{error}");
    }
}
