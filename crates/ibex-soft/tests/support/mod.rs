//! Verbs for the tests: thin wrappers over the device's table and the inline functions of verbs.h.
//!
//! Owns resources that are destroyed in the right order, and their bring-up. A test that wants a verb to fail calls it
//! through [`c!`] itself.
//!
//! # Safety
//! Wrappers keep objects alive for as long as the structures that own them; buffers are leaked to outlive every
//! operation.
#![allow(unsafe_code, dead_code, reason = "each test binary uses a part")]

pub(crate) mod cm;
pub(crate) mod peer;
pub(crate) mod services;

use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ibex_sys::*;

/// One call of a verb.
macro_rules! c {
    ($call:expr) => {{
        // SAFETY: the test's objects are alive, and its buffers outlive every operation.
        #[allow(clippy::multiple_unsafe_ops_per_block, reason = "arguments are read from C structures")]
        unsafe {
            $call
        }
    }};
}

#[allow(unused_imports, reason = "each test binary uses a part")]
pub(crate) use c;

/// The table under test.
pub(crate) fn v() -> &'static Verbs {
    ibex_soft::verbs()
}

/// How long anything may take before a test fails.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// An open device.
pub(crate) struct Context(pub(crate) *mut ibv_context);
// SAFETY: every verb may be called from any thread (ibv_post_send(3): the library is thread-safe).
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    pub(crate) fn open() -> Arc<Context> {
        let list = c!((v().get_device_list)(null_mut()));
        assert!(!list.is_null());
        let context = c!((v().open_device)(*list));
        assert!(!context.is_null(), "open_device: {}", std::io::Error::last_os_error());
        c!((v().free_device_list)(list));
        Arc::new(Context(context))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        assert_eq!(c!((v().close_device)(self.0)), 0);
    }
}

/// A protection domain.
pub(crate) struct Pd(pub(crate) *mut ibv_pd, pub(crate) Arc<Context>);
// SAFETY: as for Context.
unsafe impl Send for Pd {}
// SAFETY: as for Context.
unsafe impl Sync for Pd {}

impl Pd {
    pub(crate) fn alloc(context: &Arc<Context>) -> Arc<Pd> {
        let pd = c!((v().alloc_pd)(context.0));
        assert!(!pd.is_null());
        Arc::new(Pd(pd, context.clone()))
    }
}

impl Drop for Pd {
    fn drop(&mut self) {
        assert_eq!(c!((v().dealloc_pd)(self.0)), 0, "dealloc_pd");
    }
}

/// Registered memory, zeroed at first; touched only by atomic accesses, since the device writes it meanwhile.
pub(crate) struct Mr {
    pub(crate) mr: *mut ibv_mr,
    memory: &'static [AtomicU64],
    len: usize,
    _pd: Arc<Pd>,
}
// SAFETY: as for Context; the memory is atomics.
unsafe impl Send for Mr {}
// SAFETY: as above.
unsafe impl Sync for Mr {}

/// All rights.
pub(crate) const ALL: i32 = 15;
/// Local writing only.
pub(crate) const LOCAL: i32 = 1;

impl Mr {
    pub(crate) fn reg(pd: &Arc<Pd>, len: usize, access: i32) -> Mr {
        let memory: Vec<AtomicU64> = (0..len.div_ceil(8)).map(|_| AtomicU64::new(0)).collect();
        let memory: &'static [AtomicU64] = Vec::leak(memory);
        let mr = c!((v().reg_mr)(pd.0, memory.as_ptr().cast_mut().cast(), len, access));
        assert!(!mr.is_null(), "reg_mr: {}", std::io::Error::last_os_error());
        Mr { mr, memory, len, _pd: pd.clone() }
    }

    /// Memory in a file that other processes may map, of which the device is told; never unmapped.
    pub(crate) fn reg_shared(pd: &Arc<Pd>, len: usize, access: i32) -> Mr {
        let fd = c!(libc::memfd_create(c"test".as_ptr(), libc::MFD_ALLOW_SEALING));
        assert!(fd >= 0 && c!(libc::ftruncate(fd, len as libc::off_t)) == 0, "a file");
        assert_eq!(c!(libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_SHRINK | libc::F_SEAL_GROW)), 0);
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        let base = c!(libc::mmap(null_mut(), len, rights, libc::MAP_SHARED, fd, 0));
        assert_ne!(base, libc::MAP_FAILED);
        let share = v().share_memory.expect("the device's extension");
        assert_eq!(c!(share(base, len, fd, 0)), 0);
        // SAFETY: just mapped, and never unmapped; all accesses to it are atomic ones or the device's.
        let memory = unsafe { std::slice::from_raw_parts(base.cast::<AtomicU64>(), len / 8) };
        let mr = c!((v().reg_mr)(pd.0, base, len, access));
        assert!(!mr.is_null(), "reg_mr: {}", std::io::Error::last_os_error());
        Mr { mr, memory, len, _pd: pd.clone() }
    }

    pub(crate) fn addr(&self) -> u64 {
        self.memory.as_ptr().expose_provenance() as u64
    }

    pub(crate) fn lkey(&self) -> u32 {
        c!((*self.mr).lkey)
    }

    pub(crate) fn rkey(&self) -> u32 {
        c!((*self.mr).rkey)
    }

    pub(crate) fn sge(&self, offset: usize, length: usize) -> ibv_sge {
        ibv_sge { addr: self.addr() + offset as u64, length: length as u32, lkey: self.lkey() }
    }

    pub(crate) fn byte(&self, offset: usize) -> &AtomicU8 {
        assert!(offset < self.len);
        let byte = self.memory.as_ptr().cast_mut().wrapping_byte_add(offset).cast::<u8>();
        // SAFETY: inside the memory by the check, which is never freed; bytes of atomics may be accessed as atomics.
        unsafe { AtomicU8::from_ptr(byte) }
    }

    pub(crate) fn word(&self, index: usize) -> &AtomicU64 {
        &self.memory[index]
    }

    pub(crate) fn fill(&self, range: std::ops::Range<usize>, seed: u64) {
        for offset in range {
            self.byte(offset).store(pattern(seed, offset), Ordering::Relaxed);
        }
    }

    pub(crate) fn clear(&self) {
        for word in self.memory {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// Panics unless `range` holds the pattern that [`Mr::fill`] of the same seed puts at `from`.
    pub(crate) fn check(&self, range: std::ops::Range<usize>, seed: u64, from: usize) {
        for (index, offset) in range.enumerate() {
            let (found, wanted) = (self.byte(offset).load(Ordering::Acquire), pattern(seed, from + index));
            assert_eq!(found, wanted, "byte {offset} (seed {seed})");
        }
    }
}

fn pattern(seed: u64, offset: usize) -> u8 {
    let mixed =
        (seed + 1).wrapping_mul(0x9e37_79b9).wrapping_add(offset as u64).wrapping_mul(0x2545_f491_4f6c_dd1d);
    (mixed >> 32) as u8
}

impl Drop for Mr {
    fn drop(&mut self) {
        assert_eq!(c!((v().dereg_mr)(self.mr)), 0, "dereg_mr");
    }
}

/// A completion channel.
pub(crate) struct Channel(pub(crate) *mut ibv_comp_channel, Arc<Context>);
// SAFETY: as for Context.
unsafe impl Send for Channel {}
// SAFETY: as for Context.
unsafe impl Sync for Channel {}

impl Channel {
    pub(crate) fn create(context: &Arc<Context>) -> Arc<Channel> {
        let channel = c!((v().create_comp_channel)(context.0));
        assert!(!channel.is_null());
        Arc::new(Channel(channel, context.clone()))
    }

    pub(crate) fn fd(&self) -> i32 {
        c!((*self.0).fd)
    }

    pub(crate) fn set_nonblocking(&self) {
        set_nonblocking(self.fd());
    }

    /// The next event's queue; acknowledges it.
    pub(crate) fn get(&self) -> Option<*mut ibv_cq> {
        let (mut cq, mut context) = (null_mut(), null_mut());
        if c!((v().get_cq_event)(self.0, &mut cq, &mut context)) != 0 {
            return None;
        }
        c!((v().ack_cq_events)(cq, 1));
        Some(cq)
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        assert_eq!(c!((v().destroy_comp_channel)(self.0)), 0, "destroy_comp_channel");
    }
}

pub(crate) fn set_nonblocking(fd: i32) {
    let flags = c!(libc::fcntl(fd, libc::F_GETFL));
    assert_eq!(c!(libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK)), 0);
}

/// Whether a descriptor becomes readable within so many milliseconds.
pub(crate) fn readable(fd: i32, ms: i32) -> bool {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    c!(libc::poll(&mut poll, 1, ms)) > 0
}

/// A completion queue.
pub(crate) struct Cq(pub(crate) *mut ibv_cq, Option<Arc<Channel>>, Arc<Context>);
// SAFETY: as for Context.
unsafe impl Send for Cq {}
// SAFETY: as for Context.
unsafe impl Sync for Cq {}

impl Cq {
    pub(crate) fn create(context: &Arc<Context>, cqe: i32, channel: Option<&Arc<Channel>>) -> Arc<Cq> {
        let raw = channel.map_or(null_mut(), |channel| channel.0);
        let cq = c!((v().create_cq)(context.0, cqe, null_mut(), raw, 0));
        assert!(!cq.is_null());
        Arc::new(Cq(cq, channel.cloned(), context.clone()))
    }

    pub(crate) fn poll(&self) -> Option<ibv_wc> {
        let mut wc = ibv_wc::default();
        let count = c!(dispatch::ibv_poll_cq(self.0, 1, &mut wc));
        assert!(count >= 0, "poll_cq: {count}");
        (count == 1).then_some(wc)
    }

    /// The next completion, whatever its status.
    pub(crate) fn wait(&self) -> ibv_wc {
        let start = Instant::now();
        loop {
            if let Some(wc) = self.poll() {
                return wc;
            }
            assert!(start.elapsed() < LIMIT, "no completion");
        }
    }

    /// The next completion, which must be a success.
    pub(crate) fn success(&self) -> ibv_wc {
        let wc = self.wait();
        assert_eq!(wc.status, IBV_WC_SUCCESS, "wr_id {}", wc.wr_id);
        wc
    }

    pub(crate) fn arm(&self, solicited: bool) {
        assert_eq!(c!(dispatch::ibv_req_notify_cq(self.0, i32::from(solicited))), 0);
    }
}

impl Drop for Cq {
    fn drop(&mut self) {
        assert_eq!(c!((v().destroy_cq)(self.0)), 0, "destroy_cq");
    }
}

/// Sizes and attributes of a queue pair.
#[derive(Clone, Copy)]
pub(crate) struct Wish {
    pub(crate) service: ibv_qp_type,
    pub(crate) qkey: u32,
    pub(crate) cap: ibv_qp_cap,
    pub(crate) sig_all: bool,
    pub(crate) access: u32,
    pub(crate) mtu: ibv_mtu,
    pub(crate) timeout: u8,
    pub(crate) retry: u8,
    pub(crate) rnr_retry: u8,
    pub(crate) rnr_timer: u8,
}

impl Default for Wish {
    fn default() -> Wish {
        let cap = ibv_qp_cap {
            max_send_wr: 64,
            max_recv_wr: 64,
            max_send_sge: 4,
            max_recv_sge: 4,
            max_inline_data: 128,
        };
        Wish {
            service: IBV_QPT_RC,
            qkey: 0x1111_2222,
            cap,
            sig_all: false,
            access: 14,
            mtu: IBV_MTU_4096,
            timeout: 14,
            retry: 7,
            rnr_retry: 7,
            rnr_timer: 12,
        }
    }
}

/// What a peer has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) qpn: u32,
    pub(crate) psn: u32,
    pub(crate) gid: [u8; 16],
}

/// A queue pair, reliable unless wished otherwise.
pub(crate) struct Qp {
    pub(crate) qp: *mut ibv_qp,
    pub(crate) pd: Arc<Pd>,
    pub(crate) send: Arc<Cq>,
    pub(crate) recv: Arc<Cq>,
    pub(crate) wish: Wish,
    pub(crate) psn: u32,
    pub(crate) srq: Option<Arc<services::Srq>>,
}
// SAFETY: as for Context.
unsafe impl Send for Qp {}
// SAFETY: as for Context.
unsafe impl Sync for Qp {}

impl Qp {
    /// In INIT.
    pub(crate) fn create(pd: &Arc<Pd>, send: &Arc<Cq>, recv: &Arc<Cq>, wish: Wish) -> Qp {
        Qp::create_on(pd, send, recv, wish, None)
    }

    /// In INIT, with a shared receive queue if one is given.
    pub(crate) fn create_on(
        pd: &Arc<Pd>,
        send: &Arc<Cq>,
        recv: &Arc<Cq>,
        wish: Wish,
        srq: Option<&Arc<services::Srq>>,
    ) -> Qp {
        let mut init = ibv_qp_init_attr {
            send_cq: send.0,
            recv_cq: recv.0,
            cap: wish.cap,
            qp_type: wish.service,
            srq: srq.map_or(null_mut(), |srq| srq.srq),
            sq_sig_all: i32::from(wish.sig_all),
            ..Default::default()
        };
        let qp = c!((v().create_qp)(pd.0, &mut init));
        assert!(!qp.is_null(), "create_qp: {}", std::io::Error::last_os_error());
        // Any 24 bits will do; near the top, so that tests wrap.
        let psn = 0xff_fff0 ^ (c!((*qp).qp_num) & 0xf);
        let qp =
            Qp { qp, pd: pd.clone(), send: send.clone(), recv: recv.clone(), wish, psn, srq: srq.cloned() };
        qp.init();
        qp
    }

    pub(crate) fn init(&self) {
        let mut attr = ibv_qp_attr {
            qp_state: IBV_QPS_INIT,
            port_num: 1,
            qp_access_flags: self.wish.access,
            qkey: self.wish.qkey,
            ..Default::default()
        };
        let rights = if self.wish.service == IBV_QPT_UD { IBV_QP_QKEY } else { IBV_QP_ACCESS_FLAGS };
        let mask = IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | rights;
        self.modify(&mut attr, mask);
    }

    pub(crate) fn modify(&self, attr: &mut ibv_qp_attr, mask: ibv_qp_attr_mask) {
        assert_eq!(self.try_modify(attr, mask), 0, "to {}", attr.qp_state);
    }

    pub(crate) fn try_modify(&self, attr: &mut ibv_qp_attr, mask: ibv_qp_attr_mask) -> i32 {
        c!((v().modify_qp)(self.qp, attr, mask.0 as i32))
    }

    pub(crate) fn num(&self) -> u32 {
        c!((*self.qp).qp_num)
    }

    pub(crate) fn endpoint(&self, gid_index: i32) -> Endpoint {
        let mut gid = ibv_gid { raw: [0; 16] };
        assert_eq!(c!((v().query_gid)(self.pd.1.0, 1, gid_index, &mut gid)), 0);
        Endpoint { qpn: self.num(), psn: self.psn, gid: c!(gid.raw) }
    }

    pub(crate) fn rtr(&self, to: Endpoint) {
        let mut attr = ibv_qp_attr {
            qp_state: IBV_QPS_RTR,
            path_mtu: self.wish.mtu,
            dest_qp_num: to.qpn,
            rq_psn: to.psn,
            max_dest_rd_atomic: 4,
            min_rnr_timer: self.wish.rnr_timer,
            ..Default::default()
        };
        attr.ah_attr.is_global = 1;
        attr.ah_attr.port_num = 1;
        attr.ah_attr.grh.dgid = ibv_gid { raw: to.gid };
        attr.ah_attr.grh.sgid_index = 1;
        attr.ah_attr.grh.hop_limit = 64;
        let connected = IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN;
        let mask = match self.wish.service {
            IBV_QPT_UD => IBV_QP_STATE,
            IBV_QPT_UC => connected,
            _ => connected | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER,
        };
        self.modify(&mut attr, mask);
    }

    pub(crate) fn rts(&self) {
        let mut attr = ibv_qp_attr {
            qp_state: IBV_QPS_RTS,
            sq_psn: self.psn,
            timeout: self.wish.timeout,
            retry_cnt: self.wish.retry,
            rnr_retry: self.wish.rnr_retry,
            max_rd_atomic: 4,
            ..Default::default()
        };
        let mask = IBV_QP_STATE | IBV_QP_SQ_PSN;
        let mask = if self.wish.service == IBV_QPT_RC {
            mask | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC
        } else {
            mask
        };
        self.modify(&mut attr, mask);
    }

    pub(crate) fn connect(&self, to: Endpoint) {
        self.rtr(to);
        self.rts();
    }

    pub(crate) fn to(&self, state: ibv_qp_state) {
        self.modify(&mut ibv_qp_attr { qp_state: state, ..Default::default() }, IBV_QP_STATE);
    }

    pub(crate) fn query(&self) -> (ibv_qp_attr, ibv_qp_init_attr) {
        let (mut attr, mut init) = (ibv_qp_attr::default(), ibv_qp_init_attr::default());
        assert_eq!(c!((v().query_qp)(self.qp, &mut attr, -1, &mut init)), 0);
        (attr, init)
    }

    pub(crate) fn state(&self) -> ibv_qp_state {
        self.query().0.qp_state
    }

    pub(crate) fn try_post(&self, wr: &mut ibv_send_wr) -> i32 {
        let mut bad = null_mut();
        let code = c!(dispatch::ibv_post_send(self.qp, wr, &mut bad));
        assert_eq!(code != 0, !bad.is_null());
        code
    }

    pub(crate) fn post(&self, wr: &mut ibv_send_wr) {
        assert_eq!(self.try_post(wr), 0, "post_send");
    }

    pub(crate) fn try_recv(&self, wr_id: u64, sges: &mut [ibv_sge]) -> i32 {
        let mut wr =
            ibv_recv_wr { wr_id, next: null_mut(), sg_list: sges.as_mut_ptr(), num_sge: sges.len() as i32 };
        let mut bad = null_mut();
        c!(dispatch::ibv_post_recv(self.qp, &mut wr, &mut bad))
    }

    pub(crate) fn recv(&self, wr_id: u64, sge: ibv_sge) {
        assert_eq!(self.try_recv(wr_id, &mut [sge]), 0, "post_recv");
    }

    /// Posts a signalled request of any kind.
    pub(crate) fn run(
        &self,
        opcode: ibv_wr_opcode,
        wr_id: u64,
        sges: &mut [ibv_sge],
        change: impl FnOnce(&mut ibv_send_wr),
    ) {
        let mut wr = wr(opcode, wr_id, sges);
        change(&mut wr);
        self.post(&mut wr);
    }

    pub(crate) fn send_one(&self, wr_id: u64, sge: ibv_sge) {
        self.run(IBV_WR_SEND, wr_id, &mut [sge], |_| ());
    }

    pub(crate) fn rdma(&self, opcode: ibv_wr_opcode, wr_id: u64, sge: ibv_sge, addr: u64, rkey: u32) {
        self.run(opcode, wr_id, &mut [sge], |wr| {
            wr.wr.rdma = ibv_send_wr_rdma { remote_addr: addr, rkey };
        });
    }
}

/// A signalled request.
pub(crate) fn wr(opcode: ibv_wr_opcode, wr_id: u64, sges: &mut [ibv_sge]) -> ibv_send_wr {
    ibv_send_wr {
        wr_id,
        sg_list: sges.as_mut_ptr(),
        num_sge: sges.len() as i32,
        opcode,
        send_flags: IBV_SEND_SIGNALED.0,
        ..Default::default()
    }
}

impl Drop for Qp {
    fn drop(&mut self) {
        assert_eq!(c!((v().destroy_qp)(self.qp)), 0, "destroy_qp");
    }
}

/// Two connected queue pairs of one process, with a queue and memory each.
pub(crate) struct Pair {
    pub(crate) a: Qp,
    pub(crate) b: Qp,
    pub(crate) am: Mr,
    pub(crate) bm: Mr,
}

impl Pair {
    pub(crate) fn with(wish: Wish, bytes: usize) -> Pair {
        let context = Context::open();
        let pd = Pd::alloc(&context);
        let (acq, bcq) = (Cq::create(&context, 256, None), Cq::create(&context, 256, None));
        let a = Qp::create(&pd, &acq, &acq, wish);
        let b = Qp::create(&pd, &bcq, &bcq, wish);
        a.connect(b.endpoint(1));
        b.connect(a.endpoint(1));
        let (am, bm) = (Mr::reg(&pd, bytes, ALL), Mr::reg(&pd, bytes, ALL));
        Pair { a, b, am, bm }
    }

    pub(crate) fn new() -> Pair {
        Pair::with(Wish::default(), 1 << 20)
    }
}
