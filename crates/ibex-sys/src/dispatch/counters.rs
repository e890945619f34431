//! Flow counters and completion counters.
//!
//! Owns the inline verbs on `ibv_counters`, and `ibv_query_comp_cntr_caps`.
//!
//! Man pages: `ibv_create_counters(3)`, `ibv_attach_counters_point_flow(3)`, `ibv_read_counters(3)`.
//!
//! # Safety
//!
//! See [`crate::dispatch`].
#![allow(unsafe_code)]

use core::ffi::c_int;

use super::context::{Unsupported, extended};
use crate::Verbs;
use crate::verbs::{
    ibv_comp_cntr_caps, ibv_context, ibv_counter_attach_attr, ibv_counters, ibv_counters_init_attr, ibv_flow,
};

/// Queries what completion counters a device has; 0, or an errno.
///
/// # Safety
///
/// `context` is live, `caps` is writable.
pub unsafe fn ibv_query_comp_cntr_caps(
    verbs: &Verbs,
    context: *mut ibv_context,
    caps: *mut ibv_comp_cntr_caps,
) -> c_int {
    match verbs.query_comp_cntr_caps {
        // SAFETY: the caller's promise; the size is that of the caller's structure.
        Some(query) => unsafe { query(context, caps, size_of::<ibv_comp_cntr_caps>()) },
        None => c_int::unsupported(),
    }
}

extended! {
    /// Creates a set of counters; null with errno on failure.
    pub fn ibv_create_counters[create_counters by context context](
        context: *mut ibv_context,
        init_attr: *mut ibv_counters_init_attr,
    ) -> *mut ibv_counters;

    /// Destroys a set of counters; 0, or an errno.
    pub fn ibv_destroy_counters[destroy_counters by object counters](counters: *mut ibv_counters) -> c_int;

    /// Attaches a counter to a rule; 0, or an errno.
    pub fn ibv_attach_counters_point_flow[attach_counters_point_flow by object counters](
        counters: *mut ibv_counters,
        attr: *mut ibv_counter_attach_attr,
        flow: *mut ibv_flow,
    ) -> c_int;

    /// Reads counters into an array; 0, or an errno.
    pub fn ibv_read_counters[read_counters by object counters](
        counters: *mut ibv_counters,
        counters_value: *mut u64,
        ncounters: u32,
        flags: u32,
    ) -> c_int;
}
