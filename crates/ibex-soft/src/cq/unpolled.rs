//! Completions of one queue of one queue pair that wait to be polled.
//!
//! Owns their count. Until they are polled their requests count as outstanding: so a program that has room for every request
//! of its queues cannot overflow its completion queue by posting. The counts of many queues lie together: a completion
//! queue's entry keeps a reference to those of the queue that used it last, and with thousands of queues in use each
//! reference of its own would be a line to fetch for a queue that has nothing to do with the completion.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Counts that lie together: one and a half kilobytes of them.
const CHUNK: usize = 128;

/// All wrap; a queue has far less than half of what they count to.
#[derive(Debug)]
struct Counts {
    added: AtomicU32,
    taken: AtomicU32,
    /// Taken, too, but without the completion queue's lock.
    walked: AtomicU32,
}

impl Counts {
    const fn new() -> Counts {
        Counts { added: AtomicU32::new(0), taken: AtomicU32::new(0), walked: AtomicU32::new(0) }
    }
}

/// The count of one queue; a clone counts the same.
#[derive(Clone, Debug)]
pub(crate) struct Unpolled {
    chunk: Arc<[Counts; CHUNK]>,
    /// Its place, which no other queue ever gets: entries may name it when it is gone.
    at: u32,
    /// Whether all go to one completion queue, whose lock keeps those that count apart.
    one_queue: bool,
}

/// Gives out counts for queues whose completions all go to one completion queue.
#[derive(Debug, Default)]
pub(super) struct Supply {
    next: Option<Unpolled>,
}

impl Supply {
    /// A count that nobody has had.
    pub(super) fn take(&mut self) -> Unpolled {
        let given = self.next.take().unwrap_or_else(|| Unpolled { one_queue: true, ..Unpolled::default() });
        let at = given.at + 1;
        self.next = ((at as usize) < CHUNK).then(|| Unpolled { at, ..given.clone() });
        given
    }
}

impl Default for Unpolled {
    /// That of a queue whose completions may go to several completion queues.
    fn default() -> Unpolled {
        Unpolled { chunk: Arc::new([const { Counts::new() }; CHUNK]), at: 0, one_queue: false }
    }
}

impl Unpolled {
    #[inline]
    fn counts(&self) -> &Counts {
        // The mask spares a check: places are below the length.
        &self.chunk[self.at as usize % CHUNK]
    }

    /// Where it is.
    pub(crate) fn address(&self) -> *const u8 {
        std::ptr::from_ref(self.counts()).cast()
    }

    /// How many.
    #[inline]
    pub(crate) fn count(&self) -> usize {
        let counts = self.counts();
        // In this order: of what was taken, all was added before.
        let taken = counts.taken.load(Ordering::Acquire).wrapping_add(counts.walked.load(Ordering::Acquire));
        counts.added.load(Ordering::Acquire).wrapping_sub(taken) as usize
    }

    /// Whether both count the same.
    #[inline]
    pub(super) fn is(&self, other: &Unpolled) -> bool {
        self.at == other.at && Arc::ptr_eq(&self.chunk, &other.chunk)
    }

    #[inline]
    pub(super) fn add(&self) {
        self.one_more(&self.counts().added);
    }

    /// With the completion queue's lock held.
    #[inline]
    pub(super) fn take(&self) {
        self.one_more(&self.counts().taken);
    }

    /// Without that lock.
    #[inline]
    pub(super) fn walk(&self) {
        self.counts().walked.fetch_add(1, Ordering::AcqRel);
    }

    #[inline]
    fn one_more(&self, count: &AtomicU32) {
        if self.one_queue {
            count.store(count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
        } else {
            count.fetch_add(1, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_from_one_supply_are_apart() {
        let mut supply = Supply::default();
        let counts: Vec<_> = (0..3 * CHUNK).map(|_| supply.take()).collect();
        for (index, count) in counts.iter().enumerate() {
            (0..index % 5).for_each(|_| count.add());
        }
        for (index, count) in counts.iter().enumerate() {
            assert_eq!(count.count(), index % 5);
            assert_eq!(counts.iter().filter(|other| other.is(count)).count(), 1);
        }
    }
}
