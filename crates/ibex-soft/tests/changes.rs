//! Changing what exists: regions registered anew, completion queues resized and overrun, send queues drained.

#![allow(unsafe_code)]

mod support;

use std::ptr::null_mut;
use std::sync::Arc;

use ibex_sys::*;
use support::services::*;
use support::*;

/// `ibv_rereg_mr` of everything that `flags` names.
fn rereg(mr: &Mr, flags: ibv_rereg_mr_flags, pd: *mut ibv_pd, to: (u64, usize), access: i32) -> i32 {
    let addr = std::ptr::with_exposed_provenance_mut(to.0 as usize);
    c!((v().rereg_mr)(mr.mr, flags.0 as i32, pd, addr, to.1, access))
}

const NOWHERE: (u64, usize) = (0, 0);

/// Whether a WRITE of eight bytes under a key gets through; the queue pairs are connected anew if not.
fn reaches(pair: &Pair, addr: u64, rkey: u32) -> bool {
    pair.a.rdma(IBV_WR_RDMA_WRITE, 1, pair.am.sge(0, 8), addr, rkey);
    if pair.a.send.wait().status == IBV_WC_SUCCESS {
        return true;
    }
    for qp in [&pair.a, &pair.b] {
        qp.to(IBV_QPS_RESET);
        qp.init();
    }
    pair.a.connect(pair.b.endpoint(1));
    pair.b.connect(pair.a.endpoint(1));
    false
}

#[test]
fn a_region_moves_to_other_memory_and_back_into_the_domain() {
    let pair = Pair::new();
    let pd = pair.b.pd.clone();
    let (region, other) = (Mr::reg(&pd, 4096, ALL), Mr::reg(&pd, 8192, ALL));
    let (home, key) = ((region.addr(), 4096), region.rkey());
    assert!(reaches(&pair, home.0, key));

    // The translation: the keys stay, the old range is dead.
    let away = (other.addr(), 8192);
    assert_eq!(rereg(&region, IBV_REREG_MR_CHANGE_TRANSLATION, null_mut(), away, 0), 0);
    assert_eq!((region.rkey(), c!((*region.mr).length)), (key, 8192));
    assert_eq!(c!((*region.mr).addr).addr() as u64, away.0);
    assert!(reaches(&pair, away.0 + 8184, key));
    assert!(!reaches(&pair, home.0, key));

    // The domain: queue pairs of the old one do not reach it.
    let foreign = Pd::alloc(&pd.1);
    assert_eq!(rereg(&region, IBV_REREG_MR_CHANGE_PD, foreign.0, NOWHERE, 0), 0);
    assert_eq!(c!((*region.mr).pd), foreign.0);
    assert!(!reaches(&pair, away.0, key));
    assert_eq!(c!((v().dealloc_pd)(foreign.0)), libc::EBUSY, "a region is in it");

    // All three at once.
    let all = IBV_REREG_MR_CHANGE_TRANSLATION | IBV_REREG_MR_CHANGE_PD | IBV_REREG_MR_CHANGE_ACCESS;
    assert_eq!(rereg(&region, all, pd.0, home, LOCAL), 0);
    assert!(!reaches(&pair, home.0, key), "local access only");
    assert_eq!(rereg(&region, IBV_REREG_MR_CHANGE_ACCESS, null_mut(), NOWHERE, ALL), 0);
    assert!(reaches(&pair, home.0, key));
}

#[test]
fn a_refused_change_leaves_the_region_as_it_was() {
    let pair = Pair::new();
    let region = Mr::reg(&pair.b.pd, 4096, ALL);
    let input = IBV_REREG_MR_ERR_INPUT.0;
    let translation = IBV_REREG_MR_CHANGE_TRANSLATION;
    let refused = |flags, pd, to, access| rereg(&region, flags, pd, to, access);
    assert_eq!(refused(ibv_rereg_mr_flags(0), null_mut(), NOWHERE, 0), input);
    assert_eq!(refused(ibv_rereg_mr_flags(64), null_mut(), NOWHERE, 0), input);
    assert_eq!(refused(translation, null_mut(), (region.addr(), 0), 0), input);
    assert_eq!(refused(translation, null_mut(), (4096, 4096), 0), input, "not mapped");
    assert_eq!(refused(IBV_REREG_MR_CHANGE_PD, null_mut(), NOWHERE, 0), input);
    // Remote writing without local writing; a right that does not exist.
    assert_eq!(refused(IBV_REREG_MR_CHANGE_ACCESS, null_mut(), NOWHERE, 2), input);
    assert_eq!(refused(IBV_REREG_MR_CHANGE_ACCESS, null_mut(), NOWHERE, 1 << 30), input);
    assert!(reaches(&pair, region.addr(), region.rkey()));
}

#[test]
fn a_completion_queue_is_resized_with_what_it_holds() {
    let context = Context::open();
    let pd = Pd::alloc(&context);
    let (acq, bcq) = (Cq::create(&context, 64, None), Cq::create(&context, 4, None));
    let (a, b) = (Qp::create(&pd, &acq, &acq, Wish::default()), Qp::create(&pd, &bcq, &bcq, Wish::default()));
    a.connect(b.endpoint(1));
    b.connect(a.endpoint(1));
    let memory = Mr::reg(&pd, 4096, ALL);
    let fill = |ids: std::ops::Range<u64>| {
        for id in ids {
            b.recv(id, memory.sge(0, 64));
            a.send_one(id, memory.sge(64, 8));
            acq.success();
        }
    };
    fill(0..4);
    let resize = |cqe| c!((v().resize_cq)(bcq.0, cqe));
    assert_eq!(resize(3), libc::EINVAL, "four completions wait");
    assert_eq!(resize(0), libc::EINVAL);
    assert_eq!(resize(i32::MAX), libc::EINVAL);
    assert_eq!((resize(20), c!((*bcq.0).cqe)), (0, 20));
    fill(4..20);
    for id in 0..18 {
        assert_eq!(bcq.success().wr_id, id);
    }
    assert_eq!(resize(2), 0);
    assert_eq!((bcq.success().wr_id, bcq.success().wr_id), (18, 19));
    fill(20..22);
    assert_eq!((bcq.success().wr_id, bcq.success().wr_id), (20, 21));
    assert!(context.event(0).is_none());
}

/// The kinds of events that come, in order; the first may take its time.
fn kinds(context: &Context) -> Vec<ibv_event_type> {
    let first = context.event(5000);
    let others = std::iter::from_fn(|| context.event(100));
    first.into_iter().chain(others).map(|event| event.event_type).collect()
}

#[test]
fn datagrams_that_overrun_a_completion_queue_end_their_queue_pair() {
    let context = Context::open();
    let pd = Pd::alloc(&context);
    let (acq, bcq) = (Cq::create(&context, 64, None), Cq::create(&context, 1, None));
    let wish = Wish { service: IBV_QPT_UD, ..Wish::default() };
    let (a, b) = (Qp::create(&pd, &acq, &acq, wish), Qp::create(&pd, &bcq, &bcq, wish));
    a.connect(b.endpoint(1));
    b.connect(a.endpoint(1));
    let memory = Mr::reg(&pd, 4096, ALL);
    let ah = Ah::create(&pd, b.endpoint(1).gid);
    for id in 0..2 {
        b.recv(id, memory.sge(0, 256));
        a.run(IBV_WR_SEND, id, &mut [memory.sge(512, 8)], |wr| {
            wr.wr.ud = ibv_send_wr_ud { ah: ah.ah, remote_qpn: b.num(), remote_qkey: wish.qkey };
        });
        acq.success();
    }
    assert_eq!(kinds(&context), [IBV_EVENT_CQ_ERR, IBV_EVENT_QP_FATAL]);
    assert_eq!(bcq.success().wr_id, 0);
    assert_eq!((a.state(), b.state()), (IBV_QPS_RTS, IBV_QPS_ERR));
}

#[test]
fn a_shared_queue_survives_the_overrun_of_one_completion_queue() {
    let context = Context::open();
    let pd = Pd::alloc(&context);
    let srq = Srq::create(&pd, 8);
    let acq = Cq::create(&context, 64, None);
    let memory = Mr::reg(&pd, 8192, ALL);
    let pair = |cq: &Arc<Cq>| {
        let a = Qp::create(&pd, &acq, &acq, Wish::default());
        let b = Qp::create_on(&pd, cq, cq, Wish::default(), Some(&srq));
        a.connect(b.endpoint(1));
        b.connect(a.endpoint(1));
        (a, b)
    };
    let (small, large) = (Cq::create(&context, 1, None), Cq::create(&context, 8, None));
    let ((a, b), (c, d)) = (pair(&small), pair(&large));
    for id in 0..4 {
        srq.recv(id, memory.sge(0, 64));
    }
    for id in 0..2 {
        a.send_one(id, memory.sge(64, 8));
        // The second may be acknowledged before the queue pair is found to have failed, or not.
        acq.wait();
    }
    assert_eq!(kinds(&context), [IBV_EVENT_CQ_ERR, IBV_EVENT_QP_FATAL, IBV_EVENT_QP_LAST_WQE_REACHED]);
    assert_eq!((small.success().wr_id, b.state()), (0, IBV_QPS_ERR));
    c.send_one(9, memory.sge(64, 8));
    assert_eq!(acq.success().wr_id, 9);
    assert_eq!((large.success().wr_id, d.state()), (2, IBV_QPS_RTS));
}

#[test]
fn a_send_queue_drains_what_was_begun_and_says_when() {
    let pair = Pair::new();
    let context = &pair.a.pd.1;
    let drain = |mask| {
        let mut attr = ibv_qp_attr { qp_state: IBV_QPS_SQD, en_sqd_async_notify: 1, ..Default::default() };
        pair.a.modify(&mut attr, IBV_QP_STATE | mask);
    };
    // Begun, and waiting for a receive request at the other end.
    pair.a.send_one(1, pair.am.sge(0, 8));
    drain(IBV_QP_EN_SQD_ASYNC_NOTIFY);
    let (attr, _) = pair.a.query();
    assert_eq!((attr.qp_state, attr.sq_draining, attr.en_sqd_async_notify), (IBV_QPS_SQD, 1, 1));
    assert!(context.event(0).is_none());
    pair.b.recv(1, pair.bm.sge(0, 64));
    pair.a.send.success();
    let event = context.event(2000).expect("drained");
    assert_eq!((event.event_type, c!(event.element.qp)), (IBV_EVENT_SQ_DRAINED, pair.a.qp));
    assert_eq!((pair.a.query().0.sq_draining, pair.a.state()), (0, IBV_QPS_SQD));
    // What the transport cannot change here is refused as such, and changes nothing.
    let mut attr = ibv_qp_attr { max_dest_rd_atomic: 1, ..Default::default() };
    assert_eq!(pair.a.try_modify(&mut attr, IBV_QP_MAX_DEST_RD_ATOMIC), libc::EOPNOTSUPP);
    assert_eq!(pair.a.query().0.max_dest_rd_atomic, 4);
    pair.a.to(IBV_QPS_RTS);
    // Not asked for, not told.
    drain(ibv_qp_attr_mask(0));
    assert!(context.event(50).is_none());
    assert_eq!(pair.a.query().0.sq_draining, 0);
    pair.a.to(IBV_QPS_RTS);
    pair.b.recv(2, pair.bm.sge(0, 64));
    pair.a.send_one(2, pair.am.sge(0, 8));
    pair.a.send.success();
}

#[test]
fn a_drained_queue_pair_takes_new_patience() {
    let pair = Pair::new();
    pair.a.to(IBV_QPS_SQD);
    let mut attr = ibv_qp_attr {
        timeout: 10,
        retry_cnt: 1,
        rnr_retry: 1,
        max_rd_atomic: 1,
        min_rnr_timer: 1,
        ..Default::default()
    };
    let changed =
        IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
    pair.a.modify(&mut attr, changed);
    let (now, _) = pair.a.query();
    assert_eq!((now.timeout, now.retry_cnt, now.rnr_retry, now.max_rd_atomic), (10, 1, 1, 1));
    // Longer than a busy machine needs for an answer: what is to run out is the other count.
    attr.timeout = 18;
    pair.a.modify(&mut attr, IBV_QP_TIMEOUT);
    pair.a.to(IBV_QPS_RTS);
    for id in 0..3 {
        pair.a.rdma(IBV_WR_RDMA_READ, id, pair.am.sge(0, 8192), pair.bm.addr(), pair.bm.rkey());
    }
    for id in 0..3 {
        assert_eq!(pair.a.send.success().wr_id, id);
    }
    // It was for ever before.
    pair.a.send_one(9, pair.am.sge(0, 8));
    assert_eq!(pair.a.send.wait().status, IBV_WC_RNR_RETRY_EXC_ERR);
}

#[test]
fn a_drained_datagram_queue_pair_takes_a_new_key() {
    let context = Context::open();
    let pd = Pd::alloc(&context);
    let cq = Cq::create(&context, 8, None);
    let qp = Qp::create(&pd, &cq, &cq, Wish { service: IBV_QPT_UD, ..Wish::default() });
    qp.connect(qp.endpoint(1));
    qp.to(IBV_QPS_SQD);
    qp.modify(&mut ibv_qp_attr { qkey: 5, ..Default::default() }, IBV_QP_QKEY);
    assert_eq!(qp.query().0.qkey, 5);
}
