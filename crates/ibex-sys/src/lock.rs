//! A lock for sections of some hundred instructions: one atomic instruction to take it, a store to give it back.
//!
//! Owns waiting for it; for the data paths of the library and of its device. The standard library's lock asks, when it is
//! given back, whether somebody sleeps, with a second atomic instruction, and both ask whether a thread panics: on the way of a
//! message, which takes six such locks, that is a quarter of its time. Here who waits spins, then gives way, then sleeps for
//! a moment, so that a holder that lost its processor gets it back, whatever the priorities. It is neither fair nor
//! re-entrant, and no user's code may run under it: it is for what one thread mostly has to itself.
//!
//! A panic gives the lock back. What is behind such locks is to be in a state then that every function can work on.
//!
//! # Safety
//! The value is reached through a [`Guard`] only, of which there is one at a time: whoever made it has changed `taken` from
//! false to true, and nobody else can before it is dropped.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Looks in a row before a waiter gives way: longer than a section takes on another processor.
const SPINS: u32 = 200;

/// Times that it gives way before it sleeps: to threads of its priority that is enough.
const YIELDS: u32 = 50;

/// How long it sleeps, when the holder's priority is lower than its own or the machine is very busy.
const NAP: Duration = Duration::from_micros(50);

/// See the module.
#[derive(Debug, Default)]
pub struct Lock<T> {
    taken: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: one thread at a time gets at the value, as if it were sent from one to the next.
unsafe impl<T: Send> Sync for Lock<T> {}

/// The right to use the value, until it is dropped. Stays in its thread, like the standard library's.
#[derive(Debug)]
pub struct Guard<'a, T> {
    lock: &'a Lock<T>,
    /// Neither to be sent nor shared: `&Guard` gives `&T`, whatever `T` is.
    _here: PhantomData<*mut T>,
}

impl<T> Lock<T> {
    /// Behind it, `value`.
    pub const fn new(value: T) -> Lock<T> {
        Lock { taken: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// Waits for it.
    #[inline]
    pub fn lock(&self) -> Guard<'_, T> {
        if !self.take() {
            self.wait();
        }
        Guard { lock: self, _here: PhantomData }
    }

    /// The value, for which no lock is needed since nobody else can have a reference.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// Takes it if nobody has it.
    #[inline]
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        self.take().then(|| Guard { lock: self, _here: PhantomData })
    }

    #[inline]
    fn take(&self) -> bool {
        !self.taken.swap(true, Ordering::Acquire)
    }

    #[cold]
    fn wait(&self) {
        let mut looks = 0;
        loop {
            while self.taken.load(Ordering::Relaxed) {
                looks += 1;
                if looks <= SPINS {
                    std::hint::spin_loop();
                } else if looks <= SPINS + YIELDS {
                    std::thread::yield_now();
                } else {
                    std::thread::sleep(NAP);
                }
            }
            if self.take() {
                return;
            }
        }
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this guard is the only one, and lends the value for as long as it is borrowed.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and borrowed by one.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.taken.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    /// More threads than processors, some of which lose theirs while they hold the lock.
    #[test]
    fn one_at_a_time() {
        const THREADS: u64 = 8;
        const ROUNDS: u64 = 2000;
        let lock = Lock::new((0u64, 0u64));
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let lock = &lock;
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let mut pair = lock.lock();
                        pair.0 += 1;
                        if round % 500 == thread {
                            std::thread::yield_now();
                        }
                        pair.1 += 1;
                        assert_eq!(pair.0, pair.1);
                    }
                });
            }
        });
        assert_eq!(*lock.lock(), (THREADS * ROUNDS, THREADS * ROUNDS));
    }

    #[test]
    fn who_only_tries_does_not_wait() {
        let lock = Lock::new(1);
        let guard = lock.lock();
        assert!(lock.try_lock().is_none());
        drop(guard);
        assert_eq!(lock.try_lock().map(|guard| *guard), Some(1));
    }

    #[test]
    fn a_panic_gives_it_back() {
        let lock = Lock::new(1);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let mut guard = lock.lock();
            *guard = 2;
            panic!("while it is held");
        }));
        assert!(outcome.is_err());
        assert_eq!(lock.try_lock().map(|guard| *guard), Some(2));
    }

    #[test]
    fn a_holder_that_sleeps_is_waited_for() {
        let lock = Lock::new(0);
        std::thread::scope(|scope| {
            let guard = lock.lock();
            let waiter = scope.spawn(|| *lock.lock());
            std::thread::sleep(20 * NAP);
            let mut guard = guard;
            *guard = 7;
            drop(guard);
            assert_eq!(waiter.join().expect("no panic"), 7);
        });
    }
}
