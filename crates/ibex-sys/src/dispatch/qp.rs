//! Queue pairs: extended creation, sharing, rate limits.
//!
//! Owns `ibv_create_qp_ex` with its fallback, `ibv_open_qp`, `ibv_modify_qp_rate_limit`.
//!
//! Man pages: `ibv_create_qp_ex(3)`, `ibv_open_qp(3)`, `ibv_modify_qp_rate_limit(3)`.
//!
//! # Safety
//!
//! See [`crate::dispatch`].
#![allow(unsafe_code)]

use core::ffi::c_int;

use super::context::{Unsupported, ctx_op, extended};
use crate::Verbs;
use crate::verbs::{
    IBV_QP_INIT_ATTR_PD, ibv_context, ibv_qp, ibv_qp_init_attr_ex, ibv_qp_open_attr, ibv_qp_rate_limit_attr,
};

/// Creates a queue pair; null with errno on failure. Attributes that say no more than a protection domain go to
/// `ibv_create_qp`, so that every device can serve them.
///
/// # Safety
///
/// The objects named are live and of one device, the attributes are writable. See `ibv_create_qp_ex(3)`.
pub unsafe fn ibv_create_qp_ex(
    verbs: &Verbs,
    context: *mut ibv_context,
    attr: *mut ibv_qp_init_attr_ex,
) -> *mut ibv_qp {
    // SAFETY: readable by the caller's promise.
    let mask = unsafe { (*attr).comp_mask };
    if mask == IBV_QP_INIT_ATTR_PD.0 {
        // SAFETY: readable by the caller's promise.
        let pd = unsafe { (*attr).pd };
        // SAFETY: the classic attributes are a prefix of the extended ones.
        return unsafe { (verbs.create_qp)(pd, attr.cast()) };
    }
    match ctx_op!(context, create_qp_ex) {
        // SAFETY: the device's own function, with the caller's arguments.
        Some(create) => unsafe { create(context, attr) },
        None => Unsupported::unsupported(),
    }
}

extended! {
    /// Opens a shareable queue pair; null with errno on failure.
    pub fn ibv_open_qp[open_qp by context context](
        context: *mut ibv_context,
        attr: *mut ibv_qp_open_attr,
    ) -> *mut ibv_qp;

    /// Changes a queue pair's rate limit; 0, or an errno.
    pub fn ibv_modify_qp_rate_limit[modify_qp_rate_limit by object qp](
        qp: *mut ibv_qp,
        attr: *mut ibv_qp_rate_limit_attr,
    ) -> c_int;
}
