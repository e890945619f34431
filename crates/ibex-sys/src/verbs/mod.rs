//! The types and constants of `infiniband/verbs.h`, one file per object.
//!
//! Owns declarations only; calling them is [`crate::dispatch`] (what the header does inline) and
//! [`Verbs`](crate::Verbs) (what the library exports). Everything is re-exported flat, under its C name.
//!
//! Man pages: `libibverbs(7)`, and `ibv_*(3)` as each file says.

mod ah;
mod context;
mod context_ops;
mod counters;
mod cq;
mod cq_ex;
mod device;
mod device_ex;
mod dm;
mod domain;
mod event;
mod flow;
mod flow_action;
mod gid;
mod mr;
mod mw;
mod port;
mod provider;
mod qp;
mod qp_attr;
mod qp_ex;
mod qp_init;
mod srq;
mod tm;
mod wc;
mod wq;
mod wr;
mod xrc;

pub use ah::*;
pub use context::*;
pub use context_ops::*;
pub use counters::*;
pub use cq::*;
pub use cq_ex::*;
pub use device::*;
pub use device_ex::*;
pub use dm::*;
pub use domain::*;
pub use event::*;
pub use flow::*;
pub use flow_action::*;
pub use gid::*;
pub use mr::*;
pub use mw::*;
pub use port::*;
pub use provider::*;
pub use qp::*;
pub use qp_attr::*;
pub use qp_ex::*;
pub use qp_init::*;
pub use srq::*;
pub use tm::*;
pub use wc::*;
pub use wq::*;
pub use wr::*;
pub use xrc::*;
