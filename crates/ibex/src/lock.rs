//! A lock for the data path: one exchange to take it, one store to release it.
//!
//! It protects the few dozen instructions around a post or a poll. A thread that finds it taken spins briefly, then
//! yields, then naps, so that a holder that lost its processor gets it back even on one core and under a real-time
//! scheduler. It is neither fair nor re-entrant; no user code may run under it.
//!
//! `std::sync::Mutex` does the same job with a second atomic exchange on release and poison checks on both sides,
//! which together cost more than all of a provider's work on a short post.
//!
//! # Safety
//! `value` is reachable only through a [`Guard`], and `held` makes sure that there is at most one.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Turns of `spin_loop` before yielding: about as long as a short post takes.
const SPINS: u32 = 64;
/// Yields before napping. Yielding is enough unless the holder has a lower real-time priority than the waiter.
const YIELDS: u32 = 64;
/// Length of a nap: of the order of the kernel's wake-up latency, so that shorter would not be.
const NAP: Duration = Duration::from_micros(50);

/// A value that one thread at a time may use.
#[derive(Debug, Default)]
pub(crate) struct Lock<T> {
    held: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: a `Guard` is the only way to the value and exists once at a time, so sharing the lock sends the value from
// thread to thread and never shares it.
unsafe impl<T: Send> Sync for Lock<T> {}

impl<T> Lock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self { held: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// Takes the lock, waiting for whoever has it.
    #[inline]
    pub(crate) fn lock(&self) -> Guard<'_, T> {
        if self.held.swap(true, Ordering::Acquire) {
            self.contend();
        }
        Guard { lock: self }
    }

    /// The value, for which no lock is needed since nobody else can have a reference.
    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    #[cold]
    fn contend(&self) {
        let mut turns = 0_u32;
        loop {
            match turns {
                _ if turns < SPINS => std::hint::spin_loop(),
                _ if turns < SPINS + YIELDS => std::thread::yield_now(),
                _ => std::thread::sleep(NAP),
            }
            turns = turns.saturating_add(1);
            // Look before exchanging, so that waiters share the cache line until it changes.
            if !self.held.load(Ordering::Relaxed) && !self.held.swap(true, Ordering::Acquire) {
                return;
            }
        }
    }
}

/// The right to use the value, until dropped.
#[derive(Debug)]
pub(crate) struct Guard<'a, T> {
    lock: &'a Lock<T>,
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this guard is the only one, see the head of the file.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this guard is the only one and is borrowed mutably.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.held.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn increments_of_many_threads_all_count() {
        let lock = Lock::new(0_u64);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| *lock.lock() += 1));
            }
        });
        assert_eq!(*lock.lock(), 40_000);
    }
}
