//! Walks over completions: taking them one by one, a few under one lock.
//!
//! Owns the order `ibv_start_poll`, `ibv_next_poll`, `ibv_end_poll` as `ibv_create_cq_ex(3)` has it. A walk holds no lock of the queue's while the program looks at a completion, so that the
//! program may post, and completions may arrive, in the middle of it.
//!
//! A completion counts as polled when the walk moves to it. Those a walk has taken and not moved to go back when it ends,
//! for which the ring keeps room.

use std::sync::atomic::Ordering;

use super::{Cq, Entry};

/// Most completions taken under one lock. More would save no measurable part of it.
pub(super) const BATCH: usize = 16;

/// The place of a walk.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    entries: [Entry; BATCH],
    /// The completion the program looks at.
    at: usize,
    len: usize,
    /// Completions the walk has moved to.
    seen: usize,
    /// Completions the last walk moved to: as many as this one is likely to.
    last: usize,
}

impl Walk {
    /// Moves to the oldest completion; false if there is none.
    #[inline]
    pub(crate) fn start(&mut self, cq: &Cq) -> bool {
        self.seen = 0;
        self.take(cq, self.last.clamp(1, BATCH))
    }

    /// Moves to the next completion if it is among those taken already, and all of them are still valid.
    #[inline]
    pub(crate) fn step(&mut self, cq: &Cq) -> bool {
        if self.at + 1 >= self.len || cq.purges.load(Ordering::Acquire) {
            return false;
        }
        self.at += 1;
        self.seen += 1;
        self.current().walked();
        true
    }

    /// Moves to the next completion; false if there is none, and then the place stays beyond the last.
    pub(crate) fn next(&mut self, cq: &Cq) -> bool {
        if cq.purges.load(Ordering::Acquire) {
            self.forget_purged(cq);
        }
        if self.step(cq) {
            return true;
        }
        self.len = 0;
        !cq.is_empty() && self.take(cq, BATCH)
    }

    /// Ends the walk.
    #[inline]
    pub(crate) fn end(&mut self, cq: &Cq) {
        self.last = self.seen;
        if self.at + 1 < self.len {
            self.give_back(cq);
        }
        self.len = 0;
    }

    /// The completion moved to last.
    #[inline]
    pub(crate) fn current(&self) -> &Entry {
        // The mask spares a check: `at` is always below the length.
        &self.entries[self.at % BATCH]
    }

    fn take(&mut self, cq: &Cq, most: usize) -> bool {
        let mut ring = cq.lock();
        let count = ring.len.min(most);
        for index in 0..count {
            let at = ring.slot(index);
            // The owner's old reference stays in the ring, so that none is counted.
            std::mem::swap(&mut self.entries[index], &mut ring.entries[at]);
        }
        ring.head = ring.slot(count);
        ring.len -= count;
        cq.waiting.store(ring.len, Ordering::Release);
        ring.lent = count > 1;
        if !ring.purged.is_empty() {
            ring.purged.clear();
            cq.purges.store(false, Ordering::Relaxed);
        }
        drop(ring);
        self.at = 0;
        self.len = count;
        if count == 0 {
            return false;
        }
        self.seen += 1;
        self.entries[0].walked();
        true
    }

    #[cold]
    fn give_back(&mut self, cq: &Cq) {
        self.forget_purged(cq);
        let mut ring = cq.lock();
        while self.at + 1 < self.len {
            self.len -= 1;
            ring.head = if ring.head == 0 { ring.entries.len() - 1 } else { ring.head - 1 };
            ring.len += 1;
            let head = ring.head;
            std::mem::swap(&mut self.entries[self.len], &mut ring.entries[head]);
        }
        ring.lent = false;
        cq.waiting.store(ring.len, Ordering::Release);
    }

    /// Drops the completions, taken and not moved to, of queue pairs that were destroyed or reset since.
    #[cold]
    fn forget_purged(&mut self, cq: &Cq) {
        let mut ring = cq.lock();
        let mut kept = self.at + 1;
        for index in self.at + 1..self.len {
            if ring.purged.contains(&self.entries[index].wc.qp_num) {
                self.entries[index].walked();
            } else {
                self.entries.swap(kept, index);
                kept += 1;
            }
        }
        self.len = kept.min(self.len);
        ring.purged.clear();
        cq.purges.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[path = "walk_tests.rs"]
mod tests;
