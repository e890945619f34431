//! What a queue pair's transition changes: `ibv_qp_attr`, its mask, rate limits.
//!
//! Man pages: `ibv_modify_qp(3)`, `ibv_query_qp(3)`, `ibv_modify_qp_rate_limit(3)`; IBTA volume 1, 11.2.5.2.
#![allow(missing_docs, reason = "members and constants carry their C names; the man page documents them")]

use super::{ibv_ah_attr, ibv_mig_state, ibv_mtu, ibv_qp_cap, ibv_qp_state};
use crate::macros::{c_data, c_flags};

c_flags! {
    /// Which members of [`ibv_qp_attr`] are meant.
    pub flags ibv_qp_attr_mask: u32, "IBV_QP_" {
        IBV_QP_STATE = 1 << 0,
        IBV_QP_CUR_STATE = 1 << 1,
        IBV_QP_EN_SQD_ASYNC_NOTIFY = 1 << 2,
        IBV_QP_ACCESS_FLAGS = 1 << 3,
        IBV_QP_PKEY_INDEX = 1 << 4,
        IBV_QP_PORT = 1 << 5,
        IBV_QP_QKEY = 1 << 6,
        IBV_QP_AV = 1 << 7,
        IBV_QP_PATH_MTU = 1 << 8,
        IBV_QP_TIMEOUT = 1 << 9,
        IBV_QP_RETRY_CNT = 1 << 10,
        IBV_QP_RNR_RETRY = 1 << 11,
        IBV_QP_RQ_PSN = 1 << 12,
        IBV_QP_MAX_QP_RD_ATOMIC = 1 << 13,
        IBV_QP_ALT_PATH = 1 << 14,
        IBV_QP_MIN_RNR_TIMER = 1 << 15,
        IBV_QP_SQ_PSN = 1 << 16,
        IBV_QP_MAX_DEST_RD_ATOMIC = 1 << 17,
        IBV_QP_PATH_MIG_STATE = 1 << 18,
        IBV_QP_CAP = 1 << 19,
        IBV_QP_DEST_QPN = 1 << 20,
        IBV_QP_RATE_LIMIT = 1 << 25,
    }
}

c_data! {
    /// Attributes of a queue pair.
    pub struct ibv_qp_attr {
        pub qp_state: ibv_qp_state,
        pub cur_qp_state: ibv_qp_state,
        pub path_mtu: ibv_mtu,
        pub path_mig_state: ibv_mig_state,
        pub qkey: u32,
        /// 24 bits.
        pub rq_psn: u32,
        /// 24 bits.
        pub sq_psn: u32,
        /// 24 bits.
        pub dest_qp_num: u32,
        /// Bits of `ibv_access_flags`.
        pub qp_access_flags: u32,
        pub cap: ibv_qp_cap,
        pub ah_attr: ibv_ah_attr,
        pub alt_ah_attr: ibv_ah_attr,
        pub pkey_index: u16,
        pub alt_pkey_index: u16,
        pub en_sqd_async_notify: u8,
        pub sq_draining: u8,
        pub max_rd_atomic: u8,
        pub max_dest_rd_atomic: u8,
        /// 5 bits, an index into the RNR timer table (IBTA volume 1, table 46).
        pub min_rnr_timer: u8,
        /// From 1.
        pub port_num: u8,
        /// 5 bits; the local ACK timeout is 4.096 µs × 2^timeout, 0 is for ever.
        pub timeout: u8,
        /// 3 bits.
        pub retry_cnt: u8,
        /// 3 bits; 7 is for ever.
        pub rnr_retry: u8,
        pub alt_port_num: u8,
        pub alt_timeout: u8,
        /// In kbit/s.
        pub rate_limit: u32,
    }

    /// Input of `ibv_modify_qp_rate_limit`: kbit/s, bytes, bytes.
    pub struct ibv_qp_rate_limit_attr {
        pub rate_limit: u32,
        pub max_burst_sz: u32,
        pub typical_pkt_sz: u16,
        pub comp_mask: u32,
    }
}
