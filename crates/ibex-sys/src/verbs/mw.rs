//! Memory windows: `ibv_mw` and what binds one.
//!
//! Man pages: `ibv_alloc_mw(3)`, `ibv_bind_mw(3)`.
#![allow(missing_docs, reason = "members and constants carry their C names; the man page documents them")]

use super::{ibv_context, ibv_mr, ibv_pd};
use crate::macros::{c_data, c_enum, c_object};

c_enum! {
    /// Type 1 windows are bound by `ibv_bind_mw`, type 2 by a posted work request.
    pub enum ibv_mw_type: u32, "IBV_MW_" {
        IBV_MW_TYPE_1 = 1,
        IBV_MW_TYPE_2 = 2,
    }
}

c_object! {
    /// A memory window.
    pub struct ibv_mw {
        pub context: *mut ibv_context,
        pub pd: *mut ibv_pd,
        pub rkey: u32,
        pub handle: u32,
        pub r#type: ibv_mw_type,
    }
}

c_data! {
    /// The range a window is bound to.
    pub struct ibv_mw_bind_info {
        pub mr: *mut ibv_mr,
        pub addr: u64,
        pub length: u64,
        /// Bits of `ibv_access_flags`.
        pub mw_access_flags: u32,
    }

    /// Input of `ibv_bind_mw`.
    pub struct ibv_mw_bind {
        pub wr_id: u64,
        pub send_flags: u32,
        pub bind_info: ibv_mw_bind_info,
    }
}
