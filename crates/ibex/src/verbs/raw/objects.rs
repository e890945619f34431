//! Devices, channels, queues, address handles: making, changing, asking, destroying.
//!
//! # Safety
//! See [`raw`](super).
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::ptr::NonNull;

use ibex_sys::*;

use super::verbs;

verbs! {
    /// Opens a device.
    ///
    /// # Errors
    /// The library's answer.
    ///
    /// # Safety
    /// The device is on a list that has not been freed.
    fn open_device(device: *mut ibv_device) -> NonNull<ibv_context> = pointer;

    /// Creates a completion channel.
    ///
    /// # Errors
    /// The device's answer.
    ///
    /// # Safety
    /// The context is open.
    fn create_comp_channel(context: *mut ibv_context) -> NonNull<ibv_comp_channel> = pointer;

    /// Destroys a completion channel.
    ///
    /// # Errors
    /// The device's answer; EBUSY while a completion queue uses it.
    ///
    /// # Safety
    /// Not used afterwards if it succeeds.
    fn destroy_comp_channel(channel: *mut ibv_comp_channel) -> () = status;

    /// Creates a completion queue.
    ///
    /// # Errors
    /// The device's answer.
    ///
    /// # Safety
    /// The channel, if there is one, outlives the queue.
    fn create_cq(
        context: *mut ibv_context,
        cqe: c_int,
        cq_context: *mut c_void,
        channel: *mut ibv_comp_channel,
        comp_vector: c_int,
    ) -> NonNull<ibv_cq> = pointer;

    /// Changes the size of a completion queue.
    ///
    /// # Errors
    /// The device's answer.
    ///
    /// # Safety
    /// There remains room for every completion that can arrive.
    fn resize_cq(cq: *mut ibv_cq, cqe: c_int) -> () = status;

    /// Destroys a completion queue; waits for every event read from it to be acknowledged.
    ///
    /// # Errors
    /// The device's answer; EBUSY while a queue pair uses it.
    ///
    /// # Safety
    /// Not used afterwards if it succeeds.
    fn destroy_cq(cq: *mut ibv_cq) -> () = status;

    /// Creates a shared receive queue.
    ///
    /// # Errors
    /// The device's answer.
    ///
    /// # Safety
    /// The domain is live.
    fn create_srq(pd: *mut ibv_pd, attr: *mut ibv_srq_init_attr) -> NonNull<ibv_srq> = pointer;

    /// Changes the size or the limit of a shared receive queue.
    ///
    /// # Errors
    /// The device's answer.
    ///
    /// # Safety
    /// The queue is live.
    fn modify_srq(srq: *mut ibv_srq, attr: *mut ibv_srq_attr, mask: c_int) -> () = status;

    /// Asks for size and limit of a shared receive queue.
    ///
    /// # Errors
    /// The device's answer.
    ///
    /// # Safety
    /// The queue is live.
    fn query_srq(srq: *mut ibv_srq, attr: *mut ibv_srq_attr) -> () = status;

    /// Destroys a shared receive queue: the fence of every receive posted to it.
    ///
    /// # Errors
    /// The device's answer; EBUSY while a queue pair uses it.
    ///
    /// # Safety
    /// Not used afterwards if it succeeds.
    fn destroy_srq(srq: *mut ibv_srq) -> () = status;

    /// Creates a queue pair; the sizes granted are written back.
    ///
    /// # Errors
    /// The device's answer.
    ///
    /// # Safety
    /// The queues named are live and outlive it; the completion queues have room for every completion that can arrive.
    fn create_qp(pd: *mut ibv_pd, attr: *mut ibv_qp_init_attr) -> NonNull<ibv_qp> = pointer;

    /// Moves a queue pair to another state; [`transition::check`](crate::verbs::transition::check) explains an EINVAL.
    ///
    /// # Errors
    /// The device's answer.
    ///
    /// # Safety
    /// The queue pair is live. A move to RESET discards what is in flight without completions: memory of such requests is
    /// free only after the queue pair is destroyed.
    fn modify_qp(qp: *mut ibv_qp, attr: *mut ibv_qp_attr, mask: c_int) -> () = status;

    /// Asks for the attributes of a queue pair.
    ///
    /// # Errors
    /// The device's answer.
    ///
    /// # Safety
    /// The queue pair is live.
    fn query_qp(qp: *mut ibv_qp, attr: *mut ibv_qp_attr, mask: c_int, init: *mut ibv_qp_init_attr) -> () = status;

    /// Destroys a queue pair: on success the fence of every request posted to it.
    ///
    /// # Errors
    /// The device's answer. The memory of requests in flight must then not be freed.
    ///
    /// # Safety
    /// Not used afterwards if it succeeds; the asynchronous events read from it are acknowledged.
    fn destroy_qp(qp: *mut ibv_qp) -> () = status;

    /// Creates an address handle.
    ///
    /// # Errors
    /// The device's answer.
    ///
    /// # Safety
    /// The domain is live.
    fn create_ah(pd: *mut ibv_pd, attr: *mut ibv_ah_attr) -> NonNull<ibv_ah> = pointer;

    /// Destroys an address handle.
    ///
    /// # Errors
    /// The device's answer.
    ///
    /// # Safety
    /// No request in flight names it. Not used afterwards if it succeeds.
    fn destroy_ah(ah: *mut ibv_ah) -> () = status;

    /// Joins a queue pair to a multicast group.
    ///
    /// # Errors
    /// The device's answer.
    ///
    /// # Safety
    /// The queue pair is live.
    fn attach_mcast(qp: *mut ibv_qp, gid: *const ibv_gid, lid: u16) -> () = status;

    /// Takes a queue pair out of a multicast group.
    ///
    /// # Errors
    /// The device's answer.
    ///
    /// # Safety
    /// The queue pair is live.
    fn detach_mcast(qp: *mut ibv_qp, gid: *const ibv_gid, lid: u16) -> () = status;
}

/// Closes a device.
///
/// # Errors
/// The library's answer.
///
/// # Safety
/// Nothing made from the context is left. Not used afterwards if it succeeds.
#[doc(alias = "ibv_close_device")]
pub unsafe fn close_device(verbs: &Verbs, context: *mut ibv_context) -> Result<(), Errno> {
    // SAFETY: the caller's promise.
    convention::minus_one(unsafe { (verbs.close_device)(context) }).map(drop)
}

/// Reads an asynchronous event. Blocks unless the context's `async_fd` is non-blocking (EAGAIN then).
///
/// # Errors
/// The library's answer.
///
/// # Safety
/// The context is open. Every event read is acknowledged with [`ack_async_event`] before its object is destroyed, which
/// waits for that.
#[doc(alias = "ibv_get_async_event")]
pub unsafe fn get_async_event(verbs: &Verbs, context: *mut ibv_context) -> Result<ibv_async_event, Errno> {
    let mut event = ibv_async_event::default();
    // SAFETY: the caller's promise, and a valid place for the answer.
    convention::minus_one(unsafe { (verbs.get_async_event)(context, &raw mut event) }).map(|_| event)
}

/// Acknowledges an asynchronous event.
///
/// # Safety
/// The event was read and is acknowledged once.
#[doc(alias = "ibv_ack_async_event")]
pub unsafe fn ack_async_event(verbs: &Verbs, event: &mut ibv_async_event) {
    // SAFETY: the caller's promise.
    unsafe { (verbs.ack_async_event)(event) };
}
