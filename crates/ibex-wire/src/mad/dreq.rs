//! DREQ: the request for disconnection (IBTA 12.6.10).

use super::body::{Body, get_u24, get_u32, put, put_u24};
use super::{CommId, Private};
use crate::Qpn;
use crate::header::field;

/// A request to end a connection. Offsets count from the end of the common header.
///
/// ```text
/// 0 local comm ID │ 4 remote comm ID │ 8 remote QPN:24 │ 12 private data
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dreq {
    /// The sender's name for the connection.
    pub local_comm_id: CommId,
    /// The receiver's.
    pub remote_comm_id: CommId,
    /// The receiver's queue pair.
    pub remote_qpn: Qpn,
    /// The program's.
    pub private: Private<{ Dreq::PRIVATE }>,
}

impl Dreq {
    /// Bytes of private data.
    pub const PRIVATE: usize = 220;

    pub(super) fn parse(body: &Body) -> Dreq {
        Dreq {
            local_comm_id: CommId(get_u32(body, 0)),
            remote_comm_id: CommId(get_u32(body, 4)),
            remote_qpn: Qpn::new(get_u24(body, 8)),
            private: Private::from(field(body, 12)),
        }
    }

    pub(super) fn emit(&self, body: &mut Body) {
        put(body, 0, &self.local_comm_id.0.to_be_bytes());
        put(body, 4, &self.remote_comm_id.0.to_be_bytes());
        put_u24(body, 8, self.remote_qpn.get());
        put(body, 12, self.private.as_bytes());
    }
}
