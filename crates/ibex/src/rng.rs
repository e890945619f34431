//! Unpredictable numbers for sequence numbers and handle generations.
//!
//! They are drawn from the standard library's per-process hash keys, which come from the kernel's generator. They
//! keep old packets out of new connections; they are not secrets.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// The next number.
pub(crate) fn next_u32() -> u32 {
    static DRAWN: AtomicU64 = AtomicU64::new(0);
    // Every `RandomState` of a thread differs from the last by one in its key; the counter keeps threads apart.
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u64(DRAWN.fetch_add(1, Ordering::Relaxed));
    hasher.write_u32(std::process::id());
    // The hash is uniform over 64 bits: any 32 of them will do.
    (hasher.finish() >> 32) as u32
}
