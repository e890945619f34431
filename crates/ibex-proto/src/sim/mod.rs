//! A simulator of connections in virtual time, for tests and for `cargo xtask sim`.
//!
//! - [`World`]: queue pairs, their [hosts](MemHost) and the [network](Network) between them; scenario tests steer it by
//!   hand, with a tap that sees and decides about each packet.
//! - [`run`]: one random workload in one random world, everything chosen by a seed, every byte and every completion
//!   checked.
//! - [`play`]: any bytes read as calls, packets and accidents, with a hostile peer, for fuzzing.
//!
//! Nothing here depends on the machine or on real time: a seed gives the same run everywhere.

mod host;
mod net;
mod plan;
mod rng;
mod run;
mod script;
mod traffic;
mod world;

pub use host::{BASE, MemHost, Region};
pub use net::{Faults, Network};
pub use plan::Limits;
pub use rng::Rng;
pub use run::{Report, run};
pub use script::play;
pub use world::{EndConfig, Endpoint, Fate, Sighting, World, qpn, rts, unconnected};
