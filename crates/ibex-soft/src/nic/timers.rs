//! The queue of times at which queue pairs, and moderated completion queues, want to be looked at.
//!
//! Owns order only. A queue pair has one entry at most: a sooner one takes the place of the one it has, so that a peer
//! which makes it wait briefly again and again (RNR) adds nothing. An entry that turns out to be too early costs one look,
//! since deadlines move with every acknowledgement and the queue is not told.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::sync::Weak;

use ibex_proto::Nanos;

use crate::cq::Cq;

/// Deadlines, soonest first.
#[derive(Debug, Default)]
pub(super) struct Timers {
    queue: BTreeSet<(Nanos, u32)>,
    /// Completion queues whose events are held back; one that needs it no more is looked at in vain.
    alarms: BinaryHeap<Alarm>,
}

/// A completion queue and when to look at it; the soonest is the greatest.
#[derive(Debug)]
struct Alarm(Reverse<Nanos>, Weak<Cq>);

impl PartialEq for Alarm {
    fn eq(&self, other: &Alarm) -> bool {
        self.0 == other.0
    }
}

impl Eq for Alarm {}

impl PartialOrd for Alarm {
    fn partial_cmp(&self, other: &Alarm) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Alarm {
    fn cmp(&self, other: &Alarm) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

impl Timers {
    /// Enters a queue pair, whose entry so far is for `before` if it has one.
    pub(super) fn enter(&mut self, before: Nanos, due: Nanos, qp: u32) {
        self.queue.remove(&(before, qp));
        self.queue.insert((due, qp));
    }

    /// Takes out the entry of a queue pair that is going, if it has one for `due`.
    pub(super) fn remove(&mut self, due: Nanos, qp: u32) {
        self.queue.remove(&(due, qp));
    }

    /// The soonest deadline.
    pub(super) fn next(&self) -> Option<Nanos> {
        let alarm = self.alarms.peek().map(|alarm| alarm.0.0);
        self.next_qp().into_iter().chain(alarm).min()
    }

    fn next_qp(&self) -> Option<Nanos> {
        self.queue.first().map(|&(due, _)| due)
    }

    /// Enters a completion queue.
    pub(super) fn enter_alarm(&mut self, due: Nanos, cq: Weak<Cq>) {
        self.alarms.push(Alarm(Reverse(due), cq));
    }

    /// Takes out a completion queue whose time has come.
    pub(super) fn take_alarm(&mut self, now: Nanos) -> Option<Weak<Cq>> {
        if self.alarms.peek()?.0.0 > now {
            return None;
        }
        self.alarms.pop().map(|alarm| alarm.1)
    }

    /// Takes out a queue pair whose time has come.
    pub(super) fn take_due(&mut self, now: Nanos) -> Option<u32> {
        if self.next_qp()? > now {
            return None;
        }
        self.queue.pop_first().map(|(_, qp)| qp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_out_when_due_soonest_first() {
        let mut timers = Timers::default();
        timers.enter(Nanos::MAX, 30, 3);
        timers.enter(Nanos::MAX, 10, 1);
        timers.enter(Nanos::MAX, 20, 2);
        assert_eq!(timers.next(), Some(10));
        assert_eq!(timers.take_due(9), None);
        assert_eq!(timers.take_due(25), Some(1));
        assert_eq!(timers.take_due(25), Some(2));
        assert_eq!(timers.take_due(25), None);
        assert_eq!(timers.next(), Some(30));
    }

    #[test]
    fn a_queue_pair_that_waits_briefly_again_and_again_has_one_entry() {
        let mut timers = Timers::default();
        let far = 1_000_000;
        let mut entry = Nanos::MAX;
        for now in (0..10_000).step_by(10) {
            // The retransmission timer, then a short wait before it, which passes.
            timers.enter(entry, now + far, 7);
            timers.enter(now + far, now + 5, 7);
            assert_eq!(timers.queue.len(), 1);
            assert_eq!(timers.take_due(now + 5), Some(7));
            entry = Nanos::MAX;
        }
        assert_eq!(timers.next(), None);
        timers.enter(entry, far, 7);
        timers.remove(far, 7);
        assert_eq!(timers.next(), None);
    }
}
