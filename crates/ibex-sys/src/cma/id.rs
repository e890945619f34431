//! Identifiers and event channels: `rdma_cm_id`, which programs read and write directly.
//!
//! Man pages: `rdma_create_id(3)`, `rdma_create_event_channel(3)`, `rdma_connect(3)`.
#![allow(missing_docs, reason = "members and constants carry their C names; the man page documents them")]

use core::ffi::{c_int, c_void};

use libc::{sockaddr, sockaddr_in, sockaddr_in6, sockaddr_storage};

use super::{ibv_sa_path_rec, rdma_cm_event};
use crate::macros::{c_data, c_enum, c_object, c_union};
use crate::verbs::{ibv_comp_channel, ibv_context, ibv_cq, ibv_gid, ibv_pd, ibv_qp, ibv_qp_type, ibv_srq};

c_enum! {
    /// Name space of ports, which also fixes the transport.
    pub enum rdma_port_space: u32, "RDMA_PS_" {
        RDMA_PS_IPOIB = 0x0002,
        RDMA_PS_TCP = 0x0106,
        RDMA_PS_UDP = 0x0111,
        RDMA_PS_IB = 0x013F,
    }
}

/// Bits of an IB service identifier that name the port space.
pub const RDMA_IB_IP_PS_MASK: u64 = 0xFFFF_FFFF_FFFF_0000;
/// Bits of an IB service identifier that name the port.
pub const RDMA_IB_IP_PORT_MASK: u64 = 0xFFFF;
/// Service identifiers of the TCP port space.
pub const RDMA_IB_IP_PS_TCP: u64 = 0x0106_0000;
/// Service identifiers of the UDP port space.
pub const RDMA_IB_IP_PS_UDP: u64 = 0x0111_0000;
/// Service identifiers of the IB port space.
pub const RDMA_IB_PS_IB: u64 = 0x013F_0000;
/// The Q_Key of datagrams in the UDP port space.
pub const RDMA_UDP_QKEY: u32 = 0x0123_4567;
/// In [`rdma_conn_param::responder_resources`](super::rdma_conn_param::responder_resources): as many as the device has.
pub const RDMA_MAX_RESP_RES: u8 = 0xFF;
/// In [`rdma_conn_param::initiator_depth`](super::rdma_conn_param::initiator_depth): as many as the device has.
pub const RDMA_MAX_INIT_DEPTH: u8 = 0xFF;

c_data! {
    /// InfiniBand addresses of a connection.
    pub struct rdma_ib_addr {
        pub sgid: ibv_gid,
        pub dgid: ibv_gid,
        /// Big-endian.
        pub pkey: u16,
    }

    /// Addresses of a connection.
    pub struct rdma_addr {
        pub src: rdma_addr_src,
        pub dst: rdma_addr_dst,
        pub addr: rdma_addr_addr,
    }

    /// A resolved route.
    pub struct rdma_route {
        pub addr: rdma_addr,
        pub path_rec: *mut ibv_sa_path_rec,
        pub num_paths: c_int,
    }
}

c_union! {
    /// The local address; an unnamed member in C.
    pub union rdma_addr_src {
        pub src_addr: sockaddr,
        pub src_sin: sockaddr_in,
        pub src_sin6: sockaddr_in6,
        pub src_storage: sockaddr_storage,
    }

    /// The remote address; an unnamed member in C.
    pub union rdma_addr_dst {
        pub dst_addr: sockaddr,
        pub dst_sin: sockaddr_in,
        pub dst_sin6: sockaddr_in6,
        pub dst_storage: sockaddr_storage,
    }

    /// The transport's own addresses; member `addr` in C.
    pub union rdma_addr_addr {
        pub ibaddr: rdma_ib_addr,
    }
}

c_object! {
    /// An event channel; `fd` becomes readable when an event is queued.
    pub struct rdma_event_channel {
        pub fd: c_int,
    }

    /// A communication identifier: the RDMA counterpart of a socket.
    pub struct rdma_cm_id {
        pub verbs: *mut ibv_context,
        pub channel: *mut rdma_event_channel,
        pub context: *mut c_void,
        pub qp: *mut ibv_qp,
        pub route: rdma_route,
        pub ps: rdma_port_space,
        pub port_num: u8,
        pub event: *mut rdma_cm_event,
        pub send_cq_channel: *mut ibv_comp_channel,
        pub send_cq: *mut ibv_cq,
        pub recv_cq_channel: *mut ibv_comp_channel,
        pub recv_cq: *mut ibv_cq,
        pub srq: *mut ibv_srq,
        pub pd: *mut ibv_pd,
        pub qp_type: ibv_qp_type,
    }
}
