//! Verbs objects for tests, through the C interface: exact statuses, states and refusals, with no policy in between.
//!
//! Extended queues and queue pairs are in `extended`, memory windows in `window`.
//!
//! Owns the device under test ([`Lab`]), objects that are destroyed in the right order ([`Pd`], [`Region`], [`Cq`],
//! [`Qp`]), work requests as values ([`Send`], [`Recv`]) and a pair of connected nodes ([`Pair`]). Holds no case.
//!
//! The same device through the safe crate is [`safe`].
//!
//! Waiting is bounded: no completion within [`PATIENCE`] is a failure, never a hang.

pub mod cm;
mod device;
mod extended;
mod lane;
mod memory;
mod node;
mod queue;
pub mod safe;
mod service;
mod tracked;
mod window;
mod work;

use std::time::Duration;

pub use device::{Lab, Pd};
pub use extended::Seen;
pub use lane::Lane;
pub use memory::{Region, pattern};
pub use node::{LinkOptions, Node, NodeOptions, Pair};
pub use queue::{Cq, Qp};
pub use service::{Ah, GRH, QKEY, Srq};
pub use tracked::{Freed, Tracked};
pub use window::Window;
pub use work::{Recv, Send, Sge, gid_bytes, imm_data};

/// How long a completion may take. An emulated machine needs tens of milliseconds for a round trip, and retries
/// multiply that.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How long to watch a queue from which nothing may come.
pub const QUIET: Duration = Duration::from_millis(50);

/// Every access right a region or a queue pair can be given for RC.
pub const ALL_ACCESS: ibex_sys::ibv_access_flags = ibex_sys::ibv_access_flags(
    ibex_sys::IBV_ACCESS_LOCAL_WRITE.0
        | ibex_sys::IBV_ACCESS_REMOTE_WRITE.0
        | ibex_sys::IBV_ACCESS_REMOTE_READ.0
        | ibex_sys::IBV_ACCESS_REMOTE_ATOMIC.0,
);
