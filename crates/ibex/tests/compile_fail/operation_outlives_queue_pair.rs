//! An operation borrows its queue pair, unless `into_static` says otherwise.
use ibex::{Buf, Op, QueuePair};

fn main() {}

fn keep<'a>(qp: QueuePair, buf: Buf) -> Op<'a, Buf> {
    qp.send(buf).unwrap()
}

fn close(qp: QueuePair, buf: Buf) {
    let op = qp.send(buf).unwrap();
    qp.close().unwrap();
    op.wait().unwrap();
}
