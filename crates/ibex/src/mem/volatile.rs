//! Access to memory that a peer or a device may change at the same time.
//!
//! Owns every load, store and copy of such memory (invariant I2): words by volatile access, ranges by a `memcpy` whose
//! address the compiler cannot know, so that it can assume nothing about the bytes and cannot merge, split or repeat
//! accesses on its own account. The opaque call costs one indirection and moves bytes as fast as `memcpy` does, where a
//! loop of volatile accesses is 6–8 times slower.
//!
//! # Safety
//! No function here makes a reference to the shared memory, and callers must not either. Copies promise nothing about
//! the order of bytes: publish them with [`store_u64`], observe them with [`load_u64`].
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::sync::atomic::{Ordering, fence};

/// The type of `memcpy`.
type Copy = unsafe extern "C" fn(*mut c_void, *const c_void, usize) -> *mut c_void;

/// Where the copy function is looked up, by a volatile load, each time.
static COPY: Copy = libc::memcpy;

/// The copy function, unknown to the compiler.
#[inline]
fn opaque_copy() -> Copy {
    // SAFETY: a valid, initialised, aligned static is read.
    unsafe { std::ptr::read_volatile(&raw const COPY) }
}

/// Copies `out.len()` bytes of shared memory at `from` to `out`.
///
/// # Safety
/// `from` must be mapped and readable for `out.len()` bytes, and no Rust reference to those bytes may exist.
#[inline]
pub(crate) unsafe fn copy_out(from: *const u8, out: &mut [u8]) {
    let copy = opaque_copy();
    // SAFETY: the caller's promise for `from`; `out` is exclusive, so the ranges cannot overlap.
    unsafe { copy(out.as_mut_ptr().cast(), from.cast(), out.len()) };
}

/// Copies `bytes` to shared memory at `to`.
///
/// # Safety
/// `to` must be mapped and writable for `bytes.len()` bytes, and no Rust reference to those bytes may exist.
#[inline]
pub(crate) unsafe fn copy_in(to: *mut u8, bytes: &[u8]) {
    let copy = opaque_copy();
    // SAFETY: the caller's promise for `to`; no reference to that memory exists, so `bytes` lies elsewhere.
    unsafe { copy(to.cast(), bytes.as_ptr().cast(), bytes.len()) };
}

/// Loads a word; everything that was visible to whoever stored it is visible afterwards.
///
/// # Safety
/// `from` must be mapped, readable and aligned to 8.
#[inline]
pub(crate) unsafe fn load_u64(from: *const u64) -> u64 {
    // SAFETY: the caller's promise.
    let word = unsafe { std::ptr::read_volatile(from) };
    fence(Ordering::Acquire);
    word
}

/// Stores a word; whoever sees it sees everything stored before.
///
/// # Safety
/// `to` must be mapped, writable and aligned to 8.
#[inline]
pub(crate) unsafe fn store_u64(to: *mut u64, word: u64) {
    fence(Ordering::Release);
    // SAFETY: the caller's promise.
    unsafe { std::ptr::write_volatile(to, word) };
}
