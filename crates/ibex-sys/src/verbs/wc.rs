//! Work completions: `ibv_wc`, statuses, opcodes, flags.
//!
//! Man page: `ibv_poll_cq(3)`; IBTA volume 1, 11.6.2 (completion return status).
#![allow(missing_docs, reason = "members and constants carry their C names; the man page documents them")]

use crate::macros::{c_data, c_enum, c_flags, c_union};

c_enum! {
    /// How a work request ended.
    pub enum ibv_wc_status: u32, "IBV_WC_" {
        IBV_WC_SUCCESS = 0,
        IBV_WC_LOC_LEN_ERR = 1,
        IBV_WC_LOC_QP_OP_ERR = 2,
        IBV_WC_LOC_EEC_OP_ERR = 3,
        IBV_WC_LOC_PROT_ERR = 4,
        IBV_WC_WR_FLUSH_ERR = 5,
        IBV_WC_MW_BIND_ERR = 6,
        IBV_WC_BAD_RESP_ERR = 7,
        IBV_WC_LOC_ACCESS_ERR = 8,
        IBV_WC_REM_INV_REQ_ERR = 9,
        IBV_WC_REM_ACCESS_ERR = 10,
        IBV_WC_REM_OP_ERR = 11,
        IBV_WC_RETRY_EXC_ERR = 12,
        IBV_WC_RNR_RETRY_EXC_ERR = 13,
        IBV_WC_LOC_RDD_VIOL_ERR = 14,
        IBV_WC_REM_INV_RD_REQ_ERR = 15,
        IBV_WC_REM_ABORT_ERR = 16,
        IBV_WC_INV_EECN_ERR = 17,
        IBV_WC_INV_EEC_STATE_ERR = 18,
        IBV_WC_FATAL_ERR = 19,
        IBV_WC_RESP_TIMEOUT_ERR = 20,
        IBV_WC_GENERAL_ERR = 21,
        IBV_WC_TM_ERR = 22,
        IBV_WC_TM_RNDV_INCOMPLETE = 23,
    }

    /// What completed; receives have the bit `IBV_WC_RECV` set.
    pub enum ibv_wc_opcode: u32, "IBV_WC_" {
        IBV_WC_SEND = 0,
        IBV_WC_RDMA_WRITE = 1,
        IBV_WC_RDMA_READ = 2,
        IBV_WC_COMP_SWAP = 3,
        IBV_WC_FETCH_ADD = 4,
        IBV_WC_BIND_MW = 5,
        IBV_WC_LOCAL_INV = 6,
        IBV_WC_TSO = 7,
        IBV_WC_FLUSH = 8,
        IBV_WC_ATOMIC_WRITE = 9,
        IBV_WC_RECV = 1 << 7,
        IBV_WC_RECV_RDMA_WITH_IMM = 129,
        IBV_WC_TM_ADD = 130,
        IBV_WC_TM_DEL = 131,
        IBV_WC_TM_SYNC = 132,
        IBV_WC_TM_RECV = 133,
        IBV_WC_TM_NO_TAG = 134,
        IBV_WC_DRIVER1 = 135,
        IBV_WC_DRIVER2 = 136,
        IBV_WC_DRIVER3 = 137,
    }
}

/// Position of `IBV_WC_IP_CSUM_OK` among the flags.
pub const IBV_WC_IP_CSUM_OK_SHIFT: u32 = 2;

c_flags! {
    /// Bits of [`ibv_wc::wc_flags`].
    pub flags ibv_wc_flags: u32, "IBV_WC_" {
        IBV_WC_GRH = 1 << 0,
        IBV_WC_WITH_IMM = 1 << 1,
        IBV_WC_IP_CSUM_OK = 1 << IBV_WC_IP_CSUM_OK_SHIFT,
        IBV_WC_WITH_INV = 1 << 3,
        IBV_WC_TM_SYNC_REQ = 1 << 4,
        IBV_WC_TM_MATCH = 1 << 5,
        IBV_WC_TM_DATA_VALID = 1 << 6,
    }
}

c_union! {
    /// Immediate data or the key that was invalidated; unnamed in C, inside [`ibv_wc`].
    pub union ibv_wc_imm {
        /// Big-endian; valid with `IBV_WC_WITH_IMM`.
        pub imm_data: u32,
        /// Valid with `IBV_WC_WITH_INV`.
        pub invalidated_rkey: u32,
    }
}

c_data! {
    /// A work completion. After an error only `wr_id`, `status`, `qp_num` and `vendor_err` are valid.
    pub struct ibv_wc {
        pub wr_id: u64,
        pub status: ibv_wc_status,
        pub opcode: ibv_wc_opcode,
        pub vendor_err: u32,
        pub byte_len: u32,
        pub imm: ibv_wc_imm,
        pub qp_num: u32,
        pub src_qp: u32,
        /// Bits of [`ibv_wc_flags`].
        pub wc_flags: u32,
        pub pkey_index: u16,
        pub slid: u16,
        pub sl: u8,
        pub dlid_path_bits: u8,
    }
}
