//! Registered memory of a test: a private mapping, read and written by copies only, since a device may be at it.
//!
//! # Safety
//! The mapping lives from [`Region::new`] until its drop, which deregisters first (F3). Offsets are checked before
//! each access; no reference into the mapping is ever made (I2).

#![allow(unsafe_code)]

use std::ptr::NonNull;

use ibex_sys::{ibv_access_flags, ibv_mr};

use super::{Pd, Sge};

/// Registered memory.
#[derive(Debug)]
pub struct Region {
    base: NonNull<u8>,
    len: usize,
    mapped: usize,
    mr: *mut ibv_mr,
    pd: Pd,
}

// SAFETY: the mapping is reached by volatile copies only, from whichever thread; the region's handle is opaque.
unsafe impl std::marker::Send for Region {}
// SAFETY: as above; concurrent copies may tear, which tests avoid by waiting for completions.
unsafe impl Sync for Region {}

impl Region {
    /// Maps and registers `len` bytes (zeros).
    ///
    /// # Panics
    /// When the system or the device refuses.
    pub fn new(pd: &Pd, len: usize, access: ibv_access_flags) -> Self {
        Self::try_new(pd, len, access)
            .unwrap_or_else(|errno| panic!("cannot register {len} bytes: errno {errno}"))
    }

    /// Maps and registers `len` bytes, or gives the device's errno.
    ///
    /// # Errors
    /// The errno of `ibv_reg_mr`.
    pub fn try_new(pd: &Pd, len: usize, access: ibv_access_flags) -> Result<Self, i32> {
        let mapped = len.max(1).next_multiple_of(4096);
        // SAFETY: mmap(2): a new private mapping, no address asked for.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                mapped,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(base, libc::MAP_FAILED, "cannot map {mapped} bytes");
        let base = NonNull::new(base.cast::<u8>()).expect("mmap without MAP_FIXED never maps address 0");
        // SAFETY: the mapping outlives the registration: drop deregisters first (F3).
        let mr = unsafe { pd.reg_mr(base.as_ptr().cast(), len, access) };
        match mr {
            Ok(mr) => Ok(Self { base, len, mapped, mr, pd: pd.clone() }),
            Err(errno) => {
                // SAFETY: nothing was registered, nobody else knows the mapping.
                unsafe { libc::munmap(base.as_ptr().cast(), mapped) };
                Err(errno)
            }
        }
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The address of its first byte, as work requests name it.
    pub fn addr(&self) -> u64 {
        self.base.as_ptr() as u64
    }

    /// The C object.
    pub(super) fn as_ptr(&self) -> *mut ibv_mr {
        self.mr
    }

    /// Tries to deregister the region while windows are bound to it.
    ///
    /// # Panics
    /// When the device agrees.
    pub fn deregister_must_fail(&self) {
        // SAFETY: a live region; a window of the caller's is bound to it, so that the device has to refuse.
        let done = unsafe { self.pd.dereg_mr(self.mr) };
        assert!(done.is_err(), "a region with a window bound to it was deregistered");
    }

    /// The local key.
    pub fn lkey(&self) -> u32 {
        // SAFETY: ibv_reg_mr(3): the handle is valid until ibv_dereg_mr.
        unsafe { (*self.mr).lkey }
    }

    /// The remote key.
    pub fn rkey(&self) -> u32 {
        // SAFETY: ibv_reg_mr(3): the handle is valid until ibv_dereg_mr.
        unsafe { (*self.mr).rkey }
    }

    /// A scatter/gather entry for a part of the region. Not checked: tests name ranges outside of it on purpose.
    pub fn sge(&self, offset: u64, len: u32) -> Sge {
        Sge { addr: self.addr().wrapping_add(offset), len, lkey: self.lkey() }
    }

    /// Copies bytes in.
    ///
    /// # Panics
    /// When they do not fit.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.len, "write outside of the region");
        for (index, byte) in bytes.iter().enumerate() {
            // SAFETY: within the mapping by the check above.
            let at = unsafe { self.base.add(offset + index) };
            // SAFETY: mapped and writable; volatile, since a device may look at it (I2).
            unsafe { at.write_volatile(*byte) };
        }
    }

    /// Copies bytes out.
    ///
    /// # Panics
    /// When the range leaves the region.
    pub fn read(&self, offset: usize, len: usize) -> Vec<u8> {
        assert!(offset + len <= self.len, "read outside of the region");
        (offset..offset + len)
            .map(|index| {
                // SAFETY: within the mapping by the check above.
                let at = unsafe { self.base.add(index) };
                // SAFETY: mapped and readable; volatile, since a device may be writing (I2).
                unsafe { at.read_volatile() }
            })
            .collect()
    }

    /// The eight bytes at `offset`, which is a multiple of eight.
    ///
    /// # Panics
    /// When they leave the region.
    #[inline]
    pub fn word(&self, offset: usize) -> u64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.len, "no word of the region");
        // SAFETY: within the mapping by the check above.
        let at = unsafe { self.base.add(offset) };
        // SAFETY: mapped, readable and aligned; volatile, since a device may be writing (I2).
        unsafe { at.cast::<u64>().read_volatile() }
    }

    /// Puts eight bytes at `offset`, which is a multiple of eight.
    ///
    /// # Panics
    /// When they leave the region.
    #[inline]
    pub fn set_word(&self, offset: usize, word: u64) {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.len, "no word of the region");
        // SAFETY: within the mapping by the check above.
        let at = unsafe { self.base.add(offset) };
        // SAFETY: mapped, writable and aligned; volatile, since a device may look at it (I2).
        unsafe { at.cast::<u64>().write_volatile(word) };
    }

    /// Fills the whole region with one byte.
    pub fn fill(&self, byte: u8) {
        self.write(0, &vec![byte; self.len]);
    }

    /// Deregisters and unmaps; gives the errno when the device refuses, and then leaks the mapping.
    ///
    /// # Errors
    /// The errno of `ibv_dereg_mr`.
    pub fn close(mut self) -> Result<(), i32> {
        self.release()
    }

    fn release(&mut self) -> Result<(), i32> {
        let mr = std::mem::replace(&mut self.mr, std::ptr::null_mut());
        if mr.is_null() {
            return Ok(());
        }
        // SAFETY: registered in `try_new`; taken out above, so that it is released once.
        unsafe { self.pd.dereg_mr(mr) }?;
        // SAFETY: deregistered, so that no device reaches it any more (F3); nobody else knows the mapping.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.mapped) };
        Ok(())
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // A refusal leaks the mapping: the device may still write it.
        let _ = self.release();
    }
}

/// `len` bytes that depend on the seed and on the position, so that a shifted or stale payload shows.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}
