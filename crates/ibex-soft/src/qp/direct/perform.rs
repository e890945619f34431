//! One operation between two queue pairs: checked first, then carried out.
//!
//! Owns the order of checks, which all come before the first byte is moved. What fails here is carried out by packets
//! instead, and fails there with its status. IBTA vol. 1 clauses 9.7.4 and 9.7.5 (what a responder checks).

use ibex_proto::{RecvCompletion, RemoteAccess, SendOp, WcOpcode, WcStatus};
use ibex_sys::ibv_sge;
use ibex_wire::{Qpn, Rkey};

use super::copy::{Bytes, List, Staged, transfer};
use crate::memory::UserMemory;
use crate::mr::{Found, MrTable};
use crate::qp::hands::capacity;
use crate::qp::queue::Payload;
use crate::qp::{Inner, Qp};

/// What is to be done.
#[derive(Clone, Copy)]
pub(super) struct Operation {
    pub(super) op: SendOp,
    /// Bytes; 8 for atomics.
    pub(super) len: u32,
    pub(super) solicited: bool,
}

/// Where the payload of a request is, or its result goes.
#[derive(Clone, Copy)]
pub(in crate::qp) enum Source<'a> {
    /// In the program's list, which is being posted.
    List(&'a [ibv_sge]),
    /// So many bytes that the function copies.
    Inline(u32, &'a dyn Fn(&mut [u8])),
    /// In this slot of the send queue.
    Slot(u64),
}

impl<'a> From<Payload<'a>> for Source<'a> {
    fn from(payload: Payload<'a>) -> Source<'a> {
        match payload {
            Payload::Gather(list) => Source::List(list),
            Payload::Inline(len, copy) => Source::Inline(len, copy),
            Payload::Bind(_) => Source::List(&[]),
        }
    }
}

/// Carries the operation out. `None`: it may not succeed, and nothing was done; otherwise the receiver's completion, if
/// the operation gives one.
#[inline]
pub(super) fn perform(
    mrs: &MrTable,
    (qp, inner): (&Qp, &Inner),
    (target, theirs): (&Qp, &mut Inner),
    operation: &Operation,
    source: Source<'_>,
) -> Option<Option<RecvCompletion>> {
    let Operation { op, len, solicited } = *operation;
    let staged;
    let payload = match source {
        Source::List(list) => Bytes::List(List::new(mrs, qp.pd, list)),
        Source::Slot(cookie) => match inner.send.inline(cookie) {
            Some(bytes) => Bytes::Here(bytes),
            None => Bytes::List(List::new(mrs, qp.pd, inner.send.list(cookie))),
        },
        Source::Inline(len, copy) => {
            staged = Staged::new(len, copy)?;
            Bytes::Here(staged.bytes())
        }
    };
    let rights = theirs.proto.as_rc()?.access();
    let granted = |need: RemoteAccess| rights.contains(need).then_some(u32::from(need.0));
    let remote = |rkey: Rkey, va: u64, need: RemoteAccess| -> Option<Option<Found<'_>>> {
        let need = granted(need)?;
        // Nothing to be moved is allowed whatever the key: IBTA 9.7.4.1.2 checks none then.
        if len == 0 {
            return Some(None);
        }
        mrs.remote(target.pd, target.num, rkey.0, va, u64::from(len), need).ok().map(Some)
    };
    let arrived = |cookie: u64, opcode: WcOpcode, imm: Option<[u8; 4]>| RecvCompletion {
        cookie,
        status: WcStatus::SUCCESS,
        opcode,
        byte_len: len,
        imm,
        invalidated: None,
        grh: false,
        solicited,
        src_qpn: Qpn::new(qp.num),
    };
    match op {
        SendOp::Send { imm, inv: None } => {
            let cookie = theirs.recv.try_take()?;
            let list = theirs.recv.list(cookie);
            let to = Bytes::List(List::new(mrs, theirs.recv.pd().unwrap_or(target.pd), list));
            if len > capacity(list) || !transfer(payload, to, len as usize) {
                theirs.recv.put_back(cookie);
                return None;
            }
            theirs.recv.keep();
            Some(Some(arrived(cookie, WcOpcode::RECV, imm)))
        }
        // Invalidation is the transport's, and so are local operations.
        SendOp::Send { inv: Some(_), .. }
        | SendOp::Datagram { .. }
        | SendOp::LocalInv { .. }
        | SendOp::BindMw => None,
        SendOp::Write { rkey, va, imm } => {
            let to = remote(rkey, va, RemoteAccess::WRITE)?;
            let cookie = match imm {
                Some(_) => Some(theirs.recv.try_take()?),
                None => None,
            };
            let done = to.is_none_or(|to| transfer(payload, Bytes::Memory(to.memory, to.at), len as usize));
            match (done, cookie) {
                (true, None) => Some(None),
                (true, Some(cookie)) => {
                    theirs.recv.keep();
                    Some(Some(arrived(cookie, WcOpcode::RECV_RDMA_WITH_IMM, imm)))
                }
                (false, Some(cookie)) => {
                    theirs.recv.put_back(cookie);
                    None
                }
                (false, None) => None,
            }
        }
        SendOp::Read { rkey, va } => {
            let from = remote(rkey, va, RemoteAccess::READ)?;
            from.is_none_or(|from| transfer(Bytes::Memory(from.memory, from.at), payload, len as usize))
                .then_some(None)
        }
        SendOp::CompareSwap { rkey, va, .. } | SendOp::FetchAdd { rkey, va, .. } => {
            let found = remote(rkey, va, RemoteAccess::ATOMIC)??;
            (va.is_multiple_of(8)).then_some(())?;
            atomic(found.memory, found.at, &op, payload).map(|()| None)
        }
    }
}

/// Carries out an atomic operation and stores what was there before; `None`, and nothing done, if it may not succeed.
pub(in crate::qp) fn atomic(memory: &UserMemory, at: usize, op: &SendOp, result: Bytes<'_>) -> Option<()> {
    let Bytes::List(list) = result else { return None };
    if !memory.is_word(at) || !list.takes(8) {
        return None;
    }
    let before = match *op {
        SendOp::CompareSwap { compare, swap, .. } => memory.compare_swap(at, compare, swap),
        SendOp::FetchAdd { add, .. } => memory.fetch_add(at, add),
        _ => return None,
    };
    // Cannot fail any more: the list was just seen to take it, under the table's guard.
    transfer(Bytes::Here(&before.to_ne_bytes()), result, 8).then_some(())
}
