//! Queue pairs: `ibv_qp`, types, states, capabilities, enhanced connection establishment.
//!
//! Man pages: `ibv_create_qp(3)`, `ibv_modify_qp(3)`, `ibv_query_ece(3)`; IBTA volume 1, 10.3.1 (states). Creation
//! attributes are in `qp_init.rs`, those of a transition in `qp_attr.rs`, the extended object in `qp_ex.rs`.
#![allow(missing_docs, reason = "members and constants carry their C names; the man page documents them")]

use core::ffi::c_void;

use libc::{pthread_cond_t, pthread_mutex_t};

use super::{ibv_context, ibv_cq, ibv_pd, ibv_srq};
use crate::macros::{c_data, c_enum, c_flags, c_object};

c_enum! {
    /// Transport service of a queue pair.
    pub enum ibv_qp_type: u32, "IBV_QPT_" {
        IBV_QPT_RC = 2,
        IBV_QPT_UC = 3,
        IBV_QPT_UD = 4,
        IBV_QPT_RAW_PACKET = 8,
        IBV_QPT_XRC_SEND = 9,
        IBV_QPT_XRC_RECV = 10,
        IBV_QPT_DRIVER = 0xff,
    }

    /// State of a queue pair.
    pub enum ibv_qp_state: u32, "IBV_QPS_" {
        IBV_QPS_RESET = 0,
        IBV_QPS_INIT = 1,
        IBV_QPS_RTR = 2,
        IBV_QPS_RTS = 3,
        IBV_QPS_SQD = 4,
        IBV_QPS_SQE = 5,
        IBV_QPS_ERR = 6,
        IBV_QPS_UNKNOWN = 7,
    }

    /// State of automatic path migration.
    pub enum ibv_mig_state: u32, "IBV_MIG_" {
        IBV_MIG_MIGRATED = 0,
        IBV_MIG_REARM = 1,
        IBV_MIG_ARMED = 2,
    }
}

c_flags! {
    /// Input flags of `ibv_query_qp_data_in_order`.
    pub flags ibv_query_qp_data_in_order_flags: u32, "IBV_QUERY_QP_DATA_IN_ORDER_" {
        IBV_QUERY_QP_DATA_IN_ORDER_RETURN_CAPS = 1 << 0,
        IBV_QUERY_QP_DATA_IN_ORDER_DEVICE_ONLY = 1 << 1,
    }

    /// Answer of `ibv_query_qp_data_in_order`.
    pub flags ibv_query_qp_data_in_order_caps: u32, "IBV_QUERY_QP_DATA_IN_ORDER_" {
        IBV_QUERY_QP_DATA_IN_ORDER_WHOLE_MSG = 1 << 0,
        IBV_QUERY_QP_DATA_IN_ORDER_ALIGNED_128_BYTES = 1 << 1,
    }
}

c_object! {
    /// A queue pair.
    pub struct ibv_qp {
        pub context: *mut ibv_context,
        pub qp_context: *mut c_void,
        pub pd: *mut ibv_pd,
        pub send_cq: *mut ibv_cq,
        pub recv_cq: *mut ibv_cq,
        pub srq: *mut ibv_srq,
        pub handle: u32,
        pub qp_num: u32,
        /// The state as last set through this library; the device may have moved on (`ibv_query_qp` asks it).
        pub state: ibv_qp_state,
        pub qp_type: ibv_qp_type,
        pub mutex: pthread_mutex_t,
        pub cond: pthread_cond_t,
        pub events_completed: u32,
    }
}

c_data! {
    /// Sizes of a queue pair; `max_inline_data` in bytes.
    pub struct ibv_qp_cap {
        pub max_send_wr: u32,
        pub max_recv_wr: u32,
        pub max_send_sge: u32,
        pub max_recv_sge: u32,
        pub max_inline_data: u32,
    }

    /// Options of enhanced connection establishment.
    pub struct ibv_ece {
        pub vendor_id: u32,
        pub options: u32,
        pub comp_mask: u32,
    }
}
