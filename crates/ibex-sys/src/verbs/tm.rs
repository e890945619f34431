//! Tag matching: list operations on a shared receive queue.
//!
//! Man page: `ibv_post_srq_ops(3)`.
#![allow(missing_docs, reason = "members and constants carry their C names; the man page documents them")]

use core::ffi::c_int;

use super::ibv_sge;
use crate::macros::{c_data, c_enum, c_flags};

c_enum! {
    /// Operation on the matching list.
    pub enum ibv_ops_wr_opcode: u32, "IBV_WR_" {
        IBV_WR_TAG_ADD = 0,
        IBV_WR_TAG_DEL = 1,
        IBV_WR_TAG_SYNC = 2,
    }
}

c_flags! {
    /// Bits of [`ibv_ops_wr::flags`].
    pub flags ibv_ops_flags: u32, "IBV_OPS_" {
        IBV_OPS_SIGNALED = 1 << 0,
        IBV_OPS_TM_SYNC = 1 << 1,
    }
}

c_data! {
    /// Sizes of the matching list.
    pub struct ibv_tm_cap {
        pub max_num_tags: u32,
        pub max_ops: u32,
    }

    /// A tagged buffer; unnamed in C.
    pub struct ibv_ops_wr_tm_add {
        pub recv_wr_id: u64,
        pub sg_list: *mut ibv_sge,
        pub num_sge: c_int,
        pub tag: u64,
        pub mask: u64,
    }

    /// Tag-matching part of an operation; unnamed in C.
    pub struct ibv_ops_wr_tm {
        pub unexpected_cnt: u32,
        pub handle: u32,
        pub add: ibv_ops_wr_tm_add,
    }

    /// An operation for `ibv_post_srq_ops`.
    pub struct ibv_ops_wr {
        pub wr_id: u64,
        pub next: *mut ibv_ops_wr,
        pub opcode: ibv_ops_wr_opcode,
        pub flags: c_int,
        pub tm: ibv_ops_wr_tm,
    }
}
