//! XRC domains.
//!
//! Man page: `ibv_open_xrcd(3)`.
#![allow(missing_docs, reason = "members and constants carry their C names; the man page documents them")]

use core::ffi::c_int;

use super::ibv_context;
use crate::macros::{c_data, c_flags, c_object};

c_flags! {
    /// Bits of [`ibv_xrcd_init_attr::comp_mask`].
    pub flags ibv_xrcd_init_attr_mask: u32, "IBV_XRCD_INIT_ATTR_" {
        IBV_XRCD_INIT_ATTR_FD = 1 << 0,
        IBV_XRCD_INIT_ATTR_OFLAGS = 1 << 1,
        IBV_XRCD_INIT_ATTR_RESERVED = 1 << 2,
    }
}

c_data! {
    /// Input of `ibv_open_xrcd`.
    pub struct ibv_xrcd_init_attr {
        pub comp_mask: u32,
        pub fd: c_int,
        pub oflags: c_int,
    }
}

c_object! {
    /// An XRC domain.
    pub struct ibv_xrcd {
        pub context: *mut ibv_context,
    }
}
