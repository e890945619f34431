//! Memory the program owns, registered where it is.
//!
//! Owns [`Registered`] and the traits [`StableMem`], [`StableMemMut`] of what can be registered.
//!
//! # Safety
//! The owner's memory neither moves nor goes while it is registered: only its bytes are handed out, never the owner.
//! Registered for local use only (I1).
#![allow(unsafe_code)]

use std::fmt;
use std::ops::{Bound, Deref, DerefMut, RangeBounds};
use std::sync::Arc;

use ibex_sys::{self as sys, ibv_sge};

use super::{FrozenBuf, MAX_MESSAGE, MemoryError, Registration, Sink, Source};
use crate::addr::Lkey;
use crate::pd::ProtectionDomain;

/// Memory with a fixed address.
///
/// # Safety
/// [`region`](Self::region) must name initialised bytes that stay valid and in place until the value is dropped, however
/// the value is moved, and that nothing but the value (or other shared, read-only owners) can change; it must return the
/// same every time.
pub unsafe trait StableMem: Send + 'static {
    /// Whether the device may be allowed to write the bytes: true exactly for [`StableMemMut`] types.
    const WRITABLE: bool;

    /// Address and length.
    fn region(&self) -> (*const u8, usize);
}

/// Memory with a fixed address that belongs to its owner alone.
///
/// # Safety
/// As [`StableMem`], with `WRITABLE` true, and nothing but the value can read the bytes either.
pub unsafe trait StableMemMut: StableMem {
    /// Address, fit for writing; the length is [`region`](StableMem::region)'s.
    fn region_mut(&mut self) -> *mut u8;
}

// SAFETY: the elements of a vector move only when it grows, for which `Registered` gives no opportunity.
unsafe impl StableMem for Vec<u8> {
    const WRITABLE: bool = true;

    fn region(&self) -> (*const u8, usize) {
        (self.as_ptr(), self.len())
    }
}
// SAFETY: a vector owns its elements alone.
unsafe impl StableMemMut for Vec<u8> {
    fn region_mut(&mut self) -> *mut u8 {
        self.as_mut_ptr()
    }
}
// SAFETY: moving the box does not move what it points at.
unsafe impl StableMem for Box<[u8]> {
    const WRITABLE: bool = true;

    fn region(&self) -> (*const u8, usize) {
        (self.as_ptr(), self.len())
    }
}
// SAFETY: a box owns what it points at alone.
unsafe impl StableMemMut for Box<[u8]> {
    fn region_mut(&mut self) -> *mut u8 {
        self.as_mut_ptr()
    }
}
// SAFETY: shared and immutable.
unsafe impl StableMem for Arc<[u8]> {
    const WRITABLE: bool = false;

    fn region(&self) -> (*const u8, usize) {
        (self.as_ptr(), self.len())
    }
}
// SAFETY: there for the whole life of the process, and immutable.
unsafe impl StableMem for &'static [u8] {
    const WRITABLE: bool = false;

    fn region(&self) -> (*const u8, usize) {
        (self.as_ptr(), self.len())
    }
}

/// The owner, in a box so that an operation moves three words.
struct Inner<O> {
    registration: Registration<O>,
    addr: *const u8,
    /// Length of the window as it was chosen, which a short message does not shorten.
    room: usize,
}

/// Memory of the program, registered for local use. Dereferences to its bytes, or to the [window](Self::set_window) of
/// them that the next operation uses.
///
/// Made by [`ProtectionDomain::register`]. Memory that is only shared (`Arc<[u8]>`, `&'static [u8]`) is registered
/// read-only and can be sent and written from, not received into.
pub struct Registered<O: StableMem> {
    inner: Box<Inner<O>>,
    start: usize,
    len: usize,
}

// SAFETY: it owns its memory as `O` does.
unsafe impl<O: StableMem> Send for Registered<O> {}
// SAFETY: a shared borrow gives out shared bytes only.
unsafe impl<O: StableMem + Sync> Sync for Registered<O> {}

impl<O: StableMem> Registered<O> {
    pub(crate) fn new(pd: &ProtectionDomain, owner: O) -> Result<Self, MemoryError> {
        let (addr, len) = owner.region();
        let access = if O::WRITABLE { sys::IBV_ACCESS_LOCAL_WRITE } else { sys::ibv_access_flags(0) };
        // SAFETY: `StableMem` promises that the range stays in place; local rights only (I1).
        let registration = unsafe { Registration::new(pd, owner, addr.cast_mut(), len, access) }?;
        Ok(Self { inner: Box::new(Inner { registration, addr, room: len }), start: 0, len })
    }

    /// The key under which it is registered.
    #[must_use]
    pub fn lkey(&self) -> Lkey {
        self.inner.registration.lkey()
    }

    /// Chooses the part of the memory that operations use and that this value dereferences to; `..` is all of it.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`] if the range is not inside the memory; nothing is changed then.
    pub fn set_window(&mut self, range: impl RangeBounds<usize>) -> Result<(), MemoryError> {
        let total = self.inner.registration.memory().region().1;
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&last) => last.saturating_add(1),
            Bound::Excluded(&end) => end,
            Bound::Unbounded => total,
        };
        if start > end || end > total {
            return Err(MemoryError::OutOfBounds { start: start as u64, end: end as u64, len: total as u64 });
        }
        self.start = start;
        self.len = end - start;
        self.inner.room = self.len;
        Ok(())
    }

    /// Ends the registration and gives the memory back.
    ///
    /// # Errors
    /// [`MemoryError::Deregister`]; the memory is leaked then, since the device may still use it.
    pub fn into_inner(self) -> Result<O, MemoryError> {
        self.inner.registration.into_memory()
    }

    /// Makes it shareable: one payload for many operations at once.
    ///
    /// # Errors
    /// [`MemoryError::TooLong`] if it is longer than a message can be (2 GiB); choose a window first.
    pub fn freeze(self) -> Result<FrozenBuf, MemoryError>
    where
        O: Sync,
    {
        FrozenBuf::from_registered(self)
    }

    /// The address of the window.
    #[inline]
    fn addr(&self) -> *const u8 {
        self.inner.addr.wrapping_add(self.start)
    }

    #[inline]
    fn piece(&self, length: usize, list: &mut [ibv_sge]) -> usize {
        if let Some(first) = list.first_mut() {
            // Longer ones than 2 GiB are refused before they are posted.
            *first = ibv_sge { addr: self.addr() as u64, length: length as u32, lkey: self.lkey().0 };
        }
        1
    }
}

impl<O: StableMem> Deref for Registered<O> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: inside the owner's initialised bytes, which no operation has (I3).
        unsafe { std::slice::from_raw_parts(self.addr(), self.len) }
    }
}

impl<O: StableMemMut> DerefMut for Registered<O> {
    fn deref_mut(&mut self) -> &mut [u8] {
        let start = self.start;
        let base = self.inner.registration.memory_mut().region_mut();
        // SAFETY: the window lies inside the owner's bytes.
        let addr = unsafe { base.add(start) };
        // SAFETY: as above; the bytes are the owner's alone, and it is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(addr, self.len) }
    }
}

impl<O: StableMem> fmt::Debug for Registered<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registered({} bytes)", self.len)
    }
}

// SAFETY: `StableMem` keeps the bytes in place and unchanged; the registration lives as long as the value.
unsafe impl<O: StableMem> Source for Registered<O> {
    fn bytes(&self) -> usize {
        self.len
    }

    #[inline]
    fn gather(&self, list: &mut [ibv_sge]) -> usize {
        self.piece(self.len, list)
    }

    fn received(&mut self, bytes: u32) -> u32 {
        self.len = self.inner.room.min(bytes as usize);
        // At most `bytes`.
        bytes - self.len as u32
    }
}

// SAFETY: `StableMemMut` bytes are the owner's alone, and are registered for local writes (`WRITABLE`).
unsafe impl<O: StableMemMut> Sink for Registered<O> {
    #[inline]
    fn scatter(&self, list: &mut [ibv_sge]) -> usize {
        // A window longer than any message offers what a message can fill.
        self.piece(self.inner.room.min(MAX_MESSAGE), list)
    }
}
