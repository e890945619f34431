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
//! | `engine.rs` | the object, its queues and timers, who handles what |
//! | `call.rs`, `answer.rs` | the end that asks for a connection, the end that is asked |
//! | `end.rs` | disconnection, TIMEWAIT, refusals that come in, release |
//! | `sidr.rs` | service ID resolution |
//! | `listen.rs` | listeners and their backlogs |
//! | `table.rs`, `ids.rs`, `repeat.rs` | finding connections; naming them; asking again |
//! | `sim/` | a simulated world (feature `sim`) |
//! | `params.rs`, `event.rs`, `state.rs`, `error.rs` | what goes in and comes out |
//!
//! Memory is bounded whatever arrives: requests by the backlog of their listener until the program has them, then by
//! [`CmConfig::max_connections`]; what is over and only remembered by [`CmConfig::max_timewait`]; every wait has an end.
//! A datagram belongs to a connection only if it comes from that connection's address.
//!
//! Not here: alternate paths, reliable datagrams, XRC, and callers that meet as equals (both asking).
//!
//! Facts are from the InfiniBand Architecture Specification, volume 1, chapter 12.

mod answer;
mod call;
mod end;
mod engine;
mod error;
mod event;
mod ids;
mod listen;
mod params;
mod repeat;
mod sidr;
#[cfg(feature = "sim")]
pub mod sim;
mod state;
mod table;

pub use engine::{Attributes, Cm, Counters, Transmit};
pub use error::CmError;
pub use event::{ConnId, Disconnect, Event, ListenerId, Reply, Request, SidrId, SidrReply, SidrRequest};
pub use params::{
    CmConfig, ConnectParams, ListenParams, Path, RejectParams, ReplyParams, SidrParams, SidrReplyParams,
};
pub use state::{ConnState, Operation};
