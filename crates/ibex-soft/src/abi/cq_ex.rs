//! Extended completion queues: `ibv_create_cq_ex(3)`, `ibv_start_poll`, the readers.
//!
//! Owns which `wc_flags` are served and the functions in an `ibv_cq_ex`. The walk itself is [`crate::cq`]'s.
//!
//! `ibv_poll_cq` works on an extended queue, too; in the middle of a walk it gets what the walk has not taken.
//!
//! Served: everything a classic completion has, and the time of completion, on the device's clock or as time of day. Not
//! served, since no completion here has it: VLAN tag, flow tag, tag matching. Their readers exist and answer 0.
//!
//! # Safety
//! As `object`. Between a successful `start_poll` and its `end_poll` one thread walks: the gate sees to it, or, for a queue
//! created `SINGLE_THREADED`, the program's promise. `next_poll`, `end_poll` and the readers are called by that thread
//! only, in between (manual); so the walk's place has one user at a time.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::ffi::c_int;

use ibex_sys::{
    IBV_CQ_INIT_ATTR_MASK_FLAGS, IBV_CQ_INIT_ATTR_MASK_PD, IBV_CREATE_CQ_ATTR_SINGLE_THREADED,
    IBV_WC_EX_WITH_COMPLETION_TIMESTAMP, IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK,
    IBV_WC_STANDARD_FLAGS, ibv_context, ibv_cq_ex, ibv_cq_init_attr_ex, ibv_poll_cq_attr, ibv_wc_opcode,
    ibv_wc_tm_info,
};

use super::cq::{self, Asked, CqInside};
use super::object::{caught, given, pointer};
use crate::cq::{Entry, Walk};
use crate::gate::Gate;
use crate::os;

/// Flags of completions with a time.
const TIMES: u64 =
    (IBV_WC_EX_WITH_COMPLETION_TIMESTAMP.0 | IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK.0) as u64;

/// Flags served.
const SERVED: u64 = IBV_WC_STANDARD_FLAGS.0 as u64 | TIMES;

/// What an extended completion queue has besides a classic one's inside.
pub(super) struct Walker {
    /// Absent if the program promised to poll from one thread at a time.
    gate: Option<Gate>,
    walk: UnsafeCell<Box<Walk>>,
}

impl Walker {
    /// The place of the walk.
    ///
    /// # Safety
    /// The caller is the thread that walks, and keeps no earlier result.
    #[inline]
    #[allow(clippy::mut_from_ref, reason = "the gate, or the program, keeps out everybody else")]
    unsafe fn walk(&self) -> &mut Walk {
        // SAFETY: one user at a time, by the caller's promise.
        unsafe { &mut *self.walk.get() }
    }

    #[inline]
    fn leave(&self) {
        if let Some(gate) = &self.gate {
            gate.leave();
        }
    }
}

/// `ibv_create_cq_ex(3)`.
pub(super) unsafe extern "C" fn create_cq_ex(
    context: *mut ibv_context,
    attr: *mut ibv_cq_init_attr_ex,
) -> *mut ibv_cq_ex {
    pointer(|| {
        // SAFETY: the attributes are readable (manual).
        let attr = unsafe { given(attr)?.read() };
        let known = IBV_CQ_INIT_ATTR_MASK_FLAGS.0 | IBV_CQ_INIT_ATTR_MASK_PD.0;
        if attr.comp_mask & !known != 0 {
            return Err(libc::EINVAL);
        }
        // There are no parent domains, and overruns are not ignored.
        let flags = if attr.comp_mask & IBV_CQ_INIT_ATTR_MASK_FLAGS.0 != 0 { attr.flags } else { 0 };
        let domain = attr.comp_mask & IBV_CQ_INIT_ATTR_MASK_PD.0 != 0;
        if domain || flags & !IBV_CREATE_CQ_ATTR_SINGLE_THREADED.0 != 0 || attr.wc_flags & !SERVED != 0 {
            return Err(libc::EOPNOTSUPP);
        }
        let asked = Asked {
            cqe: c_int::try_from(attr.cqe).map_err(|_| libc::EINVAL)?,
            cq_context: attr.cq_context,
            channel: attr.channel,
            comp_vector: c_int::try_from(attr.comp_vector).map_err(|_| libc::EINVAL)?,
            timed: attr.wc_flags & TIMES != 0,
        };
        let single = flags & IBV_CREATE_CQ_ATTR_SINGLE_THREADED.0 != 0;
        let walker = Walker { gate: (!single).then(Gate::default), walk: UnsafeCell::default() };
        // SAFETY: the context is open and the channel null or alive (manual).
        unsafe { cq::create(context, &asked, Some(walker), functions()) }
    })
}

/// A queue's functions.
fn functions() -> ibv_cq_ex {
    ibv_cq_ex {
        start_poll: Some(start_poll),
        next_poll: Some(next_poll),
        end_poll: Some(end_poll),
        read_opcode: Some(read_opcode),
        read_vendor_err: Some(read_vendor_err),
        read_byte_len: Some(read_byte_len),
        read_imm_data: Some(read_imm_data),
        read_qp_num: Some(read_qp_num),
        read_src_qp: Some(read_src_qp),
        read_wc_flags: Some(read_wc_flags),
        read_slid: Some(read_slid),
        read_sl: Some(read_sl),
        read_dlid_path_bits: Some(read_dlid_path_bits),
        read_completion_ts: Some(read_completion_ts),
        read_cvlan: Some(read_cvlan),
        read_flow_tag: Some(read_flow_tag),
        read_tm_info: Some(read_tm_info),
        read_completion_wallclock_ns: Some(read_completion_wallclock_ns),
        ..Default::default()
    }
}

/// The inside of an extended completion queue.
///
/// # Safety
/// `cq` is null or came from [`create_cq_ex`] and was not destroyed.
#[inline]
unsafe fn inside<'a>(cq: *mut ibv_cq_ex) -> Result<(&'a CqInside, &'a Walker), i32> {
    // SAFETY: the caller's promise; an extended queue starts as a classic one does.
    let inside = unsafe { cq::inside(cq.cast()) }?;
    Ok((inside, inside.walker.as_ref().ok_or(libc::EINVAL)?))
}

/// Shows the program the completion that the walk has moved to.
///
/// # Safety
/// `cq` is alive and the caller walks it.
#[inline]
unsafe fn show(cq: *mut ibv_cq_ex, walk: &Walk) {
    let wc = &walk.current().wc;
    // SAFETY: the queue is alive; the library is who writes this member.
    unsafe { (*cq).status = wc.status }
    // SAFETY: as above.
    unsafe { (*cq).wr_id = wc.wr_id }
}

/// `ibv_start_poll`: `ENOENT` if there is no completion. When there is none at once it drives the device and looks again.
unsafe extern "C" fn start_poll(cq: *mut ibv_cq_ex, attr: *mut ibv_poll_cq_attr) -> c_int {
    let started = caught(|| {
        // SAFETY: the queue is alive (manual).
        let (inside, walker) = unsafe { inside(cq) }?;
        let nic = inside.shared.nic()?;
        // SAFETY: the attributes, if there are any, are readable (manual).
        if !attr.is_null() && unsafe { (*attr).comp_mask } != 0 {
            return Err(libc::EINVAL);
        }
        nic.polled();
        if inside.cq.is_empty() {
            nic.progress();
            if inside.cq.is_empty() {
                return Err(libc::ENOENT);
            }
        }
        if let Some(gate) = &walker.gate {
            gate.enter();
        }
        // SAFETY: the gate is passed, or the program promised that nobody else polls.
        let walk = unsafe { walker.walk() };
        if !walk.start(&inside.cq) {
            walker.leave();
            return Err(libc::ENOENT);
        }
        // SAFETY: alive, and this thread walks.
        unsafe { show(cq, walk) };
        Ok(())
    });
    started.err().unwrap_or(0)
}

/// `ibv_next_poll`: `ENOENT` if there is no further completion. Does not drive the device: the walk is to come to an end.
unsafe extern "C" fn next_poll(cq: *mut ibv_cq_ex) -> c_int {
    // SAFETY: the queue is alive (manual).
    let (inside, walker) = match unsafe { inside(cq) } {
        Ok(found) => found,
        Err(errno) => return errno,
    };
    // SAFETY: this thread walks (manual).
    let walk = unsafe { walker.walk() };
    if !walk.step(&inside.cq) {
        match caught(|| Ok(walk.next(&inside.cq))) {
            Ok(true) => {}
            Ok(false) => return libc::ENOENT,
            Err(errno) => return errno,
        }
    }
    // SAFETY: alive, and this thread walks.
    unsafe { show(cq, walk) };
    0
}

/// `ibv_end_poll`: completions not moved to stay in the queue.
unsafe extern "C" fn end_poll(cq: *mut ibv_cq_ex) {
    let _ = caught(|| {
        // SAFETY: the queue is alive (manual).
        let (inside, walker) = unsafe { inside(cq) }?;
        // SAFETY: this thread walks (manual).
        unsafe { walker.walk() }.end(&inside.cq);
        walker.leave();
        Ok(())
    });
}

/// Reads a member of the completion that the walk has moved to.
///
/// # Safety
/// `cq` is alive and the caller walks it (manual).
#[inline]
unsafe fn read<T: Default>(cq: *mut ibv_cq_ex, member: impl FnOnce(&Entry) -> T) -> T {
    // SAFETY: the caller's promise.
    match unsafe { inside(cq) } {
        // SAFETY: the caller's promise.
        Ok((_, walker)) => member(unsafe { walker.walk() }.current()),
        Err(_) => T::default(),
    }
}

/// Declares readers of one member.
macro_rules! readers {
    ($($(#[$doc:meta])* $name:ident -> $type:ty { $member:expr })*) => { $(
        $(#[$doc])*
        unsafe extern "C" fn $name(cq: *mut ibv_cq_ex) -> $type {
            let member = $member;
            // SAFETY: the queue is alive and the caller walks it (manual).
            unsafe { read(cq, member) }
        }
    )* };
}

readers! {
    /// `ibv_wc_read_opcode`.
    read_opcode -> ibv_wc_opcode { |entry: &Entry| entry.wc.opcode }
    /// `ibv_wc_read_vendor_err`.
    read_vendor_err -> u32 { |entry: &Entry| entry.wc.vendor_err }
    /// `ibv_wc_read_byte_len`.
    read_byte_len -> u32 { |entry: &Entry| entry.wc.byte_len }
    /// `ibv_wc_read_imm_data` and `ibv_wc_read_invalidated_rkey`.
    read_imm_data -> u32 { |entry: &Entry| {
        // SAFETY: both members of the union are the same four bytes, of which every pattern is a number.
        unsafe { entry.wc.imm.imm_data }
    } }
    /// `ibv_wc_read_qp_num`.
    read_qp_num -> u32 { |entry: &Entry| entry.wc.qp_num }
    /// `ibv_wc_read_src_qp`.
    read_src_qp -> u32 { |entry: &Entry| entry.wc.src_qp }
    /// `ibv_wc_read_wc_flags`.
    read_wc_flags -> u32 { |entry: &Entry| entry.wc.wc_flags }
    /// `ibv_wc_read_slid`.
    read_slid -> u32 { |entry: &Entry| u32::from(entry.wc.slid) }
    /// `ibv_wc_read_sl`.
    read_sl -> u8 { |entry: &Entry| entry.wc.sl }
    /// `ibv_wc_read_dlid_path_bits`.
    read_dlid_path_bits -> u8 { |entry: &Entry| entry.wc.dlid_path_bits }
    /// `ibv_wc_read_completion_ts`: nanoseconds of the device's clock.
    read_completion_ts -> u64 { |entry: &Entry| entry.time }
    /// `ibv_wc_read_completion_wallclock_ns`.
    read_completion_wallclock_ns -> u64 { wall_clock }
}

/// A completion's time of day: how long ago it was, counted back from now, so that a clock set meanwhile misleads nobody.
fn wall_clock(entry: &Entry) -> u64 {
    os::wall_clock_ns().saturating_sub(os::clock_ns().saturating_sub(entry.time))
}

/// `ibv_wc_read_cvlan`: not served, so that no program has a reason to call it.
unsafe extern "C" fn read_cvlan(_cq: *mut ibv_cq_ex) -> u16 {
    0
}

/// `ibv_wc_read_flow_tag`: not served.
unsafe extern "C" fn read_flow_tag(_cq: *mut ibv_cq_ex) -> u32 {
    0
}

/// `ibv_wc_read_tm_info`: not served.
unsafe extern "C" fn read_tm_info(_cq: *mut ibv_cq_ex, info: *mut ibv_wc_tm_info) {
    if !info.is_null() {
        // SAFETY: the caller's to be written.
        unsafe { info.write(ibv_wc_tm_info::default()) }
    }
}
