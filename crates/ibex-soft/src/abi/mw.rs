//! Memory windows: `ibv_alloc_mw(3)`, `ibv_bind_mw(3)`, and the arguments of posted binds.
//!
//! Owns their C side. What may be bound to what is [`crate::mr`]'s; a bind is carried out in its place among the send
//! requests, which is the transport's.
//!
//! # Safety
//! As `object`. A request to bind names window and region by their keys, so that neither has to outlive it.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ibex_proto::SendOp;
use ibex_sys::dispatch::ibv_inc_rkey;
use ibex_sys::{
    IBV_MW_TYPE_1, IBV_MW_TYPE_2, IBV_SEND_FENCE, IBV_SEND_SIGNALED, ibv_mw, ibv_mw_bind, ibv_mw_bind_info,
    ibv_mw_type, ibv_pd, ibv_qp,
};

use super::object::{Object, code, given, pointer};
use super::pd::{self, Pd};
use super::qp;
use crate::mr::{Bind, WindowKind};
use crate::qp::{Payload, SendRequest};

type MwObject = Object<ibv_mw, Arc<Pd>>;

/// `ibv_alloc_mw(3)`.
pub(super) unsafe extern "C" fn alloc_mw(pd: *mut ibv_pd, r#type: ibv_mw_type) -> *mut ibv_mw {
    pointer(|| {
        // SAFETY: the domain is alive (manual).
        let domain = unsafe { pd::inside(pd) }?;
        let nic = domain.shared.nic()?;
        let kind = match r#type {
            IBV_MW_TYPE_1 => WindowKind::Type1,
            IBV_MW_TYPE_2 => WindowKind::Type2,
            _ => return Err(libc::EINVAL),
        };
        let rkey = nic.add_window(domain.number, kind).ok_or(libc::ENOMEM)?;
        domain.users.fetch_add(1, Ordering::AcqRel);
        // SAFETY: the domain is alive.
        let context = unsafe { (*pd).context };
        let public = ibv_mw { context, pd, rkey, handle: rkey >> 8, r#type };
        Ok(MwObject::publish(public, domain.clone()))
    })
}

/// `ibv_dealloc_mw(3)`: a window that is bound is taken back first. Returns after the last copy through it.
pub(super) unsafe extern "C" fn dealloc_mw(mw: *mut ibv_mw) -> c_int {
    code(|| {
        // SAFETY: the window is alive (manual).
        let domain = unsafe { MwObject::soft(given(mw)?) };
        let nic = domain.shared.nic()?;
        // SAFETY: as above.
        nic.remove_window(domain.number, unsafe { (*mw).rkey });
        domain.users.fetch_sub(1, Ordering::AcqRel);
        // SAFETY: the caller gives it up.
        drop(unsafe { MwObject::reclaim(mw) });
        Ok(())
    })
}

/// `ibv_bind_mw(3)`, after the checks of verbs.h: posts the bind of a type 1 window, which gets its next key.
pub(super) unsafe extern "C" fn bind_mw(
    qp: *mut ibv_qp,
    mw: *mut ibv_mw,
    mw_bind: *mut ibv_mw_bind,
) -> c_int {
    code(|| {
        // SAFETY: the queue pair is alive (manual).
        let inside = unsafe { qp::inside(qp) }?;
        let nic = inside.shared.nic()?;
        // SAFETY: readable (manual).
        let asked = unsafe { given(mw_bind)?.read() };
        // SAFETY: the window is alive (manual).
        let window = unsafe { given(mw)?.read() };
        if window.r#type != IBV_MW_TYPE_1 {
            return Err(libc::EINVAL);
        }
        let rkey = ibv_inc_rkey(window.rkey);
        let bind = bind(window.rkey, rkey, &asked.bind_info);
        let tables = inside.qp.tables(nic);
        let mut poster = inside.qp.poster(nic, &tables, true);
        poster.send(&SendRequest {
            wr_id: asked.wr_id,
            op: SendOp::BindMw,
            to: None,
            payload: Payload::Bind(&bind),
            signaled: asked.send_flags & IBV_SEND_SIGNALED.0 != 0,
            fence: asked.send_flags & IBV_SEND_FENCE.0 != 0,
            solicited: false,
        })?;
        poster.finish();
        // SAFETY: the window is alive; the library is who writes this member.
        unsafe { (*mw).rkey = rkey }
        Ok(())
    })
}

/// What a posted request to bind a type 2 window asks for.
///
/// # Errors
/// `EINVAL` without a window, or for one of type 1.
pub(super) fn type2(mw: *mut ibv_mw, rkey: u32, info: &ibv_mw_bind_info) -> Result<Bind, i32> {
    // SAFETY: the window is alive (manual).
    let window = unsafe { given(mw)?.read() };
    if window.r#type != IBV_MW_TYPE_2 {
        return Err(libc::EINVAL);
    }
    Ok(bind(window.rkey, rkey, info))
}

fn bind(window: u32, rkey: u32, info: &ibv_mw_bind_info) -> Bind {
    let region = (!info.mr.is_null()).then(|| {
        // SAFETY: the region is alive (manual).
        unsafe { (*info.mr).lkey }
    });
    Bind { window, rkey, region, addr: info.addr, len: info.length, access: info.mw_access_flags }
}
