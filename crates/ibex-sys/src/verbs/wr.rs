//! Work requests: `ibv_send_wr`, `ibv_recv_wr`, `ibv_sge`, opcodes and send flags.
//!
//! Man pages: `ibv_post_send(3)`, `ibv_post_recv(3)`.
#![allow(missing_docs, reason = "members and constants carry their C names; the man page documents them")]

use core::ffi::{c_int, c_void};

use super::{ibv_ah, ibv_mw, ibv_mw_bind_info};
use crate::macros::{c_data, c_enum, c_flags, c_union};

c_enum! {
    /// What a send work request does.
    pub enum ibv_wr_opcode: u32, "IBV_WR_" {
        IBV_WR_RDMA_WRITE = 0,
        IBV_WR_RDMA_WRITE_WITH_IMM = 1,
        IBV_WR_SEND = 2,
        IBV_WR_SEND_WITH_IMM = 3,
        IBV_WR_RDMA_READ = 4,
        IBV_WR_ATOMIC_CMP_AND_SWP = 5,
        IBV_WR_ATOMIC_FETCH_AND_ADD = 6,
        IBV_WR_LOCAL_INV = 7,
        IBV_WR_BIND_MW = 8,
        IBV_WR_SEND_WITH_INV = 9,
        IBV_WR_TSO = 10,
        IBV_WR_DRIVER1 = 11,
        IBV_WR_FLUSH = 14,
        IBV_WR_ATOMIC_WRITE = 15,
    }
}

c_flags! {
    /// Bits of [`ibv_send_wr::send_flags`].
    pub flags ibv_send_flags: u32, "IBV_SEND_" {
        IBV_SEND_FENCE = 1 << 0,
        IBV_SEND_SIGNALED = 1 << 1,
        IBV_SEND_SOLICITED = 1 << 2,
        IBV_SEND_INLINE = 1 << 3,
        IBV_SEND_IP_CSUM = 1 << 4,
    }
}

c_data! {
    /// A piece of registered memory.
    pub struct ibv_sge {
        pub addr: u64,
        pub length: u32,
        pub lkey: u32,
    }

    /// An array of file descriptors.
    pub struct ibv_fd_arr {
        pub arr: *mut c_int,
        pub count: u32,
    }

    /// Target of READ and WRITE; unnamed in C.
    pub struct ibv_send_wr_rdma {
        pub remote_addr: u64,
        pub rkey: u32,
    }

    /// Target and operands of the atomics; unnamed in C.
    pub struct ibv_send_wr_atomic {
        pub remote_addr: u64,
        pub compare_add: u64,
        pub swap: u64,
        pub rkey: u32,
    }

    /// Destination of a datagram; unnamed in C.
    pub struct ibv_send_wr_ud {
        pub ah: *mut ibv_ah,
        pub remote_qpn: u32,
        pub remote_qkey: u32,
    }

    /// Receive queue of an XRC send; unnamed in C.
    pub struct ibv_send_wr_xrc {
        pub remote_srqn: u32,
    }

    /// Binding of a type 2 window; unnamed in C.
    pub struct ibv_send_wr_bind_mw {
        pub mw: *mut ibv_mw,
        pub rkey: u32,
        pub bind_info: ibv_mw_bind_info,
    }

    /// Segmentation offload; unnamed in C.
    pub struct ibv_send_wr_tso {
        pub hdr: *mut c_void,
        pub hdr_sz: u16,
        pub mss: u16,
    }

    /// A send work request.
    pub struct ibv_send_wr {
        pub wr_id: u64,
        pub next: *mut ibv_send_wr,
        pub sg_list: *mut ibv_sge,
        pub num_sge: c_int,
        pub opcode: ibv_wr_opcode,
        /// Bits of [`ibv_send_flags`].
        pub send_flags: u32,
        pub imm: ibv_send_wr_imm,
        pub wr: ibv_send_wr_wr,
        pub qp_type: ibv_send_wr_qp_type,
        pub tail: ibv_send_wr_tail,
    }

    /// A receive work request.
    pub struct ibv_recv_wr {
        pub wr_id: u64,
        pub next: *mut ibv_recv_wr,
        pub sg_list: *mut ibv_sge,
        pub num_sge: c_int,
    }
}

c_union! {
    /// Immediate data or the key to invalidate; an unnamed member in C.
    pub union ibv_send_wr_imm {
        /// Big-endian.
        pub imm_data: u32,
        pub invalidate_rkey: u32,
    }

    /// What depends on the opcode or the transport; member `wr` in C.
    pub union ibv_send_wr_wr {
        pub rdma: ibv_send_wr_rdma,
        pub atomic: ibv_send_wr_atomic,
        pub ud: ibv_send_wr_ud,
    }

    /// What depends on the queue pair's type; member `qp_type` in C.
    pub union ibv_send_wr_qp_type {
        pub xrc: ibv_send_wr_xrc,
    }

    /// The last, unnamed member in C.
    pub union ibv_send_wr_tail {
        pub bind_mw: ibv_send_wr_bind_mw,
        pub tso: ibv_send_wr_tso,
    }
}
