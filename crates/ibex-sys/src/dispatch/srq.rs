//! Shared receive queues: extended creation, posting, tag-matching operations.
//!
//! Owns the inline verbs on `ibv_srq`.
//!
//! Man pages: `ibv_create_srq_ex(3)`, `ibv_post_srq_recv(3)`, `ibv_get_srq_num(3)`, `ibv_post_srq_ops(3)`.
//!
//! # Safety
//!
//! See [`crate::dispatch`].
#![allow(unsafe_code)]

use core::ffi::c_int;

use super::context::{Unsupported, ctx_op, extended};
use crate::Verbs;
use crate::verbs::{
    IBV_SRQ_INIT_ATTR_PD, IBV_SRQ_INIT_ATTR_TYPE, IBV_SRQT_BASIC, ibv_context, ibv_ops_wr, ibv_recv_wr,
    ibv_srq, ibv_srq_init_attr_ex,
};

/// Creates a shared receive queue; null with errno on failure. Attributes that describe a basic queue (a protection
/// domain, and no type or the basic one) go to `ibv_create_srq`, so that every device can serve them.
///
/// # Safety
///
/// The objects named are live and of one device, the attributes are writable. See `ibv_create_srq_ex(3)`.
pub unsafe fn ibv_create_srq_ex(
    verbs: &Verbs,
    context: *mut ibv_context,
    attr: *mut ibv_srq_init_attr_ex,
) -> *mut ibv_srq {
    // SAFETY: readable by the caller's promise.
    let mask = unsafe { (*attr).comp_mask };
    // SAFETY: readable by the caller's promise.
    let srq_type = unsafe { (*attr).srq_type };
    let (with_pd, with_type) = (IBV_SRQ_INIT_ATTR_PD.0, IBV_SRQ_INIT_ATTR_TYPE.0);
    let basic = mask & with_type == 0 || srq_type == IBV_SRQT_BASIC;
    if basic && mask & !with_type == with_pd {
        // SAFETY: readable by the caller's promise.
        let pd = unsafe { (*attr).pd };
        // SAFETY: the classic attributes are a prefix of the extended ones.
        return unsafe { (verbs.create_srq)(pd, attr.cast()) };
    }
    match ctx_op!(context, create_srq_ex) {
        // SAFETY: the device's own function, with the caller's arguments.
        Some(create) => unsafe { create(context, attr) },
        None => Unsupported::unsupported(),
    }
}

/// Posts a list of receive work requests; 0, or an errno with `bad_wr` at the first request that was not posted.
///
/// # Safety
///
/// `srq` is live; the list and its scatter lists are valid for the call, the memory they name stays registered and
/// unreferenced until the requests complete; `bad_wr` is writable. See `ibv_post_srq_recv(3)`.
#[inline]
pub unsafe fn ibv_post_srq_recv(
    srq: *mut ibv_srq,
    wr: *mut ibv_recv_wr,
    bad_wr: *mut *mut ibv_recv_wr,
) -> c_int {
    // SAFETY: the queue is live.
    let context = unsafe { (*srq).context };
    // SAFETY: a live queue's context is live.
    match unsafe { (*context).ops.post_srq_recv } {
        // SAFETY: the device's own function, with the caller's arguments.
        Some(post) => unsafe { post(srq, wr, bad_wr) },
        None => c_int::unsupported(),
    }
}

/// Posts tag-matching operations; 0, or an errno with `bad_op` at the first one that was not posted.
///
/// # Safety
///
/// `srq` is live, the list is valid for the call and what it names until completion; `bad_op` is writable. See
/// `ibv_post_srq_ops(3)`.
pub unsafe fn ibv_post_srq_ops(
    srq: *mut ibv_srq,
    op: *mut ibv_ops_wr,
    bad_op: *mut *mut ibv_ops_wr,
) -> c_int {
    // SAFETY: the queue is live.
    let context = unsafe { (*srq).context };
    match ctx_op!(context, post_srq_ops) {
        // SAFETY: the device's own function, with the caller's arguments.
        Some(post) => unsafe { post(srq, op, bad_op) },
        None => {
            // SAFETY: writable by the caller's promise.
            unsafe { *bad_op = op };
            c_int::unsupported()
        }
    }
}

extended! {
    /// The number by which XRC requests name the queue; 0, or an errno.
    pub fn ibv_get_srq_num[get_srq_num by object srq](srq: *mut ibv_srq, srq_num: *mut u32) -> c_int;
}
