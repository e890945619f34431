//! Work queues outside queue pairs, and indirection tables.
//!
//! Owns the inline verbs on `ibv_wq` and `ibv_rwq_ind_table`.
//!
//! Man pages: `ibv_create_wq(3)`, `ibv_modify_wq(3)`, `ibv_post_wq_recv(3)`, `ibv_create_rwq_ind_table(3)`.
//!
//! # Safety
//!
//! See [`crate::dispatch`].
#![allow(unsafe_code)]

use core::ffi::c_int;
use core::ptr::null;

use super::context::{Unsupported, ctx_op, extended};
use crate::verbs::{
    ibv_context, ibv_recv_wr, ibv_rwq_ind_table, ibv_rwq_ind_table_init_attr, ibv_wq, ibv_wq_attr,
    ibv_wq_init_attr,
};

/// Creates a work queue; null with errno on failure. The caller's side of the object (its context, mutex, condition) is
/// initialised here, as the header does.
///
/// # Safety
///
/// The objects named are live, the attributes are writable. See `ibv_create_wq(3)`.
pub unsafe fn ibv_create_wq(context: *mut ibv_context, attr: *mut ibv_wq_init_attr) -> *mut ibv_wq {
    let Some(create) = ctx_op!(context, create_wq) else {
        return Unsupported::unsupported();
    };
    // SAFETY: the device's own function, with the caller's arguments.
    let wq = unsafe { create(context, attr) };
    if wq.is_null() {
        return wq;
    }
    // SAFETY: readable by the caller's promise.
    let wq_context = unsafe { (*attr).wq_context };
    // SAFETY: a new object that nobody else knows yet.
    let object = unsafe { &mut *wq };
    object.wq_context = wq_context;
    object.events_completed = 0;
    // SAFETY: not yet initialised, and not shared.
    unsafe { libc::pthread_mutex_init(&raw mut object.mutex, null()) };
    // SAFETY: not yet initialised, and not shared.
    unsafe { libc::pthread_cond_init(&raw mut object.cond, null()) };
    wq
}

/// Posts a list of receive work requests; 0, or an errno with `bad_wr` at the first request that was not posted.
///
/// # Safety
///
/// As for `ibv_post_srq_recv`. See `ibv_post_wq_recv(3)`.
#[inline]
pub unsafe fn ibv_post_wq_recv(
    wq: *mut ibv_wq,
    wr: *mut ibv_recv_wr,
    bad_wr: *mut *mut ibv_recv_wr,
) -> c_int {
    // SAFETY: the queue is live.
    match unsafe { (*wq).post_recv } {
        // SAFETY: the device's own function, with the caller's arguments.
        Some(post) => unsafe { post(wq, wr, bad_wr) },
        None => c_int::unsupported(),
    }
}

extended! {
    /// Changes a work queue; 0, or an errno.
    pub fn ibv_modify_wq[modify_wq by object wq](wq: *mut ibv_wq, wq_attr: *mut ibv_wq_attr) -> c_int;

    /// Destroys a work queue; 0, or an errno.
    pub fn ibv_destroy_wq[destroy_wq by object wq](wq: *mut ibv_wq) -> c_int;

    /// Creates an indirection table; null with errno on failure.
    pub fn ibv_create_rwq_ind_table[create_rwq_ind_table by context context](
        context: *mut ibv_context,
        init_attr: *mut ibv_rwq_ind_table_init_attr,
    ) -> *mut ibv_rwq_ind_table;

    /// Destroys an indirection table; 0, or an errno.
    pub fn ibv_destroy_rwq_ind_table[destroy_rwq_ind_table by object table](
        table: *mut ibv_rwq_ind_table,
    ) -> c_int;
}
