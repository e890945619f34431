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
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::Erased;
use crate::wc::{Record, Status};

const FREE: u64 = 0;
const POSTED: u64 = 1;
const ORPHAN: u64 = 2;
const DONE: u64 = 3;

/// The bits of the state that are not the sequence number.
const PHASE: u64 = 0xffff_ffff;

/// A state word: which request, and how far it is.
#[inline]
const fn state(seq: u32, phase: u64) -> u64 {
    (seq as u64) << 32 | phase
}

/// One request. As large as a cache line, so that poster and reaper of neighbours do not meet.
#[repr(C, align(64))]
struct Slot {
    state: AtomicU64,
    record: UnsafeCell<Record>,
    guard: UnsafeCell<MaybeUninit<Erased>>,
}

// SAFETY: record and guard are used by one party at a time, see the table above; guards are `Send`.
unsafe impl Sync for Slot {}

/// What the poster of a queue counts, under the queue's lock.
#[derive(Clone, Debug)]
pub(crate) struct Count {
    /// Sequence number of the next request.
    next: u32,
    /// Requests posted so far; wraps.
    posted: u32,
    /// Requests since the last signalled one.
    quiet: u32,
}

impl Count {
    pub(crate) const fn new() -> Self {
        // The first sequence number is 1, so that no valid `wr_id` equals a zeroed one.
        Self { next: 1, posted: 0, quiet: 0 }
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
}

impl Ring {
    /// Slots for `capacity` requests, 1 to 2^31.
    pub(crate) fn new(capacity: u32, tag: u32) -> Self {
        let len = capacity.max(1).next_power_of_two();
        let slot = || Slot {
            state: AtomicU64::new(FREE),
            record: UnsafeCell::new(Record::default()),
            guard: UnsafeCell::new(MaybeUninit::uninit()),
        };
        let slots = (0..len).map(|_| slot()).collect();
        Self { slots, mask: len - 1, tag, capacity, retired: AtomicU32::new(0) }
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

    #[inline]
    fn slot(&self, seq: u32) -> &Slot {
        let index = (seq & self.mask) as usize;
        debug_assert!(index < self.slots.len());
        // SAFETY: the mask is the number of slots, a power of two, less one.
        unsafe { self.slots.get_unchecked(index) }
    }

    /// Requests in flight. Exact for the poster.
    #[inline]
    pub(crate) fn in_flight(&self, count: &Count) -> u32 {
        count.posted.wrapping_sub(self.retired.load(Ordering::Acquire))
    }

    // The poster's side: every function takes the count, which proves that the queue's lock is held.

    /// The number of the next request, whose slot is free, or `None` if the queue is full.
    #[inline]
    pub(crate) fn vacant(&self, count: &mut Count) -> Option<u32> {
        if self.in_flight(count) >= self.capacity {
            return None;
        }
        let seq = count.next;
        // Acquire: whoever freed the slot is done with it.
        if self.slot(seq).state.load(Ordering::Acquire) & PHASE == FREE {
            return Some(seq);
        }
        self.next_vacant(count)
    }

    /// Skips slots of finished operations that nobody has claimed yet.
    #[cold]
    fn next_vacant(&self, count: &mut Count) -> Option<u32> {
        let seq = (0..=self.mask)
            .map(|step| count.next.wrapping_add(step))
            .find(|&seq| self.slot(seq).state.load(Ordering::Acquire) & PHASE == FREE)?;
        count.next = seq;
        Some(seq)
    }

    /// Puts a request into its slot, before it is posted. `watched` says whether an operation waits for it.
    ///
    /// # Safety
    /// The slot was found vacant under the queue's lock, which is still held.
    #[inline]
    pub(crate) unsafe fn fill(&self, seq: u32, record: Record, guard: Erased, watched: bool) {
        let slot = self.slot(seq);
        // SAFETY: a free slot is the poster's.
        unsafe { *slot.record.get() = record };
        // SAFETY: as above; a free slot holds no guard.
        unsafe { (*slot.guard.get()).write(guard) };
        let phase = if watched { POSTED } else { ORPHAN };
        slot.state.store(state(seq, phase), Ordering::Release);
    }

    /// Takes a request back that the device refused.
    ///
    /// # Safety
    /// The slot was filled, its request was not posted, and the queue's lock is still held.
    #[cold]
    pub(crate) unsafe fn unfill(&self, seq: u32) -> Erased {
        let slot = self.slot(seq);
        // SAFETY: filled, and never posted: still the poster's.
        let guard = unsafe { slot.guard.get().cast::<Erased>().read() };
        slot.state.store(FREE, Ordering::Release);
        guard
    }

    /// Counts a request that has been posted.
    #[inline]
    pub(crate) fn advance(&self, count: &mut Count, seq: u32) {
        count.next = seq.wrapping_add(1);
        count.posted = count.posted.wrapping_add(1);
    }

    /// Whether the next request must be signalled although nobody waits for it: half a queue without a completion is
    /// enough, lest it fill up with requests whose end nobody would learn.
    #[inline]
    pub(crate) fn must_signal(&self, count: &mut Count) -> bool {
        count.quiet += 1;
        let signal = count.quiet >= (self.capacity / 2).max(1);
        if signal {
            count.quiet = 0;
        }
        signal
    }

    /// Notes that a signalled request has been posted.
    #[inline]
    pub(crate) fn signalled(&self, count: &mut Count) {
        count.quiet = 0;
    }

    // The operation's side.

    /// True if the request has ended and its operation has not claimed it.
    #[inline]
    pub(crate) fn is_done(&self, seq: u32) -> bool {
        self.slot(seq).state.load(Ordering::Acquire) == state(seq, DONE)
    }

    /// Takes what is known and the guard of a request that has ended, and frees its slot.
    ///
    /// # Safety
    /// [`is_done`](Self::is_done) must have returned true, to the one operation that waits for this request.
    #[inline]
    pub(crate) unsafe fn claim(&self, seq: u32) -> (Record, Erased) {
        let slot = self.slot(seq);
        // SAFETY: a slot that is done is its operation's.
        let record = unsafe { *slot.record.get() };
        // SAFETY: as above; its guard was written by `fill` and is taken once, since the slot is free afterwards.
        let guard = unsafe { slot.guard.get().cast::<Erased>().read() };
        slot.state.store(FREE, Ordering::Release);
        (record, guard)
    }

    /// What was posted, of a request that has not ended.
    ///
    /// # Safety
    /// The caller is the operation that waits for it and holds the completion queue's lock.
    pub(crate) unsafe fn peek(&self, seq: u32) -> Record {
        // SAFETY: under that lock the reaper does not write.
        unsafe { *self.slot(seq).record.get() }
    }

    /// Gives a request up to the reaper. The completion queue's lock must be held. Returns false if it has ended.
    pub(crate) fn abandon(&self, seq: u32) -> bool {
        let slot = self.slot(seq);
        let posted = slot.state.load(Ordering::Acquire) == state(seq, POSTED);
        if posted {
            slot.state.store(state(seq, ORPHAN), Ordering::Release);
        }
        posted
    }
}

/// The reaper's side: to be called under the lock of the queue's completion queue, by its one reaper (I7).
impl Ring {
    /// True if request `seq` is in flight.
    #[inline]
    fn is_in_flight(&self, seq: u32) -> bool {
        let now = self.slot(seq).state.load(Ordering::Relaxed);
        now == state(seq, POSTED) || now == state(seq, ORPHAN)
    }

    /// Records the end of request `seq`, for which a completion was polled. `reaped` is the last request reaped before.
    /// Returns false if no such request is in flight: the completion is stale and is dropped (I5).
    ///
    /// # Safety
    /// Under the completion queue's lock, with a completion of this queue: fence F1 for this request and all before it.
    #[inline]
    pub(crate) unsafe fn complete(
        &self,
        reaped: &mut u32,
        seq: u32,
        record: impl FnOnce(&mut Record),
        buried: &mut Vec<Erased>,
    ) -> bool {
        if !self.is_in_flight(seq) {
            return false;
        }
        let mut ended = 1;
        if seq != reaped.wrapping_add(1) {
            // SAFETY: the caller's promise; queues complete in order.
            ended += unsafe { self.complete_before(*reaped, seq, buried) };
        }
        *reaped = seq;
        // SAFETY: in flight, and the fence has passed.
        unsafe { self.end(seq, record, buried) };
        self.retire(ended);
        true
    }

    /// Records the success of the requests after `reaped` and before `seq`, which a later completion implies.
    #[cold]
    unsafe fn complete_before(&self, reaped: u32, seq: u32, buried: &mut Vec<Erased>) -> u32 {
        let mut ended = 0;
        let mut at = reaped.wrapping_add(1);
        while at != seq {
            if self.is_in_flight(at) {
                let success = |record: &mut Record| record.status = Status::SUCCESS.0;
                // SAFETY: in flight, and the fence has passed.
                unsafe { self.end(at, success, buried) };
                ended += 1;
            }
            at = at.wrapping_add(1);
        }
        ended
    }

    /// Hands a request over to its operation, or its guard to `buried` if there is none.
    ///
    /// # Safety
    /// Under the completion queue's lock; the request is in flight and a fence has passed.
    #[inline]
    unsafe fn end(&self, seq: u32, update: impl FnOnce(&mut Record), buried: &mut Vec<Erased>) {
        let slot = self.slot(seq);
        // Only this side changes the state of a request in flight, and all of it does so under the lock.
        if slot.state.load(Ordering::Relaxed) == state(seq, POSTED) {
            // SAFETY: the record of a posted request is the reaper's.
            update(unsafe { &mut *slot.record.get() });
            slot.state.store(state(seq, DONE), Ordering::Release);
        } else {
            // SAFETY: an orphan is the reaper's; its guard is taken once, since the slot is free afterwards.
            buried.push(unsafe { slot.guard.get().cast::<Erased>().read() });
            slot.state.store(FREE, Ordering::Release);
        }
    }

    #[inline]
    fn retire(&self, ended: u32) {
        // Only the reaper writes this counter: no read-modify-write is needed.
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
            let now = slot.state.load(Ordering::Relaxed);
            if matches!(now & PHASE, POSTED | ORPHAN) {
                let flushed = |record: &mut Record| record.status = Status::WR_FLUSH_ERR.0;
                // SAFETY: in flight, and F2 has passed.
                unsafe { self.end((now >> 32) as u32, flushed, buried) };
                ended += 1;
            }
        }
        self.retire(ended);
        ended
    }

    /// Requests in flight, counted slot by slot.
    pub(crate) fn count_in_flight(&self) -> u32 {
        let busy = |slot: &&Slot| matches!(slot.state.load(Ordering::Relaxed) & PHASE, POSTED | ORPHAN);
        // There are at most 2^31 slots.
        self.slots.iter().filter(busy).count() as u32
    }
}

impl Drop for Ring {
    /// Nobody can claim any more. Operations that ended release their memory; of others it is leaked, since no fence was
    /// had (the queue pair could not be destroyed).
    fn drop(&mut self) {
        let mut lost = 0;
        for slot in &mut self.slots {
            match *slot.state.get_mut() & PHASE {
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
mod tests {
    use super::*;
    use std::sync::Arc;

    /// A ring of four with one token in each guard.
    struct Rig {
        ring: Ring,
        count: Count,
        reaped: u32,
        token: Arc<()>,
        buried: Vec<Erased>,
    }

    impl Rig {
        fn new() -> Self {
            let (count, token) = (Count::new(), Arc::new(()));
            Self { ring: Ring::new(4, 0xabcd), count, reaped: 0, token, buried: Vec::new() }
        }

        fn post(&mut self, watched: bool) -> Option<u32> {
            let seq = self.ring.vacant(&mut self.count)?;
            // SAFETY: one thread, vacant.
            unsafe { self.ring.fill(seq, Record::default(), Erased::new(Arc::clone(&self.token)), watched) };
            self.ring.advance(&mut self.count, seq);
            Some(seq)
        }

        fn complete(&mut self, seq: u32) -> bool {
            // SAFETY: one thread; there is no device.
            unsafe {
                self.ring.complete(&mut self.reaped, seq, |record| record.byte_len = seq, &mut self.buried)
            }
        }

        fn claim(&self, seq: u32) -> Option<u32> {
            // SAFETY: one thread, done.
            self.ring.is_done(seq).then(|| unsafe { self.ring.claim(seq) }.0.byte_len)
        }

        fn held(&self) -> usize {
            Arc::strong_count(&self.token) - 1
        }
    }

    #[test]
    fn a_request_is_posted_completed_and_claimed() {
        let mut rig = Rig::new();
        let seq = rig.post(true).unwrap();
        assert_eq!(rig.ring.wr_id(seq), 1 << 32 | 0xabcd);
        assert!(!rig.ring.is_done(seq));
        assert!(rig.complete(seq));
        assert_eq!(rig.claim(seq), Some(seq));
        assert_eq!(rig.held(), 0);
    }

    #[test]
    fn full_is_full_until_something_completes() {
        let mut rig = Rig::new();
        let seqs: Vec<_> = (0..4).map(|_| rig.post(false).unwrap()).collect();
        assert_eq!(rig.post(false), None);
        rig.complete(seqs[0]);
        assert!(rig.post(false).is_some());
        assert_eq!(rig.post(false), None);
    }

    #[test]
    fn a_completion_implies_those_before_it() {
        let mut rig = Rig::new();
        let seqs: Vec<_> = [true, false, true].map(|watched| rig.post(watched).unwrap()).to_vec();
        assert!(rig.complete(seqs[2]));
        assert_eq!(rig.buried.len(), 1);
        assert_eq!(rig.claim(seqs[0]), Some(0));
        assert_eq!(rig.claim(seqs[2]), Some(seqs[2]));
        assert_eq!(rig.ring.in_flight(&rig.count), 0);
    }

    #[test]
    fn stale_completions_are_dropped() {
        let mut rig = Rig::new();
        let seq = rig.post(false).unwrap();
        assert!(!rig.complete(seq + 1));
        assert!(!rig.complete(seq.wrapping_sub(4)));
        assert!(rig.complete(seq));
        assert!(!rig.complete(seq), "the second completion of one request");
    }

    #[test]
    fn unclaimed_slots_are_skipped() {
        let mut rig = Rig::new();
        let kept = rig.post(true).unwrap();
        rig.complete(kept);
        for _ in 0..20 {
            let seq = rig.post(true).unwrap();
            assert_ne!(seq & 3, kept & 3);
            assert!(rig.complete(seq));
            assert_eq!(rig.claim(seq), Some(seq));
        }
        assert_eq!(rig.claim(kept), Some(kept));
    }

    #[test]
    fn abandoned_requests_keep_their_guard_until_the_fence() {
        let mut rig = Rig::new();
        let seq = rig.post(true).unwrap();
        assert!(rig.ring.abandon(seq));
        assert_eq!(rig.held(), 1);
        assert!(rig.complete(seq));
        assert!(!rig.ring.is_done(seq));
        rig.buried.clear();
        assert_eq!(rig.held(), 0);
    }

    #[test]
    fn flush_ends_everything() {
        let mut rig = Rig::new();
        let watched = rig.post(true).unwrap();
        rig.post(false).unwrap();
        // SAFETY: one thread; there is no device.
        assert_eq!(unsafe { rig.ring.flush(&mut rig.buried) }, 2);
        assert_eq!((rig.buried.len(), rig.ring.is_done(watched)), (1, true));
        let Rig { ring, token, buried, .. } = rig;
        drop((ring, buried));
        assert_eq!(Arc::strong_count(&token), 1, "the unclaimed guard goes with the ring");
    }

    #[test]
    fn half_a_queue_without_signal_is_enough() {
        let mut count = Count::new();
        let signals =
            |ring: &Ring, count: &mut Count| (0..6).map(|_| ring.must_signal(count)).collect::<Vec<_>>();
        assert_eq!(signals(&Ring::new(4, 0), &mut count), [false, true, false, true, false, true]);
        assert_eq!(signals(&Ring::new(1, 0), &mut Count::new()), [true; 6]);
    }

    #[test]
    fn sequence_numbers_wrap() {
        let mut rig = Rig::new();
        rig.count.next = u32::MAX - 1;
        rig.reaped = u32::MAX - 2;
        for _ in 0..6 {
            let seq = rig.post(true).unwrap();
            assert!(rig.complete(seq));
            assert!(rig.claim(seq).is_some());
        }
    }
}
