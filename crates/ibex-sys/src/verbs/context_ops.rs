//! The table of operations inside every `ibv_context`, which the header's inline functions call.
//!
//! Owns `ibv_context_ops`, whose layout has been fixed since libibverbs 1.0; slots named `_compat_*` are unused by
//! programs of today. The extended table is `verbs_context`, in `context.rs`.
#![allow(missing_docs, reason = "members and constants carry their C names; the man page documents them")]

use core::ffi::{c_int, c_void};

use super::{
    _compat_ibv_port_attr, ibv_context, ibv_cq, ibv_device_attr, ibv_mw, ibv_mw_bind, ibv_mw_type, ibv_pd,
    ibv_qp, ibv_recv_wr, ibv_send_wr, ibv_srq, ibv_wc,
};
use crate::macros::c_data;

/// A slot that nothing calls any more.
pub type compat_slot = Option<unsafe extern "C" fn() -> *mut c_void>;

c_data! {
    /// Operations of a device.
    pub struct ibv_context_ops {
        pub _compat_query_device: Option<unsafe extern "C" fn(*mut ibv_context, *mut ibv_device_attr) -> c_int>,
        pub _compat_query_port:
            Option<unsafe extern "C" fn(*mut ibv_context, u8, *mut _compat_ibv_port_attr) -> c_int>,
        pub _compat_alloc_pd: compat_slot,
        pub _compat_dealloc_pd: compat_slot,
        pub _compat_reg_mr: compat_slot,
        pub _compat_rereg_mr: compat_slot,
        pub _compat_dereg_mr: compat_slot,
        pub alloc_mw: Option<unsafe extern "C" fn(*mut ibv_pd, ibv_mw_type) -> *mut ibv_mw>,
        pub bind_mw: Option<unsafe extern "C" fn(*mut ibv_qp, *mut ibv_mw, *mut ibv_mw_bind) -> c_int>,
        pub dealloc_mw: Option<unsafe extern "C" fn(*mut ibv_mw) -> c_int>,
        pub _compat_create_cq: compat_slot,
        pub poll_cq: Option<unsafe extern "C" fn(*mut ibv_cq, c_int, *mut ibv_wc) -> c_int>,
        pub req_notify_cq: Option<unsafe extern "C" fn(*mut ibv_cq, c_int) -> c_int>,
        pub _compat_cq_event: compat_slot,
        pub _compat_resize_cq: compat_slot,
        pub _compat_destroy_cq: compat_slot,
        pub _compat_create_srq: compat_slot,
        pub _compat_modify_srq: compat_slot,
        pub _compat_query_srq: compat_slot,
        pub _compat_destroy_srq: compat_slot,
        pub post_srq_recv:
            Option<unsafe extern "C" fn(*mut ibv_srq, *mut ibv_recv_wr, *mut *mut ibv_recv_wr) -> c_int>,
        pub _compat_create_qp: compat_slot,
        pub _compat_query_qp: compat_slot,
        pub _compat_modify_qp: compat_slot,
        pub _compat_destroy_qp: compat_slot,
        pub post_send: Option<unsafe extern "C" fn(*mut ibv_qp, *mut ibv_send_wr, *mut *mut ibv_send_wr) -> c_int>,
        pub post_recv: Option<unsafe extern "C" fn(*mut ibv_qp, *mut ibv_recv_wr, *mut *mut ibv_recv_wr) -> c_int>,
        pub _compat_create_ah: compat_slot,
        pub _compat_destroy_ah: compat_slot,
        pub _compat_attach_mcast: compat_slot,
        pub _compat_detach_mcast: compat_slot,
        pub _compat_async_event: compat_slot,
    }
}
