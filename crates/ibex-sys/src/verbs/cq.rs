//! Completion queues and completion channels, classic part.
//!
//! Man pages: `ibv_create_cq(3)`, `ibv_create_comp_channel(3)`, `ibv_get_cq_event(3)`, `ibv_modify_cq(3)`. The extended
//! queue is in `cq_ex.rs`.
#![allow(missing_docs, reason = "members and constants carry their C names; the man page documents them")]

use core::ffi::{c_int, c_void};

use libc::{pthread_cond_t, pthread_mutex_t};

use super::ibv_context;
use crate::macros::{c_data, c_flags, c_object};

c_object! {
    /// A completion channel; `fd` becomes readable when an event is queued.
    pub struct ibv_comp_channel {
        pub context: *mut ibv_context,
        pub fd: c_int,
        pub refcnt: c_int,
    }

    /// A completion queue.
    pub struct ibv_cq {
        pub context: *mut ibv_context,
        pub channel: *mut ibv_comp_channel,
        pub cq_context: *mut c_void,
        pub handle: u32,
        pub cqe: c_int,
        pub mutex: pthread_mutex_t,
        pub cond: pthread_cond_t,
        pub comp_events_completed: u32,
        pub async_events_completed: u32,
    }
}

c_flags! {
    /// Bits of [`ibv_modify_cq_attr::attr_mask`].
    pub flags ibv_cq_attr_mask: u32, "IBV_CQ_ATTR_" {
        IBV_CQ_ATTR_MODERATE = 1 << 0,
        IBV_CQ_ATTR_RESERVED = 1 << 1,
    }
}

c_data! {
    /// Completion moderation; the period in microseconds.
    pub struct ibv_moderate_cq {
        pub cq_count: u16,
        pub cq_period: u16,
    }

    /// Input of `ibv_modify_cq`.
    pub struct ibv_modify_cq_attr {
        pub attr_mask: u32,
        pub moderate: ibv_moderate_cq,
    }
}
