//! The event channel of a completion queue.
//!
//! Owns [`Channel`]: arming is the caller's, waiting for an event and reading it is here. See ibv_create_comp_channel(3),
//! ibv_get_cq_event(3).
//!
//! # Safety
//! The channel is live from `new` to `drop`; the one completion queue made with it is destroyed before (field order of
//! `CqInner`).
#![allow(unsafe_code)]

use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::time::Duration;

use ibex_sys::{self as sys, Errno, convention};

use crate::context::Context;

/// Longest uninterrupted sleep. A queue pair that is destroyed while somebody waits for one of its operations ends that
/// operation without an event; the waiter notices after this time at the latest.
const SLICE: Duration = Duration::from_secs(1);

pub(super) struct Channel {
    raw: NonNull<sys::ibv_comp_channel>,
    fd: RawFd,
    context: Context,
}

impl Channel {
    pub(super) fn new(context: &Context) -> Result<Self, Errno> {
        // SAFETY: an open context.
        let raw = unsafe { (context.verbs().create_comp_channel)(context.as_raw()) };
        let raw = convention::pointer(raw)?;
        // SAFETY: a channel just created; its descriptor does not change.
        let fd = unsafe { (*raw.as_ptr()).fd };
        let channel = Self { raw, fd, context: context.clone() };
        // Reading must never block, even if somebody else took the event.
        // SAFETY: F_GETFL takes no third argument.
        let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
        let flags = convention::minus_one(flags)?;
        // SAFETY: an open descriptor and its own flags.
        convention::minus_one(unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) })?;
        Ok(channel)
    }

    pub(super) fn as_raw(&self) -> *mut sys::ibv_comp_channel {
        self.raw.as_ptr()
    }

    /// Sleeps until an event can be read or the time is over, whichever comes first; early returns are possible.
    pub(super) fn sleep(&self, timeout: Option<Duration>) {
        let timeout = timeout.unwrap_or(SLICE).min(SLICE);
        if let Some(wait) = self.context.verbs().wait_comp_event {
            // A slice fits 64 bits of nanoseconds.
            let nanoseconds = timeout.as_nanos() as u64;
            // SAFETY: a live channel. Whatever it returns, the caller polls and looks for an event.
            unsafe { wait(self.as_raw(), nanoseconds) };
            return;
        }
        let mut fds = libc::pollfd { fd: self.fd, events: libc::POLLIN, revents: 0 };
        // A slice fits 31 bits of milliseconds; rounding up keeps a short rest from becoming a busy loop.
        let milliseconds = timeout.as_nanos().div_ceil(1_000_000) as i32;
        // SAFETY: one valid entry. Whatever it returns, the caller polls and looks for an event.
        unsafe { libc::poll(&raw mut fds, 1, milliseconds) };
    }

    /// Reads an event, if there is one. Providers depend on this call (they count arms by it).
    pub(super) fn read_event(&self) -> bool {
        let mut cq = std::ptr::null_mut();
        let mut cq_context = std::ptr::null_mut();
        // SAFETY: a live, non-blocking channel and valid places for the answer.
        let code =
            unsafe { (self.context.verbs().get_cq_event)(self.as_raw(), &raw mut cq, &raw mut cq_context) };
        convention::minus_one(code).is_ok()
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // SAFETY: live, and its queue is gone.
        let code = unsafe { (self.context.verbs().destroy_comp_channel)(self.as_raw()) };
        if code != 0 {
            crate::stats::leaked_object();
        }
    }
}
