//! The seam between the copy protocol and the device: a window of slots that records travel through, in order.
//!
//! Owns the two traits only; `rdma` implements them by one-sided operations, tests by memory. Slots are numbered from 0
//! without end; number `n` lies at `n % slots` of the window, and is used again when the receiver has returned it
//! ([`super::message::Message::Free`]).

use std::ops::{Deref, DerefMut};

use anyhow::Result;

use crate::control::Control;

/// The sending side.
pub(crate) trait Outlet {
    /// Registered or plain memory of one slot.
    type Chunk: DerefMut<Target = [u8]>;

    /// Slots of the window.
    fn slots(&self) -> u64;

    /// Memory to fill for the next slot.
    fn chunk(&mut self, control: &Control) -> Result<Self::Chunk>;

    /// Sends the first `used` bytes of the chunk as slot `number`, which the receiver has returned before. Does not wait
    /// for it to arrive.
    fn ship(&mut self, control: &Control, number: u64, chunk: Self::Chunk, used: usize) -> Result<()>;

    /// Waits until everything shipped has arrived.
    fn drain(&mut self, control: &Control) -> Result<()>;
}

/// The receiving side.
pub(crate) trait Inlet {
    /// The filled part of a slot, copied out of the window.
    type Chunk: Deref<Target = [u8]>;

    /// The next slot's contents, waiting for them as long as the peer lives.
    fn next(&mut self, control: &Control) -> Result<Self::Chunk>;

    /// Gives the memory of a chunk back.
    fn recycle(&mut self, chunk: Self::Chunk);
}
