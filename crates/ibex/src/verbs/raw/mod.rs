//! The unsafe verbs, each with its contract.
//!
//! They are the C functions with their return conventions decoded: an error is an [`Errno`]. Those of the data path
//! (`data`) go through the device's own table of operations, as the inline functions of `verbs.h` do; the others take the
//! library's table, [`Context::verbs`](crate::Context::verbs), first. What `verbs.h` has beyond these, among it everything
//! extended, is in [`sys::dispatch`](crate::sys::dispatch) and [`sys::Verbs`](crate::sys::Verbs).
//!
//! A contract that all share: objects are live, belong to the library behind the table, and pointers to attributes are
//! valid for the call. Contracts name only what comes on top of that and of the man page of the same name.
//!
//! Objects of the safe layer may be used through their `as_raw`, within these limits:
//! - requests posted to a safe queue pair and completions polled from a safe completion queue are not accounted for: the
//!   leases that rule out an overflow (I6) are then the caller's business, a `wr_id` must not match one of the library's,
//!   and a completion polled away is lost to its operation;
//! - a safe object must not be destroyed, and a safe queue pair not be moved to RESET.
//!
//! # Safety
//! This module adds no promise of its own: every function hands its arguments to the C function of the same name.
#![allow(unsafe_code)]

mod data;
mod memory;
mod objects;

pub use data::{
    BadWr, ack_cq_events, get_cq_event, poll_cq, post_recv, post_send, post_srq_recv, req_notify_cq,
};
pub use memory::{alloc_mw, alloc_pd, bind_mw, dealloc_mw, dealloc_pd, dereg_mr, reg_mr, rereg_mr};
pub use objects::{
    ack_async_event, attach_mcast, close_device, create_ah, create_comp_channel, create_cq, create_qp,
    create_srq, destroy_ah, destroy_comp_channel, destroy_cq, destroy_qp, destroy_srq, detach_mcast,
    get_async_event, modify_qp, modify_srq, open_device, query_qp, query_srq, resize_cq,
};

pub use ibex_sys::Errno;

/// Declares verbs that go through the library's table: the C function of the same name, decoded by a convention.
macro_rules! verbs {
    ($(
        $(#[$doc:meta])*
        fn $name:ident($($arg:ident: $ty:ty),* $(,)?) -> $ret:ty = $convention:ident;
    )*) => {$(
        $(#[$doc])*
        #[doc = concat!("\n\nMan page: `ibv_", stringify!($name), "(3)`.")]
        #[inline]
        pub unsafe fn $name(verbs: &ibex_sys::Verbs, $($arg: $ty),*) -> Result<$ret, ibex_sys::Errno> {
            // SAFETY: the caller keeps the contract of the C function, which is this one's.
            let answer = unsafe { (verbs.$name)($($arg),*) };
            ibex_sys::convention::$convention(answer).map(Into::into)
        }
    )*};
}
use verbs;
