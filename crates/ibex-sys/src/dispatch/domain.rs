//! Thread domains, parent domains, XRC domains.
//!
//! Owns the inline verbs that make and free them.
//!
//! Man pages: `ibv_alloc_td(3)`, `ibv_alloc_parent_domain(3)`, `ibv_open_xrcd(3)`.
//!
//! # Safety
//!
//! See [`crate::dispatch`].
#![allow(unsafe_code)]

use core::ffi::c_int;

use super::context::extended;
use crate::verbs::{
    ibv_context, ibv_parent_domain_init_attr, ibv_pd, ibv_td, ibv_td_init_attr, ibv_xrcd, ibv_xrcd_init_attr,
};

extended! {
    /// Allocates a thread domain; null with errno on failure.
    pub fn ibv_alloc_td[alloc_td by context context](
        context: *mut ibv_context,
        init_attr: *mut ibv_td_init_attr,
    ) -> *mut ibv_td;

    /// Frees a thread domain; 0, or an errno.
    pub fn ibv_dealloc_td[dealloc_td by object td](td: *mut ibv_td) -> c_int;

    /// Allocates a parent domain, freed by `ibv_dealloc_pd`; null with errno on failure.
    pub fn ibv_alloc_parent_domain[alloc_parent_domain by context context](
        context: *mut ibv_context,
        attr: *mut ibv_parent_domain_init_attr,
    ) -> *mut ibv_pd;

    /// Opens an XRC domain; null with errno on failure.
    pub fn ibv_open_xrcd[open_xrcd by context context](
        context: *mut ibv_context,
        attr: *mut ibv_xrcd_init_attr,
    ) -> *mut ibv_xrcd;

    /// Closes an XRC domain; 0, or an errno.
    pub fn ibv_close_xrcd[close_xrcd by object xrcd](xrcd: *mut ibv_xrcd) -> c_int;
}
