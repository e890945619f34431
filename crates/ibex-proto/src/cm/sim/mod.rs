//! A simulated world of engines: a faulty network, virtual time, hosts that act at random, and books that are kept of it all.
//!
//! [`run`] lets the seed choose the world; every connection must come to exactly one outcome at each end, and in the end
//! nothing may be left. [`play`] lets any bytes choose what happens, forged datagrams included; the order of events
//! and the end hold even then.
//!
//! | file | owns |
//! |---|---|
//! | `world.rs` | engines, their hosts, the network, time |
//! | `ledger.rs` | what each host may be told next, and who is connected to whom |
//! | `run.rs`, `play.rs` | who decides what happens |

mod ledger;
mod play;
mod run;
mod world;

pub use play::play;
pub use run::{Report, run};
