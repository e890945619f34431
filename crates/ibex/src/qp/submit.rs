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

use std::sync::Arc;

use ibex_sys::{self as sys, convention, dispatch};

use super::{PostError, QpShared};
use crate::addr::Rkey;
use crate::op::{Rejected, Side, Work};
use crate::queue::Erased;
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
    /// Posts a request that holds `payload` until it ends; returns its number.
    ///
    /// `fill` names the memory. `watched` says whether an operation will wait for it; if not, the library decides whether
    /// it is signalled.
    #[inline]
    pub(super) fn submit<T: Work>(
        self: &Arc<Self>,
        request: Request,
        mut payload: T,
        watched: bool,
        fill: impl FnOnce(&mut T, u32, &mut [sys::ibv_sge]) -> Result<Extent, PostError>,
    ) -> Result<u32, Rejected<T>> {
        let ring = &*self.send.ring;
        let mut guard = self.send.poster.lock();
        let mut vacant = ring.vacant(&mut guard.count);
        if vacant.is_none() {
            drop(guard);
            // Requests that nobody waits for end unnoticed: look before refusing.
            self.make_room();
            guard = self.send.poster.lock();
            vacant = ring.vacant(&mut guard.count);
        }
        let poster = &mut *guard;
        let Some(seq) = vacant else {
            let in_flight = ring.in_flight(&poster.count);
            return Err(Rejected::new(self.full(Side::Send, in_flight), payload));
        };
        let SendWr { wr, pieces } = &mut poster.wr;
        let extent = match fill(&mut payload, seq, pieces) {
            Ok(extent) if extent.pieces <= pieces.len() => extent,
            Ok(extent) => {
                let error = PostError::TooManyPieces { pieces: extent.pieces, max: pieces.len() };
                return Err(Rejected::new(error, payload));
            }
            Err(error) => return Err(Rejected::new(error, payload)),
        };
        let mut flags = request.flags;
        if watched {
            ring.signalled(&mut poster.count);
            flags |= sys::IBV_SEND_SIGNALED;
        } else if ring.must_signal(&mut poster.count) {
            flags |= sys::IBV_SEND_SIGNALED;
        }
        wr.wr_id = ring.wr_id(seq);
        wr.sg_list = pieces.as_mut_ptr();
        // At most as many as fit the list; none for an empty message, since some devices take length 0 for 2 GiB.
        wr.num_sge = if extent.bytes == 0 { 0 } else { extent.pieces as i32 };
        wr.send_flags = flags.0;
        request.write(wr);
        // SAFETY: vacant, and the lock is held. From here on the guard is in the slot (I3).
        unsafe { ring.fill(seq, request.record(extent.bytes), Erased::new(payload), watched) };
        let mut bad = std::ptr::null_mut();
        // SAFETY: a live queue pair; the memory named is kept by the slot until a fence (I3).
        let code = unsafe { dispatch::ibv_post_send(self.raw.as_ptr(), wr, &raw mut bad) };
        if code != 0 {
            // SAFETY: filled and refused, and the lock is still held.
            let payload = unsafe { ring.unfill(seq) };
            // SAFETY: it was made of a `T`.
            return Err(refused(code, unsafe { payload.take::<T>() }));
        }
        ring.advance(&mut poster.count, seq);
        Ok(seq)
    }

    /// Takes in what has completed.
    #[cold]
    pub(super) fn make_room(&self) {
        // A device that can no longer be asked is reported by the waits; here the queue just stays full.
        let _ = self.send.cq.inner.reap();
    }

    /// The error of a queue without room.
    #[cold]
    pub(super) fn full(&self, side: Side, in_flight: u32) -> PostError {
        let queue = match side {
            Side::Send => "send",
            Side::Recv => "receive",
        };
        PostError::QueueFull { queue, capacity: self.ring(side).capacity(), in_flight }
    }
}

/// The device's refusal.
#[cold]
pub(super) fn refused<T>(code: i32, payload: T) -> Rejected<T> {
    let source = convention::status(code).err().unwrap_or(sys::Errno::EIO);
    Rejected::new(PostError::Refused { source }, payload)
}
