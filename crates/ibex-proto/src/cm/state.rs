//! States of a connection (IBTA 12.9), and the names of commands.

/// Where a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ConnState {
    /// Calling: the request is out.
    ReqSent,
    /// Called: the request is here, the program thinks.
    ReqRcvd,
    /// Called, and the peer was told to wait.
    MraReqSent,
    /// Called and accepted: the reply is out.
    RepSent,
    /// Calling: the reply is here, the queue pair is being prepared.
    RepRcvd,
    /// Calling: the reply is here, and the peer was told to wait.
    MraRepSent,
    /// Data flows.
    Established,
    /// Ending: our request is out.
    DreqSent,
    /// Ending: the peer's request is here, not yet answered.
    DreqRcvd,
    /// Ended; stragglers may be under way.
    Timewait,
}

/// A command, as named in [`CmError::State`](super::CmError::State).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs)] // the commands of `Cm`, by their names
pub enum Operation {
    Taken,
    Mra,
    Reply,
    Reject,
    Ready,
    CommunicationEstablished,
    Disconnect,
    Attributes,
    SidrReply,
}
