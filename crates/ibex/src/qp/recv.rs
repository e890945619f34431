//! Posting receives.
//!
//! Owns [`RecvWr`] and `recv` in every state.
//!
//! # Safety
//! As in `submit`: the guard is in its slot before the request is posted (I3).
#![allow(unsafe_code)]

use std::sync::Arc;

use ibex_sys as sys;

use super::state::{Init, Rtr, Rts};
use super::submit::{refused, unfit};
use super::{QpShared, QueuePair};
use crate::mem::Sink;
use crate::op::{Op, Rejected, Side};
use crate::queue::{Erased, Slot};
use crate::wc::{Opcode, Record};

/// A work request and its pieces of memory.
pub(crate) struct RecvWr {
    wr: sys::ibv_recv_wr,
    pieces: Box<[sys::ibv_sge]>,
}

// SAFETY: the pointers in it are set and used within one post, under the queue's lock.
unsafe impl Send for RecvWr {}

impl RecvWr {
    pub(super) fn new(max_sge: u32) -> Self {
        let pieces = vec![sys::ibv_sge::default(); max_sge.max(1) as usize].into_boxed_slice();
        Self { wr: sys::ibv_recv_wr::default(), pieces }
    }
}

impl QpShared {
    /// Posts a receive into the whole capacity of `buf`.
    #[inline]
    fn submit_recv<B: Sink>(self: &Arc<Self>, buf: B) -> Result<(u32, &Slot), Rejected<B>> {
        let ring = &*self.recv.ring;
        let mut guard = self.recv.poster.lock();
        let mut vacant = ring.vacant(&mut guard.count);
        if vacant.is_none() {
            // Receives that nobody waits for end unnoticed: look, and count once more.
            drop(guard);
            // A device that can no longer be asked is reported by the waits; here the queue just stays full.
            let _ = self.recv.cq.inner.reap();
            guard = self.recv.poster.lock();
            vacant = ring.vacant(&mut guard.count);
        }
        let poster = &mut *guard;
        let Some(slot) = vacant else {
            let in_flight = ring.in_flight(&poster.count);
            return Err(self.full(Side::Recv, 1, in_flight, Box::new(buf)));
        };
        let seq = poster.count.next;
        let RecvWr { wr, pieces } = &mut poster.wr;
        let count = buf.scatter(pieces);
        let Some(named) = pieces.get(..count) else {
            return Err(unfit(Some(count), pieces.len(), Box::new(buf)));
        };
        let room = named.iter().fold(0_u32, |sum, piece| sum.saturating_add(piece.length));
        wr.wr_id = ring.wr_id(seq);
        wr.sg_list = pieces.as_mut_ptr();
        // At most as many as fit the list.
        wr.num_sge = count as i32;
        let record = Record { opcode: Opcode::RECV.0, byte_len: room, ..Record::EMPTY };
        // SAFETY: vacant, and the lock is held. From here on the guard is in the slot (I3).
        unsafe { slot.fill(seq, record, Erased::new(buf), true) };
        let mut bad = std::ptr::null_mut();
        // SAFETY: a live queue pair and its device's own function; the memory named is kept by the slot until a fence (I3).
        let code = unsafe { (self.post_recv)(self.raw.as_ptr(), wr, &raw mut bad) };
        if code != 0 {
            // SAFETY: filled with a `B` and never posted, and the lock is still held.
            return Err(unsafe { refused(code, slot) });
        }
        ring.advance(&mut poster.count);
        Ok((seq, slot))
    }

    /// The same as an operation that borrows nothing.
    fn recv_static<B: Sink>(self: &Arc<Self>, buf: B) -> Result<Op<'static, B>, Rejected<B>> {
        let (seq, slot) = self.submit_recv(buf)?;
        Ok(Op::new(self, Side::Recv, seq, slot).into_static())
    }
}

impl QueuePair<Init> {
    /// Posts a receive, before anybody is connected. The operation does not borrow the queue pair, so that it can be
    /// connected meanwhile.
    ///
    /// # Errors
    /// As [`QueuePair::<Rts>::recv`](QueuePair#method.recv-2).
    #[doc(alias = "ibv_post_recv")]
    pub fn recv<B: Sink>(&self, buf: B) -> Result<Op<'static, B>, Rejected<B>> {
        self.shared().recv_static(buf)
    }
}

impl QueuePair<Rtr> {
    /// Posts a receive. The operation does not borrow the queue pair, so that it can be moved to RTS meanwhile.
    ///
    /// # Errors
    /// As [`QueuePair::<Rts>::recv`](QueuePair#method.recv-2).
    #[doc(alias = "ibv_post_recv")]
    pub fn recv<B: Sink>(&self, buf: B) -> Result<Op<'static, B>, Rejected<B>> {
        self.shared().recv_static(buf)
    }
}

impl QueuePair<Rts> {
    /// Posts a receive: the next message of the peer lands in `buf`, whose whole capacity it may use and whose length it
    /// sets. A longer message fails on both sides.
    ///
    /// # Errors
    /// [`Rejected`], with the reason and the buffer: [`PostError::QueueFull`](super::PostError::QueueFull),
    /// [`PostError::TooManyPieces`](super::PostError::TooManyPieces), or [`PostError::Refused`](super::PostError::Refused) by
    /// the device.
    #[doc(alias = "ibv_post_recv")]
    #[inline]
    pub fn recv<B: Sink>(&self, buf: B) -> Result<Op<'_, B>, Rejected<B>> {
        let shared = self.shared();
        let (seq, slot) = shared.submit_recv(buf)?;
        Ok(Op::new(shared, Side::Recv, seq, slot))
    }
}
