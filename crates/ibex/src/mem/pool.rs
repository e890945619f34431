//! Pools: one registered slab, cut into buffers of equal size.
//!
//! Owns [`Pool`], its builder, and the list of free blocks, which is lock-free. Taking and returning a buffer neither
//! allocates nor makes a system call. Buffers keep the slab alive (I4).
//!
//! # Safety
//! A block is handed out once until it is given back; it lies inside the slab, which is registered for local use only (I1).
#![allow(unsafe_code)]

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use ibex_sys as sys;

use super::{Buf, MAX_MESSAGE, Mapping, MemoryError, Pages, Registration};
use crate::addr::Lkey;
use crate::pd::ProtectionDomain;

/// Blocks start on cache lines, so that two buffers never share one.
const ALIGN: usize = 64;

/// End of the free list.
const NONE: u32 = u32::MAX;

/// Options of a pool. Made by [`ProtectionDomain::pool`].
#[derive(Clone, Debug)]
pub struct PoolBuilder {
    pd: ProtectionDomain,
    block: usize,
    blocks: usize,
    pages: Pages,
}

impl PoolBuilder {
    pub(crate) fn new(pd: &ProtectionDomain) -> Self {
        Self { pd: pd.clone(), block: 64 * super::KIB, blocks: 64, pages: Pages::Normal }
    }

    /// Bytes of a buffer; 64 KiB unless set.
    #[must_use]
    pub fn block(mut self, bytes: usize) -> Self {
        self.block = bytes;
        self
    }

    /// Number of buffers; 64 unless set. All of them are pinned in memory at once.
    #[must_use]
    pub fn blocks(mut self, count: usize) -> Self {
        self.blocks = count;
        self
    }

    /// Kind of pages; ordinary ones unless set.
    #[must_use]
    pub fn pages(mut self, pages: Pages) -> Self {
        self.pages = pages;
        self
    }

    /// Maps and registers the slab.
    ///
    /// # Errors
    /// [`MemoryError::EmptyPool`], [`MemoryError::TooLarge`], [`MemoryError::Map`], [`MemoryError::Register`].
    pub fn build(self) -> Result<Pool, MemoryError> {
        let Self { pd, block, blocks, pages } = self;
        let count = u32::try_from(blocks).ok().filter(|&count| count > 0 && count < NONE);
        let (Some(count), 1..=MAX_MESSAGE) = (count, block) else {
            return Err(MemoryError::EmptyPool { block, blocks });
        };
        let stride = block.next_multiple_of(ALIGN);
        let bytes = stride.checked_mul(blocks).ok_or(MemoryError::TooLarge { bytes: usize::MAX })?;
        let slab = register(&pd, Mapping::new(bytes, pages, false)?)?;
        let next = (1..count).chain([NONE]).map(AtomicU32::new).collect();
        let base = slab.memory().base();
        let lkey = slab.lkey();
        let free = FreeList { head: AtomicU64::new(0), next };
        Ok(Pool { inner: Arc::new(Slab { base, lkey, block, stride, free, slab }) })
    }
}

/// Registers a mapping for local use.
fn register(pd: &ProtectionDomain, map: Mapping) -> Result<Registration<Mapping>, MemoryError> {
    let (addr, len) = (map.base().as_ptr(), map.len());
    // SAFETY: a mapping stays in place until dropped; local rights only (I1).
    unsafe { Registration::new(pd, map, addr, len, sys::IBV_ACCESS_LOCAL_WRITE) }
}

/// The slab and what is free of it.
pub(super) struct Slab {
    base: NonNull<u8>,
    pub(super) lkey: Lkey,
    pub(super) block: usize,
    stride: usize,
    free: FreeList,
    slab: Registration<Mapping>,
}

// SAFETY: the base is the address of the mapping, which is `Send`; nothing in it belongs to a thread.
unsafe impl Send for Slab {}
// SAFETY: the list of free blocks is lock-free, and hands each block to one party at a time.
unsafe impl Sync for Slab {}

impl Slab {
    /// Takes back the block at `addr`.
    pub(super) fn give_back(&self, addr: NonNull<u8>) {
        let offset = addr.addr().get() - self.base.addr().get();
        // There are fewer blocks than fit 32 bits.
        self.free.push((offset / self.stride) as u32);
    }
}

/// A stack of block numbers (Treiber's), with a count in the upper half of the head against reuse between a load and the
/// exchange that relies on it.
struct FreeList {
    head: AtomicU64,
    next: Box<[AtomicU32]>,
}

impl FreeList {
    fn pop(&self) -> Option<u32> {
        let mut head = self.head.load(Ordering::Acquire);
        loop {
            let top = head as u32;
            let below = self.next.get(top as usize)?.load(Ordering::Relaxed);
            let new = bump(head) | u64::from(below);
            match self.head.compare_exchange_weak(head, new, Ordering::Acquire, Ordering::Acquire) {
                Ok(_) => return Some(top),
                Err(now) => head = now,
            }
        }
    }

    fn push(&self, block: u32) {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            self.next[block as usize].store(head as u32, Ordering::Relaxed);
            let new = bump(head) | u64::from(block);
            match self.head.compare_exchange_weak(head, new, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Number of free blocks; exact while nobody takes or returns any.
    fn len(&self) -> usize {
        let mut count = 0;
        let mut at = self.head.load(Ordering::Acquire) as u32;
        while let Some(next) = self.next.get(at as usize) {
            count += 1;
            if count >= self.next.len() {
                break;
            }
            at = next.load(Ordering::Relaxed);
        }
        count
    }
}

/// The count of a head, one up, with no block.
fn bump(head: u64) -> u64 {
    (head & 0xffff_ffff_0000_0000).wrapping_add(1 << 32)
}

/// A pool of registered buffers. Clones share it; buffers keep it alive.
///
/// ```
/// # use ibex::prelude::*;
/// # fn main() -> ibex::Result<()> {
/// # let pd = Provider::Soft.devices()?[0].open()?.alloc_pd()?;
/// let pool = pd.pool().block(4 * KIB).blocks(16).build()?;
/// let mut buf = pool.take()?;
/// buf[..5].copy_from_slice(b"hello");
/// assert_eq!((buf.len(), pool.free()), (4096, 15));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Pool {
    inner: Arc<Slab>,
}

impl Pool {
    /// A buffer of full length. It holds what its last user left in it; zeros if there was none.
    ///
    /// # Errors
    /// [`MemoryError::PoolExhausted`] if all are in use.
    #[inline]
    pub fn take(&self) -> Result<Buf, MemoryError> {
        self.try_take().ok_or_else(|| MemoryError::PoolExhausted { blocks: self.blocks() })
    }

    /// A buffer of full length, or `None` if all are in use.
    #[inline]
    #[must_use]
    pub fn try_take(&self) -> Option<Buf> {
        let block = self.inner.free.pop()?;
        let offset = block as usize * self.inner.stride;
        Some(Buf::new(&self.inner, self.block_at(offset)))
    }

    /// The address `offset` bytes into the slab.
    fn block_at(&self, offset: usize) -> NonNull<u8> {
        debug_assert!(offset + self.inner.block <= self.inner.slab.memory().len());
        // SAFETY: every block lies inside the mapping.
        unsafe { self.inner.base.add(offset) }
    }

    /// A buffer with a copy of `bytes`, and of that length.
    ///
    /// # Errors
    /// [`MemoryError::TooLong`] if it does not fit, [`MemoryError::PoolExhausted`] if all are in use.
    pub fn take_from(&self, bytes: &[u8]) -> Result<Buf, MemoryError> {
        if bytes.len() > self.inner.block {
            return Err(MemoryError::TooLong { bytes: bytes.len(), capacity: self.inner.block });
        }
        let mut buf = self.take()?;
        buf.set_len(bytes.len());
        buf.copy_from_slice(bytes);
        Ok(buf)
    }

    /// Bytes of a buffer.
    #[must_use]
    pub fn block(&self) -> usize {
        self.inner.block
    }

    /// Number of buffers.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.inner.free.next.len()
    }

    /// Buffers not in use; only a hint while other threads take and return some.
    #[must_use]
    pub fn free(&self) -> usize {
        self.inner.free.len()
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("block", &self.block())
            .field("blocks", &self.blocks())
            .finish_non_exhaustive()
    }
}
