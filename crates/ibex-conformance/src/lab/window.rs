//! Memory windows of a test, and the requests about them.
//!
//! # Safety
//! As `queue`. A window is freed before the domain it was allocated in.

#![allow(unsafe_code)]

use ibex_sys::{
    IBV_MW_TYPE_2, IBV_SEND_SIGNALED, IBV_WR_BIND_MW, IBV_WR_LOCAL_INV, IBV_WR_SEND_WITH_INV, dispatch,
    ibv_access_flags, ibv_mw, ibv_mw_bind, ibv_mw_bind_info, ibv_mw_type, ibv_send_wr, ibv_send_wr_bind_mw,
    ibv_send_wr_imm, ibv_send_wr_tail, ibv_sge,
};

use super::device::errno;
use super::{Pd, Qp, Region, Sge};

/// A memory window.
#[derive(Debug)]
pub struct Window {
    mw: *mut ibv_mw,
    kind: ibv_mw_type,
    _pd: Pd,
}

impl Window {
    /// Allocates a window.
    ///
    /// # Errors
    /// The errno of `ibv_alloc_mw`.
    pub fn try_new(pd: &Pd, kind: ibv_mw_type) -> Result<Self, i32> {
        // SAFETY: ibv_alloc_mw(3), with a live domain.
        let mw = unsafe { dispatch::ibv_alloc_mw(pd.as_ptr(), kind) };
        if mw.is_null() { Err(errno()) } else { Ok(Self { mw, kind, _pd: pd.clone() }) }
    }

    /// The key it has now.
    pub fn rkey(&self) -> u32 {
        // SAFETY: a live window.
        unsafe { (*self.mw).rkey }
    }

    /// Posts a signalled bind to bytes of a region and gives the key the window has once it is done.
    ///
    /// # Errors
    /// What the call returned.
    pub fn try_bind(
        &self,
        qp: &Qp,
        id: u64,
        region: &Region,
        (offset, len): (u64, u64),
        access: ibv_access_flags,
    ) -> Result<u32, i32> {
        let bind_info = ibv_mw_bind_info {
            mr: region.as_ptr(),
            addr: region.addr() + offset,
            length: len,
            mw_access_flags: access.0,
        };
        if self.kind == IBV_MW_TYPE_2 {
            let rkey = dispatch::ibv_inc_rkey(self.rkey());
            let mut wr = request(id, IBV_WR_BIND_MW);
            wr.tail = ibv_send_wr_tail { bind_mw: ibv_send_wr_bind_mw { mw: self.mw, rkey, bind_info } };
            post(qp, &mut wr)?;
            // SAFETY: a live window; noting the key chosen is the program's business.
            unsafe { (*self.mw).rkey = rkey }
        } else {
            let mut bind = ibv_mw_bind { wr_id: id, send_flags: IBV_SEND_SIGNALED.0, bind_info };
            // SAFETY: ibv_bind_mw(3), with live objects.
            let ret = unsafe { dispatch::ibv_bind_mw(qp.as_ptr(), self.mw, &raw mut bind) };
            if ret != 0 {
                return Err(ret.abs());
            }
        }
        Ok(self.rkey())
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: ibv_alloc_mw(3): freed once.
        let ret = unsafe { dispatch::ibv_dealloc_mw(self.mw) };
        assert!(ret == 0 || std::thread::panicking(), "ibv_dealloc_mw: {ret}");
    }
}

fn request(wr_id: u64, opcode: ibex_sys::ibv_wr_opcode) -> ibv_send_wr {
    ibv_send_wr { wr_id, opcode, send_flags: IBV_SEND_SIGNALED.0, ..Default::default() }
}

fn post(qp: &Qp, wr: &mut ibv_send_wr) -> Result<(), i32> {
    let mut bad = std::ptr::null_mut();
    // SAFETY: ibv_post_send(3): the request lives until the call returns; memory is the caller's concern.
    let ret = unsafe { dispatch::ibv_post_send(qp.as_ptr(), wr, &raw mut bad) };
    if ret == 0 { Ok(()) } else { Err(ret.abs()) }
}

impl Qp {
    /// Posts the invalidation of a key of this side.
    ///
    /// # Errors
    /// The errno of `ibv_post_send`.
    pub fn try_invalidate(&self, id: u64, rkey: u32) -> Result<(), i32> {
        let mut wr = request(id, IBV_WR_LOCAL_INV);
        wr.imm = ibv_send_wr_imm { invalidate_rkey: rkey };
        post(self, &mut wr)
    }

    /// Posts a SEND that invalidates a key of the peer.
    ///
    /// # Errors
    /// The errno of `ibv_post_send`.
    pub fn try_send_invalidate(&self, id: u64, sge: Sge, rkey: u32) -> Result<(), i32> {
        let mut list = ibv_sge { addr: sge.addr, length: sge.len, lkey: sge.lkey };
        let mut wr = request(id, IBV_WR_SEND_WITH_INV);
        (wr.sg_list, wr.num_sge) = (&raw mut list, 1);
        wr.imm = ibv_send_wr_imm { invalidate_rkey: rkey };
        post(self, &mut wr)
    }
}
