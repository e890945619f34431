//! Why a command was refused. What peers do is never an error; it arrives as an [`Event`](super::Event).

use ibex_wire::mad::{ServiceId, TooLong};

use super::{ConnState, Operation};

/// A command that was not carried out; nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CmError {
    /// Misuse, or the peer was faster: the connection, resolution or listener is not known, or no longer. Its last event may
    /// have been given without having been read yet.
    #[error("no such connection, resolution or listener; its last event has been given, or it was released")]
    Unknown,
    /// Misuse, or the peer was faster: the state does not allow the command.
    #[error("{operation:?} is not possible in state {state:?}")]
    State {
        /// What was asked for.
        operation: Operation,
        /// Where the connection is.
        state: ConnState,
    },
    /// Misuse: more private data than the message has room for.
    #[error(transparent)]
    PrivateData(#[from] TooLong),
    /// Misuse: more additional information than a refusal has room for.
    #[error("{len} bytes of additional information where a refusal has room for {max}")]
    Information {
        /// Bytes given.
        len: usize,
        /// Bytes there are.
        max: usize,
    },
    /// Misuse: a field has fewer bits than the number given.
    #[error("{field} is {value}, and can be {max} at most")]
    Range {
        /// The parameter's name.
        field: &'static str,
        /// What was given.
        value: u32,
        /// What is possible.
        max: u32,
    },
    /// Misuse: another listener has the service on that very address, or as that for all addresses.
    #[error("another listener has service {0:?}; choose another port, or end that listener first")]
    InUse(ServiceId),
    /// Limit: as many connections or resolutions as [`CmConfig::max_connections`](super::CmConfig::max_connections) exist.
    #[error("{0} connections exist already, the limit of this process; release some, or raise the limit")]
    TooMany(usize),
}
