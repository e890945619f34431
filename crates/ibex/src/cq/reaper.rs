//! The one reaper of a completion queue.
//!
//! Owns [`Reaper`]: polls in batches, finds the queue and the request a completion belongs to by its `wr_id`, and hands it
//! over. Whoever holds the lock is the reaper (I7); any thread that waits can be.
//!
//! | `wr_id` bits | 0..16 | 16..32 | 32..64 |
//! |---|---|---|---|
//! | | lease | generation of the lease | sequence number of the request |
//!
//! # Safety
//! Completions are handed to rings under the lock, once each, in the order of the queue; a completion that no lease and no
//! request in flight matches is dropped (I5).
#![allow(unsafe_code)]

use std::sync::Arc;

use ibex_sys::lock::Guard;
use ibex_sys::{self as sys, Errno};

use super::CqInner;
use crate::op::Side;
use crate::queue::{Erased, Ring, Slot};
use crate::wc::{Opcode, Record};

/// Completions taken by one call of the device: enough to amortise the call, few enough to stay in the first cache.
const BATCH: usize = 16;

/// Room reserved for a queue, and the low half of its `wr_id`s.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) tag: u32,
    entries: u32,
}

impl Lease {
    fn index(&self) -> usize {
        (self.tag & 0xffff) as usize
    }
}

/// A lease's place.
struct Entry {
    tag: u32,
    ring: Option<Arc<Ring>>,
}

pub(super) struct Reaper {
    entries: Vec<Entry>,
    vacant: Vec<usize>,
    /// Entries of the queue not leased.
    room: u32,
    /// Threads that sleep until somebody reaps for them.
    pub(super) followers: u32,
    /// Whether a thread sleeps on the channel.
    pub(super) leader: bool,
    /// Whether the queue will signal its next completion.
    pub(super) armed: bool,
    /// Events read and not acknowledged.
    pub(super) unacked: u32,
    /// Guards of orphans that have ended, to be dropped when the lock is released: their destructors are not ours.
    buried: Vec<Erased>,
    batch: [sys::ibv_wc; BATCH],
}

impl Reaper {
    pub(super) fn new(capacity: u32) -> Self {
        Self {
            entries: Vec::new(),
            vacant: Vec::new(),
            room: capacity,
            followers: 0,
            leader: false,
            armed: false,
            unacked: 0,
            buried: Vec::new(),
            batch: [sys::ibv_wc::default(); BATCH],
        }
    }

    pub(super) fn room(&self) -> u32 {
        self.room
    }

    pub(super) fn take_unacked(&mut self) -> u32 {
        std::mem::take(&mut self.unacked)
    }

    /// Whether there are destructors to run when the lock is released.
    pub(super) fn has_buried(&self) -> bool {
        !self.buried.is_empty()
    }

    /// Reserves room, or says how much there is.
    pub(super) fn lease(&mut self, entries: u32) -> Result<Lease, u32> {
        let Some(room) = self.room.checked_sub(entries) else { return Err(self.room) };
        let index = match self.vacant.pop() {
            Some(index) => index,
            // 16 bits of the `wr_id` name the lease.
            None if self.entries.len() > usize::from(u16::MAX) => return Err(self.room),
            None => {
                // The generation starts at 1: a zeroed `wr_id` matches no lease.
                let tag = 1 << 16 | self.entries.len() as u32;
                self.entries.push(Entry { tag, ring: None });
                self.entries.len() - 1
            }
        };
        self.room = room;
        Ok(Lease { tag: self.entries[index].tag, entries })
    }

    fn attach(&mut self, lease: &Lease, ring: &Arc<Ring>) {
        self.entries[lease.index()].ring = Some(Arc::clone(ring));
    }

    fn release(&mut self, lease: &Lease) {
        let index = lease.index();
        let entry = &mut self.entries[index];
        entry.ring = None;
        // The next generation, not zero: completions of the queue that is gone match no more.
        let generation = match (entry.tag >> 16) as u16 {
            u16::MAX => 1,
            generation => generation + 1,
        };
        entry.tag = u32::from(generation) << 16 | index as u32;
        self.room += lease.entries;
        self.vacant.push(index);
    }

    /// Takes one batch from the device; the completions are in `batch`.
    #[inline]
    fn fetch(&mut self, cq: &CqInner) -> i32 {
        // SAFETY: a live queue, its device's own function, and a batch of as many entries as said.
        unsafe { (cq.poll_cq)(cq.as_raw(), BATCH as i32, self.batch.as_mut_ptr()) }
    }

    /// Hands over what a fetch has returned.
    fn dispatch(&mut self, polled: i32) -> Result<usize, Errno> {
        if polled <= 0 {
            return sys::convention::count(polled).map(|_| 0);
        }
        // A device that reports more than asked for is not to be believed.
        let polled = (polled as usize).min(BATCH);
        let Self { entries, buried, batch, .. } = self;
        for wc in &batch[..polled] {
            hand_over(entries, buried, wc);
        }
        Ok(polled)
    }

    /// Takes one batch from the device and hands it over.
    fn poll(&mut self, cq: &CqInner) -> Result<usize, Errno> {
        let polled = self.fetch(cq);
        self.dispatch(polled)
    }

    /// Takes batches until there is nothing left.
    pub(super) fn drain(&mut self, cq: &CqInner) -> Result<usize, Errno> {
        let mut total = 0;
        loop {
            let polled = self.poll(cq)?;
            total += polled;
            if polled < BATCH {
                return Ok(total);
            }
        }
    }
}

/// What is kept of a successful receive. Of a send nothing is: what was posted says it all.
#[inline]
fn record(wc: &sys::ibv_wc) -> Record {
    Record {
        status: wc.status.0,
        opcode: wc.opcode.0,
        vendor_err: wc.vendor_err,
        byte_len: wc.byte_len,
        // SAFETY: both members of the union are plain 32-bit words.
        imm: unsafe { wc.imm.imm_data },
        flags: wc.wc_flags,
    }
}

/// Hands a completion to its request.
#[inline]
fn hand_over(entries: &[Entry], buried: &mut Vec<Erased>, wc: &sys::ibv_wc) {
    let tag = wc.wr_id as u32;
    let Some(entry) = entries.get((tag & 0xffff) as usize) else { return };
    if entry.tag != tag {
        return;
    }
    let Some(ring) = &entry.ring else { return };
    let seq = (wc.wr_id >> 32) as u32;
    let update = |slot: &mut Record| {
        if wc.status != sys::IBV_WC_SUCCESS {
            // After an error nothing else is valid (ibv_poll_cq(3)): the record keeps what was posted.
            slot.status = wc.status.0;
            slot.vendor_err = wc.vendor_err;
        } else if Opcode(wc.opcode.0).is_recv() {
            *slot = record(wc);
        }
    };
    // SAFETY: under the lock, with a completion of this ring's queue (F1).
    unsafe { ring.complete(seq, update, buried) };
}

impl CqInner {
    /// One round of reaping by whoever calls: returns the number of completions.
    pub(crate) fn reap(&self) -> Result<usize, Errno> {
        let mut reaper = self.reaper.lock();
        let polled = reaper.poll(self);
        if reaper.followers > 0 || !reaper.buried.is_empty() {
            self.after(reaper);
        }
        polled
    }

    /// One round of reaping by the operation that waits for request `seq`, which is in `slot`. If what comes is just its own
    /// success, the completion is taken past all tables and true is returned: the request has ended, and the operation may
    /// claim it. Otherwise it is a round like any other.
    #[inline]
    pub(crate) fn reap_own(&self, ring: &Ring, slot: &Slot, seq: u32, side: Side) -> bool {
        let mut reaper = self.reaper.lock();
        let polled = reaper.fetch(self);
        let wc = &reaper.batch[0];
        if polled == 1 && wc.wr_id == ring.wr_id(seq) && wc.status == sys::IBV_WC_SUCCESS && ring.is_next(seq)
        {
            let record = match side {
                Side::Send => None,
                Side::Recv => Some(record(wc)),
            };
            // SAFETY: under the lock, with the completion of this request, which is next; the caller waits for it.
            unsafe { ring.complete_own(slot, seq, record) };
            return true;
        }
        self.reap_rest(reaper, polled);
        false
    }

    /// The rest of a round in which something else came.
    #[cold]
    #[inline(never)]
    fn reap_rest(&self, mut reaper: Guard<'_, Reaper>, polled: i32) {
        // A device that can no longer be asked is reported by the wait that follows.
        let _ = reaper.dispatch(polled);
        self.after(reaper);
    }

    /// Releases the lock, wakes who may have something to look at, and drops what orphans held.
    #[cold]
    #[inline(never)]
    pub(super) fn after(&self, mut reaper: Guard<'_, Reaper>) {
        if reaper.followers > 0 {
            self.sleepers.wake();
        }
        let mut buried = std::mem::take(&mut reaper.buried);
        drop(reaper);
        // Destructors of the program's memory may do anything, even wait for an operation: no lock is held.
        buried.clear();
        if buried.capacity() == 0 {
            return;
        }
        // Keep the allocation for next time, unless somebody else made one meanwhile.
        let mut reaper = self.reaper.lock();
        if reaper.buried.capacity() == 0 {
            reaper.buried = buried;
        }
    }

    /// Binds a ring to its lease, before anything is posted.
    pub(crate) fn attach(&self, lease: &Lease, ring: &Arc<Ring>) {
        self.reaper.lock().attach(lease, ring);
    }

    /// Gives up a request: true if it has not ended and is the reaper's from now on.
    pub(crate) fn abandon(&self, slot: &Slot) -> bool {
        let _reaper = self.reaper.lock();
        slot.abandon()
    }

    /// What was posted, of a request that has not ended; `None` if it has.
    pub(crate) fn peek(&self, slot: &Slot) -> Option<Record> {
        let _reaper = self.reaper.lock();
        // SAFETY: under the lock; the caller is the operation that waits for it.
        (!slot.is_done()).then(|| unsafe { slot.record() })
    }

    /// Ends the requests of a queue whose queue pair is destroyed, and takes its lease back.
    ///
    /// # Safety
    /// `ibv_destroy_qp` has returned 0 (F2).
    pub(crate) unsafe fn retire(&self, lease: &Lease, ring: &Ring) {
        let mut reaper = self.reaper.lock();
        // Completions that arrived before the end count as what they say; those of a device that leaves them in the queue
        // must not meet the lease's next owner. An error of the device changes nothing: the generation protects.
        let _ = reaper.drain(self);
        // SAFETY: under the lock, and F2 by the caller's promise.
        unsafe { ring.flush(&mut reaper.buried) };
        reaper.release(lease);
        self.after(reaper);
    }

    /// Gives back a lease that was never used.
    pub(crate) fn unlease(&self, lease: &Lease) {
        self.reaper.lock().release(lease);
    }
}
