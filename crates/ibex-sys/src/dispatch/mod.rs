//! The inline functions of `verbs.h`, `rdma_cma.h` and `rdma_verbs.h`, in Rust.
//!
//! Owns everything that a C program compiles into itself instead of calling the library: posting, polling, arming, the
//! extended queue pair and completion queue, and every verb that goes through `verbs_context`. The names are those of C.
//! Functions that may fall back to an exported function take the [`Verbs`](crate::Verbs) table first. Not here: the
//! exported functions themselves, and the decoding of what they return ([`crate::convention`]).
//!
//! An operation that the device does not have gives EOPNOTSUPP in the function's own convention: as the value where an
//! errno is returned, as `errno` where a pointer is. That includes the few slots that C calls without looking.
//!
//! # Safety
//!
//! Every `unsafe fn` here has the contract of the man page of the same name: objects are live, made by the same library as
//! their context, and given with the provenance of their whole allocation; structures and arrays are valid for the length
//! the call implies. The files read nothing but public members of such objects.

mod cm;
mod context;
mod counters;
mod cq;
mod cq_ex;
mod device;
mod domain;
mod flow;
mod gid;
mod mr;
mod post;
mod qp;
mod srq;
#[cfg(test)]
mod tests;
mod wq;
mod wr;

pub use cm::*;
pub use context::*;
pub use counters::*;
pub use cq::*;
pub use cq_ex::*;
pub use device::*;
pub use domain::*;
pub use flow::*;
pub use gid::*;
pub use mr::*;
pub use post::*;
pub use qp::*;
pub use srq::*;
pub use wq::*;
pub use wr::*;
