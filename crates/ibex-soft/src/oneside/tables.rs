//! The publication: this process's keys and queue pairs, in a file that peers map for reading.
//!
//! Owns the layout of the file and changing it. Both tables are direct-mapped: an entry's place follows from the key or
//! number, and what would collide is not published. Entries change under a word that tells readers so ([`super::view`]):
//!
//! ```text
//! keys          8 words each   stamp │ pd, rights │ iova │ length │ address │ share │ offset │ inode
//! queue pairs   4 words each   stamp │ pd, rights │ remote number │ 0
//! stamp         key or number in the upper half, a count of changes in the lower; 0: nothing here
//! ```

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use super::reach::Share;
use crate::host::segment::{self, Mapping};

/// Regions that can be published: 4 MiB of table, of which pages that are not used do not exist.
pub(super) const REGIONS: usize = 1 << 16;
/// Queue pairs that can be published: all of the first four slots of a process.
pub(super) const QUEUE_PAIRS: usize = 1 << 16;

const WORD: usize = 8;
pub(super) const REGION_WORDS: usize = 8;
pub(super) const QP_WORDS: usize = 4;
const QPS_AT: usize = REGIONS * REGION_WORDS * WORD;
/// Where the lock stands by which peers see that this process lives: a page of its own.
pub(super) const LIFE_AT: usize = QPS_AT + QUEUE_PAIRS * QP_WORDS * WORD;
/// Bytes of the file.
pub(super) const SIZE: usize = LIFE_AT + 4096;

/// Where a word of a region's entry stands. A key's upper 24 bits are the region's index, mixed with a constant: so
/// regions whose indices differ in the bits used here never collide.
pub(super) fn region_at(index: u32, word: usize) -> usize {
    (index as usize * REGION_WORDS + word) * WORD
}

/// Where a word of a queue pair's entry stands.
pub(super) fn queue_pair_at(index: u32, word: usize) -> usize {
    QPS_AT + (index as usize * QP_WORDS + word) * WORD
}

/// The entry of a key.
pub(super) fn region_index(key: u32) -> u32 {
    (key >> 8) % REGIONS as u32
}

/// The entry of a queue pair: the index within its slot, and two bits of the slot.
pub(super) fn queue_pair_index(num: u32) -> u32 {
    num % QUEUE_PAIRS as u32
}

/// The rights of remote peers; the bits are those of the verbs' access flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access(pub(crate) u32);

/// What peers have to know of a region.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RegionEntry {
    pub(crate) rkey: u32,
    pub(crate) pd: u32,
    /// Rights, bits of the access flags.
    pub(crate) access: u32,
    /// Address by which requests name its first byte.
    pub(crate) iova: u64,
    /// Where that is.
    pub(crate) address: usize,
    /// Length in bytes.
    pub(crate) len: usize,
}

/// The rights of remote peers, of the access flags: write, read, atomics.
const REMOTE: u32 = 0b1110;

/// What peers have to know of a queue pair that serves requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QpEntry {
    /// The queue pair whose requests it serves; on the same address.
    pub(crate) remote: u32,
    /// Its protection domain.
    pub(crate) pd: u32,
    /// What the peer may do through it.
    pub(crate) access: Access,
}

/// An entry that was withdrawn.
#[derive(Debug)]
pub(super) struct Withdrawn {
    index: u32,
    stamp: u64,
}

impl Withdrawn {
    pub(super) fn index(&self) -> u32 {
        self.index
    }
}

/// The tables.
#[derive(Debug)]
pub(super) struct Tables {
    file: OwnedFd,
    memory: Mapping,
    /// Counts changes, so that no stamp comes twice soon.
    changes: AtomicU32,
}

impl Tables {
    pub(super) fn new() -> io::Result<Tables> {
        let (file, memory) = segment::create(SIZE, true)?;
        Ok(Tables { file, memory, changes: AtomicU32::new(0) })
    }

    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// A word of the file.
    pub(super) fn word(&self, offset: usize) -> &AtomicU64 {
        self.memory.word(offset)
    }

    fn stamp(&self, name: u32) -> u64 {
        let change = self.changes.fetch_add(1, Ordering::Relaxed) | 1 << 31;
        u64::from(name) << 32 | u64::from(change)
    }

    /// Publishes a region, in place of what was published under its key.
    pub(super) fn enter_region(&self, region: &RegionEntry, share: Option<Share>) {
        let index = region_index(region.rkey);
        let word = |number| self.memory.word(region_at(index, number));
        if region.access & REMOTE == 0 {
            return;
        }
        let old = word(0).load(Ordering::Relaxed);
        if old != 0 && old >> 32 != u64::from(region.rkey) {
            return;
        }
        word(0).store(0, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let (share, offset, inode) = share.map_or((0, 0, 0), |share| share.words());
        word(1).store(u64::from(region.pd) << 32 | u64::from(region.access & REMOTE), Ordering::Relaxed);
        word(2).store(region.iova, Ordering::Relaxed);
        word(3).store(region.len as u64, Ordering::Relaxed);
        word(4).store(region.address as u64, Ordering::Relaxed);
        word(5).store(share, Ordering::Relaxed);
        word(6).store(offset, Ordering::Relaxed);
        word(7).store(inode, Ordering::Relaxed);
        word(0).store(self.stamp(region.rkey), Ordering::Release);
    }

    /// Makes a region unknown. Peers that looked before may still work on it.
    pub(super) fn withdraw_region(&self, lkey: u32) -> Option<Withdrawn> {
        let rkey = lkey | 1;
        let index = region_index(rkey);
        let word = self.memory.word(region_at(index, 0));
        let stamp = word.load(Ordering::Relaxed);
        if stamp == 0 || stamp >> 32 != u64::from(rkey) {
            return None;
        }
        word.store(0, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        Some(Withdrawn { index, stamp })
    }

    /// Makes a region known again that was withdrawn.
    pub(super) fn restore(&self, entry: Withdrawn) {
        self.memory.word(region_at(entry.index, 0)).store(entry.stamp, Ordering::Release);
    }

    /// Publishes a queue pair, in place of what was published under its number.
    pub(super) fn enter_queue_pair(&self, num: u32, entry: &QpEntry) {
        let index = queue_pair_index(num);
        let word = |number| self.memory.word(queue_pair_at(index, number));
        let old = word(0).load(Ordering::Relaxed);
        if old != 0 && old >> 32 != u64::from(num) {
            return;
        }
        word(0).store(0, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        word(1).store(u64::from(entry.pd) << 32 | u64::from(entry.access.0), Ordering::Relaxed);
        word(2).store(u64::from(entry.remote), Ordering::Relaxed);
        word(0).store(self.stamp(num), Ordering::Release);
    }

    /// Makes a queue pair unknown. Peers that looked before may still work through it.
    pub(super) fn withdraw_queue_pair(&self, num: u32) {
        let word = self.memory.word(queue_pair_at(queue_pair_index(num), 0));
        if word.load(Ordering::Relaxed) >> 32 == u64::from(num) {
            word.store(0, Ordering::SeqCst);
            fence(Ordering::SeqCst);
        }
    }
}
