//! The error of the whole crate, for programs that use `?` throughout.
//!
//! Each concern has its own type next to what raises it: [`DeviceError`], [`MemoryError`], [`QueueError`],
//! [`ModifyError`], [`PostError`], [`CompletionError`], [`ExchangeError`]. All of them turn into [`Error`].

use std::fmt;

use crate::device::DeviceError;
use crate::mem::MemoryError;
use crate::oob::ExchangeError;
use crate::op::{Failed, Rejected, Unfinished};
use crate::qp::{ModifyError, PostError, QueueError};
use crate::wc::CompletionError;

/// What ibex's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Any error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Finding, opening or asking a device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Mapping, registering or naming memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Creating or closing a queue.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// Moving a queue pair from one state to another.
    #[error(transparent)]
    Modify(#[from] ModifyError),
    /// Posting an operation.
    #[error(transparent)]
    Post(#[from] PostError),
    /// An operation that ran and failed.
    #[error(transparent)]
    Completion(#[from] CompletionError),
    /// An operation did not finish in the time given.
    #[error(
        "the operation did not finish in the time given; it is still running and keeps its buffer until it ends"
    )]
    TimedOut,
    /// Exchanging endpoints.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
}

impl<T> From<Rejected<T>> for Error {
    /// Keeps the reason; what was to be sent is dropped.
    fn from(rejected: Rejected<T>) -> Self {
        Self::Post(rejected.into_parts().0)
    }
}

impl<T> From<Failed<T>> for Error {
    /// Keeps the reason; the buffer is dropped.
    fn from(failed: Failed<T>) -> Self {
        Self::Completion(failed.into_parts().0)
    }
}

impl<T: crate::op::Work> From<Unfinished<'_, T>> for Error {
    /// Keeps the reason. A pending operation goes on without anybody waiting for it.
    fn from(unfinished: Unfinished<'_, T>) -> Self {
        match unfinished {
            Unfinished::Pending(_) => Self::TimedOut,
            Unfinished::Failed(failed) => failed.into(),
        }
    }
}

/// A number of bytes as people write it: exact, in the largest binary unit that divides it.
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
        for (unit, shift) in UNITS {
            if self.0 != 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{} {unit}", self.0 >> shift);
            }
        }
        write!(f, "{} bytes", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Bytes;

    #[test]
    fn sizes_are_written_exactly() {
        assert_eq!(Bytes(4 << 30).to_string(), "4 GiB");
        assert_eq!(Bytes(8 << 20).to_string(), "8 MiB");
        assert_eq!(Bytes(1025).to_string(), "1025 bytes");
        assert_eq!(Bytes(0).to_string(), "0 bytes");
    }
}
