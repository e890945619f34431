//! The one place where send requests are posted.
//!
//! Owns [`SendWr`], the work request that is filled in again and again, and `QpShared::submit`, which takes a slot, puts
//! the memory's guard into it (I3), posts, and takes the guard back if the device refuses.
//!
//! # Safety
//! What a request names stays valid until its fence: it is in the slot before the request is posted, and every type that
//! gets here keeps [`Source`](crate::Source)'s promise, or was copied by the post itself (inline), or belongs to the queue
//! pair (landing words).
#![allow(unsafe_code)]

use std::mem::{ManuallyDrop, MaybeUninit};

use ibex_sys::lock::Guard;
use ibex_sys::{self as sys, convention};

use super::{PostError, Poster, QpShared};
use crate::addr::Rkey;
use crate::op::{Rejected, Side, Work};
use crate::queue::{Erased, Slot};
use crate::wc::{Opcode, Record};

/// A work request and its pieces of memory.
pub(crate) struct SendWr {
    pub(super) wr: sys::ibv_send_wr,
    pub(super) pieces: Box<[sys::ibv_sge]>,
}

// SAFETY: the pointers in it are set and used within one post, under the queue's lock.
unsafe impl Send for SendWr {}

impl SendWr {
    pub(super) fn new(max_sge: u32) -> Self {
        let pieces = vec![sys::ibv_sge::default(); max_sge.max(1) as usize].into_boxed_slice();
        Self { wr: sys::ibv_send_wr::default(), pieces }
    }
}

/// What a request asks for, besides its memory.
#[derive(Clone, Copy)]
pub(super) struct Request {
    pub(super) opcode: sys::ibv_wr_opcode,
    /// As what it completes.
    pub(super) completes: Opcode,
    pub(super) flags: sys::ibv_send_flags,
    /// Immediate data, in this host's byte order.
    pub(super) imm: u32,
    pub(super) remote: u64,
    pub(super) rkey: Rkey,
    /// Operands of atomics: compare or add, and swap.
    pub(super) operands: Option<(u64, u64)>,
}

impl Request {
    /// A request that names no memory of the peer.
    #[inline]
    pub(super) const fn plain(
        opcode: sys::ibv_wr_opcode,
        completes: Opcode,
        flags: sys::ibv_send_flags,
    ) -> Self {
        Self::remote(opcode, completes, flags, 0, Rkey(0))
    }

    /// A request that names memory of the peer.
    #[inline]
    pub(super) const fn remote(
        opcode: sys::ibv_wr_opcode,
        completes: Opcode,
        flags: sys::ibv_send_flags,
        remote: u64,
        rkey: Rkey,
    ) -> Self {
        Self { opcode, completes, flags, imm: 0, remote, rkey, operands: None }
    }

    /// The same with immediate data.
    #[inline]
    pub(super) const fn with_imm(mut self, imm: u32) -> Self {
        self.imm = imm;
        self
    }

    /// Writes what is not memory into a work request.
    #[inline]
    pub(super) fn write(&self, wr: &mut sys::ibv_send_wr) {
        wr.opcode = self.opcode;
        wr.imm = sys::ibv_send_wr_imm { imm_data: self.imm.to_be() };
        match self.operands {
            None => {
                let rdma = sys::ibv_send_wr_rdma { remote_addr: self.remote, rkey: self.rkey.0 };
                wr.wr.rdma = rdma;
            }
            Some((compare_add, swap)) => {
                let (remote_addr, rkey) = (self.remote, self.rkey.0);
                wr.wr.atomic = sys::ibv_send_wr_atomic { remote_addr, compare_add, swap, rkey };
            }
        }
    }

    /// What its slot knows of it until it completes.
    #[inline]
    pub(super) fn record(&self, bytes: u32) -> Record {
        Record {
            status: 0,
            opcode: self.completes.0,
            vendor_err: 0,
            byte_len: bytes,
            imm: self.rkey.0,
            flags: 0,
        }
    }
}

/// Pieces and bytes of a request.
#[derive(Clone, Copy)]
pub(super) struct Extent {
    pub(super) pieces: usize,
    pub(super) bytes: u32,
}

impl QpShared {
    /// Posts a request that holds `payload` until it ends; returns its number and slot.
    ///
    /// `fill` names the memory; `None` if it is longer than a message can be. `watched` says whether an operation will wait
    /// for it; if not, the library decides whether it is signalled.
    #[inline]
    pub(super) fn submit<T: Work>(
        &self,
        request: Request,
        payload: T,
        watched: bool,
        fill: impl FnOnce(&mut T, u32, &mut [sys::ibv_sge]) -> Option<Extent>,
    ) -> Result<(u32, &Slot), Rejected<T>> {
        // Nothing here panics before the payload is in its slot or in a box; told so, the compiler keeps it in registers.
        let mut payload = ManuallyDrop::new(payload);
        let ring = &*self.send.ring;
        let mut poster = self.send.poster.lock();
        let mut vacant = ring.vacant(&mut poster.count);
        if vacant.is_none() {
            (poster, vacant) = self.vacant_late(poster);
        }
        let Some(slot) = vacant else {
            return Err(self.full(
                Side::Send,
                1,
                ring.in_flight(&poster.count),
                Box::new(ManuallyDrop::into_inner(payload)),
            ));
        };
        let Poster { count, wr: SendWr { wr, pieces } } = &mut *poster;
        let pieces: &mut [sys::ibv_sge] = pieces;
        let seq = count.next;
        // SAFETY: there is at least one, see `SendWr::new`.
        unsafe { std::hint::assert_unchecked(!pieces.is_empty()) };
        let extent = match fill(&mut payload, seq, pieces) {
            Some(extent) if extent.pieces <= pieces.len() => extent,
            extent => {
                return Err(unfit(
                    extent.map(|extent| extent.pieces),
                    pieces.len(),
                    Box::new(ManuallyDrop::into_inner(payload)),
                ));
            }
        };
        let mut flags = request.flags;
        let signalled = watched || ring.must_signal(count);
        if signalled {
            flags |= sys::IBV_SEND_SIGNALED;
        }
        wr.wr_id = ring.wr_id(seq);
        wr.sg_list = pieces.as_mut_ptr();
        // At most as many as fit the list.
        wr.num_sge = extent.pieces as i32;
        wr.send_flags = flags.0;
        request.write(wr);
        // SAFETY: vacant, and the lock is held. From here on the guard is in the slot (I3).
        unsafe {
            slot.fill(
                seq,
                request.record(extent.bytes),
                Erased::new(ManuallyDrop::into_inner(payload)),
                watched,
            )
        };
        let mut bad = MaybeUninit::uninit();
        // SAFETY: a live queue pair and its device's own function; the memory named is kept by the slot until a fence (I3).
        let code = unsafe { (self.post_send)(self.raw.as_ptr(), wr, bad.as_mut_ptr()) };
        if code != 0 {
            // SAFETY: never posted, and the lock is still held.
            return Err(unsafe { refused(code, slot) });
        }
        ring.advance(count);
        ring.signalled(count, signalled);
        Ok((seq, slot))
    }

    /// Looks for room once more after taking in what has completed: requests that nobody waits for end unnoticed.
    #[cold]
    #[inline(never)]
    fn vacant_late<'a>(
        &'a self,
        poster: Guard<'a, Poster<SendWr>>,
    ) -> (Guard<'a, Poster<SendWr>>, Option<&'a Slot>) {
        drop(poster);
        self.make_room();
        let mut poster = self.send.poster.lock();
        let vacant = self.send.ring.vacant(&mut poster.count);
        (poster, vacant)
    }

    /// Takes in what has completed.
    pub(super) fn make_room(&self) {
        // A device that can no longer be asked is reported by the waits; here the queue just stays full.
        let _ = self.send.cq.inner.reap();
    }

    /// The error of a queue without room.
    #[cold]
    #[inline(never)]
    pub(super) fn full<T>(&self, side: Side, wanted: usize, in_flight: u32, payload: Box<T>) -> Rejected<T> {
        let queue = match side {
            Side::Send => "send",
            Side::Recv => "receive",
        };
        let capacity = self.ring(side).capacity();
        Rejected::new(PostError::QueueFull { queue, wanted, capacity, in_flight }, payload)
    }
}

/// The error of memory that does not fit a request: in too many pieces, or longer than a message.
#[cold]
#[inline(never)]
pub(super) fn unfit<T: Work>(pieces: Option<usize>, max: usize, payload: Box<T>) -> Rejected<T> {
    let error = match pieces {
        Some(pieces) => PostError::TooManyPieces { pieces, max },
        None => PostError::TooLong,
    };
    Rejected::new(error, payload)
}

/// The device's refusal of a request that was to hold a `T`.
///
/// # Safety
/// The slot was filled with a `T`, its request was not posted, and the queue's lock is held.
#[cold]
#[inline(never)]
pub(super) unsafe fn refused<T: Work>(code: i32, slot: &Slot) -> Rejected<T> {
    let source = convention::status(code).err().unwrap_or(sys::Errno::EIO);
    // SAFETY: the caller's promise.
    let payload = unsafe { slot.claim::<T>() };
    Rejected::new(PostError::Refused { source }, Box::new(payload))
}
