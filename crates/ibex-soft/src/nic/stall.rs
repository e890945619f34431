//! Queue pairs that wait for room on their link.
//!
//! Owns the list of them. A queue pair whose packets find the ring to its peer full keeps them, and is driven again by the
//! next round; the peer wakes a process that sleeps meanwhile. Should the peer have stopped, a timer drives the queue pair
//! until the link gives up, so that the transport's own timers start.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use ibex_proto::Nanos;

/// Time between two tries that no round makes.
pub(crate) const RETRY_NS: Nanos = 2_000_000;

/// The list.
#[derive(Debug, Default)]
pub(super) struct Stalled {
    any: AtomicBool,
    list: Mutex<BTreeSet<u32>>,
}

impl Stalled {
    /// Enters a queue pair.
    pub(super) fn enter(&self, num: u32) {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).insert(num);
        self.any.store(true, Ordering::Release);
    }

    /// Takes the list, in the order of the numbers.
    #[inline]
    pub(super) fn take(&self) -> BTreeSet<u32> {
        if !self.any.load(Ordering::Acquire) {
            return BTreeSet::new();
        }
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        self.any.store(false, Ordering::Release);
        std::mem::take(&mut *list)
    }
}
