//! The engine: commands in, datagrams and events out.

use std::collections::VecDeque;

use ibex_wire::mad::{Gid, MAD_LEN, TransportService};
use ibex_wire::{Psn, Qpn};

use super::{
    CmConfig, CmError, ConnId, ConnState, ConnectParams, Event, ListenParams, ListenerId, Path, RejectParams, ReplyParams,
    SidrId, SidrParams, SidrReplyParams,
};
use crate::Nanos;

/// A datagram to send: as a UD SEND from queue pair 1 to queue pair 1, with the key
/// [`GSI_QKEY`](ibex_wire::mad::GSI_QKEY).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transmit {
    /// The address to send from.
    pub local: Gid,
    /// The address to send to.
    pub remote: Gid,
    /// The payload.
    pub mad: [u8; MAD_LEN],
}

/// What a queue pair needs to know to be moved to RTR and RTS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attributes {
    /// The way to the peer.
    pub path: Path,
    /// The kind of queue pair.
    pub transport: TransportService,
    /// The peer's queue pair.
    pub remote_qpn: Qpn,
    /// RTR: the sequence number expected first.
    pub rq_psn: Psn,
    /// RTS: the sequence number of the first request.
    pub sq_psn: Psn,
    /// RTR, RC only: READs and atomics of the peer to answer at once.
    pub max_dest_rd_atomic: u8,
    /// RTS, RC only: READs and atomics to have outstanding.
    pub max_rd_atomic: u8,
    /// RTS, RC only.
    pub retry_count: u8,
    /// RTS, RC only.
    pub rnr_retry_count: u8,
    /// RTS, RC only: local acknowledgement timeout, 4.096 µs × 2^this (5 bits).
    pub ack_timeout: u8,
}

/// Numbers since the engine was made.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counters {
    /// Datagrams received.
    pub received: u64,
    /// Datagrams sent, repetitions included.
    pub sent: u64,
    /// Repetitions for want of an answer.
    pub repeated: u64,
    /// Received messages that had been received before.
    pub duplicates: u64,
    /// Received datagrams that are no messages of this kind, or belong to no connection here.
    pub ignored: u64,
    /// Requests dropped because the backlog or the table was full.
    pub overflow: u64,
}

/// One process's connection management.
///
/// After any command and any `handle_…`: drain [`poll_transmit`](Cm::poll_transmit) and [`poll_event`](Cm::poll_event), then ask
/// [`poll_timeout`](Cm::poll_timeout) and call [`handle_timeout`](Cm::handle_timeout) at that time. `now` must not go backwards.
#[derive(Debug)]
pub struct Cm {
    config: CmConfig,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    counters: Counters,
}
