//! Asynchronous events: `ibv_get_async_event(3)`, `ibv_ack_async_event(3)`.
//!
//! Owns their C side. What raises them is [`crate::qp`]'s, [`crate::cq`]'s and [`crate::srq`]'s.
//!
//! # Safety
//! As `object`. An event's name is the address of a live object: destroying one discards its undelivered events
//! under the queue's lock, and delivery counts under that lock.
#![allow(unsafe_code)]

use std::ffi::c_int;

use ibex_sys::{
    IBV_EVENT_COMM_EST, IBV_EVENT_CQ_ERR, IBV_EVENT_PATH_MIG, IBV_EVENT_PATH_MIG_ERR,
    IBV_EVENT_QP_ACCESS_ERR, IBV_EVENT_QP_FATAL, IBV_EVENT_QP_LAST_WQE_REACHED, IBV_EVENT_QP_REQ_ERR,
    IBV_EVENT_SQ_DRAINED, IBV_EVENT_SRQ_ERR, IBV_EVENT_SRQ_LIMIT_REACHED, ibv_async_event,
    ibv_async_event_element, ibv_context,
};

use super::context::{Shared, shared};
use super::object::{code, given, minus_one, named};
use super::{cq, qp, srq};
use crate::device::AsyncEvent;
use crate::nic;
use crate::os::watch;

/// `ibv_get_async_event(3)`. A signal handler does not end the wait.
///
/// # Safety
/// `context` is open; `event` is writable.
pub unsafe extern "C" fn ibv_get_async_event(
    context: *mut ibv_context,
    event: *mut ibv_async_event,
) -> c_int {
    minus_one(|| {
        // SAFETY: the caller's promise.
        let shared = unsafe { shared(context) }?;
        if !shared.is_ours() {
            // The queue's lock may be held for ever, and its descriptor's count is the parent's.
            return Err(libc::EIO);
        }
        let found = loop {
            if let Some(found) = take(shared) {
                break found;
            }
            shared.nic()?;
            if shared.events.nonblocking() {
                return Err(libc::EAGAIN);
            }
            nic::sleep(&mut [watch(shared.events.fd())], None)?;
        };
        let (kind, element) = match found {
            AsyncEvent::Cq(kind, name) => (kind, ibv_async_event_element { cq: named(name) }),
            AsyncEvent::Qp(kind, name) => (kind, ibv_async_event_element { qp: named(name) }),
            AsyncEvent::Srq(kind, name) => (kind, ibv_async_event_element { srq: named(name) }),
            // The manual: without an object, except for events of a port.
            AsyncEvent::Device(kind) => (kind, ibv_async_event_element { port_num: 0 }),
        };
        // SAFETY: the caller's promise.
        unsafe { given(event)?.write(ibv_async_event { element, event_type: kind }) }
        Ok(0)
    })
}

/// Takes the oldest event, counting it for its object.
fn take(shared: &Shared) -> Option<AsyncEvent> {
    shared.events.pop(|event| match *event {
        AsyncEvent::Cq(_, name) => {
            // SAFETY: events of destroyed objects are discarded under the lock held here.
            if let Ok(inside) = unsafe { cq::inside(named(name)) } {
                inside.cq.async_events.deliver();
            }
        }
        AsyncEvent::Qp(_, name) => {
            // SAFETY: as above.
            if let Ok(inside) = unsafe { qp::inside(named(name)) } {
                inside.qp.async_events.deliver();
            }
        }
        AsyncEvent::Srq(_, name) => {
            // SAFETY: as above.
            if let Ok(inside) = unsafe { srq::inside(named(name)) } {
                inside.srq.async_events.deliver();
            }
        }
        AsyncEvent::Device(_) => {}
    })
}

/// `ibv_ack_async_event(3)`.
///
/// # Safety
/// `event` came from [`ibv_get_async_event`] and was not acknowledged before.
pub unsafe extern "C" fn ibv_ack_async_event(event: *mut ibv_async_event) {
    let _ = code(|| {
        // SAFETY: the caller's promise.
        let event = unsafe { &*given(event)? };
        match event.event_type {
            IBV_EVENT_CQ_ERR => {
                // SAFETY: this member is in force for this type.
                let about = unsafe { event.element.cq };
                // SAFETY: not destroyed, since that waits for this acknowledgement.
                unsafe { cq::inside(about) }?.cq.async_events.ack(1);
            }
            IBV_EVENT_QP_FATAL
            | IBV_EVENT_QP_REQ_ERR
            | IBV_EVENT_QP_ACCESS_ERR
            | IBV_EVENT_COMM_EST
            | IBV_EVENT_SQ_DRAINED
            | IBV_EVENT_PATH_MIG
            | IBV_EVENT_PATH_MIG_ERR
            | IBV_EVENT_QP_LAST_WQE_REACHED => {
                // SAFETY: this member is in force for these types.
                let about = unsafe { event.element.qp };
                // SAFETY: as above.
                unsafe { qp::inside(about) }?.qp.async_events.ack(1);
            }
            IBV_EVENT_SRQ_ERR | IBV_EVENT_SRQ_LIMIT_REACHED => {
                // SAFETY: this member is in force for these types.
                let about = unsafe { event.element.srq };
                // SAFETY: as above.
                unsafe { srq::inside(about) }?.srq.async_events.ack(1);
            }
            _ => {}
        }
        Ok(())
    });
}
