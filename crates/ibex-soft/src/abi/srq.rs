//! Shared receive queues: `ibv_create_srq(3)`, `ibv_modify_srq(3)`, `ibv_query_srq(3)`, `ibv_post_srq_recv(3)`.
//!
//! Owns their C side; queue and limit are [`crate::srq`]'s. `ibv_create_srq_ex(3)` needs nothing here for a basic queue:
//! verbs.h turns it into `ibv_create_srq`, and answers `EOPNOTSUPP` for the other types.
//!
//! # Safety
//! As `object`; lists of requests as in `post`.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ibex_sys::{
    IBV_SRQ_LIMIT, IBV_SRQ_MAX_WR, ibv_pd, ibv_recv_wr, ibv_srq, ibv_srq_attr, ibv_srq_attr_mask,
    ibv_srq_init_attr,
};

use super::context::Shared;
use super::object::{Object, Room, code, given, pointer};
use super::pd::{self, Pd};
use super::post;
use crate::device::AsyncEvent;
use crate::qp::{MAX_SGE, MAX_WR};
use crate::srq::Srq;

/// The inside of a shared receive queue.
pub(super) struct SrqInside {
    shared: Arc<Shared>,
    pub(super) srq: Arc<Srq>,
    pd: Arc<Pd>,
}

type SrqObject = Object<ibv_srq, SrqInside>;

/// The inside of a program's shared receive queue.
///
/// # Safety
/// `srq` is null or came from [`ibv_create_srq`] and was not destroyed.
#[inline]
pub(super) unsafe fn inside<'a>(srq: *mut ibv_srq) -> Result<&'a SrqInside, i32> {
    // SAFETY: the caller's promise.
    Ok(unsafe { SrqObject::soft(given(srq)?) })
}

/// `ibv_create_srq(3)`; the sizes granted are those asked for.
///
/// # Safety
/// `pd` is alive; `init` is readable.
pub unsafe extern "C" fn ibv_create_srq(pd: *mut ibv_pd, init: *mut ibv_srq_init_attr) -> *mut ibv_srq {
    pointer(|| {
        // SAFETY: the caller's promise.
        let domain = unsafe { pd::inside(pd) }?;
        let shared = &domain.shared;
        shared.nic()?;
        // SAFETY: the caller's promise.
        let asked = unsafe { given(init)?.read() };
        // The limit means nothing yet (manual).
        if !(1..=MAX_WR).contains(&asked.attr.max_wr) || asked.attr.max_sge > MAX_SGE {
            return Err(libc::EINVAL);
        }
        let room = Room::new();
        let srq = Arc::new(Srq::new(room.name(), domain.number, shared.events.clone(), &asked.attr));
        domain.users.fetch_add(1, Ordering::AcqRel);
        // SAFETY: the domain is alive.
        let context = unsafe { (*pd).context };
        let public = ibv_srq { context, srq_context: asked.srq_context, pd, ..Default::default() };
        Ok(room.publish(public, SrqInside { shared: shared.clone(), srq, pd: domain.clone() }))
    })
}

/// `ibv_modify_srq(3)`.
///
/// # Safety
/// `srq` is alive; `attr` is readable.
pub unsafe extern "C" fn ibv_modify_srq(srq: *mut ibv_srq, attr: *mut ibv_srq_attr, mask: c_int) -> c_int {
    code(|| {
        // SAFETY: the caller's promise.
        let inside = unsafe { inside(srq) }?;
        inside.shared.nic()?;
        // SAFETY: the caller's promise.
        let asked = unsafe { given(attr)?.read() };
        let mask = ibv_srq_attr_mask(mask as u32);
        let resized = mask.contains(IBV_SRQ_MAX_WR);
        if !(mask & !(IBV_SRQ_MAX_WR | IBV_SRQ_LIMIT)).is_empty()
            || resized && !(1..=MAX_WR).contains(&asked.max_wr)
        {
            return Err(libc::EINVAL);
        }
        let limit = mask.contains(IBV_SRQ_LIMIT).then_some(asked.srq_limit);
        inside.srq.modify(resized.then_some(asked.max_wr), limit)
    })
}

/// `ibv_query_srq(3)`.
///
/// # Safety
/// `srq` is alive; `attr` is writable.
pub unsafe extern "C" fn ibv_query_srq(srq: *mut ibv_srq, attr: *mut ibv_srq_attr) -> c_int {
    code(|| {
        // SAFETY: the caller's promise.
        let inside = unsafe { inside(srq) }?;
        inside.shared.nic()?;
        // SAFETY: the caller's promise.
        unsafe { given(attr)?.write(inside.srq.query()) }
        Ok(())
    })
}

/// `ibv_destroy_srq(3)`: `EBUSY` while queue pairs use it; waits until every event got from it is acknowledged.
///
/// # Safety
/// `srq` came from [`ibv_create_srq`]; it is not used any more unless this fails.
pub unsafe extern "C" fn ibv_destroy_srq(srq: *mut ibv_srq) -> c_int {
    code(|| {
        // SAFETY: the caller's promise.
        let inside = unsafe { inside(srq) }?;
        inside.shared.nic()?;
        if inside.srq.users.load(Ordering::Acquire) > 0 {
            return Err(libc::EBUSY);
        }
        let name = inside.srq.name;
        inside.shared.events.retain(|event| !matches!(event, AsyncEvent::Srq(_, about) if *about == name));
        inside.srq.async_events.wait();
        inside.pd.users.fetch_sub(1, Ordering::AcqRel);
        // SAFETY: the caller gives it up; no event names it any more.
        drop(unsafe { SrqObject::reclaim(srq) });
        Ok(())
    })
}

/// `ibv_post_srq_recv(3)`. Requests before the one that fails are posted.
pub(super) unsafe extern "C" fn post_srq_recv(
    srq: *mut ibv_srq,
    first: *mut ibv_recv_wr,
    bad: *mut *mut ibv_recv_wr,
) -> c_int {
    code(|| {
        // SAFETY: the queue is alive (manual).
        let inside = unsafe { inside(srq) }?;
        inside.shared.nic().inspect_err(|_| post::report(bad, first))?;
        let mut poster = inside.srq.poster();
        let mut next = first;
        while !next.is_null() {
            // SAFETY: the list is readable (manual).
            let wr = unsafe { &*next };
            let posted = post::list(wr.sg_list, wr.num_sge).and_then(|list| poster.recv(wr.wr_id, list));
            posted.inspect_err(|_| post::report(bad, next))?;
            next = wr.next;
        }
        Ok(())
    })
}
