//! What the engine reports: requests, answers, ends.

use ibex_wire::mad::{
    CmaHeader, CommId, Drep, Dreq, Gid, Guid, Mra, Private, Rej, RejectReason, Rep, Rtu, ServiceId, SidrRep,
    SidrStatus, TransportService, Which,
};
use ibex_wire::{Psn, Qkey, Qpn};

use super::Path;

/// A connection of this engine, from `connect` or a request until its last event or `release`. The number is also its name on
/// the wire, and is not used again soon.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ConnId(pub(super) CommId);

impl ConnId {
    /// Its name on the wire.
    pub fn comm_id(self) -> CommId {
        self.0
    }
}

/// A service ID resolution of this engine, asked or answered.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SidrId(pub(super) CommId);

/// A listener of this engine.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ListenerId(pub(super) u32);

/// Something happened. Events of one connection come in the order they happened; "last" means that the connection is
/// gone and its [`ConnId`] unknown from then on.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// Somebody asks a listener for a connection. Answer with `reply` or `reject`, in the peer's time; say `taken` when the
    /// program has it, or `mra` if the answer takes longer.
    Request {
        /// Who is asked.
        listener: ListenerId,
        /// The connection in the making.
        conn: ConnId,
        /// What is asked for.
        request: Box<Request>,
    },
    /// The peer accepted: move the queue pair to RTS by [`Cm::attributes`](super::Cm::attributes), then say `ready`.
    Reply {
        /// The connection.
        conn: ConnId,
        /// How it was accepted.
        reply: Box<Reply>,
    },
    /// The caller is ready too; data may flow. Accepting side only, once.
    Established {
        /// The connection.
        conn: ConnId,
        /// The caller's private data; none if the host knew it from arriving data
        /// ([`Cm::communication_established`](super::Cm::communication_established)).
        private: Option<Private<{ Rtu::PRIVATE }>>,
    },
    /// The peer has the message and needs more time. For information.
    Delayed {
        /// The connection.
        conn: ConnId,
        /// Which message.
        which: Which,
        /// The peer's.
        private: Private<{ Mra::PRIVATE }>,
    },
    /// Refused, or given up by the peer. Last, unless a connection was established: then
    /// [`TimewaitExit`](Event::TimewaitExit) follows.
    Rejected {
        /// The connection.
        conn: ConnId,
        /// Why.
        reason: RejectReason,
        /// Additional information, up to 72 bytes.
        info: Vec<u8>,
        /// The peer's.
        private: Private<{ Rej::PRIVATE }>,
    },
    /// No answer to a request (`Which::REQ`) or a reply (`Which::REP`), as often as it was sent. Last.
    Unreachable {
        /// The connection.
        conn: ConnId,
        /// What was not answered.
        which: Which,
    },
    /// The peer ends the connection. Stop the queue pair, then say `disconnect`, which answers.
    DisconnectRequested {
        /// The connection.
        conn: ConnId,
        /// The peer's.
        private: Private<{ Dreq::PRIVATE }>,
    },
    /// `disconnect` is complete: the peer answered, or asked at the same time, or never answered. TIMEWAIT begins.
    Disconnected {
        /// The connection.
        conn: ConnId,
        /// How it came.
        how: Disconnect,
    },
    /// No packet of the connection can be under way any more; the queue pair's numbers may be used again. Last.
    TimewaitExit {
        /// The connection.
        conn: ConnId,
    },
    /// Somebody asks which queue pair serves a listener's service. Answer with `sidr_reply`.
    SidrRequest {
        /// Who is asked.
        listener: ListenerId,
        /// The resolution.
        sidr: SidrId,
        /// What is asked for.
        request: Box<SidrRequest>,
    },
    /// The answer to a resolution. Last.
    SidrReply {
        /// The resolution.
        sidr: SidrId,
        /// The answer.
        reply: Box<SidrReply>,
    },
    /// No answer to a resolution. Last.
    SidrUnreachable {
        /// The resolution.
        sidr: SidrId,
    },
}

/// How a disconnection came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disconnect {
    /// The peer answered.
    Answered(Private<{ Drep::PRIVATE }>),
    /// The peer asked for it at the same time.
    Crossed(Private<{ Dreq::PRIVATE }>),
    /// The peer asked, and this end answered.
    Agreed,
    /// The peer knows no such connection, or refused it.
    Refused(RejectReason),
    /// The peer never answered.
    TimedOut,
}

/// A request for a connection, seen from the end that is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// From the end that is asked: `local` is the address that was asked, `remote` the one that asks.
    pub path: Path,
    /// What is asked for.
    pub service: ServiceId,
    /// The header of librdmacm's services, if the service is one of them.
    pub cma: Option<CmaHeader>,
    /// The kind of queue pair.
    pub transport: TransportService,
    /// The peer's adapter.
    pub remote_ca_guid: Guid,
    /// The peer's queue pair.
    pub remote_qpn: Qpn,
    /// The sequence number with which this end is to begin.
    pub starting_psn: Psn,
    /// READs and atomics the peer wants to have outstanding: the most `responder_resources` of the answer.
    pub responder_resources: u8,
    /// READs and atomics the peer is willing to answer: the most `initiator_depth` of the answer.
    pub initiator_depth: u8,
    /// Transport retries for this end.
    pub retry_count: u8,
    /// Receiver-not-ready retries for this end.
    pub rnr_retry_count: u8,
    /// Whether the peer generates end-to-end credits.
    pub flow_control: bool,
    /// Whether the peer's queue pair receives from a shared receive queue.
    pub srq: bool,
    /// The peer's: 92 bytes, or the 56 after the header.
    pub private: Vec<u8>,
}

/// An acceptance, seen from the end that called.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// The peer's adapter.
    pub remote_ca_guid: Guid,
    /// The peer's queue pair.
    pub remote_qpn: Qpn,
    /// The sequence number with which this end is to begin.
    pub starting_psn: Psn,
    /// READs and atomics the peer will have outstanding: what this end answers.
    pub responder_resources: u8,
    /// READs and atomics the peer will answer: what this end may have outstanding.
    pub initiator_depth: u8,
    /// How long the peer's adapter takes to acknowledge, 4.096 µs × 2^this.
    pub target_ack_delay: u8,
    /// Whether the peer generates end-to-end credits.
    pub flow_control: bool,
    /// Receiver-not-ready retries for this end.
    pub rnr_retry_count: u8,
    /// Whether the peer's queue pair receives from a shared receive queue.
    pub srq: bool,
    /// The peer's.
    pub private: Private<{ Rep::PRIVATE }>,
}

/// A request for a resolution.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SidrRequest {
    /// The address that was asked.
    pub local: Gid,
    /// The address that asks.
    pub remote: Gid,
    /// What is asked for.
    pub service: ServiceId,
    /// The header of librdmacm's services, if the service is one of them.
    pub cma: Option<CmaHeader>,
    /// The peer's: 216 bytes, or the 180 after the header.
    pub private: Vec<u8>,
}

/// The answer to a resolution.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SidrReply {
    /// The outcome; the queue pair counts for success only.
    pub status: SidrStatus,
    /// The queue pair that serves.
    pub qpn: Qpn,
    /// Its key.
    pub qkey: Qkey,
    /// Additional information, up to 72 bytes.
    pub info: Vec<u8>,
    /// The peer's.
    pub private: Private<{ SidrRep::PRIVATE }>,
}
