//! DREP: the reply to a request for disconnection (IBTA 12.6.11).

use super::body::{Body, get_u32, put};
use super::{CommId, Private};
use crate::header::field;

/// The connection is gone on this side too. Offsets count from the end of the common header.
///
/// ```text
/// 0 local comm ID │ 4 remote comm ID │ 8 private data
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Drep {
    /// The sender's name for the connection.
    pub local_comm_id: CommId,
    /// The receiver's.
    pub remote_comm_id: CommId,
    /// The program's.
    pub private: Private<{ Drep::PRIVATE }>,
}

impl Drep {
    /// Bytes of private data.
    pub const PRIVATE: usize = 224;

    pub(super) fn parse(body: &Body) -> Drep {
        Drep {
            local_comm_id: CommId(get_u32(body, 0)),
            remote_comm_id: CommId(get_u32(body, 4)),
            private: Private::from(field(body, 8)),
        }
    }

    pub(super) fn emit(&self, body: &mut Body) {
        put(body, 0, &self.local_comm_id.0.to_be_bytes());
        put(body, 4, &self.remote_comm_id.0.to_be_bytes());
        put(body, 8, self.private.as_bytes());
    }
}
