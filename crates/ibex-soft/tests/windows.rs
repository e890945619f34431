//! Memory windows through the C interface: both types, what a peer can do through them, and how they end.
#![allow(unsafe_code)]

mod support;

use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ibex_sys::*;
use support::*;

/// Rights of a region that windows can be bound to.
const BINDABLE: i32 = (IBV_ACCESS_LOCAL_WRITE.0 | IBV_ACCESS_MW_BIND.0) as i32;
const WRITE: u32 = IBV_ACCESS_REMOTE_WRITE.0;
const READ: u32 = IBV_ACCESS_REMOTE_READ.0;
const ATOMIC: u32 = IBV_ACCESS_REMOTE_ATOMIC.0;

/// A memory window.
struct Mw(*mut ibv_mw, #[allow(dead_code, reason = "kept alive as long as the window")] Arc<Pd>);

impl Mw {
    fn alloc(pd: &Arc<Pd>, kind: ibv_mw_type) -> Mw {
        let mw = c!(dispatch::ibv_alloc_mw(pd.0, kind));
        assert!(!mw.is_null(), "alloc_mw: {}", std::io::Error::last_os_error());
        Mw(mw, pd.clone())
    }

    fn rkey(&self) -> u32 {
        c!((*self.0).rkey)
    }

    fn next(&self) -> u32 {
        dispatch::ibv_inc_rkey(self.rkey())
    }

    /// Notes the key a type 2 window has been given.
    fn set(&self, rkey: u32) {
        c!((*self.0).rkey = rkey);
    }
}

impl Drop for Mw {
    fn drop(&mut self) {
        assert_eq!(c!(dispatch::ibv_dealloc_mw(self.0)), 0, "dealloc_mw");
    }
}

fn info(region: &Mr, offset: u64, length: u64, rights: u32) -> ibv_mw_bind_info {
    ibv_mw_bind_info { mr: region.mr, addr: region.addr() + offset, length, mw_access_flags: rights }
}

/// Posts the bind of a type 2 window.
fn post_bind(qp: &Qp, wr_id: u64, mw: &Mw, rkey: u32, info: ibv_mw_bind_info) {
    qp.run(IBV_WR_BIND_MW, wr_id, &mut [], |wr| {
        wr.tail = ibv_send_wr_tail { bind_mw: ibv_send_wr_bind_mw { mw: mw.0, rkey, bind_info: info } };
    });
}

/// Binds a type 2 window under its next key.
fn bind(qp: &Qp, mw: &Mw, info: ibv_mw_bind_info) -> u32 {
    let rkey = mw.next();
    post_bind(qp, 1, mw, rkey, info);
    let wc = qp.send.success();
    assert_eq!((wc.wr_id, wc.opcode), (1, IBV_WC_BIND_MW));
    mw.set(rkey);
    rkey
}

/// Binds a type 1 window.
fn bind1(qp: &Qp, mw: &Mw, info: ibv_mw_bind_info) -> u32 {
    let mut wish = ibv_mw_bind { wr_id: 2, send_flags: IBV_SEND_SIGNALED.0, bind_info: info };
    let before = mw.rkey();
    assert_eq!(c!(dispatch::ibv_bind_mw(qp.qp, mw.0, &mut wish)), 0);
    assert_ne!(mw.rkey(), before, "a bind gives a new key");
    assert_eq!(mw.rkey() >> 8, before >> 8);
    let wc = qp.send.success();
    assert_eq!((wc.wr_id, wc.opcode), (2, IBV_WC_BIND_MW));
    mw.rkey()
}

fn invalidate(qp: &Qp, rkey: u32) {
    qp.run(IBV_WR_LOCAL_INV, 3, &mut [], |wr| wr.imm = ibv_send_wr_imm { invalidate_rkey: rkey });
}

fn pair() -> Pair {
    Pair::with(Wish { timeout: 12, retry: 3, ..Wish::default() }, 1 << 16)
}

/// A region of the second end that only windows open to the first.
fn region(pair: &Pair) -> Mr {
    Mr::reg(&pair.b.pd, 1 << 16, BINDABLE)
}

/// Another pair between the same ends: the first has failed.
fn again(pair: &Pair) -> (Qp, Qp) {
    let wish = pair.a.wish;
    let a = Qp::create(&pair.a.pd, &pair.a.send, &pair.a.recv, wish);
    let b = Qp::create(&pair.b.pd, &pair.b.send, &pair.b.recv, wish);
    a.connect(b.endpoint(1));
    b.connect(a.endpoint(1));
    (a, b)
}

/// Writes through a key, and expects this status.
fn write(from: &Qp, memory: &Mr, to: u64, rkey: u32, status: ibv_wc_status) {
    from.rdma(IBV_WR_RDMA_WRITE, 7, memory.sge(0, 64), to, rkey);
    let wc = from.send.wait();
    assert_eq!((wc.wr_id, wc.status), (7, status));
}

#[test]
fn a_peer_writes_reads_and_adds_through_a_window() {
    for kind in [IBV_MW_TYPE_1, IBV_MW_TYPE_2] {
        let pair = pair();
        let region = region(&pair);
        let mw = Mw::alloc(&pair.b.pd, kind);
        let wish = info(&region, 4096, 20_000, WRITE | READ | ATOMIC);
        let rkey = if kind == IBV_MW_TYPE_1 { bind1(&pair.b, &mw, wish) } else { bind(&pair.b, &mw, wish) };
        pair.am.fill(0..20_000, 1);
        let at = region.addr() + 4096;
        pair.a.rdma(IBV_WR_RDMA_WRITE, 1, pair.am.sge(0, 20_000), at, rkey);
        assert_eq!(pair.a.send.success().wr_id, 1);
        region.check(4096..24_096, 1, 0);
        pair.a.rdma(IBV_WR_RDMA_READ, 2, pair.am.sge(32_768, 20_000), at, rkey);
        assert_eq!(pair.a.send.success().wr_id, 2);
        pair.am.check(32_768..52_768, 1, 0);
        let before = region.word(512).load(Ordering::Relaxed);
        pair.a.run(IBV_WR_ATOMIC_FETCH_AND_ADD, 3, &mut [pair.am.sge(0, 8)], |wr| {
            wr.wr.atomic = ibv_send_wr_atomic { remote_addr: at, rkey, compare_add: 5, swap: 0 };
        });
        assert_eq!(pair.a.send.success().wr_id, 3);
        assert_eq!(region.word(512).load(Ordering::Relaxed), before.wrapping_add(5));
        assert_eq!(pair.am.word(0).load(Ordering::Relaxed), before);
        // Not one byte beyond.
        write(&pair.a, &pair.am, at + 20_000 - 63, rkey, IBV_WC_REM_ACCESS_ERR);
        drop(mw);
    }
}

#[test]
fn rights_and_keys_are_those_of_the_bind() {
    let pair = pair();
    let region = region(&pair);
    let mw = Mw::alloc(&pair.b.pd, IBV_MW_TYPE_2);
    let unbound = mw.rkey();
    let rkey = bind(&pair.b, &mw, info(&region, 0, 64, READ));
    let at = region.addr();
    write(&pair.a, &pair.am, at, rkey, IBV_WC_REM_ACCESS_ERR);
    let (a, b) = again(&pair);
    write(&a, &pair.am, at, unbound, IBV_WC_REM_ACCESS_ERR);
    // The window belongs to the first queue pair, also for a peer that knows its key.
    let (a, _b) = (again(&pair).0, b);
    a.rdma(IBV_WR_RDMA_READ, 7, pair.am.sge(0, 64), at, rkey);
    assert_ne!(a.send.wait().status, IBV_WC_SUCCESS);
    // Nor is the region's own key good for anything.
    let (a, _b) = again(&pair);
    write(&a, &pair.am, at, region.rkey(), IBV_WC_REM_ACCESS_ERR);
}

#[test]
fn a_zero_based_window_is_addressed_from_zero() {
    let pair = pair();
    let region = region(&pair);
    let mw = Mw::alloc(&pair.b.pd, IBV_MW_TYPE_2);
    let rights = WRITE | IBV_ACCESS_ZERO_BASED.0;
    let rkey = bind(&pair.b, &mw, info(&region, 1000, 64, rights));
    pair.am.fill(0..64, 4);
    write(&pair.a, &pair.am, 0, rkey, IBV_WC_SUCCESS);
    region.check(1000..1064, 4, 0);
    write(&pair.a, &pair.am, region.addr() + 1000, rkey, IBV_WC_REM_ACCESS_ERR);
}

#[test]
fn a_local_invalidation_takes_the_right_away_and_the_window_can_be_bound_again() {
    let pair = pair();
    let region = region(&pair);
    let mw = Mw::alloc(&pair.b.pd, IBV_MW_TYPE_2);
    let first = bind(&pair.b, &mw, info(&region, 0, 64, WRITE));
    write(&pair.a, &pair.am, region.addr(), first, IBV_WC_SUCCESS);
    assert_eq!(c!((v().dereg_mr)(region.mr)), libc::EBUSY, "a window is bound to it");
    invalidate(&pair.b, first);
    let wc = pair.b.send.success();
    assert_eq!((wc.wr_id, wc.opcode), (3, IBV_WC_LOCAL_INV));
    let second = bind(&pair.b, &mw, info(&region, 128, 64, WRITE));
    assert_eq!(second, dispatch::ibv_inc_rkey(first));
    write(&pair.a, &pair.am, region.addr() + 128, second, IBV_WC_SUCCESS);
    write(&pair.a, &pair.am, region.addr(), first, IBV_WC_REM_ACCESS_ERR);
}

#[test]
fn a_peer_invalidates_with_its_send() {
    let pair = pair();
    let region = region(&pair);
    let mw = Mw::alloc(&pair.b.pd, IBV_MW_TYPE_2);
    let rkey = bind(&pair.b, &mw, info(&region, 0, 64, WRITE));
    pair.b.recv(9, pair.bm.sge(0, 64));
    // The WRITE before it is still allowed.
    pair.a.rdma(IBV_WR_RDMA_WRITE, 1, pair.am.sge(0, 64), region.addr(), rkey);
    pair.a.run(IBV_WR_SEND_WITH_INV, 2, &mut [pair.am.sge(0, 10)], |wr| {
        wr.imm = ibv_send_wr_imm { invalidate_rkey: rkey };
    });
    assert_eq!([pair.a.send.success().wr_id, pair.a.send.success().wr_id], [1, 2]);
    let wc = pair.b.recv.success();
    assert_eq!((wc.wr_id, wc.byte_len, wc.wc_flags), (9, 10, IBV_WC_WITH_INV.0));
    assert_eq!(c!(wc.imm.invalidated_rkey), rkey);
    write(&pair.a, &pair.am, region.addr(), rkey, IBV_WC_REM_ACCESS_ERR);
    // It frees the region, and the window can be bound again.
    let (_a, b) = again(&pair);
    bind(&b, &mw, info(&region, 0, 64, WRITE));
}

#[test]
fn a_peer_cannot_invalidate_what_is_not_its_own() {
    let pair = pair();
    let region = region(&pair);
    let (a, b) = again(&pair);
    let mw = Mw::alloc(&pair.b.pd, IBV_MW_TYPE_2);
    let type1 = Mw::alloc(&pair.b.pd, IBV_MW_TYPE_1);
    let rkey = bind(&pair.b, &mw, info(&region, 0, 64, WRITE));
    let shared = bind1(&pair.b, &type1, info(&region, 0, 64, WRITE));
    let mut ends = vec![(a, b)];
    for (index, key) in [rkey, shared, region.rkey(), pair.bm.rkey(), 0].into_iter().enumerate() {
        let (a, b) = &ends[index];
        b.recv(9, pair.bm.sge(0, 64));
        a.run(IBV_WR_SEND_WITH_INV, 2, &mut [pair.am.sge(0, 10)], |wr| {
            wr.imm = ibv_send_wr_imm { invalidate_rkey: key };
        });
        assert_ne!(a.send.wait().status, IBV_WC_SUCCESS, "key {index}");
        assert_ne!(b.recv.wait().status, IBV_WC_SUCCESS);
        ends.push(again(&pair));
    }
    write(&pair.a, &pair.am, region.addr(), rkey, IBV_WC_SUCCESS);
    write(&pair.a, &pair.am, region.addr(), shared, IBV_WC_SUCCESS);
}

#[test]
fn a_type_1_window_moves_when_bound_again_and_serves_every_queue_pair() {
    let pair = pair();
    let region = region(&pair);
    let (a, b) = again(&pair);
    let mw = Mw::alloc(&pair.b.pd, IBV_MW_TYPE_1);
    let first = bind1(&pair.b, &mw, info(&region, 0, 64, WRITE));
    write(&a, &pair.am, region.addr(), first, IBV_WC_SUCCESS);
    let second = bind1(&b, &mw, info(&region, 64, 64, WRITE));
    write(&pair.a, &pair.am, region.addr() + 64, second, IBV_WC_SUCCESS);
    write(&pair.a, &pair.am, region.addr(), first, IBV_WC_REM_ACCESS_ERR);
    // Bound to nothing.
    let none = ibv_mw_bind_info { mr: null_mut(), addr: 0, length: 0, mw_access_flags: 0 };
    let third = bind1(&b, &mw, none);
    write(&a, &pair.am, region.addr() + 64, third, IBV_WC_REM_ACCESS_ERR);
    drop(region);
}

#[test]
fn binds_that_are_not_allowed_fail_and_say_so() {
    let pair = pair();
    let region = region(&pair);
    let plain = Mr::reg(&pair.b.pd, 4096, ALL);
    let read_only = Mr::reg(&pair.b.pd, 4096, IBV_ACCESS_MW_BIND.0 as i32);
    let elsewhere = Pd::alloc(&pair.b.pd.1);
    let foreign = Mr::reg(&elsewhere, 4096, BINDABLE);
    let mw = Mw::alloc(&pair.b.pd, IBV_MW_TYPE_2);
    let mut ends = Vec::new();
    let wishes = [
        ("no right to bind", info(&plain, 0, 64, WRITE)),
        ("no local right", info(&read_only, 0, 64, WRITE)),
        ("another domain", info(&foreign, 0, 64, WRITE)),
        ("beyond the end", info(&region, (1 << 16) - 32, 64, WRITE)),
        ("nothing", ibv_mw_bind_info { length: 0, ..info(&region, 0, 0, WRITE) }),
        ("a local right", info(&region, 0, 64, IBV_ACCESS_LOCAL_WRITE.0)),
    ];
    for (what, wish) in wishes {
        ends.push(again(&pair));
        let (_, b) = &ends[ends.len() - 1];
        post_bind(b, 1, &mw, mw.next(), wish);
        let wc = b.send.wait();
        assert_eq!((wc.wr_id, wc.status), (1, IBV_WC_MW_BIND_ERR), "{what}");
        assert_eq!(b.state(), IBV_QPS_ERR);
    }
    // Bound already; a key of another window; the wrong kind at once.
    let rkey = bind(&pair.b, &mw, info(&region, 0, 64, WRITE));
    let (_a, b) = again(&pair);
    post_bind(&b, 1, &mw, mw.next(), info(&region, 0, 64, WRITE));
    assert_eq!(b.send.wait().status, IBV_WC_MW_BIND_ERR);
    let (_a, b) = again(&pair);
    let other = Mw::alloc(&pair.b.pd, IBV_MW_TYPE_2);
    post_bind(&b, 1, &other, mw.next(), info(&region, 0, 64, WRITE));
    assert_eq!(b.send.wait().status, IBV_WC_MW_BIND_ERR);
    let type1 = Mw::alloc(&pair.b.pd, IBV_MW_TYPE_1);
    let (_a, b) = again(&pair);
    let mut request = wr(IBV_WR_BIND_MW, 1, &mut []);
    request.tail = ibv_send_wr_tail {
        bind_mw: ibv_send_wr_bind_mw {
            mw: type1.0,
            rkey: type1.next(),
            bind_info: info(&region, 0, 64, WRITE),
        },
    };
    assert_eq!(b.try_post(&mut request), libc::EINVAL);
    assert_eq!(c!((v().reg_mr)(null_mut(), null_mut(), 0, 0)), null_mut());
    assert!(c!(dispatch::ibv_alloc_mw(pair.b.pd.0, ibv_mw_type(3))).is_null());
    write(&pair.a, &pair.am, region.addr(), rkey, IBV_WC_SUCCESS);
}

#[test]
fn the_end_of_window_queue_pair_or_domain_ends_the_right() {
    let pair = pair();
    let region = region(&pair);
    // Freed while bound.
    let mw = Mw::alloc(&pair.b.pd, IBV_MW_TYPE_2);
    let rkey = bind(&pair.b, &mw, info(&region, 0, 64, WRITE));
    drop(mw);
    write(&pair.a, &pair.am, region.addr(), rkey, IBV_WC_REM_ACCESS_ERR);
    // The queue pair reset, or destroyed: the region is free, and the window too.
    let mw = Mw::alloc(&pair.b.pd, IBV_MW_TYPE_2);
    let (_a, b) = again(&pair);
    bind(&b, &mw, info(&region, 0, 64, WRITE));
    b.to(IBV_QPS_RESET);
    let (_a2, b2) = again(&pair);
    bind(&b2, &mw, info(&region, 0, 64, WRITE));
    assert_eq!(c!((v().dereg_mr)(region.mr)), libc::EBUSY);
    let mut flags = IBV_REREG_MR_CHANGE_ACCESS.0 as i32;
    assert_ne!(c!((v().rereg_mr)(region.mr, flags, null_mut(), null_mut(), 0, 1)), 0);
    drop(b2);
    flags = IBV_REREG_MR_CHANGE_ACCESS.0 as i32;
    assert_eq!(c!((v().rereg_mr)(region.mr, flags, null_mut(), null_mut(), 0, BINDABLE)), 0);
    // The domain is in use by its window.
    assert_eq!(c!((v().dealloc_pd)(pair.b.pd.0)), libc::EBUSY);
}

#[test]
fn requests_behind_a_bind_use_it() {
    // Bind, then tell the peer, in one list: the peer's access finds the window bound.
    let pair = pair();
    let region = region(&pair);
    let mw = Mw::alloc(&pair.b.pd, IBV_MW_TYPE_2);
    for round in 0..20u64 {
        pair.a.recv(round, pair.am.sge(4096, 64));
        let rkey = mw.next();
        let mut sge = [pair.bm.sge(0, 8)];
        let mut send = wr(IBV_WR_SEND, 100 + round, &mut sge);
        let mut request = wr(IBV_WR_BIND_MW, 200 + round, &mut []);
        let bind_info = info(&region, 64 * round, 64, WRITE);
        request.tail = ibv_send_wr_tail { bind_mw: ibv_send_wr_bind_mw { mw: mw.0, rkey, bind_info } };
        request.next = &mut send;
        pair.b.post(&mut request);
        mw.set(rkey);
        assert_eq!(pair.a.recv.success().wr_id, round);
        pair.am.fill(0..64, round);
        write(&pair.a, &pair.am, region.addr() + 64 * round, rkey, IBV_WC_SUCCESS);
        region.check(64 * round as usize..64 * round as usize + 64, round, 0);
        assert_eq!([pair.b.send.success().wr_id, pair.b.send.success().wr_id], [200 + round, 100 + round]);
        invalidate(&pair.b, rkey);
        assert_eq!(pair.b.send.success().wr_id, 3);
    }
}

#[test]
fn the_device_reports_windows_and_gives_each_its_own_key() {
    let pair = pair();
    let mut attr = ibv_device_attr::default();
    assert_eq!(c!((v().query_device)(pair.a.pd.1.0, &mut attr)), 0);
    assert!(attr.max_mw > 0);
    let flags = (IBV_DEVICE_MEM_WINDOW | IBV_DEVICE_MEM_WINDOW_TYPE_2B).0;
    assert_eq!(attr.device_cap_flags & flags, flags);
    assert_eq!(attr.device_cap_flags & IBV_DEVICE_MEM_WINDOW_TYPE_2A.0, 0);
    let many: Vec<Mw> = (0..100).map(|_| Mw::alloc(&pair.a.pd, IBV_MW_TYPE_2)).collect();
    let mut keys: Vec<u32> = many.iter().map(|mw| mw.rkey() >> 8).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 100);
}

#[test]
fn a_failed_local_invalidation_is_an_error_of_the_request() {
    let pair = pair();
    let region = region(&pair);
    let mw = Mw::alloc(&pair.b.pd, IBV_MW_TYPE_2);
    for key in [mw.rkey(), region.rkey(), 0] {
        let (_a, b) = again(&pair);
        invalidate(&b, key);
        let wc = b.send.wait();
        assert_eq!((wc.wr_id, wc.status), (3, IBV_WC_MW_BIND_ERR));
    }
}

#[test]
fn an_unreliable_connection_has_windows_too() {
    let wish = Wish { service: IBV_QPT_UC, ..Wish::default() };
    let pair = Pair::with(wish, 1 << 16);
    let region = region(&pair);
    let mw = Mw::alloc(&pair.b.pd, IBV_MW_TYPE_2);
    let rkey = bind(&pair.b, &mw, info(&region, 0, 64, WRITE));
    pair.am.fill(0..64, 8);
    let write = |wr_id: u64| {
        pair.a.run(IBV_WR_RDMA_WRITE_WITH_IMM, wr_id, &mut [pair.am.sge(0, 64)], |wr| {
            wr.wr.rdma = ibv_send_wr_rdma { remote_addr: region.addr(), rkey };
        });
        assert_eq!(pair.a.send.success().wr_id, wr_id, "an unreliable sender learns nothing");
    };
    pair.b.recv(1, pair.bm.sge(0, 8));
    write(1);
    assert_eq!(pair.b.recv.success().wr_id, 1);
    region.check(0..64, 8, 0);
    invalidate(&pair.b, rkey);
    assert_eq!(pair.b.send.success().opcode, IBV_WC_LOCAL_INV);
    pair.am.fill(0..64, 9);
    write(2);
    // Nothing is stored; a loop-back packet takes microseconds.
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert!(pair.b.recv.poll().is_none_or(|wc| wc.status != IBV_WC_SUCCESS));
    region.check(0..64, 8, 0);
}

/// One end of the test between two processes; the first owns the memory.
fn process(link: &mut peer::Link, first: bool) {
    let context = Context::open();
    let pd = Pd::alloc(&context);
    let cq = Cq::create(&context, 64, None);
    let qp = Qp::create(&pd, &cq, &cq, Wish { timeout: 12, retry: 3, ..Wish::default() });
    let memory = Mr::reg(&pd, 1 << 16, BINDABLE | IBV_ACCESS_REMOTE_WRITE.0 as i32);
    let other = link.exchange(qp.endpoint(1));
    qp.connect(other);
    link.meet();
    if first {
        let mw = Mw::alloc(&pd, IBV_MW_TYPE_2);
        for round in 0..10 {
            let rkey = bind(&qp, &mw, info(&memory, 64 * round, 64, WRITE | READ));
            link.put(memory.addr() + 64 * round);
            link.put(u64::from(rkey));
            link.meet();
            memory.check(64 * round as usize..64 * round as usize + 64, round, 0);
            invalidate(&qp, rkey);
            assert_eq!(cq.success().opcode, IBV_WC_LOCAL_INV);
            link.meet();
        }
        link.meet();
    } else {
        let (mut at, mut rkey) = (0, 0);
        for round in 0..10 {
            (at, rkey) = (link.take(), link.take() as u32);
            memory.fill(0..64, round);
            write(&qp, &memory, at, rkey, IBV_WC_SUCCESS);
            link.meet();
            link.meet();
        }
        memory.fill(0..64, 99);
        write(&qp, &memory, at, rkey, IBV_WC_REM_ACCESS_ERR);
        link.meet();
    }
}

#[test]
fn windows_between_processes() {
    match peer::second() {
        Some(mut link) => process(&mut link, false),
        None => {
            let mut other = peer::start("windows_between_processes");
            process(&mut other.link, true);
            other.join();
        }
    }
}
