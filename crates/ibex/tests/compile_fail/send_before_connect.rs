//! Only a connected queue pair can send.
use ibex::state::{Init, Rtr};
use ibex::{Buf, QueuePair};

fn main() {}

fn send_init(qp: &QueuePair<Init>, buf: Buf) {
    let _ = qp.send(buf);
}

fn write_rtr(qp: &QueuePair<Rtr>, buf: Buf, target: ibex::RemoteSlice) {
    let _ = qp.write(buf, target);
}
