//! Waiting for a request to end: polling, then sleeping.
//!
//! Owns [`Sleepers`] and the loop poll → arm → poll once more → sleep. Of the threads that wait on one queue one, the
//! leader, sleeps on the channel; the others, the followers, sleep until whoever reaps wakes them. At most one event is
//! outstanding; a queue is armed only by a thread that is about to sleep.
//!
//! Why no wake-up is lost: a leader arms and then polls under the reaper's lock, so a completion either is found by that
//! poll, was handed over by another thread before (the leader looks at its request afterwards, still under the lock), or
//! raises an event. A follower registers under the same lock after looking at its request; whoever reaps later sees it
//! registered and wakes it; and a leader that leaves wakes all, so that one of them becomes leader.
//!
//! # Safety
//! The queue is live while a `CqInner` is; events are acknowledged once each.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ibex_sys::{Errno, convention, dispatch};

use super::{CqInner, Wait};

/// Waiting threads, and how long polling pays.
pub(super) struct Sleepers {
    wait: Wait,
    /// Nanoseconds to poll before sleeping, as learnt so far.
    spin: AtomicU32,
    /// Counts wake-ups.
    epoch: Mutex<u64>,
    woken: Condvar,
}

impl Sleepers {
    pub(super) fn new(wait: Wait) -> Self {
        let spin = match wait {
            Wait::Adaptive { spin } => nanoseconds(spin),
            Wait::Spin | Wait::Sleep => 0,
        };
        Self { wait, spin: AtomicU32::new(spin), epoch: Mutex::new(0), woken: Condvar::new() }
    }

    /// Wakes all followers.
    pub(super) fn wake(&self) {
        *self.epoch() += 1;
        self.woken.notify_all();
    }

    fn epoch(&self) -> std::sync::MutexGuard<'_, u64> {
        // A counter is never half-changed.
        self.epoch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Learns from a sleep: polling longer would have caught short ones, and is wasted before long ones.
    fn learn(&self, slept: Duration) {
        let Wait::Adaptive { spin: limit } = self.wait else { return };
        let spin = self.spin.load(Ordering::Relaxed);
        let next = if slept <= limit {
            // Doubling reaches the limit in a few sleeps; the start is a tenth of a wake-up.
            spin.saturating_mul(2).max(2_000).min(nanoseconds(limit))
        } else {
            spin / 2
        };
        self.spin.store(next, Ordering::Relaxed);
    }
}

/// A duration in 32 bits of nanoseconds: up to 4.2 s, far beyond any sensible spin.
fn nanoseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_nanos()).unwrap_or(u32::MAX)
}

/// The time left, `None` for ever; zero if it is over.
fn left(deadline: Option<Instant>) -> Option<Duration> {
    deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
}

impl CqInner {
    /// Waits until `done` or until the deadline; returns what `done` says at the end.
    ///
    /// `done` looks at one request's slot, whose state changes under the reaper's lock only.
    #[cold]
    #[inline(never)]
    pub(crate) fn wait(&self, done: &dyn Fn() -> bool, deadline: Option<Instant>) -> Result<bool, Errno> {
        if self.spin(done, deadline)? {
            return Ok(true);
        }
        let began = Instant::now();
        loop {
            if left(deadline) == Some(Duration::ZERO) {
                return Ok(done());
            }
            if self.sleep(done, deadline)? {
                self.sleepers.learn(began.elapsed());
                return Ok(true);
            }
        }
    }

    /// Polls as long as the mode says.
    fn spin(&self, done: &dyn Fn() -> bool, deadline: Option<Instant>) -> Result<bool, Errno> {
        let limit = match self.sleepers.wait {
            Wait::Spin => None,
            _ => {
                let spin = Duration::from_nanos(u64::from(self.sleepers.spin.load(Ordering::Relaxed)));
                Some(Instant::now() + spin)
            }
        };
        let until = match (limit, deadline) {
            (Some(limit), Some(deadline)) => Some(limit.min(deadline)),
            (limit, deadline) => limit.or(deadline),
        };
        loop {
            self.reap()?;
            if done() {
                return Ok(true);
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return Ok(false);
            }
            std::hint::spin_loop();
        }
    }

    /// One sleep, as leader or as follower. Returns whether `done`.
    fn sleep(&self, done: &dyn Fn() -> bool, deadline: Option<Instant>) -> Result<bool, Errno> {
        let Some(channel) = &self.channel else { return self.spin(done, deadline) };
        let mut reaper = self.reaper.lock();
        let drained = reaper.drain(self);
        if drained.is_err() || done() {
            self.after(reaper);
            return drained.map(|_| true);
        }
        if reaper.leader {
            reaper.followers += 1;
            let epoch = self.sleepers.epoch();
            let asleep = *epoch;
            drop(reaper);
            self.follow(epoch, asleep, deadline);
            self.reaper.lock().followers -= 1;
            return Ok(done());
        }
        if !reaper.armed {
            self.arm()?;
            reaper.armed = true;
        }
        let drained = reaper.drain(self);
        if drained.is_err() || done() || reaper.has_buried() {
            // Destructors run in `after`, and may panic or themselves wait here: not while this thread leads.
            self.after(reaper);
            return drained.map(|_| done());
        }
        reaper.leader = true;
        self.after(reaper);
        channel.sleep(left(deadline));
        let mut reaper = self.reaper.lock();
        reaper.leader = false;
        if channel.read_event() {
            reaper.armed = false;
            reaper.unacked += 1;
            if reaper.unacked >= ACK_BATCH {
                let unacked = reaper.take_unacked();
                self.ack(unacked);
            }
        }
        let polled = reaper.drain(self);
        // Followers look at their requests, and one of them takes over if this thread is done.
        self.after(reaper);
        polled?;
        Ok(done())
    }

    /// Sleeps until somebody wakes the followers.
    fn follow(&self, mut epoch: std::sync::MutexGuard<'_, u64>, asleep: u64, deadline: Option<Instant>) {
        while *epoch == asleep {
            let woken = &self.sleepers.woken;
            epoch = match left(deadline) {
                None => woken.wait(epoch).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return,
                Some(left) => woken.wait_timeout(epoch, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }
}

/// Events acknowledged at once: acknowledging takes a lock of the library, and none may be missing in the end.
const ACK_BATCH: u32 = 1024;

impl CqInner {
    /// Asks for an event at the next completion.
    fn arm(&self) -> Result<(), Errno> {
        // SAFETY: a live queue.
        convention::status(unsafe { dispatch::ibv_req_notify_cq(self.as_raw(), 0) })
    }

    /// Acknowledges events that were read.
    fn ack(&self, events: u32) {
        // SAFETY: a live queue; so many of its events were read and not acknowledged.
        unsafe { (self.context.verbs().ack_cq_events)(self.as_raw(), events) };
    }
}
