//! The data path: posting, polling, arming, events.
//!
//! # Safety
//! See [`raw`](super).
#![allow(unsafe_code)]

use std::ffi::c_void;

use ibex_sys::*;
use ibex_sys::{Errno, convention, dispatch};

/// A list of requests that was not posted to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadWr<W> {
    /// The device's answer.
    pub errno: Errno,
    /// The first request that was not posted; null if the device did not tell.
    pub wr: *mut W,
}

impl<W> std::fmt::Display for BadWr<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "request not posted: {}", self.errno)
    }
}

impl<W: std::fmt::Debug> std::error::Error for BadWr<W> {}

/// The answer to a post.
#[inline]
fn posted<W>(code: i32, wr: *mut W) -> Result<(), BadWr<W>> {
    convention::status(code).map_err(|errno| BadWr { errno, wr })
}

/// Posts a list of send requests.
///
/// # Errors
/// [`BadWr`]; the requests before the one it names were posted.
///
/// # Safety
/// - The list and its scatter lists are valid for the call.
/// - Every piece of memory lies in a region registered in the queue pair's domain, and stays registered until a fence: the
///   request's completion, a later completion of the same queue, or the destruction of the queue pair.
/// - Until then memory the device reads is not changed, and memory it writes neither read nor written, by Rust code that
///   goes through references. Inline data are free when the call returns.
/// - An address handle named outlives its request.
/// - There is room in the send queue, and in the completion queue for every completion that can arrive: an overflow loses
///   fences.
#[doc(alias = "ibv_post_send")]
#[inline]
pub unsafe fn post_send(qp: *mut ibv_qp, wr: *mut ibv_send_wr) -> Result<(), BadWr<ibv_send_wr>> {
    let mut bad = std::ptr::null_mut();
    // SAFETY: the caller keeps the contract of the C function, which is this one's.
    let code = unsafe { dispatch::ibv_post_send(qp, wr, &raw mut bad) };
    posted(code, bad)
}

/// Posts a list of receive requests.
///
/// # Errors
/// [`BadWr`]; the requests before the one it names were posted.
///
/// # Safety
/// As [`post_send`]; the memory is written by whatever the peer sends.
#[doc(alias = "ibv_post_recv")]
#[inline]
pub unsafe fn post_recv(qp: *mut ibv_qp, wr: *mut ibv_recv_wr) -> Result<(), BadWr<ibv_recv_wr>> {
    let mut bad = std::ptr::null_mut();
    // SAFETY: the caller keeps the contract of the C function, which is this one's.
    let code = unsafe { dispatch::ibv_post_recv(qp, wr, &raw mut bad) };
    posted(code, bad)
}

/// Posts a list of receive requests to a shared receive queue.
///
/// # Errors
/// [`BadWr`]; the requests before the one it names were posted.
///
/// # Safety
/// As [`post_recv`]. The destruction of a queue pair is no fence here: only the completion, or the destruction of the
/// shared queue.
#[doc(alias = "ibv_post_srq_recv")]
#[inline]
pub unsafe fn post_srq_recv(srq: *mut ibv_srq, wr: *mut ibv_recv_wr) -> Result<(), BadWr<ibv_recv_wr>> {
    let mut bad = std::ptr::null_mut();
    // SAFETY: the caller keeps the contract of the C function, which is this one's.
    let code = unsafe { dispatch::ibv_post_srq_recv(srq, wr, &raw mut bad) };
    posted(code, bad)
}

/// Takes up to `wcs.len()` completions; returns how many.
///
/// # Errors
/// The device can no longer be asked, or the queue has overflowed.
///
/// # Safety
/// The queue is live, and nobody else waits for the completions taken here.
#[doc(alias = "ibv_poll_cq")]
#[inline]
pub unsafe fn poll_cq(cq: *mut ibv_cq, wcs: &mut [ibv_wc]) -> Result<usize, Errno> {
    let room = i32::try_from(wcs.len()).unwrap_or(i32::MAX);
    // SAFETY: the caller's promise, and room for so many completions.
    let polled = unsafe { dispatch::ibv_poll_cq(cq, room, wcs.as_mut_ptr()) };
    // The convention checked, a count is not negative.
    if polled >= 0 { Ok(polled as usize) } else { failed(polled) }
}

#[cold]
fn failed(polled: i32) -> Result<usize, Errno> {
    convention::count(polled).map(|_| 0)
}

/// Asks for an event at the next completion, or only at the next one that is solicited or failed.
///
/// # Errors
/// The device's answer.
///
/// # Safety
/// The queue is live.
#[doc(alias = "ibv_req_notify_cq")]
#[inline]
pub unsafe fn req_notify_cq(cq: *mut ibv_cq, solicited_only: bool) -> Result<(), Errno> {
    // SAFETY: the caller's promise.
    let code = unsafe { dispatch::ibv_req_notify_cq(cq, i32::from(solicited_only)) };
    convention::status(code)
}

/// Reads an event of a channel: the queue, and the context it was created with. Blocks unless the channel's descriptor is
/// non-blocking (EAGAIN then).
///
/// # Errors
/// The library's answer.
///
/// # Safety
/// The channel is live. Every event read is acknowledged with [`ack_cq_events`] before its queue is destroyed, which waits
/// for that.
#[doc(alias = "ibv_get_cq_event")]
pub unsafe fn get_cq_event(
    verbs: &Verbs,
    channel: *mut ibv_comp_channel,
) -> Result<(*mut ibv_cq, *mut c_void), Errno> {
    let (mut cq, mut cq_context) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: the caller's promise, and valid places for the answer.
    let code = unsafe { (verbs.get_cq_event)(channel, &raw mut cq, &raw mut cq_context) };
    convention::minus_one(code).map(|_| (cq, cq_context))
}

/// Acknowledges `events` events of a queue. Takes a lock of the library: acknowledge many at once.
///
/// # Safety
/// The queue is live, and so many of its events were read and not acknowledged.
#[doc(alias = "ibv_ack_cq_events")]
pub unsafe fn ack_cq_events(verbs: &Verbs, cq: *mut ibv_cq, events: u32) {
    // SAFETY: the caller's promise.
    unsafe { (verbs.ack_cq_events)(cq, events) };
}
