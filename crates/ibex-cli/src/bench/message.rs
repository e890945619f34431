//! The control messages of a benchmark.
//!
//! Owns their shape. The asking side decides everything; the answering side follows. Each measurement uses a queue pair of
//! its own, so that what breaks in one does not spoil the next.

use serde::{Deserialize, Serialize};

use super::plan::Op;
use crate::args::Wait;

/// Incremented when the messages change their meaning.
pub(crate) const VERSION: u32 = 1;

/// From the side that asks.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// First of all: how to wait, what the payloads are derived from, the largest message.
    Hello { version: u32, wait: Wait, seed: u64, largest: usize },
    /// The asking side's UDP port; its TCP connection is open.
    Sockets { udp: u16 },
    /// A measurement begins.
    Test(Test),
    /// Messages `first..first + count` are about to be sent: be ready for them.
    Go { first: u64, count: u64 },
    /// How many were wrong since the last time?
    Check,
    /// The measurement is over.
    Done,
    /// The benchmark is over.
    End,
}

/// One measurement.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Test {
    pub(crate) op: Op,
    pub(crate) bytes: usize,
    /// The asking side's queue pair, if the device is used.
    pub(crate) endpoint: Option<ibex::Endpoint>,
    /// The asking side's memory, if the answer goes there.
    pub(crate) region: Option<ibex::RemoteHandle>,
}

/// From the side that answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// To `Hello`: the ports to connect to.
    Hello { udp: u16, tcp: u16 },
    /// To `Sockets`: both are connected.
    Connected,
    /// To `Test`: set up, not yet posted to. The region is what the asking side may reach.
    Ready { endpoint: Option<ibex::Endpoint>, region: Option<ibex::RemoteHandle> },
    /// To `Go`.
    Going,
    /// To `Check`: how many were wrong.
    Checked { errors: u64 },
    /// To anything: it cannot be done.
    Failed(String),
}
