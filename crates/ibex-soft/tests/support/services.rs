//! Shared receive queues, address handles and asynchronous events for the tests.
//!
//! # Safety
//! As the module around it.

use super::*;

/// A shared receive queue.
pub(crate) struct Srq {
    pub(crate) srq: *mut ibv_srq,
    _pd: Arc<Pd>,
}
// SAFETY: every verb may be called from any thread.
unsafe impl Send for Srq {}
// SAFETY: as above.
unsafe impl Sync for Srq {}

impl Srq {
    pub(crate) fn create(pd: &Arc<Pd>, max_wr: u32) -> Arc<Srq> {
        let attr = ibv_srq_attr { max_wr, max_sge: 4, srq_limit: 0 };
        let srq = c!((v().create_srq)(pd.0, &mut ibv_srq_init_attr { attr, ..Default::default() }));
        assert!(!srq.is_null(), "create_srq: {}", std::io::Error::last_os_error());
        Arc::new(Srq { srq, _pd: pd.clone() })
    }

    pub(crate) fn try_recv(&self, wr_id: u64, sges: &mut [ibv_sge]) -> i32 {
        let mut wr =
            ibv_recv_wr { wr_id, next: null_mut(), sg_list: sges.as_mut_ptr(), num_sge: sges.len() as i32 };
        let mut bad = null_mut();
        let code = c!(dispatch::ibv_post_srq_recv(self.srq, &mut wr, &mut bad));
        assert_eq!(code != 0, !bad.is_null());
        code
    }

    pub(crate) fn recv(&self, wr_id: u64, sge: ibv_sge) {
        assert_eq!(self.try_recv(wr_id, &mut [sge]), 0, "post_srq_recv");
    }

    pub(crate) fn modify(&self, max_wr: Option<u32>, limit: Option<u32>) -> i32 {
        let mut attr =
            ibv_srq_attr { max_wr: max_wr.unwrap_or(0), max_sge: 0, srq_limit: limit.unwrap_or(0) };
        let mask = max_wr.map_or(0, |_| IBV_SRQ_MAX_WR.0) | limit.map_or(0, |_| IBV_SRQ_LIMIT.0);
        c!((v().modify_srq)(self.srq, &mut attr, mask as i32))
    }

    pub(crate) fn query(&self) -> ibv_srq_attr {
        let mut attr = ibv_srq_attr::default();
        assert_eq!(c!((v().query_srq)(self.srq, &mut attr)), 0);
        attr
    }
}

impl Drop for Srq {
    fn drop(&mut self) {
        assert_eq!(c!((v().destroy_srq)(self.srq)), 0, "destroy_srq");
    }
}

/// An address handle.
pub(crate) struct Ah {
    pub(crate) ah: *mut ibv_ah,
    _pd: Arc<Pd>,
}
// SAFETY: as for Srq.
unsafe impl Send for Ah {}
// SAFETY: as for Srq.
unsafe impl Sync for Ah {}

/// The attributes of an address.
pub(crate) fn ah_attr(gid: [u8; 16]) -> ibv_ah_attr {
    let mut attr = ibv_ah_attr { is_global: 1, port_num: 1, ..Default::default() };
    attr.grh.dgid = ibv_gid { raw: gid };
    attr.grh.sgid_index = 1;
    attr.grh.hop_limit = 64;
    attr
}

impl Ah {
    pub(crate) fn create(pd: &Arc<Pd>, gid: [u8; 16]) -> Ah {
        Ah::of(pd, c!((v().create_ah)(pd.0, &mut ah_attr(gid))))
    }

    /// Takes a handle made otherwise.
    pub(crate) fn of(pd: &Arc<Pd>, ah: *mut ibv_ah) -> Ah {
        assert!(!ah.is_null(), "create_ah: {}", std::io::Error::last_os_error());
        Ah { ah, _pd: pd.clone() }
    }
}

impl Drop for Ah {
    fn drop(&mut self) {
        assert_eq!(c!((v().destroy_ah)(self.ah)), 0, "destroy_ah");
    }
}

impl Context {
    /// Makes [`Context::event`] return at once.
    pub(crate) fn events_nonblocking(&self) {
        set_nonblocking(c!((*self.0).async_fd));
    }

    /// The next asynchronous event, acknowledged, if one comes within so many milliseconds.
    pub(crate) fn event(&self, ms: i32) -> Option<ibv_async_event> {
        if !readable(c!((*self.0).async_fd), ms) {
            return None;
        }
        let mut event = ibv_async_event::default();
        assert_eq!(c!((v().get_async_event)(self.0, &mut event)), 0);
        c!((v().ack_async_event)(&mut event));
        Some(event)
    }
}
