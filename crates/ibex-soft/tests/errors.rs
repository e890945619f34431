//! What goes wrong, and with which status: access, bounds, receivers not ready, peers gone, queues full.

#![allow(unsafe_code)]

mod support;

use std::time::Duration;

use ibex_sys::*;
use support::*;

/// Both ends in ERR, everything posted after the failure flushed.
fn expect_failure(pair: &Pair, status: ibv_wc_status, responder_error: bool) {
    let failed = pair.a.send.wait();
    assert_eq!(failed.status, status);
    assert_eq!(pair.a.state(), IBV_QPS_ERR);
    pair.a.send_one(77, pair.am.sge(0, 8));
    let flushed = pair.a.send.wait();
    assert_eq!((flushed.wr_id, flushed.status), (77, IBV_WC_WR_FLUSH_ERR));
    pair.a.recv(78, pair.am.sge(0, 8));
    let flushed = pair.a.recv.wait();
    assert_eq!((flushed.wr_id, flushed.status), (78, IBV_WC_WR_FLUSH_ERR));
    assert_eq!(pair.b.state() == IBV_QPS_ERR, responder_error);
}

fn fast() -> Wish {
    // 4.096 µs · 2^12 = 17 ms, tried three times.
    Wish { timeout: 12, retry: 2, rnr_retry: 2, rnr_timer: 1, ..Wish::default() }
}

#[test]
fn remote_accesses_are_checked() {
    type Violation = fn(&Pair) -> (ibv_wr_opcode, u64, u32);
    let violations: [(&str, Violation); 6] = [
        ("wrong key", |pair| (IBV_WR_RDMA_WRITE, pair.bm.addr(), pair.bm.rkey() ^ 0x8000)),
        ("local key", |pair| (IBV_WR_RDMA_WRITE, pair.bm.addr(), pair.bm.lkey())),
        ("beyond the end", |pair| (IBV_WR_RDMA_WRITE, pair.bm.addr() + 4096 - 63, pair.bm.rkey())),
        ("before the start", |pair| (IBV_WR_RDMA_READ, pair.bm.addr() - 1, pair.bm.rkey())),
        ("round the end of the address space", |pair| (IBV_WR_RDMA_READ, u64::MAX - 8, pair.bm.rkey())),
        ("own key", |pair| (IBV_WR_RDMA_READ, pair.bm.addr(), pair.am.rkey())),
    ];
    for (what, violation) in violations {
        let pair = Pair::with(Wish::default(), 4096);
        let (opcode, addr, rkey) = violation(&pair);
        println!("{what}");
        pair.a.rdma(opcode, 1, pair.am.sge(0, 64), addr, rkey);
        expect_failure(&pair, IBV_WC_REM_ACCESS_ERR, true);
    }
}

#[test]
fn rights_of_regions_and_queue_pairs_are_checked() {
    let opcodes = [
        (IBV_WR_RDMA_WRITE, IBV_ACCESS_REMOTE_WRITE),
        (IBV_WR_RDMA_READ, IBV_ACCESS_REMOTE_READ),
        (IBV_WR_ATOMIC_FETCH_AND_ADD, IBV_ACCESS_REMOTE_ATOMIC),
    ];
    for (opcode, right) in opcodes {
        for queue_pair in [false, true] {
            let all = 14;
            let wish = Wish { access: if queue_pair { all & !right.0 } else { all }, ..Wish::default() };
            let pair = Pair::with(wish, 4096);
            let rights = if queue_pair { ALL } else { ALL & !(right.0 as i32) };
            let target = Mr::reg(&pair.b.pd, 64, rights);
            pair.a.run(opcode, 1, &mut [pair.am.sge(0, 8)], |wr| {
                if opcode == IBV_WR_ATOMIC_FETCH_AND_ADD {
                    wr.wr.atomic = ibv_send_wr_atomic {
                        remote_addr: target.addr(),
                        rkey: target.rkey(),
                        ..Default::default()
                    };
                } else {
                    wr.wr.rdma = ibv_send_wr_rdma { remote_addr: target.addr(), rkey: target.rkey() };
                }
            });
            // A service that the queue pair does not offer at all is an invalid request (IBTA 9.7.5.1.2, table 56).
            let status = pair.a.send.wait().status;
            let expected: &[ibv_wc_status] = if queue_pair {
                &[IBV_WC_REM_INV_REQ_ERR, IBV_WC_REM_ACCESS_ERR]
            } else {
                &[IBV_WC_REM_ACCESS_ERR]
            };
            assert!(expected.contains(&status), "{opcode} {queue_pair}: {status}");
            assert_eq!(target.word(0).load(std::sync::atomic::Ordering::Relaxed), 0);
        }
    }
}

#[test]
fn a_deregistered_key_is_dead() {
    let pair = Pair::new();
    let target = Mr::reg(&pair.b.pd, 64, ALL);
    let (addr, rkey) = (target.addr(), target.rkey());
    pair.a.rdma(IBV_WR_RDMA_WRITE, 1, pair.am.sge(0, 64), addr, rkey);
    pair.a.send.success();
    drop(target);
    pair.a.rdma(IBV_WR_RDMA_WRITE, 2, pair.am.sge(0, 64), addr, rkey);
    expect_failure(&pair, IBV_WC_REM_ACCESS_ERR, true);
}

#[test]
fn a_key_of_another_protection_domain_is_refused() {
    let pair = Pair::new();
    let stranger = Pd::alloc(&pair.b.pd.1);
    let target = Mr::reg(&stranger, 64, ALL);
    pair.a.rdma(IBV_WR_RDMA_WRITE, 2, pair.am.sge(0, 64), target.addr(), target.rkey());
    expect_failure(&pair, IBV_WC_REM_ACCESS_ERR, true);
}

#[test]
fn an_unaligned_atomic_is_an_invalid_request() {
    let pair = Pair::new();
    pair.a.run(IBV_WR_ATOMIC_FETCH_AND_ADD, 1, &mut [pair.am.sge(0, 8)], |wr| {
        let (remote_addr, rkey) = (pair.bm.addr() + 4, pair.bm.rkey());
        wr.wr.atomic = ibv_send_wr_atomic { remote_addr, rkey, ..Default::default() };
    });
    expect_failure(&pair, IBV_WC_REM_INV_REQ_ERR, true);
}

#[test]
fn local_protection_is_checked() {
    let pair = Pair::new();
    let mut sge = pair.am.sge(0, 64);
    sge.lkey ^= 0x4000;
    pair.a.send_one(1, sge);
    expect_failure(&pair, IBV_WC_LOC_PROT_ERR, false);

    // Without the right to write locally, a READ cannot store.
    let pair = Pair::new();
    let readonly = Mr::reg(&pair.a.pd, 64, 0);
    pair.a.rdma(IBV_WR_RDMA_READ, 1, readonly.sge(0, 64), pair.bm.addr(), pair.bm.rkey());
    expect_failure(&pair, IBV_WC_LOC_PROT_ERR, false);
}

#[test]
fn a_receive_that_cannot_be_stored_fails_both_ends() {
    let pair = Pair::new();
    let readonly = Mr::reg(&pair.b.pd, 64, 0);
    pair.b.recv(5, readonly.sge(0, 64));
    pair.b.recv(6, pair.bm.sge(0, 64));
    pair.a.send_one(1, pair.am.sge(0, 64));
    assert_eq!(pair.a.send.wait().status, IBV_WC_REM_OP_ERR);
    let wc = pair.b.recv.wait();
    assert_eq!((wc.wr_id, wc.status), (5, IBV_WC_LOC_PROT_ERR));
    let wc = pair.b.recv.wait();
    assert_eq!((wc.wr_id, wc.status), (6, IBV_WC_WR_FLUSH_ERR));
}

#[test]
fn a_receive_that_is_too_short_fails_both_ends() {
    let pair = Pair::new();
    pair.b.recv(5, pair.bm.sge(0, 63));
    pair.a.send_one(1, pair.am.sge(0, 64));
    assert_eq!(pair.a.send.wait().status, IBV_WC_REM_INV_REQ_ERR);
    assert_eq!(pair.b.recv.wait().status, IBV_WC_LOC_LEN_ERR);
    assert_eq!((pair.a.state(), pair.b.state()), (IBV_QPS_ERR, IBV_QPS_ERR));
}

#[test]
fn without_a_receive_the_sender_retries_and_gives_up() {
    let pair = Pair::with(fast(), 4096);
    pair.a.send_one(1, pair.am.sge(0, 64));
    expect_failure(&pair, IBV_WC_RNR_RETRY_EXC_ERR, false);
}

#[test]
fn a_receive_that_comes_late_is_waited_for() {
    let pair = Pair::new();
    pair.am.fill(0..64, 1);
    pair.a.send_one(1, pair.am.sge(0, 64));
    std::thread::sleep(Duration::from_millis(50));
    assert!(pair.a.send.poll().is_none());
    pair.b.recv(2, pair.bm.sge(0, 64));
    assert_eq!(pair.b.recv.success().wr_id, 2);
    assert_eq!(pair.a.send.success().wr_id, 1);
    pair.bm.check(0..64, 1, 0);
}

#[test]
fn a_peer_that_is_gone_is_noticed() {
    let context = Context::open();
    let pd = Pd::alloc(&context);
    let cq = Cq::create(&context, 64, None);
    let (am, bm) = (Mr::reg(&pd, 64, ALL), Mr::reg(&pd, 64, ALL));
    let a = Qp::create(&pd, &cq, &cq, fast());
    let b = Qp::create(&pd, &cq, &cq, fast());
    a.connect(b.endpoint(1));
    b.connect(a.endpoint(1));
    drop(b);
    a.send_one(1, am.sge(0, 64));
    a.rdma(IBV_WR_RDMA_READ, 2, am.sge(0, 64), bm.addr(), bm.rkey());
    a.recv(3, am.sge(0, 64));
    assert_eq!(cq.wait().status, IBV_WC_RETRY_EXC_ERR);
    let mut flushed = [cq.wait(), cq.wait()];
    flushed.sort_by_key(|wc| wc.wr_id);
    assert_eq!(flushed.map(|wc| (wc.wr_id, wc.status)), [2, 3].map(|id| (id, IBV_WC_WR_FLUSH_ERR)));
}

#[test]
fn a_killed_process_is_noticed() {
    if let Some(mut link) = peer::second() {
        let context = Context::open();
        let pd = Pd::alloc(&context);
        let cq = Cq::create(&context, 64, None);
        let qp = Qp::create(&pd, &cq, &cq, Wish::default());
        let other = link.exchange(qp.endpoint(1));
        qp.connect(other);
        link.meet();
        // Until killed.
        std::thread::sleep(LIMIT);
        return;
    }
    let mut other = peer::start("a_killed_process_is_noticed");
    let context = Context::open();
    let pd = Pd::alloc(&context);
    let cq = Cq::create(&context, 64, None);
    let qp = Qp::create(&pd, &cq, &cq, fast());
    let memory = Mr::reg(&pd, 64, ALL);
    let remote = other.link.exchange(qp.endpoint(1));
    qp.connect(remote);
    other.link.meet();
    other.child.kill().expect("a child");
    other.child.wait().expect("a child");
    qp.send_one(1, memory.sge(0, 64));
    assert_eq!(cq.wait().status, IBV_WC_RETRY_EXC_ERR);
}

#[test]
fn full_queues_say_so() {
    let mut wish = fast();
    wish.cap.max_send_wr = 3;
    wish.cap.max_recv_wr = 2;
    // Nothing is posted for receiving, and the peer may wait for ever.
    wish.rnr_retry = 7;
    let pair = Pair::with(wish, 4096);
    for id in 0..3 {
        pair.a.send_one(id, pair.am.sge(0, 8));
    }
    let mut sges = [pair.am.sge(0, 8)];
    assert_eq!(pair.a.try_post(&mut wr(IBV_WR_SEND, 3, &mut sges)), libc::ENOMEM);
    pair.a.recv(1, pair.am.sge(0, 8));
    pair.a.recv(2, pair.am.sge(0, 8));
    assert_eq!(pair.a.try_recv(3, &mut [pair.am.sge(0, 8)]), libc::ENOMEM);
    assert_eq!(pair.a.try_recv(3, &mut [pair.am.sge(0, 8); 5]), libc::EINVAL);
    assert_eq!(pair.a.try_post(&mut wr(IBV_WR_SEND, 3, &mut [pair.am.sge(0, 1); 5])), libc::EINVAL);
    assert_eq!(pair.a.try_post(&mut wr(IBV_WR_TSO, 3, &mut [])), libc::EOPNOTSUPP);

    // Everything posted comes back, once, in order of its queue.
    pair.a.to(IBV_QPS_ERR);
    let mut ids: Vec<(u64, bool)> = Vec::new();
    for _ in 0..5 {
        let wc = pair.a.send.wait();
        assert_eq!(wc.status, IBV_WC_WR_FLUSH_ERR);
        ids.push((wc.wr_id, wc.opcode == IBV_WC_RECV));
    }
    assert!(pair.a.send.poll().is_none());
    let queue = |recv: bool| ids.iter().filter(|id| id.1 == recv).map(|id| id.0).collect::<Vec<_>>();
    assert_eq!((queue(false), queue(true)), (vec![0, 1, 2], vec![1, 2]));
}

#[test]
fn posting_depends_on_the_state() {
    let context = Context::open();
    let pd = Pd::alloc(&context);
    let cq = Cq::create(&context, 64, None);
    let memory = Mr::reg(&pd, 64, ALL);
    let (a, b) = (Qp::create(&pd, &cq, &cq, fast()), Qp::create(&pd, &cq, &cq, fast()));
    let mut sges = [memory.sge(0, 8)];
    a.to(IBV_QPS_RESET);
    assert_eq!(a.try_recv(1, &mut sges), libc::EINVAL);
    assert_eq!(a.try_post(&mut wr(IBV_WR_SEND, 1, &mut sges)), libc::EINVAL);
    a.init();
    assert_eq!(a.try_recv(1, &mut sges), 0);
    assert_eq!(a.try_post(&mut wr(IBV_WR_SEND, 1, &mut sges)), libc::EINVAL);
    a.rtr(b.endpoint(1));
    assert_eq!(a.try_post(&mut wr(IBV_WR_SEND, 1, &mut sges)), libc::EINVAL);
    a.rts();
    assert_eq!(a.try_post(&mut wr(IBV_WR_SEND, 1, &mut sges)), 0);
    a.to(IBV_QPS_RESET);
    assert!(cq.poll().is_none(), "RESET forgets what was posted");
    a.init();
    a.connect(b.endpoint(1));
    b.connect(a.endpoint(1));
    b.recv(4, memory.sge(0, 8));
    a.send_one(5, memory.sge(0, 8));
    let mut ids = [cq.success().wr_id, cq.success().wr_id];
    ids.sort_unstable();
    assert_eq!(ids, [4, 5], "a queue pair works again after RESET");
}

#[test]
fn a_drained_send_queue_holds_requests_back() {
    let pair = Pair::new();
    let context = &pair.a.pd.1;
    let mut attr = ibv_qp_attr { qp_state: IBV_QPS_SQD, en_sqd_async_notify: 1, ..Default::default() };
    pair.a.modify(&mut attr, IBV_QP_STATE | IBV_QP_EN_SQD_ASYNC_NOTIFY);
    assert!(readable(c!((*context.0).async_fd), 1000));
    let mut event = ibv_async_event::default();
    assert_eq!(c!((v().get_async_event)(context.0, &mut event)), 0);
    assert_eq!((event.event_type, c!(event.element.qp)), (IBV_EVENT_SQ_DRAINED, pair.a.qp));
    c!((v().ack_async_event)(&mut event));
    pair.a.rdma(IBV_WR_RDMA_WRITE, 1, pair.am.sge(0, 8), pair.bm.addr(), pair.bm.rkey());
    std::thread::sleep(Duration::from_millis(20));
    assert!(pair.a.send.poll().is_none());
    pair.a.to(IBV_QPS_RTS);
    assert_eq!(pair.a.send.success().wr_id, 1);
}
