//! Channels, and the events in them before a program has fetched them.
//!
//! Owns what is queued. What a program gets is made of it, in the program's own thread, by [`crate::abi`], since moving
//! the queue pair comes between.

use std::sync::Arc;

use ibex_proto::cm::{ConnId, Reply, Request, SidrId, SidrReply, SidrRequest};

use super::Id;
use crate::event::EventQueue;

/// An event channel: `rdma_create_event_channel(3)`.
pub(crate) type Channel = EventQueue<Queued>;

/// Something that happened to an id.
#[derive(Clone, Debug)]
pub(crate) struct Queued {
    /// To which; the listener, for a request.
    pub(crate) id: Arc<Id>,
    /// What.
    pub(crate) what: What,
}

/// What happened.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// The destination can be reached, or not: 0 or a negative errno.
    Address(i32),
    /// The route is known.
    Route,
    /// Somebody calls.
    Request(ConnId, Box<Request>),
    /// Somebody asks for the queue pair of a datagram service.
    SidrRequest(SidrId, Box<SidrRequest>),
    /// The peer accepts.
    Reply(Box<Reply>),
    /// The peer is ready.
    Established(Vec<u8>),
    /// The peer tells its queue pair.
    SidrReply(Box<SidrReply>),
    /// The peer refuses: the reason, and its data.
    Rejected(u16, Vec<u8>),
    /// The peer does not answer.
    Unreachable,
    /// The connection has ended: the peer's data.
    Disconnected(Vec<u8>),
    /// Nothing of the connection is under way any more.
    TimewaitExit,
    /// The program's own (`rdma_write_cm_event`): event, status, argument.
    Written(u32, i32, u64),
}
