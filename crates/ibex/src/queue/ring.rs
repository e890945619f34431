//! The slots of a queue, in posting order.
//!
//! Owns [`Ring`]: for each request posted and not yet claimed a slot with its state, what is known of it, and the guard of
//! its memory. A request's sequence number chooses its slot and is part of its `wr_id` (I5).
//!
//! | state | who may touch record and guard | next |
//! |---|---|---|
//! | free | the poster (holds the queue's lock) | posted, orphan |
//! | posted | the record: the reaper (holds the completion queue's lock) | done, orphan |
//! | orphan | the reaper; nobody waits for it | free |
//! | done | the operation that waits for it | free |
//!
//! # Safety
//! The table above is what makes access to `record` and `guard` exclusive. A guard leaves its slot only when a fence has
//! passed (I3): in `claim`, which requires *done*, and in the reaper's functions, whose callers hold a completion.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Erased;
use crate::wc::{Record, Status};

const FREE: u32 = 0;
const POSTED: u32 = 1;
const ORPHAN: u32 = 2;
const DONE: u32 = 3;

/// One request. As large as a cache line, so that poster and reaper of neighbours do not meet.
#[repr(C, align(64))]
pub(crate) struct Slot {
    state: AtomicU32,
    /// Which request it is, unless it is free. Written before the state.
    seq: AtomicU32,
    record: UnsafeCell<Record>,
    guard: UnsafeCell<MaybeUninit<Erased>>,
}

// SAFETY: record and guard are used by one party at a time, see the table above; guards are `Send`.
unsafe impl Sync for Slot {}

impl Slot {
    const fn new() -> Self {
        Self {
            state: AtomicU32::new(FREE),
            seq: AtomicU32::new(0),
            record: UnsafeCell::new(Record::EMPTY),
            guard: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    /// True if a request may be put into it.
    #[inline]
    fn is_vacant(&self) -> bool {
        // Acquire: whoever freed the slot is done with it.
        self.state.load(Ordering::Acquire) == FREE
    }

    /// Puts a request in, before it is posted. `watched` says whether an operation waits for it.
    ///
    /// # Safety
    /// The slot was found vacant under the queue's lock, which is still held.
    #[inline]
    pub(crate) unsafe fn fill(&self, seq: u32, record: Record, guard: Erased, watched: bool) {
        // SAFETY: a free slot is the poster's.
        unsafe { *self.record.get() = record };
        // SAFETY: as above; a free slot holds no guard.
        unsafe { (*self.guard.get()).write(guard) };
        self.seq.store(seq, Ordering::Relaxed);
        self.state.store(if watched { POSTED } else { ORPHAN }, Ordering::Release);
    }

    /// True if its request has ended and its operation has not claimed it. Asked by that operation, on whose account the
    /// slot cannot be another request's.
    #[inline]
    pub(crate) fn is_done(&self) -> bool {
        self.state.load(Ordering::Acquire) == DONE
    }

    /// True if its request has been posted and has not ended.
    #[inline]
    fn is_in_flight(&self) -> bool {
        matches!(self.state.load(Ordering::Acquire), POSTED | ORPHAN)
    }

    /// Takes what is held, and frees the slot.
    ///
    /// # Safety
    /// The slot was filled with a `T`. Its request never was posted and the queue's lock is held; or a fence has passed and
    /// the caller is the one party that the table gives the guard to.
    #[inline]
    pub(crate) unsafe fn claim<T: Send + 'static>(&self) -> T {
        // SAFETY: the caller's promise.
        unsafe { self.claim_with(|_: &mut T| ()) }
    }

    /// The same, with a last look at other memory that goes with the slot. `last` must not panic: the guard would be dropped
    /// twice.
    ///
    /// # Safety
    /// As [`claim`](Self::claim).
    #[inline]
    pub(crate) unsafe fn claim_with<T: Send + 'static>(&self, last: impl FnOnce(&mut T)) -> T {
        // SAFETY: the caller's promise; written by `fill`, and taken once, since the slot is free afterwards.
        let mut payload = unsafe { Erased::take::<T>(self.guard.get().cast()) };
        last(&mut payload);
        self.state.store(FREE, Ordering::Release);
        payload
    }

    /// Takes what is held, whatever it is, and frees the slot.
    ///
    /// # Safety
    /// As [`claim`](Self::claim).
    #[inline]
    pub(crate) unsafe fn bury(&self) -> Erased {
        // SAFETY: the caller's promise; taken once, since the slot is free afterwards.
        let guard = unsafe { self.guard.get().cast::<Erased>().read() };
        self.state.store(FREE, Ordering::Release);
        guard
    }

    /// What is known.
    ///
    /// # Safety
    /// The caller may [`claim`](Self::claim), or is the operation that waits and holds the completion queue's lock.
    #[inline]
    pub(crate) unsafe fn record(&self) -> Record {
        // SAFETY: the caller's promise: nobody writes.
        unsafe { *self.record.get() }
    }

    /// Hands the request over to its operation, or what it holds to `buried` if nobody waits.
    ///
    /// # Safety
    /// Under the completion queue's lock; the request is in flight and a fence has passed.
    #[inline]
    unsafe fn end(&self, update: impl FnOnce(&mut Record), buried: &mut Vec<Erased>) {
        // Only this side changes the state of a request in flight, and all of it does so under the lock.
        if self.state.load(Ordering::Relaxed) == POSTED {
            // SAFETY: the record of a posted request is the reaper's.
            update(unsafe { &mut *self.record.get() });
            self.state.store(DONE, Ordering::Release);
        } else {
            // SAFETY: an orphan is the reaper's, and a fence has passed.
            buried.push(unsafe { self.bury() });
        }
    }

    /// Gives a request up to the reaper. The completion queue's lock must be held. Returns false if it has ended.
    pub(crate) fn abandon(&self) -> bool {
        let posted = self.state.load(Ordering::Acquire) == POSTED;
        if posted {
            self.state.store(ORPHAN, Ordering::Release);
        }
        posted
    }
}

/// What the poster of a queue counts, under the queue's lock.
#[derive(Clone, Debug)]
pub(crate) struct Count {
    /// Sequence number of the next request.
    pub(crate) next: u32,
    /// Requests that may be posted before looking at what has ended.
    room: u32,
    /// Sum of all `room` ever given; wraps. Less `room` it is the number of requests posted.
    given: u32,
    /// Requests since the last signalled one.
    quiet: u32,
}

impl Count {
    pub(crate) const fn new() -> Self {
        // The first sequence number is 1, so that no valid `wr_id` equals a zeroed one.
        Self { next: 1, room: 0, given: 0, quiet: 0 }
    }

    /// Requests posted after request `seq`; too many by the slots skipped, if any were.
    pub(crate) fn posted_after(&self, seq: u32) -> u32 {
        self.next.wrapping_sub(seq).saturating_sub(1)
    }
}

/// A queue's slots.
pub(crate) struct Ring {
    slots: Box<[Slot]>,
    mask: u32,
    /// Low half of every `wr_id`: the lease and its generation.
    tag: u32,
    /// Requests that may be in flight.
    capacity: u32,
    /// Requests whose end the device has reported; wraps. Written under the completion queue's lock only.
    retired: AtomicU32,
    /// Sequence number after the last of them. Used under the completion queue's lock only.
    next: AtomicU32,
}

impl Ring {
    /// Slots for `capacity` requests, 1 to 2^31.
    pub(crate) fn new(capacity: u32, tag: u32) -> Self {
        let len = capacity.max(1).next_power_of_two();
        let slots = (0..len).map(|_| Slot::new()).collect();
        let (retired, next) = (AtomicU32::new(0), AtomicU32::new(1));
        Self { slots, mask: len - 1, tag, capacity, retired, next }
    }

    #[inline]
    pub(crate) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// The `wr_id` of a request.
    #[inline]
    pub(crate) fn wr_id(&self, seq: u32) -> u64 {
        u64::from(seq) << 32 | u64::from(self.tag)
    }

    /// The slot of a request.
    #[inline]
    pub(crate) fn slot(&self, seq: u32) -> &Slot {
        let index = (seq & self.mask) as usize;
        debug_assert!(index < self.slots.len());
        // SAFETY: the mask is the number of slots, a power of two, less one.
        unsafe { self.slots.get_unchecked(index) }
    }

    /// Requests in flight. Exact for the poster.
    #[inline]
    pub(crate) fn in_flight(&self, count: &Count) -> u32 {
        let posted = count.given.wrapping_sub(count.room);
        posted.wrapping_sub(self.retired.load(Ordering::Acquire))
    }

    // The poster's side: every function takes the count, which proves that the queue's lock is held.

    /// The slot of the next request, whose number is [`Count::next`] then, or `None` if the queue is full.
    #[inline]
    pub(crate) fn vacant(&self, count: &mut Count) -> Option<&Slot> {
        let slot = self.slot(count.next);
        if count.room > 0 && slot.is_vacant() { Some(slot) } else { self.vacant_slow(count) }
    }

    /// Looks at what has ended, and skips slots of ended operations that nobody has claimed yet.
    #[cold]
    #[inline(never)]
    fn vacant_slow(&self, count: &mut Count) -> Option<&Slot> {
        if count.room == 0 {
            count.room = self.capacity - self.in_flight(count);
            count.given = count.given.wrapping_add(count.room);
            if count.room == 0 {
                return None;
            }
        }
        count.next = (0..=self.mask)
            .map(|step| count.next.wrapping_add(step))
            .find(|&seq| self.slot(seq).is_vacant())?;
        Some(self.slot(count.next))
    }

    /// True if request `seq` has the slot of `start` or of one after it, from which it was reached.
    pub(crate) fn is_around(&self, start: u32, seq: u32) -> bool {
        seq.wrapping_sub(start) > self.mask
    }

    /// Counts the next request, which has been posted.
    #[inline]
    pub(crate) fn advance(&self, count: &mut Count) {
        count.next = count.next.wrapping_add(1);
        count.room -= 1;
    }

    /// Whether the next request must be signalled although nobody waits for it: half a queue without a completion is
    /// enough, lest it fill up with requests whose end nobody would learn.
    #[inline]
    pub(crate) fn must_signal(&self, count: &Count) -> bool {
        count.quiet + 1 >= (self.capacity / 2).max(1)
    }

    /// Notes that a request has been posted, signalled or not. Not before: one that the device refuses changes nothing.
    #[inline]
    pub(crate) fn signalled(&self, count: &mut Count, signalled: bool) {
        count.quiet = if signalled { 0 } else { count.quiet + 1 };
    }
}

/// The reaper's side: to be called under the lock of the queue's completion queue, by its one reaper (I7).
impl Ring {
    /// Records the end of request `seq`, for which a completion was polled. Returns false if no such request is in flight:
    /// the completion is stale and is dropped (I5).
    ///
    /// # Safety
    /// Under the completion queue's lock, with a completion of this queue: fence F1 for this request and all before it.
    #[inline]
    pub(crate) unsafe fn complete(
        &self,
        seq: u32,
        record: impl FnOnce(&mut Record),
        buried: &mut Vec<Erased>,
    ) -> bool {
        let slot = self.slot(seq);
        if !slot.is_in_flight() || slot.seq.load(Ordering::Relaxed) != seq {
            return false;
        }
        let mut ended = 1;
        if !self.is_next(seq) {
            // SAFETY: the caller's promise; queues complete in order.
            ended += unsafe { self.complete_before(seq, buried) };
        }
        // SAFETY: in flight, and the fence has passed.
        unsafe { slot.end(record, buried) };
        self.retire(seq, ended);
        true
    }

    /// True if request `seq` is the oldest one not reaped, so that its completion ends nothing but itself.
    #[inline]
    pub(crate) fn is_next(&self, seq: u32) -> bool {
        seq == self.next.load(Ordering::Relaxed)
    }

    /// Records the end of request `seq` for the operation that has reaped its own completion, and is about to claim it.
    /// `record` replaces what is known of the request since it was posted.
    ///
    /// # Safety
    /// Under the completion queue's lock, with the completion of this request, which [is next](Self::is_next) and in
    /// `slot`; by the one operation that waits for it.
    #[inline]
    pub(crate) unsafe fn complete_own(&self, slot: &Slot, seq: u32, record: Option<Record>) {
        if let Some(record) = record {
            // SAFETY: the record of a posted request is the reaper's.
            unsafe { *slot.record.get() = record };
        }
        // No longer in flight when the lock is released: a flush must not end it once more while it is being claimed.
        slot.state.store(DONE, Ordering::Release);
        self.retire(seq, 1);
    }

    /// Records the success of the requests before `seq`, which a later completion implies.
    #[cold]
    #[inline(never)]
    unsafe fn complete_before(&self, seq: u32, buried: &mut Vec<Erased>) -> u32 {
        let mut ended = 0;
        let mut at = self.next.load(Ordering::Relaxed);
        while at != seq {
            let slot = self.slot(at);
            if slot.is_in_flight() && slot.seq.load(Ordering::Relaxed) == at {
                // SAFETY: in flight, and the fence has passed.
                unsafe { slot.end(|_| (), buried) };
                ended += 1;
            }
            at = at.wrapping_add(1);
        }
        ended
    }

    /// Counts `ended` requests, of which `seq` is the last.
    #[inline]
    fn retire(&self, seq: u32, ended: u32) {
        // Only the reaper writes these: no read-modify-write is needed.
        self.next.store(seq.wrapping_add(1), Ordering::Relaxed);
        let retired = self.retired.load(Ordering::Relaxed).wrapping_add(ended);
        self.retired.store(retired, Ordering::Release);
    }

    /// Ends everything in flight as flushed, and returns how many requests that were.
    ///
    /// # Safety
    /// Under the completion queue's lock; the queue pair is destroyed (F2).
    pub(crate) unsafe fn flush(&self, buried: &mut Vec<Erased>) -> u32 {
        let mut ended = 0;
        for slot in &self.slots {
            if slot.is_in_flight() {
                let flushed = |record: &mut Record| record.status = Status::WR_FLUSH_ERR.0;
                // SAFETY: in flight, and F2 has passed.
                unsafe { slot.end(flushed, buried) };
                ended += 1;
            }
        }
        self.retire(self.next.load(Ordering::Relaxed).wrapping_sub(1), ended);
        ended
    }

    /// Requests in flight, counted slot by slot.
    pub(crate) fn count_in_flight(&self) -> u32 {
        // There are at most 2^31 slots.
        self.slots.iter().filter(|slot| slot.is_in_flight()).count() as u32
    }
}

impl Drop for Ring {
    /// Nobody can claim any more. Operations that ended release their memory; of others it is leaked, since no fence was
    /// had (the queue pair could not be destroyed).
    fn drop(&mut self) {
        let mut lost = 0;
        for slot in &mut self.slots {
            match *slot.state.get_mut() {
                // SAFETY: a request that is done has its guard in place; nobody else can take it.
                DONE => unsafe { slot.guard.get_mut().assume_init_drop() },
                POSTED | ORPHAN => lost += 1,
                _ => {}
            }
        }
        if lost > 0 {
            crate::stats::leaked_buffers(lost);
        }
    }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
