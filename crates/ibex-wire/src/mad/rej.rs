//! REJ: a request or reply refused, or given up (IBTA 12.6.7).

use super::body::{Body, get_bits, get_u16, get_u32, put, put_bits};
use super::{CommId, Private, RejectReason, Which};
use crate::header::field;

/// A refusal. Offsets count from the end of the common header.
///
/// ```text
/// 0 local comm ID │ 4 remote comm ID │ 8 message:2 │ 9 information length:7 │ 10 reason │ 12 information │ 84 private data
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rej {
    /// The sender's name for the connection; 0 if it keeps no record of it.
    pub local_comm_id: CommId,
    /// The receiver's; 0 if the sender never learned it.
    pub remote_comm_id: CommId,
    /// Which message is refused.
    pub which: Which,
    /// Why.
    pub reason: RejectReason,
    /// Bytes of additional information that count, at most 72 (7 bits on the wire).
    pub info_len: u8,
    /// Additional information; what it is depends on the reason. For [`RejectReason::TIMEOUT`], the sender's CA GUID.
    pub info: [u8; Rej::INFO],
    /// The program's.
    pub private: Private<{ Rej::PRIVATE }>,
}

impl Rej {
    /// Bytes of additional information.
    pub const INFO: usize = 72;
    /// Bytes of private data.
    pub const PRIVATE: usize = 148;

    /// The additional information that counts; a length beyond the field means all of it.
    pub fn additional_info(&self) -> &[u8] {
        &self.info[..usize::from(self.info_len).min(Rej::INFO)]
    }

    pub(super) fn parse(body: &Body) -> Rej {
        Rej {
            local_comm_id: CommId(get_u32(body, 0)),
            remote_comm_id: CommId(get_u32(body, 4)),
            which: Which(get_bits(body, 8, 0, 2)),
            info_len: get_bits(body, 9, 0, 7),
            reason: RejectReason(get_u16(body, 10)),
            info: field(body, 12),
            private: Private::from(field(body, 84)),
        }
    }

    pub(super) fn emit(&self, body: &mut Body) {
        put(body, 0, &self.local_comm_id.0.to_be_bytes());
        put(body, 4, &self.remote_comm_id.0.to_be_bytes());
        put_bits(body, 8, 0, 2, self.which.0);
        put_bits(body, 9, 0, 7, self.info_len);
        put(body, 10, &self.reason.0.to_be_bytes());
        put(body, 12, &self.info);
        put(body, 84, self.private.as_bytes());
    }
}
