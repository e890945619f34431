//! Work queues: what has been posted and not yet been given back.
//!
//! Owns [`Ring`], the slots of one send or receive queue, and [`Erased`], a buffer whose type the queue does not know. A
//! slot keeps the buffer of an operation until a fence (I3). Posting is `qp`'s job, reaping `cq`'s, claiming `op`'s.

mod erased;
mod ring;

pub(crate) use erased::Erased;
pub(crate) use ring::{Count, Ring, Slot};
