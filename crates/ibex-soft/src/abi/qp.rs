//! Queue pairs: `ibv_create_qp(3)`, `ibv_modify_qp(3)`, `ibv_query_qp(3)`, `ibv_destroy_qp(3)`.
//!
//! Owns the checks at creation and the C side of attributes. States and queues are [`crate::qp`]'s.
//!
//! # Safety
//! As `object`. Attributes are copied in before anything is done with them, and out at the end.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use ibex_proto::Tuning;
use ibex_sys::{
    IBV_QP_STATE, IBV_QPS_RESET, IBV_QPT_RC, IBV_QPT_UC, IBV_QPT_UD, ibv_ece, ibv_gid, ibv_pd, ibv_qp,
    ibv_qp_attr, ibv_qp_attr_mask, ibv_qp_cap, ibv_qp_ex, ibv_qp_init_attr, ibv_srq, ibv_wr_opcode,
};

use super::context::Shared;
use super::object::{Object, Room, code, given, pointer};
use super::pd::{self, Pd};
use super::wr::Builder;
use super::{cq, qp_ex, refuse, srq};
use crate::device::{self, AsyncEvent};
use crate::nic::Nic;
use crate::qp::{MAX_INLINE, MAX_SGE, MAX_WR, Parts, Qp};
use crate::srq::Srq;

/// The inside of a queue pair.
pub(super) struct QpInside {
    pub(super) shared: Arc<Shared>,
    pub(super) qp: Arc<Qp>,
    pub(super) pd: Arc<Pd>,
    /// What an extended queue pair has besides.
    pub(super) builder: Option<Box<Builder>>,
}

/// Every queue pair has the room of an extended one, whose first member is an `ibv_qp`.
type QpObject = Object<ibv_qp_ex, QpInside>;

/// The inside of a program's queue pair.
///
/// # Safety
/// `qp` is null or came from [`ibv_create_qp`] and was not destroyed.
#[inline]
pub(super) unsafe fn inside<'a>(qp: *mut ibv_qp) -> Result<&'a QpInside, i32> {
    // SAFETY: the caller's promise.
    Ok(unsafe { QpObject::soft(given(qp)?.cast()) })
}

/// Whether the device can make queues of these sizes.
fn possible(cap: &ibv_qp_cap) -> bool {
    cap.max_send_wr <= MAX_WR
        && cap.max_recv_wr <= MAX_WR
        && cap.max_send_sge <= MAX_SGE
        && cap.max_recv_sge <= MAX_SGE
        && cap.max_inline_data <= MAX_INLINE
}

/// The shared receive queue asked for, if one is.
///
/// # Safety
/// `srq` is null or alive.
unsafe fn shared_queue(srq: *mut ibv_srq) -> Result<Option<Arc<Srq>>, i32> {
    if srq.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    Ok(Some(unsafe { srq::inside(srq) }?.srq.clone()))
}

/// The choices of the transport for queue pairs of this NIC.
fn tuning(nic: &Nic) -> Tuning {
    // The peer's buffer is taken to be like ours. The kernel charges a packet with its bookkeeping, a fifth of it at most;
    // the transport shrinks the window when others who send there leave less room.
    let packets = nic.wire.rcvbuf() / 4 * 3 / nic.wire.mtu();
    // Beyond 512 packets (2 MiB) nothing is gained on a host.
    let max_window = packets.clamp(16, 512) as u32;
    Tuning { max_window, ..Tuning::default() }
}

/// `ibv_create_qp(3)`; the capabilities granted are those asked for.
///
/// # Safety
/// `pd` is alive; `init` is readable and writable, and names live objects.
pub unsafe extern "C" fn ibv_create_qp(pd: *mut ibv_pd, init: *mut ibv_qp_init_attr) -> *mut ibv_qp {
    // SAFETY: the caller's promise.
    pointer(|| unsafe { create(pd, init, None) })
}

/// Makes a queue pair, an extended one if `send_ops` are named.
///
/// # Errors
/// An errno: `EOPNOTSUPP` for a type, or an operation of it, that is not served, `EINVAL` for sizes that are not possible.
///
/// # Safety
/// As [`ibv_create_qp`].
pub(super) unsafe fn create(
    pd: *mut ibv_pd,
    init: *mut ibv_qp_init_attr,
    send_ops: Option<u64>,
) -> Result<*mut ibv_qp, i32> {
    // SAFETY: the caller's promise.
    let domain = unsafe { pd::inside(pd) }?;
    let shared = &domain.shared;
    let nic = shared.nic()?;
    // SAFETY: the caller's promise.
    let mut asked = unsafe { given(init)?.read() };
    if ![IBV_QPT_RC, IBV_QPT_UC, IBV_QPT_UD].contains(&asked.qp_type) {
        return Err(libc::EOPNOTSUPP);
    }
    // SAFETY: the caller's promise.
    let srq = unsafe { shared_queue(asked.srq) }?;
    if srq.is_some() {
        // The manual: not looked at then; there is no receive queue that could have these sizes.
        (asked.cap.max_recv_wr, asked.cap.max_recv_sge) = (0, 0);
    }
    if !possible(&asked.cap) {
        return Err(libc::EINVAL);
    }
    let (builder, functions) = match send_ops {
        Some(ops) => {
            let builder = Builder::new(asked.qp_type, &asked.cap, domain.number, ops, &shared.limits)?;
            (Some(Box::new(builder)), qp_ex::functions(ops))
        }
        None => (None, ibv_qp_ex::default()),
    };
    // SAFETY: the caller's promise.
    let send_cq = unsafe { cq::inside(asked.send_cq) }?.cq.clone();
    // SAFETY: the caller's promise.
    let recv_cq = unsafe { cq::inside(asked.recv_cq) }?.cq.clone();
    let room = Room::new();
    let num = nic.wire.alloc_qpn().map_err(|error| error.errno())?;
    let qp = Arc::new(Qp::new(Parts {
        num,
        service: asked.qp_type,
        own: nic.wire.address(),
        name: room.name(),
        pd: domain.number,
        events: shared.events.clone(),
        send_cq,
        recv_cq,
        srq,
        cap: asked.cap,
        sq_sig_all: asked.sq_sig_all != 0,
        tuning: tuning(nic),
        timer: nic.add_timer(num),
    }));
    nic.attach(qp.clone());
    shared.qps.lock().unwrap_or_else(PoisonError::into_inner).push(num);
    domain.users.fetch_add(1, Ordering::AcqRel);
    // SAFETY: the domain is alive.
    let context = unsafe { (*pd).context };
    let public = ibv_qp {
        context,
        qp_context: asked.qp_context,
        pd,
        send_cq: asked.send_cq,
        recv_cq: asked.recv_cq,
        srq: asked.srq,
        handle: num,
        qp_num: num,
        state: IBV_QPS_RESET,
        qp_type: asked.qp_type,
        ..Default::default()
    };
    // SAFETY: the caller's promise; these are the sizes granted.
    unsafe { (*init).cap = asked.cap }
    let public = ibv_qp_ex { qp_base: public, ..functions };
    let inside = QpInside { shared: shared.clone(), qp, pd: domain.clone(), builder };
    Ok(room.publish(public, inside).cast())
}

/// `ibv_modify_qp(3)`.
///
/// # Safety
/// `qp` is alive; `attr` is readable.
pub unsafe extern "C" fn ibv_modify_qp(qp: *mut ibv_qp, attr: *mut ibv_qp_attr, mask: c_int) -> c_int {
    code(|| {
        // SAFETY: the caller's promise.
        let inside = unsafe { inside(qp) }?;
        let nic = inside.shared.nic()?;
        // SAFETY: the caller's promise.
        let asked = unsafe { given(attr)?.read() };
        let mask = ibv_qp_attr_mask(mask as u32);
        let address = device::address_of(raw(&asked.ah_attr.grh.dgid), nic.wire.address());
        let state = inside.qp.modify(nic, &asked, mask, address, &inside.shared.limits)?;
        if mask.contains(IBV_QP_STATE) {
            // SAFETY: the queue pair is alive; the library is who writes this member.
            unsafe { (*qp).state = state }
        }
        Ok(())
    })
}

/// The bytes of a GID.
pub(super) fn raw(gid: &ibv_gid) -> [u8; 16] {
    // SAFETY: every bit pattern is one of sixteen bytes, and all members of the union cover them.
    unsafe { gid.raw }
}

/// `ibv_query_qp(3)`: tells everything, whatever the mask asks for.
///
/// # Safety
/// `qp` is alive; the attributes are writable.
pub unsafe extern "C" fn ibv_query_qp(
    qp: *mut ibv_qp,
    attr: *mut ibv_qp_attr,
    _mask: c_int,
    init: *mut ibv_qp_init_attr,
) -> c_int {
    code(|| {
        // SAFETY: the caller's promise.
        let inside = unsafe { inside(qp) }?;
        inside.shared.nic()?;
        let now = inside.qp.query();
        // SAFETY: the queue pair is alive.
        let public = unsafe { &*qp };
        let made = ibv_qp_init_attr {
            qp_context: public.qp_context,
            send_cq: public.send_cq,
            recv_cq: public.recv_cq,
            srq: public.srq,
            cap: now.cap,
            qp_type: public.qp_type,
            sq_sig_all: c_int::from(inside.qp.sq_sig_all),
        };
        // SAFETY: the caller's promise.
        unsafe { given(attr)?.write(now) }
        // SAFETY: the caller's promise.
        unsafe { given(init)?.write(made) }
        // SAFETY: the queue pair is alive; the library is who writes this member.
        unsafe { (*qp).state = now.qp_state }
        Ok(())
    })
}

/// `ibv_destroy_qp(3)`: when it returns nothing posted to the queue pair is worked on; waits until every asynchronous event
/// got from it is acknowledged.
///
/// # Safety
/// `qp` came from [`ibv_create_qp`]; it is not used any more unless this fails.
pub unsafe extern "C" fn ibv_destroy_qp(qp: *mut ibv_qp) -> c_int {
    code(|| {
        // SAFETY: the caller's promise.
        let inside = unsafe { inside(qp) }?;
        let nic = inside.shared.nic()?;
        let (num, name) = (inside.qp.num, inside.qp.name);
        let mut alive = inside.shared.qps.lock().unwrap_or_else(PoisonError::into_inner);
        // Gone already if the context was closed before.
        let listed = alive.iter().position(|&known| known == num);
        if let Some(at) = listed {
            alive.swap_remove(at);
        }
        drop(alive);
        if listed.is_some() {
            nic.detach(num);
        }
        inside.shared.events.retain(|event| !matches!(event, AsyncEvent::Qp(_, about) if *about == name));
        inside.qp.async_events.wait();
        inside.pd.users.fetch_sub(1, Ordering::AcqRel);
        // SAFETY: the caller gives it up; no event names it any more.
        drop(unsafe { QpObject::reclaim(qp.cast()) });
        Ok(())
    })
}

/// `ibv_query_qp_data_in_order(3)`: no promise is made about the order in which payload becomes visible.
///
/// # Safety
/// None; the arguments are not looked at.
pub unsafe extern "C" fn ibv_query_qp_data_in_order(
    _qp: *mut ibv_qp,
    _op: ibv_wr_opcode,
    _flags: u32,
) -> c_int {
    0
}

/// `ibv_qp_to_qp_ex`: null for a queue pair created without naming send operations.
///
/// # Safety
/// `qp` is alive.
pub unsafe extern "C" fn ibv_qp_to_qp_ex(qp: *mut ibv_qp) -> *mut ibv_qp_ex {
    // SAFETY: the caller's promise.
    match unsafe { inside(qp) } {
        Ok(QpInside { builder: Some(_), .. }) => qp.cast(),
        _ => std::ptr::null_mut(),
    }
}

/// `ibv_query_ece(3)`: there are no vendor options.
///
/// # Safety
/// None; the arguments are not looked at.
pub unsafe extern "C" fn ibv_query_ece(_qp: *mut ibv_qp, _ece: *mut ibv_ece) -> c_int {
    refuse::errno()
}

/// `ibv_set_ece(3)`: there are no vendor options.
///
/// # Safety
/// None; the arguments are not looked at.
pub unsafe extern "C" fn ibv_set_ece(_qp: *mut ibv_qp, _ece: *mut ibv_ece) -> c_int {
    refuse::errno()
}
