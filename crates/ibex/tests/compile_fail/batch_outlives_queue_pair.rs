//! A batch and the options of a request borrow their queue pair: nothing can be posted to one that is gone.
use ibex::{Batch, Buf, Post, QueuePair};

fn main() {}

fn keep<'a>(qp: QueuePair) -> (Batch<'a, Buf>, Post<'a>) {
    (qp.batch(), qp.post())
}

fn close(qp: QueuePair, buf: Buf) {
    let mut batch = qp.batch();
    batch.send(buf).unwrap();
    drop(qp);
    batch.post().unwrap();
}
