//! Posting: `ibv_post_send(3)`, `ibv_post_recv(3)`.
//!
//! Owns the walk over a program's list of work requests and their translation. Queues and doorbell are [`crate::qp`]'s.
//!
//! # Safety
//! As `object`. A list of requests and its scatter/gather lists are readable for the length of the call (manual); no
//! reference to them is kept. Which member of a request's unions is read follows from its opcode.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::net::IpAddr;

use ibex_proto::SendOp;
use ibex_sys::{
    IBV_SEND_FENCE, IBV_SEND_INLINE, IBV_SEND_SIGNALED, IBV_SEND_SOLICITED, IBV_WR_ATOMIC_CMP_AND_SWP,
    IBV_WR_ATOMIC_FETCH_AND_ADD, IBV_WR_BIND_MW, IBV_WR_LOCAL_INV, IBV_WR_RDMA_READ, IBV_WR_RDMA_WRITE,
    IBV_WR_RDMA_WRITE_WITH_IMM, IBV_WR_SEND, IBV_WR_SEND_WITH_IMM, IBV_WR_SEND_WITH_INV, ibv_qp, ibv_recv_wr,
    ibv_send_wr, ibv_sge,
};
use ibex_wire::{Qkey, Qpn, Rkey};

use super::object::code;
use super::{ah, mw, qp};
use crate::memory;
use crate::mr::PdNumber;
use crate::nic::Nic;
use crate::qp::{MAX_SGE, Message, Payload, Poster, Qp, SendRequest, capacity};

/// `ibv_post_send(3)`. Requests before the one that fails are carried out.
pub(super) unsafe extern "C" fn post_send(
    qp: *mut ibv_qp,
    first: *mut ibv_send_wr,
    bad: *mut *mut ibv_send_wr,
) -> c_int {
    code(|| {
        // SAFETY: the queue pair is alive (manual).
        let inside = unsafe { qp::inside(qp) }?;
        let nic = inside.shared.nic().inspect_err(|_| report(bad, first))?;
        // SAFETY: the list is readable (manual), if there is one.
        let only = unsafe { first.as_ref() }.filter(|wr| wr.next.is_null());
        if only.is_some_and(|wr| is_message(wr) && post_message(&inside.qp, nic, wr)) {
            return Ok(());
        }
        let tables = inside.qp.tables(nic);
        let mut poster = inside.qp.poster(nic, &tables, false);
        let mut next = first;
        let mut outcome = Ok(());
        while !next.is_null() {
            // SAFETY: the list is readable (manual).
            let wr = unsafe { &*next };
            outcome = send(&mut poster, wr);
            if outcome.is_err() {
                report(bad, next);
                break;
            }
            next = wr.next;
        }
        poster.finish();
        outcome
    })
}

/// `ibv_post_recv(3)`.
pub(super) unsafe extern "C" fn post_recv(
    qp: *mut ibv_qp,
    first: *mut ibv_recv_wr,
    bad: *mut *mut ibv_recv_wr,
) -> c_int {
    code(|| {
        // SAFETY: the queue pair is alive (manual).
        let inside = unsafe { qp::inside(qp) }?;
        let nic = inside.shared.nic().inspect_err(|_| report(bad, first))?;
        let mut poster = inside.qp.recv_poster(nic);
        let mut next = first;
        let mut outcome = Ok(());
        while !next.is_null() {
            // SAFETY: the list is readable (manual).
            let wr = unsafe { &*next };
            outcome = list(wr.sg_list, wr.num_sge).and_then(|list| poster.recv(wr.wr_id, list));
            if outcome.is_err() {
                report(bad, next);
                break;
            }
            next = wr.next;
        }
        poster.finish();
        outcome
    })
}

/// Tells the program which request failed.
pub(super) fn report<T>(bad: *mut *mut T, wr: *mut T) {
    if !bad.is_null() {
        // SAFETY: the manual wants it writable.
        unsafe { *bad = wr }
    }
}

/// A request's scatter/gather list.
pub(super) fn list<'a>(first: *const ibv_sge, count: c_int) -> Result<&'a [ibv_sge], i32> {
    let count = usize::try_from(count).map_err(|_| libc::EINVAL)?;
    if count == 0 {
        return Ok(&[]);
    }
    // Refused before it is read: no queue takes as many.
    if count > MAX_SGE as usize {
        return Err(libc::EINVAL);
    }
    if first.is_null() || !first.is_aligned() {
        return Err(libc::EINVAL);
    }
    // SAFETY: `count` elements are readable for the length of the call (manual), aligned as just seen.
    Ok(unsafe { std::slice::from_raw_parts(first, count) })
}

/// Whether a request is a plain SEND.
#[inline]
fn is_message(wr: &ibv_send_wr) -> bool {
    wr.opcode == IBV_WR_SEND
}

/// Posts a request that is a SEND the express way; false if that is not possible, or it is not as it should be.
#[inline]
fn post_message(qp: &Qp, nic: &Nic, wr: &ibv_send_wr) -> bool {
    let flag = |bit: ibex_sys::ibv_send_flags| wr.send_flags & bit.0 != 0;
    let Ok(sges) = list(wr.sg_list, wr.num_sge) else { return false };
    let copy = |out: &mut [u8]| copy_inline(sges, out);
    let payload =
        if flag(IBV_SEND_INLINE) { Payload::Inline(capacity(sges), &copy) } else { Payload::Gather(sges) };
    let (signaled, fence, solicited) =
        (flag(IBV_SEND_SIGNALED), flag(IBV_SEND_FENCE), flag(IBV_SEND_SOLICITED));
    qp.post_express(nic, &Message { wr_id: wr.wr_id, payload, signaled, fence, solicited })
}

fn send(poster: &mut Poster<'_>, wr: &ibv_send_wr) -> Result<(), i32> {
    let flag = |bit: ibex_sys::ibv_send_flags| wr.send_flags & bit.0 != 0;
    let sges = list(wr.sg_list, wr.num_sge)?;
    let (op, to) = match poster.datagrams() {
        Some(domain) => datagram(wr, domain).map(|(op, to)| (op, Some(to)))?,
        None => (operation(wr, sges)?, None),
    };
    let copy = |out: &mut [u8]| copy_inline(sges, out);
    let bind;
    let payload = if op.is_local() {
        if wr.opcode == IBV_WR_BIND_MW {
            // SAFETY: pointers and plain numbers, in force for this opcode.
            let asked = unsafe { wr.tail.bind_mw };
            bind = mw::type2(asked.mw, asked.rkey, &asked.bind_info)?;
            Payload::Bind(&bind)
        } else {
            Payload::Gather(&[])
        }
    } else if flag(IBV_SEND_INLINE) {
        if op.awaits_data() {
            return Err(libc::EINVAL);
        }
        Payload::Inline(capacity(sges), &copy)
    } else {
        Payload::Gather(sges)
    };
    poster.send(&SendRequest {
        wr_id: wr.wr_id,
        op,
        to,
        payload,
        signaled: flag(IBV_SEND_SIGNALED),
        fence: flag(IBV_SEND_FENCE),
        solicited: flag(IBV_SEND_SOLICITED),
    })
}

/// The datagram a request asks for, and the address it goes to.
///
/// # Errors
/// An errno: `EINVAL` for an opcode that datagrams do not have, without an address, or with one of another domain.
fn datagram(wr: &ibv_send_wr, domain: PdNumber) -> Result<(SendOp, IpAddr), i32> {
    let imm = match wr.opcode {
        IBV_WR_SEND => None,
        // SAFETY: every bit pattern is a number; both members cover the same bytes.
        IBV_WR_SEND_WITH_IMM => Some(unsafe { wr.imm.imm_data }.to_ne_bytes()),
        _ => return Err(libc::EINVAL),
    };
    // SAFETY: plain numbers and a pointer, in force for datagrams.
    let to = unsafe { wr.wr.ud };
    // SAFETY: null or alive (manual).
    let ah = unsafe { ah::inside(to.ah) }?;
    if ah.pd.number != domain || to.remote_qpn >> 24 != 0 {
        return Err(libc::EINVAL);
    }
    let (remote_qpn, qkey) = (Qpn::new(to.remote_qpn), Qkey(to.remote_qkey));
    Ok((SendOp::Datagram { remote_qpn, qkey, address: 0, imm }, ah.address))
}

/// The operation a request asks for.
///
/// # Errors
/// An errno: `EOPNOTSUPP` for an opcode that is not served, `EINVAL` for an atomic without room for its result.
fn operation(wr: &ibv_send_wr, sges: &[ibv_sge]) -> Result<SendOp, i32> {
    let imm = || {
        // SAFETY: every bit pattern is a number; both members cover the same bytes.
        let imm = unsafe { wr.imm.imm_data };
        Some(imm.to_ne_bytes())
    };
    let key = || {
        // SAFETY: as above.
        Rkey(unsafe { wr.imm.invalidate_rkey })
    };
    let rdma = || {
        // SAFETY: plain numbers, in force for READ and WRITE.
        unsafe { wr.wr.rdma }
    };
    let atomic = || {
        // SAFETY: plain numbers, in force for atomics.
        unsafe { wr.wr.atomic }
    };
    Ok(match wr.opcode {
        IBV_WR_SEND => SendOp::Send { imm: None, inv: None },
        IBV_WR_SEND_WITH_IMM => SendOp::Send { imm: imm(), inv: None },
        IBV_WR_RDMA_WRITE => {
            let to = rdma();
            SendOp::Write { rkey: Rkey(to.rkey), va: to.remote_addr, imm: None }
        }
        IBV_WR_RDMA_WRITE_WITH_IMM => {
            let to = rdma();
            SendOp::Write { rkey: Rkey(to.rkey), va: to.remote_addr, imm: imm() }
        }
        IBV_WR_RDMA_READ => {
            let from = rdma();
            SendOp::Read { rkey: Rkey(from.rkey), va: from.remote_addr }
        }
        IBV_WR_ATOMIC_CMP_AND_SWP | IBV_WR_ATOMIC_FETCH_AND_ADD => {
            // The original value, eight bytes, is stored there.
            if sges.iter().map(|sge| u64::from(sge.length)).sum::<u64>() < 8 {
                return Err(libc::EINVAL);
            }
            let at = atomic();
            let (rkey, va) = (Rkey(at.rkey), at.remote_addr);
            if wr.opcode == IBV_WR_ATOMIC_CMP_AND_SWP {
                SendOp::CompareSwap { rkey, va, compare: at.compare_add, swap: at.swap }
            } else {
                SendOp::FetchAdd { rkey, va, add: at.compare_add }
            }
        }
        IBV_WR_SEND_WITH_INV => SendOp::Send { imm: None, inv: Some(key()) },
        IBV_WR_LOCAL_INV => SendOp::LocalInv { rkey: key() },
        IBV_WR_BIND_MW => SendOp::BindMw,
        _ => return Err(libc::EOPNOTSUPP),
    })
}

/// Copies a request's inline data.
fn copy_inline(sges: &[ibv_sge], out: &mut [u8]) {
    let mut rest = out;
    for sge in sges {
        let Some((part, after)) = rest.split_at_mut_checked(sge.length as usize) else { return };
        // SAFETY: the manual wants inline data readable for the length of the call.
        unsafe { memory::copy_inline(sge.addr, part) }
        rest = after;
    }
}
