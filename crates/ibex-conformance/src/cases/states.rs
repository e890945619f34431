//! The queue pair's states: what each transition needs, what each state allows, what the device tells of it.
//! `ibv_modify_qp(3)`; IBTA vol. 1, clause 10.3.

use ibex_sys::{
    IBV_QP_ACCESS_FLAGS, IBV_QP_AV, IBV_QP_CAP, IBV_QP_DEST_QPN, IBV_QP_MAX_DEST_RD_ATOMIC,
    IBV_QP_MAX_QP_RD_ATOMIC, IBV_QP_MIN_RNR_TIMER, IBV_QP_PATH_MTU, IBV_QP_PKEY_INDEX, IBV_QP_PORT,
    IBV_QP_RETRY_CNT, IBV_QP_RNR_RETRY, IBV_QP_RQ_PSN, IBV_QP_SQ_PSN, IBV_QP_STATE, IBV_QP_TIMEOUT,
    IBV_QPS_ERR, IBV_QPS_INIT, IBV_QPS_RESET, IBV_QPS_RTR, IBV_QPS_RTS, IBV_WC_RDMA_WRITE, IBV_WC_RECV,
    IBV_WC_WR_FLUSH_ERR, ibv_qp_attr_mask,
};

use super::data::succeeded;
use crate::Outcome;
use crate::lab::{Lab, LinkOptions, Node, NodeOptions, Pair, Recv, Send};

crate::group!("states";
    a_new_pair_is_reset,
    init_needs_each_of_its_attributes,
    ready_to_receive_needs_each_of_its_attributes,
    ready_to_send_needs_each_of_its_attributes,
    states_cannot_be_skipped,
    query_tells_what_was_set,
    receives_are_taken_from_init_on,
    sends_are_refused_before_rts,
    error_flushes_everything_in_order,
    posts_in_error_are_flushed,
    reset_makes_a_pair_new_and_usable_again,
    a_full_circle_many_times,
);

fn a_new_pair_is_reset() -> Outcome {
    let node = Lab::open().node(&NodeOptions::default());
    assert!(node.qp.is_reset());
    assert!(node.qp.num() > 1, "0 and 1 are the management queue pairs");
    assert!(node.qp.num() < 1 << 24);
    Outcome::Passed
}

/// Leaves out each attribute of the mask in turn: refused, and the state is the one before.
fn each_is_needed(
    node: &Node,
    attr: &ibex_sys::ibv_qp_attr,
    mask: ibv_qp_attr_mask,
    attributes: &[(ibv_qp_attr_mask, &str)],
) {
    let before = node.qp.state();
    for (bit, name) in attributes {
        let without = ibv_qp_attr_mask(mask.0 & !bit.0);
        let result = node.qp.modify(attr, without);
        assert_eq!(result, Err(libc::EINVAL), "the transition without {name}");
        assert_eq!(node.qp.state(), before, "a refused transition changed the state");
    }
    node.qp.modify(attr, mask).unwrap_or_else(|errno| panic!("with every attribute: errno {errno}"));
}

fn init_needs_each_of_its_attributes() -> Outcome {
    let node = Lab::open().node(&NodeOptions::default());
    let (attr, mask) = Node::init_attr(&LinkOptions::default());
    each_is_needed(
        &node,
        &attr,
        mask,
        &[
            (IBV_QP_PKEY_INDEX, "IBV_QP_PKEY_INDEX"),
            (IBV_QP_PORT, "IBV_QP_PORT"),
            (IBV_QP_ACCESS_FLAGS, "IBV_QP_ACCESS_FLAGS"),
        ],
    );
    Outcome::Passed
}

fn ready_to_receive_needs_each_of_its_attributes() -> Outcome {
    let lab = Lab::open();
    let node = lab.node(&NodeOptions::default());
    let link = LinkOptions::default();
    node.to_init(&link);
    let (attr, mask) = node.rtr_attr(&link, node.qp.num(), lab.gid().1);
    each_is_needed(
        &node,
        &attr,
        mask,
        &[
            (IBV_QP_AV, "IBV_QP_AV"),
            (IBV_QP_PATH_MTU, "IBV_QP_PATH_MTU"),
            (IBV_QP_DEST_QPN, "IBV_QP_DEST_QPN"),
            (IBV_QP_RQ_PSN, "IBV_QP_RQ_PSN"),
            (IBV_QP_MAX_DEST_RD_ATOMIC, "IBV_QP_MAX_DEST_RD_ATOMIC"),
            (IBV_QP_MIN_RNR_TIMER, "IBV_QP_MIN_RNR_TIMER"),
        ],
    );
    Outcome::Passed
}

fn ready_to_send_needs_each_of_its_attributes() -> Outcome {
    let lab = Lab::open();
    let node = lab.node(&NodeOptions::default());
    let link = LinkOptions::default();
    node.to_init(&link);
    let (attr, mask) = node.rtr_attr(&link, node.qp.num(), lab.gid().1);
    node.qp.modify(&attr, mask).expect("INIT to RTR");
    let (attr, mask) = Node::rts_attr(&link);
    each_is_needed(
        &node,
        &attr,
        mask,
        &[
            (IBV_QP_TIMEOUT, "IBV_QP_TIMEOUT"),
            (IBV_QP_RETRY_CNT, "IBV_QP_RETRY_CNT"),
            (IBV_QP_RNR_RETRY, "IBV_QP_RNR_RETRY"),
            (IBV_QP_SQ_PSN, "IBV_QP_SQ_PSN"),
            (IBV_QP_MAX_QP_RD_ATOMIC, "IBV_QP_MAX_QP_RD_ATOMIC"),
        ],
    );
    Outcome::Passed
}

fn states_cannot_be_skipped() -> Outcome {
    let lab = Lab::open();
    let node = lab.node(&NodeOptions::default());
    let link = LinkOptions::default();
    let (rtr, rtr_mask) = node.rtr_attr(&link, node.qp.num(), lab.gid().1);
    let (rts, rts_mask) = Node::rts_attr(&link);
    assert_eq!(node.qp.modify(&rtr, rtr_mask), Err(libc::EINVAL), "RESET to RTR");
    assert_eq!(node.qp.modify(&rts, rts_mask), Err(libc::EINVAL), "RESET to RTS");
    node.to_init(&link);
    assert_eq!(node.qp.modify(&rts, rts_mask), Err(libc::EINVAL), "INIT to RTS");
    assert_eq!(node.qp.state(), IBV_QPS_INIT);
    Outcome::Passed
}

fn query_tells_what_was_set() -> Outcome {
    let lab = Lab::open();
    let link = LinkOptions {
        retry: 5,
        rnr_retry: 3,
        timeout: 15,
        min_rnr_timer: 9,
        rd_atomic: 2,
        ..LinkOptions::default()
    };
    let pair = Pair::with(&lab, &NodeOptions::default(), &link);
    let (attr, init) = pair.a.qp.query(
        IBV_QP_STATE
            | IBV_QP_AV
            | IBV_QP_PATH_MTU
            | IBV_QP_DEST_QPN
            | IBV_QP_TIMEOUT
            | IBV_QP_RETRY_CNT
            | IBV_QP_RNR_RETRY
            | IBV_QP_MIN_RNR_TIMER
            | IBV_QP_MAX_QP_RD_ATOMIC
            | IBV_QP_MAX_DEST_RD_ATOMIC
            | IBV_QP_ACCESS_FLAGS
            | IBV_QP_PORT
            | IBV_QP_CAP,
    );
    assert_eq!(attr.qp_state, IBV_QPS_RTS);
    assert_eq!(attr.dest_qp_num, pair.b.qp.num());
    assert_eq!(attr.path_mtu.0, lab.port().active_mtu.0);
    assert_eq!((attr.timeout, attr.retry_cnt, attr.rnr_retry, attr.min_rnr_timer), (15, 5, 3, 9));
    assert!(attr.max_rd_atomic >= 2 && attr.max_dest_rd_atomic >= 2);
    assert_eq!(attr.port_num, 1);
    assert_eq!(attr.ah_attr.is_global, 1);
    assert_eq!(crate::lab::gid_bytes(attr.ah_attr.grh.dgid), crate::lab::gid_bytes(lab.gid().1));
    assert!(init.cap.max_send_wr >= 64 && init.cap.max_recv_wr >= 64, "caps: {:?}", init.cap);
    assert!(init.cap.max_send_sge >= 4 && init.cap.max_recv_sge >= 4, "caps: {:?}", init.cap);
    Outcome::Passed
}

fn receives_are_taken_from_init_on() -> Outcome {
    let lab = Lab::open();
    let (a, b) = (lab.node(&NodeOptions::default()), lab.node(&NodeOptions::default()));
    let link = LinkOptions::default();
    let (source, target) = (a.open_region(8), b.open_region(8));
    assert!(
        b.qp.try_post_recv(&[Recv::new(1, &[target.sge(0, 8)])]).is_err(),
        "a receive in RESET was accepted"
    );
    a.to_init(&link);
    b.to_init(&link);
    b.qp.post_recv(&[Recv::new(1, &[target.sge(0, 8)])]);
    a.to_rts(&link, b.qp.num(), lab.gid().1);
    b.to_rts(&link, a.qp.num(), lab.gid().1);
    source.write(0, b"12345678");
    a.qp.post(&[Send::message(2, &[source.sge(0, 8)])]);
    succeeded(&b.cq.wait_one(), 1, IBV_WC_RECV);
    assert_eq!(target.read(0, 8), b"12345678");
    Outcome::Passed
}

fn sends_are_refused_before_rts() -> Outcome {
    let lab = Lab::open();
    let node = lab.node(&NodeOptions::default());
    let region = node.open_region(8);
    let send = [Send::message(1, &[region.sge(0, 8)])];
    assert_eq!(node.qp.try_post(&send), Err((libc::EINVAL, 0)), "a send in RESET");
    let link = LinkOptions::default();
    node.to_init(&link);
    assert_eq!(node.qp.try_post(&send), Err((libc::EINVAL, 0)), "a send in INIT");
    let (attr, mask) = node.rtr_attr(&link, node.qp.num(), lab.gid().1);
    node.qp.modify(&attr, mask).expect("INIT to RTR");
    assert_eq!(node.qp.state(), IBV_QPS_RTR);
    assert_eq!(node.qp.try_post(&send), Err((libc::EINVAL, 0)), "a send in RTR");
    node.cq.stays_empty();
    Outcome::Passed
}

fn error_flushes_everything_in_order() -> Outcome {
    let lab = Lab::open();
    let pair = Pair::new(&lab);
    let (source, target) = (pair.a.open_region(64), pair.a.open_region(64));
    for id in 0..10 {
        pair.a.qp.post_recv(&[Recv::new(100 + id, &[target.sge(0, 8)])]);
    }
    // No receive is posted at the other end: these wait.
    for id in 0..10 {
        pair.a.qp.post(&[Send::message(id, &[source.sge(0, 8)])]);
    }
    pair.a.qp.to_state(IBV_QPS_ERR).expect("RTS to ERR");
    let wcs = pair.a.cq.wait(20);
    assert!(wcs.iter().all(|wc| wc.status == IBV_WC_WR_FLUSH_ERR), "{wcs:?}");
    assert!(wcs.iter().all(|wc| wc.qp_num == pair.a.qp.num()));
    let of = |range: std::ops::Range<u64>| -> Vec<u64> {
        wcs.iter().map(|wc| wc.wr_id).filter(|id| range.contains(id)).collect()
    };
    assert_eq!(of(0..10), (0..10).collect::<Vec<_>>());
    assert_eq!(of(100..110), (100..110).collect::<Vec<_>>());
    assert_eq!(pair.a.qp.state(), IBV_QPS_ERR);
    pair.a.cq.stays_empty();
    Outcome::Passed
}

fn posts_in_error_are_flushed() -> Outcome {
    let lab = Lab::open();
    let pair = Pair::new(&lab);
    let region = pair.a.open_region(8);
    pair.a.qp.to_state(IBV_QPS_ERR).expect("RTS to ERR");
    pair.a.qp.post(&[Send::message(1, &[region.sge(0, 8)])]);
    let wc = pair.a.cq.wait_one();
    assert_eq!((wc.wr_id, wc.status), (1, IBV_WC_WR_FLUSH_ERR));
    pair.a.qp.post_recv(&[Recv::new(2, &[region.sge(0, 8)])]);
    let wc = pair.a.cq.wait_one();
    assert_eq!((wc.wr_id, wc.status), (2, IBV_WC_WR_FLUSH_ERR));
    Outcome::Passed
}

fn reset_makes_a_pair_new_and_usable_again() -> Outcome {
    let lab = Lab::open();
    let pair = Pair::new(&lab);
    let (source, target) = (pair.a.open_region(64), pair.b.open_region(64));
    pair.a.qp.post_recv(&[Recv::new(1, &[source.sge(0, 8)])]);
    for node in [&pair.a, &pair.b] {
        node.qp.to_state(IBV_QPS_RESET).expect("RTS to RESET");
        assert_eq!(node.qp.state(), IBV_QPS_RESET);
        let _ = node.cq.poll(16);
    }
    let link = LinkOptions { psn: 77, ..LinkOptions::default() };
    pair.a.to_init(&link);
    pair.b.to_init(&link);
    pair.a.to_rts(&link, pair.b.qp.num(), lab.gid().1);
    pair.b.to_rts(&link, pair.a.qp.num(), lab.gid().1);
    source.write(0, b"afresh!!");
    pair.a.qp.post(&[Send::write(3, &[source.sge(0, 8)], &target, 0)]);
    succeeded(&pair.a.cq.wait_one(), 3, IBV_WC_RDMA_WRITE);
    assert_eq!(target.read(0, 8), b"afresh!!");
    pair.a.cq.stays_empty();
    Outcome::Passed
}

fn a_full_circle_many_times() -> Outcome {
    let lab = Lab::open();
    for round in 0..50u32 {
        let link = LinkOptions { psn: round * 1000, ..LinkOptions::default() };
        let pair = Pair::with(&lab, &NodeOptions::default(), &link);
        let (source, target) = (pair.a.open_region(16), pair.b.open_region(16));
        source.write(0, &[round as u8; 16]);
        pair.a.qp.post(&[Send::write(u64::from(round), &[source.sge(0, 16)], &target, 0)]);
        succeeded(&pair.a.cq.wait_one(), u64::from(round), IBV_WC_RDMA_WRITE);
        assert_eq!(target.read(0, 16), [round as u8; 16]);
    }
    Outcome::Passed
}
