//! Domains: protection domains, thread domains, parent domains.
//!
//! Man pages: `ibv_alloc_pd(3)`, `ibv_alloc_td(3)`, `ibv_alloc_parent_domain(3)`.
#![allow(missing_docs, reason = "members and constants carry their C names; the man page documents them")]

use core::ffi::c_void;

use super::ibv_context;
use crate::macros::{c_data, c_flags, c_object};

c_object! {
    /// A protection domain.
    pub struct ibv_pd {
        pub context: *mut ibv_context,
        pub handle: u32,
    }

    /// A thread domain.
    pub struct ibv_td {
        pub context: *mut ibv_context,
    }
}

c_flags! {
    /// Bits of [`ibv_parent_domain_init_attr::comp_mask`].
    pub flags ibv_parent_domain_init_attr_mask: u32, "IBV_PARENT_DOMAIN_INIT_ATTR_" {
        IBV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS = 1 << 0,
        IBV_PARENT_DOMAIN_INIT_ATTR_PD_CONTEXT = 1 << 1,
        IBV_PARENT_DOMAIN_INIT_ATTR_ALLOW_CC_UNPROTECTED_ALLOC = 1 << 2,
    }
}

/// Returned by [`ibv_parent_domain_init_attr::alloc`] to ask for the default allocator.
pub const IBV_ALLOCATOR_USE_DEFAULT: *mut c_void = usize::MAX as *mut c_void;

c_data! {
    /// Input of `ibv_alloc_td`.
    pub struct ibv_td_init_attr {
        pub comp_mask: u32,
    }

    /// Input of `ibv_alloc_parent_domain`.
    pub struct ibv_parent_domain_init_attr {
        pub pd: *mut ibv_pd,
        pub td: *mut ibv_td,
        pub comp_mask: u32,
        pub alloc: Option<unsafe extern "C" fn(*mut ibv_pd, *mut c_void, usize, usize, u64) -> *mut c_void>,
        pub free: Option<unsafe extern "C" fn(*mut ibv_pd, *mut c_void, *mut c_void, u64)>,
        pub pd_context: *mut c_void,
    }
}
