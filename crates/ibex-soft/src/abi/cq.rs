//! Completion channels and queues: `ibv_create_cq(3)`, `ibv_poll_cq(3)`, `ibv_get_cq_event(3)`.
//!
//! Owns the C side of them; order, arming and overflow are [`crate::cq`]'s, waiting is [`crate::nic`]'s.
//!
//! # Safety
//! As `object`. A name in a channel's queue is the address of a live `ibv_cq`: destroying one discards its names under
//! the queue's lock, and delivery counts under that lock.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_uint, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ibex_sys::{
    IBV_CQ_ATTR_MODERATE, ibv_comp_channel, ibv_context, ibv_cq, ibv_cq_ex, ibv_modify_cq_attr, ibv_wc,
};

use super::context::{Shared, shared};
use super::cq_ex::Walker;
use super::object::{Object, Room, caught, code, given, minus_one, named, pointer};
use crate::cq::{Channel, Cq, MAX_CQE};
use crate::device::AsyncEvent;
use crate::event::EventQueue;
use crate::os::set_errno;

/// The inside of a completion channel.
struct ChannelInside {
    shared: Arc<Shared>,
    channel: Arc<Channel>,
}

type ChannelObject = Object<ibv_comp_channel, ChannelInside>;

/// The inside of a completion queue.
pub(super) struct CqInside {
    pub(super) shared: Arc<Shared>,
    pub(super) cq: Arc<Cq>,
    /// What an extended queue has besides.
    pub(super) walker: Option<Walker>,
}

/// Every queue has the room of an extended one, whose first members are those of an `ibv_cq`.
type CqObject = Object<ibv_cq_ex, CqInside>;

/// The inside of a program's completion queue.
///
/// # Safety
/// `cq` is null or came from [`ibv_create_cq`] and was not destroyed.
#[inline]
pub(super) unsafe fn inside<'a>(cq: *mut ibv_cq) -> Result<&'a CqInside, i32> {
    // SAFETY: the caller's promise.
    Ok(unsafe { CqObject::soft(given(cq)?.cast()) })
}

/// `ibv_create_comp_channel(3)`.
///
/// # Safety
/// `context` is open.
pub unsafe extern "C" fn ibv_create_comp_channel(context: *mut ibv_context) -> *mut ibv_comp_channel {
    pointer(|| {
        // SAFETY: the caller's promise.
        let shared = unsafe { shared(context) }?;
        shared.nic()?;
        let events = EventQueue::new().map_err(|error| error.raw_os_error().unwrap_or(libc::EMFILE))?;
        let fd = events.fd();
        let channel = Arc::new(Channel { events, users: AtomicU32::new(0) });
        let inside = ChannelInside { shared: shared.clone(), channel };
        Ok(ChannelObject::publish(ibv_comp_channel { context, fd, refcnt: 0 }, inside))
    })
}

/// `ibv_destroy_comp_channel(3)`: `EBUSY` while completion queues use it.
///
/// # Safety
/// `channel` came from [`ibv_create_comp_channel`]; it is not used any more unless this fails.
pub unsafe extern "C" fn ibv_destroy_comp_channel(channel: *mut ibv_comp_channel) -> c_int {
    code(|| {
        // SAFETY: the caller's promise.
        let inside = unsafe { ChannelObject::soft(given(channel)?) };
        inside.shared.nic()?;
        if inside.channel.users.load(Ordering::Acquire) > 0 {
            return Err(libc::EBUSY);
        }
        // SAFETY: the caller gives it up.
        drop(unsafe { ChannelObject::reclaim(channel) });
        Ok(())
    })
}

/// What is asked of a new completion queue.
pub(super) struct Asked {
    /// Entries; refused if out of range.
    pub(super) cqe: c_int,
    pub(super) cq_context: *mut c_void,
    pub(super) channel: *mut ibv_comp_channel,
    pub(super) comp_vector: c_int,
    /// Whether completions are stamped with the time.
    pub(super) timed: bool,
}

/// Makes a completion queue; with a `walker` it is an extended one whose functions are those in `public`.
///
/// # Errors
/// `EINVAL` for a number of entries or a vector that does not exist.
///
/// # Safety
/// `context` is open; `channel` is null or alive.
pub(super) unsafe fn create(
    context: *mut ibv_context,
    asked: &Asked,
    walker: Option<Walker>,
    public: ibv_cq_ex,
) -> Result<*mut ibv_cq_ex, i32> {
    // SAFETY: the caller's promise.
    let shared = unsafe { shared(context) }?;
    shared.nic()?;
    let &Asked { cqe, cq_context, channel, .. } = asked;
    let capacity = u32::try_from(cqe).ok().filter(|cqe| (1..=MAX_CQE).contains(cqe)).ok_or(libc::EINVAL)?;
    if asked.comp_vector != 0 {
        return Err(libc::EINVAL);
    }
    let events = if channel.is_null() {
        None
    } else {
        // SAFETY: the caller's promise.
        Some(unsafe { ChannelObject::soft(channel) }.channel.clone())
    };
    let room = Room::new();
    let cq = Arc::new(Cq::new(capacity, room.name(), events, asked.timed));
    let public = ibv_cq_ex { context, channel, cq_context, cqe, ..public };
    Ok(room.publish(public, CqInside { shared: shared.clone(), cq, walker }))
}

/// `ibv_create_cq(3)`.
///
/// # Safety
/// `context` is open; `channel` is null or alive.
pub unsafe extern "C" fn ibv_create_cq(
    context: *mut ibv_context,
    cqe: c_int,
    cq_context: *mut c_void,
    channel: *mut ibv_comp_channel,
    comp_vector: c_int,
) -> *mut ibv_cq {
    pointer(|| {
        let asked = Asked { cqe, cq_context, channel, comp_vector, timed: false };
        // SAFETY: the caller's promise.
        let cq = unsafe { create(context, &asked, None, ibv_cq_ex::default()) }?;
        Ok(cq.cast())
    })
}

/// `ibv_resize_cq(3)`.
///
/// # Safety
/// `cq` is alive.
pub unsafe extern "C" fn ibv_resize_cq(cq: *mut ibv_cq, cqe: c_int) -> c_int {
    code(|| {
        // SAFETY: the caller's promise.
        let inside = unsafe { inside(cq) }?;
        inside.shared.nic()?;
        let capacity =
            u32::try_from(cqe).ok().filter(|cqe| (1..=MAX_CQE).contains(cqe)).ok_or(libc::EINVAL)?;
        inside.cq.resize(capacity)?;
        // SAFETY: the queue is alive; the library is who writes this member.
        unsafe { (*cq).cqe = cqe }
        Ok(())
    })
}

/// `ibv_destroy_cq(3)`: `EBUSY` while queue pairs use it; waits until every event got from it is acknowledged.
///
/// # Safety
/// `cq` came from [`ibv_create_cq`]; it is not used any more unless this fails.
pub unsafe extern "C" fn ibv_destroy_cq(cq: *mut ibv_cq) -> c_int {
    code(|| {
        // SAFETY: the caller's promise.
        let inside = unsafe { inside(cq) }?;
        inside.shared.nic()?;
        if inside.cq.users.load(Ordering::Acquire) > 0 {
            return Err(libc::EBUSY);
        }
        let name = inside.cq.name;
        inside.shared.events.retain(|event| !matches!(event, AsyncEvent::Cq(_, about) if *about == name));
        inside.cq.close();
        inside.cq.completion_events.wait();
        inside.cq.async_events.wait();
        // SAFETY: the caller gives it up; no event names it any more.
        drop(unsafe { CqObject::reclaim(cq.cast()) });
        Ok(())
    })
}

/// `ibv_modify_cq(3)`: moderation of events.
pub(super) unsafe extern "C" fn modify_cq(cq: *mut ibv_cq, attr: *mut ibv_modify_cq_attr) -> c_int {
    code(|| {
        // SAFETY: the queue is alive (manual).
        let inside = unsafe { inside(cq) }?;
        inside.shared.nic()?;
        // SAFETY: the attributes are readable (manual).
        let asked = unsafe { given(attr)?.read() };
        if asked.attr_mask & !IBV_CQ_ATTR_MODERATE.0 != 0 {
            return Err(libc::EOPNOTSUPP);
        }
        if asked.attr_mask & IBV_CQ_ATTR_MODERATE.0 != 0 {
            let nic = Arc::downgrade(inside.shared.open_nic());
            inside.cq.moderate(nic, asked.moderate.cq_count, asked.moderate.cq_period);
        }
        Ok(())
    })
}

/// `ibv_poll_cq(3)`: takes what is there; if that is nothing, drives the device once and looks again.
pub(super) unsafe extern "C" fn poll_cq(cq: *mut ibv_cq, most: c_int, wc: *mut ibv_wc) -> c_int {
    let polled = caught(|| {
        // SAFETY: the queue is alive (manual).
        let inside = unsafe { inside(cq) }?;
        let nic = inside.shared.nic()?;
        let most = usize::try_from(most).map_err(|_| libc::EINVAL)?;
        let take = |index: usize, entry: &ibv_wc| {
            let to = wc.wrapping_add(index);
            // SAFETY: the manual wants room for `most` entries, and `index` is below that.
            unsafe { to.write(*entry) }
        };
        nic.polled();
        if inside.cq.is_empty() && most > 0 {
            nic.progress();
        }
        Ok(inside.cq.pop(most, take) as c_int)
    });
    polled.unwrap_or_else(|errno| {
        set_errno(errno);
        -errno
    })
}

/// `ibv_req_notify_cq(3)`.
pub(super) unsafe extern "C" fn req_notify_cq(cq: *mut ibv_cq, solicited_only: c_int) -> c_int {
    code(|| {
        // SAFETY: the queue is alive (manual).
        let inside = unsafe { inside(cq) }?;
        let nic = inside.shared.nic()?;
        inside.cq.arm(solicited_only != 0);
        nic.armed();
        Ok(())
    })
}

/// Takes an event of the channel, counting it for its queue.
fn take(channel: &Channel) -> Option<*mut ibv_cq> {
    let name = channel.events.pop(|&name| {
        // SAFETY: names of destroyed queues are discarded under the lock held here.
        let inside = unsafe { CqObject::soft(named(name)) };
        inside.cq.completion_events.deliver();
    })?;
    Some(named(name))
}

/// `ibv_get_cq_event(3)`: while it blocks, it drives the device. A signal handler does not end the wait.
///
/// # Safety
/// `channel` is alive; the other two are writable.
pub unsafe extern "C" fn ibv_get_cq_event(
    channel: *mut ibv_comp_channel,
    cq: *mut *mut ibv_cq,
    cq_context: *mut *mut c_void,
) -> c_int {
    minus_one(|| {
        // SAFETY: the caller's promise.
        let inside = unsafe { ChannelObject::soft(given(channel)?) };
        let nic = inside.shared.nic()?;
        let mut tried = false;
        let found = loop {
            if let Some(found) = take(&inside.channel) {
                break found;
            }
            if !inside.channel.events.nonblocking() {
                nic.wait_event(&inside.channel.events, None)?;
            } else if tried {
                return Err(libc::EAGAIN);
            } else {
                tried = true;
                nic.progress();
            }
        };
        // SAFETY: the caller's promise.
        unsafe { *given(cq)? = found }
        // SAFETY: the queue is alive: the event counts as delivered, so that its destruction waits.
        let its_context = unsafe { (*found).cq_context };
        // SAFETY: the caller's promise.
        unsafe { *given(cq_context)? = its_context }
        Ok(0)
    })
}

/// Extension of this device: waits until an event of the channel can be read, at most `timeout_ns`; 0, `ETIMEDOUT` or an
/// errno. Cheaper than `poll(2)` on the channel's descriptor, since the caller drives the device meanwhile.
///
/// # Safety
/// `channel` is alive.
pub unsafe extern "C" fn wait_comp_event(channel: *mut ibv_comp_channel, timeout_ns: u64) -> c_int {
    let outcome = caught(|| {
        // SAFETY: the caller's promise.
        let inside = unsafe { ChannelObject::soft(given(channel)?) };
        let nic = inside.shared.nic()?;
        // So far ahead that the clock cannot say it is for ever.
        let deadline = Instant::now().checked_add(Duration::from_nanos(timeout_ns));
        nic.wait_event(&inside.channel.events, deadline)
    });
    outcome.err().unwrap_or(0)
}

/// `ibv_ack_cq_events(3)`.
///
/// # Safety
/// `cq` is alive.
pub unsafe extern "C" fn ibv_ack_cq_events(cq: *mut ibv_cq, count: c_uint) {
    let _ = code(|| {
        // SAFETY: the caller's promise.
        let inside = unsafe { inside(cq) }?;
        inside.shared.nic()?;
        inside.cq.completion_events.ack(u64::from(count));
        Ok(())
    });
}
