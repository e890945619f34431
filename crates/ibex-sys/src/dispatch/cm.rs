//! The inline helpers of `rdma_cma.h` and `rdma_verbs.h`.
//!
//! Owns the addresses of an identifier, and registration, posting and waiting by identifier. The helpers return 0, or −1
//! with errno.
//!
//! Man pages: `rdma_get_local_addr(3)`, `rdma_reg_msgs(3)`, `rdma_post_send(3)`, `rdma_get_send_comp(3)`, and their
//! neighbours.
//!
//! # Safety
//!
//! See [`crate::dispatch`].
#![allow(unsafe_code)]

use core::ffi::{c_int, c_void};
use core::ptr::null_mut;

use libc::sockaddr;

use super::context::set_errno;
use super::{ibv_poll_cq, ibv_post_recv, ibv_post_send, ibv_post_srq_recv, ibv_reg_mr, ibv_req_notify_cq};
use crate::Verbs;
use crate::cma::{RDMA_UDP_QKEY, rdma_cm_id};
use crate::verbs::{
    IBV_ACCESS_LOCAL_WRITE, IBV_ACCESS_REMOTE_READ, IBV_ACCESS_REMOTE_WRITE, IBV_WR_RDMA_READ,
    IBV_WR_RDMA_WRITE, IBV_WR_SEND, ibv_access_flags, ibv_ah, ibv_comp_channel, ibv_cq, ibv_mr, ibv_recv_wr,
    ibv_send_wr, ibv_send_wr_rdma, ibv_send_wr_ud, ibv_send_wr_wr, ibv_sge, ibv_wc, ibv_wr_opcode,
};

/// Turns an errno value into −1 with errno. Drivers that return it negative are understood.
fn seterrno(ret: c_int) -> c_int {
    if ret == 0 {
        return 0;
    }
    // A value without an absolute value is no errno either way.
    set_errno(ret.checked_abs().unwrap_or(libc::EIO));
    -1
}

/// The local address of an identifier.
///
/// # Safety
///
/// `id` is live; the result lives as long.
pub unsafe fn rdma_get_local_addr(id: *mut rdma_cm_id) -> *mut sockaddr {
    // SAFETY: a place inside a live object.
    unsafe { &raw mut (*id).route.addr.src.src_addr }
}

/// The remote address of an identifier.
///
/// # Safety
///
/// `id` is live; the result lives as long.
pub unsafe fn rdma_get_peer_addr(id: *mut rdma_cm_id) -> *mut sockaddr {
    // SAFETY: a place inside a live object.
    unsafe { &raw mut (*id).route.addr.dst.dst_addr }
}

/// Registers in the identifier's domain.
///
/// # Safety
///
/// As for `ibv_reg_mr`.
unsafe fn reg(
    verbs: &Verbs,
    id: *mut rdma_cm_id,
    addr: *mut c_void,
    length: usize,
    access: ibv_access_flags,
) -> *mut ibv_mr {
    // SAFETY: the identifier is live.
    let pd = unsafe { (*id).pd };
    // SAFETY: the caller's promise.
    unsafe { ibv_reg_mr(verbs, pd, addr, length, access.0 as c_int) }
}

/// Registers memory for SEND and RECV; null with errno on failure.
///
/// # Safety
///
/// `id` is live and has a protection domain; the memory stays mapped until deregistration.
pub unsafe fn rdma_reg_msgs(
    verbs: &Verbs,
    id: *mut rdma_cm_id,
    addr: *mut c_void,
    length: usize,
) -> *mut ibv_mr {
    // SAFETY: the caller's promise.
    unsafe { reg(verbs, id, addr, length, IBV_ACCESS_LOCAL_WRITE) }
}

/// Registers memory that the peer may read; null with errno on failure.
///
/// # Safety
///
/// As for [`rdma_reg_msgs`].
pub unsafe fn rdma_reg_read(
    verbs: &Verbs,
    id: *mut rdma_cm_id,
    addr: *mut c_void,
    length: usize,
) -> *mut ibv_mr {
    // SAFETY: the caller's promise.
    unsafe { reg(verbs, id, addr, length, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ) }
}

/// Registers memory that the peer may write; null with errno on failure.
///
/// # Safety
///
/// As for [`rdma_reg_msgs`].
pub unsafe fn rdma_reg_write(
    verbs: &Verbs,
    id: *mut rdma_cm_id,
    addr: *mut c_void,
    length: usize,
) -> *mut ibv_mr {
    // SAFETY: the caller's promise.
    unsafe { reg(verbs, id, addr, length, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE) }
}

/// Deregisters memory.
///
/// # Safety
///
/// `mr` is live, has no work in flight, and is not used again if this succeeds.
pub unsafe fn rdma_dereg_mr(verbs: &Verbs, mr: *mut ibv_mr) -> c_int {
    // SAFETY: the caller's promise.
    seterrno(unsafe { (verbs.dereg_mr)(mr) })
}

/// Posts a receive with a scatter list, to the identifier's shared receive queue if it has one.
///
/// # Safety
///
/// `id` is live and has a queue pair; the list is readable for `nsge` entries and the memory stays as `ibv_post_recv(3)`
/// says.
pub unsafe fn rdma_post_recvv(
    id: *mut rdma_cm_id,
    context: *mut c_void,
    sgl: *mut ibv_sge,
    nsge: c_int,
) -> c_int {
    let mut wr = ibv_recv_wr { wr_id: context as u64, next: null_mut(), sg_list: sgl, num_sge: nsge };
    let mut bad = null_mut();
    // SAFETY: the identifier is live.
    let srq = unsafe { (*id).srq };
    if srq.is_null() {
        // SAFETY: the identifier is live.
        let qp = unsafe { (*id).qp };
        // SAFETY: the caller's promise; the request is read during the call only.
        seterrno(unsafe { ibv_post_recv(qp, &raw mut wr, &raw mut bad) })
    } else {
        // SAFETY: the caller's promise; the request is read during the call only.
        seterrno(unsafe { ibv_post_srq_recv(srq, &raw mut wr, &raw mut bad) })
    }
}

/// Posts one send work request.
///
/// # Safety
///
/// As for `ibv_post_send`.
unsafe fn post(
    id: *mut rdma_cm_id,
    context: *mut c_void,
    sgl: *mut ibv_sge,
    nsge: c_int,
    flags: c_int,
    opcode: ibv_wr_opcode,
    wr: ibv_send_wr_wr,
) -> c_int {
    let mut wr = ibv_send_wr {
        wr_id: context as u64,
        sg_list: sgl,
        num_sge: nsge,
        opcode,
        send_flags: flags as u32,
        wr,
        ..Default::default()
    };
    let mut bad = null_mut();
    // SAFETY: the identifier is live.
    let qp = unsafe { (*id).qp };
    // SAFETY: the caller's promise; the request is read during the call only.
    seterrno(unsafe { ibv_post_send(qp, &raw mut wr, &raw mut bad) })
}

/// Posts a SEND with a gather list.
///
/// # Safety
///
/// `id` is live and has a queue pair; the list is readable for `nsge` entries and the memory stays as `ibv_post_send(3)`
/// says.
pub unsafe fn rdma_post_sendv(
    id: *mut rdma_cm_id,
    context: *mut c_void,
    sgl: *mut ibv_sge,
    nsge: c_int,
    flags: c_int,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { post(id, context, sgl, nsge, flags, IBV_WR_SEND, Default::default()) }
}

/// Posts an RDMA READ with a scatter list.
///
/// # Safety
///
/// As for [`rdma_post_sendv`].
pub unsafe fn rdma_post_readv(
    id: *mut rdma_cm_id,
    context: *mut c_void,
    sgl: *mut ibv_sge,
    nsge: c_int,
    flags: c_int,
    remote_addr: u64,
    rkey: u32,
) -> c_int {
    let rdma = ibv_send_wr_wr { rdma: ibv_send_wr_rdma { remote_addr, rkey } };
    // SAFETY: the caller's promise.
    unsafe { post(id, context, sgl, nsge, flags, IBV_WR_RDMA_READ, rdma) }
}

/// Posts an RDMA WRITE with a gather list.
///
/// # Safety
///
/// As for [`rdma_post_sendv`].
pub unsafe fn rdma_post_writev(
    id: *mut rdma_cm_id,
    context: *mut c_void,
    sgl: *mut ibv_sge,
    nsge: c_int,
    flags: c_int,
    remote_addr: u64,
    rkey: u32,
) -> c_int {
    let rdma = ibv_send_wr_wr { rdma: ibv_send_wr_rdma { remote_addr, rkey } };
    // SAFETY: the caller's promise.
    unsafe { post(id, context, sgl, nsge, flags, IBV_WR_RDMA_WRITE, rdma) }
}

/// One entry; a null region, for inline data, has key 0. Lengths are 32 bits wide, as in C.
///
/// # Safety
///
/// `mr` is null or live.
unsafe fn sge(addr: *mut c_void, length: usize, mr: *mut ibv_mr) -> ibv_sge {
    let lkey = if mr.is_null() {
        0
    } else {
        // SAFETY: the region is live.
        unsafe { (*mr).lkey }
    };
    ibv_sge { addr: addr as u64, length: length as u32, lkey }
}

/// Posts a receive into one range of a region.
///
/// # Safety
///
/// As for [`rdma_post_recvv`]; `mr` is live and contains the range.
pub unsafe fn rdma_post_recv(
    id: *mut rdma_cm_id,
    context: *mut c_void,
    addr: *mut c_void,
    length: usize,
    mr: *mut ibv_mr,
) -> c_int {
    // SAFETY: the caller's promise.
    let mut entry = unsafe { sge(addr, length, mr) };
    // SAFETY: the caller's promise.
    unsafe { rdma_post_recvv(id, context, &raw mut entry, 1) }
}

/// Posts a SEND of one range; `mr` may be null for inline data.
///
/// # Safety
///
/// As for [`rdma_post_sendv`]; `mr` is null or live.
pub unsafe fn rdma_post_send(
    id: *mut rdma_cm_id,
    context: *mut c_void,
    addr: *mut c_void,
    length: usize,
    mr: *mut ibv_mr,
    flags: c_int,
) -> c_int {
    // SAFETY: the caller's promise.
    let mut entry = unsafe { sge(addr, length, mr) };
    // SAFETY: the caller's promise.
    unsafe { rdma_post_sendv(id, context, &raw mut entry, 1, flags) }
}

/// Posts an RDMA READ into one range of a region.
///
/// # Safety
///
/// As for [`rdma_post_sendv`]; `mr` is live.
#[allow(clippy::too_many_arguments, reason = "the C function's own")]
pub unsafe fn rdma_post_read(
    id: *mut rdma_cm_id,
    context: *mut c_void,
    addr: *mut c_void,
    length: usize,
    mr: *mut ibv_mr,
    flags: c_int,
    remote_addr: u64,
    rkey: u32,
) -> c_int {
    // SAFETY: the caller's promise.
    let mut entry = unsafe { sge(addr, length, mr) };
    // SAFETY: the caller's promise.
    unsafe { rdma_post_readv(id, context, &raw mut entry, 1, flags, remote_addr, rkey) }
}

/// Posts an RDMA WRITE from one range; `mr` may be null for inline data.
///
/// # Safety
///
/// As for [`rdma_post_sendv`]; `mr` is null or live.
#[allow(clippy::too_many_arguments, reason = "the C function's own")]
pub unsafe fn rdma_post_write(
    id: *mut rdma_cm_id,
    context: *mut c_void,
    addr: *mut c_void,
    length: usize,
    mr: *mut ibv_mr,
    flags: c_int,
    remote_addr: u64,
    rkey: u32,
) -> c_int {
    // SAFETY: the caller's promise.
    let mut entry = unsafe { sge(addr, length, mr) };
    // SAFETY: the caller's promise.
    unsafe { rdma_post_writev(id, context, &raw mut entry, 1, flags, remote_addr, rkey) }
}

/// Posts a datagram with the Q_Key of the UDP port space; `mr` may be null for inline data.
///
/// # Safety
///
/// As for [`rdma_post_sendv`]; `mr` is null or live, `ah` is live until the request completes.
#[allow(clippy::too_many_arguments, reason = "the C function's own")]
pub unsafe fn rdma_post_ud_send(
    id: *mut rdma_cm_id,
    context: *mut c_void,
    addr: *mut c_void,
    length: usize,
    mr: *mut ibv_mr,
    flags: c_int,
    ah: *mut ibv_ah,
    remote_qpn: u32,
) -> c_int {
    // SAFETY: the caller's promise.
    let mut entry = unsafe { sge(addr, length, mr) };
    let ud = ibv_send_wr_wr { ud: ibv_send_wr_ud { ah, remote_qpn, remote_qkey: RDMA_UDP_QKEY } };
    // SAFETY: the caller's promise.
    unsafe { post(id, context, &raw mut entry, 1, flags, IBV_WR_SEND, ud) }
}

/// Waits for one completion: polls, arms, polls again, sleeps for an event.
///
/// # Safety
///
/// The queue and its channel are live, the channel is used by this queue only, `wc` is writable.
unsafe fn wait(verbs: &Verbs, cq: *mut ibv_cq, channel: *mut ibv_comp_channel, wc: *mut ibv_wc) -> c_int {
    loop {
        // SAFETY: the caller's promise.
        let polled = unsafe { ibv_poll_cq(cq, 1, wc) };
        if polled != 0 {
            return if polled < 0 { seterrno(polled) } else { polled };
        }
        // SAFETY: the caller's promise.
        let armed = unsafe { ibv_req_notify_cq(cq, 0) };
        if armed != 0 {
            return seterrno(armed);
        }
        // SAFETY: the caller's promise.
        let polled = unsafe { ibv_poll_cq(cq, 1, wc) };
        if polled != 0 {
            return if polled < 0 { seterrno(polled) } else { polled };
        }
        let (mut from, mut context) = (null_mut(), null_mut());
        // SAFETY: the channel is live, both results are writable.
        let got = unsafe { (verbs.get_cq_event)(channel, &raw mut from, &raw mut context) };
        if got != 0 {
            return got;
        }
        // SAFETY: one event was got, one is acknowledged, to the queue that it came from.
        unsafe { (verbs.ack_cq_events)(from, 1) };
    }
}

/// Waits for a completion of the send queue; 1, or −1 with errno.
///
/// # Safety
///
/// `id` is live and has queues and channels made by `rdma_create_qp`; `wc` is writable.
pub unsafe fn rdma_get_send_comp(verbs: &Verbs, id: *mut rdma_cm_id, wc: *mut ibv_wc) -> c_int {
    // SAFETY: the identifier is live.
    let cq = unsafe { (*id).send_cq };
    // SAFETY: the identifier is live.
    let channel = unsafe { (*id).send_cq_channel };
    // SAFETY: the caller's promise.
    unsafe { wait(verbs, cq, channel, wc) }
}

/// Waits for a completion of the receive queue; 1, or −1 with errno.
///
/// # Safety
///
/// As for [`rdma_get_send_comp`].
pub unsafe fn rdma_get_recv_comp(verbs: &Verbs, id: *mut rdma_cm_id, wc: *mut ibv_wc) -> c_int {
    // SAFETY: the identifier is live.
    let cq = unsafe { (*id).recv_cq };
    // SAFETY: the identifier is live.
    let channel = unsafe { (*id).recv_cq_channel };
    // SAFETY: the caller's promise.
    unsafe { wait(verbs, cq, channel, wc) }
}
