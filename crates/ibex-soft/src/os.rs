//! The few system calls the standard library does not offer: event counters, waiting on descriptors, fork handlers.
//!
//! Owns no state. Sockets are [`crate::net`]'s. See `eventfd(2)`, `ppoll(2)`, `pthread_atfork(3)`, `atexit(3)`, `sigprocmask(2)`.
//!
//! # Safety
//! Every call gets descriptors that are open for its length and pointers to locals of the right type; results are
//! checked before anything is built on them.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// A counter in the kernel that is readable while it is above zero (`eventfd(2)` with `EFD_SEMAPHORE`): each `add`
/// makes one `take` possible.
#[derive(Debug)]
pub(crate) struct EventFd {
    fd: OwnedFd,
}

impl EventFd {
    /// A counter at zero; closed on exec. Blocking or not is left to the program (`O_NONBLOCK`), which sees it.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    pub(crate) fn new() -> io::Result<EventFd> {
        // SAFETY: no pointer is passed.
        let fd = unsafe { libc::eventfd(0, libc::EFD_SEMAPHORE | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened and owned by nobody else.
        Ok(EventFd { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// The same, but one `take` takes everything that was added, and nothing that is done to the descriptor blocks.
    ///
    /// # Errors
    /// As [`EventFd::new`].
    pub(crate) fn latch() -> io::Result<EventFd> {
        // SAFETY: no pointer is passed.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened and owned by nobody else.
        Ok(EventFd { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Adds one. The counter holds 2^64 − 2, so that this neither fails nor blocks.
    pub(crate) fn add(&self) {
        let one = 1u64;
        // SAFETY: eight bytes of a live integer, as eventfd(2) wants them.
        let _ = unsafe { libc::write(self.raw(), (&raw const one).cast(), 8) };
    }

    /// Adds one if that does not block, for a counter that another process can fill, and can make block. Writing knows no
    /// `RWF_NOWAIT` here.
    pub(crate) fn add_unless_full(&self) {
        let mut watched = libc::pollfd { events: libc::POLLOUT, ..watch(self.raw()) };
        if wait(std::slice::from_mut(&mut watched), Some(Duration::ZERO)).is_ok_and(|ready| ready > 0) {
            self.add();
        }
    }

    /// Takes one without blocking, whatever the descriptor's flags; false if the counter is at zero.
    pub(crate) fn take(&self) -> bool {
        let mut value = 0u64;
        let part = libc::iovec { iov_base: (&raw mut value).cast(), iov_len: 8 };
        // SAFETY: one part of eight writable bytes; offset -1 means "no position".
        let got = unsafe { libc::preadv2(self.raw(), &raw const part, 1, -1, libc::RWF_NOWAIT) };
        if got >= 0 {
            return got == 8;
        }
        if io::Error::last_os_error().raw_os_error() != Some(libc::EOPNOTSUPP) {
            return false;
        }
        // Kernels before 5.8 cannot read an eventfd this way. Only one that another thread empties in between blocks.
        let readable = wait(&mut [watch(self.raw())], Some(Duration::ZERO)).is_ok_and(|ready| ready > 0);
        // SAFETY: eight writable bytes.
        readable && unsafe { libc::read(self.raw(), (&raw mut value).cast(), 8) } == 8
    }

    /// The descriptor's number, for the program to poll.
    pub(crate) fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Whether the program has made the descriptor non-blocking.
    pub(crate) fn nonblocking(&self) -> bool {
        // SAFETY: F_GETFL takes no argument.
        let flags = unsafe { libc::fcntl(self.raw(), libc::F_GETFL) };
        flags >= 0 && flags & libc::O_NONBLOCK != 0
    }
}

impl From<OwnedFd> for EventFd {
    /// A counter that another process made; if it is none, adding to it has no effect that concerns this process.
    fn from(fd: OwnedFd) -> EventFd {
        EventFd { fd }
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// An entry of [`wait`]: readable, or hung up.
pub(crate) fn watch(fd: RawFd) -> libc::pollfd {
    libc::pollfd { fd, events: libc::POLLIN, revents: 0 }
}

/// Waits until one of the descriptors is readable; `None` waits without end. Returns how many are; 0 after the timeout.
///
/// # Errors
/// `EINTR` when a signal was handled; the others of `ppoll(2)`.
pub(crate) fn wait(fds: &mut [libc::pollfd], timeout: Option<Duration>) -> io::Result<usize> {
    let timeout = timeout.map(|time| libc::timespec {
        tv_sec: libc::time_t::try_from(time.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(time.subsec_nanos()),
    });
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: pointer and length of one slice; the timeout is null or a live local; no signal mask is given.
    let ready =
        unsafe { libc::ppoll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout, std::ptr::null()) };
    usize::try_from(ready).map_err(|_| io::Error::last_os_error())
}

/// Blocks every signal in the calling thread, so that handlers run in the program's threads.
pub(crate) fn block_signals() {
    let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset initialises the set it is given.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: the set is initialised; the old one is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), std::ptr::null_mut()) };
}

/// Runs `child` in every child of fork(2), before fork returns there.
///
/// # Errors
/// `ENOMEM`.
pub(crate) fn at_fork(child: extern "C" fn()) -> io::Result<()> {
    // SAFETY: the handler is a plain function that lives as long as the program; it keeps to what its own
    // documentation promises about async-signal safety.
    let code = unsafe { libc::pthread_atfork(None, None, Some(handler(child))) };
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) }
}

/// Runs `handler` when the process ends by exit(3) or by returning from `main`.
///
/// # Errors
/// `ENOMEM`.
pub(crate) fn at_exit(handler: extern "C" fn()) -> io::Result<()> {
    // SAFETY: the handler is a plain function that lives as long as the program.
    let code = unsafe { libc::atexit(handler) };
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ENOMEM)) }
}

/// The type pthread_atfork wants: calling a safe function through an unsafe pointer type is always allowed.
fn handler(function: extern "C" fn()) -> unsafe extern "C" fn() {
    function
}

/// The device's clock: nanoseconds of `CLOCK_MONOTONIC`, the same for all processes of a host.
pub(crate) fn clock_ns() -> u64 {
    read_clock(libc::CLOCK_MONOTONIC)
}

/// The time of day, in nanoseconds since 1970.
pub(crate) fn wall_clock_ns() -> u64 {
    read_clock(libc::CLOCK_REALTIME)
}

fn read_clock(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a writable structure of the right type; these two clocks exist everywhere.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    // 2^64 ns are 584 years.
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Sets the calling thread's errno.
pub(crate) fn set_errno(code: i32) {
    // SAFETY: glibc's location of this thread's errno is valid for as long as the thread runs.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    unsafe { *errno = code }
}
