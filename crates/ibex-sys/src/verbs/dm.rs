//! Device memory.
//!
//! Man pages: `ibv_alloc_dm(3)`, `ibv_import_dm(3)`.
#![allow(missing_docs, reason = "members and constants carry their C names; the man page documents them")]

use core::ffi::{c_int, c_void};

use super::ibv_context;
use crate::macros::{c_data, c_flags, c_object};

c_flags! {
    /// Bits of [`ibv_dm::comp_mask`].
    pub flags ibv_dm_mask: u32, "IBV_DM_MASK_" {
        IBV_DM_MASK_HANDLE = 1 << 0,
    }
}

c_data! {
    /// Input of `ibv_alloc_dm`; the length in bytes.
    pub struct ibv_alloc_dm_attr {
        pub length: usize,
        pub log_align_req: u32,
        pub comp_mask: u32,
    }
}

c_object! {
    /// A piece of device memory.
    pub struct ibv_dm {
        pub context: *mut ibv_context,
        pub memcpy_to_dm: Option<unsafe extern "C" fn(*mut ibv_dm, u64, *const c_void, usize) -> c_int>,
        pub memcpy_from_dm: Option<unsafe extern "C" fn(*mut c_void, *mut ibv_dm, u64, usize) -> c_int>,
        pub comp_mask: u32,
        pub handle: u32,
    }
}
