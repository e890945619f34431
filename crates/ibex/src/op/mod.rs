//! Operations in flight, and how they end.
//!
//! Owns [`Op`] and what comes out of it ([`Work`]). The errors that carry buffers back are in `error`.
//!
//! # Safety
//! An `Op` is the only one that claims its request's slot; it does so once, after the slot says *done* (I3).
#![allow(unsafe_code)]

mod error;

use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use error::{Failed, Rejected, Unfinished};

use crate::addr::Rkey;
use crate::cq::CqInner;
use crate::mem::Source;
use crate::qp::QpShared;
use crate::queue::{Ring, Slot};
use crate::wc::{CompletionError, Opcode, Record, Status, WorkCompletion};

mod sealed {
    pub trait Sealed {}
}

/// What an operation holds, and what it gives back.
///
/// | operation | holds | gives |
/// |---|---|---|
/// | SEND, WRITE, READ, RECV of a buffer `B` | `B` | `(B, WorkCompletion)` |
/// | inline SEND and WRITE | [`Inline`] | `WorkCompletion` |
/// | atomics | [`Atomic`] | the former value, `u64` |
pub trait Work: sealed::Sealed + Sized + Send + 'static {
    /// What a successful operation gives.
    type Output;

    /// Makes it; `received` says whether it was a receive.
    #[doc(hidden)]
    fn finish(self, wc: WorkCompletion, received: bool) -> Self::Output;

    /// Takes what the device left in memory that goes with the slot, while the slot still is the operation's. Must not
    /// panic.
    #[doc(hidden)]
    #[inline]
    fn land(&mut self) {}
}

impl<S: Source> sealed::Sealed for S {}

impl<S: Source> Work for S {
    type Output = (S, WorkCompletion);

    #[inline]
    fn finish(mut self, wc: WorkCompletion, received: bool) -> Self::Output {
        if received {
            // A WRITE with immediate data consumes a receive and puts nothing into its buffer.
            let bytes = if wc.opcode() == Opcode::RECV { wc.byte_len() } else { 0 };
            self.received(bytes);
        }
        (self, wc)
    }
}

/// Marks operations whose bytes were copied when they were posted, so that there is nothing to give back.
#[derive(Clone, Copy, Debug)]
pub struct Inline;

impl sealed::Sealed for Inline {}

impl Work for Inline {
    type Output = WorkCompletion;

    #[inline]
    fn finish(self, wc: WorkCompletion, _: bool) -> WorkCompletion {
        wc
    }
}

/// Marks atomics, whose result lands in a word of the queue pair.
#[derive(Clone, Copy, Debug)]
pub struct Atomic {
    cell: *const u64,
    /// What lay there when the operation was claimed: from then on the word is the next request's, or gone.
    former: u64,
}

// SAFETY: the word belongs to this operation alone until its slot is freed.
unsafe impl Send for Atomic {}

impl Atomic {
    /// The word at `cell`, which lives as long as the queue pair's shared part.
    pub(crate) fn new(cell: *const u64) -> Self {
        Self { cell, former: 0 }
    }
}

impl sealed::Sealed for Atomic {}

impl Work for Atomic {
    type Output = u64;

    #[inline]
    fn land(&mut self) {
        // SAFETY: aligned; mapped, since the operation keeps the queue pair's shared part until it has its slot's memory;
        // written by the device before the completion, and by nobody else before the slot is free.
        self.former = unsafe { crate::mem::load_u64(self.cell) };
    }

    #[inline]
    fn finish(self, _: WorkCompletion, _: bool) -> u64 {
        self.former
    }
}

/// Which queue of a queue pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    Send,
    Recv,
}

/// An operation that has been posted.
///
/// It owns what it was given until the device has confirmed its end. [`wait`](Self::wait) for it to get that back with the
/// result. Verbs have no way to cancel: dropping an `Op` lets the operation go on, and what it holds is dropped when it
/// ends; forgetting one (`std::mem::forget`) costs its slot until the queue pair is dropped. Neither frees memory early.
///
/// `'q` borrows the queue pair; [`into_static`](Self::into_static) makes an operation that can be kept anywhere.
#[must_use = "an operation that is dropped goes on, but its buffer is not given back and its result is lost"]
pub struct Op<'q, T: Work> {
    id: Id,
    /// A slot of the queue pair's ring, which lives as long as the queue pair's shared part.
    slot: NonNull<Slot>,
    work: PhantomData<(&'q QpShared, T)>,
}

/// Which request an operation waits for. Two scalars, so that it lives in registers.
#[derive(Clone, Copy)]
struct Id {
    /// From `Arc::as_ptr` of a queue pair that the operation borrows, or from `Arc::into_raw` if it has `SHARED`.
    qp: NonNull<QpShared>,
    /// The sequence number in the low half, flags in the high one.
    key: u64,
}

/// Flag of a request of the receive queue.
const RECV: u64 = 1 << 32;
/// Flag of a request whose operation holds a count of the queue pair.
const SHARED: u64 = 1 << 33;

// SAFETY: it is a reference to something `Sync`, or a count of something `Send` and `Sync`, and the right to take a `T`,
// which is `Send`, out of it.
unsafe impl<T: Work> Send for Op<'_, T> {}
// SAFETY: as above; a shared borrow gives nothing out.
unsafe impl<T: Work> Sync for Op<'_, T> {}

impl Id {
    #[inline]
    fn qp<'a>(self) -> &'a QpShared {
        // SAFETY: borrowed or counted by the operation whose request this is, within whose methods the reference is used.
        unsafe { self.qp.as_ref() }
    }

    #[inline]
    fn seq(self) -> u32 {
        // The low half.
        self.key as u32
    }

    #[inline]
    fn side(self) -> Side {
        if self.key & RECV == 0 { Side::Send } else { Side::Recv }
    }

    #[inline]
    fn ring<'a>(self) -> &'a Ring {
        self.qp().ring(self.side())
    }

    #[inline]
    fn cq<'a>(self) -> &'a CqInner {
        self.qp().cq(self.side())
    }

    /// Waits until it has ended; false if the device can no longer be asked or the deadline has passed.
    #[cold]
    #[inline(never)]
    fn block(self, slot: &Slot, deadline: Option<Instant>) -> bool {
        slot.is_done() || self.cq().wait(&|| slot.is_done(), deadline).unwrap_or(false)
    }

    /// The error of a request that ended with `record`.
    fn explain(self, record: &Record) -> CompletionError {
        let opcode = Opcode(record.opcode);
        // Failures come with a tail of flushed requests: take in those that are there before counting the rest.
        let _ = self.cq().reap();
        CompletionError {
            status: Status(record.status),
            opcode,
            bytes: record.byte_len,
            rkey: opcode.is_one_sided().then_some(Rkey(record.imm)),
            qpn: self.qp().qpn(),
            vendor_err: record.vendor_err,
            flushed: self.qp().posted_after(self.side(), self.seq()),
        }
    }

    /// Takes what a failed request held, and the reason.
    ///
    /// # Safety
    /// As [`Op::claim`]; posted with a `T`.
    #[cold]
    #[inline(never)]
    unsafe fn fail<T: Work>(self, slot: &Slot) -> Failed<T> {
        // SAFETY: the caller's promise.
        let record = unsafe { slot.record() };
        // SAFETY: the caller's promise.
        let payload = unsafe { slot.claim::<T>() };
        let error = self.explain(&record);
        self.release();
        Failed::new(error, Some(payload))
    }

    /// Gives a request up whose device can no longer be asked: nobody knows whether it goes on.
    #[cold]
    #[inline(never)]
    fn lose<T: Work>(self, slot: &Slot) -> Failed<T> {
        let mut record = self.cq().peek(slot).unwrap_or(Record::EMPTY);
        record.status = Status::FATAL_ERR.0;
        let error = self.explain(&record);
        self.abandon(slot);
        Failed::new(error, None)
    }

    /// Leaves a request to itself: what it holds is dropped when it ends.
    #[inline(never)]
    fn abandon(self, slot: &Slot) {
        if slot.is_done() || !self.cq().abandon(slot) {
            // SAFETY: done, and the operation that waits for it is going.
            drop(unsafe { slot.bury() });
        }
        self.release();
    }

    /// Gives up the count of the queue pair, if there is one.
    #[inline]
    fn release(self) {
        if self.key & SHARED != 0 {
            // SAFETY: the pointer is from an `Arc` of which the operation held a count; it is used no more.
            unsafe { Arc::decrement_strong_count(self.qp.as_ptr()) };
        }
    }
}

/// What a wait came to: the end of the operation, or the operation itself.
type Attempt<'q, T> = Result<<T as Work>::Output, Unfinished<'q, T>>;

impl<'q, T: Work> Op<'q, T> {
    #[inline]
    pub(crate) fn new(qp: &'q Arc<QpShared>, side: Side, seq: u32, slot: &'q Slot) -> Self {
        let flag = match side {
            Side::Send => 0,
            Side::Recv => RECV,
        };
        // Not by way of a reference to what is counted: a pointer made of one may not reach the count.
        // SAFETY: never null.
        let qp = unsafe { NonNull::new_unchecked(Arc::as_ptr(qp).cast_mut()) };
        let id = Id { qp, key: u64::from(seq) | flag };
        Self { id, slot: NonNull::from_ref(slot), work: PhantomData }
    }

    /// Its slot.
    #[inline]
    fn slot(&self) -> &Slot {
        // SAFETY: it lives as long as the queue pair's shared part, which is borrowed or counted.
        unsafe { self.slot.as_ref() }
    }

    /// Takes the operation apart. What it stands for is the caller's to settle, with the slot only until `release`.
    #[inline]
    fn into_parts<'a>(self) -> (Id, &'a Slot) {
        let this = ManuallyDrop::new(self);
        // SAFETY: as in `slot`; the count, if there is one, is kept until `release`.
        (this.id, unsafe { this.slot.as_ref() })
    }

    /// True if it has ended. Looks at the device once; never blocks.
    #[inline]
    #[must_use]
    pub fn poll(&self) -> bool {
        if self.slot().is_done() {
            return true;
        }
        // A device that can no longer be asked is reported by the waits.
        let _ = self.id.cq().reap();
        self.slot().is_done()
    }

    /// Waits for its end, as the completion queue's [`Wait`](crate::Wait) says.
    ///
    /// # Errors
    /// [`Failed`], with the reason and what the operation held.
    #[inline]
    pub fn wait(self) -> Result<T::Output, Failed<T>> {
        let (id, slot) = self.into_parts();
        if !slot.is_done() && !id.cq().reap_own(id.ring(), slot, id.seq(), id.side()) && !id.block(slot, None)
        {
            return Err(id.lose(slot));
        }
        // SAFETY: either the slot says done, or this operation has just reaped its own completion.
        unsafe { Self::claim(id, slot) }
    }

    /// The result if it has ended, or the operation again. Looks at the device once; never blocks.
    ///
    /// # Errors
    /// [`Unfinished::Pending`] with the operation, or [`Unfinished::Failed`].
    #[inline]
    pub fn try_wait(self) -> Attempt<'q, T> {
        if !self.poll() {
            return Err(Unfinished::Pending(self));
        }
        let (id, slot) = self.into_parts();
        // SAFETY: the slot says done.
        unsafe { Self::claim(id, slot) }.map_err(Unfinished::Failed)
    }

    /// Waits for its end, but no longer than `timeout`.
    ///
    /// # Errors
    /// [`Unfinished::Pending`] with the operation, which goes on and still holds its memory; [`Unfinished::Failed`].
    pub fn wait_timeout(self, timeout: Duration) -> Attempt<'q, T> {
        match Instant::now().checked_add(timeout) {
            Some(deadline) => self.wait_deadline(deadline),
            // Beyond the end of the clock.
            None => self.wait().map_err(Unfinished::Failed),
        }
    }

    /// Waits for its end, but not beyond `deadline`.
    ///
    /// # Errors
    /// As [`wait_timeout`](Self::wait_timeout).
    pub fn wait_deadline(self, deadline: Instant) -> Attempt<'q, T> {
        if self.poll() || self.id.block(self.slot(), Some(deadline)) {
            let (id, slot) = self.into_parts();
            // SAFETY: the slot says done.
            return unsafe { Self::claim(id, slot) }.map_err(Unfinished::Failed);
        }
        // Time is over, or the device cannot be asked: ask once more to tell these apart.
        if self.id.cq().reap().is_ok() {
            return Err(Unfinished::Pending(self));
        }
        let (id, slot) = self.into_parts();
        Err(Unfinished::Failed(id.lose(slot)))
    }

    /// Lets it go on with nobody waiting; the same as dropping it, said aloud. What it holds is dropped when it ends.
    pub fn detach(self) {
        drop(self);
    }

    /// An operation that does not borrow its queue pair, to be kept anywhere or sent to another thread. If the queue pair
    /// is dropped meanwhile, the operation ends as flushed.
    pub fn into_static(self) -> Op<'static, T> {
        let this = ManuallyDrop::new(self);
        let mut id = this.id;
        if id.key & SHARED == 0 {
            // SAFETY: the pointer is from an `Arc` that is borrowed.
            unsafe { Arc::increment_strong_count(id.qp.as_ptr()) };
            id.key |= SHARED;
        }
        Op { id, slot: this.slot, work: PhantomData }
    }

    /// Takes the result of a request that was posted with a `T`.
    ///
    /// # Safety
    /// The request is that of an operation which is no more, `slot` is its slot, and says done, or the operation has just
    /// reaped its own completion.
    #[inline]
    unsafe fn claim(id: Id, slot: &Slot) -> Result<T::Output, Failed<T>> {
        // SAFETY: the caller's promise.
        let record = unsafe { slot.record() };
        if record.status != Status::SUCCESS.0 {
            // SAFETY: the caller's promise.
            return Err(unsafe { id.fail(slot) });
        }
        // SAFETY: the caller's promise.
        let payload = unsafe { slot.claim_with(T::land) };
        id.release();
        Ok(payload.finish(WorkCompletion::new(record), id.side() == Side::Recv))
    }
}

impl<T: Work> Drop for Op<'_, T> {
    fn drop(&mut self) {
        self.id.abandon(self.slot());
    }
}

impl<T: Work> fmt::Debug for Op<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Op")
            .field("qpn", &self.id.qp().qpn())
            .field("side", &self.id.side())
            .field("done", &self.slot().is_done())
            .finish_non_exhaustive()
    }
}
