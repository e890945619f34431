//! Operations in flight, and how they end.
//!
//! Owns [`Op`], what comes out of it ([`Work`]), and the errors that carry buffers back: [`Rejected`] (never posted),
//! [`Failed`] (ran and failed), [`Unfinished`] (still running).
//!
//! # Safety
//! An `Op` is the only one that claims its request's slot; it does so once, after the slot says *done* (I3).
#![allow(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::addr::Rkey;
use crate::cq::CqInner;
use crate::mem::Source;
use crate::qp::{PostError, QpShared};
use crate::queue::Ring;
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

    /// Makes it.
    #[doc(hidden)]
    fn finish(self, wc: WorkCompletion) -> Self::Output;
}

impl<S: Source> sealed::Sealed for S {}

impl<S: Source> Work for S {
    type Output = (S, WorkCompletion);

    #[inline]
    fn finish(mut self, wc: WorkCompletion) -> Self::Output {
        if wc.opcode().is_recv() {
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
    fn finish(self, wc: WorkCompletion) -> WorkCompletion {
        wc
    }
}

/// Marks atomics, whose result lands in a word of the queue pair.
#[derive(Clone, Copy, Debug)]
pub struct Atomic {
    cell: *const u64,
}

// SAFETY: the word belongs to this operation alone until it ends.
unsafe impl Send for Atomic {}

impl Atomic {
    /// The word at `cell`, which lives as long as the queue pair's shared part.
    pub(crate) fn new(cell: *const u64) -> Self {
        Self { cell }
    }
}

impl sealed::Sealed for Atomic {}

impl Work for Atomic {
    type Output = u64;

    fn finish(self, _: WorkCompletion) -> u64 {
        // SAFETY: aligned, mapped while the operation's queue pair exists, written by the device before the completion.
        unsafe { crate::mem::load_u64(self.cell) }
    }
}

/// Which queue of a queue pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    Send,
    Recv,
}

/// The queue pair of an operation, borrowed or shared.
enum Link<'q> {
    Borrowed(&'q Arc<QpShared>),
    Shared(Arc<QpShared>),
}

impl Deref for Link<'_> {
    type Target = Arc<QpShared>;

    #[inline]
    fn deref(&self) -> &Arc<QpShared> {
        match self {
            Self::Borrowed(qp) => qp,
            Self::Shared(qp) => qp,
        }
    }
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
    qp: Link<'q>,
    seq: u32,
    side: Side,
    work: PhantomData<T>,
}

/// What a wait came to: the end of the operation, or the operation itself.
type Attempt<'q, T> = Result<<T as Work>::Output, Unfinished<'q, T>>;

impl<'q, T: Work> Op<'q, T> {
    #[inline]
    pub(crate) fn new(qp: &'q Arc<QpShared>, side: Side, seq: u32) -> Self {
        Self { qp: Link::Borrowed(qp), seq, side, work: PhantomData }
    }

    #[inline]
    fn ring(&self) -> &Ring {
        self.qp.ring(self.side)
    }

    #[inline]
    fn cq(&self) -> &CqInner {
        self.qp.cq(self.side)
    }

    #[inline]
    fn is_done(&self) -> bool {
        self.ring().is_done(self.seq)
    }

    /// True if it has ended. Looks at the device once; never blocks.
    #[inline]
    #[must_use]
    pub fn poll(&self) -> bool {
        if self.is_done() {
            return true;
        }
        // A device that can no longer be asked is reported by the waits.
        let _ = self.cq().reap();
        self.is_done()
    }

    /// Waits for its end, as the completion queue's [`Wait`](crate::Wait) says.
    ///
    /// # Errors
    /// [`Failed`], with the reason and what the operation held.
    #[inline]
    pub fn wait(self) -> Result<T::Output, Failed<T>> {
        if self.poll() { self.claim() } else { self.wait_slow() }
    }

    #[cold]
    fn wait_slow(self) -> Result<T::Output, Failed<T>> {
        match self.cq().wait(&|| self.is_done(), None) {
            Ok(_) => self.claim(),
            Err(_) => Err(self.lost()),
        }
    }

    /// The result if it has ended, or the operation again. Looks at the device once; never blocks.
    ///
    /// # Errors
    /// [`Unfinished::Pending`] with the operation, or [`Unfinished::Failed`].
    #[inline]
    pub fn try_wait(self) -> Attempt<'q, T> {
        if self.poll() { self.claim().map_err(Unfinished::Failed) } else { Err(Unfinished::Pending(self)) }
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
        if self.poll() {
            return self.claim().map_err(Unfinished::Failed);
        }
        match self.cq().wait(&|| self.is_done(), Some(deadline)) {
            Ok(true) => self.claim().map_err(Unfinished::Failed),
            Ok(false) => Err(Unfinished::Pending(self)),
            Err(_) => Err(Unfinished::Failed(self.lost())),
        }
    }

    /// Lets it go on with nobody waiting; the same as dropping it, said aloud. What it holds is dropped when it ends.
    pub fn detach(self) {
        drop(self);
    }

    /// An operation that does not borrow its queue pair, to be kept anywhere or sent to another thread. If the queue pair
    /// is dropped meanwhile, the operation ends as flushed.
    pub fn into_static(self) -> Op<'static, T> {
        let this = ManuallyDrop::new(self);
        let qp = Link::Shared(Arc::clone(&this.qp));
        let op = Op { qp, seq: this.seq, side: this.side, work: PhantomData };
        // SAFETY: `this` is not dropped, so its link, which may hold a count, is taken once.
        drop(unsafe { std::ptr::read(&raw const this.qp) });
        op
    }

    /// Takes the result of an operation that is done.
    #[inline]
    fn claim(self) -> Result<T::Output, Failed<T>> {
        debug_assert!(self.is_done());
        let this = ManuallyDrop::new(self);
        // SAFETY: done, and this operation is the one that waits for it; it is consumed here.
        let (record, guard) = unsafe { this.ring().claim(this.seq) };
        // SAFETY: posted with a `T`.
        let payload = unsafe { guard.take::<T>() };
        let result = if record.status == Status::SUCCESS.0 {
            Ok(payload.finish(WorkCompletion::new(record)))
        } else {
            Err(Failed { error: this.explain(record), payload: Some(payload) })
        };
        // SAFETY: `this` is not dropped, so its link, which may hold a count, is taken once.
        drop(unsafe { std::ptr::read(&raw const this.qp) });
        result
    }

    /// The error of a device that can no longer be asked: nobody knows whether the operation goes on.
    #[cold]
    fn lost(self) -> Failed<T> {
        let mut record = self.cq().peek(self.ring(), self.seq).unwrap_or_default();
        record.status = Status::FATAL_ERR.0;
        Failed { error: self.explain(record), payload: None }
    }

    /// Puts an error together.
    #[cold]
    fn explain(&self, record: Record) -> Box<CompletionError> {
        let opcode = Opcode(record.opcode);
        // Failures come with a tail of flushed requests: take in those that are there before counting the rest.
        let _ = self.cq().reap();
        Box::new(CompletionError {
            status: Status(record.status),
            opcode,
            bytes: record.byte_len,
            rkey: opcode.is_one_sided().then_some(Rkey(record.imm)),
            qpn: self.qp.qpn(),
            vendor_err: record.vendor_err,
            flushed: self.qp.posted_after(self.side, self.seq),
        })
    }
}

impl<T: Work> Drop for Op<'_, T> {
    fn drop(&mut self) {
        if !self.is_done() && self.cq().abandon(self.ring(), self.seq) {
            return;
        }
        // SAFETY: done, and this operation is the one that waits for it; it is going.
        let (_, guard) = unsafe { self.ring().claim(self.seq) };
        drop(guard);
    }
}

impl<T: Work> fmt::Debug for Op<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Op")
            .field("qpn", &self.qp.qpn())
            .field("side", &self.side)
            .field("done", &self.is_done())
            .finish_non_exhaustive()
    }
}

/// A request that was not posted, and what was to be its memory.
pub struct Rejected<T> {
    error: Box<PostError>,
    payload: T,
}

impl<T> Rejected<T> {
    #[cold]
    pub(crate) fn new(error: PostError, payload: T) -> Self {
        Self { error: Box::new(error), payload }
    }

    /// Why.
    #[must_use]
    pub fn error(&self) -> &PostError {
        &self.error
    }

    /// The memory.
    #[must_use]
    pub fn into_payload(self) -> T {
        self.payload
    }

    /// Both.
    #[must_use]
    pub fn into_parts(self) -> (PostError, T) {
        (*self.error, self.payload)
    }
}

impl<T> fmt::Debug for Rejected<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejected").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<T> fmt::Display for Rejected<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<T> std::error::Error for Rejected<T> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&*self.error)
    }
}

/// An operation that ran and failed, and what it held.
///
/// After a failure the queue pair is in the error state, and everything posted later is flushed.
pub struct Failed<T> {
    error: Box<CompletionError>,
    payload: Option<T>,
}

impl<T> Failed<T> {
    /// Why.
    #[must_use]
    pub fn error(&self) -> &CompletionError {
        &self.error
    }

    /// How it ended.
    #[must_use]
    pub fn status(&self) -> Status {
        self.error.status
    }

    /// What it held. `None` only if the device can no longer be asked, so that nobody knows whether it still uses the
    /// memory; the queue pair keeps it then.
    #[must_use]
    pub fn into_payload(self) -> Option<T> {
        self.payload
    }

    /// Both.
    #[must_use]
    pub fn into_parts(self) -> (Box<CompletionError>, Option<T>) {
        (self.error, self.payload)
    }
}

impl<T> fmt::Debug for Failed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failed").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<T> fmt::Display for Failed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<T> std::error::Error for Failed<T> {}

/// What a wait with a limit came to, if not a success.
pub enum Unfinished<'q, T: Work> {
    /// The operation is still running; here it is again.
    Pending(Op<'q, T>),
    /// It ran and failed.
    Failed(Failed<T>),
}

impl<T: Work> fmt::Debug for Unfinished<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pending(op) => f.debug_tuple("Pending").field(op).finish(),
            Self::Failed(failed) => f.debug_tuple("Failed").field(failed).finish(),
        }
    }
}

impl<T: Work> fmt::Display for Unfinished<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pending(_) => f.write_str("the operation is still running"),
            Self::Failed(failed) => failed.fmt(f),
        }
    }
}

impl<T: Work> std::error::Error for Unfinished<'_, T> {}
