//! A simulator of connections in virtual time, for tests and for `cargo xtask sim`.
//!
//! - [`World`]: queue pairs, their [hosts](MemHost) and the [network](Network) between them; scenario tests steer it by
//!   hand, with a tap that sees and decides about each packet.
//! - [`run`]: one random workload in one random world, everything chosen by a seed, every byte and every completion
//!   checked.
//! - [`run_unreliable`]: the same for the promises of UC and UD.
//! - [`play`]: any bytes read as calls, packets and accidents, with a hostile peer, for fuzzing.
//!
//! ```
//! use ibex_proto::WcStatus;
//! use ibex_proto::sim::{EndConfig, Fate, World};
//! use ibex_wire::Mtu;
//!
//! let mut world = World::pair(EndConfig::default(), Mtu::Mtu1024);
//! let buffer = world.recv(1, 64);
//! world.send(0, b"hello");
//! world.tap(|packet| if packet.index == 0 && packet.from == 0 { Fate::Drop } else { Fate::Pass });
//! world.run(1_000_000_000);
//! assert_eq!(world.ends[0].send_statuses(), [WcStatus::SUCCESS]);
//! assert_eq!(&world.ends[1].host.recv_taken[&buffer][..5], b"hello");
//! assert_eq!(world.ends[0].qp.counters().timeouts, 1);
//! ```
//!
//! Nothing here depends on the machine or on real time: a seed gives the same run everywhere.

mod host;
mod lossy;
mod net;
mod plan;
mod rng;
mod run;
mod script;
mod traffic;
mod world;

pub use host::{BASE, MemHost, Region};
pub use lossy::run_unreliable;
pub use net::{Faults, Network};
pub use plan::Limits;
pub use rng::Rng;
pub use run::{Report, run};
pub use script::play;
pub use world::{EndConfig, Endpoint, Fate, NETWORK_HEADER, QKEY, Sighting, World, qpn, rts, unconnected};
