//! The memory of a sequence, and margins around it that nobody may touch.
//!
//! # Safety
//! The mapping lives until every object of the sequence is gone, and is reached by raw accesses only: work requests write to it
//! at any time.
#![allow(unsafe_code)]

use std::ptr::NonNull;

/// Bytes that are never registered, at either end.
pub(super) const MARGIN: usize = 1 << 14;
/// Bytes in the middle.
pub(super) const MIDDLE: usize = 1 << 17;
const WHOLE: usize = MIDDLE + 2 * MARGIN;
/// What the margins hold.
const CANARY: u8 = 0xc5;

/// The memory.
pub(super) struct Arena(NonNull<u8>);

impl Arena {
    pub(super) fn new() -> Self {
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: mmap(2): a new private mapping, no address asked for.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), WHOLE, rights, flags, -1, 0) };
        assert_ne!(base, libc::MAP_FAILED, "cannot map {WHOLE} bytes");
        let base = NonNull::new(base.cast::<u8>()).expect("mmap without MAP_FIXED never maps address 0");
        for start in [0, WHOLE - MARGIN] {
            // SAFETY: inside the mapping.
            let at = unsafe { base.add(start) };
            // SAFETY: `MARGIN` bytes from there are inside the mapping; nothing is registered yet.
            unsafe { at.write_bytes(CANARY, MARGIN) };
        }
        Self(base)
    }

    /// The address of byte `offset` of the middle; may be outside of it.
    pub(super) fn at(&self, offset: u64) -> u64 {
        (self.0.as_ptr() as u64).wrapping_add(MARGIN as u64).wrapping_add(offset)
    }

    /// Whether a range is inside the middle.
    pub(super) fn holds(&self, addr: u64, len: u64) -> bool {
        let start = self.at(0);
        addr >= start && addr.checked_add(len).is_some_and(|end| end <= start + MIDDLE as u64)
    }

    /// Nobody has touched the margins.
    pub(super) fn check(&self) {
        for start in [0, WHOLE - MARGIN] {
            for offset in start..start + MARGIN {
                // SAFETY: inside the mapping.
                let at = unsafe { self.0.add(offset) };
                // SAFETY: inside the mapping, which is readable.
                let byte = unsafe { at.read_volatile() };
                assert_eq!(byte, CANARY, "byte {offset}, which was never registered, has changed");
            }
        }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`; the world drops it after everything that could reach it.
        unsafe { libc::munmap(self.0.as_ptr().cast(), WHOLE) };
    }
}
