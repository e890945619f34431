//! Waking a process that sleeps, and not waking one that is awake.
//!
//! Owns the page that says whether anybody in this process sleeps until something arrives, read by all its peers, and the
//! event counter they then ring. Whoever is about to sleep on the link's descriptors says so on the page, looks at all
//! rings once more, and sleeps; whoever has published a record looks at the page behind a fence. So one of the two sees
//! the other's, and while nobody sleeps nobody makes a system call.
//!
//! The page's word is a number of sleepers and an epoch that grows with every sleeper and with every answer to the bell: a
//! peer rings once an epoch, since who was woken looks at all rings anyhow.
//!
//! Read first: eventfd(2), memory order of sequentially consistent fences (`std::sync::atomic::fence`).

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{Ordering, fence};

use super::segment::{self, Mapping, ReadOnly};
use crate::os::EventFd;

/// Bytes of the page.
const PAGE: usize = 4096;

/// Where its word stands.
const WORD: usize = 0;

/// Sleepers take the lower bits; a process has no more threads than pid_max, 2^22.
const SLEEPER: u64 = 1;
const SLEEPERS: u64 = EPOCH - 1;
const EPOCH: u64 = 1 << 24;

/// The bell of this process.
#[derive(Debug)]
pub(crate) struct Bell {
    file: OwnedFd,
    page: Mapping,
    event: EventFd,
}

/// Somebody of this process sleeps, or is about to.
#[derive(Debug)]
pub(crate) struct Doze<'a>(&'a Bell);

/// The bell of a peer.
#[derive(Debug)]
pub(crate) struct PeerBell {
    page: ReadOnly,
    event: EventFd,
    /// The epoch in which it was rung last.
    rung: u64,
}

impl Bell {
    /// A bell, nobody sleeping.
    ///
    /// # Errors
    /// Those of memfd_create(2), mmap(2), eventfd(2).
    pub(crate) fn new() -> io::Result<Bell> {
        let (file, page) = segment::create(PAGE, true)?;
        page.word(WORD).store(EPOCH, Ordering::SeqCst);
        Ok(Bell { file, page, event: EventFd::latch()? })
    }

    /// What a peer needs to ring: the page's file and the counter.
    pub(crate) fn fds(&self) -> [BorrowedFd<'_>; 2] {
        [self.file.as_fd(), self.event.as_fd()]
    }

    /// The descriptor that is readable when it was rung.
    pub(crate) fn fd(&self) -> RawFd {
        self.event.raw()
    }

    /// Announces a sleeper. All rings must be looked at afterwards, before sleeping.
    pub(crate) fn doze(&self) -> Doze<'_> {
        self.page.word(WORD).fetch_add(EPOCH + SLEEPER, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        Doze(self)
    }

    /// Takes note of having been rung, if so. All rings must be looked at afterwards.
    pub(crate) fn answer(&self) {
        if self.event.take() {
            // Others may sleep on: the next record rings for them.
            self.page.word(WORD).fetch_add(EPOCH, Ordering::SeqCst);
            fence(Ordering::SeqCst);
        }
    }
}

impl Drop for Doze<'_> {
    fn drop(&mut self) {
        self.0.page.word(WORD).fetch_sub(SLEEPER, Ordering::SeqCst);
    }
}

impl PeerBell {
    /// The bell whose [`Bell::fds`] these are.
    ///
    /// # Errors
    /// `InvalidData` if the first is no such page; those of mmap(2).
    pub(crate) fn new(page: &OwnedFd, event: OwnedFd) -> io::Result<PeerBell> {
        let page = segment::open_read_only(page.as_fd(), PAGE)?;
        // To write into anything else could block, or raise a signal.
        let what = std::fs::read_link(format!("/proc/self/fd/{}", event.as_raw_fd()))?;
        if !what.as_os_str().as_encoded_bytes().starts_with(b"anon_inode:[eventfd") {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(PeerBell { page, event: EventFd::from(event), rung: 0 })
    }

    /// Wakes the peer if it sleeps, after something was published.
    #[inline]
    pub(crate) fn ring(&mut self) {
        fence(Ordering::SeqCst);
        let word = self.page.load(WORD, Ordering::SeqCst);
        if word & SLEEPERS != 0 && word / EPOCH != self.rung {
            self.rung = word / EPOCH;
            // A broken peer may have filled its counter, and made writing to it block.
            self.event.add_unless_full();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Bell, PeerBell) {
        let bell = Bell::new().unwrap();
        let [page, event] = bell.fds().map(|fd| fd.try_clone_to_owned().unwrap());
        let peer = PeerBell::new(&page, event).unwrap();
        (bell, peer)
    }

    #[test]
    fn who_is_awake_is_not_rung() {
        let (bell, mut peer) = pair();
        peer.ring();
        assert!(!bell.event.take());
        drop(bell.doze());
        peer.ring();
        assert!(!bell.event.take());
    }

    #[test]
    fn who_sleeps_is_rung_once_until_it_answered() {
        let (bell, mut peer) = pair();
        let first = bell.doze();
        for _ in 0..3 {
            peer.ring();
        }
        assert!(bell.event.take(), "rung");
        assert!(!bell.event.take(), "once");
        // Another goes to sleep: a bell rung for the first may have been answered before.
        let _second = bell.doze();
        drop(first);
        peer.ring();
        bell.answer();
        // Whoever still sleeps would not have noticed.
        peer.ring();
        assert!(bell.event.take());
    }
}
