//! Memory regions and windows: keys, bounds and access flags.
//!
//! Owns the table from keys to regions and windows, and every check that stands before an access. Does not own the access
//! itself ([`crate::memory`]) nor the C structures. See `ibv_reg_mr(3)`; IBTA vol. 1 clause 10.6.
//!
//! | file | owns |
//! |---|---|
//! | `window` | memory windows: binding, invalidation, access through them |
//!
//! # Keys
//! The upper 24 bits of a key are the index of the table's entry. Below, a region's keys have a generation of 7 bits that
//! makes a key of an earlier registration fail, and a lowest bit that keeps an lkey from serving as an rkey; both are
//! combined with a secret. A window's key has 8 bits that whoever binds it chooses (`ibv_inc_rkey`). Regions and windows
//! never use each other's indices.
//!
//! # Fences
//! The device holds its one table in an `RwLock`. Whoever copies holds the read guard from the check to the end of the
//! copy, so that the write guard taken by `ibv_dereg_mr` and `ibv_dealloc_mw` waits for copies in flight: after it
//! returned nothing touches the memory (fence F3). Binding and invalidating happen under the read guard; they wait for
//! copies through the window by its own lock, which [`Found`] holds (fence F4).

mod window;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, RwLockReadGuard};

use crate::memory::UserMemory;
pub(crate) use window::{Bind, MAX_WINDOWS, WindowKind};
use window::{State, Window};

/// Access rights of a region, with the numbers of `enum ibv_access_flags`.
pub(crate) mod access {
    pub(crate) const LOCAL_WRITE: u32 = 1;
    pub(crate) const REMOTE_WRITE: u32 = 1 << 1;
    pub(crate) const REMOTE_READ: u32 = 1 << 2;
    pub(crate) const REMOTE_ATOMIC: u32 = 1 << 3;
    pub(crate) const MW_BIND: u32 = 1 << 4;
    pub(crate) const ZERO_BASED: u32 = 1 << 5;
    pub(crate) const HUGETLB: u32 = 1 << 7;
    /// Hints a device is free not to know (`IBV_ACCESS_OPTIONAL_RANGE`).
    pub(crate) const OPTIONAL: u32 = 0x3ff0_0000;
    /// All that this device takes. Not among them: ON_DEMAND and the FLUSH rights.
    pub(crate) const KNOWN: u32 =
        LOCAL_WRITE | REMOTE_WRITE | REMOTE_READ | REMOTE_ATOMIC | MW_BIND | ZERO_BASED | HUGETLB | OPTIONAL;
}

/// Most regions a device has at once: half of what an index of 24 bits can tell apart, the other half being for windows.
/// Fewer are in use, so that indices are not soon reused.
pub(crate) const MAX_REGIONS: u32 = 1 << 22;

/// The number of a protection domain within its device.
pub(crate) type PdNumber = u32;

/// A registered region.
#[derive(Debug)]
pub(crate) struct Region {
    /// Protection domain it belongs to.
    pub(crate) pd: PdNumber,
    /// Rights, bits of [`access`].
    pub(crate) access: u32,
    /// Address by which requests name its first byte.
    pub(crate) iova: u64,
    /// Length in bytes.
    pub(crate) len: u64,
    /// Where the bytes are.
    pub(crate) memory: UserMemory,
}

impl Region {
    /// The offset of `len` bytes at `va`, if they are all inside.
    fn offset(&self, va: u64, len: u64) -> Option<usize> {
        let offset = va.checked_sub(self.iova)?;
        let end = offset.checked_add(len)?;
        if end <= self.len { usize::try_from(offset).ok() } else { None }
    }
}

/// The two keys of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Keys {
    pub(crate) lkey: u32,
    pub(crate) rkey: u32,
}

/// Why an access was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MrFault {
    /// No region has this key.
    #[error("no memory region has this key")]
    Key,
    /// The region belongs to another protection domain.
    #[error("the memory region belongs to another protection domain")]
    Domain,
    /// The range is not inside the region.
    #[error("the range is outside the memory region")]
    Bounds,
    /// The region was registered without the right.
    #[error("the memory region does not grant this access")]
    Access,
}

/// Why a region cannot be deregistered or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Held {
    /// There is no such region.
    #[error("no memory region has this key")]
    Gone,
    /// Windows are bound to it.
    #[error("memory windows are bound to the region; invalidate or free them first")]
    Bound,
}

impl Held {
    /// The errno of it.
    pub(crate) fn errno(self) -> i32 {
        match self {
            Held::Gone => libc::EINVAL,
            Held::Bound => libc::EBUSY,
        }
    }
}

/// Memory that a key gives access to. While this lives, what it was reached through stays as it is.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    /// The region's memory.
    pub(crate) memory: &'a UserMemory,
    /// Where in it the access begins.
    pub(crate) at: usize,
    /// Keeps the window from being bound anew or invalidated.
    _window: Option<RwLockReadGuard<'a, State>>,
}

#[derive(Debug)]
enum Slot {
    Free,
    Region(Region),
    Window(Box<Window>),
}

#[derive(Debug)]
struct Entry {
    /// Of a region's keys; of a window, the last 8 bits its key had.
    generation: u8,
    /// Windows bound to the region.
    bound: AtomicU32,
    slot: Slot,
}

/// All regions and windows of a device.
#[derive(Debug, Default)]
pub(crate) struct MrTable {
    entries: Vec<Entry>,
    /// Free indices of regions, longest free first, so that a key is reused as late as possible.
    free: VecDeque<u32>,
    /// The same of windows.
    free_windows: VecDeque<u32>,
    /// Windows there are.
    windows: u32,
    /// Type 2 windows bound, by queue pair.
    by_qp: Mutex<HashMap<u32, Vec<u32>>>,
    /// What index and generation are combined with to give a key, so that keys cannot be foreseen by peers. Even: the
    /// lowest bit tells lkey from rkey.
    secret: u32,
}

/// Indices kept free before one is reused.
const REUSE_DISTANCE: usize = 64;

/// Entries of the table: as many as indices.
const MAX_ENTRIES: usize = 1 << 24;

/// The generation after this one.
fn next(generation: u8) -> u8 {
    generation.wrapping_add(1) & 0x7f
}

impl MrTable {
    /// An empty table with keys of its own.
    pub(crate) fn with_secret(secret: u32) -> MrTable {
        MrTable { secret: secret & !1, ..MrTable::default() }
    }

    /// Enters a region; `None` if the table is full.
    pub(crate) fn insert(&mut self, region: Region) -> Option<Keys> {
        let grow = self.free.len() < REUSE_DISTANCE && self.entries.len() < MAX_ENTRIES;
        let index = if grow { self.grow(1)? } else { self.free.pop_front()? };
        let entry = &mut self.entries[index as usize];
        let lkey = (index << 8 | u32::from(entry.generation) << 1) ^ self.secret;
        if lkey == 0 {
            // Programs use key 0 for "none": this generation of the entry is passed over.
            entry.generation = next(entry.generation);
            self.free.push_back(index);
            return self.insert(region);
        }
        entry.slot = Slot::Region(region);
        Some(Keys { lkey, rkey: lkey | 1 })
    }

    /// Adds a free entry; `None` if there are as many as indices.
    fn grow(&mut self, generation: u8) -> Option<u32> {
        // Entry 0 stays empty: programs use key 0 for "none".
        let wanted = if self.entries.is_empty() { 2 } else { 1 };
        for _ in 0..wanted {
            self.entries.push(Entry { generation, bound: AtomicU32::new(0), slot: Slot::Free });
        }
        u32::try_from(self.entries.len() - 1).ok()
    }

    /// Removes the region with this lkey.
    ///
    /// # Errors
    /// [`Held`]; then nothing is changed.
    pub(crate) fn remove(&mut self, lkey: u32) -> Result<Region, Held> {
        self.region_mut(lkey)?;
        let index = (lkey ^ self.secret) >> 8;
        self.take_region(index).ok_or(Held::Gone)
    }

    fn take_region(&mut self, index: u32) -> Option<Region> {
        let entry = &mut self.entries[index as usize];
        let Slot::Region(region) = std::mem::replace(&mut entry.slot, Slot::Free) else { return None };
        entry.generation = next(entry.generation);
        *entry.bound.get_mut() = 0;
        self.free.push_back(index);
        Some(region)
    }

    /// Removes every region and every window of these domains.
    pub(crate) fn remove_domains(&mut self, domains: &[PdNumber]) {
        // Windows first: they are bound to regions.
        for index in 0..self.entries.len() as u32 {
            if matches!(&self.entries[index as usize].slot, Slot::Window(window) if domains.contains(&window.pd()))
            {
                self.take_window(index);
            }
        }
        for index in 0..self.entries.len() as u32 {
            if matches!(&self.entries[index as usize].slot, Slot::Region(region) if domains.contains(&region.pd))
            {
                self.take_region(index);
            }
        }
    }

    /// The lkeys of all regions of these domains.
    pub(crate) fn of_domains(&self, domains: &[PdNumber]) -> Vec<u32> {
        let ours =
            |entry: &Entry| matches!(&entry.slot, Slot::Region(region) if domains.contains(&region.pd));
        let numbered = self.entries.iter().enumerate().filter(|(_, entry)| ours(entry));
        // The table never grows beyond `MAX_ENTRIES`.
        numbered
            .map(|(index, entry)| ((index as u32) << 8 | u32::from(entry.generation) << 1) ^ self.secret)
            .collect()
    }

    /// Whether windows are bound to the region with this lkey.
    pub(crate) fn is_bound(&self, lkey: u32) -> bool {
        let key = lkey ^ self.secret;
        let entry = self.entries.get((key >> 8) as usize);
        entry.is_some_and(|entry| {
            u32::from(entry.generation) << 1 == key & 0xff && entry.bound.load(Ordering::Acquire) > 0
        })
    }

    /// The region with this lkey, to be changed in place; it keeps its keys.
    ///
    /// # Errors
    /// [`Held`].
    pub(crate) fn region_mut(&mut self, lkey: u32) -> Result<&mut Region, Held> {
        let lkey = lkey ^ self.secret;
        let entry = self.entries.get_mut((lkey >> 8) as usize).ok_or(Held::Gone)?;
        let bound = entry.bound.load(Ordering::Acquire) > 0;
        match &mut entry.slot {
            Slot::Region(region) if u32::from(entry.generation) << 1 == lkey & 0xff => {
                if bound {
                    Err(Held::Bound)
                } else {
                    Ok(region)
                }
            }
            _ => Err(Held::Gone),
        }
    }

    /// Finds the bytes a local scatter/gather element names.
    ///
    /// # Errors
    /// [`MrFault`], in the order key, domain, bounds, access.
    #[inline]
    pub(crate) fn local(
        &self,
        pd: PdNumber,
        lkey: u32,
        va: u64,
        len: u64,
        write: bool,
    ) -> Result<(&UserMemory, usize), MrFault> {
        self.find(pd, lkey, 0, va, len, if write { access::LOCAL_WRITE } else { 0 })
    }

    /// Finds the bytes that a request of the peer of queue pair `qpn` names; `need` are bits of [`access`].
    ///
    /// # Errors
    /// [`MrFault`], in the order key, domain, bounds, access.
    #[inline]
    pub(crate) fn remote(
        &self,
        pd: PdNumber,
        qpn: u32,
        rkey: u32,
        va: u64,
        len: u64,
        need: u32,
    ) -> Result<Found<'_>, MrFault> {
        match self.find(pd, rkey, 1, va, len, need) {
            Ok((memory, at)) => Ok(Found { memory, at, _window: None }),
            Err(MrFault::Key) => self.through_window(pd, qpn, rkey, va, len, need),
            Err(fault) => Err(fault),
        }
    }

    #[inline(always)]
    fn find(
        &self,
        pd: PdNumber,
        key: u32,
        kind: u32,
        va: u64,
        len: u64,
        need: u32,
    ) -> Result<(&UserMemory, usize), MrFault> {
        let key = key ^ self.secret;
        let entry = self.entries.get((key >> 8) as usize).ok_or(MrFault::Key)?;
        let Slot::Region(region) = &entry.slot else { return Err(MrFault::Key) };
        if key & 0xff != u32::from(entry.generation) << 1 | kind {
            return Err(MrFault::Key);
        }
        if region.pd != pd {
            return Err(MrFault::Domain);
        }
        let offset = region.offset(va, len).ok_or(MrFault::Bounds)?;
        if region.access & need != need {
            return Err(MrFault::Access);
        }
        Ok((&region.memory, offset))
    }
}

/// Checks access flags as `ibv_reg_mr(3)` has them.
///
/// # Errors
/// An errno: `EINVAL` if a flag is unknown, or if remote write or atomic access is asked without local write.
pub(crate) fn check_access(flags: u32) -> Result<(), i32> {
    let remote_store = flags & (access::REMOTE_WRITE | access::REMOTE_ATOMIC) != 0;
    if flags & !access::KNOWN != 0 || remote_store && flags & access::LOCAL_WRITE == 0 {
        return Err(libc::EINVAL);
    }
    Ok(())
}

#[cfg(test)]
#[path = "mr_tests.rs"]
mod tests;
