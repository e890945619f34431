//! What the other services need: address handles, shared receive queues, asynchronous events.
//!
//! # Safety
//! As in `queue`: an object holds what it was made from, and is destroyed before that.

#![allow(unsafe_code)]

use std::ffi::c_int;
use std::sync::Arc;
use std::time::Duration;

use ibex_sys::{
    IBV_SRQ_LIMIT, IBV_SRQ_MAX_WR, dispatch, ibv_ah, ibv_ah_attr, ibv_event_type, ibv_gid, ibv_global_route,
    ibv_grh, ibv_recv_wr, ibv_sge, ibv_srq, ibv_srq_attr, ibv_srq_init_attr, ibv_wc,
};

use super::device::{PORT, errno};
use super::{Lab, Pd, Recv, Region};

/// Bytes that stand before a datagram in its receive's memory.
pub const GRH: u64 = 40;

/// The key that the suite's datagram queue pairs have.
pub const QKEY: u32 = 0x0123_4567;

/// An address handle.
#[derive(Debug, Clone)]
pub struct Ah {
    inner: Arc<AhInner>,
}

#[derive(Debug)]
struct AhInner {
    ah: *mut ibv_ah,
    pd: Pd,
}

// SAFETY: libibverbs' objects may be used from any thread.
unsafe impl std::marker::Send for AhInner {}
// SAFETY: as above.
unsafe impl Sync for AhInner {}

impl Ah {
    /// `ibv_create_ah` for a GID.
    ///
    /// # Errors
    /// The errno of `ibv_create_ah`.
    pub fn try_new(pd: &Pd, gid: ibv_gid) -> Result<Self, i32> {
        let (sgid_index, _) = pd.lab().gid();
        let mut attr = ibv_ah_attr {
            grh: ibv_global_route { dgid: gid, sgid_index, hop_limit: 64, ..Default::default() },
            is_global: 1,
            port_num: PORT,
            ..Default::default()
        };
        // SAFETY: ibv_create_ah(3), with a live domain and a full structure.
        let ah = unsafe { (pd.lab().verbs().create_ah)(pd.as_ptr(), &raw mut attr) };
        Self::made(pd, ah)
    }

    /// `ibv_create_ah_from_wc` for the sender of a datagram that lies at an offset of a region.
    ///
    /// # Errors
    /// The errno of `ibv_create_ah_from_wc`.
    pub fn try_from_wc(pd: &Pd, wc: &ibv_wc, region: &Region, offset: u64) -> Result<Self, i32> {
        let mut wc = *wc;
        let mut header = ibv_grh::default();
        let bytes = region.read(usize::try_from(offset).expect("small"), GRH as usize);
        // SAFETY: both are 40 bytes, and any bytes are a header.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), (&raw mut header).cast::<u8>(), bytes.len());
        }
        // SAFETY: ibv_create_ah_from_wc(3), with a live domain, a completion and its header.
        let ah =
            unsafe { (pd.lab().verbs().create_ah_from_wc)(pd.as_ptr(), &raw mut wc, &raw mut header, PORT) };
        Self::made(pd, ah)
    }

    fn made(pd: &Pd, ah: *mut ibv_ah) -> Result<Self, i32> {
        if ah.is_null() {
            return Err(errno());
        }
        Ok(Self { inner: Arc::new(AhInner { ah, pd: pd.clone() }) })
    }

    /// The C object.
    pub fn as_ptr(&self) -> *mut ibv_ah {
        self.inner.ah
    }
}

impl Drop for AhInner {
    fn drop(&mut self) {
        // SAFETY: ibv_destroy_ah(3): created in `made`, destroyed once.
        let ret = unsafe { (self.pd.lab().verbs().destroy_ah)(self.ah) };
        assert!(ret == 0 || std::thread::panicking(), "ibv_destroy_ah: {ret}");
    }
}

/// A shared receive queue.
#[derive(Debug, Clone)]
pub struct Srq {
    inner: Arc<SrqInner>,
}

#[derive(Debug)]
struct SrqInner {
    srq: *mut ibv_srq,
    pd: Pd,
}

// SAFETY: libibverbs' objects may be used from any thread.
unsafe impl std::marker::Send for SrqInner {}
// SAFETY: as above.
unsafe impl Sync for SrqInner {}

impl Srq {
    /// `ibv_create_srq`, with lists of up to four entries.
    ///
    /// # Errors
    /// The errno of `ibv_create_srq`.
    pub fn try_new(pd: &Pd, max_wr: u32) -> Result<Self, i32> {
        let attr = ibv_srq_attr { max_wr, max_sge: 4, srq_limit: 0 };
        let mut init = ibv_srq_init_attr { attr, ..Default::default() };
        // SAFETY: ibv_create_srq(3), with a live domain and a full structure.
        let srq = unsafe { (pd.lab().verbs().create_srq)(pd.as_ptr(), &raw mut init) };
        if srq.is_null() {
            return Err(errno());
        }
        Ok(Self { inner: Arc::new(SrqInner { srq, pd: pd.clone() }) })
    }

    /// The C object.
    pub fn as_ptr(&self) -> *mut ibv_srq {
        self.inner.srq
    }

    /// `ibv_post_srq_recv` of one request.
    ///
    /// # Errors
    /// The errno it returns.
    pub fn try_post(&self, recv: &Recv) -> Result<(), i32> {
        let mut sges: Vec<ibv_sge> =
            recv.sges.iter().map(|sge| ibv_sge { addr: sge.addr, length: sge.len, lkey: sge.lkey }).collect();
        let mut wr = ibv_recv_wr {
            wr_id: recv.id,
            sg_list: sges.as_mut_ptr(),
            num_sge: c_int::try_from(sges.len()).expect("small"),
            ..Default::default()
        };
        let mut bad = std::ptr::null_mut();
        // SAFETY: ibv_post_srq_recv(3): the request lives until the call returns; memory is the caller's concern.
        let ret = unsafe { dispatch::ibv_post_srq_recv(self.inner.srq, &raw mut wr, &raw mut bad) };
        if ret == 0 { Ok(()) } else { Err(ret.abs()) }
    }

    /// Posts one request.
    ///
    /// # Panics
    /// When it is refused.
    pub fn post(&self, recv: &Recv) {
        self.try_post(recv).unwrap_or_else(|errno| panic!("receive {} refused: errno {errno}", recv.id));
    }

    /// `ibv_modify_srq` of the size, the limit or both.
    ///
    /// # Errors
    /// The errno it returns.
    pub fn modify(&self, max_wr: Option<u32>, limit: Option<u32>) -> Result<(), i32> {
        let mut attr =
            ibv_srq_attr { max_wr: max_wr.unwrap_or(0), max_sge: 0, srq_limit: limit.unwrap_or(0) };
        let mask = max_wr.map_or(0, |_| IBV_SRQ_MAX_WR.0) | limit.map_or(0, |_| IBV_SRQ_LIMIT.0);
        let mask = c_int::try_from(mask).expect("small");
        let modify = self.inner.pd.lab().verbs().modify_srq;
        // SAFETY: ibv_modify_srq(3), with a live queue and a full structure.
        let ret = unsafe { modify(self.inner.srq, &raw mut attr, mask) };
        if ret == 0 { Ok(()) } else { Err(if ret < 0 { errno() } else { ret }) }
    }

    /// `ibv_query_srq`.
    ///
    /// # Panics
    /// When it fails.
    pub fn query(&self) -> ibv_srq_attr {
        let mut attr = ibv_srq_attr::default();
        // SAFETY: ibv_query_srq(3), with a live queue and a structure to fill.
        let ret = unsafe { (self.inner.pd.lab().verbs().query_srq)(self.inner.srq, &raw mut attr) };
        assert_eq!(ret, 0, "ibv_query_srq");
        attr
    }

    /// Tries to destroy the queue while queue pairs use it; gives the refusal's errno.
    ///
    /// # Panics
    /// When the device agrees.
    pub fn destroy_must_fail(&self) -> i32 {
        // SAFETY: ibv_destroy_srq(3); a queue pair of the caller uses it, so that the device has to refuse.
        let ret = unsafe { (self.inner.pd.lab().verbs().destroy_srq)(self.inner.srq) };
        assert_ne!(ret, 0, "a shared receive queue in use was destroyed");
        ret
    }
}

impl Drop for SrqInner {
    fn drop(&mut self) {
        // SAFETY: ibv_destroy_srq(3): its queue pairs held an `Arc` of this; every event taken was acknowledged.
        let ret = unsafe { (self.pd.lab().verbs().destroy_srq)(self.srq) };
        assert!(ret == 0 || std::thread::panicking(), "ibv_destroy_srq: {ret}");
    }
}

impl Lab {
    /// The next asynchronous event, acknowledged, if one comes in time: what, and the address of the object it is about.
    ///
    /// # Panics
    /// When the call fails.
    pub fn async_event_within(&self, patience: Duration) -> Option<(ibv_event_type, usize)> {
        // SAFETY: an open context.
        let fd = unsafe { (*self.context()).async_fd };
        let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let millis = c_int::try_from(patience.as_millis()).expect("short");
        // SAFETY: poll(2), with one entry.
        if unsafe { libc::poll(&raw mut poll, 1, millis) } < 1 {
            return None;
        }
        let mut event = ibex_sys::ibv_async_event::default();
        // SAFETY: ibv_get_async_event(3), with an open context and a structure to fill.
        let ret = unsafe { (self.verbs().get_async_event)(self.context(), &raw mut event) };
        assert_eq!(ret, 0, "ibv_get_async_event: errno {}", errno());
        // SAFETY: objects' pointers share the union's bytes; one is only compared.
        let about = unsafe { event.element.qp }.addr();
        // SAFETY: ibv_ack_async_event(3): taken just now, and acknowledged once.
        unsafe { (self.verbs().ack_async_event)(&raw mut event) };
        Some((event.event_type, about))
    }
}
