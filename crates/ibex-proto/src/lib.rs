//! RDMA transport state machines without I/O, clock, threads or unsafe code.
//!
//! [`Qp`] is one queue pair of any service; [`RcQp`] is what it is for a reliable connection: requester, completer and
//! responder in one object. A host (`ibex-soft`) feeds it work requests, received packets and the time, and takes
//! packets, completions and events out of it; the queue pair reaches memory, keys and receive requests only through the
//! [`Host`] given to each call.
//!
//! ```text
//!             post_send   handle_packet   handle_timeout   to_rtr, set_error, …
//!                  │            │               │                │
//!                  └────────────┴──── RcQp ─────┴────────────────┘ ←→ Host (gather, scatter, take_recv, place, …)
//!                  ┌────────────┬───────────────┬────────────────┐
//!           poll_transmit  poll_completion  poll_event      poll_timeout
//! ```
//!
//! [`cm::Cm`] makes and ends connections by messages; it stands beside the queue pairs and moves none.
//!
//! Packets are BTH to padding; the link adds and checks the ICRC ([`ibex_wire::icrc`]) and the addresses.
//!
//! | file | owns |
//! |---|---|
//! | `qp.rs`, `state.rs` | the queue pair of any service; states |
//! | `rc.rs` | reliable connections: the object, whose turn it is |
//! | `unreliable.rs`, `uc.rs`, `ud.rs` | unreliable connections and datagrams: the send queue; what each receives |
//! | `requester.rs`, `completer.rs` | the send queue: requests out, responses in |
//! | `fifo.rs` | where its requests stand |
//! | `window.rs`, `retry.rs` | how much is in flight; when to ask again, when to give up |
//! | `recovery.rs` | what to send again after a loss |
//! | `responder.rs`, `ahead.rs` | the peer's requests: executing them once, in order; keeping those that came too soon |
//! | `answers.rs` | what is owed for them |
//! | `errors.rs` | which fault gives which NAK, status and event |
//! | `host.rs`, `wqe.rs`, `completion.rs`, `config.rs`, `counters.rs` | what goes in and comes out |
//! | `cm/` | connection management |
//! | `sim/` | the simulator (feature `sim`) |
//!
//! Not here: end-to-end credits (devices of this kind have none), path migration.
//!
//! Facts are from the InfiniBand Architecture Specification, volume 1, chapters 9 (transport), 10 and 11 (verbs).

mod ahead;
mod answers;
pub mod cm;
mod completer;
mod completion;
mod config;
mod counters;
mod early;
mod errors;
mod fifo;
mod host;
mod output;
mod qp;
mod rc;
mod recovery;
mod requester;
mod responder;
mod retry;
#[cfg(feature = "sim")]
pub mod sim;
mod state;
mod uc;
mod ud;
mod unreliable;
mod window;
mod wqe;

pub use completion::{Completion, Event, RecvCompletion, SendCompletion, WcOpcode, WcStatus};
pub use config::{InitAttr, RcCaps, RtrAttr, RtsAttr, Tuning, ack_timeout};
pub use counters::Counters;
pub use host::{AtomicOp, Host, LocalFault, RecvWqe, RemoteAccess, RemoteFault};
pub use output::Transmit;
pub use qp::Qp;
pub use rc::{Ack, Clock, RcQp};
pub use state::{BadTransition, QpState, QpType};
pub use wqe::{MAX_MESSAGE, PostError, SendOp, SendWqe};

/// A point in time or a span, in nanoseconds. The origin is the host's; it must not go backwards.
pub type Nanos = u64;
