//! Exclusive buffers from a pool.
//!
//! Owns [`Buf`]. A buffer is ordinary memory while the program has it, and out of reach while an operation has it.
//!
//! # Safety
//! `ptr` points at a block of `slab` that belongs to this buffer alone, of at least `len` initialised bytes; the slab is
//! registered for local use only (I1) and outlives the buffer (I4).
#![allow(unsafe_code)]

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use ibex_sys::ibv_sge;

use super::pool::Slab;
use super::{FrozenBuf, MemoryError, Sink, Source};
use crate::addr::Lkey;

/// A registered buffer, exclusively owned. Dereferences to bytes; returns to its pool when dropped.
///
/// Its length says how much an operation sends, writes or reads; a receive may use all of its
/// [`capacity`](Self::capacity) and sets the length to what arrived.
pub struct Buf {
    ptr: NonNull<u8>,
    slab: Arc<Slab>,
    len: u32,
    lkey: Lkey,
}

// SAFETY: a buffer owns its block alone, as a `Box<[u8]>` would.
unsafe impl Send for Buf {}
// SAFETY: as above.
unsafe impl Sync for Buf {}

impl Buf {
    #[inline]
    pub(super) fn new(slab: &Arc<Slab>, ptr: NonNull<u8>) -> Self {
        // A block is at most 2 GiB.
        Self { ptr, slab: Arc::clone(slab), len: slab.block as u32, lkey: slab.lkey }
    }

    /// Bytes it can hold.
    #[inline]
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.slab.block
    }

    /// Sets the length. Bytes beyond the former length hold what was last put there.
    ///
    /// # Panics
    /// If `len` is larger than the [`capacity`](Self::capacity).
    #[inline]
    #[track_caller]
    pub fn set_len(&mut self, len: usize) {
        assert!(
            len <= self.capacity(),
            "length {len} is beyond the buffer's capacity of {}",
            self.capacity()
        );
        // A block is at most 2 GiB.
        self.len = len as u32;
    }

    /// Replaces the content by a copy of `bytes`.
    ///
    /// # Errors
    /// [`MemoryError::TooLong`] if they do not fit; the content is unchanged then.
    pub fn fill_from(&mut self, bytes: &[u8]) -> Result<(), MemoryError> {
        if bytes.len() > self.capacity() {
            return Err(MemoryError::TooLong { bytes: bytes.len(), capacity: self.capacity() });
        }
        self.set_len(bytes.len());
        self.copy_from_slice(bytes);
        Ok(())
    }

    /// Makes it read-only and shareable: one payload for many operations at once.
    #[must_use]
    pub fn freeze(self) -> FrozenBuf {
        FrozenBuf::from_buf(self)
    }

    /// The key under which it is registered.
    #[inline]
    #[must_use]
    pub fn lkey(&self) -> Lkey {
        self.lkey
    }

    #[inline]
    fn piece(&self, length: u32) -> ibv_sge {
        ibv_sge { addr: self.ptr.as_ptr() as u64, length, lkey: self.lkey.0 }
    }
}

impl Deref for Buf {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the block is this buffer's alone, initialised and mapped, and no operation has it (I3).
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len as usize) }
    }
}

impl DerefMut for Buf {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len as usize) }
    }
}

impl AsRef<[u8]> for Buf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for Buf {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl Drop for Buf {
    #[inline]
    fn drop(&mut self) {
        self.slab.give_back(self.ptr);
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buf({} of {} bytes)", self.len, self.capacity())
    }
}

// SAFETY: the block stays where it is and registered while the buffer exists, and only a borrow of the buffer reaches it.
unsafe impl Source for Buf {
    #[inline]
    fn bytes(&self) -> usize {
        self.len as usize
    }

    #[inline]
    fn message(&self) -> Option<u32> {
        Some(self.len)
    }

    #[inline]
    fn gather(&self, list: &mut [ibv_sge]) -> usize {
        if let Some(first) = list.first_mut() {
            *first = self.piece(self.len);
        }
        1
    }

    #[inline]
    fn received(&mut self, bytes: u32) -> u32 {
        // A block is at most 2 GiB.
        self.len = bytes.min(self.slab.block as u32);
        bytes - self.len
    }
}

// SAFETY: as for `Source`; the slab is registered for local writes.
unsafe impl Sink for Buf {
    #[inline]
    fn scatter(&self, list: &mut [ibv_sge]) -> usize {
        if let Some(first) = list.first_mut() {
            *first = self.piece(self.slab.block as u32);
        }
        1
    }
}
