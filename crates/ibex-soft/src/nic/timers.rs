//! The queue of times at which queue pairs want to be looked at.
//!
//! Owns order only. A queue pair enters at most one entry earlier than the one it has; an entry that turns out to be too
//! early costs one look, since deadlines move with every acknowledgement and the queue is not told.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use ibex_proto::Nanos;

/// Deadlines, soonest first.
#[derive(Debug, Default)]
pub(super) struct Timers {
    queue: BinaryHeap<Reverse<(Nanos, u32)>>,
}

impl Timers {
    /// Enters a queue pair.
    pub(super) fn add(&mut self, due: Nanos, qp: u32) {
        self.queue.push(Reverse((due, qp)));
    }

    /// The soonest deadline.
    pub(super) fn next(&self) -> Option<Nanos> {
        self.queue.peek().map(|Reverse((due, _))| *due)
    }

    /// Takes out a queue pair whose time has come.
    pub(super) fn take_due(&mut self, now: Nanos) -> Option<u32> {
        if self.next()? > now {
            return None;
        }
        self.queue.pop().map(|Reverse((_, qp))| qp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_out_when_due_soonest_first() {
        let mut timers = Timers::default();
        timers.add(30, 3);
        timers.add(10, 1);
        timers.add(20, 2);
        assert_eq!(timers.next(), Some(10));
        assert_eq!(timers.take_due(9), None);
        assert_eq!(timers.take_due(25), Some(1));
        assert_eq!(timers.take_due(25), Some(2));
        assert_eq!(timers.take_due(25), None);
        assert_eq!(timers.next(), Some(30));
    }
}
