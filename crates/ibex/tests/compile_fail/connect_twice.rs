//! Connecting consumes the state before.
use ibex::state::Init;
use ibex::{Endpoint, QueuePair};

fn main() {}

fn connect(qp: QueuePair<Init>, peer: &Endpoint) {
    let _ = qp.connect(peer);
    let _ = qp.connect(peer);
}
