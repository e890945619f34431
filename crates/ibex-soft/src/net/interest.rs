//! One descriptor that is readable whenever the link wants attention.
//!
//! Owns an epoll set of all the link's sockets but the one of direct traffic, so that whoever sleeps
//! on it need not know them: a socket that joins while somebody sleeps wakes him too. Level-triggered.
//!
//! Also an alarm clock in the same set, for what the link wants to try again.
//!
//! Read first: epoll(7), timerfd_create(2).
//!
//! # Safety
//! Only epoll_create1(2), epoll_ctl(2), epoll_wait(2), timerfd_create(2) and timerfd_settime(2), with arguments that
//! live across the call; each new descriptor gets one owner at once.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::time::Duration;

/// Descriptors asked about at a time; the kernel goes round among those that are ready.
const READY: usize = 16;

/// A set of descriptors to sleep on.
#[derive(Debug)]
pub(super) struct Interest {
    set: OwnedFd,
    alarm: OwnedFd,
}

impl Interest {
    /// An empty set.
    ///
    /// # Errors
    /// Those of epoll_create1(2) and timerfd_create(2).
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: epoll_create1(2) takes no pointer.
        let set = owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: timerfd_create(2) takes no pointer.
        let alarm = owned(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC) })?;
        let interest = Self { set, alarm };
        interest.add(interest.alarm.as_raw_fd())?;
        Ok(interest)
    }

    /// The descriptor to sleep on.
    pub(super) fn fd(&self) -> RawFd {
        self.set.as_raw_fd()
    }

    /// The descriptors of its own: the set, the alarm.
    pub(super) fn fds(&self) -> [RawFd; 2] {
        [self.set.as_raw_fd(), self.alarm.as_raw_fd()]
    }

    /// Makes the set readable after `delay`, until this is called again; `None` never.
    pub(super) fn alarm(&self, delay: Option<Duration>) {
        let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let it_value = delay.map_or(zero, |delay| libc::timespec {
            tv_sec: libc::time_t::try_from(delay.as_secs()).unwrap_or(libc::time_t::MAX),
            // All zeroes would mean never.
            tv_nsec: libc::c_long::from(delay.subsec_nanos().max(1)),
        });
        let time = libc::itimerspec { it_interval: zero, it_value };
        // SAFETY: timerfd_settime(2) reads `time`, which lives across the call; the old one is not asked for.
        let _ = unsafe {
            libc::timerfd_settime(self.alarm.as_raw_fd(), 0, &raw const time, std::ptr::null_mut())
        };
    }

    /// Adds `fd`, of interest when it is readable or hung up.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub(super) fn add(&self, fd: RawFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, 0)
    }

    /// Adds `fd`, to be told by its tag, which is not 0, when it is readable or hung up: [`Interest::ready`].
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub(super) fn add_tagged(&self, fd: RawFd, tag: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, tag)
    }

    /// The tags, none of them 0, of some descriptors that are readable, or hung up, now.
    pub(super) fn ready(&self) -> impl Iterator<Item = u64> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; READY];
        // SAFETY: epoll_wait(2) writes at most as many events as there is room for; it does not wait.
        let count =
            unsafe { libc::epoll_wait(self.set.as_raw_fd(), events.as_mut_ptr(), READY as libc::c_int, 0) };
        let count = usize::try_from(count).unwrap_or(0);
        events.into_iter().take(count).map(|event| event.u64).filter(|&tag| tag != 0)
    }

    /// Removes `fd`. Closing it would not be enough where a forked child holds it open.
    pub(super) fn remove(&self, fd: RawFd) {
        // Fails only if it is not in the set, which is what was wanted.
        let _ = self.control(libc::EPOLL_CTL_DEL, fd, 0);
    }

    /// Sleeps until one of `fds` is readable, at most for `milliseconds`; whether one is.
    #[cfg(test)]
    pub(super) fn sleep(fds: [RawFd; 2], milliseconds: i32) -> bool {
        let mut watched = fds.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
        // SAFETY: poll(2) writes the two entries it is given.
        let ready = unsafe { libc::poll(watched.as_mut_ptr(), 2, milliseconds) };
        ready > 0
    }

    fn control(&self, operation: libc::c_int, fd: RawFd, tag: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: tag };
        // SAFETY: epoll_ctl(2) reads `event`, which lives across the call.
        let result = unsafe { libc::epoll_ctl(self.fd(), operation, fd, &raw mut event) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// Owns what a system call has just opened.
fn owned(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the callers pass the result of a call that opens a descriptor, which nobody owns yet.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
