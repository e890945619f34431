//! States of a connection (IBTA 12.9), and the names of commands.

/// Where a connection is.
///
/// What commands do in each state: the state they lead to and the message they send; "-" is refused, "gone" is the end
/// as far as the host can see:
///
/// ```text
#[doc = include_str!("commands.txt")]
/// ```
///
/// What the peer's messages and silence do, `REJ(REP)` being a REJ of a REP; whatever is not here changes nothing,
/// tells nothing and is not answered:
///
/// ```text
#[doc = include_str!("messages.txt")]
/// ```
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
