//! Domains, regions, windows.
//!
//! # Safety
//! See [`raw`](super).
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::ptr::NonNull;

use ibex_sys::*;
use ibex_sys::{Errno, convention, dispatch};

use super::verbs;

verbs! {
    /// Allocates a protection domain.
    ///
    /// # Errors
    /// The device's answer.
    ///
    /// # Safety
    /// The context is open.
    fn alloc_pd(context: *mut ibv_context) -> NonNull<ibv_pd> = pointer;

    /// Frees a protection domain.
    ///
    /// # Errors
    /// The device's answer; EBUSY while something of the domain is left.
    ///
    /// # Safety
    /// Not used afterwards if it succeeds.
    fn dealloc_pd(pd: *mut ibv_pd) -> () = status;

    /// Registers memory.
    ///
    /// # Errors
    /// The device's answer.
    ///
    /// # Safety
    /// The range stays mapped until the region is gone. With remote write or atomic rights no Rust reference to any byte of
    /// it may exist until then: a peer, or another queue pair of this process, may write it at any moment.
    fn reg_mr(pd: *mut ibv_pd, addr: *mut c_void, length: usize, access: c_int) -> NonNull<ibv_mr> = pointer;

    /// Deregisters memory: on success the device does not use it any more.
    ///
    /// # Errors
    /// The device's answer; EBUSY while a window is bound. The memory must then not be freed.
    ///
    /// # Safety
    /// No request in flight names it. Not used afterwards if it succeeds.
    fn dereg_mr(mr: *mut ibv_mr) -> () = status;
}

/// Changes a region: its range, domain or rights, as `flags` (bits of `ibv_rereg_mr_flags`) say.
///
/// # Errors
/// How far it got; the region is usable afterwards only for the values below `IBV_REREG_MR_ERR_CMD`.
///
/// # Safety
/// As [`reg_mr`] for the new values and [`dereg_mr`] for the old: no request in flight names the region.
#[doc(alias = "ibv_rereg_mr")]
pub unsafe fn rereg_mr(
    verbs: &Verbs,
    mr: *mut ibv_mr,
    flags: c_int,
    pd: *mut ibv_pd,
    addr: *mut c_void,
    length: usize,
    access: c_int,
) -> Result<(), ibv_rereg_mr_err_code> {
    // SAFETY: the caller keeps the contract of the C function, which is this one's.
    match unsafe { (verbs.rereg_mr)(mr, flags, pd, addr, length, access) } {
        0 => Ok(()),
        code => Err(ibv_rereg_mr_err_code(code)),
    }
}

/// Allocates a memory window.
///
/// # Errors
/// The device's answer; EOPNOTSUPP if it has none.
///
/// # Safety
/// The domain is live.
#[doc(alias = "ibv_alloc_mw")]
pub unsafe fn alloc_mw(pd: *mut ibv_pd, kind: ibv_mw_type) -> Result<NonNull<ibv_mw>, Errno> {
    // SAFETY: the caller's promise.
    convention::pointer(unsafe { dispatch::ibv_alloc_mw(pd, kind) })
}

/// Binds a type 1 window to a part of a region, as a request of the queue pair.
///
/// # Errors
/// The device's answer.
///
/// # Safety
/// As [`reg_mr`] for what the window allows, until the window is bound anew or freed; there is room in the queues as for
/// [`post_send`](super::post_send).
#[doc(alias = "ibv_bind_mw")]
pub unsafe fn bind_mw(qp: *mut ibv_qp, mw: *mut ibv_mw, bind: *mut ibv_mw_bind) -> Result<(), Errno> {
    // SAFETY: the caller's promise.
    convention::status(unsafe { dispatch::ibv_bind_mw(qp, mw, bind) })
}

/// Frees a memory window: on success nobody reaches memory through it any more.
///
/// # Errors
/// The device's answer.
///
/// # Safety
/// Not used afterwards if it succeeds.
#[doc(alias = "ibv_dealloc_mw")]
pub unsafe fn dealloc_mw(mw: *mut ibv_mw) -> Result<(), Errno> {
    // SAFETY: the caller's promise.
    convention::status(unsafe { dispatch::ibv_dealloc_mw(mw) })
}
