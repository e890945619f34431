//! Completion queues: where the ends of operations are learnt.
//!
//! Owns [`CompletionQueue`], its builder, [`Wait`], and the leases that make an overflow impossible (I6). Reaping is in
//! `reaper`, sleeping in `sleep`, the event channel in `channel`. See ibv_create_cq(3).
//!
//! # Safety
//! The `ibv_cq` is valid until the last clone is dropped; queue pairs hold one.
#![allow(unsafe_code)]

mod channel;
mod reaper;
mod sleep;

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use ibex_sys::lock::Lock;
use ibex_sys::{self as sys, Errno, convention};

use crate::context::Context;
use crate::qp::QueueError;
use channel::Channel;
pub(crate) use reaper::Lease;
use reaper::Reaper;
use sleep::Sleepers;

/// How waiting for an operation goes about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wait {
    /// Polls without pause. Shortest latency; takes a processor, and starves others where there are few.
    Spin,
    /// Polls for a while, at most as long as given, then sleeps until the device signals. How long is learnt: it grows
    /// while sleeps turn out short and shrinks while they turn out long.
    Adaptive {
        /// Upper limit of polling before a sleep.
        spin: Duration,
    },
    /// Sleeps at once if there is nothing.
    Sleep,
}

impl Default for Wait {
    /// Adaptive with 50 µs: about the time a sleeping thread takes to wake, so that polling never costs more than twice
    /// what a sleep would.
    fn default() -> Self {
        Self::Adaptive { spin: Duration::from_micros(50) }
    }
}

/// Options of a completion queue. Made by [`Context::cq`].
#[derive(Clone, Debug)]
pub struct CqBuilder {
    context: Context,
    entries: u32,
    wait: Wait,
    vector: u32,
}

impl CqBuilder {
    pub(crate) fn new(context: &Context, entries: u32) -> Self {
        Self { context: context.clone(), entries, wait: Wait::default(), vector: 0 }
    }

    /// How waiting goes about it; [`Wait::default`] unless set.
    #[must_use]
    pub fn wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }

    /// The completion vector, that is the interrupt, of the queue's events; 0 unless set.
    #[must_use]
    pub fn vector(mut self, vector: u32) -> Self {
        self.vector = vector;
        self
    }

    /// Creates it.
    ///
    /// # Errors
    /// [`QueueError::CreateCq`], for instance if there are to be more entries than the device can hold.
    #[doc(alias = "ibv_create_cq")]
    pub fn build(self) -> Result<CompletionQueue, QueueError> {
        let Self { context, entries, wait, vector } = self;
        let failed = |source| QueueError::CreateCq { entries, source };
        // SAFETY: an open context; its operations do not change.
        let poll_cq = unsafe { (*context.as_raw()).ops.poll_cq }.ok_or(failed(Errno::EOPNOTSUPP))?;
        let channel = match wait {
            Wait::Spin => None,
            Wait::Adaptive { .. } | Wait::Sleep => Some(Channel::new(&context).map_err(failed)?),
        };
        let channel_raw = channel.as_ref().map_or(std::ptr::null_mut(), Channel::as_raw);
        // Both are `int` in C; what does not fit is refused by the device.
        let (cqe, vector) = (entries.cast_signed(), vector.cast_signed());
        let create_cq = context.verbs().create_cq;
        // SAFETY: an open context and a live channel of it, or none.
        let raw = unsafe { create_cq(context.as_raw(), cqe, std::ptr::null_mut(), channel_raw, vector) };
        let raw = convention::pointer(raw).map_err(failed)?;
        // SAFETY: a queue just created; the number does not change.
        let granted = unsafe { (*raw.as_ptr()).cqe };
        // Devices grant at least what was asked for.
        let capacity = u32::try_from(granted).unwrap_or(entries).max(entries);
        let inner = CqInner {
            raw,
            poll_cq,
            capacity,
            reaper: Lock::new(Reaper::new(capacity)),
            sleepers: Sleepers::new(wait),
            channel,
            context,
            open: true,
        };
        Ok(CompletionQueue { inner: Arc::new(inner) })
    }
}

/// How a device is polled.
type PollCq = unsafe extern "C" fn(*mut sys::ibv_cq, i32, *mut sys::ibv_wc) -> i32;

/// The queue itself. Fields are dropped in order: the queue (in `drop`), its channel, the context.
pub(crate) struct CqInner {
    raw: NonNull<sys::ibv_cq>,
    /// The device's own function, which every poll through `verbs.h` would look up again.
    poll_cq: PollCq,
    capacity: u32,
    reaper: Lock<Reaper>,
    sleepers: Sleepers,
    channel: Option<Channel>,
    context: Context,
    open: bool,
}

// SAFETY: libibverbs' objects may be used from any thread.
unsafe impl Send for CqInner {}
// SAFETY: as above.
unsafe impl Sync for CqInner {}

impl CqInner {
    /// The C object.
    pub(crate) fn as_raw(&self) -> *mut sys::ibv_cq {
        self.raw.as_ptr()
    }

    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    /// Reserves room for the completions of a queue (I6).
    pub(crate) fn lease(&self, entries: u32) -> Result<Lease, NoRoom> {
        self.reaper.lock().lease(entries).map_err(|free| NoRoom { free, capacity: self.capacity })
    }

    /// Room left.
    pub(crate) fn room(&self) -> u32 {
        self.reaper.lock().room()
    }

    fn close(&mut self) -> Result<(), QueueError> {
        if !std::mem::take(&mut self.open) {
            return Ok(());
        }
        // ibv_destroy_cq(3) waits for every event that was read.
        let unacked = self.reaper.get_mut().take_unacked();
        if unacked > 0 {
            // SAFETY: a live queue; so many of its events were read and not acknowledged.
            unsafe { (self.context.verbs().ack_cq_events)(self.as_raw(), unacked) };
        }
        // SAFETY: no queue pair uses it, since each holds a clone.
        let code = unsafe { (self.context.verbs().destroy_cq)(self.as_raw()) };
        convention::status(code).map_err(|source| {
            crate::stats::leaked_object();
            // The channel must outlive the queue.
            std::mem::forget(self.channel.take());
            QueueError::Destroy { what: "completion queue", source }
        })
    }
}

impl Drop for CqInner {
    fn drop(&mut self) {
        // A failure is counted (`leaks()`); nobody is left to tell.
        let _ = self.close();
    }
}

/// A lease was refused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoRoom {
    pub(crate) free: u32,
    pub(crate) capacity: u32,
}

/// A completion queue. Clones share it; queue pairs keep it alive.
///
/// Each queue pair made with it takes a lease: room for one completion of every request it may have in flight. So it
/// cannot overflow, which would lose completions and the memory they give back. Nobody polls it directly: waiting for an
/// operation does, and hands completions of other operations to those who wait for them.
#[doc(alias = "ibv_cq")]
#[derive(Clone)]
pub struct CompletionQueue {
    pub(crate) inner: Arc<CqInner>,
}

impl CompletionQueue {
    /// Entries the device granted, at least as many as asked for.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.inner.capacity
    }

    /// Entries not leased to a queue pair.
    #[must_use]
    pub fn room(&self) -> u32 {
        self.inner.room()
    }

    /// The device.
    #[must_use]
    pub fn context(&self) -> &Context {
        self.inner.context()
    }

    /// Takes what has completed and hands it to its operations; returns how many completions there were. Never blocks.
    ///
    /// Waiting does this by itself. Call it to let requests that nobody waits for make room, or to drive a software
    /// device from a loop of your own.
    ///
    /// # Errors
    /// [`QueueError::Poll`] if the device can no longer be asked.
    #[doc(alias = "ibv_poll_cq")]
    pub fn poll(&self) -> Result<usize, QueueError> {
        self.inner.reap().map_err(|source| QueueError::Poll { source })
    }

    /// The C object, valid while a clone of this exists. Completions polled through it are lost to their operations.
    #[must_use]
    pub fn as_raw(&self) -> *mut sys::ibv_cq {
        self.inner.as_raw()
    }

    /// Destroys it, if this is the last clone and no queue pair uses it; otherwise that happens later and `Ok` is
    /// returned now. Dropping does the same and counts a failure in [`leaks`](crate::leaks).
    ///
    /// # Errors
    /// [`QueueError::Destroy`].
    pub fn close(self) -> Result<(), QueueError> {
        match Arc::into_inner(self.inner) {
            Some(mut inner) => inner.close(),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for CompletionQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompletionQueue")
            .field("capacity", &self.capacity())
            .field("room", &self.room())
            .finish_non_exhaustive()
    }
}
