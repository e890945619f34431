//! The classic data path: posting work requests.
//!
//! Owns `ibv_post_send`, `ibv_post_recv`. Shared receive queues are in `srq.rs`, the extended interface in `wr.rs`.
//!
//! Man pages: `ibv_post_send(3)`, `ibv_post_recv(3)`.
//!
//! # Safety
//!
//! See [`crate::dispatch`].
#![allow(unsafe_code)]

use core::ffi::c_int;

use crate::verbs::{ibv_qp, ibv_recv_wr, ibv_send_wr};

/// Posts a list of send work requests; 0, or an errno with `bad_wr` at the first request that was not posted.
///
/// # Safety
///
/// `qp` is live; the list and its scatter lists are valid for the call, the memory they name stays registered and
/// unreferenced until the requests complete (except inline data); `bad_wr` is writable. See `ibv_post_send(3)`.
#[inline]
pub unsafe fn ibv_post_send(qp: *mut ibv_qp, wr: *mut ibv_send_wr, bad_wr: *mut *mut ibv_send_wr) -> c_int {
    // SAFETY: the queue pair is live.
    let context = unsafe { (*qp).context };
    // SAFETY: a live queue pair's context is live.
    match unsafe { (*context).ops.post_send } {
        // SAFETY: the device's own function, with the caller's arguments.
        Some(post_send) => unsafe { post_send(qp, wr, bad_wr) },
        None => libc::EOPNOTSUPP,
    }
}

/// Posts a list of receive work requests; 0, or an errno with `bad_wr` at the first request that was not posted.
///
/// # Safety
///
/// As for [`ibv_post_send`]; see `ibv_post_recv(3)`.
#[inline]
pub unsafe fn ibv_post_recv(qp: *mut ibv_qp, wr: *mut ibv_recv_wr, bad_wr: *mut *mut ibv_recv_wr) -> c_int {
    // SAFETY: the queue pair is live.
    let context = unsafe { (*qp).context };
    // SAFETY: a live queue pair's context is live.
    match unsafe { (*context).ops.post_recv } {
        // SAFETY: the device's own function, with the caller's arguments.
        Some(post_recv) => unsafe { post_recv(qp, wr, bad_wr) },
        None => libc::EOPNOTSUPP,
    }
}
