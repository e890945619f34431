//! Queues count: N requests give N completions, a full queue refuses, threads do not tear it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ibex_sys::{IBV_WC_RDMA_WRITE, IBV_WC_RECV, IBV_WC_SEND, IBV_WC_SUCCESS, ibv_qp_cap};

use super::data::succeeded;
use crate::Outcome;
use crate::lab::{ALL_ACCESS, Cq, Lab, LinkOptions, NodeOptions, Pair, Qp, Recv, Region, Send, pattern};

crate::group!("queues";
    each_request_completes_exactly_once,
    receives_are_used_in_order,
    completions_of_one_queue_come_in_order,
    a_full_send_queue_refuses_and_recovers,
    a_full_receive_queue_refuses,
    too_many_gather_entries_are_refused,
    a_bad_request_in_a_chain_is_named,
    polling_takes_no_more_than_asked,
    signal_all_signals_all,
    two_threads_post_to_one_pair,
    separate_queues_for_sends_and_receives,
    many_pairs_share_one_queue,
    objects_in_use_are_not_destroyed,
);

fn each_request_completes_exactly_once() -> Outcome {
    let lab = Lab::open();
    let pair = Pair::new(&lab);
    let (source, target) = (pair.a.open_region(64), pair.b.open_region(64 * 64));
    let total = 2000u64;
    let window = 32u64;
    let (mut sent, mut seen_a, mut seen_b) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut next = 0;
    while next < total {
        let batch: Vec<u64> = (next..total.min(next + window)).collect();
        let recvs: Vec<Recv> =
            batch.iter().map(|id| Recv::new(*id, &[target.sge((id % 64) * 64, 64)])).collect();
        pair.b.qp.post_recv(&recvs);
        let sends: Vec<Send> = batch.iter().map(|id| Send::message(*id, &[source.sge(0, 16)])).collect();
        pair.a.qp.post(&sends);
        sent.extend(&batch);
        for wc in pair.a.cq.wait(batch.len()) {
            assert_eq!(wc.status, IBV_WC_SUCCESS);
            assert!(seen_a.insert(wc.wr_id), "send {} completed twice", wc.wr_id);
        }
        for wc in pair.b.cq.wait(batch.len()) {
            assert_eq!(wc.status, IBV_WC_SUCCESS);
            assert!(seen_b.insert(wc.wr_id), "receive {} completed twice", wc.wr_id);
        }
        next += window;
    }
    assert_eq!(seen_a, sent);
    assert_eq!(seen_b, sent);
    pair.a.cq.stays_empty();
    pair.b.cq.stays_empty();
    Outcome::Passed
}

fn receives_are_used_in_order() -> Outcome {
    let lab = Lab::open();
    let pair = Pair::new(&lab);
    let (source, target) = (pair.a.open_region(8 * 40), pair.b.open_region(8 * 40));
    source.write(0, &pattern(9, 8 * 40));
    pair.b.qp.post_recv(&(0..40).map(|id| Recv::new(id, &[target.sge(id * 8, 8)])).collect::<Vec<_>>());
    pair.a.qp.post(&(0..40).map(|id| Send::message(id, &[source.sge(id * 8, 8)])).collect::<Vec<_>>());
    for (id, wc) in pair.b.cq.wait(40).iter().enumerate() {
        succeeded(wc, id as u64, IBV_WC_RECV);
    }
    assert_eq!(target.read(0, 8 * 40), pattern(9, 8 * 40));
    Outcome::Passed
}

fn completions_of_one_queue_come_in_order() -> Outcome {
    let lab = Lab::open();
    let pair = Pair::new(&lab);
    let (local, remote) = (pair.a.open_region(1 << 16), pair.b.open_region(1 << 16));
    let mut sends = Vec::new();
    for id in 0..30u64 {
        let sge = local.sge(0, if id % 5 == 0 { 40_000 } else { 8 });
        sends.push(match id % 3 {
            0 => Send::read(id, &[sge], &remote, 0),
            1 => Send::write(id, &[sge], &remote, 0),
            _ => Send::write(id, &[sge], &remote, 8),
        });
    }
    pair.a.qp.post(&sends);
    let ids: Vec<u64> = pair.a.cq.wait(30).iter().map(|wc| wc.wr_id).collect();
    assert_eq!(ids, (0..30).collect::<Vec<_>>());
    Outcome::Passed
}

fn a_full_send_queue_refuses_and_recovers() -> Outcome {
    let lab = Lab::open();
    let pair = Pair::new(&lab);
    let (source, target) = (pair.a.open_region(8), pair.b.open_region(8));
    // No receive is posted: sends stay outstanding until the queue is full. A device may grant more than was asked.
    let mut posted = 0u64;
    let granted = u64::from(pair.a.qp.cap.max_send_wr);
    assert!(granted >= 64);
    let refusal = loop {
        match pair.a.qp.try_post(&[Send::message(posted, &[source.sge(0, 8)])]) {
            Ok(()) => posted += 1,
            Err((errno, index)) => break (errno, index),
        }
        assert!(posted <= 2 * granted + 1024, "{posted} requests in a queue of {granted}");
    };
    assert_eq!(refusal, (libc::ENOMEM, 0));
    assert!(posted >= granted, "refused after {posted} requests, {granted} were granted");
    // Nothing of the refused request is left: exactly what was accepted completes.
    let mut done = 0;
    while done < posted {
        let batch = (posted - done).min(32);
        for _ in 0..batch {
            pair.b.qp.post_recv(&[Recv::new(done, &[target.sge(0, 8)])]);
        }
        for wc in pair.a.cq.wait(batch as usize) {
            succeeded(&wc, done, IBV_WC_SEND);
            done += 1;
        }
        pair.b.cq.wait(batch as usize);
    }
    pair.a.cq.stays_empty();
    pair.b.qp.post_recv(&[Recv::new(1, &[target.sge(0, 8)])]);
    pair.a.qp.post(&[Send::message(999, &[source.sge(0, 8)])]);
    succeeded(&pair.a.cq.wait_one(), 999, IBV_WC_SEND);
    Outcome::Passed
}

fn a_full_receive_queue_refuses() -> Outcome {
    let lab = Lab::open();
    let pair = Pair::new(&lab);
    let target = pair.b.open_region(8);
    let granted = u64::from(pair.b.qp.cap.max_recv_wr);
    let mut posted = 0u64;
    let refusal = loop {
        match pair.b.qp.try_post_recv(&[Recv::new(posted, &[target.sge(0, 8)])]) {
            Ok(()) => posted += 1,
            Err(refusal) => break refusal,
        }
        assert!(posted <= 2 * granted + 1024, "{posted} requests in a queue of {granted}");
    };
    assert_eq!(refusal, (libc::ENOMEM, 0));
    assert!(posted >= granted);
    Outcome::Passed
}

fn too_many_gather_entries_are_refused() -> Outcome {
    let lab = Lab::open();
    let pair = Pair::new(&lab);
    let region = pair.a.open_region(4096);
    let too_many = pair.a.qp.cap.max_send_sge as usize + 1;
    let sges: Vec<_> = (0..too_many).map(|index| region.sge(index as u64, 1)).collect();
    let refused = pair.a.qp.try_post(&[Send::write(1, &sges, &region, 0)]);
    assert!(matches!(refused, Err((_, 0))), "{too_many} entries: {refused:?}");
    let too_many = pair.a.qp.cap.max_recv_sge as usize + 1;
    let sges: Vec<_> = (0..too_many).map(|index| region.sge(index as u64, 1)).collect();
    let refused = pair.a.qp.try_post_recv(&[Recv::new(1, &sges)]);
    assert!(matches!(refused, Err((_, 0))), "{too_many} entries: {refused:?}");
    pair.a.cq.stays_empty();
    Outcome::Passed
}

fn a_bad_request_in_a_chain_is_named() -> Outcome {
    let lab = Lab::open();
    let pair = Pair::new(&lab);
    let (source, target) = (pair.a.open_region(64), pair.b.open_region(64));
    source.write(0, b"goodgood");
    let too_many: Vec<_> = (0..=u64::from(pair.a.qp.cap.max_send_sge)).map(|at| source.sge(at, 1)).collect();
    let chain = [
        Send::write(1, &[source.sge(0, 4)], &target, 0),
        Send::write(2, &[source.sge(4, 4)], &target, 4),
        Send::write(3, &too_many, &target, 8),
        Send::write(4, &[source.sge(0, 4)], &target, 8),
    ];
    let (_, index) = pair.a.qp.try_post(&chain).expect_err("a request with too many entries");
    assert_eq!(index, 2);
    // What came before it was posted, what came after was not.
    let wcs = pair.a.cq.wait(2);
    succeeded(&wcs[0], 1, IBV_WC_RDMA_WRITE);
    succeeded(&wcs[1], 2, IBV_WC_RDMA_WRITE);
    pair.a.cq.stays_empty();
    assert_eq!(target.read(0, 12), b"goodgood\0\0\0\0");
    Outcome::Passed
}

fn polling_takes_no_more_than_asked() -> Outcome {
    let lab = Lab::open();
    let pair = Pair::new(&lab);
    let (source, target) = (pair.a.open_region(8), pair.b.open_region(8));
    pair.a.qp.post(&(0..10).map(|id| Send::write(id, &[source.sge(0, 8)], &target, 0)).collect::<Vec<_>>());
    // It completes last: everything before it has completed by then.
    let last = 99;
    pair.a.qp.post(&[Send::read(last, &[source.sge(0, 8)], &target, 0)]);
    let mut ids = Vec::new();
    let end = std::time::Instant::now() + crate::lab::PATIENCE;
    while ids.last() != Some(&last) {
        let wcs = pair.a.cq.poll(3);
        assert!(wcs.len() <= 3);
        ids.extend(wcs.iter().map(|wc| wc.wr_id));
        assert!(std::time::Instant::now() < end, "only {ids:?} came");
    }
    assert_eq!(ids.len(), 11);
    assert!(pair.a.cq.poll(0).is_empty());
    Outcome::Passed
}

fn signal_all_signals_all() -> Outcome {
    let lab = Lab::open();
    let pair =
        Pair::with(&lab, &NodeOptions { sig_all: true, ..NodeOptions::default() }, &LinkOptions::default());
    let (source, target) = (pair.a.open_region(8), pair.b.open_region(8));
    pair.a.qp.post(
        &(0..5).map(|id| Send::write(id, &[source.sge(0, 8)], &target, 0).unsignalled()).collect::<Vec<_>>(),
    );
    assert_eq!(pair.a.cq.wait(5).iter().map(|wc| wc.wr_id).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    Outcome::Passed
}

fn two_threads_post_to_one_pair() -> Outcome {
    let lab = Lab::open();
    let pair = Pair::new(&lab);
    let per_thread = 500u64;
    let source = pair.a.open_region(16);
    let target = pair.b.open_region(16);
    let done = AtomicBool::new(false);
    // A request is outstanding until its completion has been polled; more of them than the completion queue holds
    // would overrun it, whatever room the send queue shows.
    let permits = AtomicU64::new(64);
    let mut seen = BTreeSet::new();
    std::thread::scope(|scope| {
        for thread in 0..2u64 {
            let (pair, source, target, done, permits) = (&pair, &source, &target, &done, &permits);
            scope.spawn(move || {
                for index in 0..per_thread {
                    let take = |left: u64| left.checked_sub(1);
                    while permits.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_err() {
                        assert!(!done.load(Ordering::Relaxed), "the other side gave up");
                        std::thread::yield_now();
                    }
                    let id = thread * per_thread + index;
                    pair.a.qp.post(&[Send::write(id, &[source.sge(thread * 8, 8)], target, thread * 8)]);
                }
            });
        }
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..2 * per_thread {
                let wc = pair.a.cq.wait_one();
                permits.fetch_add(1, Ordering::AcqRel);
                assert_eq!(wc.status, IBV_WC_SUCCESS);
                assert!(seen.insert(wc.wr_id), "request {} completed twice", wc.wr_id);
            }
        }));
        done.store(true, Ordering::Relaxed);
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
    assert_eq!(seen, (0..2 * per_thread).collect::<BTreeSet<_>>());
    pair.a.cq.stays_empty();
    Outcome::Passed
}

fn separate_queues_for_sends_and_receives() -> Outcome {
    let lab = Lab::open();
    let options = NodeOptions::default();
    let (pd, link) = (lab.pd(), LinkOptions::default());
    let make = || {
        let (send_cq, recv_cq) =
            (Cq::try_new(&lab, 16, false).expect("a queue"), Cq::try_new(&lab, 16, false).expect("a queue"));
        let cap = ibv_qp_cap { max_send_wr: 8, max_recv_wr: 8, ..options.cap };
        let qp = Qp::try_new(&pd, &send_cq, &recv_cq, cap, false).expect("a queue pair");
        crate::lab::Node { lab: lab.clone(), qp, cq: send_cq, pd: pd.clone() }
    };
    let (a, b) = (make(), make());
    a.to_init(&link);
    b.to_init(&link);
    a.to_rts(&link, b.qp.num(), lab.gid().1);
    b.to_rts(&link, a.qp.num(), lab.gid().1);
    let region = Region::new(&pd, 64, ALL_ACCESS);
    b.qp.post_recv(&[Recv::new(1, &[region.sge(32, 8)])]);
    a.qp.post(&[Send::message(2, &[region.sge(0, 8)])]);
    succeeded(&b.qp.recv_cq().wait_one(), 1, IBV_WC_RECV);
    succeeded(&a.qp.send_cq().wait_one(), 2, IBV_WC_SEND);
    for node in [&a, &b] {
        node.qp.send_cq().stays_empty();
        node.qp.recv_cq().stays_empty();
    }
    Outcome::Passed
}

fn many_pairs_share_one_queue() -> Outcome {
    let lab = Lab::open();
    let (pd, link) = (lab.pd(), LinkOptions::default());
    let cq = Cq::try_new(&lab, 512, false).expect("a queue");
    let cap = ibv_qp_cap {
        max_send_wr: 16,
        max_recv_wr: 1,
        max_send_sge: 1,
        max_recv_sge: 1,
        ..Default::default()
    };
    let make = || crate::lab::Node {
        lab: lab.clone(),
        qp: Qp::try_new(&pd, &cq, &cq, cap, false).expect("a queue pair"),
        cq: cq.clone(),
        pd: pd.clone(),
    };
    let pairs: Vec<_> = (0..16)
        .map(|_| {
            let (a, b) = (make(), make());
            a.to_init(&link);
            b.to_init(&link);
            a.to_rts(&link, b.qp.num(), lab.gid().1);
            b.to_rts(&link, a.qp.num(), lab.gid().1);
            (a, b)
        })
        .collect();
    let region = Region::new(&pd, 8, ALL_ACCESS);
    for (index, (a, _)) in pairs.iter().enumerate() {
        for round in 0..10 {
            a.qp.post(&[Send::write(index as u64 * 10 + round, &[region.sge(0, 8)], &region, 0)]);
        }
    }
    let mut seen = BTreeSet::new();
    for wc in cq.wait(160) {
        assert_eq!(wc.status, IBV_WC_SUCCESS);
        assert_eq!(wc.qp_num, pairs[wc.wr_id as usize / 10].0.qp.num(), "a completion names another pair");
        assert!(seen.insert(wc.wr_id));
    }
    Outcome::Passed
}

fn objects_in_use_are_not_destroyed() -> Outcome {
    let lab = Lab::open();
    let node = lab.node(&NodeOptions::default());
    assert_eq!(node.cq.destroy_must_fail(), libc::EBUSY);
    assert_eq!(node.pd.dealloc_must_fail(), libc::EBUSY);
    // And they still work.
    let link = LinkOptions::default();
    node.to_init(&link);
    node.to_rts(&link, node.qp.num(), lab.gid().1);
    let region = node.open_region(16);
    region.write(0, b"still up");
    node.qp.post(&[Send::write(1, &[region.sge(0, 8)], &region, 8)]);
    succeeded(&node.cq.wait_one(), 1, IBV_WC_RDMA_WRITE);
    assert_eq!(region.read(8, 8), b"still up");
    Outcome::Passed
}
