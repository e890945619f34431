//! Extended queue pairs: `ibv_qp_ex`, whose function pointers build work requests in place.
//!
//! Man page: `ibv_wr_post(3)`. The inline callers are in `dispatch/wr.rs`.
#![allow(missing_docs, reason = "members and constants carry their C names; the man page documents them")]

use core::ffi::{c_int, c_void};

use super::{ibv_ah, ibv_mw, ibv_mw_bind_info, ibv_qp, ibv_sge};
use crate::macros::{c_data, c_enum, c_flags, c_object};

c_flags! {
    /// Where a FLUSH makes data visible: argument `type` of `ibv_wr_flush`.
    pub flags ibv_placement_type: u32, "IBV_FLUSH_" {
        IBV_FLUSH_GLOBAL = 1 << 0,
        IBV_FLUSH_PERSISTENT = 1 << 1,
    }
}

c_enum! {
    /// What a FLUSH covers: argument `level` of `ibv_wr_flush`.
    pub enum ibv_selectivity_level: u32, "IBV_FLUSH_" {
        IBV_FLUSH_RANGE = 0,
        IBV_FLUSH_MR = 1,
    }
}

c_data! {
    /// A piece of inline data.
    pub struct ibv_data_buf {
        pub addr: *mut c_void,
        pub length: usize,
    }
}

c_object! {
    /// An extended queue pair, from `ibv_qp_to_qp_ex`. Immediate data is big-endian throughout.
    pub struct ibv_qp_ex {
        pub qp_base: ibv_qp,
        pub comp_mask: u64,
        /// Set before each `wr_*` call that starts a request.
        pub wr_id: u64,
        /// Bits of `ibv_send_flags`; set before each `wr_*` call that starts a request.
        pub wr_flags: u32,
        pub wr_atomic_cmp_swp: Option<unsafe extern "C" fn(*mut ibv_qp_ex, u32, u64, u64, u64)>,
        pub wr_atomic_fetch_add: Option<unsafe extern "C" fn(*mut ibv_qp_ex, u32, u64, u64)>,
        pub wr_bind_mw: Option<unsafe extern "C" fn(*mut ibv_qp_ex, *mut ibv_mw, u32, *const ibv_mw_bind_info)>,
        pub wr_local_inv: Option<unsafe extern "C" fn(*mut ibv_qp_ex, u32)>,
        pub wr_rdma_read: Option<unsafe extern "C" fn(*mut ibv_qp_ex, u32, u64)>,
        pub wr_rdma_write: Option<unsafe extern "C" fn(*mut ibv_qp_ex, u32, u64)>,
        pub wr_rdma_write_imm: Option<unsafe extern "C" fn(*mut ibv_qp_ex, u32, u64, u32)>,
        pub wr_send: Option<unsafe extern "C" fn(*mut ibv_qp_ex)>,
        pub wr_send_imm: Option<unsafe extern "C" fn(*mut ibv_qp_ex, u32)>,
        pub wr_send_inv: Option<unsafe extern "C" fn(*mut ibv_qp_ex, u32)>,
        pub wr_send_tso: Option<unsafe extern "C" fn(*mut ibv_qp_ex, *mut c_void, u16, u16)>,
        pub wr_set_ud_addr: Option<unsafe extern "C" fn(*mut ibv_qp_ex, *mut ibv_ah, u32, u32)>,
        pub wr_set_xrc_srqn: Option<unsafe extern "C" fn(*mut ibv_qp_ex, u32)>,
        pub wr_set_inline_data: Option<unsafe extern "C" fn(*mut ibv_qp_ex, *mut c_void, usize)>,
        pub wr_set_inline_data_list: Option<unsafe extern "C" fn(*mut ibv_qp_ex, usize, *const ibv_data_buf)>,
        pub wr_set_sge: Option<unsafe extern "C" fn(*mut ibv_qp_ex, u32, u64, u32)>,
        pub wr_set_sge_list: Option<unsafe extern "C" fn(*mut ibv_qp_ex, usize, *const ibv_sge)>,
        pub wr_start: Option<unsafe extern "C" fn(*mut ibv_qp_ex)>,
        pub wr_complete: Option<unsafe extern "C" fn(*mut ibv_qp_ex) -> c_int>,
        pub wr_abort: Option<unsafe extern "C" fn(*mut ibv_qp_ex)>,
        pub wr_atomic_write: Option<unsafe extern "C" fn(*mut ibv_qp_ex, u32, u64, *const c_void)>,
        pub wr_flush: Option<unsafe extern "C" fn(*mut ibv_qp_ex, u32, u64, usize, u8, u8)>,
    }
}
