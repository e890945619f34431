//! SIDR_REQ: which queue pair serves this service? (IBTA 12.11.1)

use super::body::{Body, get_u16, get_u32, get_u64, put};
use super::{CommId, Private, ServiceId};
use crate::Pkey;
use crate::header::field;

/// A service ID resolution request. Offsets count from the end of the common header.
///
/// ```text
/// 0 request ID │ 4 P_Key │ 8 service ID │ 16 private data
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SidrReq {
    /// The sender's name for the request.
    pub request_id: CommId,
    /// The partition.
    pub pkey: Pkey,
    /// What is asked for.
    pub service_id: ServiceId,
    /// The program's, or a [`CmaHeader`](super::CmaHeader) and then the program's.
    pub private: Private<{ SidrReq::PRIVATE }>,
}

impl SidrReq {
    /// Bytes of private data.
    pub const PRIVATE: usize = 216;

    pub(super) fn parse(body: &Body) -> SidrReq {
        SidrReq {
            request_id: CommId(get_u32(body, 0)),
            pkey: Pkey(get_u16(body, 4)),
            service_id: ServiceId(get_u64(body, 8)),
            private: Private::from(field(body, 16)),
        }
    }

    pub(super) fn emit(&self, body: &mut Body) {
        put(body, 0, &self.request_id.0.to_be_bytes());
        put(body, 4, &self.pkey.0.to_be_bytes());
        put(body, 8, &self.service_id.0.to_be_bytes());
        put(body, 16, self.private.as_bytes());
    }
}
