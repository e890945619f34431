//! Memory regions: keys, bounds and access flags.
//!
//! Owns the table from keys to regions and every check that stands before an access. Does not own the access itself
//! ([`crate::memory`]) nor the C structures. See `ibv_reg_mr(3)`; IBTA vol. 1 clause 10.6.
//!
//! A key is `index << 8 | generation << 1 | kind`: the index of the table's entry, a generation that makes a key of an
//! earlier registration fail, and a lowest bit that keeps an lkey from serving as an rkey.
//!
//! The device holds its one table in an `RwLock`. Whoever copies holds the read guard from the check to the end of the
//! copy, so that the write guard taken by `ibv_dereg_mr` waits for copies in flight: after it returned nothing touches
//! the memory (fence F3).

use std::collections::VecDeque;

use crate::memory::UserMemory;

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

/// Most regions a device has at once: the index has 24 bits, less one bit so that indices are not soon reused.
pub(crate) const MAX_REGIONS: u32 = 1 << 23;

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

#[derive(Debug)]
struct Entry {
    generation: u8,
    region: Option<Region>,
}

/// All regions of a device.
#[derive(Debug, Default)]
pub(crate) struct MrTable {
    entries: Vec<Entry>,
    /// Free indices, longest free first, so that a key is reused as late as possible.
    free: VecDeque<u32>,
    /// What index and generation are combined with to give a key, so that keys cannot be foreseen by peers. Even: the
    /// lowest bit tells lkey from rkey.
    secret: u32,
}

/// Indices kept free before one is reused.
const REUSE_DISTANCE: usize = 64;

impl MrTable {
    /// An empty table with keys of its own.
    pub(crate) fn with_secret(secret: u32) -> MrTable {
        MrTable { secret: secret & !1, ..MrTable::default() }
    }

    /// Enters a region; `None` if the table is full.
    pub(crate) fn insert(&mut self, region: Region) -> Option<Keys> {
        let grow = self.free.len() < REUSE_DISTANCE && self.entries.len() < MAX_REGIONS as usize;
        let index = if grow {
            // Entry 0 stays empty: programs use key 0 for "none".
            let index = u32::try_from(self.entries.len()).ok()?;
            self.entries.push(Entry { generation: 1, region: None });
            if index == 0 {
                return self.insert(region);
            }
            index
        } else {
            self.free.pop_front()?
        };
        let entry = &mut self.entries[index as usize];
        entry.region = Some(region);
        let lkey = (index << 8 | u32::from(entry.generation) << 1) ^ self.secret;
        if lkey == 0 {
            // Programs use key 0 for "none": this generation of the entry is passed over.
            let region = self.remove(lkey)?;
            return self.insert(region);
        }
        Some(Keys { lkey, rkey: lkey | 1 })
    }

    /// Removes the region with this lkey.
    pub(crate) fn remove(&mut self, lkey: u32) -> Option<Region> {
        let region = self.entry_mut(lkey)?.region.take()?;
        let index = (lkey ^ self.secret) >> 8;
        let entry = &mut self.entries[index as usize];
        entry.generation = entry.generation.wrapping_add(1) & 0x7f;
        self.free.push_back(index);
        Some(region)
    }

    /// Removes every region of these domains.
    pub(crate) fn remove_domains(&mut self, domains: &[PdNumber]) {
        for (index, entry) in self.entries.iter_mut().enumerate() {
            if entry.region.as_ref().is_some_and(|region| domains.contains(&region.pd)) {
                entry.region = None;
                entry.generation = entry.generation.wrapping_add(1) & 0x7f;
                // The table never grows beyond `MAX_REGIONS`.
                self.free.push_back(index as u32);
            }
        }
    }

    /// The region with this lkey, to be changed in place; it keeps its keys.
    pub(crate) fn region_mut(&mut self, lkey: u32) -> Option<&mut Region> {
        self.entry_mut(lkey)?.region.as_mut()
    }

    fn entry_mut(&mut self, lkey: u32) -> Option<&mut Entry> {
        let lkey = lkey ^ self.secret;
        let entry = self.entries.get_mut((lkey >> 8) as usize)?;
        (u32::from(entry.generation) << 1 == lkey & 0xff).then_some(entry)
    }

    /// Finds the bytes a local scatter/gather element names.
    ///
    /// # Errors
    /// [`MrFault`], in the order key, domain, bounds, access.
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

    /// Finds the bytes a remote request names; `need` are bits of [`access`].
    ///
    /// # Errors
    /// [`MrFault`], in the order key, domain, bounds, access.
    pub(crate) fn remote(
        &self,
        pd: PdNumber,
        rkey: u32,
        va: u64,
        len: u64,
        need: u32,
    ) -> Result<(&UserMemory, usize), MrFault> {
        self.find(pd, rkey, 1, va, len, need)
    }

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
        let region = entry.region.as_ref().ok_or(MrFault::Key)?;
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
