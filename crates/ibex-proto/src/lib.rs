//! RDMA transport state machines without I/O, clock, threads or unsafe code.
//!
//! [`RcQp`] is one reliable connection: requester, completer and responder in one object. A host (`ibex-soft`) feeds
//! it work requests, received packets and the time, and takes packets, completions and events out of it; the queue
//! pair reaches memory, keys and receive requests only through the [`Host`] given to each call.
//!
//! ```text
//!             post_send   handle_packet   handle_timeout   to_rtr, set_error, …
//!                  │            │               │                │
//!                  └────────────┴──── RcQp ─────┴────────────────┘ ←→ Host (gather, scatter, take_recv, place, …)
//!                  ┌────────────┬───────────────┬────────────────┐
//!           poll_transmit  poll_completion  poll_event      poll_timeout
//! ```
//!
//! Packets are BTH to padding; the link adds and checks the ICRC ([`ibex_wire::icrc`]) and the addresses.
//!
//! | file | owns |
//! |---|---|
//! | `qp.rs`, `state.rs` | the object, its states, whose turn it is |
//! | `requester.rs`, `completer.rs` | the send queue: requests out, responses in |
//! | `window.rs`, `retry.rs` | how much is in flight; when to ask again, when to give up |
//! | `responder.rs`, `answers.rs` | the peer's requests: executing them once; what is owed for them |
//! | `errors.rs` | which fault gives which NAK, status and event |
//! | `host.rs`, `wqe.rs`, `completion.rs`, `config.rs`, `counters.rs` | what goes in and comes out |
//! | `sim/` | the simulator (feature `sim`) |
//!
//! Not here: unreliable services, end-to-end credits (devices of this kind have none), path migration, selective
//! repetition (the specification's reliable connection goes back to the first missing packet).
//!
//! Facts are from the InfiniBand Architecture Specification, volume 1, chapters 9 (transport), 10 and 11 (verbs).

mod answers;
mod completer;
mod completion;
mod config;
mod counters;
mod errors;
mod host;
mod output;
mod qp;
mod requester;
mod responder;
mod retry;
#[cfg(feature = "sim")]
pub mod sim;
mod state;
mod window;
mod wqe;

pub use completion::{Completion, Event, RecvCompletion, SendCompletion, WcOpcode, WcStatus};
pub use config::{InitAttr, RcCaps, RtrAttr, RtsAttr, Tuning, ack_timeout};
pub use counters::Counters;
pub use host::{AtomicOp, Host, LocalFault, RecvWqe, RemoteAccess, RemoteFault};
pub use qp::{PostError, RcQp, Transmit};
pub use state::{BadTransition, QpState};
pub use wqe::{MAX_MESSAGE, SendOp, SendWqe};

/// A point in time or a span, in nanoseconds. The origin is the host's; it must not go backwards.
pub type Nanos = u64;
