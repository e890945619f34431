//! Shared read-only buffers: one payload for many operations.
//!
//! Owns [`FrozenBuf`].
//!
//! # Safety
//! `ptr` and `len` lie within `owner`, which is neither changed nor moved while a clone exists.
#![allow(unsafe_code)]

use std::fmt;
use std::ops::{Bound, Deref, RangeBounds};
use std::ptr::NonNull;
use std::sync::Arc;

use ibex_sys::ibv_sge;

use super::{Buf, MAX_MESSAGE, MemoryError, Registered, Source, StableMem};
use crate::addr::Lkey;

/// What keeps the bytes.
enum Owner {
    Buf(Buf),
    Registered(#[expect(dead_code, reason = "held for its drop")] Box<dyn Send + Sync>),
}

/// A registered read-only buffer. Clones and slices share the bytes.
///
/// The device may read one in any number of operations at once. Made by [`Buf::freeze`] and [`Registered::freeze`].
#[derive(Clone)]
pub struct FrozenBuf {
    ptr: NonNull<u8>,
    len: u32,
    lkey: Lkey,
    owner: Arc<Owner>,
}

// SAFETY: the bytes are immutable; the owner is `Send` and `Sync`.
unsafe impl Send for FrozenBuf {}
// SAFETY: as above.
unsafe impl Sync for FrozenBuf {}

impl FrozenBuf {
    pub(super) fn from_buf(buf: Buf) -> Self {
        let bytes: &[u8] = &buf;
        // A block is at most 2 GiB.
        let (ptr, len, lkey) = (NonNull::from(bytes).cast(), bytes.len() as u32, buf.lkey());
        Self { ptr, len, lkey, owner: Arc::new(Owner::Buf(buf)) }
    }

    pub(super) fn from_registered<O: StableMem + Sync>(memory: Registered<O>) -> Result<Self, MemoryError> {
        let bytes: &[u8] = &memory;
        if bytes.len() > MAX_MESSAGE {
            return Err(MemoryError::TooLong { bytes: bytes.len(), capacity: MAX_MESSAGE });
        }
        let (ptr, len, lkey) = (NonNull::from(bytes).cast(), bytes.len() as u32, memory.lkey());
        Ok(Self { ptr, len, lkey, owner: Arc::new(Owner::Registered(Box::new(memory))) })
    }

    /// The part `range` of it, sharing the bytes.
    ///
    /// # Panics
    /// If the range is not inside, as slicing does.
    #[must_use]
    #[track_caller]
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Self {
        let range: (Bound<usize>, Bound<usize>) = (range.start_bound().cloned(), range.end_bound().cloned());
        let part = &self[range];
        Self {
            ptr: NonNull::from(part).cast(),
            // A part of something that fits 32 bits.
            len: part.len() as u32,
            lkey: self.lkey,
            owner: Arc::clone(&self.owner),
        }
    }

    /// The buffer it was frozen from, with that buffer's whole content, if this is the last clone and it came from a pool.
    ///
    /// # Errors
    /// Itself, otherwise.
    pub fn thaw(self) -> Result<Buf, Self> {
        let Self { ptr, len, lkey, owner } = self;
        let again = |owner: Owner| Self { ptr, len, lkey, owner: Arc::new(owner) };
        match Arc::try_unwrap(owner) {
            Ok(Owner::Buf(buf)) => Ok(buf),
            Ok(owner @ Owner::Registered(_)) => Err(again(owner)),
            Err(owner) => Err(Self { ptr, len, lkey, owner }),
        }
    }
}

impl Deref for FrozenBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: immutable bytes inside the owner; the device only reads them.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len as usize) }
    }
}

impl AsRef<[u8]> for FrozenBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for FrozenBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FrozenBuf({} bytes)", self.len)
    }
}

// SAFETY: the owner keeps the bytes registered and in place, and nobody can change them.
unsafe impl Source for FrozenBuf {
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
            *first = ibv_sge { addr: self.ptr.as_ptr() as u64, length: self.len, lkey: self.lkey.0 };
        }
        1
    }
}
