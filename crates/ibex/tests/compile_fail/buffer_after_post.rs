//! A buffer in an operation is out of reach (I3).
use ibex::{Buf, QueuePair};

fn main() {}

fn write_while_in_flight(qp: &QueuePair, mut buf: Buf) {
    let op = qp.send(buf).unwrap();
    buf[0] = 1;
    op.wait().unwrap();
}
