//! An operation ends once.
use ibex::{Buf, QueuePair};

fn main() {}

fn wait(qp: &QueuePair, buf: Buf) {
    let op = qp.send(buf).unwrap();
    op.wait().unwrap();
    op.wait().unwrap();
}
