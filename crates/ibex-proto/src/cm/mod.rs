//! Connection management: one process's part in making and ending connections by messages between queue pairs 1.
//!
//! Contract: [`Cm`] holds every connection, resolution and listener of a process. It gets commands, received
//! datagrams and the time; it gives datagrams to send, events, and when it wants to be woken. It has no sockets, no clock and
//! no queue pairs: the host moves those, by [`Cm::attributes`].
//!
//! ```text
//!      listen  connect  reply  reject  ready  disconnect  …   handle_mad   handle_timeout
//!                          │                                      │              │
//!                          └──────────────── Cm ──────────────────┴──────────────┘
//!                          ┌─────────────────┼─────────────────┐
//!                    poll_transmit       poll_event       poll_timeout
//! ```
//!
//! | file | owns |
//! |---|---|
//! | `engine.rs` | the object, its commands, whose turn it is |
//! | `params.rs`, `event.rs`, `state.rs`, `error.rs` | what goes in and comes out |
//!
//! Facts are from the InfiniBand Architecture Specification, volume 1, chapter 12.

mod engine;
mod error;
mod event;
mod params;
mod state;

pub use engine::{Attributes, Cm, Counters, Transmit};
pub use error::CmError;
pub use event::{ConnId, Disconnect, Event, ListenerId, Reply, Request, SidrId, SidrReply, SidrRequest};
pub use params::{
    CmConfig, ConnectParams, ListenParams, Path, RejectParams, ReplyParams, SidrParams, SidrReplyParams,
};
pub use state::{ConnState, Operation};
