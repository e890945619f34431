//! An extension of this device: which links it has.
//!
//! Owns the C side; the links are [`crate::net`]'s.
//!
//! # Safety
//! As `object`.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int};
use std::time::{Duration, Instant};

use ibex_sys::ibv_context;

use super::context::shared;
use super::object::{given, minus_one};

/// How long processes on the same address have for an answer: one that sleeps is woken for it, one that computes without
/// polling leaves it to its thread, which looks in every few milliseconds.
const PATIENCE: Duration = Duration::from_millis(50);

/// Extension of this device: writes a text about its links; its length, or −1.
///
/// # Safety
/// `context` is open; `size` bytes at `buf` are writable.
pub unsafe extern "C" fn describe_links(context: *mut ibv_context, buf: *mut c_char, size: usize) -> c_int {
    minus_one(|| {
        // SAFETY: the caller's promise.
        let nic = unsafe { shared(context) }?.nic()?;
        let buf = given(buf)?;
        let room = size.checked_sub(1).ok_or(libc::EINVAL)?;
        let deadline = Instant::now() + PATIENCE;
        while nic.wire.greet_neighbours() && Instant::now() < deadline {
            nic.progress();
            std::thread::sleep(Duration::from_millis(1));
        }
        let text = nic.wire.describe_links();
        let len = text.len().min(room).min(c_int::MAX as usize);
        // SAFETY: `size` bytes are writable (caller), of which `len` and one more are written.
        unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), buf.cast(), len) };
        // SAFETY: as above.
        unsafe { *buf.wrapping_add(len) = 0 }
        Ok(len as c_int)
    })
}
