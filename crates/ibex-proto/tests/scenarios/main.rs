//! One file per scenario: a rule of the transport, provoked on purpose and watched on the wire.
//!
//! Each drives two connected queue pairs by hand through `ibex_proto::sim::World`. Random traffic is in `tests/random.rs`.

mod access;
mod ack_lost;
mod express;
mod fence;
mod flush;
mod go_back;
mod held;
mod length;
mod local;
mod loss;
mod malformed;
mod nak_lost;
mod peer_gone;
mod rd_atomic;
mod read_large;
mod replay;
mod retry;
mod rnr;
mod sizes;
mod sparse;
mod states;
mod uc;
mod ud;
mod util;
mod window;
mod wrap;
