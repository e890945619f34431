//! Operations of the send queue.
//!
//! Owns the methods of a connected queue pair that send, write, read and do atomics, and the options of a request:
//! [`Post`] (fence, solicited) and [`Quiet`] (nobody waits). See ibv_post_send(3).

use std::sync::Arc;

use ibex_sys as sys;

use super::landing::Landing;
use super::state::Rts;
use super::submit::{Extent, Request};
use super::{Batch, PostError, QpShared, QueuePair};
use crate::mem::{Access, RemoteSlice, RemoteU64, Sink, Source};
use crate::op::{Atomic, Inline, Op, Rejected, Side, Work};
use crate::queue::Slot;
use crate::wc::Opcode;

/// An operation that has been posted, or what was to be its memory and why it was not.
pub type Posted<'q, T> = Result<Op<'q, T>, Rejected<T>>;

/// The options of the next request. Made by [`QueuePair::post`].
///
/// ```no_run
/// # fn f(qp: ibex::QueuePair, buf: ibex::Buf) -> ibex::Result<()> {
/// qp.post().fence().solicited().send(buf)?.wait()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy)]
#[must_use = "options do nothing until an operation is posted with them"]
pub struct Post<'q> {
    qp: &'q Arc<QpShared>,
    flags: sys::ibv_send_flags,
}

/// Requests that nobody waits for. Made by [`Post::unsignalled`].
///
/// They produce no completion: what they hold is dropped (a pool's buffer returns to it) once a later request of the same
/// queue has completed. The library signals one often enough that the queue never fills up with requests of unknown fate.
/// Whether one failed is seen by the next operation that somebody waits for: it is flushed.
#[derive(Clone, Copy)]
#[must_use = "options do nothing until an operation is posted with them"]
pub struct Quiet<'q> {
    post: Post<'q>,
}

/// A request that names no memory of the peer.
const fn two_sided(opcode: sys::ibv_wr_opcode, flags: sys::ibv_send_flags) -> Request {
    Request::plain(opcode, Opcode::SEND, flags)
}

impl<'q> Post<'q> {
    #[inline]
    fn new(qp: &'q Arc<QpShared>) -> Self {
        Self { qp, flags: sys::ibv_send_flags(0) }
    }

    /// Begins only after all earlier READs and atomics of this queue pair have ended: their results can be sent.
    #[inline]
    pub fn fence(mut self) -> Self {
        self.flags |= sys::IBV_SEND_FENCE;
        self
    }

    /// Wakes a peer that waits for solicited messages only. Has a meaning for messages and for WRITEs with immediate data.
    #[inline]
    pub fn solicited(mut self) -> Self {
        self.flags |= sys::IBV_SEND_SOLICITED;
        self
    }

    /// Nobody will wait for it.
    #[inline]
    pub fn unsignalled(self) -> Quiet<'q> {
        Quiet { post: self }
    }

    #[inline]
    fn op<T: Work>(self, (seq, slot): (u32, &'q Slot)) -> Op<'q, T> {
        Op::new(self.qp, Side::Send, seq, slot)
    }

    /// As [`QueuePair::send`].
    ///
    /// # Errors
    /// As [`QueuePair::send`].
    #[inline]
    pub fn send<B: Source>(self, buf: B) -> Posted<'q, B> {
        let posted = self.outgoing(two_sided(sys::IBV_WR_SEND, self.flags), buf, true)?;
        Ok(self.op(posted))
    }

    /// As [`QueuePair::send_with_imm`].
    ///
    /// # Errors
    /// As [`QueuePair::send`].
    #[inline]
    pub fn send_with_imm<B: Source>(self, buf: B, imm: u32) -> Posted<'q, B> {
        let request = two_sided(sys::IBV_WR_SEND_WITH_IMM, self.flags).with_imm(imm);
        let posted = self.outgoing(request, buf, true)?;
        Ok(self.op(posted))
    }

    /// As [`QueuePair::send_inline`].
    ///
    /// # Errors
    /// As [`QueuePair::send_inline`].
    #[inline]
    pub fn send_inline(self, bytes: &[u8]) -> Result<Op<'q, Inline>, PostError> {
        let posted = self.inline(two_sided(sys::IBV_WR_SEND, self.flags), bytes, true)?;
        Ok(self.op(posted))
    }

    /// As [`QueuePair::write`].
    ///
    /// # Errors
    /// As [`QueuePair::write`].
    #[inline]
    pub fn write<B: Source>(self, buf: B, target: RemoteSlice) -> Posted<'q, B> {
        let posted = self.to_remote(sys::IBV_WR_RDMA_WRITE, 0, buf, target, true)?;
        Ok(self.op(posted))
    }

    /// As [`QueuePair::write_with_imm`].
    ///
    /// # Errors
    /// As [`QueuePair::write`].
    #[inline]
    pub fn write_with_imm<B: Source>(self, buf: B, target: RemoteSlice, imm: u32) -> Posted<'q, B> {
        let posted = self.to_remote(sys::IBV_WR_RDMA_WRITE_WITH_IMM, imm, buf, target, true)?;
        Ok(self.op(posted))
    }

    /// As [`QueuePair::write_inline`].
    ///
    /// # Errors
    /// As [`QueuePair::write_inline`].
    #[inline]
    pub fn write_inline(self, bytes: &[u8], target: RemoteSlice) -> Result<Op<'q, Inline>, PostError> {
        let posted = self.inline_to_remote(bytes, target, true)?;
        Ok(self.op(posted))
    }

    /// As [`QueuePair::read`].
    ///
    /// # Errors
    /// As [`QueuePair::read`].
    #[inline]
    pub fn read<B: Sink>(self, buf: B, source: RemoteSlice) -> Posted<'q, B> {
        let request =
            Request::remote(sys::IBV_WR_RDMA_READ, Opcode::RDMA_READ, self.flags, source.addr, source.rkey);
        if let Err(error) = allowed(buf.bytes(), source, Access::REMOTE_READ) {
            return Err(Rejected::new(error, Box::new(buf)));
        }
        let posted = self.outgoing(request, buf, true)?;
        Ok(self.op(posted))
    }

    /// As [`QueuePair::fetch_add`].
    ///
    /// # Errors
    /// As [`QueuePair::fetch_add`].
    #[inline]
    pub fn fetch_add(self, target: RemoteU64, add: u64) -> Result<Op<'q, Atomic>, PostError> {
        self.atomic(sys::IBV_WR_ATOMIC_FETCH_AND_ADD, Opcode::FETCH_ADD, target, (add, 0))
    }

    /// As [`QueuePair::compare_swap`].
    ///
    /// # Errors
    /// As [`QueuePair::fetch_add`].
    #[inline]
    pub fn compare_swap(
        self,
        target: RemoteU64,
        expected: u64,
        new: u64,
    ) -> Result<Op<'q, Atomic>, PostError> {
        self.atomic(sys::IBV_WR_ATOMIC_CMP_AND_SWP, Opcode::COMP_SWAP, target, (expected, new))
    }

    /// Posts what carries a buffer.
    #[inline]
    fn outgoing<B: Source>(
        self,
        request: Request,
        buf: B,
        watched: bool,
    ) -> Result<(u32, &'q Slot), Rejected<B>> {
        self.qp.submit(request, buf, watched, |buf, _, pieces| {
            let bytes = buf.message()?;
            Some(Extent { pieces: buf.gather(pieces), bytes })
        })
    }

    /// Posts a WRITE.
    #[inline]
    fn to_remote<B: Source>(
        self,
        opcode: sys::ibv_wr_opcode,
        imm: u32,
        buf: B,
        target: RemoteSlice,
        watched: bool,
    ) -> Result<(u32, &'q Slot), Rejected<B>> {
        if let Err(error) = allowed(buf.bytes(), target, Access::REMOTE_WRITE) {
            return Err(Rejected::new(error, Box::new(buf)));
        }
        let request = Request::remote(opcode, Opcode::RDMA_WRITE, self.flags, target.addr, target.rkey);
        self.outgoing(request.with_imm(imm), buf, watched)
    }

    /// Posts what is copied by the post.
    #[inline]
    fn inline(self, mut request: Request, bytes: &[u8], watched: bool) -> Result<(u32, &'q Slot), PostError> {
        let max = self.qp.caps.max_inline as usize;
        if bytes.len() > max {
            return Err(PostError::InlineTooLong { bytes: bytes.len(), max });
        }
        request.flags |= sys::IBV_SEND_INLINE;
        // At most `max_inline`, a `u32`.
        let length = bytes.len() as u32;
        let posted = self.qp.submit(request, Inline, watched, |_, _, pieces| {
            if let Some(first) = pieces.first_mut() {
                *first = sys::ibv_sge { addr: bytes.as_ptr() as u64, length, lkey: 0 };
            }
            Some(Extent { pieces: 1, bytes: length })
        });
        posted.map_err(|rejected| rejected.into_parts().0)
    }

    /// Posts a WRITE that is copied by the post.
    #[inline]
    fn inline_to_remote(
        self,
        bytes: &[u8],
        target: RemoteSlice,
        watched: bool,
    ) -> Result<(u32, &'q Slot), PostError> {
        allowed(bytes.len(), target, Access::REMOTE_WRITE)?;
        let opcode = sys::IBV_WR_RDMA_WRITE;
        let request = Request::remote(opcode, Opcode::RDMA_WRITE, self.flags, target.addr, target.rkey);
        self.inline(request, bytes, watched)
    }

    /// Posts an atomic, whose result lands in the word of its slot.
    fn atomic(
        self,
        opcode: sys::ibv_wr_opcode,
        completes: Opcode,
        target: RemoteU64,
        operands: (u64, u64),
    ) -> Result<Op<'q, Atomic>, PostError> {
        if !target.access.contains(Access::REMOTE_ATOMIC) {
            return Err(PostError::NoRight { needs: Access::REMOTE_ATOMIC, has: target.access });
        }
        let landing = self.qp.landing()?;
        let mut request = Request::remote(opcode, completes, self.flags, target.addr, target.rkey);
        request.operands = Some(operands);
        let posted = self.qp.submit(request, Atomic::new(std::ptr::null()), true, |atomic, seq, pieces| {
            let (word, piece) = landing.word(seq);
            *atomic = Atomic::new(word);
            if let Some(first) = pieces.first_mut() {
                *first = piece;
            }
            Some(Extent { pieces: 1, bytes: 8 })
        });
        match posted {
            Ok(posted) => Ok(self.op(posted)),
            Err(rejected) => Err(rejected.into_parts().0),
        }
    }
}

/// Checks an operation against what the peer's handle allows.
#[inline]
pub(super) fn allowed(bytes: usize, remote: RemoteSlice, needs: Access) -> Result<(), PostError> {
    if !remote.access.contains(needs) {
        return Err(PostError::NoRight { needs, has: remote.access });
    }
    if bytes as u64 > remote.len {
        return Err(PostError::BeyondRemote { bytes, room: remote.len });
    }
    Ok(())
}

impl QpShared {
    /// The words where atomics land, made when first needed.
    fn landing(&self) -> Result<&Landing, PostError> {
        if let Some(landing) = self.landing.get() {
            return Ok(landing);
        }
        let new = Landing::new(&self.pd, self.send.ring.capacity())?;
        // Another thread may have been faster: its words are used and these are dropped.
        Ok(self.landing.get_or_init(|| new))
    }
}

impl Quiet<'_> {
    /// As [`QueuePair::send`], and nobody waits.
    ///
    /// # Errors
    /// As [`QueuePair::send`].
    #[inline]
    pub fn send<B: Source>(self, buf: B) -> Result<(), Rejected<B>> {
        let request = two_sided(sys::IBV_WR_SEND, self.post.flags);
        self.post.outgoing(request, buf, false).map(drop)
    }

    /// As [`QueuePair::send_with_imm`], and nobody waits.
    ///
    /// # Errors
    /// As [`QueuePair::send`].
    #[inline]
    pub fn send_with_imm<B: Source>(self, buf: B, imm: u32) -> Result<(), Rejected<B>> {
        let request = two_sided(sys::IBV_WR_SEND_WITH_IMM, self.post.flags).with_imm(imm);
        self.post.outgoing(request, buf, false).map(drop)
    }

    /// As [`QueuePair::send_inline`], and nobody waits.
    ///
    /// # Errors
    /// As [`QueuePair::send_inline`].
    #[inline]
    pub fn send_inline(self, bytes: &[u8]) -> Result<(), PostError> {
        let request = two_sided(sys::IBV_WR_SEND, self.post.flags);
        self.post.inline(request, bytes, false).map(drop)
    }

    /// As [`QueuePair::write`], and nobody waits.
    ///
    /// # Errors
    /// As [`QueuePair::write`].
    #[inline]
    pub fn write<B: Source>(self, buf: B, target: RemoteSlice) -> Result<(), Rejected<B>> {
        self.post.to_remote(sys::IBV_WR_RDMA_WRITE, 0, buf, target, false).map(drop)
    }

    /// As [`QueuePair::write_with_imm`], and nobody waits.
    ///
    /// # Errors
    /// As [`QueuePair::write`].
    #[inline]
    pub fn write_with_imm<B: Source>(self, buf: B, target: RemoteSlice, imm: u32) -> Result<(), Rejected<B>> {
        self.post.to_remote(sys::IBV_WR_RDMA_WRITE_WITH_IMM, imm, buf, target, false).map(drop)
    }

    /// As [`QueuePair::write_inline`], and nobody waits.
    ///
    /// # Errors
    /// As [`QueuePair::write_inline`].
    #[inline]
    pub fn write_inline(self, bytes: &[u8], target: RemoteSlice) -> Result<(), PostError> {
        self.post.inline_to_remote(bytes, target, false).map(drop)
    }
}

impl QueuePair<Rts> {
    /// The next request with options: a fence, a solicited event, nobody waiting.
    #[inline]
    pub fn post(&self) -> Post<'_> {
        Post::new(self.shared())
    }

    /// Requests to be posted together, with one doorbell.
    pub fn batch<B: Source>(&self) -> Batch<'_, B> {
        Batch::new(self.shared())
    }

    /// Sends the content of `buf` as a message, into a receive that the peer has posted.
    ///
    /// # Errors
    /// [`Rejected`], with the reason and the buffer: [`PostError::QueueFull`], [`PostError::TooManyPieces`],
    /// [`PostError::TooLong`], or [`PostError::Refused`] by the device.
    #[doc(alias = "ibv_post_send")]
    #[doc(alias = "IBV_WR_SEND")]
    #[inline]
    pub fn send<B: Source>(&self, buf: B) -> Posted<'_, B> {
        self.post().send(buf)
    }

    /// Sends a message with 32 bits of immediate data, which the peer finds in its completion.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    #[doc(alias = "IBV_WR_SEND_WITH_IMM")]
    #[inline]
    pub fn send_with_imm<B: Source>(&self, buf: B, imm: u32) -> Posted<'_, B> {
        self.post().send_with_imm(buf, imm)
    }

    /// Sends a few bytes, copied into the request: no buffer is needed. At most [`max_inline`](crate::QpCaps) bytes.
    ///
    /// # Errors
    /// [`PostError::InlineTooLong`], [`PostError::QueueFull`], [`PostError::Refused`].
    #[doc(alias = "IBV_SEND_INLINE")]
    #[inline]
    pub fn send_inline(&self, bytes: &[u8]) -> Result<Op<'_, Inline>, PostError> {
        self.post().send_inline(bytes)
    }

    /// Sends the content of several buffers, one after the other, as one message.
    ///
    /// # Errors
    /// As [`send`](Self::send); [`PostError::TooManyPieces`] if there are more buffers than `max_send_sge`.
    #[inline]
    pub fn send_vectored<B: Source>(&self, bufs: impl IntoIterator<Item = B>) -> Posted<'_, Vec<B>> {
        self.post().send(bufs.into_iter().collect())
    }

    /// Writes the content of `buf` to the start of `target`, in the peer's memory. The peer's program takes no part.
    ///
    /// # Errors
    /// As [`send`](Self::send), and [`PostError::BeyondRemote`], [`PostError::NoRight`].
    #[doc(alias = "IBV_WR_RDMA_WRITE")]
    #[inline]
    pub fn write<B: Source>(&self, buf: B, target: RemoteSlice) -> Posted<'_, B> {
        self.post().write(buf, target)
    }

    /// Writes as [`write`](Self::write), and consumes a receive of the peer, which finds the immediate data and the number
    /// of bytes in its completion.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    #[doc(alias = "IBV_WR_RDMA_WRITE_WITH_IMM")]
    #[inline]
    pub fn write_with_imm<B: Source>(&self, buf: B, target: RemoteSlice, imm: u32) -> Posted<'_, B> {
        self.post().write_with_imm(buf, target, imm)
    }

    /// Writes a few bytes, copied into the request. At most [`max_inline`](crate::QpCaps) bytes.
    ///
    /// # Errors
    /// As [`send_inline`](Self::send_inline), and [`PostError::BeyondRemote`], [`PostError::NoRight`].
    #[inline]
    pub fn write_inline(&self, bytes: &[u8], target: RemoteSlice) -> Result<Op<'_, Inline>, PostError> {
        self.post().write_inline(bytes, target)
    }

    /// Reads from the start of `source`, in the peer's memory, as many bytes as `buf` is long.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    #[doc(alias = "IBV_WR_RDMA_READ")]
    #[inline]
    pub fn read<B: Sink>(&self, buf: B, source: RemoteSlice) -> Posted<'_, B> {
        self.post().read(buf, source)
    }

    /// Adds to a word of the peer's memory; the operation gives its former value. Atomic with respect to other atomics of
    /// the peer's device, and as [`AtomicCap`](crate::AtomicCap) says with respect to its processor.
    ///
    /// # Errors
    /// [`PostError::NoRight`], [`PostError::QueueFull`], [`PostError::Refused`], and [`PostError::Landing`] if the words
    /// for results, registered at the first atomic, cannot be.
    #[doc(alias = "IBV_WR_ATOMIC_FETCH_AND_ADD")]
    #[inline]
    pub fn fetch_add(&self, target: RemoteU64, add: u64) -> Result<Op<'_, Atomic>, PostError> {
        self.post().fetch_add(target, add)
    }

    /// Sets a word of the peer's memory to `new` if it is `expected`; the operation gives its former value.
    ///
    /// # Errors
    /// As [`fetch_add`](Self::fetch_add).
    #[doc(alias = "IBV_WR_ATOMIC_CMP_AND_SWP")]
    #[inline]
    pub fn compare_swap(
        &self,
        target: RemoteU64,
        expected: u64,
        new: u64,
    ) -> Result<Op<'_, Atomic>, PostError> {
        self.post().compare_swap(target, expected, new)
    }
}
