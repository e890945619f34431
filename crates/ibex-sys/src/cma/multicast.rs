//! Multicast groups.
//!
//! Man page: `rdma_join_multicast_ex(3)`.
#![allow(missing_docs, reason = "members and constants carry their C names; the man page documents them")]

use libc::sockaddr;

use crate::macros::{c_data, c_enum, c_flags};

c_flags! {
    /// Bits of [`rdma_cm_join_mc_attr_ex::comp_mask`].
    pub flags rdma_cm_join_mc_attr_mask: u32, "RDMA_CM_JOIN_MC_ATTR_" {
        RDMA_CM_JOIN_MC_ATTR_ADDRESS = 1 << 0,
        RDMA_CM_JOIN_MC_ATTR_JOIN_FLAGS = 1 << 1,
        RDMA_CM_JOIN_MC_ATTR_RESERVED = 1 << 2,
    }
}

c_enum! {
    /// How to join: [`rdma_cm_join_mc_attr_ex::join_flags`].
    pub enum rdma_cm_mc_join_flags: u32, "RDMA_MC_JOIN_FLAG_" {
        RDMA_MC_JOIN_FLAG_FULLMEMBER = 0,
        RDMA_MC_JOIN_FLAG_SENDONLY_FULLMEMBER = 1,
        RDMA_MC_JOIN_FLAG_RESERVED = 2,
    }
}

c_data! {
    /// Input of `rdma_join_multicast_ex`.
    pub struct rdma_cm_join_mc_attr_ex {
        pub comp_mask: u32,
        pub join_flags: u32,
        pub addr: *mut sockaddr,
    }
}
