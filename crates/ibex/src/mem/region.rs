//! Memory that peers may be given access to.
//!
//! Owns [`SharedRegion`] and [`RegionSlice`]. The memory is mapped by ibex, never behind a Rust reference, and reached by
//! copies and volatile words only (I2), so that a peer's writes at any moment are sound.
//!
//! # Safety
//! All access to the mapping goes through `volatile`, within bounds.
#![allow(unsafe_code)]

use std::fmt;
use std::ops::{Bound, RangeBounds};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ibex_sys::{self as sys, ibv_sge};

use super::{Access, MAX_MESSAGE, Mapping, MemoryError, Registration, RemoteHandle, Sink, Source, volatile};
use crate::addr::Lkey;
use crate::pd::ProtectionDomain;

struct Inner {
    map: Arc<Mapping>,
    len: usize,
    lkey: Lkey,
    /// The registrations that peers may use, each with its generation.
    exposed: Mutex<Vec<(u32, Registration<Arc<Mapping>>)>>,
    generation: AtomicU32,
    pd: ProtectionDomain,
    /// The registration for local use.
    _local: Registration<Arc<Mapping>>,
}

/// Memory that peers may be given access to. Clones share it.
///
/// Read it by [`read_at`](Self::read_at) and [`load_u64`](Self::load_u64), write it by [`write_at`](Self::write_at) and
/// [`store_u64`](Self::store_u64): there is no way to a reference, since a peer may write at any moment. Copies promise
/// no order among bytes; a word stored with `store_u64` publishes everything stored before it, and a word seen with
/// `load_u64` makes everything visible that was visible to its writer.
///
/// ```
/// # use ibex::prelude::*;
/// # fn main() -> ibex::Result<()> {
/// # let pd = Provider::Soft.devices()?[0].open()?.alloc_pd()?;
/// let region = pd.shared(64 * KIB)?;
/// region.write_at(100, b"hello")?;
/// let mut copy = [0; 5];
/// region.read_at(100, &mut copy)?;
/// assert_eq!(&copy, b"hello");
/// let handle = region.expose(Access::REMOTE_READ)?; // tell a peer: 32 bytes
/// region.withdraw(&handle)?;                        // from here on no peer can use it
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SharedRegion {
    inner: Arc<Inner>,
}

impl SharedRegion {
    pub(crate) fn new(pd: &ProtectionDomain, len: usize) -> Result<Self, MemoryError> {
        let map = Arc::new(Mapping::for_peers(len, pd.context().verbs())?);
        let local = register(pd, &map, 0, map.len(), sys::IBV_ACCESS_LOCAL_WRITE)?;
        Ok(Self {
            inner: Arc::new(Inner {
                map,
                len,
                lkey: local.lkey(),
                exposed: Mutex::default(),
                // Handles of an earlier region at the same address have other generations.
                generation: AtomicU32::new(crate::rng::next_u32()),
                pd: pd.clone(),
                _local: local,
            }),
        })
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.len
    }

    /// True if there is no byte in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inner.len == 0
    }

    /// Copies the bytes at `offset` to `out`.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`].
    pub fn read_at(&self, offset: usize, out: &mut [u8]) -> Result<(), MemoryError> {
        let from = self.checked(offset, out.len())?;
        // SAFETY: within the mapping, which is never behind a reference (I2).
        unsafe { volatile::copy_out(from, out) };
        Ok(())
    }

    /// Copies `bytes` to `offset`.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`].
    pub fn write_at(&self, offset: usize, bytes: &[u8]) -> Result<(), MemoryError> {
        let to = self.checked(offset, bytes.len())?;
        // SAFETY: within the mapping, which is never behind a reference (I2).
        unsafe { volatile::copy_in(to, bytes) };
        Ok(())
    }

    /// The word of 8 bytes at `offset`, in the byte order of this host.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`], [`MemoryError::Misaligned`].
    #[inline]
    pub fn load_u64(&self, offset: usize) -> Result<u64, MemoryError> {
        let from = self.word(offset)?;
        // SAFETY: within the mapping and aligned.
        Ok(unsafe { volatile::load_u64(from) })
    }

    /// Stores a word of 8 bytes at `offset`, in the byte order of this host.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`], [`MemoryError::Misaligned`].
    #[inline]
    pub fn store_u64(&self, offset: usize, word: u64) -> Result<(), MemoryError> {
        let to = self.word(offset)?;
        // SAFETY: within the mapping and aligned.
        unsafe { volatile::store_u64(to, word) };
        Ok(())
    }

    /// Gives peers access to all of it, until [withdrawn](Self::withdraw) or until the last clone is dropped.
    ///
    /// # Errors
    /// [`MemoryError::Register`].
    pub fn expose(&self, access: Access) -> Result<RemoteHandle, MemoryError> {
        self.expose_range(.., access)
    }

    /// Gives peers access to the bytes `range`, and to no other.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`], [`MemoryError::Register`].
    pub fn expose_range(
        &self,
        range: impl RangeBounds<usize>,
        access: Access,
    ) -> Result<RemoteHandle, MemoryError> {
        let (start, len) = self.range(range)?;
        let mut rights = sys::ibv_access_flags(u32::from(access.bits()));
        if access.intersects(Access::REMOTE_WRITE | Access::REMOTE_ATOMIC) {
            // ibv_reg_mr(3): remote writes and atomics need the right to write locally.
            rights |= sys::IBV_ACCESS_LOCAL_WRITE;
        }
        let registration = register(&self.inner.pd, &self.inner.map, start, len, rights)?;
        let generation = self.inner.generation.fetch_add(1, Ordering::Relaxed);
        let handle = RemoteHandle {
            addr: (self.base().addr() + start) as u64,
            len: len as u64,
            rkey: registration.rkey(),
            generation,
            access,
        };
        self.exposures().push((generation, registration));
        Ok(handle)
    }

    /// Takes back what `handle` gives: when this returns `Ok`, no peer can read or write by it any more. Operations of
    /// peers that are under way fail with a remote access error.
    ///
    /// # Errors
    /// [`MemoryError::NotExposed`] for a handle of something else or one withdrawn before; [`MemoryError::Deregister`] if
    /// the device refuses, and then peers may still have access.
    pub fn withdraw(&self, handle: &RemoteHandle) -> Result<(), MemoryError> {
        let mut exposed = self.exposures();
        let at = exposed
            .iter()
            .position(|(generation, registration)| {
                *generation == handle.generation && registration.rkey() == handle.rkey
            })
            .ok_or(MemoryError::NotExposed { rkey: handle.rkey })?;
        let (_, registration) = exposed.swap_remove(at);
        drop(exposed);
        registration.into_memory().map(drop)
    }

    /// The bytes `range` as memory of an operation: what a WRITE sends or a READ fills.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`].
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Result<RegionSlice, MemoryError> {
        let (start, len) = self.range(range)?;
        Ok(RegionSlice { region: self.clone(), start, len })
    }

    fn exposures(&self) -> std::sync::MutexGuard<'_, Vec<(u32, Registration<Arc<Mapping>>)>> {
        // A panic elsewhere cannot leave the list half-changed.
        self.inner.exposed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn base(&self) -> *mut u8 {
        self.inner.map.base().as_ptr()
    }

    /// The address of `len` bytes at `offset`, if they are inside.
    #[inline]
    fn checked(&self, offset: usize, len: usize) -> Result<*mut u8, MemoryError> {
        match offset.checked_add(len) {
            Some(end) if end <= self.inner.len => Ok(self.base().wrapping_add(offset)),
            end => Err(MemoryError::OutOfBounds {
                start: offset as u64,
                end: end.unwrap_or(usize::MAX) as u64,
                len: self.inner.len as u64,
            }),
        }
    }

    #[inline]
    fn word(&self, offset: usize) -> Result<*mut u64, MemoryError> {
        let addr = self.checked(offset, 8)?.cast::<u64>();
        if addr.is_aligned() { Ok(addr) } else { Err(MemoryError::Misaligned { addr: addr.addr() as u64 }) }
    }

    /// Start and length of a range, if it is inside.
    fn range(&self, range: impl RangeBounds<usize>) -> Result<(usize, usize), MemoryError> {
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&last) => last.saturating_add(1),
            Bound::Excluded(&end) => end,
            Bound::Unbounded => self.inner.len,
        };
        if start > end || end > self.inner.len {
            let len = self.inner.len as u64;
            return Err(MemoryError::OutOfBounds { start: start as u64, end: end as u64, len });
        }
        Ok((start, end - start))
    }
}

/// Registers a part of a mapping.
fn register(
    pd: &ProtectionDomain,
    map: &Arc<Mapping>,
    start: usize,
    len: usize,
    access: sys::ibv_access_flags,
) -> Result<Registration<Arc<Mapping>>, MemoryError> {
    let addr = map.base().as_ptr().wrapping_add(start);
    // SAFETY: a mapping stays in place until its last owner is dropped; no reference to it is ever made (I2).
    unsafe { Registration::new(pd, Arc::clone(map), addr, len, access) }
}

impl fmt::Debug for SharedRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedRegion")
            .field("len", &self.inner.len)
            .field("exposed", &self.exposures().len())
            .finish_non_exhaustive()
    }
}

/// A part of a [`SharedRegion`], as memory of an operation.
///
/// Nothing keeps a peer, or another operation, from changing it meanwhile: what then arrives is some mixture of bytes,
/// never undefined behaviour.
#[derive(Clone, Debug)]
pub struct RegionSlice {
    region: SharedRegion,
    start: usize,
    len: usize,
}

impl RegionSlice {
    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if there is no byte in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The region.
    #[must_use]
    pub fn region(&self) -> &SharedRegion {
        &self.region
    }

    fn piece(&self, list: &mut [ibv_sge]) -> usize {
        if let Some(first) = list.first_mut() {
            let addr = self.region.base().addr() + self.start;
            // Longer ones than 2 GiB are refused before they are posted.
            let length = self.len.min(MAX_MESSAGE) as u32;
            *first = ibv_sge { addr: addr as u64, length, lkey: self.region.inner.lkey.0 };
        }
        1
    }
}

// SAFETY: the region is kept, stays in place and registered; it is never behind a reference (I2).
unsafe impl Source for RegionSlice {
    fn bytes(&self) -> usize {
        self.len
    }

    fn gather(&self, list: &mut [ibv_sge]) -> usize {
        self.piece(list)
    }
}

// SAFETY: as for `Source`; registered for local writes.
unsafe impl Sink for RegionSlice {
    fn scatter(&self, list: &mut [ibv_sge]) -> usize {
        self.piece(list)
    }
}
