//! The times at which queue pairs, and moderated completion queues, want to be looked at.
//!
//! Owns order only. A queue pair's deadline moves with every request and every acknowledgement, thousands of times for each
//! time that it comes. So each queue pair has a word of its own, in blocks of words that lie together, and writes its
//! deadline there; the thread that watches over them reads whole blocks, without a look at queue pairs that want none. What
//! a queue pair that moves its deadline away pays is one store.
//!
//! With many queue pairs and short messages even that is too much, since one entered anew may have to wake the thread. There a
//! queue pair only says that it rests: it has nothing outstanding, and needs no look if its deadline comes. The thread sees
//! that beside the deadline and lets it pass, for a while: a queue pair that goes on has the deadline it had, without
//! having entered one. It may be seen resting although it has just gone on, and is looked at up to [`LATE`] later then.
//!
//! Each block has a bound that none of its deadlines is sooner than, those of queue pairs seen resting excepted, by which the
//! thread knows when to read it. Whoever enters a deadline that is sooner than the one before stores it and then reads the bound; the thread takes the bound back
//! and then reads the deadlines; all of this in one order (`SeqCst`), so that one of the two sees the other.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use ibex_proto::Nanos;

use crate::cq::Cq;

/// Deadlines in a block: reading them all takes about as long as one look at a queue pair that is not in the cache.
const BLOCK: usize = 256;

/// How long a queue pair that rests is let off, nanoseconds, and how often between two looks at it; by the second it loses its
/// deadline: the thread would read them for ever.
pub(crate) const LATE: Nanos = 4_000_000;
const SPARED: u8 = 32;

/// Deadlines that lie together.
#[derive(Debug)]
struct Block {
    /// No deadline is sooner.
    bound: AtomicU64,
    /// Places in use.
    used: AtomicU32,
    /// `Nanos::MAX` for none.
    due: [AtomicU64; BLOCK],
    /// Whether its queue pair rests.
    rests: [AtomicBool; BLOCK],
    /// Whose each is, a queue pair number; 0 for nobody's.
    owner: [AtomicU32; BLOCK],
    /// How often each has been let off, and when that is to be counted again; the thread's.
    spared: [AtomicU8; BLOCK],
    count_at: AtomicU64,
}

/// A queue pair's place, which it gives up when it is dropped.
#[derive(Debug)]
pub(crate) struct Timer {
    block: Arc<Block>,
    at: u8,
}

/// Deadlines.
#[derive(Debug, Default)]
pub(super) struct Timers {
    blocks: Vec<Arc<Block>>,
    /// Queue pairs whose time has come, and which have been taken out of their blocks.
    ready: Vec<u32>,
    /// Completion queues whose events are held back, soonest first; one that needs it no more is looked at in vain.
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

impl Block {
    fn new() -> Block {
        Block {
            bound: AtomicU64::new(Nanos::MAX),
            used: AtomicU32::new(0),
            due: [const { AtomicU64::new(Nanos::MAX) }; BLOCK],
            rests: [const { AtomicBool::new(false) }; BLOCK],
            owner: [const { AtomicU32::new(0) }; BLOCK],
            spared: [const { AtomicU8::new(0) }; BLOCK],
            count_at: AtomicU64::new(0),
        }
    }

    /// Takes out what is due, and finds the bound of what stays.
    fn take_due(&self, now: Nanos, ready: &mut Vec<u32>) {
        self.bound.store(Nanos::MAX, Ordering::SeqCst);
        let mut bound = Nanos::MAX;
        let later = now.saturating_add(LATE);
        let counts = self.count_at.load(Ordering::Relaxed) <= now;
        if counts {
            self.count_at.store(later, Ordering::Relaxed);
        }
        for (at, (due, owner)) in self.due.iter().zip(&self.owner).enumerate() {
            let soonest = due.load(Ordering::SeqCst);
            if soonest > later {
                bound = bound.min(soonest);
                continue;
            }
            let spared = self.spared[at].load(Ordering::Relaxed);
            if spared < SPARED && self.rests[at].load(Ordering::Relaxed) {
                self.spared[at].store(spared + u8::from(counts), Ordering::Relaxed);
                bound = bound.min(later);
                continue;
            }
            if soonest > now {
                bound = bound.min(soonest);
                continue;
            }
            self.spared[at].store(0, Ordering::Relaxed);
            // What its queue pair enters at this moment may be lost: it is looked at next, and then enters it anew.
            due.store(Nanos::MAX, Ordering::SeqCst);
            ready.push(owner.load(Ordering::Relaxed));
        }
        self.bound.fetch_min(bound, Ordering::SeqCst);
    }
}

impl Timer {
    /// The deadline is at `due` now, sooner than before; true if the thread may be going to look only later.
    pub(super) fn advance(&self, due: Nanos) -> bool {
        self.block.due[usize::from(self.at)].store(due, Ordering::SeqCst);
        let late = due < self.block.bound.load(Ordering::SeqCst);
        if late {
            self.block.bound.fetch_min(due, Ordering::SeqCst);
        }
        late
    }

    /// The queue pair rests.
    #[inline]
    pub(crate) fn rest(&self) {
        self.block.rests[usize::from(self.at)].store(true, Ordering::Relaxed);
    }

    /// It goes on; whether it rested.
    #[inline]
    pub(crate) fn wake(&self) -> bool {
        let rests = &self.block.rests[usize::from(self.at)];
        let rested = rests.load(Ordering::Relaxed);
        // The line is shared with others.
        if rested {
            rests.store(false, Ordering::Relaxed);
        }
        rested
    }

    /// The deadline is at `due` now, later than before, or `Nanos::MAX` for none.
    #[inline]
    pub(crate) fn put_off(&self, due: Nanos) {
        // The thread may still see the one before, and looks in vain.
        self.block.due[usize::from(self.at)].store(due, Ordering::Relaxed);
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.put_off(Nanos::MAX);
        self.wake();
        self.block.owner[usize::from(self.at)].store(0, Ordering::Release);
        self.block.used.fetch_sub(1, Ordering::Release);
    }
}

impl Timers {
    /// A place for queue pair `owner`, which is not 0.
    pub(super) fn add(&mut self, owner: u32) -> Timer {
        // The newest first: the others have free places only after many queue pairs were destroyed.
        let with_room = |block: &&Arc<Block>| block.used.load(Ordering::Acquire) < BLOCK as u32;
        let block = match self.blocks.iter().rev().find(with_room) {
            Some(block) => block.clone(),
            None => {
                let block = Arc::new(Block::new());
                self.blocks.push(block.clone());
                block
            }
        };
        let used = block.used.fetch_add(1, Ordering::Relaxed) as usize;
        // Mostly the first one tried.
        let free = |&at: &usize| block.owner[at].load(Ordering::Acquire) == 0;
        // Invariant: owners are fewer than places in use, which were fewer than there are.
        let at = (used..BLOCK).chain(0..used).find(free).expect("a place is free");
        block.owner[at].store(owner, Ordering::Relaxed);
        block.spared[at].store(0, Ordering::Relaxed);
        // Below the length of a block.
        Timer { block, at: at as u8 }
    }

    /// A time that no deadline is sooner than; the thread may sleep until then.
    pub(super) fn next(&self) -> Option<Nanos> {
        let alarm = self.alarms.peek().map(|alarm| alarm.0.0);
        self.next_qp().into_iter().chain(alarm).min()
    }

    fn next_qp(&self) -> Option<Nanos> {
        if !self.ready.is_empty() {
            return Some(0);
        }
        let bounds = self.blocks.iter().map(|block| block.bound.load(Ordering::SeqCst));
        bounds.min().filter(|&due| due != Nanos::MAX)
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

    /// Takes out a queue pair whose time has come. It has no deadline then, and has to be looked at: it enters the next
    /// one itself.
    pub(super) fn take_due(&mut self, now: Nanos) -> Option<u32> {
        if self.ready.is_empty() && self.next_qp()? <= now {
            // Bounds are mostly those of deadlines that have been moved: with one look at all of them the thread can
            // sleep until the soonest there is, and does not wake for each.
            for block in &self.blocks {
                block.take_due(now, &mut self.ready);
            }
        }
        self.ready.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_out_when_due_soonest_first() {
        let mut timers = Timers::default();
        let [three, one, two] = [3, 1, 2].map(|owner| timers.add(owner));
        assert!(three.advance(30));
        assert!(one.advance(10));
        assert!(!two.advance(20), "the thread looks before that");
        assert_eq!(timers.next(), Some(10));
        assert_eq!(timers.take_due(9), None);
        assert_eq!(timers.take_due(15), Some(1));
        assert_eq!(timers.take_due(15), None);
        assert_eq!(timers.next(), Some(20));
        assert_eq!(timers.take_due(25), Some(2));
        assert_eq!(timers.take_due(25), None);
        assert_eq!(timers.next(), Some(30));
    }

    #[test]
    fn a_deadline_that_was_moved_wakes_once_and_finds_nothing() {
        let mut timers = Timers::default();
        let timer = timers.add(7);
        for now in (0..10_000).step_by(10) {
            timer.advance(now + 5);
            timer.put_off(now + 1_000_000);
            assert_eq!(timers.take_due(now + 5), None);
            assert_eq!(timers.next(), Some(now + 1_000_000));
        }
        timer.put_off(Nanos::MAX);
        assert_eq!(timers.take_due(2_000_000), None);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn places_are_used_again_and_nothing_is_left_in_them() {
        let mut timers = Timers::default();
        let mut held: Vec<_> = (1..=3 * BLOCK as u32).map(|owner| timers.add(owner)).collect();
        assert_eq!(timers.blocks.len(), 3);
        for timer in &held {
            timer.advance(5);
        }
        held.retain(|timer| timer.at % 2 == 0);
        for owner in 1..=BLOCK as u32 {
            held.push(timers.add(10_000 + owner));
        }
        assert_eq!(timers.blocks.len(), 3);
        let mut due: Vec<_> = std::iter::from_fn(|| timers.take_due(5)).collect();
        due.sort_unstable();
        assert_eq!(due, (1..=3 * BLOCK as u32).step_by(2).collect::<Vec<_>>());
    }

    /// Neither does a queue pair that rests cost a look each time, nor the thread for ever.
    #[test]
    fn a_queue_pair_that_rests_is_let_off_for_a_while() {
        let mut timers = Timers::default();
        let (one, two) = (timers.add(1), timers.add(2));
        one.advance(10);
        one.rest();
        let mut now = 10;
        for _ in 1..SPARED {
            assert_eq!(timers.take_due(now), None);
            // Other deadlines that come meanwhile do not count.
            two.advance(now + 1);
            assert_eq!((timers.take_due(now + 1), timers.take_due(now + 1)), (Some(2), None));
            let next = timers.next().expect("it is not forgotten");
            assert!((now + LATE..=now + 1 + LATE).contains(&next));
            now = next;
        }
        assert_eq!(timers.take_due(now), None, "once more");
        now += LATE;
        assert_eq!((timers.take_due(now), timers.take_due(now)), (Some(1), None));
        assert_eq!(timers.next(), None, "nothing is left to wake for");
        // The next time it is let off as often, and so is who has its place.
        one.advance(now + 1);
        one.rest();
        for _ in 0..SPARED {
            now += LATE;
            assert_eq!(timers.take_due(now), None);
        }
        drop(one);
        let next = timers.add(3);
        next.advance(now);
        next.rest();
        assert_eq!(timers.take_due(now + LATE), None);
    }

    /// Its deadline has not been entered anew: it still counts.
    #[test]
    fn a_queue_pair_that_goes_on_after_its_rest_is_looked_at() {
        for pause in [0, 1, LATE - 1, LATE, 5 * LATE] {
            let mut timers = Timers::default();
            let timer = timers.add(1);
            timer.advance(LATE);
            timer.rest();
            let mut now = LATE / 2;
            assert_eq!(timers.take_due(now), None);
            now += pause;
            let took = timers.take_due(now);
            assert!(took.is_none() && timer.wake() && !timer.wake());
            let due = timers.next().expect("a look");
            assert!(due <= now.max(LATE) + LATE, "{pause}: {due}");
            assert_eq!(timers.take_due(due), Some(1), "{pause}");
            assert_eq!(timers.next(), None);
        }
    }

    /// Whoever enters a deadline while the thread reads the blocks: neither misses it.
    #[test]
    fn a_deadline_entered_during_a_look_is_found_or_announced() {
        let mut timers = Timers::default();
        let timer = timers.add(7);
        let rounds = 20_000;
        let entered = AtomicU64::new(0);
        let taken = AtomicU64::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 1..=rounds {
                    timer.advance(round);
                    entered.store(round, Ordering::SeqCst);
                    while taken.load(Ordering::SeqCst) < round {
                        std::hint::spin_loop();
                    }
                }
            });
            for round in 1..=rounds {
                while timers.take_due(round).is_none() {
                    // Once it has been entered it is to be seen.
                    let due = entered.load(Ordering::SeqCst) >= round;
                    if due && timers.next().is_none_or(|next| next > round) {
                        taken.store(rounds, Ordering::SeqCst);
                        panic!("lost in round {round}");
                    }
                    // A look that finds nothing, as at other deadlines.
                    timers.blocks[0].take_due(0, &mut Vec::new());
                }
                taken.store(round, Ordering::SeqCst);
            }
        });
    }
}
