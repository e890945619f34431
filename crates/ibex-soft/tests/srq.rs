//! Shared receive queues: who takes what, sizes and limit, and what becomes of them when a queue pair ends.

#![allow(unsafe_code)]

mod support;

use std::sync::Arc;

use ibex_sys::*;
use support::services::*;
use support::*;

struct Rig {
    context: Arc<Context>,
    pd: Arc<Pd>,
    srq: Arc<Srq>,
    /// Completions of those that send, and of those that take from the shared queue.
    scq: Arc<Cq>,
    rcq: Arc<Cq>,
    sm: Mr,
    rm: Mr,
}

impl Rig {
    fn new(max_wr: u32) -> Rig {
        let context = Context::open();
        let pd = Pd::alloc(&context);
        let srq = Srq::create(&pd, max_wr);
        let (scq, rcq) = (Cq::create(&context, 512, None), Cq::create(&context, 512, None));
        let (sm, rm) = (Mr::reg(&pd, 1 << 16, ALL), Mr::reg(&pd, 1 << 20, ALL));
        Rig { context, pd, srq, scq, rcq, sm, rm }
    }

    /// A connected pair, the second of which takes from the shared queue.
    fn pair(&self, service: ibv_qp_type) -> (Qp, Qp) {
        let wish = Wish { service, ..Wish::default() };
        let a = Qp::create(&self.pd, &self.scq, &self.scq, wish);
        let b = Qp::create_on(&self.pd, &self.rcq, &self.rcq, wish, Some(&self.srq));
        a.connect(b.endpoint(1));
        b.connect(a.endpoint(1));
        (a, b)
    }

    fn post(&self, ids: std::ops::Range<u64>) {
        for id in ids {
            self.srq.recv(id, self.rm.sge(id as usize % 256 * 4096, 4096));
        }
    }

    /// One SEND from `a`, which has to arrive.
    fn send(&self, a: &Qp) -> ibv_wc {
        a.send_one(1, self.sm.sge(0, 64));
        self.scq.success();
        self.rcq.success()
    }
}

#[test]
fn one_queue_serves_many_pairs_in_the_order_of_posting() {
    let rig = Rig::new(16);
    rig.sm.fill(0..64, 3);
    let pairs: Vec<(Qp, Qp)> = (0..4).map(|_| rig.pair(IBV_QPT_RC)).collect();
    rig.post(0..16);
    for round in 0..16usize {
        let (a, b) = &pairs[round * 7 % 4];
        let wc = rig.send(a);
        assert_eq!((wc.wr_id, wc.qp_num, wc.src_qp), (round as u64, b.num(), a.num()));
        rig.rm.check(round * 4096..round * 4096 + 64, 3, 0);
    }
    let (_, init) = pairs[0].1.query();
    assert_eq!((init.srq, init.cap.max_recv_wr, init.cap.max_recv_sge), (rig.srq.srq, 0, 0));
    assert_eq!(c!((*pairs[0].1.qp).srq), rig.srq.srq);
}

#[test]
fn all_services_may_share() {
    let rig = Rig::new(8);
    rig.post(0..3);
    let (ra, rb) = rig.pair(IBV_QPT_RC);
    let (ua, ub) = rig.pair(IBV_QPT_UC);
    let (da, db) = rig.pair(IBV_QPT_UD);
    assert_eq!(rig.send(&ra).qp_num, rb.num());
    assert_eq!(rig.send(&ua).qp_num, ub.num());
    let ah = Ah::create(&rig.pd, db.endpoint(1).gid);
    da.run(IBV_WR_SEND, 1, &mut [rig.sm.sge(0, 64)], |wr| {
        wr.wr.ud = ibv_send_wr_ud { ah: ah.ah, remote_qpn: db.num(), remote_qkey: da.wish.qkey };
    });
    rig.scq.success();
    let wc = rig.rcq.success();
    assert_eq!((wc.wr_id, wc.qp_num, wc.byte_len), (2, db.num(), 104));
}

#[test]
fn a_queue_pair_that_shares_takes_no_receives_of_its_own() {
    let rig = Rig::new(4);
    let (_a, b) = rig.pair(IBV_QPT_RC);
    assert_eq!(b.try_recv(1, &mut [rig.rm.sge(0, 64)]), libc::EINVAL);
    assert_eq!(c!((v().destroy_srq)(rig.srq.srq)), libc::EBUSY);
    assert_eq!(c!((v().dealloc_pd)(rig.pd.0)), libc::EBUSY);
}

#[test]
fn an_empty_queue_makes_the_sender_wait() {
    let rig = Rig::new(4);
    let (a, _b) = rig.pair(IBV_QPT_RC);
    a.send_one(1, rig.sm.sge(0, 64));
    for _ in 0..2000 {
        assert!(rig.rcq.poll().is_none());
    }
    rig.post(5..6);
    assert_eq!(rig.rcq.success().wr_id, 5);
    rig.scq.success();
}

#[test]
fn sizes_are_kept_changed_and_told() {
    let rig = Rig::new(4);
    let (a, _b) = rig.pair(IBV_QPT_RC);
    let attr = rig.srq.query();
    assert_eq!((attr.max_wr, attr.max_sge, attr.srq_limit), (4, 4, 0));
    rig.post(0..4);
    let mut one = [rig.rm.sge(0, 64)];
    assert_eq!(rig.srq.try_recv(9, &mut one), libc::ENOMEM);
    assert_eq!(rig.srq.try_recv(9, &mut [rig.rm.sge(0, 64); 5]), libc::EINVAL);
    assert_eq!(rig.srq.modify(Some(3), None), libc::EINVAL, "four are outstanding");
    assert_eq!(rig.srq.modify(None, Some(5)), libc::EINVAL, "a limit above the size");
    assert_eq!(rig.srq.modify(Some(0), None), libc::EINVAL);
    assert_eq!(rig.srq.modify(Some(1 << 20), None), libc::EINVAL, "above the device's limit");
    assert_eq!(c!((v().modify_srq)(rig.srq.srq, &mut ibv_srq_attr::default(), 4)), libc::EINVAL);
    assert_eq!(rig.srq.modify(Some(6), None), 0);
    rig.post(4..6);
    assert_eq!(rig.srq.try_recv(9, &mut one), libc::ENOMEM);
    for id in 0..6 {
        assert_eq!(rig.send(&a).wr_id, id);
    }
    assert_eq!(rig.srq.modify(Some(2), None), 0);
    assert_eq!(rig.srq.query().max_wr, 2);
    for max_wr in [0, 1 << 20] {
        let attr = ibv_srq_attr { max_wr, max_sge: 1, srq_limit: 0 };
        let mut init = ibv_srq_init_attr { attr, ..Default::default() };
        assert!(c!((v().create_srq)(rig.pd.0, &mut init)).is_null());
    }
}

#[test]
fn the_limit_is_reported_once_for_each_arming() {
    let rig = Rig::new(8);
    rig.context.events_nonblocking();
    let (a, _b) = rig.pair(IBV_QPT_RC);
    rig.post(0..4);
    assert_eq!(rig.srq.modify(None, Some(3)), 0);
    assert_eq!(rig.srq.query().srq_limit, 3);
    rig.send(&a);
    assert!(rig.context.event(20).is_none(), "three are left");
    rig.send(&a);
    let event = rig.context.event(1000).expect("two are left");
    assert_eq!((event.event_type, c!(event.element.srq)), (IBV_EVENT_SRQ_LIMIT_REACHED, rig.srq.srq));
    assert_eq!(rig.srq.query().srq_limit, 0);
    rig.send(&a);
    assert!(rig.context.event(20).is_none(), "not armed again");
    rig.post(4..6);
    assert_eq!(rig.srq.modify(None, Some(3)), 0);
    rig.send(&a);
    assert!(rig.context.event(1000).is_some());
}

#[test]
fn destroying_waits_for_the_acknowledgement() {
    let rig = Rig::new(8);
    assert_eq!(rig.srq.modify(None, Some(3)), 0);
    let mut event = ibv_async_event::default();
    assert_eq!(c!((v().get_async_event)(rig.context.0, &mut event)), 0);
    assert_eq!(event.event_type, IBV_EVENT_SRQ_LIMIT_REACHED);
    let Rig { srq, .. } = rig;
    std::thread::scope(|scope| {
        let destroyer = scope.spawn(|| drop(srq));
        std::thread::sleep(std::time::Duration::from_millis(30));
        assert!(!destroyer.is_finished());
        c!((v().ack_async_event)(&mut event));
        destroyer.join().unwrap();
    });
}

#[test]
fn the_last_request_of_a_failed_pair_is_reported() {
    let rig = Rig::new(8);
    rig.context.events_nonblocking();
    let (_a, b) = rig.pair(IBV_QPT_RC);
    let (c, d) = rig.pair(IBV_QPT_RC);
    rig.post(0..3);
    assert!(rig.context.event(0).is_none());
    b.to(IBV_QPS_ERR);
    let event = rig.context.event(1000).expect("last request reached");
    assert_eq!((event.event_type, c!(event.element.qp)), (IBV_EVENT_QP_LAST_WQE_REACHED, b.qp));
    b.to(IBV_QPS_ERR);
    assert!(rig.context.event(20).is_none(), "once for each time it fails");
    // Requests stay for others.
    assert!(rig.rcq.poll().is_none());
    assert_eq!((rig.send(&c).wr_id, d.state()), (0, IBV_QPS_RTS));
    // Once more after RESET.
    b.to(IBV_QPS_RESET);
    b.init();
    b.to(IBV_QPS_ERR);
    assert!(rig.context.event(1000).is_some());
}

#[test]
fn a_request_being_filled_completes_before_the_last_is_reported() {
    let rig = Rig::new(8);
    rig.context.events_nonblocking();
    let (a, b) = rig.pair(IBV_QPT_RC);
    // Too short for what comes: the pair fails while it holds the request.
    rig.srq.recv(1, rig.rm.sge(0, 8));
    a.send_one(1, rig.sm.sge(0, 64));
    let wc = rig.rcq.wait();
    assert_eq!((wc.wr_id, wc.status, wc.qp_num), (1, IBV_WC_LOC_LEN_ERR, b.num()));
    assert_eq!(rig.scq.wait().status, IBV_WC_REM_INV_REQ_ERR);
    let kinds: Vec<ibv_event_type> =
        std::iter::from_fn(|| rig.context.event(50)).map(|event| event.event_type).collect();
    assert_eq!(kinds.last(), Some(&IBV_EVENT_QP_LAST_WQE_REACHED), "{kinds:?}");
    assert_eq!(b.state(), IBV_QPS_ERR);
}

#[test]
fn requests_count_until_their_completion_is_polled() {
    let rig = Rig::new(2);
    let (a, b) = rig.pair(IBV_QPT_RC);
    rig.post(0..2);
    a.send_one(1, rig.sm.sge(0, 8));
    rig.scq.success();
    let mut one = [rig.rm.sge(0, 64)];
    assert_eq!(rig.srq.try_recv(9, &mut one), libc::ENOMEM, "its completion waits");
    rig.rcq.success();
    assert_eq!(rig.srq.try_recv(2, &mut one), 0);
    // What a destroyed pair had completed is gone with its completions.
    a.send_one(1, rig.sm.sge(0, 8));
    rig.scq.success();
    drop(b);
    assert_eq!(rig.srq.try_recv(3, &mut one), 0);
}

#[test]
fn lists_are_checked_against_the_domain_of_the_queue() {
    let rig = Rig::new(4);
    let other = Pd::alloc(&rig.context);
    let wish = Wish::default();
    let a = Qp::create(&rig.pd, &rig.scq, &rig.scq, wish);
    let b = Qp::create_on(&other, &rig.rcq, &rig.rcq, wish, Some(&rig.srq));
    a.connect(b.endpoint(1));
    b.connect(a.endpoint(1));
    rig.post(0..1);
    assert_eq!(rig.send(&a).status, IBV_WC_SUCCESS);
}

#[test]
fn threads_post_while_pairs_take() {
    const EACH: u64 = 500;
    let rig = Rig::new(64);
    let pairs: Vec<(Qp, Qp)> = (0..4).map(|_| rig.pair(IBV_QPT_RC)).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for id in 0..4 * EACH {
                let mut list = [rig.rm.sge(id as usize % 256 * 4096, 64)];
                while rig.srq.try_recv(id, &mut list) == libc::ENOMEM {
                    std::thread::yield_now();
                }
            }
        });
        scope.spawn(|| {
            let mut seen = vec![false; 4 * EACH as usize];
            for _ in 0..4 * EACH {
                let wc = rig.rcq.success();
                assert!(!std::mem::replace(&mut seen[wc.wr_id as usize], true), "{} twice", wc.wr_id);
            }
        });
        let mut open = 0u64;
        for round in 0..EACH {
            for (a, _) in &pairs {
                a.send_one(round, rig.sm.sge(0, 64));
                open += 1;
            }
            while open > 50 {
                rig.scq.success();
                open -= 1;
            }
        }
        for _ in 0..open {
            rig.scq.success();
        }
    });
}
