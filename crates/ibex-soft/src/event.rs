//! Event queues behind a pollable descriptor: completion channels and a context's asynchronous events.
//!
//! Owns the pairing of a queue in memory with a counter in the kernel, and the count of events delivered but not yet
//! acknowledged. Does not own who waits how: blocking and progress meanwhile are [`crate::nic`]'s. See
//! `ibv_get_cq_event(3)`, `ibv_ack_async_event(3)`.
//!
//! Locks: the queue's is the innermost of the device; nothing else is locked while it is held.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::os::EventFd;

/// A queue of events of which each makes the descriptor readable once.
#[derive(Debug)]
pub(crate) struct EventQueue<T> {
    counter: EventFd,
    queue: Mutex<VecDeque<T>>,
}

impl<T> EventQueue<T> {
    /// An empty queue.
    ///
    /// # Errors
    /// Those of `eventfd(2)`.
    pub(crate) fn new() -> io::Result<EventQueue<T>> {
        Ok(EventQueue { counter: EventFd::new()?, queue: Mutex::new(VecDeque::new()) })
    }

    /// Appends an event. The descriptor becomes readable; each event is an edge of its own for `EPOLLET`.
    pub(crate) fn push(&self, event: T) {
        // Counter and queue change under one lock, so that whoever takes from the queue finds the counter above zero.
        let mut queue = self.lock();
        queue.push_back(event);
        self.counter.add();
    }

    /// Takes the oldest event, without blocking. `deliver` sees it under the queue's lock: an object that discards its
    /// events ([`EventQueue::retain`]) and then waits for those delivered thus misses none.
    pub(crate) fn pop(&self, deliver: impl FnOnce(&T)) -> Option<T> {
        let mut queue = self.lock();
        let event = queue.pop_front()?;
        self.counter.take();
        deliver(&event);
        Some(event)
    }

    /// Whether an event is waiting.
    pub(crate) fn is_ready(&self) -> bool {
        !self.lock().is_empty()
    }

    /// Discards the events that `keep` refuses, as destroying an object discards its undelivered ones.
    pub(crate) fn retain(&self, keep: impl FnMut(&T) -> bool) {
        let mut queue = self.lock();
        let before = queue.len();
        queue.retain(keep);
        for _ in queue.len()..before {
            self.counter.take();
        }
    }

    /// The descriptor that is readable while an event waits.
    pub(crate) fn fd(&self) -> RawFd {
        self.counter.raw()
    }

    /// Whether the program has made the descriptor non-blocking.
    pub(crate) fn nonblocking(&self) -> bool {
        self.counter.nonblocking()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Events of one object that were delivered and not yet acknowledged: destroying the object waits for zero.
#[derive(Debug, Default)]
pub(crate) struct Unacked {
    count: Mutex<u64>,
    zero: Condvar,
}

impl Unacked {
    /// One more was delivered.
    pub(crate) fn deliver(&self) {
        *self.lock() += 1;
    }

    /// The program acknowledged `count`; more than were delivered count as all.
    pub(crate) fn ack(&self, count: u64) {
        let mut pending = self.lock();
        *pending = pending.saturating_sub(count);
        if *pending == 0 {
            self.zero.notify_all();
        }
    }

    /// Blocks until every delivered event is acknowledged, as `ibv_destroy_cq(3)` and `ibv_destroy_qp(3)` do.
    pub(crate) fn wait(&self) {
        let mut pending = self.lock();
        while *pending > 0 {
            pending = self.zero.wait(pending).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::{wait, watch};
    use std::time::Duration;

    fn readable(fd: RawFd) -> bool {
        wait(&mut [watch(fd)], Some(Duration::ZERO)).unwrap() > 0
    }

    #[test]
    fn the_descriptor_is_readable_exactly_while_events_wait() {
        let queue = EventQueue::new().unwrap();
        assert!(!readable(queue.fd()));
        queue.push(1);
        queue.push(2);
        queue.push(1);
        assert!(readable(queue.fd()));
        queue.retain(|&event| event != 1);
        assert!(readable(queue.fd()));
        assert_eq!(queue.pop(|_| ()), Some(2));
        assert!(!readable(queue.fd()));
        assert_eq!(queue.pop(|_| ()), None);
        assert!(!queue.is_ready());
    }

    #[test]
    fn waiting_for_acknowledgements_ends_with_the_last() {
        let unacked = std::sync::Arc::new(Unacked::default());
        unacked.wait();
        unacked.deliver();
        unacked.deliver();
        let waiter = std::thread::spawn({
            let unacked = unacked.clone();
            move || unacked.wait()
        });
        unacked.ack(1);
        assert!(!waiter.is_finished());
        unacked.ack(1);
        waiter.join().unwrap();
    }
}
