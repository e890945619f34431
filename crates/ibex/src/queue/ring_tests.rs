//! Tests of the slots, without a device.

use super::*;
use std::sync::Arc;

/// A ring of four with one token in each guard.
struct Rig {
    ring: Ring,
    count: Count,
    token: Arc<()>,
    buried: Vec<Erased>,
}

impl Rig {
    fn new() -> Self {
        let (count, token) = (Count::new(), Arc::new(()));
        Self { ring: Ring::new(4, 0xabcd), count, token, buried: Vec::new() }
    }

    fn post(&mut self, watched: bool) -> Option<u32> {
        let slot = self.ring.vacant(&mut self.count)?;
        let seq = self.count.next;
        // SAFETY: one thread, vacant.
        unsafe { slot.fill(seq, Record::EMPTY, Erased::new(Arc::clone(&self.token)), watched) };
        self.ring.advance(&mut self.count);
        Some(seq)
    }

    fn complete(&mut self, seq: u32) -> bool {
        // SAFETY: one thread; there is no device.
        unsafe { self.ring.complete(seq, |record| record.byte_len = seq, &mut self.buried) }
    }

    fn claim(&self, seq: u32) -> Option<u32> {
        let slot = self.ring.slot(seq);
        slot.is_done().then(|| {
            // SAFETY: one thread, done.
            let record = unsafe { slot.record() };
            // SAFETY: as above; filled with this.
            drop(unsafe { slot.claim::<Arc<()>>() });
            record.byte_len
        })
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
    assert!(!rig.ring.slot(seq).is_done());
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
    assert!(rig.ring.slot(seq).abandon());
    assert_eq!(rig.held(), 1);
    assert!(rig.complete(seq));
    assert!(!rig.ring.slot(seq).is_done());
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
    assert_eq!((rig.buried.len(), rig.ring.slot(watched).is_done()), (1, true));
    let Rig { ring, token, buried, .. } = rig;
    drop((ring, buried));
    assert_eq!(Arc::strong_count(&token), 1, "the unclaimed guard goes with the ring");
}

#[test]
fn flush_leaves_alone_what_its_operation_is_claiming() {
    let mut rig = Rig::new();
    let seq = rig.post(true).unwrap();
    let slot = rig.ring.slot(seq);
    // SAFETY: one thread, its own completion.
    unsafe { rig.ring.complete_own(slot, seq, None) };
    // The queue pair is destroyed by another thread between the operation's poll and its claim.
    // SAFETY: one thread; there is no device.
    assert_eq!(unsafe { rig.ring.flush(&mut rig.buried) }, 0);
    // SAFETY: one thread, done.
    assert_eq!(unsafe { slot.record() }.status, Status::SUCCESS.0);
    // SAFETY: as above.
    drop(unsafe { slot.claim::<Arc<()>>() });
    assert_eq!((rig.held(), rig.ring.in_flight(&rig.count)), (0, 0));
}

#[test]
fn a_slot_is_a_cache_line() {
    assert_eq!(size_of::<Slot>(), 64);
}

#[test]
fn half_a_queue_without_signal_is_enough() {
    let mut count = Count::new();
    let signals = |ring: &Ring, count: &mut Count| {
        let one = |_| {
            let signalled = ring.must_signal(count);
            ring.signalled(count, signalled);
            signalled
        };
        (0..6).map(one).collect::<Vec<_>>()
    };
    assert_eq!(signals(&Ring::new(4, 0), &mut count), [false, true, false, true, false, true]);
    assert_eq!(signals(&Ring::new(1, 0), &mut Count::new()), [true; 6]);
}

#[test]
fn sequence_numbers_wrap() {
    let mut rig = Rig::new();
    rig.count.next = u32::MAX - 1;
    rig.ring.next.store(u32::MAX - 1, Ordering::Relaxed);
    for _ in 0..6 {
        let seq = rig.post(true).unwrap();
        assert!(rig.complete(seq));
        assert!(rig.claim(seq).is_some());
    }
}
