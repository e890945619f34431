//! Callers that block for an event: one of them watches the sockets itself.
//!
//! Owns the choice of that one, the *leader*. It receives packets for everybody, so that the event it waits for costs
//! one wake-up and not two; the others, *followers*, wait for their own descriptor and for the *baton* that a leaving
//! leader passes on.

use std::sync::PoisonError;
use std::sync::TryLockError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Nic;
use crate::event::EventQueue;
use crate::net::Scan;
use crate::os::{self, watch};

/// How far ahead the thread's next look may lie when a leader leaves; beyond that it is woken to look again.
pub(super) const UNATTENDED_NS: u64 = 5_000_000;

impl Nic {
    /// Blocks until `events` has one, or until the deadline; drives the device meanwhile.
    ///
    /// # Errors
    /// `ETIMEDOUT` after the deadline; what `ppoll(2)` fails with, `EINTR` excepted: a handled signal does not end the
    /// wait, as with `SA_RESTART`.
    pub(crate) fn wait_event<T>(&self, events: &EventQueue<T>, deadline: Option<Instant>) -> Result<(), i32> {
        loop {
            if events.is_ready() {
                return Ok(());
            }
            if self.has_failed() {
                // On to the next who waits.
                self.baton.add();
                return Err(libc::EIO);
            }
            if let Some(outcome) = self.try_lead(events, deadline) {
                return outcome;
            }
            self.followers.fetch_add(1, Ordering::SeqCst);
            // A leader that left before it could see this follower passed the baton to nobody.
            let outcome = match self.try_lead(events, deadline) {
                Some(outcome) => Some(outcome),
                None => self.follow(events, deadline).err().map(Err),
            };
            self.followers.fetch_sub(1, Ordering::SeqCst);
            if let Some(outcome) = outcome {
                return outcome;
            }
        }
    }

    /// Whether the thread is going to do a round soon, whatever callers do.
    pub(super) fn will_look_in(&self) -> bool {
        self.aside.load(Ordering::SeqCst)
            && !self.ending.load(Ordering::SeqCst)
            && self.near.load(Ordering::Relaxed)
    }

    fn try_lead<T>(&self, events: &EventQueue<T>, deadline: Option<Instant>) -> Option<Result<(), i32>> {
        let leader = match self.leader.try_lock() {
            Ok(leader) => leader,
            Err(TryLockError::Poisoned(error)) => PoisonError::into_inner(error),
            Err(TryLockError::WouldBlock) => return None,
        };
        self.blocking.store(true, Ordering::Relaxed);
        self.leading.store(1, Ordering::SeqCst);
        let outcome = self.lead(events, deadline);
        self.leading.store(0, Ordering::SeqCst);
        drop(leader);
        if self.followers.load(Ordering::SeqCst) > 0 || self.has_failed() {
            self.baton.add();
        }
        if self.aside.load(Ordering::SeqCst)
            && self.wakes_at.load(Ordering::SeqCst) > self.now() + UNATTENDED_NS
        {
            self.kick.add();
        }
        Some(outcome)
    }

    fn lead<T>(&self, events: &EventQueue<T>, deadline: Option<Instant>) -> Result<(), i32> {
        let [direct, rest] = self.wire.fds();
        let mut fds = [watch(events.fd()), watch(direct), watch(rest), watch(self.baton.raw())];
        loop {
            if events.is_ready() {
                return Ok(());
            }
            if self.has_failed() {
                return Err(libc::EIO);
            }
            // What the caller has not answered by now, it will not answer soon.
            if self.owing.load(Ordering::Relaxed) {
                if self.try_round(Scan::Quick, false).is_none() {
                    std::thread::yield_now();
                }
                if passed(deadline) && !events.is_ready() {
                    return Err(libc::ETIMEDOUT);
                }
                continue;
            }
            let dozing = self.wire.doze();
            if dozing.is_some() && !self.is_quiet() {
                if passed(deadline) && !events.is_ready() {
                    return Err(libc::ETIMEDOUT);
                }
                continue;
            }
            let woken = sleep(&mut fds, deadline)?;
            drop(dozing);
            if woken {
                if fds[3].revents != 0 {
                    // For a follower, who has no need of it now that there is a leader; or the device has failed.
                    self.baton.take();
                }
                let sockets = fds[1..3].iter().any(|fd| fd.revents != 0);
                if sockets && self.try_round(Scan::Full, true).is_none() {
                    // Somebody else has the packets; let them finish.
                    std::thread::yield_now();
                }
                self.polled();
                // Traffic of others may keep the sockets readable for ever.
                if passed(deadline) && !events.is_ready() {
                    return Err(libc::ETIMEDOUT);
                }
            }
        }
    }

    /// Looks at shared memory once more, for a leader that has announced that it sleeps; true if there was nothing.
    fn is_quiet(&self) -> bool {
        match self.try_round(Scan::Rings, true) {
            Some(received) => {
                if received.packets > 0 {
                    self.polled();
                }
                received.packets == 0
            }
            None => {
                // Whoever receives may have passed by what came meanwhile.
                std::thread::yield_now();
                false
            }
        }
    }

    /// Sleeps once without watching the sockets.
    fn follow<T>(&self, events: &EventQueue<T>, deadline: Option<Instant>) -> Result<(), i32> {
        let mut fds = [watch(events.fd()), watch(self.baton.raw())];
        sleep(&mut fds, deadline)?;
        // Who has what it waited for leaves the baton to the others.
        if fds[1].revents != 0 && fds[0].revents == 0 {
            self.baton.take();
        }
        Ok(())
    }
}

/// Sleeps until a descriptor is ready; true if one is, false if a signal came between.
///
/// # Errors
/// `ETIMEDOUT` at the deadline, and those of `ppoll(2)`.
pub(crate) fn sleep(fds: &mut [libc::pollfd], deadline: Option<Instant>) -> Result<bool, i32> {
    let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
    match os::wait(fds, left) {
        Ok(0) if left.is_some_and(|left| left == Duration::ZERO) || passed(deadline) => Err(libc::ETIMEDOUT),
        Ok(ready) => Ok(ready > 0),
        Err(error) => match error.raw_os_error() {
            Some(libc::EINTR) => Ok(false),
            code => Err(code.unwrap_or(libc::EIO)),
        },
    }
}

fn passed(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|at| at <= Instant::now())
}

#[cfg(test)]
#[path = "wait_tests.rs"]
mod tests;
