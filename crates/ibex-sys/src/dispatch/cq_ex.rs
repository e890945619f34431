//! Extended completion queues: walking over completions and reading their members.
//!
//! Owns `ibv_start_poll`, `ibv_next_poll`, `ibv_end_poll` and the `ibv_wc_read_*` functions. `status` and `wr_id` have no
//! reader: they are members of the structure.
//!
//! The order of calls: `start_poll`; if it returned 0, read, then `next_poll` and read for as long as that returns 0, then
//! `end_poll`. ENOENT means that there is no (further) completion. After a failed start there is no `end_poll`, after a
//! failed next there is.
//!
//! Man page: `ibv_create_cq_ex(3)`.
//!
//! # Safety
//!
//! See [`crate::dispatch`]. A reader that was not asked for in `wc_flags` at creation may be null: calling it panics here,
//! where C would jump to address 0.
#![allow(unsafe_code)]

use core::ffi::c_int;

use crate::verbs::{ibv_cq_ex, ibv_poll_cq_attr, ibv_wc_opcode, ibv_wc_tm_info};

/// Declares functions that call a pointer of the queue.
macro_rules! readers {
    ($( $(#[$meta:meta])* pub fn $name:ident[$op:ident]($cq:ident $(, $arg:ident: $ty:ty)*) $(-> $ret:ty)?; )*) => { $(
        $(#[$meta])*
        ///
        /// # Safety
        ///
        /// The queue is live and being polled by this thread only, in the order of calls of its man page.
        ///
        /// # Panics
        ///
        /// If the device does not have this operation, that is, it was not asked for when the queue was created.
        #[inline]
        pub unsafe fn $name($cq: *mut ibv_cq_ex $(, $arg: $ty)*) $(-> $ret)? {
            // SAFETY: the queue is live.
            match unsafe { (*$cq).$op } {
                // SAFETY: the device's own function, with the caller's arguments.
                Some(op) => unsafe { op($cq $(, $arg)*) },
                None => missing(stringify!($name)),
            }
        }
    )* };
}

/// The end of a call that the queue cannot answer.
#[cold]
fn missing(name: &str) -> ! {
    panic!("{name} is not among the wc_flags that this completion queue was created with")
}

readers! {
    /// Moves to the first completion; 0, ENOENT if there is none, or another errno.
    pub fn ibv_start_poll[start_poll](cq, attr: *mut ibv_poll_cq_attr) -> c_int;
    /// Moves to the next completion; 0, ENOENT if there is none, or another errno.
    pub fn ibv_next_poll[next_poll](cq) -> c_int;
    /// Ends a walk and gives its entries back to the device.
    pub fn ibv_end_poll[end_poll](cq);
    /// What completed.
    pub fn ibv_wc_read_opcode[read_opcode](cq) -> ibv_wc_opcode;
    /// The vendor's own error code.
    pub fn ibv_wc_read_vendor_err[read_vendor_err](cq) -> u32;
    /// Bytes transferred.
    pub fn ibv_wc_read_byte_len[read_byte_len](cq) -> u32;
    /// Immediate data, big-endian.
    pub fn ibv_wc_read_imm_data[read_imm_data](cq) -> u32;
    /// The key that a SEND with invalidate has invalidated; it shares its reader with the immediate data.
    pub fn ibv_wc_read_invalidated_rkey[read_imm_data](cq) -> u32;
    /// The local queue pair.
    pub fn ibv_wc_read_qp_num[read_qp_num](cq) -> u32;
    /// The remote queue pair of a datagram.
    pub fn ibv_wc_read_src_qp[read_src_qp](cq) -> u32;
    /// Bits of `ibv_wc_flags`.
    pub fn ibv_wc_read_wc_flags[read_wc_flags](cq) -> u32;
    /// The remote LID.
    pub fn ibv_wc_read_slid[read_slid](cq) -> u32;
    /// The service level.
    pub fn ibv_wc_read_sl[read_sl](cq) -> u8;
    /// The local path bits.
    pub fn ibv_wc_read_dlid_path_bits[read_dlid_path_bits](cq) -> u8;
    /// The device's time of completion, in ticks of its clock.
    pub fn ibv_wc_read_completion_ts[read_completion_ts](cq) -> u64;
    /// The time of completion, in nanoseconds of the wall clock.
    pub fn ibv_wc_read_completion_wallclock_ns[read_completion_wallclock_ns](cq) -> u64;
    /// The VLAN tag that was stripped.
    pub fn ibv_wc_read_cvlan[read_cvlan](cq) -> u16;
    /// The tag set by a flow rule.
    pub fn ibv_wc_read_flow_tag[read_flow_tag](cq) -> u32;
    /// The tag-matching part.
    pub fn ibv_wc_read_tm_info[read_tm_info](cq, tm_info: *mut ibv_wc_tm_info);
}
