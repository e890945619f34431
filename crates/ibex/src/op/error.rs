//! Errors that carry back what an operation was given.
//!
//! Owns [`Rejected`] (never posted), [`Failed`] (ran and failed) and [`Unfinished`] (still running).

use std::fmt;

use super::{Op, Work};
use crate::qp::PostError;
use crate::wc::{CompletionError, Status};

/// A request that was not posted, and what was to be its memory.
pub struct Rejected<T> {
    // Boxes, so that the result of a post is short, and what is posted needs no place on the stack in case it is refused.
    error: Box<PostError>,
    payload: Box<T>,
}

impl<T> Rejected<T> {
    #[cold]
    #[inline(never)]
    pub(crate) fn new(error: PostError, payload: Box<T>) -> Self {
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
        *self.payload
    }

    /// Both.
    #[must_use]
    pub fn into_parts(self) -> (PostError, T) {
        (*self.error, *self.payload)
    }
}

impl<T> fmt::Debug for Rejected<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejected").field("error", self.error()).finish_non_exhaustive()
    }
}

impl<T> fmt::Display for Rejected<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error().fmt(f)
    }
}

impl<T> std::error::Error for Rejected<T> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(self.error())
    }
}

/// An operation that ran and failed, and what it held.
///
/// After a failure the queue pair is in the error state, and everything posted later is flushed.
pub struct Failed<T> {
    inner: Box<(CompletionError, Option<T>)>,
}

impl<T> Failed<T> {
    pub(super) fn new(error: CompletionError, payload: Option<T>) -> Self {
        Self { inner: Box::new((error, payload)) }
    }

    /// Why.
    #[must_use]
    pub fn error(&self) -> &CompletionError {
        &self.inner.0
    }

    /// How it ended.
    #[must_use]
    pub fn status(&self) -> Status {
        self.error().status
    }

    /// What it held. `None` only if the device can no longer be asked, so that nobody knows whether it still uses the
    /// memory; the queue pair keeps it then.
    #[must_use]
    pub fn into_payload(self) -> Option<T> {
        self.inner.1
    }

    /// Both.
    #[must_use]
    pub fn into_parts(self) -> (CompletionError, Option<T>) {
        *self.inner
    }
}

impl<T> fmt::Debug for Failed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failed").field("error", self.error()).finish_non_exhaustive()
    }
}

impl<T> fmt::Display for Failed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error().fmt(f)
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
