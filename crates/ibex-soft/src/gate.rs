//! A lock that is held from one call of the program to another.
//!
//! Owns the exclusion of threads between `ibv_start_poll` and `ibv_end_poll`, and between `ibv_wr_start` and
//! `ibv_wr_complete`. A guard of the standard library cannot stand in between: it would have to be kept in the object it
//! guards.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// Lets one thread at a time through, from one call of the program to another; whoever finds it closed sleeps.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// One of `OPEN`, `CLOSED` and `AWAITED`.
    state: AtomicU32,
    lock: Mutex<()>,
    opened: Condvar,
}

const OPEN: u32 = 0;
const CLOSED: u32 = 1;
/// Closed, and somebody sleeps for it.
const AWAITED: u32 = 2;

impl Gate {
    /// Passes and closes it behind.
    #[inline]
    pub(crate) fn enter(&self) {
        if self.state.compare_exchange(OPEN, CLOSED, Ordering::Acquire, Ordering::Relaxed).is_err() {
            self.wait();
        }
    }

    #[cold]
    fn wait(&self) {
        let mut sleeping = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        // Who passes this way leaves it awaited: others may sleep. At worst that is one signal too many.
        while self.state.swap(AWAITED, Ordering::Acquire) != OPEN {
            sleeping = self.opened.wait(sleeping).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Opens it again.
    #[inline]
    pub(crate) fn leave(&self) {
        if self.state.swap(OPEN, Ordering::Release) == AWAITED {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        // Under the lock, so that nobody is between finding it closed and sleeping.
        let sleeping = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.opened.notify_one();
        drop(sleeping);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn the_gate_lets_one_thread_through_at_a_time_and_loses_no_sleeper() {
        let (gate, inside, total) = (Gate::default(), AtomicU32::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 0..5000 {
                        gate.enter();
                        assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0);
                        if round % 64 == 0 {
                            std::thread::yield_now();
                        }
                        inside.fetch_sub(1, Ordering::Relaxed);
                        total.fetch_add(1, Ordering::Relaxed);
                        gate.leave();
                    }
                });
            }
        });
        assert_eq!(total.load(Ordering::Relaxed), 20_000);
    }
}
