//! Queue pairs that wait for room on their link.
//!
//! Owns the list of them. A queue pair whose packets find the ring to its peer full keeps them, and is driven again by the
//! next round; the peer wakes a process that sleeps meanwhile. Should the peer have stopped, a timer drives the queue pair
//! until the link gives up, so that the transport's own timers start.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ibex_proto::Nanos;

/// Time between two tries that no round makes.
pub(crate) const RETRY_NS: Nanos = 2_000_000;

/// Queue pairs in a round that still find no room, before the others are left to the next one. Thousands may wait for one
/// reader; a few are asked so that one link does not hold up those that wait for another.
const IN_VAIN: usize = 4;

/// The list.
#[derive(Debug, Default)]
pub(super) struct Stalled {
    any: AtomicBool,
    list: Mutex<List>,
}

/// In the order they came, each once.
#[derive(Debug, Default)]
struct List {
    queue: VecDeque<u32>,
    members: HashSet<u32>,
}

impl Stalled {
    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a queue pair.
    pub(super) fn enter(&self, num: u32) {
        let mut list = self.lock();
        if list.members.insert(num) {
            list.queue.push_back(num);
        }
        self.any.store(true, Ordering::Release);
    }

    /// Has `drive` drive those that wait, which enters them again if there is no room, until some find none.
    #[inline]
    pub(super) fn each(&self, drive: impl FnMut(u32)) {
        if self.any.load(Ordering::Acquire) {
            self.drive_all(drive);
        }
    }

    #[cold]
    fn drive_all(&self, mut drive: impl FnMut(u32)) {
        let count = self.lock().queue.len();
        let mut in_vain = 0;
        for _ in 0..count {
            let Some(num) = self.take() else { break };
            drive(num);
            in_vain += usize::from(self.lock().members.contains(&num));
            if in_vain == IN_VAIN {
                break;
            }
        }
    }

    fn take(&self) -> Option<u32> {
        let mut list = self.lock();
        let num = list.queue.pop_front()?;
        list.members.remove(&num);
        self.any.store(!list.queue.is_empty(), Ordering::Release);
        Some(num)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Once each poll drove all that waited, ten thousand for one slow reader.
    #[test]
    fn a_full_ring_is_tried_a_few_times_a_round_and_each_has_its_turn() {
        let stalled = Stalled::default();
        (0..10).chain(0..10).for_each(|num| stalled.enter(num));
        let mut driven = Vec::new();
        for _ in 0..5 {
            let before = driven.len();
            stalled.each(|num| {
                driven.push(num);
                stalled.enter(num);
            });
            assert_eq!(driven.len() - before, IN_VAIN);
        }
        assert_eq!(driven, (0..10).cycle().take(20).collect::<Vec<_>>());
        let mut rest = 0;
        stalled.each(|_| rest += 1);
        stalled.each(|_| rest += 1);
        assert_eq!(rest, 10, "where there is room all go on at once");
    }
}
