//! Counters: flow counters, completion counters, raw clock values.
//!
//! Man pages: `ibv_create_counters(3)`, `ibv_create_comp_cntr(3)`, `ibv_query_rt_values_ex(3)`.
#![allow(missing_docs, reason = "members and constants carry their C names; the man page documents them")]

use super::ibv_context;
use crate::macros::{c_data, c_enum, c_flags, c_object};

c_enum! {
    /// What a flow counter counts.
    pub enum ibv_counter_description: u32, "IBV_COUNTER_" {
        IBV_COUNTER_PACKETS = 0,
        IBV_COUNTER_BYTES = 1,
    }

    /// What a completion counter counts.
    pub enum ibv_comp_cntr_type: u32, "IBV_COMP_CNTR_TYPE_" {
        IBV_COMP_CNTR_TYPE_WRS = 0,
        IBV_COMP_CNTR_TYPE_BYTES = 1,
    }
}

c_flags! {
    /// Flags of `ibv_read_counters`.
    pub flags ibv_read_counters_flags: u32, "IBV_READ_COUNTERS_ATTR_" {
        IBV_READ_COUNTERS_ATTR_PREFER_CACHED = 1 << 0,
    }

    /// Bits of [`ibv_values_ex::comp_mask`].
    pub flags ibv_values_mask: u32, "IBV_VALUES_MASK_" {
        IBV_VALUES_MASK_RAW_CLOCK = 1 << 0,
        IBV_VALUES_MASK_RESERVED = 1 << 1,
    }

    /// Bits of [`ibv_qp_attach_comp_cntr_attr::op_mask`].
    pub flags ibv_qp_attach_comp_cntr_op: u32, "IBV_QP_ATTACH_COMP_CNTR_OP_" {
        IBV_QP_ATTACH_COMP_CNTR_OP_SEND = 1 << 0,
        IBV_QP_ATTACH_COMP_CNTR_OP_RECV = 1 << 1,
        IBV_QP_ATTACH_COMP_CNTR_OP_RDMA_READ = 1 << 2,
        IBV_QP_ATTACH_COMP_CNTR_OP_REMOTE_RDMA_READ = 1 << 3,
        IBV_QP_ATTACH_COMP_CNTR_OP_RDMA_WRITE = 1 << 4,
        IBV_QP_ATTACH_COMP_CNTR_OP_REMOTE_RDMA_WRITE = 1 << 5,
    }
}

c_data! {
    /// Input of `ibv_create_counters`.
    pub struct ibv_counters_init_attr {
        pub comp_mask: u32,
    }

    /// Input of `ibv_attach_counters_point_flow`.
    pub struct ibv_counter_attach_attr {
        pub counter_desc: ibv_counter_description,
        pub index: u32,
        pub comp_mask: u32,
    }

    /// In and out of `ibv_query_rt_values_ex`.
    pub struct ibv_values_ex {
        pub comp_mask: u32,
        pub raw_clock: libc::timespec,
    }

    /// Answer of `ibv_query_comp_cntr_caps`.
    pub struct ibv_comp_cntr_caps {
        pub max_value: u64,
        pub max_counters: u32,
        pub supported_qp_attach_ops: u32,
    }

    /// Input of `ibv_create_comp_cntr`.
    pub struct ibv_comp_cntr_init_attr {
        pub comp_mask: u32,
        pub r#type: ibv_comp_cntr_type,
        pub flags: u32,
    }

    /// Input of `ibv_qp_attach_comp_cntr`.
    pub struct ibv_qp_attach_comp_cntr_attr {
        pub comp_mask: u32,
        pub op_mask: u32,
    }
}

c_object! {
    /// A set of flow counters.
    pub struct ibv_counters {
        pub context: *mut ibv_context,
    }

    /// A completion counter (rdma-core 65).
    pub struct ibv_comp_cntr {
        pub context: *mut ibv_context,
        pub handle: u32,
    }
}
