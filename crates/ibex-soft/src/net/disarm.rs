//! The child's side of fork(2): descriptors replaced by a dead one.
//!
//! A forked child holds every socket of its parent open. It would keep the RoCE port and the slots
//! bound after the parent's death, and nobody would serve them.
//!
//! # Safety
//! Only dup3(2), which is async-signal-safe, over descriptors that the link owns: closing the owners
//! later closes the dead ones.
#![allow(unsafe_code)]

use std::io::{self, PipeReader};
use std::os::fd::{AsRawFd, RawFd};

/// A descriptor on which nothing ever happens: the read end of a pipe without a writer.
#[derive(Debug)]
pub(super) struct Dead(PipeReader);

impl Dead {
    /// Makes it, while descriptors may still be made.
    ///
    /// # Errors
    /// Those of pipe(2).
    pub(super) fn new() -> io::Result<Self> {
        io::pipe().map(|(reader, _writer)| Self(reader))
    }

    /// Replaces `fd`, which the caller owns. Async-signal-safe.
    pub(super) fn replace(&self, fd: RawFd) {
        if fd >= 0 {
            // SAFETY: dup3(2) on two open descriptors that this process owns; a failure leaves `fd`
            // as it was, which is all that could be done about it here.
            unsafe { libc::dup3(self.0.as_raw_fd(), fd, libc::O_CLOEXEC) };
        }
    }
}
