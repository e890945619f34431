//! RTU: the caller is ready to use the connection (IBTA 12.6.9).

use super::body::{Body, get_u32, put};
use super::{CommId, Private};
use crate::header::field;

/// The caller's word that both ends are ready. Offsets count from the end of the common header.
///
/// ```text
/// 0 local comm ID │ 4 remote comm ID │ 8 private data
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rtu {
    /// The sender's name for the connection.
    pub local_comm_id: CommId,
    /// The receiver's.
    pub remote_comm_id: CommId,
    /// The program's.
    pub private: Private<{ Rtu::PRIVATE }>,
}

impl Rtu {
    /// Bytes of private data.
    pub const PRIVATE: usize = 224;

    pub(super) fn parse(body: &Body) -> Rtu {
        Rtu {
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
