//! Operations between two queue pairs of one process: done when posting returns, and otherwise not to be told from packets.
//!
//! What goes wrong (keys, lengths, missing receives) is tested with every link in `errors.rs`; here is what only two ways
//! at once can get wrong: order, accounting, locks.
//!
//! # Safety
//! As `support`: events and requests are locals that live across the call they are passed to.
#![allow(unsafe_code)]

mod support;

use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ibex_sys::*;
use support::*;

/// Whether the tests run over another link.
fn elsewhere() -> bool {
    std::env::var("IBEX_SOFT_LINK").is_ok_and(|link| link != "direct" && link != "auto")
}

/// Two queue pairs whose receiver has a channel, and as many entries of completions as given.
fn with_channel(entries: i32) -> (Pair, Arc<Channel>) {
    let context = Context::open();
    let pd = Pd::alloc(&context);
    let channel = Channel::create(&context);
    let (acq, bcq) = (Cq::create(&context, 256, None), Cq::create(&context, entries, Some(&channel)));
    let a = Qp::create(&pd, &acq, &acq, Wish::default());
    let b = Qp::create(&pd, &bcq, &bcq, Wish::default());
    a.connect(b.endpoint(1));
    b.connect(a.endpoint(1));
    let (am, bm) = (Mr::reg(&pd, 1 << 16, ALL), Mr::reg(&pd, 1 << 16, ALL));
    (Pair { a, b, am, bm }, channel)
}

#[test]
fn a_message_has_arrived_when_posting_returns() {
    if elsewhere() {
        return;
    }
    let (pair, channel) = with_channel(16);
    pair.b.recv(1, pair.bm.sge(0, 100));
    pair.b.recv.arm(false);
    pair.am.fill(0..100, 3);
    pair.a.send_one(2, pair.am.sge(0, 100));
    // Nobody has polled.
    assert!(readable(channel.fd(), 0));
    pair.bm.check(0..100, 3, 0);
    assert!(channel.get().is_some());
    assert_eq!(pair.b.recv.poll().expect("there").byte_len, 100);
    assert_eq!(pair.a.send.poll().expect("there").wr_id, 2);
}

#[test]
fn only_solicited_messages_wake_who_waits_for_those() {
    let (pair, channel) = with_channel(16);
    pair.b.recv(1, pair.bm.sge(0, 8));
    pair.b.recv(2, pair.bm.sge(0, 8));
    pair.b.recv.arm(true);
    pair.a.send_one(1, pair.am.sge(0, 8));
    pair.a.send.success();
    assert!(!readable(channel.fd(), 20));
    pair.a.run(IBV_WR_SEND, 2, &mut [pair.am.sge(0, 8)], |wr| {
        wr.send_flags |= IBV_SEND_SOLICITED.0;
    });
    pair.a.send.success();
    assert!(channel.get().is_some());
    assert_eq!([pair.b.recv.success().wr_id, pair.b.recv.success().wr_id], [1, 2]);
}

#[test]
fn order_holds_when_messages_change_their_way() {
    let pair = Pair::new();
    let (mut sent, mut received, mut posted) = (0u64, 0u64, 0u64);
    for round in 0..30u64 {
        // Too few receives for what is sent: some messages wait, and those behind them.
        let (sends, receives) = (1 + round % 7, 1 + (round * 5) % 7);
        for _ in 0..sends.min(posted + 20 - sent) {
            pair.am.word(sent as usize % 64).store(sent, Ordering::SeqCst);
            pair.a.send_one(sent, pair.am.sge(sent as usize % 64 * 8, 8));
            sent += 1;
        }
        for _ in 0..receives {
            pair.b.recv(posted, pair.bm.sge(posted as usize * 8, 8));
            posted += 1;
        }
        while received < sent.min(posted) {
            let got = pair.b.recv.success();
            assert_eq!(
                (got.wr_id, pair.bm.word(received as usize).load(Ordering::SeqCst)),
                (received, received)
            );
            received += 1;
            // The sender may learn of it later, but in order.
            assert_eq!(pair.a.send.success().wr_id, received - 1);
        }
    }
    assert!(received > 60);
}

#[test]
fn requests_without_completion_free_their_places() {
    let cap =
        ibv_qp_cap { max_send_wr: 2, max_recv_wr: 2, max_send_sge: 1, max_recv_sge: 1, max_inline_data: 64 };
    let pair = Pair::with(Wish { cap, ..Wish::default() }, 4096);
    for round in 0..100 {
        pair.b.recv(round, pair.bm.sge(0, 64));
        pair.a.run(IBV_WR_SEND, round, &mut [pair.am.sge(0, 64)], |wr| wr.send_flags = 0);
        assert_eq!(pair.b.recv.success().wr_id, round);
    }
    assert!(pair.a.send.poll().is_none());
    // Completions not fetched keep theirs.
    let code = |flags: u32| {
        pair.b.try_recv(1, &mut [pair.bm.sge(0, 64)]);
        let mut sges = [pair.am.sge(0, 64)];
        let mut request = wr(IBV_WR_RDMA_WRITE, 7, &mut sges);
        request.wr.rdma = ibv_send_wr_rdma { remote_addr: pair.bm.addr(), rkey: pair.bm.rkey() };
        request.send_flags = flags;
        pair.a.try_post(&mut request)
    };
    let signalled = IBV_SEND_SIGNALED.0;
    assert_eq!([code(signalled), code(signalled)], [0, 0]);
    // Until both are there: the link may take its time.
    let first = pair.a.send.success();
    assert_eq!(first.wr_id, 7);
    assert_eq!(code(signalled), 0);
    assert_eq!(code(signalled), libc::ENOMEM);
    pair.a.send.success();
    pair.a.send.success();
}

#[test]
fn queries_count_packets_that_never_were() {
    let pair = Pair::new();
    let before = (pair.a.query().0, pair.b.query().0);
    for len in [0, 1, 4096, 4097, 10_000] {
        pair.b.recv(1, pair.bm.sge(0, 10_000));
        pair.a.send_one(1, pair.am.sge(0, len));
        pair.a.send.success();
        pair.b.recv.success();
    }
    pair.a.rdma(IBV_WR_RDMA_READ, 1, pair.am.sge(0, 8192), pair.bm.addr(), pair.bm.rkey());
    pair.a.send.success();
    let after = (pair.a.query().0, pair.b.query().0);
    let packets = 1 + 1 + 1 + 2 + 3 + 2;
    let moved = |before: u32, after: u32| after.wrapping_sub(before) & 0xff_ffff;
    assert_eq!(moved(before.0.sq_psn, after.0.sq_psn), packets);
    assert_eq!(moved(before.1.rq_psn, after.1.rq_psn), packets);
}

#[test]
fn a_full_completion_queue_ends_the_receiver() {
    let (pair, _channel) = with_channel(1);
    for id in 0..3 {
        pair.b.recv(id, pair.bm.sge(0, 8));
    }
    pair.a.send_one(1, pair.am.sge(0, 8));
    pair.a.send.success();
    pair.a.send_one(2, pair.am.sge(0, 8));
    pair.a.send.wait();
    let mut event = ibv_async_event::default();
    assert_eq!(c!((v().get_async_event)(pair.b.pd.1.0, &mut event)), 0);
    assert_eq!(event.event_type, IBV_EVENT_CQ_ERR);
    c!((v().ack_async_event)(&mut event));
    assert_eq!(c!((v().get_async_event)(pair.b.pd.1.0, &mut event)), 0);
    assert_eq!(event.event_type, IBV_EVENT_QP_FATAL);
    c!((v().ack_async_event)(&mut event));
    assert_eq!(pair.b.state(), IBV_QPS_ERR);
}

#[test]
fn a_queue_pair_connected_to_itself() {
    let context = Context::open();
    let pd = Pd::alloc(&context);
    let cq = Cq::create(&context, 64, None);
    let qp = Qp::create(&pd, &cq, &cq, Wish::default());
    let memory = Mr::reg(&pd, 4096, ALL);
    qp.connect(qp.endpoint(1));
    for round in 0..10 {
        memory.fill(0..1000, round);
        qp.recv(1, memory.sge(2000, 1000));
        qp.send_one(2, memory.sge(0, 1000));
        let mut seen = [cq.success().wr_id, cq.success().wr_id];
        seen.sort_unstable();
        assert_eq!(seen, [1, 2]);
        memory.check(2000..3000, round, 0);
    }
}

#[test]
fn receives_of_a_shared_queue_are_used_and_not_lost() {
    let context = Context::open();
    let pd = Pd::alloc(&context);
    let (acq, bcq) = (Cq::create(&context, 64, None), Cq::create(&context, 64, None));
    let srq = services::Srq::create(&pd, 8);
    let wish = Wish { rnr_timer: 1, ..Wish::default() };
    let a = Qp::create(&pd, &acq, &acq, wish);
    let b = Qp::create_on(&pd, &bcq, &bcq, wish, Some(&srq));
    a.connect(b.endpoint(1));
    b.connect(a.endpoint(1));
    let memory = Mr::reg(&pd, 1 << 16, ALL);
    for round in 0..20 {
        memory.fill(0..64, round);
        assert_eq!(srq.try_recv(round, &mut [memory.sge(4096, 64)]), 0);
        a.send_one(round, memory.sge(0, 64));
        assert_eq!(b.recv.success().wr_id, round);
        assert_eq!(a.send.success().wr_id, round);
        memory.check(4096..4160, round, 0);
    }
    // A receive that turns out too short is the one that fails.
    assert_eq!(srq.try_recv(70, &mut [memory.sge(4096, 64)]), 0);
    assert_eq!(srq.try_recv(71, &mut [memory.sge(4096, 4096)]), 0);
    a.send_one(1, memory.sge(0, 65));
    let failed = b.recv.wait();
    assert_eq!((failed.wr_id, failed.status), (70, IBV_WC_LOC_LEN_ERR));
    assert_eq!(a.send.wait().status, IBV_WC_REM_INV_REQ_ERR);
}

#[test]
fn two_threads_that_post_to_each_other_do_not_block() {
    let pair = Arc::new(Pair::new());
    let run = |pair: Arc<Pair>, forth: bool| {
        move || {
            let (own, memory) = if forth { (&pair.a, &pair.am) } else { (&pair.b, &pair.bm) };
            let (mut sends, mut receives) = (0u64, 0u64);
            const MESSAGES: u64 = 20_000;
            while sends < MESSAGES || receives < MESSAGES {
                let wc = own.send.poll();
                match wc {
                    Some(wc) => {
                        assert_eq!(wc.status, IBV_WC_SUCCESS);
                        if wc.opcode == IBV_WC_RECV {
                            receives += 1;
                            own.recv(0, memory.sge(64, 64));
                        } else {
                            sends += 1;
                            if sends + 16 <= MESSAGES {
                                own.send_one(0, memory.sge(0, 64));
                            }
                        }
                    }
                    None => std::hint::spin_loop(),
                }
            }
        }
    };
    for _ in 0..32 {
        pair.a.recv(0, pair.am.sge(64, 64));
        pair.b.recv(0, pair.bm.sge(64, 64));
    }
    for _ in 0..16 {
        pair.a.send_one(0, pair.am.sge(0, 64));
        pair.b.send_one(0, pair.bm.sge(0, 64));
    }
    let (one, two) =
        (std::thread::spawn(run(pair.clone(), true)), std::thread::spawn(run(pair.clone(), false)));
    let start = std::time::Instant::now();
    while !(one.is_finished() && two.is_finished()) {
        assert!(start.elapsed() < LIMIT, "blocked");
        std::thread::sleep(Duration::from_millis(5));
    }
    one.join().expect("a thread");
    two.join().expect("a thread");
}

#[test]
fn lists_go_one_way_whichever_that_is() {
    let pair = Pair::new();
    pair.b.recv(1, pair.bm.sge(0, 64));
    let mut sges: Vec<[ibv_sge; 1]> = (0..3).map(|index| [pair.am.sge(index * 64, 64)]).collect();
    let mut requests: Vec<ibv_send_wr> =
        sges.iter_mut().enumerate().map(|(index, sges)| wr(IBV_WR_SEND, index as u64, sges)).collect();
    for index in (1..requests.len()).rev() {
        requests[index - 1].next = &raw mut requests[index];
    }
    pair.am.fill(0..192, 9);
    let mut bad = null_mut();
    assert_eq!(c!(dispatch::ibv_post_send(pair.a.qp, &mut requests[0], &mut bad)), 0);
    assert_eq!(pair.b.recv.success().wr_id, 1);
    // The second waits for a receive, and the third behind it.
    pair.b.recv(2, pair.bm.sge(64, 64));
    pair.b.recv(3, pair.bm.sge(128, 64));
    for id in 0..3 {
        assert_eq!(pair.a.send.success().wr_id, id);
    }
    assert_eq!([pair.b.recv.success().wr_id, pair.b.recv.success().wr_id], [2, 3]);
    pair.bm.check(0..192, 9, 0);
}
