//! What a queue pair is told when it moves through its states.
//!
//! Grouped as the verbs group it: at creation, for INIT, for RTR, for RTS.

use ibex_wire::{Mtu, Pkey, Psn, Qpn};

use crate::{Nanos, RemoteAccess};

/// Fixed when the queue pair is made.
#[derive(Clone, Copy, Debug)]
pub struct RcCaps {
    /// This end's number.
    pub local_qpn: Qpn,
    /// Send requests that may be outstanding: posted, their completions not yet fetched. At least 1.
    pub sq_depth: u32,
    /// See [`Tuning`].
    pub tuning: Tuning,
}

/// Choices that both ends may make differently and that are not part of the verbs.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// The most packets in flight, 1 to 2^16. More fills longer paths; more than the peer's socket buffer holds
    /// costs retransmission. Default 256 (1 MiB at MTU 4096).
    pub max_window: u32,
    /// A READ is requested in pieces of this many packets, so that the window governs its responses too; 1 to
    /// 2^16. Larger means fewer requests, and longer bursts that the requester cannot stop. Default 32.
    pub read_chunk: u32,
    /// In a long message, ask for an acknowledgement every so many packets, and four times a window at least; 1 or more.
    /// Fewer keeps the window moving smoothly, more saves packets. Default 32.
    pub ack_every: u32,
    /// Requests up to so many numbers ahead of a missing one are kept until it comes, up to 2^16; 0 drops them, and the
    /// peer sends them again. Should be the peer's window; with less, much is sent again. Each takes up to the path MTU in
    /// memory while it is kept, 64 MiB in all queue pairs of a process together. Default 512.
    pub keep_ahead: u32,
    /// When nothing has been heard for so long (less while a loss is being repaired, more on a slow path), the oldest
    /// request is sent again to ask, without using up a retry; in nanoseconds. Has an effect where it is less than half of
    /// the timeout. Shorter repairs a lost tail sooner, and wakes the host more often while it waits. Default 4 ms.
    pub probe: Nanos,
    /// SENDs in a row of which no completion is asked for that need not be acknowledged one by one: no packet of theirs asks
    /// for it but every so many, or when the queue is half full, and silence is met with a probe. 0, the default, has each
    /// message acknowledged. For peers that acknowledge the rest when they close, see
    /// [`acknowledge_all`](crate::Qp::acknowledge_all).
    pub sparse_acks: u32,
    /// The peer is known to repeat only what is missing, as this requester does. Then a message is acknowledged to its end
    /// as soon as it is whole. Any other peer may be in the middle of repeating it: the last packet of several is then
    /// acknowledged when it is repeated, and this requester expects the same of the peer. Default false.
    ///
    /// Linux' rxe for one takes such an acknowledgement, does not complete the message, and stops its timer. If the next
    /// acknowledgement is lost, it waits for ever.
    pub peer_repairs: bool,
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning {
            max_window: 256,
            read_chunk: 32,
            ack_every: 32,
            keep_ahead: 512,
            probe: 4_000_000,
            sparse_acks: 0,
            peer_repairs: false,
        }
    }
}

/// For RESET → INIT.
#[derive(Clone, Copy, Debug)]
pub struct InitAttr {
    /// The partition; packets of others are dropped.
    pub pkey: Pkey,
    /// What the peer may do at all through this queue pair.
    pub access: RemoteAccess,
}

/// For INIT → RTR.
#[derive(Clone, Copy, Debug)]
pub struct RtrAttr {
    /// The peer's number.
    pub remote_qpn: Qpn,
    /// Payload bytes per packet; both ends must agree.
    pub path_mtu: Mtu,
    /// The sequence number of the peer's first request.
    pub rq_psn: Psn,
    /// READs and atomics of the peer that may be outstanding. 0 refuses them.
    pub max_dest_rd_atomic: u8,
    /// The wait a peer is asked for when there is no receive request: a code of
    /// [`ibex_wire::RNR_TIMER_NS`].
    pub min_rnr_timer: u8,
}

/// For RTR → RTS.
#[derive(Clone, Copy, Debug)]
pub struct RtsAttr {
    /// The sequence number of this end's first request.
    pub sq_psn: Psn,
    /// How long to wait for an answer before asking again; `None` for ever. [`ack_timeout`] decodes the verbs'
    /// number.
    pub timeout: Option<Nanos>,
    /// How often in a row to ask again without progress; `None` is unlimited.
    pub retry: Option<u8>,
    /// How often in a row to accept "receiver not ready"; `None` is unlimited. The verbs' 7 means `None`.
    pub rnr_retry: Option<u8>,
    /// READs and atomics of this end that may be outstanding; at most the peer's `max_dest_rd_atomic`.
    pub max_rd_atomic: u8,
}

/// The verbs' 5-bit `timeout` in nanoseconds: 4.096 µs · 2^code; 0 is `None`, no timeout.
pub const fn ack_timeout(code: u8) -> Option<Nanos> {
    match code & 0x1f {
        0 => None,
        code => Some(4096 << code),
    }
}
