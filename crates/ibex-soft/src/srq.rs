//! Shared receive queues: requests that several queue pairs take from, and the limit that raises an event.
//!
//! Owns posting, taking, resizing and the limit of one queue. What a queue pair has taken is kept by its own receive queue
//! ([`crate::qp`]), so that the lock here is held only to hand a request over. See `ibv_create_srq(3)`,
//! `ibv_modify_srq(3)`; IBTA vol. 1 clause 10.2.9.
//!
//! Locks: a queue pair's lock may be held when one of these is taken, never the other way round.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ibex_sys::{IBV_EVENT_SRQ_LIMIT_REACHED, ibv_sge, ibv_srq_attr};

use crate::cq::Unpolled;
use crate::device::{AsyncEvent, AsyncQueue};
use crate::event::Unacked;
use crate::mr::PdNumber;

/// A shared receive queue.
#[derive(Debug)]
pub(crate) struct Srq {
    /// The address of the program's `ibv_srq`, for asynchronous events.
    pub(crate) name: usize,
    /// The domain its lists are checked against, whichever queue pair takes them.
    pub(crate) pd: PdNumber,
    pub(crate) max_sge: usize,
    ring: Mutex<Ring>,
    /// Requests that queue pairs have taken and not completed: they still count as outstanding.
    taken: AtomicUsize,
    /// Requests that completed and whose completions wait: they count, too.
    pub(crate) unpolled: Unpolled,
    /// Queue pairs that take from it: it cannot be destroyed before they are gone.
    pub(crate) users: AtomicU32,
    events: Arc<AsyncQueue>,
    /// Asynchronous events delivered and not acknowledged.
    pub(crate) async_events: Unacked,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    wr_id: u64,
    sges: u32,
}

/// Requests that wait, oldest at `head`.
#[derive(Debug)]
struct Ring {
    slots: Box<[Slot]>,
    sges: Box<[ibv_sge]>,
    head: usize,
    waiting: usize,
    /// Fewer waiting requests than this raise the event, once; 0 if not armed.
    limit: u32,
}

impl Ring {
    fn new(depth: usize, max_sge: usize) -> Ring {
        Ring {
            slots: vec![Slot::default(); depth].into_boxed_slice(),
            sges: vec![ibv_sge::default(); depth * max_sge].into_boxed_slice(),
            head: 0,
            waiting: 0,
            limit: 0,
        }
    }

    /// Where the request `index` places behind the head stands.
    fn slot(&self, index: usize) -> usize {
        let at = self.head + index;
        if at >= self.slots.len() { at - self.slots.len() } else { at }
    }

    /// Adds a request; the caller has checked that there is room for it and its list.
    fn push(&mut self, max_sge: usize, wr_id: u64, list: &[ibv_sge]) {
        self.fill(self.slot(self.waiting), max_sge, wr_id, list);
    }

    /// Adds a request as the next to be taken.
    fn push_front(&mut self, max_sge: usize, wr_id: u64, list: &[ibv_sge]) {
        self.head = self.head.checked_sub(1).unwrap_or(self.slots.len() - 1);
        self.fill(self.head, max_sge, wr_id, list);
    }

    fn fill(&mut self, at: usize, max_sge: usize, wr_id: u64, list: &[ibv_sge]) {
        self.slots[at] = Slot { wr_id, sges: list.len() as u32 };
        self.sges[at * max_sge..at * max_sge + list.len()].copy_from_slice(list);
        self.waiting += 1;
    }
}

impl Srq {
    /// An empty queue of the sizes in `attr`, which are within the device's limits.
    pub(crate) fn new(name: usize, pd: PdNumber, events: Arc<AsyncQueue>, attr: &ibv_srq_attr) -> Srq {
        let max_sge = attr.max_sge as usize;
        Srq {
            name,
            pd,
            max_sge,
            ring: Mutex::new(Ring::new(attr.max_wr as usize, max_sge)),
            taken: AtomicUsize::new(0),
            unpolled: Unpolled::default(),
            users: AtomicU32::new(0),
            events,
            async_events: Unacked::default(),
        }
    }

    /// The right to post a list of requests.
    pub(crate) fn poster(&self) -> SrqPoster<'_> {
        SrqPoster { srq: self, ring: self.lock() }
    }

    /// Takes the oldest request, giving identifier and list to `keep`. [`Srq::taken`] or [`Srq::put_back`] must follow.
    pub(crate) fn take<R>(&self, keep: impl FnOnce(u64, &[ibv_sge]) -> R) -> Option<R> {
        let mut ring = self.lock();
        if ring.waiting == 0 {
            return None;
        }
        let at = ring.head;
        let Slot { wr_id, sges } = ring.slots[at];
        let from = at * self.max_sge;
        let kept = keep(wr_id, &ring.sges[from..from + sges as usize]);
        ring.head = ring.slot(1);
        ring.waiting -= 1;
        self.taken.fetch_add(1, Ordering::AcqRel);
        Some(kept)
    }

    /// What was taken is used: raises the limit's event if too few are left.
    pub(crate) fn taken(&self) {
        self.watch(&mut self.lock());
    }

    /// Puts a request that was taken, and not used, in front of all others.
    pub(crate) fn put_back(&self, wr_id: u64, list: &[ibv_sge]) {
        let mut ring = self.lock();
        // There is room: what was taken counts as outstanding.
        ring.push_front(self.max_sge, wr_id, list);
        self.taken.fetch_sub(1, Ordering::AcqRel);
    }

    /// So many requests that were taken have completed, or are given up.
    pub(crate) fn complete(&self, count: usize) {
        self.taken.fetch_sub(count, Ordering::AcqRel);
    }

    /// Changes size and limit, each if given.
    ///
    /// # Errors
    /// `EINVAL` if more requests are outstanding than the new size, or if the limit is above the size; then nothing
    /// has changed.
    pub(crate) fn modify(&self, max_wr: Option<u32>, limit: Option<u32>) -> Result<(), i32> {
        let mut ring = self.lock();
        let depth = max_wr.map_or(ring.slots.len(), |max_wr| max_wr as usize);
        if limit.unwrap_or(ring.limit) as usize > depth || self.outstanding(&ring) > depth {
            return Err(libc::EINVAL);
        }
        if depth != ring.slots.len() {
            let mut fresh = Ring { limit: ring.limit, ..Ring::new(depth, self.max_sge) };
            for index in 0..ring.waiting {
                let at = ring.slot(index);
                let from = at * self.max_sge;
                let Slot { wr_id, sges } = ring.slots[at];
                fresh.push(self.max_sge, wr_id, &ring.sges[from..from + sges as usize]);
            }
            *ring = fresh;
        }
        if let Some(limit) = limit {
            ring.limit = limit;
            // Armed with too few requests the event is due at once.
            self.watch(&mut ring);
        }
        Ok(())
    }

    /// Sizes, and the limit if it is still armed.
    pub(crate) fn query(&self) -> ibv_srq_attr {
        let ring = self.lock();
        ibv_srq_attr { max_wr: ring.slots.len() as u32, max_sge: self.max_sge as u32, srq_limit: ring.limit }
    }

    /// Raises the event of an armed limit that has been reached, and disarms it.
    fn watch(&self, ring: &mut Ring) {
        if ring.waiting < ring.limit as usize {
            ring.limit = 0;
            self.events.push(AsyncEvent::Srq(IBV_EVENT_SRQ_LIMIT_REACHED, self.name));
        }
    }

    fn outstanding(&self, ring: &Ring) -> usize {
        ring.waiting + self.taken.load(Ordering::Acquire) + self.unpolled.count()
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to post to one queue.
pub(crate) struct SrqPoster<'a> {
    srq: &'a Srq,
    ring: MutexGuard<'a, Ring>,
}

impl SrqPoster<'_> {
    /// Posts a request.
    ///
    /// # Errors
    /// An errno: `EINVAL` if the list is too long, `ENOMEM` if the queue is full.
    pub(crate) fn recv(&mut self, wr_id: u64, list: &[ibv_sge]) -> Result<(), i32> {
        if list.len() > self.srq.max_sge {
            return Err(libc::EINVAL);
        }
        if self.srq.outstanding(&self.ring) >= self.ring.slots.len() {
            return Err(libc::ENOMEM);
        }
        self.ring.push(self.srq.max_sge, wr_id, list);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventQueue;

    fn srq(max_wr: u32) -> (Srq, Arc<AsyncQueue>) {
        let events = Arc::new(EventQueue::new().unwrap());
        let attr = ibv_srq_attr { max_wr, max_sge: 2, srq_limit: 0 };
        (Srq::new(7, 1, events.clone(), &attr), events)
    }

    fn post(srq: &Srq, wr_id: u64) -> Result<(), i32> {
        srq.poster().recv(wr_id, &[ibv_sge { addr: wr_id, length: 1, lkey: 1 }])
    }

    fn take(srq: &Srq) -> Option<u64> {
        let taken = srq.take(|wr_id, list| {
            assert_eq!(list[0].addr, wr_id);
            wr_id
        });
        srq.taken();
        taken
    }

    #[test]
    fn requests_are_taken_in_the_order_of_posting_across_a_resize() {
        let (srq, _) = srq(3);
        for wr_id in 1..=3 {
            post(&srq, wr_id).unwrap();
        }
        assert_eq!(post(&srq, 4), Err(libc::ENOMEM));
        assert_eq!(take(&srq), Some(1));
        srq.put_back(1, &[ibv_sge { addr: 1, length: 1, lkey: 1 }]);
        assert_eq!(take(&srq), Some(1));
        assert_eq!(post(&srq, 4), Err(libc::ENOMEM), "taken is not yet free");
        srq.complete(1);
        post(&srq, 4).unwrap();
        assert_eq!(srq.modify(Some(2), None), Err(libc::EINVAL), "three are outstanding");
        srq.modify(Some(5), None).unwrap();
        post(&srq, 5).unwrap();
        assert_eq!(std::iter::from_fn(|| take(&srq)).collect::<Vec<_>>(), [2, 3, 4, 5]);
        assert_eq!(srq.query().max_wr, 5);
        assert_eq!(srq.poster().recv(9, &[ibv_sge::default(); 3]), Err(libc::EINVAL));
    }

    #[test]
    fn an_armed_limit_raises_one_event() {
        let (srq, events) = srq(4);
        for wr_id in 0..4 {
            post(&srq, wr_id).unwrap();
        }
        assert_eq!(srq.modify(None, Some(5)), Err(libc::EINVAL), "above the size");
        srq.modify(None, Some(3)).unwrap();
        take(&srq);
        assert!(!events.is_ready(), "three are left");
        take(&srq);
        assert_eq!(events.pop(|_| ()), Some(AsyncEvent::Srq(IBV_EVENT_SRQ_LIMIT_REACHED, 7)));
        assert_eq!(srq.query().srq_limit, 0);
        take(&srq);
        assert!(!events.is_ready(), "disarmed");
        srq.modify(None, Some(2)).unwrap();
        assert!(events.is_ready(), "reached when armed");
    }

    #[test]
    fn a_request_that_is_put_back_raises_no_event() {
        let (srq, events) = srq(4);
        post(&srq, 1).unwrap();
        srq.modify(None, Some(1)).unwrap();
        assert_eq!(srq.take(|wr_id, _| wr_id), Some(1));
        srq.put_back(1, &[ibv_sge { addr: 1, length: 1, lkey: 1 }]);
        assert!(!events.is_ready());
        assert_eq!(srq.query().srq_limit, 1, "still armed");
        assert_eq!(take(&srq), Some(1));
        assert!(events.is_ready());
    }
}
