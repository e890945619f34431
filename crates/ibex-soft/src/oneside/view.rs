//! A peer's publication, read; and the permission to work on one of its keys.
//!
//! Owns reading entries that may change at any moment, and the order of look, claim and second look that makes the owner wait
//! for whoever works on a key. Layouts are `tables`' and `hazard`'s. Nothing read here is trusted further than that it may
//! be used to name memory of the *peer's*: offsets into what is mapped here are checked against the mapping.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, PoisonError, RwLock};

use super::hazard::{self, Claim, Claims};
use super::life;
use super::reach::{self, Map, Path, RemoteShare};
use super::tables::{self, queue_pair_at, queue_pair_index, region_at, region_index};
use super::{FILES, GREETING};
use crate::host::segment::{self, ReadOnly};

/// A name and a version: both sides have to agree on every word of the files.
const MAGIC: u64 = u64::from_ne_bytes(*b"ibx2side");

/// Files of a peer's that stay mapped here.
const MAPS: usize = 64;

/// A word that a peer reads to learn whether the kernel lets it read this process.
static PROBE: AtomicU64 = AtomicU64::new(0);

/// What a process tells about its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Introduction {
    /// Where a word stands in this process, and what it holds.
    probe: (u64, u64),
}

impl Introduction {
    pub(super) fn of_this_process() -> Introduction {
        // Another process at the same address has another number there.
        let mark = u64::from(std::process::id()) << 32 | (MAGIC & 0xffff_ffff);
        PROBE.store(mark, Ordering::Relaxed);
        Introduction { probe: ((&raw const PROBE).addr() as u64, mark) }
    }

    pub(super) fn emit(self) -> [u8; GREETING] {
        let mut bytes = [0; GREETING];
        let words = [MAGIC, self.probe.0, self.probe.1];
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    fn parse(bytes: &[u8; GREETING]) -> Option<Introduction> {
        let word = |index: usize| {
            bytes
                .get(index * 8..)
                .and_then(|rest| rest.first_chunk())
                .map_or(0, |word| u64::from_ne_bytes(*word))
        };
        (word(0) == MAGIC).then_some(Introduction { probe: (word(1), word(2)) })
    }
}

/// A peer's memory, as far as it lets us see it.
#[derive(Debug)]
pub(crate) struct View {
    tables: ReadOnly,
    claims: Claims,
    /// The peer's process number here; 0 if it has none.
    pid: i32,
    /// Whether the kernel copies between the two processes.
    copies: bool,
    open: AtomicBool,
    maps: RwLock<Vec<Arc<Map>>>,
}

/// The permission to work on a stretch of a peer's memory. While it lives, the peer's `ibv_dereg_mr` waits.
pub(crate) struct Permit<'a> {
    _claim: Claim<'a>,
    /// Where the stretch begins, in the peer's address space.
    address: u64,
    /// The file it lies in, and where.
    share: Option<RemoteShare>,
}

/// What is wanted of a peer's memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// The queue pair at the peer, and the one here.
    pub(crate) queue_pairs: (u32, u32),
    pub(crate) rkey: u32,
    pub(crate) va: u64,
    pub(crate) len: u64,
    /// One right, as the access flags have it.
    pub(crate) right: u32,
}

impl View {
    /// Takes in what a peer has sent: its greeting, its files, and the process it is.
    ///
    /// # Errors
    /// `InvalidData` if this is none of ours; those of mmap(2).
    pub(crate) fn attach(greeting: &[u8; GREETING], files: [OwnedFd; FILES], pid: i32) -> io::Result<View> {
        let strange = || io::Error::from(io::ErrorKind::InvalidData);
        let introduction = Introduction::parse(greeting).ok_or_else(strange)?;
        let [tables, hazards] = files;
        let tables = segment::open_read_only(tables.as_fd(), tables::SIZE)?;
        let hazards = segment::open(hazards.as_fd(), hazard::SIZE)?;
        let claims = Claims::new(hazards);
        let (address, mark) = introduction.probe;
        let copies = pid > 0 && reach::probe(pid, address) == Some(mark);
        Ok(View { tables, claims, pid, copies, open: AtomicBool::new(true), maps: RwLock::default() })
    }

    /// Whether the kernel copies between the two processes; if not, only memory in files that both map is reached.
    pub(crate) fn copies(&self) -> bool {
        self.copies
    }

    /// Files of the peer's that were asked for here, and are kept.
    pub(crate) fn maps(&self) -> usize {
        self.maps.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether the peer is still there, as far as is known.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// Whether the peer has not ended, as far as the kernel has told.
    pub(super) fn is_alive(&self) -> bool {
        life::is_alive(&self.tables)
    }

    /// The peer is gone, or we go: no operation begins any more, and its files are not kept. What is in progress goes on;
    /// the peer, if it lives, waits for that as before.
    pub(crate) fn close(&self) {
        self.open.store(false, Ordering::SeqCst);
        self.maps.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Whether the peer serves these queue pairs and this key, and permits what is wanted. `None` also if it cannot be said
    /// just now.
    #[inline]
    pub(crate) fn permit(&self, wanted: &Wanted) -> Option<Permit<'_>> {
        let (queue_pair, region) = (queue_pair_index(wanted.queue_pairs.0), region_index(wanted.rkey));
        let (qp_stamp, stamp) = (queue_pair_at(queue_pair, 0), region_at(region, 0));
        if !life::is_alive(&self.tables) {
            return None;
        }
        let seen =
            (self.tables.load(qp_stamp, Ordering::Acquire), self.tables.load(stamp, Ordering::Acquire));
        if seen.0 >> 32 != u64::from(wanted.queue_pairs.0)
            || seen.1 >> 32 != u64::from(wanted.rkey)
            || seen.0 == 0
            || seen.1 == 0
        {
            return None;
        }
        let their = |word| self.tables.load(queue_pair_at(queue_pair, word), Ordering::Relaxed);
        let word = |word| self.tables.load(region_at(region, word), Ordering::Relaxed);
        let (qp_rights, remote) = (their(1), their(2));
        let (rights, iova, len, address) = (word(1), word(2), word(3), word(4));
        let share = RemoteShare::new(word(5), word(6), word(7));
        let right = u64::from(wanted.right);
        if remote != u64::from(wanted.queue_pairs.1)
            || qp_rights >> 32 != rights >> 32
            || qp_rights & rights & right != right
        {
            return None;
        }
        let offset = wanted.va.checked_sub(iova)?;
        if offset.checked_add(wanted.len)? > len {
            return None;
        }
        let claim = self.claims.claim(region, queue_pair)?;
        // Unchanged: then what was read belongs together, and whoever changes it from now on sees the claim.
        fence(Ordering::SeqCst);
        let now = (self.tables.load(qp_stamp, Ordering::Relaxed), self.tables.load(stamp, Ordering::Relaxed));
        if now != seen || self.claims.are_closed() || !self.open.load(Ordering::SeqCst) {
            return None;
        }
        let share = share.map(|share| share.advance(offset));
        Some(Permit { _claim: claim, address: address.checked_add(offset)?, share })
    }

    /// How the bytes of a permit are reached. `last` is what was used before, likely to be the same.
    #[inline]
    pub(crate) fn reach<'m>(
        &self,
        permit: &Permit<'_>,
        len: usize,
        last: &'m mut Option<Arc<Map>>,
    ) -> Option<Path<'m>> {
        if let Some(share) = permit.share
            && let Some(at) = self.mapped(share, len, last)
            && let Some(map) = last
        {
            return Some(Path::Mapped(map.memory(), at));
        }
        self.copies.then_some(Path::Process { pid: self.pid, address: permit.address })
    }

    /// Has the file mapped in `last`; the stretch's offset there.
    #[inline]
    fn mapped(&self, share: RemoteShare, len: usize, last: &mut Option<Arc<Map>>) -> Option<usize> {
        if last.as_ref().is_none_or(|map| !map.is(&share)) {
            *last = Some(self.find_map(&share)?);
        }
        last.as_ref()?.offset(&share, len)
    }

    #[cold]
    fn find_map(&self, share: &RemoteShare) -> Option<Arc<Map>> {
        let find = |maps: &[Arc<Map>]| maps.iter().find(|map| map.is(share)).cloned();
        if let Some(found) = find(&self.maps.read().unwrap_or_else(PoisonError::into_inner)) {
            return found.is_usable().then_some(found);
        }
        let mut maps = self.maps.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = find(&maps) {
            return found.is_usable().then_some(found);
        }
        if !self.open.load(Ordering::SeqCst) {
            return None;
        }
        // What the peer has done with is not kept from being freed.
        maps.retain(|map| map.is_there(self.pid));
        if maps.len() >= MAPS {
            maps.retain(|map| Arc::strong_count(map) > 1);
        }
        // One that cannot be opened is remembered, too, so that it is not tried again with every operation.
        let map = Arc::new(Map::open(self.pid, share));
        maps.push(map.clone());
        map.is_usable().then_some(map)
    }
}
