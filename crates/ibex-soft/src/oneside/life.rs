//! Whether a process still lives, told by the kernel in shared memory.
//!
//! Owns a robust lock in the publication, which the device's thread holds for as long as it runs. When the thread ends
//! without giving it back, as it does when the process is killed, the kernel marks the lock. So a peer learns of the end by
//! one load, before it touches memory that nobody has any more.
//!
//! Read first: set_robust_list(2), pthread_mutexattr_setrobust(3), pthread_mutexattr_setpshared(3).
//!
//! # Safety
//! The lock stands in a mapping that outlives every [`Life`]; only the owner's thread locks and unlocks it. Its first word is
//! the futex that the kernel marks: part of the C library's interface with programs that were built before.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::sync::atomic::Ordering;

use super::tables::{LIFE_AT, Tables};
use crate::host::segment::ReadOnly;

/// The thread's number while the lock is held, and the kernel's mark: `FUTEX_TID_MASK`, `FUTEX_OWNER_DIED`.
const HOLDER: u64 = 0x3fff_ffff;
const DIED: u64 = 0x4000_0000;

/// The lock, held by the calling thread, which alone can give it back.
pub(crate) struct Life<'a> {
    lock: *mut libc::pthread_mutex_t,
    tables: PhantomData<&'a Tables>,
}

impl<'a> Life<'a> {
    /// Peers see this process as alive until this is dropped, or the calling thread ends. `None` if the system has no such
    /// locks; then peers do not see it as alive, and send packets.
    pub(super) fn begin(tables: &'a Tables) -> Option<Life<'a>> {
        let lock: *mut libc::pthread_mutex_t =
            std::ptr::with_exposed_provenance_mut(tables.word(LIFE_AT).as_ptr().expose_provenance());
        let mut attributes = MaybeUninit::uninit();
        let attributes: *mut libc::pthread_mutexattr_t = attributes.as_mut_ptr();
        // SAFETY: room for attributes, which this initialises.
        if unsafe { libc::pthread_mutexattr_init(attributes) } != 0 {
            return None;
        }
        // SAFETY: initialised attributes.
        let shared = unsafe { libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED) };
        // SAFETY: as above.
        let robust = unsafe { libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST) };
        // SAFETY: zeroed memory of the mapping, a page for a lock of 40 bytes, which no thread uses yet.
        let made = unsafe { libc::pthread_mutex_init(lock, attributes) };
        // SAFETY: initialised attributes.
        unsafe { libc::pthread_mutexattr_destroy(attributes) };
        // SAFETY: an initialised lock that nobody holds, if it came to that.
        let held = shared == 0 && robust == 0 && made == 0 && unsafe { libc::pthread_mutex_lock(lock) } == 0;
        held.then_some(Life { lock, tables: PhantomData })
    }
}

impl Drop for Life<'_> {
    fn drop(&mut self) {
        // SAFETY: held by this thread: the type cannot be sent to another.
        unsafe { libc::pthread_mutex_unlock(self.lock) };
    }
}

/// Whether the process that publishes `tables` lives.
#[inline]
pub(super) fn is_alive(tables: &ReadOnly) -> bool {
    // On big-endian machines the futex would be the upper half.
    let word = tables.load(LIFE_AT, Ordering::Relaxed);
    let futex = if cfg!(target_endian = "little") { word & 0xffff_ffff } else { word >> 32 };
    futex & HOLDER != 0 && futex & DIED == 0
}
