//! What commands are told: the engine's settings, paths, and the parameters of each message.

use ibex_wire::mad::{
    CmaHeader, Gid, Guid, Private, RejectReason, Rep, ServiceId, SidrStatus, TransportService,
};
use ibex_wire::{Mtu, Pkey, Psn, Qkey, Qpn};

use crate::Nanos;

/// Settings of an engine.
#[derive(Clone, Copy, Debug)]
pub struct CmConfig {
    /// The process's slot, below 1024: the high 10 bits of each connection's name ([`CommId`](ibex_wire::mad::CommId)), so that
    /// whoever receives for several processes can tell whose an answer is.
    pub slot: u16,
    /// Random bits that nobody else knows; names of connections are drawn with them.
    pub secret: [u64; 2],
    /// The adapter's GUID. Must be the same for all processes of one device, and differ between devices.
    pub ca_guid: Guid,
    /// Connections and resolutions that may exist at once, TIMEWAIT included; 1 to 2^21. Requests beyond it are dropped
    /// without an answer, so that the caller tries again. Each takes about 1 KiB. Default 65536.
    pub max_connections: usize,
    /// Connections in TIMEWAIT at once. Beyond it the oldest leaves early: its numbers can then meet a straggler of its past.
    /// Default 16384.
    pub max_timewait: usize,
    /// The first repetition of an unanswered message comes after this time, then twice this time and so on until the
    /// message's own timeout governs, which at rdma_cm's settings is seconds. Longer makes a lost message cost more; shorter
    /// repeats needlessly while programs think. 0 leaves it to the message's timeout. Default 100 ms.
    pub fast_retry: Nanos,
}

impl CmConfig {
    /// Settings with the defaults named at each field.
    pub fn new(slot: u16, secret: [u64; 2], ca_guid: Guid) -> CmConfig {
        CmConfig {
            slot,
            secret,
            ca_guid,
            max_connections: 1 << 16,
            max_timewait: 1 << 14,
            fast_retry: 100_000_000,
        }
    }
}

/// How packets get from here to the peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Path {
    /// This end's address.
    pub local: Gid,
    /// The peer's address.
    pub remote: Gid,
    /// 20 bits.
    pub flow_label: u32,
    /// The DSCP and ECN bits of the IP header.
    pub traffic_class: u8,
    /// The TTL or hop limit of the IP header.
    pub hop_limit: u8,
    /// Service level, 4 bits.
    pub sl: u8,
    /// The partition.
    pub pkey: Pkey,
    /// The most payload bytes in one packet.
    pub mtu: Mtu,
    /// Static rate, 6 bits, as in `enum ibv_rate`.
    pub rate: u8,
    /// The longest a packet is under way, 4.096 µs × 2^this (5 bits). rdma_cm uses 18 on RoCE, lately 16.
    pub packet_life_time: u8,
}

impl Path {
    /// A RoCE path in one subnet as rdma_cm of Linux describes it: default partition, lifetime 16 (0.27 s).
    pub fn new(local: Gid, remote: Gid, mtu: Mtu) -> Path {
        Path {
            local,
            remote,
            flow_label: 0,
            traffic_class: 0,
            hop_limit: 64,
            sl: 0,
            pkey: Pkey::DEFAULT,
            mtu,
            // As fast as the port is; nobody acts on it here.
            rate: 0,
            packet_life_time: 16,
        }
    }
}

/// A connection to be requested.
#[derive(Clone, Debug)]
pub struct ConnectParams {
    /// Where to.
    pub path: Path,
    /// What is asked for.
    pub service: ServiceId,
    /// The header of librdmacm's services. Without it, all of the private data is the program's.
    pub cma: Option<CmaHeader>,
    /// The kind of queue pair: RC or UC.
    pub transport: TransportService,
    /// This end's queue pair.
    pub qpn: Qpn,
    /// The sequence number this end expects first (its receive queue's).
    pub starting_psn: Psn,
    /// READs and atomics of the peer this end is willing to answer at once.
    pub responder_resources: u8,
    /// READs and atomics this end wants to have outstanding.
    pub initiator_depth: u8,
    /// Transport retries, 0 to 7, for both ends.
    pub retry_count: u8,
    /// Receiver-not-ready retries the peer should use, 0 to 7; 7 is without end.
    pub rnr_retry_count: u8,
    /// Whether this end generates end-to-end credits.
    pub flow_control: bool,
    /// Whether this end's queue pair receives from a shared receive queue.
    pub srq: bool,
    /// How long the peer may take to answer, 4.096 µs × 2^this (5 bits). rdma_cm uses 20 (4.3 s).
    pub remote_response_timeout: u8,
    /// How long this end may take to answer a reply; likewise.
    pub local_response_timeout: u8,
    /// How often messages are repeated before giving up, 0 to 15. rdma_cm uses 15.
    pub max_cm_retries: u8,
    /// The program's: at most 92 bytes, or 56 with a `cma` header.
    pub private: Vec<u8>,
}

impl ConnectParams {
    /// A reliable connection with the settings rdma_cm uses for itself, and retry counts of 7; no READs, no private data.
    pub fn new(path: Path, service: ServiceId, qpn: Qpn, starting_psn: Psn) -> ConnectParams {
        ConnectParams {
            path,
            service,
            cma: None,
            transport: TransportService::RC,
            qpn,
            starting_psn,
            responder_resources: 0,
            initiator_depth: 0,
            retry_count: 7,
            rnr_retry_count: 7,
            flow_control: false,
            srq: false,
            remote_response_timeout: RESPONSE_TIMEOUT,
            local_response_timeout: RESPONSE_TIMEOUT,
            max_cm_retries: MAX_RETRIES,
            private: Vec::new(),
        }
    }
}

/// rdma_cm's response timeout on Linux, 4.096 µs × 2^20.
pub(super) const RESPONSE_TIMEOUT: u8 = 20;

/// rdma_cm's repetitions on Linux, and the most there can be.
pub(super) const MAX_RETRIES: u8 = 15;

/// The acceptance of a request.
#[derive(Clone, Debug)]
pub struct ReplyParams {
    /// This end's queue pair.
    pub qpn: Qpn,
    /// The sequence number this end expects first (its receive queue's).
    pub starting_psn: Psn,
    /// READs and atomics of the peer this end will answer at once; at most what the request asks for.
    pub responder_resources: u8,
    /// READs and atomics this end will have outstanding; at most what the request offers.
    pub initiator_depth: u8,
    /// How long this end takes to acknowledge a packet, 4.096 µs × 2^this (5 bits).
    pub target_ack_delay: u8,
    /// Whether this end generates end-to-end credits.
    pub flow_control: bool,
    /// Receiver-not-ready retries the peer should use, 0 to 7; 7 is without end.
    pub rnr_retry_count: u8,
    /// Whether this end's queue pair receives from a shared receive queue.
    pub srq: bool,
    /// The program's.
    pub private: Private<{ Rep::PRIVATE }>,
}

impl ReplyParams {
    /// An acceptance without READs and private data.
    pub fn new(qpn: Qpn, starting_psn: Psn) -> ReplyParams {
        ReplyParams {
            qpn,
            starting_psn,
            responder_resources: 0,
            initiator_depth: 0,
            target_ack_delay: 0,
            flow_control: false,
            rnr_retry_count: 7,
            srq: false,
            private: Private::default(),
        }
    }
}

/// A refusal.
#[derive(Clone, Debug)]
pub struct RejectParams {
    /// Why.
    pub reason: RejectReason,
    /// Additional information, at most 72 bytes; what it means depends on the reason.
    pub info: Vec<u8>,
    /// The program's, at most 148 bytes.
    pub private: Vec<u8>,
}

impl RejectParams {
    /// The program's own refusal.
    pub fn consumer(private: &[u8]) -> RejectParams {
        RejectParams { reason: RejectReason::CONSUMER_DEFINED, info: Vec::new(), private: private.to_vec() }
    }
}

/// A resolution to be requested: which queue pair serves a datagram service?
#[derive(Clone, Debug)]
pub struct SidrParams {
    /// Where to.
    pub path: Path,
    /// What is asked for.
    pub service: ServiceId,
    /// The header of librdmacm's services.
    pub cma: Option<CmaHeader>,
    /// How long to wait for each answer, 4.096 µs × 2^this (5 bits).
    pub response_timeout: u8,
    /// How often to repeat, 0 to 15.
    pub max_cm_retries: u8,
    /// The program's: at most 216 bytes, or 180 with a `cma` header.
    pub private: Vec<u8>,
}

impl SidrParams {
    /// A request with rdma_cm's timeouts and no private data.
    pub fn new(path: Path, service: ServiceId) -> SidrParams {
        SidrParams {
            path,
            service,
            cma: None,
            response_timeout: RESPONSE_TIMEOUT,
            max_cm_retries: MAX_RETRIES,
            private: Vec::new(),
        }
    }
}

/// The answer to a resolution.
#[derive(Clone, Debug)]
pub struct SidrReplyParams {
    /// The outcome; the fields below count for success only.
    pub status: SidrStatus,
    /// The queue pair that serves.
    pub qpn: Qpn,
    /// Its key.
    pub qkey: Qkey,
    /// The program's, at most 136 bytes.
    pub private: Vec<u8>,
}

/// What a listener is for.
#[derive(Clone, Copy, Debug)]
pub struct ListenParams {
    /// The service.
    pub service: ServiceId,
    /// The address listened on; `None` for every address.
    pub local: Option<Gid>,
    /// Requests that may wait for [`Cm::taken`](super::Cm::taken) or an answer, at least 1. Those beyond it are dropped without an
    /// answer, as Linux does, so that the caller tries again.
    pub backlog: usize,
}
