//! Asynchronous events.
//!
//! Man page: `ibv_get_async_event(3)`.
#![allow(missing_docs, reason = "members and constants carry their C names; the man page documents them")]

use core::ffi::c_int;

use super::{ibv_cq, ibv_qp, ibv_srq, ibv_wq};
use crate::macros::{c_data, c_enum, c_union};

c_enum! {
    /// What happened.
    pub enum ibv_event_type: u32, "IBV_EVENT_" {
        IBV_EVENT_CQ_ERR = 0,
        IBV_EVENT_QP_FATAL = 1,
        IBV_EVENT_QP_REQ_ERR = 2,
        IBV_EVENT_QP_ACCESS_ERR = 3,
        IBV_EVENT_COMM_EST = 4,
        IBV_EVENT_SQ_DRAINED = 5,
        IBV_EVENT_PATH_MIG = 6,
        IBV_EVENT_PATH_MIG_ERR = 7,
        IBV_EVENT_DEVICE_FATAL = 8,
        IBV_EVENT_PORT_ACTIVE = 9,
        IBV_EVENT_PORT_ERR = 10,
        IBV_EVENT_LID_CHANGE = 11,
        IBV_EVENT_PKEY_CHANGE = 12,
        IBV_EVENT_SM_CHANGE = 13,
        IBV_EVENT_SRQ_ERR = 14,
        IBV_EVENT_SRQ_LIMIT_REACHED = 15,
        IBV_EVENT_QP_LAST_WQE_REACHED = 16,
        IBV_EVENT_CLIENT_REREGISTER = 17,
        IBV_EVENT_GID_CHANGE = 18,
        IBV_EVENT_WQ_FATAL = 19,
        IBV_EVENT_DEVICE_SPEED_CHANGE = 20,
    }
}

c_union! {
    /// What an event is about; which member is in force follows from the event's type.
    pub union ibv_async_event_element {
        pub cq: *mut ibv_cq,
        pub qp: *mut ibv_qp,
        pub srq: *mut ibv_srq,
        pub wq: *mut ibv_wq,
        pub port_num: c_int,
    }
}

c_data! {
    /// An asynchronous event; must be acknowledged.
    pub struct ibv_async_event {
        pub element: ibv_async_event_element,
        pub event_type: ibv_event_type,
    }
}
