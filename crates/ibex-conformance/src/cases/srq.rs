//! Shared receive queues: requests go to whoever needs one; sizes, the limit, and the end of a queue pair.
//! `ibv_create_srq(3)`, `ibv_modify_srq(3)`, `ibv_get_async_event(3)`; IBTA vol. 1, clause 10.2.9.

use ibex_sys::{
    IBV_EVENT_QP_LAST_WQE_REACHED, IBV_EVENT_SRQ_LIMIT_REACHED, IBV_QPS_ERR, IBV_QPT_RC, IBV_QPT_UC,
    IBV_QPT_UD, IBV_WC_RECV, IBV_WC_SEND, ibv_qp_type, ibv_wc,
};

use super::data::succeeded;
use crate::Outcome;
use crate::lab::{
    Ah, GRH, Lab, LinkOptions, Node, NodeOptions, PATIENCE, Pd, QKEY, QUIET, Recv, Region, Send, Srq,
};

crate::group!("srq";
    requests_go_to_the_pairs_in_the_order_of_posting,
    every_service_may_share,
    an_empty_queue_makes_a_reliable_sender_wait,
    a_pair_that_shares_takes_no_receives_of_its_own,
    a_queue_in_use_cannot_be_destroyed,
    a_full_queue_refuses,
    the_size_can_be_changed,
    the_limit_raises_one_event_for_each_arming,
    requests_stay_when_a_pair_fails,
    the_end_of_taking_is_reported,
);

/// Bytes each request of the queue has.
const SLOT: u64 = 256;

struct Rig {
    lab: Lab,
    pd: Pd,
    srq: Srq,
    memory: Region,
}

impl Rig {
    /// A queue of so many requests; `None` if the device has none.
    fn new(max_wr: u32) -> Result<Self, Outcome> {
        let lab = Lab::open();
        if lab.attr().max_srq == 0 {
            return Err(Outcome::Skipped("max_srq is 0".into()));
        }
        let pd = lab.pd();
        let srq = Srq::try_new(&pd, max_wr).unwrap_or_else(|errno| panic!("ibv_create_srq: errno {errno}"));
        let memory = Region::new(&pd, 64 * SLOT as usize, crate::lab::ALL_ACCESS);
        Ok(Self { lab, pd, srq, memory })
    }

    fn post(&self, ids: std::ops::Range<u64>) {
        for id in ids {
            self.srq.post(&Recv::new(id, &[self.memory.sge(id * SLOT, SLOT as u32)]));
        }
    }

    /// A sender, and a receiver that takes from the queue.
    fn pair(&self, service: ibv_qp_type) -> (Node, Node) {
        let (options, link) = (NodeOptions { service, ..NodeOptions::default() }, LinkOptions::default());
        let a = Node::new(&self.lab, &options);
        let b = Node::on(&self.lab, &options, Some((&self.pd, &self.srq)));
        a.to_init(&link);
        b.to_init(&link);
        a.to_rts(&link, b.qp.num(), self.lab.gid().1);
        b.to_rts(&link, a.qp.num(), self.lab.gid().1);
        (a, b)
    }

    /// One message from `a`, completed at both ends.
    fn message(&self, a: &Node, b: &Node) -> ibv_wc {
        let bytes = a.open_region(8);
        bytes.write(0, b"received");
        let send = Send::message(90, &[bytes.sge(0, 8)]);
        // In use until the request has completed: rxe looks for it when it sends.
        let ah =
            (a.qp.service == IBV_QPT_UD).then(|| Ah::try_new(&a.pd, self.lab.gid().1).expect("a handle"));
        let (send, header) = match &ah {
            Some(ah) => (send.datagram(ah, b.qp.num(), QKEY), GRH),
            None => (send, 0),
        };
        a.qp.post(&[send]);
        succeeded(&a.cq.wait_one(), 90, IBV_WC_SEND);
        let wc = b.cq.wait_one();
        succeeded(&wc, wc.wr_id, IBV_WC_RECV);
        assert_eq!(wc.qp_num, b.qp.num(), "the completion names the queue pair");
        assert_eq!(self.memory.read((wc.wr_id * SLOT + header) as usize, 8), b"received");
        wc
    }
}

/// The rig, or the reason to skip.
macro_rules! rig {
    ($max_wr:expr) => {
        match Rig::new($max_wr) {
            Ok(rig) => rig,
            Err(skipped) => return skipped,
        }
    };
}

fn requests_go_to_the_pairs_in_the_order_of_posting() -> Outcome {
    let rig = rig!(16);
    let pairs = [rig.pair(IBV_QPT_RC), rig.pair(IBV_QPT_RC), rig.pair(IBV_QPT_RC)];
    rig.post(0..12);
    for round in 0..12u64 {
        let (a, b) = &pairs[(round * 5 % 3) as usize];
        assert_eq!(rig.message(a, b).wr_id, round);
    }
    Outcome::Passed
}

fn every_service_may_share() -> Outcome {
    let rig = rig!(8);
    rig.post(0..3);
    for (expected, service) in [IBV_QPT_RC, IBV_QPT_UC, IBV_QPT_UD].into_iter().enumerate() {
        let (a, b) = rig.pair(service);
        assert_eq!(rig.message(&a, &b).wr_id, expected as u64);
    }
    Outcome::Passed
}

fn an_empty_queue_makes_a_reliable_sender_wait() -> Outcome {
    let rig = rig!(8);
    let (a, b) = rig.pair(IBV_QPT_RC);
    let bytes = a.open_region(8);
    a.qp.post(&[Send::message(1, &[bytes.sge(0, 8)])]);
    b.cq.stays_empty();
    rig.post(5..6);
    succeeded(&b.cq.wait_one(), 5, IBV_WC_RECV);
    succeeded(&a.cq.wait_one(), 1, IBV_WC_SEND);
    Outcome::Passed
}

fn a_pair_that_shares_takes_no_receives_of_its_own() -> Outcome {
    let rig = rig!(8);
    let (_a, b) = rig.pair(IBV_QPT_RC);
    let refused = b.qp.try_post_recv(&[Recv::new(1, &[rig.memory.sge(0, 8)])]);
    assert!(refused.is_err(), "a receive of its own was accepted");
    Outcome::Passed
}

fn a_queue_in_use_cannot_be_destroyed() -> Outcome {
    let rig = rig!(8);
    let (_a, _b) = rig.pair(IBV_QPT_RC);
    assert_eq!(rig.srq.destroy_must_fail(), libc::EBUSY);
    Outcome::Passed
}

fn a_full_queue_refuses() -> Outcome {
    let rig = rig!(4);
    // A device may make the queue longer than asked.
    let room = u64::from(rig.srq.query().max_wr);
    assert!(room >= 4);
    let recv = Recv::new(0, &[rig.memory.sge(0, 8)]);
    let accepted = (0..room + 64).take_while(|_| rig.srq.try_post(&recv).is_ok()).count() as u64;
    assert!((4..room + 64).contains(&accepted), "{accepted} requests in a queue of {room}");
    assert_eq!(rig.srq.try_post(&recv), Err(libc::ENOMEM));
    Outcome::Passed
}

fn the_size_can_be_changed() -> Outcome {
    let rig = rig!(4);
    let (a, b) = rig.pair(IBV_QPT_RC);
    rig.post(0..3);
    if rig.lab.attr().device_cap_flags & ibex_sys::IBV_DEVICE_SRQ_RESIZE.0 == 0 {
        return Outcome::Skipped("IBV_DEVICE_SRQ_RESIZE is not set".into());
    }
    rig.srq.modify(Some(32), None).expect("a longer queue");
    assert!(rig.srq.query().max_wr >= 32);
    rig.post(3..30);
    for id in 0..30 {
        assert_eq!(rig.message(&a, &b).wr_id, id);
    }
    Outcome::Passed
}

fn the_limit_raises_one_event_for_each_arming() -> Outcome {
    let rig = rig!(16);
    let (a, b) = rig.pair(IBV_QPT_RC);
    rig.post(0..6);
    rig.srq.modify(None, Some(4)).expect("a limit");
    assert_eq!(rig.srq.query().srq_limit, 4);
    rig.message(&a, &b);
    rig.message(&a, &b);
    assert_eq!(rig.lab.async_event_within(QUIET), None, "four requests are left");
    rig.message(&a, &b);
    let (kind, about) = rig.lab.async_event_within(PATIENCE).expect("the limit is reached");
    assert_eq!((kind, about), (IBV_EVENT_SRQ_LIMIT_REACHED, rig.srq.as_ptr().addr()));
    rig.message(&a, &b);
    assert_eq!(rig.lab.async_event_within(QUIET), None, "the limit was not armed again");
    rig.post(6..10);
    rig.srq.modify(None, Some(6)).expect("a limit");
    rig.message(&a, &b);
    assert!(rig.lab.async_event_within(PATIENCE).is_some());
    Outcome::Passed
}

fn requests_stay_when_a_pair_fails() -> Outcome {
    let rig = rig!(8);
    let ((_a, b), (c, d)) = (rig.pair(IBV_QPT_RC), rig.pair(IBV_QPT_RC));
    rig.post(0..2);
    b.qp.to_state(IBV_QPS_ERR).expect("RTS to ERR");
    b.cq.stays_empty();
    assert_eq!(rig.message(&c, &d).wr_id, 0);
    assert_eq!(rig.message(&c, &d).wr_id, 1);
    Outcome::Passed
}

fn the_end_of_taking_is_reported() -> Outcome {
    let rig = rig!(8);
    let (_a, b) = rig.pair(IBV_QPT_RC);
    rig.post(0..2);
    b.qp.to_state(IBV_QPS_ERR).expect("RTS to ERR");
    let (kind, about) = rig.lab.async_event_within(PATIENCE).expect("no event");
    assert_eq!((kind, about), (IBV_EVENT_QP_LAST_WQE_REACHED, b.qp.address()));
    assert_eq!(rig.lab.async_event_within(QUIET), None, "once");
    Outcome::Passed
}
