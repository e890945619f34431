//! Queue pairs of identifiers: `rdma_create_qp(3)`, `rdma_create_srq(3)`, `rdma_init_qp_attr(3)`, and their transitions.
//!
//! Owns what is made besides when a program names no domain or queues, and the attributes of INIT, RTR and RTS. The
//! numbers of a connection are the state machine's.
//!
//! # Safety
//! As `object`; what the members of an identifier point to is alive, by the manual or because it was made here.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::ptr::null_mut;

use ibex_sys::{
    IBV_ACCESS_REMOTE_ATOMIC, IBV_ACCESS_REMOTE_READ, IBV_ACCESS_REMOTE_WRITE, IBV_QP_ACCESS_FLAGS,
    IBV_QP_AV, IBV_QP_DEST_QPN, IBV_QP_INIT_ATTR_PD, IBV_QP_MAX_DEST_RD_ATOMIC, IBV_QP_MAX_QP_RD_ATOMIC,
    IBV_QP_MIN_RNR_TIMER, IBV_QP_PATH_MTU, IBV_QP_PKEY_INDEX, IBV_QP_PORT, IBV_QP_QKEY, IBV_QP_RETRY_CNT,
    IBV_QP_RNR_RETRY, IBV_QP_RQ_PSN, IBV_QP_SQ_PSN, IBV_QP_STATE, IBV_QP_TIMEOUT, IBV_QPS_ERR, IBV_QPS_INIT,
    IBV_QPS_RTR, IBV_QPS_RTS, IBV_QPT_UC, IBV_QPT_UD, IBV_SRQ_INIT_ATTR_PD, IBV_SRQ_INIT_ATTR_TYPE,
    IBV_SRQT_BASIC, RDMA_UDP_QKEY, dispatch, ibv_comp_channel, ibv_context, ibv_cq, ibv_mtu, ibv_pd, ibv_qp,
    ibv_qp_attr, ibv_qp_attr_mask, ibv_qp_init_attr, ibv_qp_init_attr_ex, ibv_sge, ibv_srq_init_attr,
    ibv_srq_init_attr_ex, rdma_cm_id,
};

use super::channel::address;
use super::id::inside;
use crate::abi::object::{given, minus_one};
use crate::abi::{
    ibv_create_comp_channel, ibv_create_cq, ibv_create_qp, ibv_create_srq, ibv_destroy_comp_channel,
    ibv_destroy_cq, ibv_destroy_qp, ibv_destroy_srq, ibv_modify_qp,
};
use crate::device::MAX_RD_ATOMIC;
use crate::qp::{MAX_INLINE, MAX_SGE};

/// The wait that a receiver without a receive asks for, code of 0.64 ms: the kernel's 0 means 0.66 s.
const RNR_TIMER: u8 = 12;

/// The errno of the call that just failed.
fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

/// A pointer, or the errno of the call that returned null.
fn made<T>(pointer: *mut T) -> Result<*mut T, i32> {
    if pointer.is_null() { Err(errno()) } else { Ok(pointer) }
}

/// Success, or the errno that a verb returned.
fn done(code: c_int) -> Result<(), i32> {
    if code == 0 { Ok(()) } else { Err(code) }
}

/// `rdma_create_qp(3)`: without a domain the library's, without completion queues new ones with their channels.
///
/// # Safety
/// `id` is alive, `pd` null or alive; `init` is readable and writable.
pub unsafe extern "C" fn rdma_create_qp(
    id: *mut rdma_cm_id,
    pd: *mut ibv_pd,
    init: *mut ibv_qp_init_attr,
) -> c_int {
    minus_one(|| {
        // SAFETY: domain and attributes are alive, by the caller's promise.
        let make = |pd: *mut ibv_pd, init: *mut ibv_qp_init_attr| unsafe { ibv_create_qp(pd, init) };
        // SAFETY: the caller's promise.
        unsafe { create(id, pd, given(init)?, make) }?;
        Ok(0)
    })
}

/// `rdma_create_qp_ex(3)`.
///
/// # Safety
/// `id` is alive; `init` is readable and writable as far as its mask says.
pub unsafe extern "C" fn rdma_create_qp_ex(id: *mut rdma_cm_id, init: *mut ibv_qp_init_attr_ex) -> c_int {
    minus_one(|| {
        let init = given(init)?;
        // SAFETY: the caller's promise.
        let mask = unsafe { (*init).comp_mask };
        let pd = if mask & IBV_QP_INIT_ATTR_PD.0 != 0 {
            // SAFETY: the caller's promise, and the mask says that it is there.
            unsafe { (*init).pd }
        } else {
            null_mut()
        };
        // SAFETY: the extended structure begins as the other does, up to `sq_sig_all`.
        let classic = init.cast::<ibv_qp_init_attr>();
        let extended = |pd: *mut ibv_pd, _: *mut ibv_qp_init_attr| {
            // SAFETY: the caller's promise.
            unsafe { (*init).pd = pd };
            // SAFETY: as above.
            unsafe { (*init).comp_mask |= IBV_QP_INIT_ATTR_PD.0 };
            // SAFETY: the domain is alive.
            let context = unsafe { (*pd).context };
            // SAFETY: the caller's promise.
            unsafe { dispatch::ibv_create_qp_ex(crate::abi::verbs(), context, init) }
        };
        // SAFETY: the caller's promise.
        unsafe { create(id, pd, classic, extended) }?;
        Ok(0)
    })
}

/// Makes a queue pair in INIT, or RTS for datagrams.
///
/// # Safety
/// As [`rdma_create_qp`].
pub(super) unsafe fn create(
    id: *mut rdma_cm_id,
    pd: *mut ibv_pd,
    init: *mut ibv_qp_init_attr,
    make: impl FnOnce(*mut ibv_pd, *mut ibv_qp_init_attr) -> *mut ibv_qp,
) -> Result<(), i32> {
    // SAFETY: the caller's promise.
    let inside = unsafe { inside(id) }?;
    // SAFETY: the caller's promise; nobody else uses the members during the call.
    let public = unsafe { &mut *id };
    if !public.qp.is_null() || public.verbs.is_null() {
        return Err(libc::EINVAL);
    }
    let pd = if pd.is_null() { inside.home.pd } else { pd };
    // SAFETY: the domain is alive, by the manual or because it is the library's.
    let context = unsafe { (*pd).context };
    if context != public.verbs {
        return Err(libc::EINVAL);
    }
    // SAFETY: the caller's promise.
    let mut asked = unsafe { init.read() };
    let differs =
        |ours: *mut ibv_cq, theirs: *mut ibv_cq| !ours.is_null() && !theirs.is_null() && ours != theirs;
    let srqs = !public.srq.is_null() && !asked.srq.is_null() && public.srq != asked.srq;
    if differs(public.send_cq, asked.send_cq) || differs(public.recv_cq, asked.recv_cq) || srqs {
        return Err(libc::EINVAL);
    }
    // As every provider grants it: what holds a scatter list holds as many bytes. Programs count on it.
    let list = (asked.cap.max_send_sge.min(MAX_SGE) as usize * size_of::<ibv_sge>()) as u32;
    asked.cap.max_inline_data = asked.cap.max_inline_data.max(list.min(MAX_INLINE));
    let outcome = (|| {
        if asked.recv_cq.is_null() {
            // Every queue pair has two; one that never completes anything is as small as can be.
            let entries = asked.cap.max_recv_wr.max(1);
            // SAFETY: the context is open.
            (public.recv_cq_channel, public.recv_cq) = unsafe { queue(context, id, entries) }?;
            asked.recv_cq = public.recv_cq;
        }
        if asked.send_cq.is_null() {
            let entries = asked.cap.max_send_wr.max(1);
            // SAFETY: as above.
            (public.send_cq_channel, public.send_cq) = unsafe { queue(context, id, entries) }?;
            asked.send_cq = public.send_cq;
        }
        if asked.srq.is_null() {
            asked.srq = public.srq;
        }
        // The program reads there what it got.
        // SAFETY: the caller's promise.
        unsafe { init.write(asked) };
        let qp = made(make(pd, init))?;
        let ready = if public.qp_type == IBV_QPT_UD {
            // SAFETY: just made.
            unsafe { datagrams(qp) }
        } else {
            // SAFETY: just made.
            unsafe { initial(qp, 0) }
        };
        if let Err(errno) = ready {
            // SAFETY: just made, and given to nobody.
            unsafe { ibv_destroy_qp(qp) };
            return Err(errno);
        }
        public.pd = pd;
        public.qp = qp;
        Ok(())
    })();
    if outcome.is_err() {
        // The attributes are the program's; what was made for them is about to be gone.
        let forget = |cq: *mut ibv_cq, ours: *mut ibv_cq| if cq == ours { null_mut() } else { cq };
        asked.recv_cq = forget(asked.recv_cq, public.recv_cq);
        asked.send_cq = forget(asked.send_cq, public.send_cq);
        // SAFETY: the caller's promise.
        unsafe { init.write(asked) };
        // SAFETY: made above.
        unsafe { drop_queues(id) };
    }
    outcome
}

/// A completion queue with a channel of its own.
///
/// # Safety
/// `context` is open.
unsafe fn queue(
    context: *mut ibv_context,
    id: *mut rdma_cm_id,
    entries: u32,
) -> Result<(*mut ibv_comp_channel, *mut ibv_cq), i32> {
    // SAFETY: the context is open.
    let channel = made(unsafe { ibv_create_comp_channel(context) })?;
    let entries = c_int::try_from(entries).map_err(|_| libc::EINVAL)?;
    // SAFETY: context and channel are alive.
    let cq = made(unsafe { ibv_create_cq(context, entries, id.cast(), channel, 0) });
    cq.map(|cq| (channel, cq)).inspect_err(|_| {
        // SAFETY: just made, and given to nobody.
        unsafe { ibv_destroy_comp_channel(channel) };
    })
}

/// Destroys the completion queues that were made for an identifier.
///
/// # Safety
/// `id` is alive, and nothing of its uses them any more.
unsafe fn drop_queues(id: *mut rdma_cm_id) {
    // SAFETY: the caller's promise.
    let public = unsafe { &mut *id };
    for (cq, channel) in [
        (&mut public.recv_cq, &mut public.recv_cq_channel),
        (&mut public.send_cq, &mut public.send_cq_channel),
    ] {
        let (cq, channel) = (std::mem::replace(cq, null_mut()), std::mem::replace(channel, null_mut()));
        if !cq.is_null() {
            // SAFETY: made by `queue`, and not used any more.
            unsafe { ibv_destroy_cq(cq) };
        }
        if !channel.is_null() {
            // SAFETY: as above.
            unsafe { ibv_destroy_comp_channel(channel) };
        }
    }
}

/// `rdma_destroy_qp(3)`.
///
/// # Safety
/// `id` is alive; its queue pair is not used any more.
pub unsafe extern "C" fn rdma_destroy_qp(id: *mut rdma_cm_id) {
    let _ = minus_one(|| {
        // SAFETY: the caller's promise.
        unsafe { inside(id) }?;
        // SAFETY: the caller's promise.
        let qp = unsafe { std::mem::replace(&mut (*id).qp, null_mut()) };
        if !qp.is_null() {
            // SAFETY: the caller gives it up.
            unsafe { ibv_destroy_qp(qp) };
        }
        // SAFETY: nothing uses them any more.
        unsafe { drop_queues(id) };
        Ok(0)
    });
}

/// `rdma_create_srq(3)`: without a domain the library's.
///
/// # Safety
/// `id` is alive, `pd` null or alive; `init` is readable and writable.
pub unsafe extern "C" fn rdma_create_srq(
    id: *mut rdma_cm_id,
    pd: *mut ibv_pd,
    init: *mut ibv_srq_init_attr,
) -> c_int {
    minus_one(|| {
        // SAFETY: the caller's promise.
        let inside = unsafe { inside(id) }?;
        // SAFETY: the caller's promise; nobody else uses the members during the call.
        let public = unsafe { &mut *id };
        if !public.srq.is_null() {
            return Err(libc::EINVAL);
        }
        let pd = if pd.is_null() { inside.home.pd } else { pd };
        // SAFETY: the domain is alive, and so are the attributes.
        public.srq = made(unsafe { ibv_create_srq(pd, given(init)?) })?;
        public.pd = pd;
        Ok(0)
    })
}

/// `rdma_create_srq_ex(3)`: basic ones, as [`rdma_create_srq`].
///
/// # Safety
/// `id` is alive; `init` is readable and writable as far as its mask says.
pub unsafe extern "C" fn rdma_create_srq_ex(id: *mut rdma_cm_id, init: *mut ibv_srq_init_attr_ex) -> c_int {
    // SAFETY: the caller's promise.
    let Some(asked) = (unsafe { init.as_mut() }) else {
        return minus_one(|| Err(libc::EINVAL));
    };
    let known = IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_PD;
    let typed = asked.comp_mask & IBV_SRQ_INIT_ATTR_TYPE.0 != 0;
    if asked.comp_mask & !known.0 != 0 || (typed && asked.srq_type != IBV_SRQT_BASIC) {
        return minus_one(|| Err(libc::EOPNOTSUPP));
    }
    let pd = if asked.comp_mask & IBV_SRQ_INIT_ATTR_PD.0 != 0 { asked.pd } else { null_mut() };
    let mut classic = ibv_srq_init_attr { srq_context: asked.srq_context, attr: asked.attr };
    // SAFETY: the caller's promise.
    let outcome = unsafe { rdma_create_srq(id, pd, &raw mut classic) };
    asked.attr = classic.attr;
    outcome
}

/// `rdma_destroy_srq(3)`.
///
/// # Safety
/// `id` is alive; its shared receive queue is not used any more.
pub unsafe extern "C" fn rdma_destroy_srq(id: *mut rdma_cm_id) {
    let _ = minus_one(|| {
        // SAFETY: the caller's promise.
        unsafe { inside(id) }?;
        // SAFETY: the caller's promise.
        let srq = unsafe { std::mem::replace(&mut (*id).srq, null_mut()) };
        if !srq.is_null() {
            // SAFETY: the caller gives it up.
            unsafe { ibv_destroy_srq(srq) };
        }
        Ok(0)
    });
}

/// Moves a queue pair.
///
/// # Safety
/// `qp` is alive.
unsafe fn modify(qp: *mut ibv_qp, mut attr: ibv_qp_attr, mask: ibv_qp_attr_mask) -> Result<(), i32> {
    // SAFETY: the caller's promise; the attributes are a local.
    done(unsafe { ibv_modify_qp(qp, &raw mut attr, (mask | IBV_QP_STATE).0 as c_int) })
}

/// Moves a connected queue pair to INIT, its peer having these rights.
///
/// # Safety
/// `qp` is alive.
unsafe fn initial(qp: *mut ibv_qp, access: u32) -> Result<(), i32> {
    let attr =
        ibv_qp_attr { qp_state: IBV_QPS_INIT, port_num: 1, qp_access_flags: access, ..Default::default() };
    // SAFETY: the caller's promise.
    unsafe { modify(qp, attr, IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS) }
}

/// Moves a datagram queue pair to RTS.
///
/// # Safety
/// `qp` is alive.
unsafe fn datagrams(qp: *mut ibv_qp) -> Result<(), i32> {
    let attr = ibv_qp_attr { qp_state: IBV_QPS_INIT, port_num: 1, qkey: RDMA_UDP_QKEY, ..Default::default() };
    // SAFETY: the caller's promise.
    unsafe { modify(qp, attr, IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY) }?;
    let attr = ibv_qp_attr { qp_state: IBV_QPS_RTR, ..Default::default() };
    // SAFETY: as above.
    unsafe { modify(qp, attr, ibv_qp_attr_mask(0)) }?;
    let attr = ibv_qp_attr { qp_state: IBV_QPS_RTS, ..Default::default() };
    // SAFETY: as above.
    unsafe { modify(qp, attr, IBV_QP_SQ_PSN) }
}

/// Moves the queue pair of an identifier to RTS by its connection's numbers; `answer` and `ask` bound READs and atomics of
/// the peer and to the peer.
///
/// # Safety
/// `id` is alive and has a queue pair.
pub(super) unsafe fn run(id: *mut rdma_cm_id, answer: Option<u8>, ask: Option<u8>) -> Result<(), i32> {
    // SAFETY: the caller's promise.
    let qp = unsafe { (*id).qp };
    for state in [IBV_QPS_INIT, IBV_QPS_RTR, IBV_QPS_RTS] {
        let mut attr = ibv_qp_attr { qp_state: state, ..Default::default() };
        // SAFETY: the caller's promise.
        let mask = unsafe { attributes(id, &mut attr) }?;
        if let Some(answer) = answer {
            attr.max_dest_rd_atomic = answer.min(attr.max_dest_rd_atomic);
        }
        if let Some(ask) = ask {
            attr.max_rd_atomic = ask.min(attr.max_rd_atomic);
        }
        // SAFETY: the caller's promise.
        unsafe { modify(qp, attr, mask) }?;
    }
    Ok(())
}

/// Moves the queue pair of an identifier, if it has one, to the error state.
///
/// # Safety
/// `id` is alive.
pub(super) unsafe fn stop(id: *mut rdma_cm_id) {
    // SAFETY: the caller's promise.
    let qp = unsafe { (*id).qp };
    if !qp.is_null() {
        let attr = ibv_qp_attr { qp_state: IBV_QPS_ERR, ..Default::default() };
        // SAFETY: the identifier's queue pair is alive; from every state ERR can be reached.
        let _ = unsafe { modify(qp, attr, ibv_qp_attr_mask(0)) };
    }
}

/// `rdma_init_qp_attr(3)`: for the state that the attributes name.
///
/// # Safety
/// `id` is alive; the other two are readable and writable.
pub unsafe extern "C" fn rdma_init_qp_attr(
    id: *mut rdma_cm_id,
    attr: *mut ibv_qp_attr,
    mask: *mut c_int,
) -> c_int {
    minus_one(|| {
        given(mask)?;
        // SAFETY: the caller's promise.
        unsafe { inside(id) }?;
        // SAFETY: the caller's promise.
        let attr = unsafe { &mut *given(attr)? };
        // SAFETY: the caller's promise.
        let wanted = unsafe { attributes(id, attr) }?;
        // SAFETY: the caller's promise.
        unsafe { *mask = wanted.0 as c_int }
        Ok(0)
    })
}

/// The attributes for the state named in them, and their mask.
///
/// # Safety
/// `id` is alive.
unsafe fn attributes(id: *mut rdma_cm_id, attr: &mut ibv_qp_attr) -> Result<ibv_qp_attr_mask, i32> {
    // SAFETY: the caller's promise.
    let inside = unsafe { inside(id) }?;
    // SAFETY: the caller's promise.
    let kind = unsafe { (*id).qp_type };
    let service = &inside.nic()?.cm;
    attr.port_num = 1;
    attr.pkey_index = 0;
    let state = attr.qp_state;
    if kind == IBV_QPT_UD {
        attr.qkey = RDMA_UDP_QKEY;
        attr.sq_psn = 0;
        return match state {
            IBV_QPS_INIT => Ok(IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY),
            IBV_QPS_RTR => Ok(IBV_QP_STATE),
            IBV_QPS_RTS => Ok(IBV_QP_STATE | IBV_QP_SQ_PSN),
            _ => Err(libc::EINVAL),
        };
    }
    let reliable = kind != IBV_QPT_UC;
    let numbers = service.attributes(&inside.id);
    if state == IBV_QPS_INIT {
        // Before the peer is known it has no rights.
        attr.qp_access_flags = numbers.map_or(0, |numbers| {
            let reads = if reliable && numbers.max_dest_rd_atomic > 0 {
                (IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC).0
            } else {
                0
            };
            IBV_ACCESS_REMOTE_WRITE.0 | reads
        });
        return Ok(IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
    }
    let numbers = numbers?;
    match state {
        IBV_QPS_RTR => {
            let largest = inside.home.shared().limits.mtu.0;
            attr.ah_attr = address(&numbers.path);
            attr.path_mtu = ibv_mtu(u32::from(numbers.path.mtu.code()).min(largest));
            attr.dest_qp_num = numbers.remote_qpn.get();
            attr.rq_psn = numbers.rq_psn.get();
            attr.max_dest_rd_atomic = numbers.max_dest_rd_atomic.min(MAX_RD_ATOMIC);
            attr.min_rnr_timer = RNR_TIMER;
            let mask = IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN;
            let more = IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
            Ok(if reliable { mask | more } else { mask })
        }
        IBV_QPS_RTS => {
            attr.sq_psn = numbers.sq_psn.get();
            attr.timeout = numbers.ack_timeout;
            attr.retry_cnt = numbers.retry_count;
            attr.rnr_retry = numbers.rnr_retry_count;
            attr.max_rd_atomic = numbers.max_rd_atomic.min(MAX_RD_ATOMIC);
            let mask = IBV_QP_STATE | IBV_QP_SQ_PSN;
            let more = IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC;
            Ok(if reliable { mask | more } else { mask })
        }
        _ => Err(libc::EINVAL),
    }
}
