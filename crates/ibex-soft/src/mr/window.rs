//! Memory windows: rights of a peer to part of a region, given and taken without registering it anew.
//!
//! Owns what may be bound to what, when a window's key is valid, and how one is revoked. See `ibv_alloc_mw(3)`,
//! `ibv_bind_mw(3)`; IBTA vol. 1 clauses 10.6.6 and 10.6.7.
//!
//! A type 1 window serves every queue pair of its domain, and binding it anew takes the earlier right away. A type 2 window
//! (as 2B) serves only the queue pair by which it was bound; it has to be invalidated before it is bound again: by that
//! queue pair, by a SEND of its peer, by the queue pair's end, or by freeing it.
//!
//! A window's state has a lock of its own, held for reading by whoever copies through the window: when a bind or an
//! invalidation is done, no copy by the earlier right is in progress (fence F4).

use std::sync::atomic::Ordering;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{Entry, Found, MAX_ENTRIES, MrFault, MrTable, PdNumber, Slot, access};

/// Most windows a device has at once.
pub(crate) const MAX_WINDOWS: u32 = 1 << 22;

/// Indices kept free before one is reused: users choose the rest of a key, so that an old one may come again then.
const REUSE_DISTANCE: usize = 1024;

/// The rights a window can give.
const RIGHTS: u32 = access::REMOTE_WRITE | access::REMOTE_READ | access::REMOTE_ATOMIC;

/// The kinds of windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WindowKind {
    /// Bound by `ibv_bind_mw`, for all queue pairs of its domain.
    Type1,
    /// Bound by a work request, for the queue pair this was posted to.
    Type2,
}

/// What a request to bind asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bind {
    /// The window: any key it had.
    pub(crate) window: u32,
    /// The key it is to have; the upper 24 bits are the window's.
    pub(crate) rkey: u32,
    /// The region, by its lkey; `None` to take the right away.
    pub(crate) region: Option<u32>,
    /// The range, by the region's addresses.
    pub(crate) addr: u64,
    /// Bytes; 0 to take the right away.
    pub(crate) len: u64,
    /// The rights, bits of [`access`].
    pub(crate) access: u32,
}

/// A window.
#[derive(Debug)]
pub(crate) struct Window {
    pd: PdNumber,
    kind: WindowKind,
    state: RwLock<State>,
}

/// What a window gives access to at present.
#[derive(Debug)]
pub(crate) struct State {
    /// The lowest eight bits of its key.
    tag: u8,
    range: Option<Range>,
}

/// A range of a region.
#[derive(Clone, Copy, Debug)]
struct Range {
    /// The region's index; it stays registered as long as this exists.
    region: u32,
    /// Where in the region the range begins.
    at: u64,
    /// The address by which requests name its first byte.
    iova: u64,
    len: u64,
    access: u32,
    /// The queue pair that may be used, for a type 2 window.
    qpn: u32,
}

impl Window {
    /// Protection domain it belongs to.
    pub(super) fn pd(&self) -> PdNumber {
        self.pd
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MrTable {
    /// Makes a window, not bound to anything; its key. `None` if there are too many.
    pub(crate) fn insert_window(&mut self, pd: PdNumber, kind: WindowKind) -> Option<u32> {
        if self.windows >= MAX_WINDOWS {
            return None;
        }
        let grow = self.free_windows.len() < REUSE_DISTANCE && self.entries.len() < MAX_ENTRIES;
        let mut index = if grow { self.grow(0)? } else { self.free_windows.pop_front()? };
        if self.window_key(index, 0) == 0 {
            // Programs use key 0 for "none": this index is never used.
            index = self.grow(0)?;
        }
        let entry = &mut self.entries[index as usize];
        let tag = entry.generation.wrapping_add(1);
        let state = RwLock::new(State { tag, range: None });
        entry.slot = Slot::Window(Box::new(Window { pd, kind, state }));
        self.windows += 1;
        Some(self.window_key(index, tag))
    }

    /// Frees the window of domain `pd` that has, or had, this key; what it was bound to is revoked.
    pub(crate) fn remove_window(&mut self, pd: PdNumber, key: u32) {
        if self.window(key).is_some_and(|window| window.pd == pd) {
            self.take_window(self.window_index(key));
        }
    }

    pub(super) fn take_window(&mut self, index: u32) {
        self.revoke(index);
        let entry = &mut self.entries[index as usize];
        let Slot::Window(window) = std::mem::replace(&mut entry.slot, Slot::Free) else { return };
        entry.generation = window.read().tag;
        self.free_windows.push_back(index);
        self.windows -= 1;
    }

    fn window_key(&self, index: u32, tag: u8) -> u32 {
        (index << 8 ^ self.secret & !0xff) | u32::from(tag)
    }

    fn window_index(&self, key: u32) -> u32 {
        (key ^ self.secret) >> 8
    }

    /// The window whose key has these upper 24 bits.
    fn window(&self, key: u32) -> Option<&Window> {
        match &self.entries.get(self.window_index(key) as usize)?.slot {
            Slot::Window(window) => Some(window),
            _ => None,
        }
    }

    /// [`MrTable::remote`] for a window's key.
    #[cold]
    pub(super) fn through_window(
        &self,
        pd: PdNumber,
        qpn: u32,
        key: u32,
        va: u64,
        len: u64,
        need: u32,
    ) -> Result<Found<'_>, MrFault> {
        let window = self.window(key).ok_or(MrFault::Key)?;
        let state = window.read();
        let range = state.range.filter(|_| u32::from(state.tag) == key & 0xff).ok_or(MrFault::Key)?;
        if window.pd != pd || window.kind == WindowKind::Type2 && range.qpn != qpn {
            return Err(MrFault::Domain);
        }
        let offset = va.checked_sub(range.iova).ok_or(MrFault::Bounds)?;
        if offset.checked_add(len).is_none_or(|end| end > range.len) {
            return Err(MrFault::Bounds);
        }
        if range.access & need != need {
            return Err(MrFault::Access);
        }
        let Some(Entry { slot: Slot::Region(region), .. }) = self.entries.get(range.region as usize) else {
            return Err(MrFault::Key);
        };
        let at = usize::try_from(range.at + offset).map_err(|_| MrFault::Bounds)?;
        Ok(Found { memory: &region.memory, at, _window: Some(state) })
    }

    /// Binds a window by a request of a queue pair of domain `pd`. When this returns no copy by an earlier right of the
    /// window's is in progress.
    ///
    /// # Errors
    /// What the rules above do not allow; then nothing is changed.
    pub(crate) fn bind(&self, pd: PdNumber, qpn: u32, bind: &Bind) -> Result<(), MrFault> {
        let index = self.window_index(bind.window);
        let window = self.window(bind.window).ok_or(MrFault::Key)?;
        // IBTA C10-72, and the key must be one of this window's.
        if window.pd != pd || self.window_index(bind.rkey) != index {
            return Err(MrFault::Domain);
        }
        let type2 = window.kind == WindowKind::Type2;
        let fresh = match bind.region {
            Some(region) if bind.len > 0 => Some(self.range(pd, region, qpn, bind)?),
            // IBTA o10-37.2.40: only type 1 windows are taken back by binding nothing.
            _ if type2 => return Err(MrFault::Bounds),
            _ => None,
        };
        if !type2 && bind.access & access::ZERO_BASED != 0 {
            return Err(MrFault::Access);
        }
        let mut state = window.write();
        // IBTA o10-37.2.30: it must have been invalidated.
        if type2 && state.range.is_some() {
            return Err(MrFault::Key);
        }
        let before = std::mem::replace(&mut state.range, fresh);
        state.tag = bind.rkey as u8;
        drop(state);
        if let Some(range) = fresh {
            self.entries[range.region as usize].bound.fetch_add(1, Ordering::AcqRel);
            if type2 {
                let mut by_qp = self.by_qp.lock().unwrap_or_else(PoisonError::into_inner);
                by_qp.entry(qpn).or_default().push(index);
            }
        }
        if let Some(range) = before {
            self.entries[range.region as usize].bound.fetch_sub(1, Ordering::AcqRel);
        }
        Ok(())
    }

    /// The range that a request asks for.
    fn range(&self, pd: PdNumber, lkey: u32, qpn: u32, bind: &Bind) -> Result<Range, MrFault> {
        let key = lkey ^ self.secret;
        let entry = self.entries.get((key >> 8) as usize).ok_or(MrFault::Key)?;
        let Slot::Region(region) = &entry.slot else { return Err(MrFault::Key) };
        if u32::from(entry.generation) << 1 != key & 0xff {
            return Err(MrFault::Key);
        }
        if region.pd != pd {
            return Err(MrFault::Domain);
        }
        let stores = bind.access & (access::REMOTE_WRITE | access::REMOTE_ATOMIC) != 0;
        // IBTA C10-73, C10-74; a region whose addresses begin at 0 has none by which to name a part.
        if bind.access & !(RIGHTS | access::ZERO_BASED) != 0
            || region.access & access::MW_BIND == 0
            || region.access & access::ZERO_BASED != 0
            || stores && region.access & access::LOCAL_WRITE == 0
        {
            return Err(MrFault::Access);
        }
        let at = region.offset(bind.addr, bind.len).ok_or(MrFault::Bounds)? as u64;
        let iova = if bind.access & access::ZERO_BASED != 0 { 0 } else { bind.addr };
        let Bind { len, access, .. } = *bind;
        Ok(Range { region: key >> 8, at, iova, len, access, qpn })
    }

    /// Takes back a type 2 window at the request of queue pair `qpn`, or of its peer. When this returns no copy through the
    /// window is in progress.
    ///
    /// # Errors
    /// [`MrFault`] if the key is no such window's, or the window is another queue pair's.
    pub(crate) fn invalidate(&self, pd: PdNumber, qpn: u32, key: u32) -> Result<(), MrFault> {
        let window = self.window(key).ok_or(MrFault::Key)?;
        if window.pd != pd {
            return Err(MrFault::Domain);
        }
        // IBTA o10-37.2.26.
        if window.kind == WindowKind::Type1 {
            return Err(MrFault::Access);
        }
        let state = window.read();
        let range = state.range.filter(|_| u32::from(state.tag) == key & 0xff).ok_or(MrFault::Key)?;
        drop(state);
        if range.qpn != qpn {
            return Err(MrFault::Domain);
        }
        // Only this queue pair changes it, and its lock is held.
        self.revoke(self.window_index(key));
        Ok(())
    }

    /// Takes back every window bound by a queue pair that has come to its end.
    pub(crate) fn revoke_all(&self, qpn: u32) {
        let bound = self.by_qp.lock().unwrap_or_else(PoisonError::into_inner).remove(&qpn);
        for index in bound.unwrap_or_default() {
            self.revoke(index);
        }
    }

    /// Takes a window back, if it is bound.
    fn revoke(&self, index: u32) {
        let Some(Entry { slot: Slot::Window(window), .. }) = self.entries.get(index as usize) else { return };
        let Some(range) = window.write().range.take() else { return };
        self.entries[range.region as usize].bound.fetch_sub(1, Ordering::AcqRel);
        if window.kind == WindowKind::Type2 {
            let mut by_qp = self.by_qp.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(bound) = by_qp.get_mut(&range.qpn) {
                bound.retain(|&known| known != index);
                if bound.is_empty() {
                    by_qp.remove(&range.qpn);
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
