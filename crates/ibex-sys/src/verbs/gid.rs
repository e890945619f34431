//! Global identifiers: `ibv_gid`, entries of a port's GID table.
//!
//! Man pages: `ibv_query_gid(3)`, `ibv_query_gid_ex(3)`, `ibv_query_gid_table(3)`.
#![allow(missing_docs, reason = "members and constants carry their C names; the man page documents them")]

use crate::macros::{c_data, c_enum, c_union};

c_enum! {
    /// What a GID table entry stands for.
    pub enum ibv_gid_type: u32, "IBV_GID_TYPE_" {
        IBV_GID_TYPE_IB = 0,
        IBV_GID_TYPE_ROCE_V1 = 1,
        IBV_GID_TYPE_ROCE_V2 = 2,
    }
}

c_data! {
    /// The two halves of a GID, big-endian; unnamed in C, inside [`ibv_gid`].
    pub struct ibv_gid_global {
        /// Big-endian.
        pub subnet_prefix: u64,
        /// Big-endian.
        pub interface_id: u64,
    }

    /// An entry of a port's GID table.
    pub struct ibv_gid_entry {
        pub gid: ibv_gid,
        pub gid_index: u32,
        pub port_num: u32,
        /// A value of [`ibv_gid_type`].
        pub gid_type: u32,
        /// Index of the network interface, 0 if there is none.
        pub ndev_ifindex: u32,
    }
}

c_union! {
    /// A 128-bit global identifier; on RoCEv2 an IPv6 address, possibly IPv4-mapped.
    pub union ibv_gid {
        pub raw: [u8; 16],
        pub global: ibv_gid_global,
    }
}
