//! Completion queues: polling and arming, creation of extended ones, moderation.
//!
//! Owns the inline verbs on `ibv_cq`. The readers of an extended queue are in `cq_ex.rs`.
//!
//! Man pages: `ibv_poll_cq(3)`, `ibv_req_notify_cq(3)`, `ibv_create_cq_ex(3)`, `ibv_modify_cq(3)`.
//!
//! # Safety
//!
//! See [`crate::dispatch`].
#![allow(unsafe_code)]

use core::ffi::c_int;

use super::context::extended;
use crate::verbs::{ibv_context, ibv_cq, ibv_cq_ex, ibv_cq_init_attr_ex, ibv_modify_cq_attr, ibv_wc};

/// Polls for at most `num_entries` completions; their number, or a negative value.
///
/// # Safety
///
/// `cq` is live and `wc` is writable for `num_entries` completions. See `ibv_poll_cq(3)`.
#[inline]
pub unsafe fn ibv_poll_cq(cq: *mut ibv_cq, num_entries: c_int, wc: *mut ibv_wc) -> c_int {
    // SAFETY: the queue is live.
    let context = unsafe { (*cq).context };
    // SAFETY: a live queue's context is live.
    match unsafe { (*context).ops.poll_cq } {
        // SAFETY: the device's own function, with the caller's arguments.
        Some(poll_cq) => unsafe { poll_cq(cq, num_entries, wc) },
        None => -libc::EOPNOTSUPP,
    }
}

/// Arms the queue: one event for the next completion, or for the next solicited or failed one only. 0, or an errno.
///
/// # Safety
///
/// `cq` is live and was created with a completion channel. See `ibv_req_notify_cq(3)`.
#[inline]
pub unsafe fn ibv_req_notify_cq(cq: *mut ibv_cq, solicited_only: c_int) -> c_int {
    // SAFETY: the queue is live.
    let context = unsafe { (*cq).context };
    // SAFETY: a live queue's context is live.
    match unsafe { (*context).ops.req_notify_cq } {
        // SAFETY: the device's own function, with the caller's arguments.
        Some(req_notify_cq) => unsafe { req_notify_cq(cq, solicited_only) },
        None => libc::EOPNOTSUPP,
    }
}

/// The classic view of an extended queue, which starts with the same members.
#[inline]
pub fn ibv_cq_ex_to_cq(cq: *mut ibv_cq_ex) -> *mut ibv_cq {
    cq.cast()
}

extended! {
    /// Creates an extended queue; null with errno on failure. There is no fallback to `ibv_create_cq`: a device without
    /// extended queues gives EOPNOTSUPP.
    pub fn ibv_create_cq_ex[create_cq_ex by context context](
        context: *mut ibv_context,
        cq_attr: *mut ibv_cq_init_attr_ex,
    ) -> *mut ibv_cq_ex;

    /// Changes a queue's moderation; 0, or an errno.
    pub fn ibv_modify_cq[modify_cq by object cq](cq: *mut ibv_cq, attr: *mut ibv_modify_cq_attr) -> c_int;
}
