//! Memory: what operations may read from and write to, and who owns it meanwhile.
//!
//! | type | owner | peers reach it | used for |
//! |---|---|---|---|
//! | [`Buf`] from a [`Pool`] | exclusive | never | messages, WRITE sources, READ targets |
//! | [`FrozenBuf`] | shared, read-only | never | one payload sent many times |
//! | [`Registered<O>`] | the program's own memory | never | sending what already lies somewhere |
//! | [`SharedRegion`] | ibex; never behind a reference | while [exposed](SharedRegion::expose) | one-sided operations |
//!
//! The rules that make this sound are DESIGN's invariants: memory behind Rust references is registered for local use only
//! (I1); remotely reachable memory is never behind a reference (I2); what an operation uses belongs to the operation until
//! the device has confirmed its end (I3); a registration outlives every use (I4).

mod access;
mod buf;
mod error;
mod frozen;
mod handle;
mod map;
mod mr;
mod pool;
mod region;
mod registered;
mod sge;
mod volatile;

pub use access::Access;
pub use buf::Buf;
pub use error::MemoryError;
pub use frozen::FrozenBuf;
pub use handle::{RemoteHandle, RemoteRegion, RemoteSlice, RemoteU64};
pub use map::Pages;
pub use pool::{Pool, PoolBuilder};
pub use region::{RegionSlice, SharedRegion};
pub use registered::{Registered, StableMem, StableMemMut};
pub use sge::{Sink, Source};

pub(crate) use map::Mapping;
pub(crate) use mr::Registration;
pub(crate) use volatile::load_u64;

/// 1024 bytes.
pub const KIB: usize = 1 << 10;
/// 1024 KiB.
pub const MIB: usize = 1 << 20;
/// 1024 MiB.
pub const GIB: usize = 1 << 30;

/// The longest message, and so the longest buffer that makes sense: 2 GiB (IBTA 9.7.7.1).
pub(crate) const MAX_MESSAGE: usize = 1 << 31;
