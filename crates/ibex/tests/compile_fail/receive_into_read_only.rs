//! What the device may write is exclusive memory.
use std::sync::Arc;

use ibex::mem::Registered;
use ibex::{FrozenBuf, QueuePair};

fn main() {}

fn frozen(qp: &QueuePair, buf: FrozenBuf) {
    let _ = qp.recv(buf);
}

fn shared(qp: &QueuePair, memory: Registered<Arc<[u8]>>) {
    let _ = qp.recv(memory);
}

fn change(memory: &mut Registered<Arc<[u8]>>) {
    memory[0] = 1;
}
