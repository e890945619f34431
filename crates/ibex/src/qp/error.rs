//! What can go wrong with queues: creating, moving between states, posting.

use ibex_sys::Errno;

use super::state::QpState;
use super::transition::Finding;
use crate::mem::{Access, MemoryError};

/// An error about creating, polling or destroying a queue.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// Misuse: a completion queue too small for the queue pair (I6).
    #[error(
        "cannot create a queue pair: the completion queue has room for {room} more entries and {needs} is {wanted}; \
         create it with at least {remedy} entries"
    )]
    NoRoom {
        /// Entries not leased.
        room: u32,
        /// What asks for them: the names of the limits.
        needs: &'static str,
        /// Entries asked for.
        wanted: u32,
        /// Capacity that would do.
        remedy: u64,
    },
    /// Misuse: queue and domain of different devices.
    #[error(
        "cannot create a queue pair: the completion queue belongs to device {cq} and the protection domain to {pd}"
    )]
    OtherDevice {
        /// Device of the completion queue.
        cq: String,
        /// Device of the domain.
        pd: String,
    },
    /// Misuse: no work request at all.
    #[error(
        "cannot create a queue pair without a work request: max_send_wr and max_recv_wr must be at least 1"
    )]
    NoWork,
    /// Device: no completion queue to be had.
    #[error("cannot create a completion queue of {entries} entries{}", limit(*source))]
    CreateCq {
        /// Entries asked for.
        entries: u32,
        /// The device's answer.
        source: Errno,
    },
    /// Device: no queue pair to be had.
    #[error("cannot create a queue pair ({caps}){}", limit(*source))]
    CreateQp {
        /// Sizes asked for.
        caps: String,
        /// The device's answer.
        source: Errno,
    },
    /// Device: an object cannot be destroyed; it is leaked, with the memory of its operations.
    #[error("cannot destroy the {what}; it is leaked, with the memory of its operations")]
    Destroy {
        /// Which kind of object.
        what: &'static str,
        /// The device's answer.
        source: Errno,
    },
    /// Device: completions can no longer be asked for.
    #[error("cannot poll the completion queue: the device is gone or the queue has overflowed")]
    Poll {
        /// The device's answer.
        source: Errno,
    },
}

/// What usually stands behind a refusal.
fn limit(source: Errno) -> &'static str {
    match source {
        Errno::EINVAL => "; compare with the limits that `ibex devinfo -v` prints",
        Errno::ENOMEM => {
            "; the device or the host is out of resources, or the memory lock limit is too low (ulimit -l)"
        }
        _ => "",
    }
}

/// A transition between states that the device refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot move the queue pair from {from} to {to}{}", explain(findings))]
#[non_exhaustive]
pub struct ModifyError {
    /// State before, which it still has.
    pub from: QpState,
    /// State asked for.
    pub to: QpState,
    /// What is wrong with the request, as far as can be told.
    pub findings: Vec<Finding>,
    /// The device's answer.
    #[source]
    pub source: Errno,
}

fn explain(findings: &[Finding]) -> String {
    findings.iter().map(|finding| format!("; {finding}")).collect()
}

/// A request that was not posted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostError {
    /// Misuse: as many requests as the queue holds are in flight, or ended and not claimed; or a batch needs more room than
    /// is left.
    #[error("the {queue} queue is full: {}", full(*wanted, *capacity, *in_flight))]
    QueueFull {
        /// Which one: `send` or `receive`.
        queue: &'static str,
        /// Requests to be posted at once.
        wanted: usize,
        /// Requests it holds.
        capacity: u32,
        /// Requests in flight.
        in_flight: u32,
    },
    /// Misuse: more pieces of memory than a request can name.
    #[error(
        "{pieces} pieces of memory in a request that can name {max}; build the queue pair with a larger max_send_sge or max_recv_sge, or copy them together"
    )]
    TooManyPieces {
        /// Pieces given.
        pieces: usize,
        /// Pieces allowed.
        max: usize,
    },
    /// Misuse: longer than a message can be.
    #[error("the memory is longer than the longest message, 2 GiB")]
    TooLong,
    /// Misuse: longer than what goes inline.
    #[error(
        "{bytes} bytes inline on a queue pair that takes {max}; send a registered buffer, or build it with max_inline({bytes})"
    )]
    InlineTooLong {
        /// Bytes given.
        bytes: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// Misuse: longer than the peer's memory.
    #[error("{bytes} bytes do not fit the {room} bytes of the remote range")]
    BeyondRemote {
        /// Bytes given.
        bytes: usize,
        /// Bytes of the remote range.
        room: u64,
    },
    /// Misuse: the handle does not allow it.
    #[error(
        "the remote handle grants {has} and the operation needs {needs}; ask its owner to expose the region with that right"
    )]
    NoRight {
        /// Right needed.
        needs: Access,
        /// Rights granted.
        has: Access,
    },
    /// Host: the words for the results of atomics cannot be registered.
    #[error("cannot prepare for atomics")]
    Landing(#[from] MemoryError),
    /// Device: refused.
    #[error("the device refused the request{}", refused(*source))]
    Refused {
        /// The device's answer.
        source: Errno,
    },
}

fn full(wanted: usize, capacity: u32, in_flight: u32) -> String {
    if wanted > 1 {
        return format!(
            "{wanted} requests were to be posted at once, {in_flight} are in flight and it holds {capacity}; wait for the \
             operations there are, post fewer at once, or build the queue pair with a larger queue"
        );
    }
    match capacity.saturating_sub(in_flight) {
        0 => format!(
            "{capacity} requests are in flight; wait for one, or build the queue pair with a larger queue"
        ),
        ended => format!(
            "{in_flight} requests are in flight and {ended} have ended without anybody waiting for them; wait for them or \
             drop their operations"
        ),
    }
}

fn refused(source: Errno) -> &'static str {
    match source {
        Errno::EINVAL => {
            ": the queue pair is in the wrong state, or the request is beyond the device's limits"
        }
        Errno::ENOMEM => ": its queue is full",
        _ => "",
    }
}
