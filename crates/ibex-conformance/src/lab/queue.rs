//! Completion queues and queue pairs of a test.
//!
//! # Safety
//! Objects are destroyed before what they were made from: each holds its parents. Work requests are built on the stack
//! and live until the call returns; the memory they name belongs to the caller, who keeps it registered until the
//! completion or the end of the queue pair.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ibex_sys::{
    IBV_QPS_RESET, dispatch, ibv_comp_channel, ibv_cq, ibv_qp, ibv_qp_attr, ibv_qp_attr_mask, ibv_qp_cap,
    ibv_qp_init_attr, ibv_qp_state, ibv_qp_type, ibv_recv_wr, ibv_send_wr, ibv_send_wr_ud, ibv_sge, ibv_wc,
};

use super::device::errno;
use super::{Lab, PATIENCE, Pd, QUIET, Recv, Send, Sge, Srq};

/// A completion queue, with a channel of its own when asked for.
#[derive(Debug, Clone)]
pub struct Cq {
    inner: Arc<CqInner>,
}

#[derive(Debug)]
struct CqInner {
    cq: *mut ibv_cq,
    channel: *mut ibv_comp_channel,
    lab: Lab,
}

// SAFETY: libibverbs' objects may be used from any thread.
unsafe impl std::marker::Send for CqInner {}
// SAFETY: as above.
unsafe impl Sync for CqInner {}

impl Cq {
    /// Creates a queue for at least `depth` completions.
    ///
    /// # Errors
    /// The errno of `ibv_create_cq`.
    pub fn try_new(lab: &Lab, depth: i32, with_channel: bool) -> Result<Self, i32> {
        let channel = if with_channel {
            // SAFETY: ibv_create_comp_channel(3), with an open context.
            let channel = unsafe { (lab.verbs().create_comp_channel)(lab.context()) };
            assert!(!channel.is_null(), "cannot create a completion channel: errno {}", errno());
            channel
        } else {
            std::ptr::null_mut()
        };
        // SAFETY: ibv_create_cq(3), with an open context and a live channel or none.
        let cq = unsafe { (lab.verbs().create_cq)(lab.context(), depth, std::ptr::null_mut(), channel, 0) };
        if cq.is_null() {
            let errno = errno();
            if !channel.is_null() {
                // SAFETY: ibv_create_comp_channel(3): no queue uses it.
                unsafe { (lab.verbs().destroy_comp_channel)(channel) };
            }
            return Err(errno);
        }
        Ok(Self { inner: Arc::new(CqInner { cq, channel, lab: lab.clone() }) })
    }

    /// Takes over a queue without a channel that was created another way.
    ///
    /// # Safety
    /// `cq` is live, of this device, and nobody else destroys it.
    pub(super) unsafe fn adopt(lab: &Lab, cq: *mut ibv_cq) -> Self {
        Self { inner: Arc::new(CqInner { cq, channel: std::ptr::null_mut(), lab: lab.clone() }) }
    }

    /// The C object.
    pub fn as_ptr(&self) -> *mut ibv_cq {
        self.inner.cq
    }

    /// How many completions it holds, as created.
    pub fn capacity(&self) -> i32 {
        // SAFETY: a live queue; `cqe` is set when it is created.
        unsafe { (*self.inner.cq).cqe }
    }

    /// One `ibv_poll_cq`.
    ///
    /// # Panics
    /// When it fails.
    pub fn poll(&self, max: usize) -> Vec<ibv_wc> {
        let mut wcs = vec![ibv_wc::default(); max];
        let max = c_int::try_from(max).expect("small");
        // SAFETY: ibv_poll_cq(3), with room for `max` completions.
        let count = unsafe { dispatch::ibv_poll_cq(self.inner.cq, max, wcs.as_mut_ptr()) };
        wcs.truncate(usize::try_from(count).unwrap_or_else(|_| panic!("ibv_poll_cq: {count}")));
        wcs
    }

    /// Polls until `count` completions have come.
    ///
    /// # Panics
    /// When they do not come in time.
    pub fn wait(&self, count: usize) -> Vec<ibv_wc> {
        let end = Instant::now() + PATIENCE;
        let mut got = Vec::new();
        while got.len() < count {
            // No more than asked for: other threads may be posting. `stays_empty` finds what is too much.
            let wcs = self.poll((count - got.len()).min(16));
            if wcs.is_empty() {
                assert!(
                    Instant::now() < end,
                    "{} of {count} completions came; the last: {:?}",
                    got.len(),
                    got.last()
                );
                std::thread::yield_now();
            }
            got.extend(wcs);
        }
        got
    }

    /// Waits for one completion.
    pub fn wait_one(&self) -> ibv_wc {
        self.wait(1).remove(0)
    }

    /// Watches for [`QUIET`] that nothing comes.
    ///
    /// # Panics
    /// When something comes.
    pub fn stays_empty(&self) {
        let end = Instant::now() + QUIET;
        while Instant::now() < end {
            let wcs = self.poll(16);
            assert!(wcs.is_empty(), "completions of nothing: {wcs:?}");
            std::thread::yield_now();
        }
    }

    /// Asks for an event with the next completion.
    pub fn arm(&self, solicited_only: bool) {
        // SAFETY: ibv_req_notify_cq(3), with a live queue.
        let ret = unsafe { dispatch::ibv_req_notify_cq(self.inner.cq, c_int::from(solicited_only)) };
        assert_eq!(ret, 0, "ibv_req_notify_cq");
    }

    /// Waits until the channel's descriptor is readable, and tells whether it became so in time.
    pub fn event_within(&self, patience: Duration) -> bool {
        // SAFETY: a live channel: the case asked for one.
        let fd = unsafe { (*self.inner.channel).fd };
        let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let millis = c_int::try_from(patience.as_millis()).expect("short");
        // SAFETY: poll(2), with one entry.
        let ready = unsafe { libc::poll(&raw mut poll, 1, millis) };
        assert!(ready >= 0, "poll: errno {}", errno());
        ready == 1
    }

    /// Takes one event from the channel and acknowledges it.
    ///
    /// # Panics
    /// When the call fails or names another queue.
    pub fn take_event(&self) {
        let mut cq = std::ptr::null_mut();
        let mut context: *mut c_void = std::ptr::null_mut();
        // SAFETY: ibv_get_cq_event(3), with a live channel.
        let ret = unsafe {
            (self.inner.lab.verbs().get_cq_event)(self.inner.channel, &raw mut cq, &raw mut context)
        };
        assert_eq!(ret, 0, "ibv_get_cq_event: errno {}", errno());
        assert_eq!(cq, self.inner.cq, "an event of another queue");
        // SAFETY: ibv_ack_cq_events(3): one event was taken just now.
        unsafe { (self.inner.lab.verbs().ack_cq_events)(cq, 1) };
    }

    /// Tries to destroy the queue while queue pairs use it; gives the refusal's errno.
    ///
    /// # Panics
    /// When the device agrees.
    pub fn destroy_must_fail(&self) -> i32 {
        // SAFETY: ibv_destroy_cq(3); a queue pair of the caller uses it, so that the device has to refuse.
        let ret = unsafe { (self.inner.lab.verbs().destroy_cq)(self.inner.cq) };
        assert_ne!(ret, 0, "a completion queue in use was destroyed");
        ret
    }
}

impl Drop for CqInner {
    fn drop(&mut self) {
        // SAFETY: ibv_destroy_cq(3): its queue pairs held an `Arc` of this; every event taken was acknowledged.
        let ret = unsafe { (self.lab.verbs().destroy_cq)(self.cq) };
        assert!(ret == 0 || std::thread::panicking(), "ibv_destroy_cq: {ret}");
        if !self.channel.is_null() {
            // SAFETY: ibv_create_comp_channel(3): its only queue is gone.
            let ret = unsafe { (self.lab.verbs().destroy_comp_channel)(self.channel) };
            assert!(ret == 0 || std::thread::panicking(), "ibv_destroy_comp_channel: {ret}");
        }
    }
}

/// A queue pair; sends and receives complete into queues that may be the same.
#[derive(Debug)]
pub struct Qp {
    qp: *mut ibv_qp,
    pd: Pd,
    send_cq: Cq,
    recv_cq: Cq,
    /// RC, UC or UD.
    pub service: ibv_qp_type,
    _srq: Option<Srq>,
    /// What the device granted.
    pub cap: ibv_qp_cap,
}

// SAFETY: libibverbs' objects may be used from any thread.
unsafe impl std::marker::Send for Qp {}
// SAFETY: as above: posting is thread safe.
unsafe impl Sync for Qp {}

impl Qp {
    /// Creates a queue pair of the reliable service.
    ///
    /// # Errors
    /// The errno of `ibv_create_qp`.
    pub fn try_new(pd: &Pd, send_cq: &Cq, recv_cq: &Cq, cap: ibv_qp_cap, sig_all: bool) -> Result<Self, i32> {
        Self::try_of(ibex_sys::IBV_QPT_RC, pd, send_cq, recv_cq, cap, sig_all, None)
    }

    /// Creates a queue pair of any service, with a shared receive queue if one is given.
    ///
    /// # Errors
    /// The errno of `ibv_create_qp`.
    pub fn try_of(
        service: ibv_qp_type,
        pd: &Pd,
        send_cq: &Cq,
        recv_cq: &Cq,
        cap: ibv_qp_cap,
        sig_all: bool,
        srq: Option<&Srq>,
    ) -> Result<Self, i32> {
        let mut init = ibv_qp_init_attr {
            send_cq: send_cq.as_ptr(),
            recv_cq: recv_cq.as_ptr(),
            cap,
            qp_type: service,
            srq: srq.map_or(std::ptr::null_mut(), Srq::as_ptr),
            sq_sig_all: c_int::from(sig_all),
            ..Default::default()
        };
        // SAFETY: ibv_create_qp(3), with live queues and domain.
        let qp = unsafe { (pd.lab().verbs().create_qp)(pd.as_ptr(), &raw mut init) };
        if qp.is_null() {
            return Err(errno());
        }
        let (send_cq, recv_cq) = (send_cq.clone(), recv_cq.clone());
        Ok(Self { qp, pd: pd.clone(), send_cq, recv_cq, service, _srq: srq.cloned(), cap: init.cap })
    }

    /// The address of the C object, as asynchronous events name it.
    pub fn address(&self) -> usize {
        self.qp.addr()
    }

    /// Takes over a queue pair that was created another way.
    ///
    /// # Safety
    /// `qp` is live, made of these objects, and nobody else destroys it.
    pub(super) unsafe fn adopt(qp: *mut ibv_qp, pd: &Pd, cq: &Cq, cap: ibv_qp_cap) -> Self {
        Self {
            qp,
            pd: pd.clone(),
            send_cq: cq.clone(),
            recv_cq: cq.clone(),
            service: ibex_sys::IBV_QPT_RC,
            _srq: None,
            cap,
        }
    }

    /// The C object.
    pub(super) fn as_ptr(&self) -> *mut ibv_qp {
        self.qp
    }

    /// The device.
    pub(super) fn lab(&self) -> &Lab {
        self.pd.lab()
    }

    /// Its number.
    pub fn num(&self) -> u32 {
        // SAFETY: a live queue pair; the number is set when it is created.
        unsafe { (*self.qp).qp_num }
    }

    /// `ibv_modify_qp`.
    ///
    /// # Errors
    /// The errno it returns.
    pub fn modify(&self, attr: &ibv_qp_attr, mask: ibv_qp_attr_mask) -> Result<(), i32> {
        let mut attr = *attr;
        let mask = c_int::try_from(mask.0).expect("masks are small");
        // SAFETY: ibv_modify_qp(3), with a live queue pair and a full structure.
        let ret = unsafe { (self.pd.lab().verbs().modify_qp)(self.qp, &raw mut attr, mask) };
        if ret == 0 { Ok(()) } else { Err(if ret < 0 { errno() } else { ret }) }
    }

    /// Moves to a state with no other attribute.
    ///
    /// # Errors
    /// The errno of `ibv_modify_qp`.
    pub fn to_state(&self, state: ibv_qp_state) -> Result<(), i32> {
        let attr = ibv_qp_attr { qp_state: state, ..Default::default() };
        self.modify(&attr, ibex_sys::IBV_QP_STATE)
    }

    /// `ibv_query_qp` of the given attributes.
    ///
    /// # Panics
    /// When it fails.
    pub fn query(&self, mask: ibv_qp_attr_mask) -> (ibv_qp_attr, ibv_qp_init_attr) {
        let mut attr = ibv_qp_attr::default();
        let mut init = ibv_qp_init_attr::default();
        let mask = c_int::try_from(mask.0).expect("masks are small");
        // SAFETY: ibv_query_qp(3), with a live queue pair and two structures to fill.
        let ret = unsafe { (self.pd.lab().verbs().query_qp)(self.qp, &raw mut attr, mask, &raw mut init) };
        assert_eq!(ret, 0, "ibv_query_qp");
        (attr, init)
    }

    /// The state it says it is in.
    pub fn state(&self) -> ibv_qp_state {
        self.query(ibex_sys::IBV_QP_STATE).0.qp_state
    }

    /// Posts sends with one call.
    ///
    /// # Errors
    /// The errno, and the index of the first request that was not posted.
    pub fn try_post(&self, sends: &[Send]) -> Result<(), (i32, usize)> {
        let mut sges: Vec<Vec<ibv_sge>> = sends.iter().map(|send| c_sges(&send.sges)).collect();
        let mut wrs: Vec<ibv_send_wr> = sends
            .iter()
            .zip(&mut sges)
            .map(|(send, sges)| {
                let mut wr = ibv_send_wr {
                    wr_id: send.id,
                    sg_list: sges.as_mut_ptr(),
                    num_sge: c_int::try_from(sges.len()).expect("small"),
                    opcode: send.opcode,
                    send_flags: send.flags.0,
                    ..Default::default()
                };
                wr.imm.imm_data = send.imm.to_be();
                if let Some((ah, qpn, qkey)) = &send.datagram {
                    wr.wr.ud = ibv_send_wr_ud { ah: ah.as_ptr(), remote_qpn: *qpn, remote_qkey: *qkey };
                } else if send.opcode == ibex_sys::IBV_WR_ATOMIC_CMP_AND_SWP
                    || send.opcode == ibex_sys::IBV_WR_ATOMIC_FETCH_AND_ADD
                {
                    wr.wr.atomic.remote_addr = send.remote.0;
                    wr.wr.atomic.rkey = send.remote.1;
                    wr.wr.atomic.compare_add = send.atomic.0;
                    wr.wr.atomic.swap = send.atomic.1;
                } else {
                    wr.wr.rdma.remote_addr = send.remote.0;
                    wr.wr.rdma.rkey = send.remote.1;
                }
                wr
            })
            .collect();
        let base = wrs.as_mut_ptr();
        for index in 1..wrs.len() {
            // SAFETY: within the vector.
            let next = unsafe { base.add(index) };
            wrs[index - 1].next = next;
        }
        let mut bad = std::ptr::null_mut();
        // SAFETY: ibv_post_send(3): the chain lives until the call returns; memory is the caller's concern.
        let ret = unsafe { dispatch::ibv_post_send(self.qp, base, &raw mut bad) };
        if ret == 0 {
            return Ok(());
        }
        let index =
            wrs.iter().position(|wr| std::ptr::eq(wr, bad)).expect("bad_wr names a request of the chain");
        Err((ret.abs(), index))
    }

    /// Posts sends with one call.
    ///
    /// # Panics
    /// When a request is refused.
    pub fn post(&self, sends: &[Send]) {
        self.try_post(sends).unwrap_or_else(|(errno, index)| panic!("send {index} refused: errno {errno}"));
    }

    /// Posts receives with one call.
    ///
    /// # Errors
    /// The errno, and the index of the first request that was not posted.
    pub fn try_post_recv(&self, recvs: &[Recv]) -> Result<(), (i32, usize)> {
        let mut sges: Vec<Vec<ibv_sge>> = recvs.iter().map(|recv| c_sges(&recv.sges)).collect();
        let mut wrs: Vec<ibv_recv_wr> = recvs
            .iter()
            .zip(&mut sges)
            .map(|(recv, sges)| ibv_recv_wr {
                wr_id: recv.id,
                sg_list: sges.as_mut_ptr(),
                num_sge: c_int::try_from(sges.len()).expect("small"),
                ..Default::default()
            })
            .collect();
        let base = wrs.as_mut_ptr();
        for index in 1..wrs.len() {
            // SAFETY: within the vector.
            let next = unsafe { base.add(index) };
            wrs[index - 1].next = next;
        }
        let mut bad = std::ptr::null_mut();
        // SAFETY: ibv_post_recv(3): the chain lives until the call returns; memory is the caller's concern.
        let ret = unsafe { dispatch::ibv_post_recv(self.qp, base, &raw mut bad) };
        if ret == 0 {
            return Ok(());
        }
        let index =
            wrs.iter().position(|wr| std::ptr::eq(wr, bad)).expect("bad_wr names a request of the chain");
        Err((ret.abs(), index))
    }

    /// Posts receives with one call.
    ///
    /// # Panics
    /// When a request is refused.
    pub fn post_recv(&self, recvs: &[Recv]) {
        self.try_post_recv(recvs)
            .unwrap_or_else(|(errno, index)| panic!("receive {index} refused: errno {errno}"));
    }

    /// Where its sends complete.
    pub fn send_cq(&self) -> &Cq {
        &self.send_cq
    }

    /// Where its receives complete.
    pub fn recv_cq(&self) -> &Cq {
        &self.recv_cq
    }

    /// Whether it has never left RESET.
    pub fn is_reset(&self) -> bool {
        self.state() == IBV_QPS_RESET
    }
}

fn c_sges(sges: &[Sge]) -> Vec<ibv_sge> {
    sges.iter().map(|sge| ibv_sge { addr: sge.addr, length: sge.len, lkey: sge.lkey }).collect()
}

impl Drop for Qp {
    fn drop(&mut self) {
        // SAFETY: ibv_destroy_qp(3): created in `try_new`, destroyed once.
        let ret = unsafe { (self.pd.lab().verbs().destroy_qp)(self.qp) };
        assert!(ret == 0 || std::thread::panicking(), "ibv_destroy_qp: {ret}");
    }
}
