//! Building send requests in place: `ibv_wr_start` to `ibv_wr_complete`, see `ibv_wr_post(3)`.
//!
//! Owns the batch between the two calls. Its first mistake is remembered and is what `ibv_wr_complete` returns; then, and
//! after `ibv_wr_abort`, nothing of the batch is posted. Otherwise all of it is, under one lock.
//!
//! # Safety
//! As `object`. One thread builds at a time: the gate is passed in `ibv_wr_start` and left in the other two, and all calls
//! between come from the thread that started (manual); so the batch has one user at a time. Lists and inline data are
//! read during the call that names them.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::net::IpAddr;

use ibex_proto::SendOp;
use ibex_sys::{
    IBV_QPT_UD, IBV_SEND_FENCE, IBV_SEND_SIGNALED, IBV_SEND_SOLICITED, ibv_ah, ibv_data_buf, ibv_mw,
    ibv_mw_bind_info, ibv_qp_cap, ibv_qp_ex, ibv_qp_type, ibv_sge,
};
use ibex_wire::{Qkey, Qpn, Rkey};

use super::object::caught;
use super::qp::{self, QpInside};
use super::{ah, mw, qp_ex};
use crate::device::{Limits, MAX_MESSAGE};
use crate::gate::Gate;
use crate::memory;
use crate::mr::{Bind, PdNumber};
use crate::qp::{Payload, SendRequest};

/// What an extended queue pair has besides a classic one's inside.
pub(super) struct Builder {
    gate: Gate,
    batch: UnsafeCell<Batch>,
}

/// Requests being built.
#[derive(Default)]
struct Batch {
    requests: Vec<Request>,
    /// The gather lists of all of them.
    sges: Vec<ibv_sge>,
    /// The inline data of all of them.
    inline: Vec<u8>,
    binds: Vec<Bind>,
    /// The first mistake's errno; 0 if there is none.
    error: c_int,
    /// Whether requests have to be looked at once more when the batch is complete.
    careful: bool,
    /// For datagrams, the domain that addresses have to be of.
    datagrams: Option<PdNumber>,
    /// Bytes of the longest message.
    longest: u64,
    max_requests: usize,
    max_sge: usize,
    max_inline: usize,
}

/// A request; its data is a range of what the batch keeps.
#[derive(Clone, Copy)]
struct Request {
    wr_id: u64,
    op: SendOp,
    to: Option<IpAddr>,
    flags: u32,
    data: Data,
    start: usize,
    len: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Data {
    Gather,
    Inline,
    Bind,
}

impl Builder {
    /// The builder of a queue pair of these sizes.
    ///
    /// # Errors
    /// `EOPNOTSUPP` if `ops` names operations that this type of queue pair does not have.
    pub(super) fn new(
        service: ibv_qp_type,
        cap: &ibv_qp_cap,
        pd: PdNumber,
        ops: u64,
        limits: &Limits,
    ) -> Result<Builder, i32> {
        if ops & !qp_ex::served(service) != 0 {
            return Err(libc::EOPNOTSUPP);
        }
        let datagrams = service == IBV_QPT_UD;
        let batch = Batch {
            datagrams: datagrams.then_some(pd),
            // MTU 1 is 256 bytes, and each twice the one before.
            longest: if datagrams { 128 << limits.mtu.0 } else { u64::from(MAX_MESSAGE) },
            max_requests: cap.max_send_wr as usize,
            max_sge: cap.max_send_sge as usize,
            max_inline: cap.max_inline_data as usize,
            ..Batch::default()
        };
        Ok(Builder { gate: Gate::default(), batch: UnsafeCell::new(batch) })
    }

    /// The batch.
    ///
    /// # Safety
    /// The caller is the thread that builds, and keeps no earlier result.
    #[inline]
    #[allow(clippy::mut_from_ref, reason = "the gate keeps out everybody else")]
    unsafe fn batch(&self) -> &mut Batch {
        // SAFETY: one user at a time, by the caller's promise.
        unsafe { &mut *self.batch.get() }
    }
}

impl Batch {
    #[inline]
    fn clear(&mut self) {
        self.requests.clear();
        self.sges.clear();
        self.inline.clear();
        self.binds.clear();
        self.error = 0;
        self.careful = self.datagrams.is_some();
    }

    #[cold]
    fn fail(&mut self, errno: c_int) {
        if self.error == 0 {
            self.error = errno;
        }
    }

    #[inline]
    fn begin(&mut self, wr_id: u64, flags: u32, op: SendOp) {
        if self.requests.len() >= self.max_requests {
            return self.fail(libc::ENOMEM);
        }
        self.careful |= op.awaits_data();
        self.requests.push(Request { wr_id, op, to: None, flags, data: Data::Gather, start: 0, len: 0 });
    }

    /// The request whose data is being set.
    #[inline]
    fn last(&mut self) -> Option<&mut Request> {
        let last = self.requests.last_mut();
        if last.is_none() && self.error == 0 {
            self.error = libc::EINVAL;
        }
        last
    }

    /// [`Batch::gather`] of one element, which most requests have.
    #[inline]
    fn gather_one(&mut self, sge: ibv_sge) {
        if self.max_sge == 0 || u64::from(sge.length) > self.longest {
            return self.fail(libc::EINVAL);
        }
        let start = self.sges.len();
        self.sges.push(sge);
        if let Some(last) = self.last() {
            (last.data, last.start, last.len) = (Data::Gather, start, 1);
        }
    }

    #[inline]
    fn gather(&mut self, list: &[ibv_sge]) {
        if list.len() > self.max_sge {
            return self.fail(libc::EINVAL);
        }
        if self.bytes(list) > self.longest {
            return self.fail(libc::EINVAL);
        }
        let start = self.sges.len();
        self.sges.extend_from_slice(list);
        if let Some(last) = self.last() {
            (last.data, last.start, last.len) = (Data::Gather, start, list.len());
        }
    }

    /// Takes room for inline data.
    fn inline(&mut self, len: usize) -> Option<&mut [u8]> {
        if len > self.max_inline || len as u64 > self.longest {
            self.fail(libc::EINVAL);
            return None;
        }
        let start = self.inline.len();
        let last = self.last()?;
        (last.data, last.start, last.len) = (Data::Inline, start, len);
        self.inline.resize(start + len, 0);
        self.inline.get_mut(start..)
    }

    #[inline]
    fn bytes(&self, list: &[ibv_sge]) -> u64 {
        list.iter().map(|sge| u64::from(sge.length)).sum()
    }

    /// What can be seen of a whole request to be wrong: a datagram without a destination, nowhere for data to go.
    fn check(&self, request: &Request) -> Result<(), c_int> {
        let datagram = matches!(request.op, SendOp::Datagram { .. });
        let room = |bytes| request.data == Data::Gather && self.bytes(self.list(request)) >= bytes;
        let fits = match request.op {
            SendOp::Read { .. } => room(0),
            // The original value.
            SendOp::CompareSwap { .. } | SendOp::FetchAdd { .. } => room(8),
            _ => true,
        };
        if datagram == self.datagrams.is_some() && fits { Ok(()) } else { Err(libc::EINVAL) }
    }

    #[inline]
    fn list(&self, request: &Request) -> &[ibv_sge] {
        self.sges.get(request.start..request.start + request.len).unwrap_or_default()
    }

    /// Posts all of it, or nothing.
    #[inline]
    fn post(&self, inside: &QpInside) -> Result<(), c_int> {
        let nic = inside.shared.nic()?;
        if self.error != 0 {
            return Err(self.error);
        }
        if self.careful {
            self.requests.iter().try_for_each(|request| self.check(request))?;
        }
        let tables = inside.qp.tables(nic);
        let mut poster = inside.qp.poster(nic, &tables, self.requests.len() == 1);
        poster.admit(self.requests.len())?;
        let mut outcome = Ok(());
        for request in &self.requests {
            let flag = |bit: ibex_sys::ibv_send_flags| request.flags & bit.0 != 0;
            let copy = |out: &mut [u8]| {
                let from = &self.inline[request.start..request.start + request.len];
                out.copy_from_slice(from);
            };
            let payload = match request.data {
                Data::Gather => Payload::Gather(self.list(request)),
                // Not longer than the queue pair's limit.
                Data::Inline => Payload::Inline(request.len as u32, &copy),
                Data::Bind => Payload::Bind(&self.binds[request.start]),
            };
            outcome = poster.send(&SendRequest {
                wr_id: request.wr_id,
                op: request.op,
                to: request.to,
                payload,
                signaled: flag(IBV_SEND_SIGNALED),
                fence: flag(IBV_SEND_FENCE),
                solicited: flag(IBV_SEND_SOLICITED),
            });
            if outcome.is_err() {
                // Everything has been checked: not reached, and if it were, what was posted could not be taken back.
                break;
            }
        }
        poster.finish();
        outcome
    }
}

/// The inside of an extended queue pair.
///
/// # Safety
/// `qp` is null or came from `ibv_create_qp_ex` and was not destroyed.
#[inline]
unsafe fn inside<'a>(qp: *mut ibv_qp_ex) -> Result<(&'a QpInside, &'a Builder), c_int> {
    // SAFETY: the caller's promise; an extended queue pair starts with a classic one.
    let inside = unsafe { qp::inside(qp.cast()) }?;
    Ok((inside, inside.builder.as_deref().ok_or(libc::EINVAL)?))
}

/// Changes the batch; what goes wrong is remembered in it.
///
/// # Safety
/// `qp` is alive, and the caller is the thread that builds (manual).
#[inline]
unsafe fn build(qp: *mut ibv_qp_ex, change: impl FnOnce(&mut Batch)) {
    // SAFETY: the caller's promise.
    if let Ok((_, builder)) = unsafe { inside(qp) } {
        // SAFETY: the caller's promise. Nothing that changes it can panic; if it did, the process would be aborted.
        change(unsafe { builder.batch() });
    }
}

/// Starts a request, with the identifier and flags that the program has put into the structure.
///
/// # Safety
/// As [`build`].
#[inline]
unsafe fn begin(qp: *mut ibv_qp_ex, op: SendOp) {
    // SAFETY: the queue pair is alive; the member is the program's.
    let wr_id = unsafe { (*qp).wr_id };
    // SAFETY: as above.
    let flags = unsafe { (*qp).wr_flags };
    // SAFETY: the caller's promise.
    unsafe { build(qp, |batch| batch.begin(wr_id, flags, op)) }
}

/// `ibv_wr_start`: waits until no other thread builds.
pub(super) unsafe extern "C" fn start(qp: *mut ibv_qp_ex) {
    // SAFETY: the queue pair is alive (manual).
    if let Ok((_, builder)) = unsafe { inside(qp) } {
        builder.gate.enter();
        // SAFETY: the gate is passed.
        unsafe { builder.batch() }.clear();
    }
}

/// `ibv_wr_complete`: posts the batch.
pub(super) unsafe extern "C" fn complete(qp: *mut ibv_qp_ex) -> c_int {
    let outcome = caught(|| {
        // SAFETY: the queue pair is alive (manual).
        let (inside, builder) = unsafe { inside(qp) }?;
        // SAFETY: the caller is the thread that builds (manual).
        let outcome = unsafe { builder.batch() }.post(inside);
        builder.gate.leave();
        outcome
    });
    outcome.err().unwrap_or(0)
}

/// `ibv_wr_abort`: forgets the batch.
pub(super) unsafe extern "C" fn abort(qp: *mut ibv_qp_ex) {
    // SAFETY: the queue pair is alive (manual).
    if let Ok((_, builder)) = unsafe { inside(qp) } {
        // SAFETY: the caller is the thread that builds (manual).
        unsafe { builder.batch() }.clear();
        builder.gate.leave();
    }
}

/// Declares functions that start a request.
macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $type:ty),*) { $op:expr })*) => { $(
        $(#[$doc])*
        pub(super) unsafe extern "C" fn $name(qp: *mut ibv_qp_ex $(, $arg: $type)*) {
            // SAFETY: the queue pair is alive and the caller builds (manual).
            unsafe { begin(qp, $op) }
        }
    )* };
}

operations! {
    /// `ibv_wr_send`.
    send() { SendOp::Send { imm: None, inv: None } }
    /// `ibv_wr_send_imm`.
    send_imm(imm: u32) { SendOp::Send { imm: Some(imm.to_ne_bytes()), inv: None } }
    /// `ibv_wr_send_inv`.
    send_inv(rkey: u32) { SendOp::Send { imm: None, inv: Some(Rkey(rkey)) } }
    /// `ibv_wr_rdma_write`.
    rdma_write(rkey: u32, va: u64) { SendOp::Write { rkey: Rkey(rkey), va, imm: None } }
    /// `ibv_wr_rdma_write_imm`.
    rdma_write_imm(rkey: u32, va: u64, imm: u32) {
        SendOp::Write { rkey: Rkey(rkey), va, imm: Some(imm.to_ne_bytes()) }
    }
    /// `ibv_wr_rdma_read`.
    rdma_read(rkey: u32, va: u64) { SendOp::Read { rkey: Rkey(rkey), va } }
    /// `ibv_wr_atomic_cmp_swp`.
    atomic_cmp_swp(rkey: u32, va: u64, compare: u64, swap: u64) {
        SendOp::CompareSwap { rkey: Rkey(rkey), va, compare, swap }
    }
    /// `ibv_wr_atomic_fetch_add`.
    atomic_fetch_add(rkey: u32, va: u64, add: u64) { SendOp::FetchAdd { rkey: Rkey(rkey), va, add } }
    /// `ibv_wr_local_inv`.
    local_inv(rkey: u32) { SendOp::LocalInv { rkey: Rkey(rkey) } }
}

/// `ibv_wr_bind_mw`.
pub(super) unsafe extern "C" fn bind_mw(
    qp: *mut ibv_qp_ex,
    mw: *mut ibv_mw,
    rkey: u32,
    info: *const ibv_mw_bind_info,
) {
    let asked = if info.is_null() {
        Err(libc::EINVAL)
    } else {
        // SAFETY: readable (manual).
        mw::type2(mw, rkey, unsafe { &*info })
    };
    // SAFETY: the queue pair is alive and the caller builds (manual).
    unsafe { begin(qp, SendOp::BindMw) }
    let set = |batch: &mut Batch| match asked {
        Ok(bind) => {
            let start = batch.binds.len();
            batch.binds.push(bind);
            if let Some(last) = batch.last() {
                (last.data, last.start, last.len) = (Data::Bind, start, 0);
            }
        }
        Err(errno) => batch.fail(errno),
    };
    // SAFETY: as above.
    unsafe { build(qp, set) }
}

/// `ibv_wr_set_ud_addr`.
pub(super) unsafe extern "C" fn set_ud_addr(
    qp: *mut ibv_qp_ex,
    ah: *mut ibv_ah,
    remote_qpn: u32,
    remote_qkey: u32,
) {
    let set = |batch: &mut Batch| {
        let domain = batch.datagrams;
        // SAFETY: null or alive (manual).
        let found = unsafe { ah::inside(ah) };
        let found = found.ok().filter(|ah| Some(ah.pd.number) == domain && remote_qpn >> 24 == 0);
        let last = batch.last();
        if let (Some(ah), Some(last)) = (found, last)
            && let SendOp::Send { imm, .. } | SendOp::Datagram { imm, .. } = last.op
        {
            let (remote_qpn, qkey) = (Qpn::new(remote_qpn), Qkey(remote_qkey));
            last.op = SendOp::Datagram { remote_qpn, qkey, address: 0, imm };
            last.to = Some(ah.address);
        } else {
            batch.fail(libc::EINVAL);
        }
    };
    // SAFETY: the queue pair is alive and the caller builds (manual).
    unsafe { build(qp, set) }
}

/// `ibv_wr_set_sge`.
pub(super) unsafe extern "C" fn set_sge(qp: *mut ibv_qp_ex, lkey: u32, addr: u64, length: u32) {
    // SAFETY: the queue pair is alive and the caller builds (manual).
    unsafe { build(qp, |batch| batch.gather_one(ibv_sge { addr, length, lkey })) }
}

/// `ibv_wr_set_sge_list`.
pub(super) unsafe extern "C" fn set_sge_list(qp: *mut ibv_qp_ex, count: usize, list: *const ibv_sge) {
    let set = |batch: &mut Batch| {
        // Before it is read: no queue pair takes as many.
        if count > batch.max_sge || count > 0 && (list.is_null() || !list.is_aligned()) {
            return batch.fail(libc::EINVAL);
        }
        let list = if count == 0 {
            &[]
        } else {
            // SAFETY: `count` elements are readable for the length of the call (manual), aligned as just seen.
            unsafe { std::slice::from_raw_parts(list, count) }
        };
        batch.gather(list);
    };
    // SAFETY: the queue pair is alive and the caller builds (manual).
    unsafe { build(qp, set) }
}

/// `ibv_wr_set_inline_data`.
pub(super) unsafe extern "C" fn set_inline_data(qp: *mut ibv_qp_ex, addr: *mut c_void, length: usize) {
    let set = |batch: &mut Batch| {
        if let Some(room) = batch.inline(length) {
            // SAFETY: readable for the length of the call (manual).
            unsafe { memory::copy_inline(addr.expose_provenance() as u64, room) }
        }
    };
    // SAFETY: the queue pair is alive and the caller builds (manual).
    unsafe { build(qp, set) }
}

/// `ibv_wr_set_inline_data_list`.
pub(super) unsafe extern "C" fn set_inline_data_list(
    qp: *mut ibv_qp_ex,
    count: usize,
    list: *const ibv_data_buf,
) {
    let set = |batch: &mut Batch| {
        if count > 0 && (list.is_null() || !list.is_aligned()) {
            return batch.fail(libc::EINVAL);
        }
        let list = if count == 0 {
            &[]
        } else {
            // SAFETY: `count` elements are readable for the length of the call (manual), aligned as just seen.
            unsafe { std::slice::from_raw_parts(list, count) }
        };
        let total = list.iter().try_fold(0usize, |sum, part| sum.checked_add(part.length));
        let Some(mut rest) = batch.inline(total.unwrap_or(usize::MAX)) else { return };
        for part in list {
            let (room, after) = rest.split_at_mut(part.length);
            // SAFETY: readable for the length of the call (manual).
            unsafe { memory::copy_inline(part.addr.expose_provenance() as u64, room) }
            rest = after;
        }
    };
    // SAFETY: the queue pair is alive and the caller builds (manual).
    unsafe { build(qp, set) }
}

/// Declares functions of operations that the queue pair does not have.
macro_rules! refusals {
    ($($name:ident($($type:ty),*))*) => { $(
        /// Not among the operations of this queue pair: the batch fails with `EOPNOTSUPP`.
        pub(super) unsafe extern "C" fn $name(qp: *mut ibv_qp_ex $(, _: $type)*) {
            // SAFETY: the queue pair is alive and the caller builds (manual).
            unsafe { build(qp, |batch| batch.fail(libc::EOPNOTSUPP)) }
        }
    )* };
}

refusals! {
    no_send()
    no_send_imm(u32)
    no_send_inv(u32)
    no_rdma(u32, u64)
    no_rdma_write_imm(u32, u64, u32)
    no_atomic_cmp_swp(u32, u64, u64, u64)
    no_atomic_fetch_add(u32, u64, u64)
    no_atomic_write(u32, u64, *const c_void)
    no_local_inv(u32)
    no_bind_mw(*mut ibv_mw, u32, *const ibv_mw_bind_info)
    no_flush(u32, u64, usize, u8, u8)
    no_send_tso(*mut c_void, u16, u16)
    no_set_xrc_srqn(u32)
}
