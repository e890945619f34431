//! Many requests, one doorbell.
//!
//! Owns [`Batch`]: collects requests and posts them with one call of the device. A batch that is dropped posts nothing and
//! drops its buffers.
//!
//! # Safety
//! As in `submit`: every guard is in its slot before anything is posted (I3).
#![allow(unsafe_code)]

use std::fmt;
use std::sync::Arc;

use ibex_sys::{self as sys, convention};

use super::post::allowed;
use super::submit::Request;
use super::{PostError, QpShared};
use crate::mem::{Access, RemoteSlice, Sink, Source};
use crate::op::{Op, Rejected, Side};
use crate::queue::Erased;
use crate::wc::Opcode;

/// Requests to be posted together. Made by [`QueuePair::batch`](crate::QueuePair::batch).
///
/// ```no_run
/// # fn f(qp: ibex::QueuePair, pool: ibex::Pool, target: ibex::RemoteRegion) -> ibex::Result<()> {
/// let mut batch = qp.batch();
/// for i in 0..8 {
///     batch.write(pool.take()?, target.at(i * 4096))?;
/// }
/// for op in batch.post()? {
///     op.wait()?;
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "a batch posts nothing until `post`"]
pub struct Batch<'q, B: Source> {
    qp: &'q Arc<QpShared>,
    items: Vec<(Request, B)>,
}

impl<'q, B: Source> Batch<'q, B> {
    pub(super) fn new(qp: &'q Arc<QpShared>) -> Self {
        Self { qp, items: Vec::new() }
    }

    /// Requests collected.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// True if there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Adds a message, as [`QueuePair::send`](crate::QueuePair::send).
    ///
    /// # Errors
    /// [`PostError::TooLong`], with the buffer.
    pub fn send(&mut self, buf: B) -> Result<(), Rejected<B>> {
        self.add(Request::plain(sys::IBV_WR_SEND, Opcode::SEND, sys::IBV_SEND_SIGNALED), buf)
    }

    /// Adds a message with immediate data.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_with_imm(&mut self, buf: B, imm: u32) -> Result<(), Rejected<B>> {
        let request = Request::plain(sys::IBV_WR_SEND_WITH_IMM, Opcode::SEND, sys::IBV_SEND_SIGNALED);
        self.add(request.with_imm(imm), buf)
    }

    /// Adds a WRITE, as [`QueuePair::write`](crate::QueuePair::write).
    ///
    /// # Errors
    /// [`PostError::TooLong`], [`PostError::BeyondRemote`], [`PostError::NoRight`], with the buffer.
    pub fn write(&mut self, buf: B, target: RemoteSlice) -> Result<(), Rejected<B>> {
        self.one_sided(sys::IBV_WR_RDMA_WRITE, Opcode::RDMA_WRITE, Access::REMOTE_WRITE, 0, buf, target)
    }

    /// Adds a WRITE with immediate data.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_with_imm(&mut self, buf: B, target: RemoteSlice, imm: u32) -> Result<(), Rejected<B>> {
        let opcode = sys::IBV_WR_RDMA_WRITE_WITH_IMM;
        self.one_sided(opcode, Opcode::RDMA_WRITE, Access::REMOTE_WRITE, imm, buf, target)
    }

    /// Adds a READ, as [`QueuePair::read`](crate::QueuePair::read).
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn read(&mut self, buf: B, source: RemoteSlice) -> Result<(), Rejected<B>>
    where
        B: Sink,
    {
        self.one_sided(sys::IBV_WR_RDMA_READ, Opcode::RDMA_READ, Access::REMOTE_READ, 0, buf, source)
    }

    fn one_sided(
        &mut self,
        opcode: sys::ibv_wr_opcode,
        completes: Opcode,
        needs: Access,
        imm: u32,
        buf: B,
        remote: RemoteSlice,
    ) -> Result<(), Rejected<B>> {
        if let Err(error) = allowed(buf.bytes(), remote, needs) {
            return Err(Rejected::new(error, Box::new(buf)));
        }
        let flags = sys::IBV_SEND_SIGNALED;
        self.add(Request::remote(opcode, completes, flags, remote.addr, remote.rkey).with_imm(imm), buf)
    }

    fn add(&mut self, request: Request, buf: B) -> Result<(), Rejected<B>> {
        if buf.message().is_none() {
            return Err(Rejected::new(PostError::TooLong, Box::new(buf)));
        }
        self.items.push((request, buf));
        Ok(())
    }

    /// Posts all of them, in order, with one doorbell; returns their operations in the same order.
    ///
    /// # Errors
    /// [`BatchError`], with the operations that were posted before the refusal and the buffers of the rest. If the queue
    /// has no room for all, none is posted.
    pub fn post(self) -> Result<Vec<Op<'q, B>>, BatchError<'q, B>> {
        let Self { qp, items } = self;
        if items.is_empty() {
            return Ok(Vec::new());
        }
        // Requests that nobody waits for end unnoticed: look before counting the room.
        qp.make_room();
        let Some(mut list) = List::gather(qp, items)? else { return Ok(Vec::new()) };
        list.post()
    }
}

impl<B: Source> fmt::Debug for Batch<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// Work requests with their pieces of memory and what they are to hold.
struct List<'q, B> {
    qp: &'q Arc<QpShared>,
    wrs: Vec<sys::ibv_send_wr>,
    /// The pieces of all requests, one after the other.
    pieces: Vec<sys::ibv_sge>,
    items: Vec<(Request, B)>,
}

impl<'q, B: Source> List<'q, B> {
    /// Builds the requests, all but their numbers.
    fn gather(qp: &'q Arc<QpShared>, items: Vec<(Request, B)>) -> Result<Option<Self>, BatchError<'q, B>> {
        let max = qp.caps.max_send_sge.max(1) as usize;
        let mut pieces = vec![sys::ibv_sge::default(); max * items.len()];
        let mut wrs = Vec::with_capacity(items.len());
        for ((request, buf), list) in items.iter().zip(pieces.chunks_exact_mut(max)) {
            let count = buf.gather(list);
            if count > max {
                let error = PostError::TooManyPieces { pieces: count, max };
                let rest = items.into_iter().map(|(_, buf)| buf).collect();
                return Err(BatchError { error, posted: Vec::new(), rest });
            }
            let mut wr = sys::ibv_send_wr { sg_list: list.as_mut_ptr(), ..Default::default() };
            // At most `max`.
            wr.num_sge = count as i32;
            wr.send_flags = request.flags.0;
            request.write(&mut wr);
            wrs.push(wr);
        }
        Ok(Some(Self { qp, wrs, pieces, items }))
    }

    fn post(&mut self) -> Result<Vec<Op<'q, B>>, BatchError<'q, B>> {
        let qp = self.qp;
        let ring = &*qp.send.ring;
        let mut poster = qp.send.poster.lock();
        let mut count = poster.count.clone();
        // The number of each request, and the count with it and those before it posted.
        let mut seqs = Vec::with_capacity(self.wrs.len());
        let mut start = None;
        let wanted = self.wrs.len();
        for wr in &mut self.wrs {
            // Slots chosen before still are vacant, for nothing is in them yet: once around the ring is enough.
            let found = ring.vacant(&mut count).is_some();
            if !found || ring.is_around(*start.get_or_insert(count.next), count.next) {
                let in_flight = ring.in_flight(&poster.count);
                drop(poster);
                let error = qp.full(Side::Send, wanted, in_flight, Box::new(())).into_parts().0;
                let rest = self.items.drain(..).map(|(_, buf)| buf).collect();
                return Err(BatchError { error, posted: Vec::new(), rest });
            }
            let seq = count.next;
            wr.wr_id = ring.wr_id(seq);
            ring.advance(&mut count);
            seqs.push((seq, count.clone()));
        }
        for ((seq, _), (request, buf)) in seqs.iter().zip(self.items.drain(..)) {
            // At most 2^31, checked when it was added.
            let record = request.record(buf.bytes() as u32);
            // SAFETY: vacant, each once, and the lock is held. From here on the guards are in the slots (I3).
            unsafe { ring.slot(*seq).fill(*seq, record, Erased::new(buf), true) };
        }
        let first = self.link();
        let mut bad = std::ptr::null_mut();
        // SAFETY: a live queue pair, its device's own function, a valid list; the memory named is kept by the slots until a fence (I3).
        let code = unsafe { (qp.post_send)(qp.raw.as_ptr(), first, &raw mut bad) };
        let posted = if code == 0 { self.wrs.len() } else { self.position(bad) };
        if let Some((_, count)) = seqs[..posted].last() {
            poster.count = count.clone();
            ring.signalled(&mut poster.count, true);
        }
        let mut rest = Vec::new();
        for (seq, _) in &seqs[posted..] {
            // SAFETY: never posted, and the lock is still held.
            rest.push(unsafe { ring.slot(*seq).claim::<B>() });
        }
        drop(poster);
        let posted =
            seqs[..posted].iter().map(|&(seq, _)| Op::new(qp, Side::Send, seq, ring.slot(seq))).collect();
        match convention::status(code) {
            Ok(()) => Ok(posted),
            Err(source) => Err(BatchError { error: PostError::Refused { source }, posted, rest }),
        }
    }

    /// Links the requests and returns the first.
    fn link(&mut self) -> *mut sys::ibv_send_wr {
        debug_assert!(!self.pieces.is_empty());
        let base = self.wrs.as_mut_ptr();
        for (index, wr) in self.wrs.iter_mut().enumerate().rev().skip(1) {
            wr.next = base.wrapping_add(index + 1);
        }
        base
    }

    /// How many requests come before the one that was refused; none if the device does not tell.
    fn position(&self, bad: *const sys::ibv_send_wr) -> usize {
        self.wrs.iter().position(|wr| std::ptr::eq(wr, bad)).unwrap_or(0)
    }
}

/// A batch that was not posted, or not to its end.
pub struct BatchError<'q, B: Source> {
    /// Why.
    pub error: PostError,
    /// Operations of the requests before the one that was refused.
    pub posted: Vec<Op<'q, B>>,
    /// Buffers of the others, in order.
    pub rest: Vec<B>,
}

impl<B: Source> fmt::Debug for BatchError<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchError")
            .field("error", &self.error)
            .field("posted", &self.posted.len())
            .field("rest", &self.rest.len())
            .finish()
    }
}

impl<B: Source> fmt::Display for BatchError<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (posted, all) = (self.posted.len(), self.posted.len() + self.rest.len());
        write!(f, "{posted} of {all} requests posted: {}", self.error)
    }
}

impl<B: Source> std::error::Error for BatchError<'_, B> {}

impl<B: Source> From<BatchError<'_, B>> for crate::Error {
    /// Keeps the reason. What was posted goes on with nobody waiting; the other buffers are dropped.
    fn from(error: BatchError<'_, B>) -> Self {
        Self::Post(error.error)
    }
}
