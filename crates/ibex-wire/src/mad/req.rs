//! REQ: the request for a connection (IBTA 12.6.5).

use super::body::{
    Body, get_bits, get_flag, get_u16, get_u24, get_u32, get_u64, put, put_bits, put_flag, put_u24,
};
use super::{CommId, Gid, Guid, Private, ServiceId, TransportService};
use crate::header::field;
use crate::{Pkey, Psn, Qkey, Qpn};

/// A request. "Local" is its sender, "remote" its receiver; offsets count from the end of the common header.
///
/// ```text
///   0 local comm ID │ 8 service ID │ 16 local CA GUID │ 28 Q_Key │ 32 QPN:24, responder resources
///  36 EECN:24, initiator depth │ 40 remote EECN:24, remote response timeout:5, service:2, flow control:1
///  44 starting PSN:24, local response timeout:5, retry count:3
///  48 P_Key │ 50 MTU:4, RDC exists:1, RNR retry:3 │ 51 CM retries:4, SRQ:1, extended transport:3
///  52 primary path │ 96 alternate path │ 140 private data
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Req {
    /// The sender's name for the connection; not 0.
    pub local_comm_id: CommId,
    /// What is asked for.
    pub service_id: ServiceId,
    /// The sender's adapter.
    pub local_ca_guid: Guid,
    /// For reliable datagrams only.
    pub local_qkey: Qkey,
    /// The sender's queue pair.
    pub local_qpn: Qpn,
    /// READs and atomics the sender is willing to answer at once.
    pub responder_resources: u8,
    /// READs and atomics the sender wants to have outstanding.
    pub initiator_depth: u8,
    /// For reliable datagrams only, 24 bits.
    pub local_eecn: u32,
    /// For reliable datagrams only, 24 bits.
    pub remote_eecn: u32,
    /// The receiver is expected to answer within 4.096 µs × 2^this (5 bits).
    pub remote_response_timeout: u8,
    /// The kind of queue pair.
    pub service: TransportService,
    /// Whether the sender generates end-to-end credits.
    pub flow_control: bool,
    /// The sequence number with which the receiver is to begin; the sender expects it first.
    pub starting_psn: Psn,
    /// The sender will answer within 4.096 µs × 2^this (5 bits).
    pub local_response_timeout: u8,
    /// Transport retries the receiver should use, 3 bits.
    pub retry_count: u8,
    /// The partition.
    pub pkey: Pkey,
    /// The path MTU as in `enum ibv_mtu`, 4 bits; 1 to 5 are defined.
    pub mtu: u8,
    /// For reliable datagrams only.
    pub rdc_exists: bool,
    /// Receiver-not-ready retries the receiver should use, 3 bits; 7 is without end.
    pub rnr_retry_count: u8,
    /// How often each side repeats a message before it gives up, 4 bits.
    pub max_cm_retries: u8,
    /// Whether the sender's queue pair receives from a shared receive queue.
    pub srq: bool,
    /// 3 bits; 1 is XRC, if `service` is [`TransportService::EXTENDED`].
    pub extended_transport: u8,
    /// The path.
    pub primary: ReqPath,
    /// A second path; all zero if there is none.
    pub alternate: ReqPath,
    /// The program's, or a [`CmaHeader`](super::CmaHeader) and then the program's.
    pub private: Private<{ Req::PRIVATE }>,
}

/// A path as a [`Req`] describes it.
///
/// ```text
///  0 local LID │ 2 remote LID │ 4 local GID │ 20 remote GID │ 36 flow label:20, reserved:6, rate:6
/// 40 traffic class │ 41 hop limit │ 42 SL:4, subnet local:1 │ 43 acknowledgement timeout:5, SAP supported:1 (alternate)
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReqPath {
    /// The sender's LID; 0xffff (permissive) where there are none, as on RoCE beyond one hop.
    pub local_lid: u16,
    /// The receiver's LID.
    pub remote_lid: u16,
    /// The sender's address.
    pub local_gid: Gid,
    /// The receiver's address.
    pub remote_gid: Gid,
    /// 20 bits.
    pub flow_label: u32,
    /// Static rate, 6 bits, as in `enum ibv_rate`.
    pub rate: u8,
    /// Traffic class.
    pub traffic_class: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Service level, 4 bits.
    pub sl: u8,
    /// Whether both ends are in one subnet.
    pub subnet_local: bool,
    /// Local acknowledgement timeout the receiver should use, 4.096 µs × 2^this (5 bits).
    pub ack_timeout: u8,
    /// Alternate path only: service association points are supported.
    pub sap_supported: bool,
}

impl Req {
    /// Bytes of private data.
    pub const PRIVATE: usize = 92;

    pub(super) fn parse(body: &Body) -> Req {
        Req {
            local_comm_id: CommId(get_u32(body, 0)),
            service_id: ServiceId(get_u64(body, 8)),
            local_ca_guid: Guid(get_u64(body, 16)),
            local_qkey: Qkey(get_u32(body, 28)),
            local_qpn: Qpn::new(get_u24(body, 32)),
            responder_resources: body[35],
            local_eecn: get_u24(body, 36),
            initiator_depth: body[39],
            remote_eecn: get_u24(body, 40),
            remote_response_timeout: get_bits(body, 43, 0, 5),
            service: TransportService(get_bits(body, 43, 5, 2)),
            flow_control: get_flag(body, 43, 7),
            starting_psn: Psn::new(get_u24(body, 44)),
            local_response_timeout: get_bits(body, 47, 0, 5),
            retry_count: get_bits(body, 47, 5, 3),
            pkey: Pkey(get_u16(body, 48)),
            mtu: get_bits(body, 50, 0, 4),
            rdc_exists: get_flag(body, 50, 4),
            rnr_retry_count: get_bits(body, 50, 5, 3),
            max_cm_retries: get_bits(body, 51, 0, 4),
            srq: get_flag(body, 51, 4),
            extended_transport: get_bits(body, 51, 5, 3),
            primary: ReqPath { sap_supported: false, ..ReqPath::parse(body, 52) },
            alternate: ReqPath::parse(body, 96),
            private: Private::from(field(body, 140)),
        }
    }

    pub(super) fn emit(&self, body: &mut Body) {
        put(body, 0, &self.local_comm_id.0.to_be_bytes());
        put(body, 8, &self.service_id.0.to_be_bytes());
        put(body, 16, &self.local_ca_guid.0.to_be_bytes());
        put(body, 28, &self.local_qkey.0.to_be_bytes());
        put_u24(body, 32, self.local_qpn.get());
        body[35] = self.responder_resources;
        put_u24(body, 36, self.local_eecn);
        body[39] = self.initiator_depth;
        put_u24(body, 40, self.remote_eecn);
        put_bits(body, 43, 0, 5, self.remote_response_timeout);
        put_bits(body, 43, 5, 2, self.service.0);
        put_flag(body, 43, 7, self.flow_control);
        put_u24(body, 44, self.starting_psn.get());
        put_bits(body, 47, 0, 5, self.local_response_timeout);
        put_bits(body, 47, 5, 3, self.retry_count);
        put(body, 48, &self.pkey.0.to_be_bytes());
        put_bits(body, 50, 0, 4, self.mtu);
        put_flag(body, 50, 4, self.rdc_exists);
        put_bits(body, 50, 5, 3, self.rnr_retry_count);
        put_bits(body, 51, 0, 4, self.max_cm_retries);
        put_flag(body, 51, 4, self.srq);
        put_bits(body, 51, 5, 3, self.extended_transport);
        self.primary.emit(body, 52);
        put_flag(body, 95, 5, false);
        self.alternate.emit(body, 96);
        put(body, 140, self.private.as_bytes());
    }

    /// Whether an alternate path is named.
    pub fn has_alternate(&self) -> bool {
        self.alternate.local_lid != 0
    }
}

impl ReqPath {
    fn parse(body: &Body, at: usize) -> ReqPath {
        ReqPath {
            local_lid: get_u16(body, at),
            remote_lid: get_u16(body, at + 2),
            local_gid: Gid(field(body, at + 4)),
            remote_gid: Gid(field(body, at + 20)),
            flow_label: get_u32(body, at + 36) >> 12,
            rate: get_bits(body, at + 39, 2, 6),
            traffic_class: body[at + 40],
            hop_limit: body[at + 41],
            sl: get_bits(body, at + 42, 0, 4),
            subnet_local: get_flag(body, at + 42, 4),
            ack_timeout: get_bits(body, at + 43, 0, 5),
            sap_supported: get_flag(body, at + 43, 5),
        }
    }

    fn emit(&self, body: &mut Body, at: usize) {
        put(body, at, &self.local_lid.to_be_bytes());
        put(body, at + 2, &self.remote_lid.to_be_bytes());
        put(body, at + 4, &self.local_gid.0);
        put(body, at + 20, &self.remote_gid.0);
        put(body, at + 36, &(self.flow_label << 12).to_be_bytes());
        put_bits(body, at + 39, 2, 6, self.rate);
        body[at + 40] = self.traffic_class;
        body[at + 41] = self.hop_limit;
        put_bits(body, at + 42, 0, 4, self.sl);
        put_flag(body, at + 42, 4, self.subnet_local);
        put_bits(body, at + 43, 0, 5, self.ack_timeout);
        put_flag(body, at + 43, 5, self.sap_supported);
    }
}
