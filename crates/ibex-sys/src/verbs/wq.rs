//! Work queues outside queue pairs, and the indirection tables over them.
//!
//! Man pages: `ibv_create_wq(3)`, `ibv_modify_wq(3)`, `ibv_create_rwq_ind_table(3)`.
#![allow(missing_docs, reason = "members and constants carry their C names; the man page documents them")]

use core::ffi::{c_int, c_void};

use libc::{pthread_cond_t, pthread_mutex_t};

use super::{ibv_context, ibv_cq, ibv_pd, ibv_recv_wr};
use crate::macros::{c_data, c_enum, c_flags, c_object};

c_enum! {
    /// Kind of work queue.
    pub enum ibv_wq_type: u32, "IBV_WQT_" {
        IBV_WQT_RQ = 0,
    }

    /// State of a work queue.
    pub enum ibv_wq_state: u32, "IBV_WQS_" {
        IBV_WQS_RESET = 0,
        IBV_WQS_RDY = 1,
        IBV_WQS_ERR = 2,
        IBV_WQS_UNKNOWN = 3,
    }
}

c_flags! {
    /// Bits of [`ibv_wq_init_attr::comp_mask`].
    pub flags ibv_wq_init_attr_mask: u32, "IBV_WQ_INIT_ATTR_" {
        IBV_WQ_INIT_ATTR_FLAGS = 1 << 0,
        IBV_WQ_INIT_ATTR_RESERVED = 1 << 1,
    }

    /// Bits of [`ibv_wq_init_attr::create_flags`] and [`ibv_wq_attr::flags`].
    pub flags ibv_wq_flags: u32, "IBV_WQ_FLAGS_" {
        IBV_WQ_FLAGS_CVLAN_STRIPPING = 1 << 0,
        IBV_WQ_FLAGS_SCATTER_FCS = 1 << 1,
        IBV_WQ_FLAGS_DELAY_DROP = 1 << 2,
        IBV_WQ_FLAGS_PCI_WRITE_END_PADDING = 1 << 3,
        IBV_WQ_FLAGS_RESERVED = 1 << 4,
    }

    /// Bits of [`ibv_wq_attr::attr_mask`].
    pub flags ibv_wq_attr_mask: u32, "IBV_WQ_ATTR_" {
        IBV_WQ_ATTR_STATE = 1 << 0,
        IBV_WQ_ATTR_CURR_STATE = 1 << 1,
        IBV_WQ_ATTR_FLAGS = 1 << 2,
        IBV_WQ_ATTR_RESERVED = 1 << 3,
    }

    /// Bits of [`ibv_rwq_ind_table_init_attr::comp_mask`].
    pub flags ibv_ind_table_init_attr_mask: u32, "IBV_CREATE_IND_TABLE_" {
        IBV_CREATE_IND_TABLE_RESERVED = 1 << 0,
    }
}

c_data! {
    /// Input of `ibv_create_wq`.
    pub struct ibv_wq_init_attr {
        pub wq_context: *mut c_void,
        pub wq_type: ibv_wq_type,
        pub max_wr: u32,
        pub max_sge: u32,
        pub pd: *mut ibv_pd,
        pub cq: *mut ibv_cq,
        pub comp_mask: u32,
        pub create_flags: u32,
    }

    /// Input of `ibv_modify_wq`.
    pub struct ibv_wq_attr {
        pub attr_mask: u32,
        pub wq_state: ibv_wq_state,
        pub curr_wq_state: ibv_wq_state,
        pub flags: u32,
        pub flags_mask: u32,
    }

    /// Input of `ibv_create_rwq_ind_table`.
    pub struct ibv_rwq_ind_table_init_attr {
        pub log_ind_tbl_size: u32,
        pub ind_tbl: *mut *mut ibv_wq,
        pub comp_mask: u32,
    }
}

c_object! {
    /// A work queue.
    pub struct ibv_wq {
        pub context: *mut ibv_context,
        pub wq_context: *mut c_void,
        pub pd: *mut ibv_pd,
        pub cq: *mut ibv_cq,
        pub wq_num: u32,
        pub handle: u32,
        pub state: ibv_wq_state,
        pub wq_type: ibv_wq_type,
        pub post_recv:
            Option<unsafe extern "C" fn(*mut ibv_wq, *mut ibv_recv_wr, *mut *mut ibv_recv_wr) -> c_int>,
        pub mutex: pthread_mutex_t,
        pub cond: pthread_cond_t,
        pub events_completed: u32,
        pub comp_mask: u32,
    }

    /// A table that spreads received packets over work queues.
    pub struct ibv_rwq_ind_table {
        pub context: *mut ibv_context,
        pub ind_tbl_handle: c_int,
        pub ind_tbl_num: c_int,
        pub comp_mask: u32,
    }
}
