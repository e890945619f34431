//! Extended queue pairs: building work requests in place.
//!
//! Owns the `ibv_wr_*` functions. The order of calls: `ibv_wr_start`; for each request set `wr_id` and `wr_flags` in the
//! structure, call one of the functions that start a request, then those that set its data and address; `ibv_wr_complete`
//! posts all of it, `ibv_wr_abort` none of it.
//!
//! Man page: `ibv_wr_post(3)`.
//!
//! # Safety
//!
//! See [`crate::dispatch`]. An operation that was not asked for in `send_ops_flags` at creation may be null: calling it
//! panics here, where C would jump to address 0.
#![allow(unsafe_code)]

use core::ffi::{c_int, c_void};

use crate::verbs::{ibv_ah, ibv_data_buf, ibv_mw, ibv_mw_bind_info, ibv_qp_ex, ibv_sge};

/// Declares functions that call a pointer of the queue pair.
macro_rules! builders {
    ($( $(#[$meta:meta])* pub fn $name:ident[$op:ident]($qp:ident $(, $arg:ident: $ty:ty)*) $(-> $ret:ty)?; )*) => { $(
        $(#[$meta])*
        ///
        /// # Safety
        ///
        /// The queue pair is live and used by this thread only between start and complete, in the order of calls of the
        /// man page; memory and objects named stay valid until the request completes (inline data: until this returns).
        ///
        /// # Panics
        ///
        /// If the device does not have this operation, that is, it was not asked for when the queue pair was created.
        #[inline]
        pub unsafe fn $name($qp: *mut ibv_qp_ex $(, $arg: $ty)*) $(-> $ret)? {
            // SAFETY: the queue pair is live.
            match unsafe { (*$qp).$op } {
                // SAFETY: the device's own function, with the caller's arguments.
                Some(op) => unsafe { op($qp $(, $arg)*) },
                None => missing(stringify!($name)),
            }
        }
    )* };
}

/// The end of a call that the queue pair does not have.
#[cold]
fn missing(name: &str) -> ! {
    panic!("{name} is not among the send_ops_flags that this queue pair was created with")
}

builders! {
    /// Starts a batch of requests.
    pub fn ibv_wr_start[wr_start](qp);
    /// Posts the batch: 0, or an errno and then none of it was posted.
    pub fn ibv_wr_complete[wr_complete](qp) -> c_int;
    /// Forgets the batch.
    pub fn ibv_wr_abort[wr_abort](qp);
    /// Starts a compare and swap of 8 bytes.
    pub fn ibv_wr_atomic_cmp_swp[wr_atomic_cmp_swp](qp, rkey: u32, remote_addr: u64, compare: u64, swap: u64);
    /// Starts a fetch and add of 8 bytes.
    pub fn ibv_wr_atomic_fetch_add[wr_atomic_fetch_add](qp, rkey: u32, remote_addr: u64, add: u64);
    /// Starts an atomic write of 8 bytes.
    pub fn ibv_wr_atomic_write[wr_atomic_write](qp, rkey: u32, remote_addr: u64, atomic_wr: *const c_void);
    /// Starts the binding of a type 2 window.
    pub fn ibv_wr_bind_mw[wr_bind_mw](qp, mw: *mut ibv_mw, rkey: u32, bind_info: *const ibv_mw_bind_info);
    /// Starts a FLUSH; `type` and `level` are values of `ibv_placement_type` and `ibv_selectivity_level`.
    pub fn ibv_wr_flush[wr_flush](qp, rkey: u32, remote_addr: u64, len: usize, r#type: u8, level: u8);
    /// Starts the invalidation of a local key.
    pub fn ibv_wr_local_inv[wr_local_inv](qp, invalidate_rkey: u32);
    /// Starts an RDMA READ.
    pub fn ibv_wr_rdma_read[wr_rdma_read](qp, rkey: u32, remote_addr: u64);
    /// Starts an RDMA WRITE.
    pub fn ibv_wr_rdma_write[wr_rdma_write](qp, rkey: u32, remote_addr: u64);
    /// Starts an RDMA WRITE with immediate data (big-endian).
    pub fn ibv_wr_rdma_write_imm[wr_rdma_write_imm](qp, rkey: u32, remote_addr: u64, imm_data: u32);
    /// Starts a SEND.
    pub fn ibv_wr_send[wr_send](qp);
    /// Starts a SEND with immediate data (big-endian).
    pub fn ibv_wr_send_imm[wr_send_imm](qp, imm_data: u32);
    /// Starts a SEND that invalidates a key of the receiver.
    pub fn ibv_wr_send_inv[wr_send_inv](qp, invalidate_rkey: u32);
    /// Starts a SEND that is segmented by the device.
    pub fn ibv_wr_send_tso[wr_send_tso](qp, hdr: *mut c_void, hdr_sz: u16, mss: u16);
    /// Sets the destination of a datagram.
    pub fn ibv_wr_set_ud_addr[wr_set_ud_addr](qp, ah: *mut ibv_ah, remote_qpn: u32, remote_qkey: u32);
    /// Sets the receive queue of an XRC request.
    pub fn ibv_wr_set_xrc_srqn[wr_set_xrc_srqn](qp, remote_srqn: u32);
    /// Sets the data, copied before this returns.
    pub fn ibv_wr_set_inline_data[wr_set_inline_data](qp, addr: *mut c_void, length: usize);
    /// Sets the data from several pieces, copied before this returns.
    pub fn ibv_wr_set_inline_data_list[wr_set_inline_data_list](qp, num_buf: usize, buf_list: *const ibv_data_buf);
    /// Sets the data to one piece of registered memory.
    pub fn ibv_wr_set_sge[wr_set_sge](qp, lkey: u32, addr: u64, length: u32);
    /// Sets the data to several pieces of registered memory.
    pub fn ibv_wr_set_sge_list[wr_set_sge_list](qp, num_sge: usize, sg_list: *const ibv_sge);
}
