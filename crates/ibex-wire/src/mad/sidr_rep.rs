//! SIDR_REP: the queue pair that serves a service, and its key (IBTA 12.11.2).

use super::body::{Body, get_u24, get_u32, get_u64, put, put_u24};
use super::{CommId, Private, ServiceId, SidrStatus};
use crate::header::field;
use crate::{Qkey, Qpn};

/// The reply to a service ID resolution request. Offsets count from the end of the common header.
///
/// ```text
/// 0 request ID │ 4 status │ 5 information length │ 8 QPN:24 │ 12 service ID │ 20 Q_Key │ 24 information │ 96 private data
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SidrRep {
    /// The name the request gave.
    pub request_id: CommId,
    /// The outcome.
    pub status: SidrStatus,
    /// Bytes of additional information that count, at most 72.
    pub info_len: u8,
    /// The queue pair, if the status is success.
    pub qpn: Qpn,
    /// What was asked for.
    pub service_id: ServiceId,
    /// The queue pair's key, if the status is success.
    pub qkey: Qkey,
    /// Additional information; what it is depends on the status.
    pub info: [u8; SidrRep::INFO],
    /// The program's.
    pub private: Private<{ SidrRep::PRIVATE }>,
}

impl SidrRep {
    /// Bytes of additional information.
    pub const INFO: usize = 72;
    /// Bytes of private data.
    pub const PRIVATE: usize = 136;

    pub(super) fn parse(body: &Body) -> SidrRep {
        SidrRep {
            request_id: CommId(get_u32(body, 0)),
            status: SidrStatus(body[4]),
            info_len: body[5],
            qpn: Qpn::new(get_u24(body, 8)),
            service_id: ServiceId(get_u64(body, 12)),
            qkey: Qkey(get_u32(body, 20)),
            info: field(body, 24),
            private: Private::from(field(body, 96)),
        }
    }

    pub(super) fn emit(&self, body: &mut Body) {
        put(body, 0, &self.request_id.0.to_be_bytes());
        body[4] = self.status.0;
        body[5] = self.info_len;
        put_u24(body, 8, self.qpn.get());
        put(body, 12, &self.service_id.0.to_be_bytes());
        put(body, 20, &self.qkey.0.to_be_bytes());
        put(body, 24, &self.info);
        put(body, 96, self.private.as_bytes());
    }
}
