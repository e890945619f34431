//! Extended completion queues: `ibv_cq_ex`, its creation attributes and the flags of what completions carry.
//!
//! Man page: `ibv_create_cq_ex(3)`.
#![allow(missing_docs, reason = "members and constants carry their C names; the man page documents them")]

use core::ffi::{c_int, c_void};

use libc::{pthread_cond_t, pthread_mutex_t};

use super::{ibv_comp_channel, ibv_context, ibv_pd, ibv_wc_opcode, ibv_wc_status};
use crate::macros::{c_data, c_flags, c_object};

c_flags! {
    /// Bits of [`ibv_cq_init_attr_ex::wc_flags`]: what the readers must be able to answer.
    pub flags ibv_create_cq_wc_flags: u32, "IBV_WC_EX_WITH_" {
        IBV_WC_EX_WITH_BYTE_LEN = 1 << 0,
        IBV_WC_EX_WITH_IMM = 1 << 1,
        IBV_WC_EX_WITH_QP_NUM = 1 << 2,
        IBV_WC_EX_WITH_SRC_QP = 1 << 3,
        IBV_WC_EX_WITH_SLID = 1 << 4,
        IBV_WC_EX_WITH_SL = 1 << 5,
        IBV_WC_EX_WITH_DLID_PATH_BITS = 1 << 6,
        IBV_WC_EX_WITH_COMPLETION_TIMESTAMP = 1 << 7,
        IBV_WC_EX_WITH_CVLAN = 1 << 8,
        IBV_WC_EX_WITH_FLOW_TAG = 1 << 9,
        IBV_WC_EX_WITH_TM_INFO = 1 << 10,
        IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK = 1 << 11,
    }

    /// Bits of [`ibv_cq_init_attr_ex::comp_mask`].
    pub flags ibv_cq_init_attr_mask: u32, "IBV_CQ_INIT_ATTR_MASK_" {
        IBV_CQ_INIT_ATTR_MASK_FLAGS = 1 << 0,
        IBV_CQ_INIT_ATTR_MASK_PD = 1 << 1,
    }

    /// Bits of [`ibv_cq_init_attr_ex::flags`].
    pub flags ibv_create_cq_attr_flags: u32, "IBV_CREATE_CQ_ATTR_" {
        IBV_CREATE_CQ_ATTR_SINGLE_THREADED = 1 << 0,
        IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN = 1 << 1,
    }
}

/// The flags that answer what a classic `ibv_wc` carries (the first seven of [`ibv_create_cq_wc_flags`]).
pub const IBV_WC_STANDARD_FLAGS: ibv_create_cq_wc_flags = ibv_create_cq_wc_flags(0x7f);
/// All flags this header version knows.
pub const IBV_CREATE_CQ_SUP_WC_FLAGS: ibv_create_cq_wc_flags = ibv_create_cq_wc_flags(0xfff);

c_data! {
    /// Input of `ibv_create_cq_ex`.
    pub struct ibv_cq_init_attr_ex {
        pub cqe: u32,
        pub cq_context: *mut c_void,
        pub channel: *mut ibv_comp_channel,
        pub comp_vector: u32,
        pub wc_flags: u64,
        pub comp_mask: u32,
        pub flags: u32,
        pub parent_domain: *mut ibv_pd,
    }

    /// Input of `ibv_start_poll`; `comp_mask` must be 0.
    pub struct ibv_poll_cq_attr {
        pub comp_mask: u32,
    }

    /// Tag-matching part of a completion.
    pub struct ibv_wc_tm_info {
        pub tag: u64,
        pub r#priv: u32,
    }
}

c_object! {
    /// An extended completion queue. Its first members are those of `ibv_cq`, to which a pointer may be cast; the
    /// readers answer for the completion that `ibv_start_poll` or `ibv_next_poll` moved to.
    pub struct ibv_cq_ex {
        pub context: *mut ibv_context,
        pub channel: *mut ibv_comp_channel,
        pub cq_context: *mut c_void,
        pub handle: u32,
        pub cqe: c_int,
        pub mutex: pthread_mutex_t,
        pub cond: pthread_cond_t,
        pub comp_events_completed: u32,
        pub async_events_completed: u32,
        pub comp_mask: u32,
        pub status: ibv_wc_status,
        pub wr_id: u64,
        pub start_poll: Option<unsafe extern "C" fn(*mut ibv_cq_ex, *mut ibv_poll_cq_attr) -> c_int>,
        pub next_poll: Option<unsafe extern "C" fn(*mut ibv_cq_ex) -> c_int>,
        pub end_poll: Option<unsafe extern "C" fn(*mut ibv_cq_ex)>,
        pub read_opcode: Option<unsafe extern "C" fn(*mut ibv_cq_ex) -> ibv_wc_opcode>,
        pub read_vendor_err: Option<unsafe extern "C" fn(*mut ibv_cq_ex) -> u32>,
        pub read_byte_len: Option<unsafe extern "C" fn(*mut ibv_cq_ex) -> u32>,
        /// Big-endian.
        pub read_imm_data: Option<unsafe extern "C" fn(*mut ibv_cq_ex) -> u32>,
        pub read_qp_num: Option<unsafe extern "C" fn(*mut ibv_cq_ex) -> u32>,
        pub read_src_qp: Option<unsafe extern "C" fn(*mut ibv_cq_ex) -> u32>,
        pub read_wc_flags: Option<unsafe extern "C" fn(*mut ibv_cq_ex) -> u32>,
        pub read_slid: Option<unsafe extern "C" fn(*mut ibv_cq_ex) -> u32>,
        pub read_sl: Option<unsafe extern "C" fn(*mut ibv_cq_ex) -> u8>,
        pub read_dlid_path_bits: Option<unsafe extern "C" fn(*mut ibv_cq_ex) -> u8>,
        pub read_completion_ts: Option<unsafe extern "C" fn(*mut ibv_cq_ex) -> u64>,
        pub read_cvlan: Option<unsafe extern "C" fn(*mut ibv_cq_ex) -> u16>,
        pub read_flow_tag: Option<unsafe extern "C" fn(*mut ibv_cq_ex) -> u32>,
        pub read_tm_info: Option<unsafe extern "C" fn(*mut ibv_cq_ex, *mut ibv_wc_tm_info)>,
        pub read_completion_wallclock_ns: Option<unsafe extern "C" fn(*mut ibv_cq_ex) -> u64>,
    }
}
