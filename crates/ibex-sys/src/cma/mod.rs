//! The types and constants of `rdma/rdma_cma.h`, and of `infiniband/sa.h` as far as that needs it.
//!
//! Owns declarations only; the inline helpers of `rdma/rdma_verbs.h` are in [`crate::dispatch`], the exported functions
//! in [`Cm`](crate::Cm). Everything is re-exported flat, under its C name.
//!
//! Man page: `rdma_cm(7)`.

mod addrinfo;
mod event;
mod id;
mod multicast;
mod options;
mod path;

pub use addrinfo::*;
pub use event::*;
pub use id::*;
pub use multicast::*;
pub use options::*;
pub use path::*;
