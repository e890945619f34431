//! MRA: "your message is here, the answer takes longer" (IBTA 12.6.6).

use super::body::{Body, get_bits, get_u32, put, put_bits};
use super::{CommId, Private, Which};
use crate::header::field;

/// A receipt. Offsets count from the end of the common header.
///
/// ```text
/// 0 local comm ID │ 4 remote comm ID │ 8 message:2 │ 9 service timeout:5 │ 10 private data
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mra {
    /// The sender's name for the connection.
    pub local_comm_id: CommId,
    /// The receiver's.
    pub remote_comm_id: CommId,
    /// Which message is here.
    pub which: Which,
    /// The answer may take 4.096 µs × 2^this (5 bits) from now.
    pub service_timeout: u8,
    /// The program's.
    pub private: Private<{ Mra::PRIVATE }>,
}

impl Mra {
    /// Bytes of private data.
    pub const PRIVATE: usize = 222;

    pub(super) fn parse(body: &Body) -> Mra {
        Mra {
            local_comm_id: CommId(get_u32(body, 0)),
            remote_comm_id: CommId(get_u32(body, 4)),
            which: Which(get_bits(body, 8, 0, 2)),
            service_timeout: get_bits(body, 9, 0, 5),
            private: Private::from(field(body, 10)),
        }
    }

    pub(super) fn emit(&self, body: &mut Body) {
        put(body, 0, &self.local_comm_id.0.to_be_bytes());
        put(body, 4, &self.remote_comm_id.0.to_be_bytes());
        put_bits(body, 8, 0, 2, self.which.0);
        put_bits(body, 9, 0, 5, self.service_timeout);
        put(body, 10, self.private.as_bytes());
    }
}
