//! Queries of a device and its ports.
//!
//! Owns `ibv_query_port`, `ibv_query_device_ex` and `ibv_query_rt_values_ex`. The GID table is in `gid.rs`.
//!
//! Man pages: `ibv_query_port(3)`, `ibv_query_device_ex(3)`, `ibv_query_rt_values_ex(3)`.
//!
//! # Safety
//!
//! See [`crate::dispatch`].
#![allow(unsafe_code)]

use core::ffi::c_int;

use super::context::{ctx_op, extended};
use crate::Verbs;
use crate::verbs::{
    ibv_context, ibv_device_attr_ex, ibv_port_attr, ibv_qp_type, ibv_query_device_ex_input, ibv_values_ex,
};
use crate::zeroed;

/// Queries a port (from 1); 0, or an errno. Through the exported function, if the device has nothing newer, only the
/// members up to `flags` are filled and the rest is zero.
///
/// # Safety
///
/// `context` is live, `port_attr` is writable. See `ibv_query_port(3)`.
pub unsafe fn ibv_query_port(
    verbs: &Verbs,
    context: *mut ibv_context,
    port_num: u8,
    port_attr: *mut ibv_port_attr,
) -> c_int {
    match ctx_op!(context, query_port) {
        // SAFETY: the device's own function; the length is that of the caller's structure.
        Some(query_port) => unsafe { query_port(context, port_num, port_attr, size_of::<ibv_port_attr>()) },
        None => {
            // SAFETY: writable by the caller's promise.
            unsafe { port_attr.write(zeroed()) };
            // SAFETY: the shorter structure is a prefix of the caller's.
            unsafe { (verbs.query_port)(context, port_num, port_attr.cast()) }
        }
    }
}

/// Queries a device; 0, or an errno. A device without extended attributes fills `orig_attr` and the rest is zero.
///
/// # Safety
///
/// `context` is live, `input` is null or readable, `attr` is writable. See `ibv_query_device_ex(3)`.
pub unsafe fn ibv_query_device_ex(
    verbs: &Verbs,
    context: *mut ibv_context,
    input: *const ibv_query_device_ex_input,
    attr: *mut ibv_device_attr_ex,
) -> c_int {
    if !input.is_null() {
        // SAFETY: readable by the caller's promise.
        if unsafe { (*input).comp_mask } != 0 {
            return libc::EINVAL;
        }
    }
    if let Some(query) = ctx_op!(context, query_device_ex) {
        // SAFETY: the device's own function; the length is that of the caller's structure.
        let ret = unsafe { query(context, input, attr, size_of::<ibv_device_attr_ex>()) };
        if ret != libc::EOPNOTSUPP && ret != libc::ENOSYS {
            return ret;
        }
    }
    // SAFETY: writable by the caller's promise.
    unsafe { attr.write(zeroed()) };
    // SAFETY: a member of a writable structure.
    let orig_attr = unsafe { &raw mut (*attr).orig_attr };
    // SAFETY: the context is live and the structure writable.
    unsafe { (verbs.query_device)(context, orig_attr) }
}

/// True if the bit for this type of queue pair is set in a capability such as `ibv_tso_caps::supported_qpts`.
pub fn ibv_is_qpt_supported(caps: u32, qpt: ibv_qp_type) -> bool {
    // A type outside the mask (IBV_QPT_DRIVER) is never in it.
    1u32.checked_shl(qpt.0).is_some_and(|bit| caps & bit != 0)
}

extended! {
    /// Reads the device's clock; 0, or an errno. `comp_mask` says what is wanted and, afterwards, what was answered.
    pub fn ibv_query_rt_values_ex[query_rt_values by context context](
        context: *mut ibv_context,
        values: *mut ibv_values_ex,
    ) -> c_int;
}
