//! Posting and polling as a program does that is in a hurry.
//!
//! Owns single requests without any allocation, for measurements: what the other functions of this module spend on lists
//! would be taken for the device's cost. Man pages ibv_post_send(3), ibv_post_recv(3), ibv_poll_cq(3).
//!
//! # Safety
//! A lane borrows its queue pair, which is alive as long. A request is on the stack and lives until the call returns; the
//! memory it names belongs to the caller, who keeps it registered until the completion or the end of the queue pair.

#![allow(unsafe_code)]

use std::ffi::c_int;
use std::marker::PhantomData;

use ibex_sys::{IBV_SEND_SIGNALED, IBV_WR_SEND, dispatch, ibv_qp, ibv_recv_wr, ibv_send_wr, ibv_sge, ibv_wc};

use super::{Cq, Qp, Sge};

/// A queue pair, as small as a program can remember it.
#[derive(Debug, Clone, Copy)]
pub struct Lane<'a> {
    qp: *mut ibv_qp,
    owner: PhantomData<&'a Qp>,
}

impl Qp {
    /// The queue pair for single requests.
    pub fn lane(&self) -> Lane<'_> {
        Lane { qp: self.as_ptr(), owner: PhantomData }
    }
}

impl Lane<'_> {
    /// Posts a signalled SEND.
    ///
    /// # Panics
    /// When it is refused.
    #[inline]
    pub fn send(&self, id: u64, sge: Sge) {
        let mut list = c_sge(sge);
        let mut wr = ibv_send_wr {
            wr_id: id,
            sg_list: &raw mut list,
            num_sge: 1,
            opcode: IBV_WR_SEND,
            send_flags: IBV_SEND_SIGNALED.0,
            ..Default::default()
        };
        let mut bad = std::ptr::null_mut();
        // SAFETY: ibv_post_send(3): the request lives until the call returns; memory is the caller's concern.
        let ret = unsafe { dispatch::ibv_post_send(self.qp, &raw mut wr, &raw mut bad) };
        assert_eq!(ret, 0, "ibv_post_send");
    }

    /// Posts a receive.
    ///
    /// # Panics
    /// When it is refused.
    #[inline]
    pub fn receive(&self, id: u64, sge: Sge) {
        let mut list = c_sge(sge);
        let mut wr = ibv_recv_wr { wr_id: id, sg_list: &raw mut list, num_sge: 1, ..Default::default() };
        let mut bad = std::ptr::null_mut();
        // SAFETY: ibv_post_recv(3): the request lives until the call returns; memory is the caller's concern.
        let ret = unsafe { dispatch::ibv_post_recv(self.qp, &raw mut wr, &raw mut bad) };
        assert_eq!(ret, 0, "ibv_post_recv");
    }
}

fn c_sge(sge: Sge) -> ibv_sge {
    ibv_sge { addr: sge.addr, length: sge.len, lkey: sge.lkey }
}

impl Cq {
    /// One `ibv_poll_cq` into `wcs`; those that came.
    ///
    /// # Panics
    /// When it fails.
    #[inline]
    pub fn poll_into<'a>(&self, wcs: &'a mut [ibv_wc]) -> &'a [ibv_wc] {
        let most = c_int::try_from(wcs.len()).expect("small");
        // SAFETY: ibv_poll_cq(3), with room for `most` completions.
        let count = unsafe { dispatch::ibv_poll_cq(self.as_ptr(), most, wcs.as_mut_ptr()) };
        &wcs[..usize::try_from(count).unwrap_or_else(|_| panic!("ibv_poll_cq: {count}"))]
    }
}
