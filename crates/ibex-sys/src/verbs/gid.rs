//! Global identifiers: `ibv_gid`, entries of a port's GID table.
//!
//! Man pages: `ibv_query_gid(3)`, `ibv_query_gid_ex(3)`, `ibv_query_gid_table(3)`.
//!
//! # Safety
//!
//! Both members of the union `ibv_gid` cover all its bytes, so that either may be read whichever was written.
#![allow(unsafe_code)]
#![allow(missing_docs, reason = "members and constants carry their C names; the man page documents them")]

use core::fmt;
use core::hash::{Hash, Hasher};
use core::net::Ipv6Addr;

use crate::macros::{c_data, c_enum, plain};

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

/// A 128-bit global identifier; on RoCEv2 an IPv6 address, possibly IPv4-mapped. Printed as such.
#[repr(C)]
#[derive(Clone, Copy)]
pub union ibv_gid {
    pub raw: [u8; 16],
    pub global: ibv_gid_global,
}

plain!(ibv_gid { raw: [u8; 16], global: ibv_gid_global });

impl ibv_gid {
    /// The identifier with these bytes, in the order of the wire.
    pub const fn from_raw(raw: [u8; 16]) -> Self {
        Self { raw }
    }

    /// The bytes, in the order of the wire.
    pub const fn raw(&self) -> [u8; 16] {
        // SAFETY: any bytes are a value of this member, and both members cover them all.
        unsafe { self.raw }
    }
}

impl PartialEq for ibv_gid {
    fn eq(&self, other: &Self) -> bool {
        self.raw() == other.raw()
    }
}

impl Eq for ibv_gid {}

impl Hash for ibv_gid {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.raw().hash(state);
    }
}

impl fmt::Debug for ibv_gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ibv_gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Ipv6Addr::from(self.raw()), f)
    }
}
