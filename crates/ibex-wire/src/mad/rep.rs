//! REP: the reply to a request, which names the other queue pair (IBTA 12.6.8).

use super::body::{Body, get_bits, get_flag, get_u24, get_u32, get_u64, put, put_bits, put_flag, put_u24};
use super::{CommId, Guid, Private};
use crate::header::field;
use crate::{Psn, Qkey, Qpn};

/// A reply. Offsets count from the end of the common header.
///
/// ```text
///  0 local comm ID │ 4 remote comm ID │ 8 Q_Key │ 12 QPN:24 │ 16 EECN:24 │ 20 starting PSN:24
/// 24 responder resources │ 25 initiator depth │ 26 target acknowledgement delay:5, failover accepted:2, flow control:1
/// 27 RNR retry:3, SRQ:1 │ 28 local CA GUID │ 36 private data
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rep {
    /// The sender's name for the connection.
    pub local_comm_id: CommId,
    /// The name the REQ gave.
    pub remote_comm_id: CommId,
    /// For datagrams only.
    pub local_qkey: Qkey,
    /// The sender's queue pair.
    pub local_qpn: Qpn,
    /// For reliable datagrams only, 24 bits.
    pub local_eecn: u32,
    /// The sequence number with which the receiver is to begin; the sender expects it first.
    pub starting_psn: Psn,
    /// READs and atomics the sender will answer at once.
    pub responder_resources: u8,
    /// READs and atomics the sender will have outstanding.
    pub initiator_depth: u8,
    /// How long the sender's adapter takes to acknowledge, 4.096 µs × 2^this (5 bits).
    pub target_ack_delay: u8,
    /// What became of the alternate path, 2 bits: 0 accepted, 1 failover not supported, 2 path refused.
    pub failover: u8,
    /// Whether the sender generates end-to-end credits.
    pub flow_control: bool,
    /// Receiver-not-ready retries the receiver should use, 3 bits; 7 is without end.
    pub rnr_retry_count: u8,
    /// Whether the sender's queue pair receives from a shared receive queue.
    pub srq: bool,
    /// The sender's adapter.
    pub local_ca_guid: Guid,
    /// The program's.
    pub private: Private<{ Rep::PRIVATE }>,
}

impl Rep {
    /// Bytes of private data.
    pub const PRIVATE: usize = 196;

    pub(super) fn parse(body: &Body) -> Rep {
        Rep {
            local_comm_id: CommId(get_u32(body, 0)),
            remote_comm_id: CommId(get_u32(body, 4)),
            local_qkey: Qkey(get_u32(body, 8)),
            local_qpn: Qpn::new(get_u24(body, 12)),
            local_eecn: get_u24(body, 16),
            starting_psn: Psn::new(get_u24(body, 20)),
            responder_resources: body[24],
            initiator_depth: body[25],
            target_ack_delay: get_bits(body, 26, 0, 5),
            failover: get_bits(body, 26, 5, 2),
            flow_control: get_flag(body, 26, 7),
            rnr_retry_count: get_bits(body, 27, 0, 3),
            srq: get_flag(body, 27, 3),
            local_ca_guid: Guid(get_u64(body, 28)),
            private: Private::from(field(body, 36)),
        }
    }

    pub(super) fn emit(&self, body: &mut Body) {
        put(body, 0, &self.local_comm_id.0.to_be_bytes());
        put(body, 4, &self.remote_comm_id.0.to_be_bytes());
        put(body, 8, &self.local_qkey.0.to_be_bytes());
        put_u24(body, 12, self.local_qpn.get());
        put_u24(body, 16, self.local_eecn);
        put_u24(body, 20, self.starting_psn.get());
        body[24] = self.responder_resources;
        body[25] = self.initiator_depth;
        put_bits(body, 26, 0, 5, self.target_ack_delay);
        put_bits(body, 26, 5, 2, self.failover);
        put_flag(body, 26, 7, self.flow_control);
        put_bits(body, 27, 0, 3, self.rnr_retry_count);
        put_flag(body, 27, 3, self.srq);
        put(body, 28, &self.local_ca_guid.0.to_be_bytes());
        put(body, 36, self.private.as_bytes());
    }
}
