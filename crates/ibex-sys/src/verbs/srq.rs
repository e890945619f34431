//! Shared receive queues: `ibv_srq` and its attributes, classic and extended.
//!
//! Man pages: `ibv_create_srq(3)`, `ibv_create_srq_ex(3)`, `ibv_modify_srq(3)`.
#![allow(missing_docs, reason = "members and constants carry their C names; the man page documents them")]

use core::ffi::c_void;

use libc::{pthread_cond_t, pthread_mutex_t};

use super::{ibv_context, ibv_cq, ibv_pd, ibv_tm_cap, ibv_xrcd};
use crate::macros::{c_data, c_enum, c_flags, c_object};

c_enum! {
    /// Kind of shared receive queue.
    pub enum ibv_srq_type: u32, "IBV_SRQT_" {
        IBV_SRQT_BASIC = 0,
        IBV_SRQT_XRC = 1,
        IBV_SRQT_TM = 2,
    }
}

c_flags! {
    /// Which members of [`ibv_srq_attr`] are meant.
    pub flags ibv_srq_attr_mask: u32, "IBV_SRQ_" {
        IBV_SRQ_MAX_WR = 1 << 0,
        IBV_SRQ_LIMIT = 1 << 1,
    }

    /// Bits of [`ibv_srq_init_attr_ex::comp_mask`].
    pub flags ibv_srq_init_attr_mask: u32, "IBV_SRQ_INIT_ATTR_" {
        IBV_SRQ_INIT_ATTR_TYPE = 1 << 0,
        IBV_SRQ_INIT_ATTR_PD = 1 << 1,
        IBV_SRQ_INIT_ATTR_XRCD = 1 << 2,
        IBV_SRQ_INIT_ATTR_CQ = 1 << 3,
        IBV_SRQ_INIT_ATTR_TM = 1 << 4,
        IBV_SRQ_INIT_ATTR_RESERVED = 1 << 5,
    }
}

c_object! {
    /// A shared receive queue.
    pub struct ibv_srq {
        pub context: *mut ibv_context,
        pub srq_context: *mut c_void,
        pub pd: *mut ibv_pd,
        pub handle: u32,
        pub mutex: pthread_mutex_t,
        pub cond: pthread_cond_t,
        pub events_completed: u32,
    }
}

c_data! {
    /// Sizes and the limit that raises an event.
    pub struct ibv_srq_attr {
        pub max_wr: u32,
        pub max_sge: u32,
        pub srq_limit: u32,
    }

    /// Input of `ibv_create_srq`.
    pub struct ibv_srq_init_attr {
        pub srq_context: *mut c_void,
        pub attr: ibv_srq_attr,
    }

    /// Input of `ibv_create_srq_ex`; starts with the members of [`ibv_srq_init_attr`].
    pub struct ibv_srq_init_attr_ex {
        pub srq_context: *mut c_void,
        pub attr: ibv_srq_attr,
        pub comp_mask: u32,
        pub srq_type: ibv_srq_type,
        pub pd: *mut ibv_pd,
        pub xrcd: *mut ibv_xrcd,
        pub cq: *mut ibv_cq,
        pub tm_cap: ibv_tm_cap,
    }
}
