//! Connection events and connection parameters.
//!
//! Man pages: `rdma_get_cm_event(3)`, `rdma_connect(3)`, `rdma_accept(3)`.
#![allow(missing_docs, reason = "members and constants carry their C names; the man page documents them")]

use core::ffi::{c_int, c_void};

use super::rdma_cm_id;
use crate::macros::{c_data, c_enum, c_union};
use crate::verbs::ibv_ah_attr;

c_enum! {
    /// What happened to an identifier.
    pub enum rdma_cm_event_type: u32, "RDMA_CM_EVENT_" {
        RDMA_CM_EVENT_ADDR_RESOLVED = 0,
        RDMA_CM_EVENT_ADDR_ERROR = 1,
        RDMA_CM_EVENT_ROUTE_RESOLVED = 2,
        RDMA_CM_EVENT_ROUTE_ERROR = 3,
        RDMA_CM_EVENT_CONNECT_REQUEST = 4,
        RDMA_CM_EVENT_CONNECT_RESPONSE = 5,
        RDMA_CM_EVENT_CONNECT_ERROR = 6,
        RDMA_CM_EVENT_UNREACHABLE = 7,
        RDMA_CM_EVENT_REJECTED = 8,
        RDMA_CM_EVENT_ESTABLISHED = 9,
        RDMA_CM_EVENT_DISCONNECTED = 10,
        RDMA_CM_EVENT_DEVICE_REMOVAL = 11,
        RDMA_CM_EVENT_MULTICAST_JOIN = 12,
        RDMA_CM_EVENT_MULTICAST_ERROR = 13,
        RDMA_CM_EVENT_ADDR_CHANGE = 14,
        RDMA_CM_EVENT_TIMEWAIT_EXIT = 15,
        RDMA_CM_EVENT_ADDRINFO_RESOLVED = 16,
        RDMA_CM_EVENT_ADDRINFO_ERROR = 17,
        RDMA_CM_EVENT_USER = 18,
        RDMA_CM_EVENT_INTERNAL = 19,
    }
}

c_data! {
    /// Parameters of a connection.
    pub struct rdma_conn_param {
        pub private_data: *const c_void,
        pub private_data_len: u8,
        pub responder_resources: u8,
        pub initiator_depth: u8,
        pub flow_control: u8,
        /// 3 bits; ignored when accepting.
        pub retry_count: u8,
        /// 3 bits; 7 is for ever.
        pub rnr_retry_count: u8,
        pub srq: u8,
        pub qp_num: u32,
    }

    /// Parameters of a resolved datagram service.
    pub struct rdma_ud_param {
        pub private_data: *const c_void,
        pub private_data_len: u8,
        pub ah_attr: ibv_ah_attr,
        pub qp_num: u32,
        pub qkey: u32,
    }

    /// An event; must be acknowledged.
    pub struct rdma_cm_event {
        pub id: *mut rdma_cm_id,
        pub listen_id: *mut rdma_cm_id,
        pub event: rdma_cm_event_type,
        /// 0, a negative errno, or the transport's reason of a rejection.
        pub status: c_int,
        pub param: rdma_cm_event_param,
    }
}

c_union! {
    /// Parameters of an event; which member is in force follows from the port space and the event.
    pub union rdma_cm_event_param {
        pub conn: rdma_conn_param,
        pub ud: rdma_ud_param,
        pub arg: u64,
    }
}
