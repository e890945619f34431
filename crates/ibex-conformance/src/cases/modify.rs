//! The unreliable services' transitions: what each needs, and attributes that are another service's.
//! `ibv_modify_qp(3)`; IBTA vol. 1, clause 11.2.5.2. The reliable service's are in `states`.

use ibex_sys::{
    IBV_QP_ACCESS_FLAGS, IBV_QP_AV, IBV_QP_DEST_QPN, IBV_QP_MIN_RNR_TIMER, IBV_QP_PATH_MTU,
    IBV_QP_PKEY_INDEX, IBV_QP_PORT, IBV_QP_QKEY, IBV_QP_RQ_PSN, IBV_QP_SQ_PSN, IBV_QP_STATE, IBV_QP_TIMEOUT,
    IBV_QPS_INIT, IBV_QPS_RTR, IBV_QPS_RTS, IBV_QPS_SQD, IBV_QPT_UC, IBV_QPT_UD, IBV_WC_RDMA_WRITE,
    ibv_qp_attr, ibv_qp_attr_mask, ibv_qp_type,
};

use super::data::succeeded;
use crate::Outcome;
use crate::lab::{Lab, LinkOptions, Node, NodeOptions, Pair, QKEY, Send};

crate::group!("modify";
    an_unreliable_connection_needs_each_of_its_attributes,
    datagrams_need_each_of_their_attributes,
    attributes_of_another_service_are_refused,
    a_query_tells_a_datagram_pairs_attributes,
    initialised_again_with_other_attributes,
    a_drained_queue_holds_requests_until_it_is_resumed,
);

/// A node of a service, in RESET.
fn node(lab: &Lab, service: ibv_qp_type) -> Node {
    lab.node(&NodeOptions { service, ..NodeOptions::default() })
}

/// Leaves out each attribute in turn, which is refused; then goes on with all.
fn each_is_needed(node: &Node, attr: &ibv_qp_attr, mask: ibv_qp_attr_mask) {
    let before = node.qp.state();
    for bit in (0..32).map(|bit| ibv_qp_attr_mask(1 << bit)) {
        if bit != IBV_QP_STATE && mask.contains(bit) {
            let without = ibv_qp_attr_mask(mask.0 & !bit.0);
            assert_eq!(node.qp.modify(attr, without), Err(libc::EINVAL), "without {bit}");
            assert_eq!(node.qp.state(), before, "a refused transition changed the state");
        }
    }
    node.qp.modify(attr, mask).unwrap_or_else(|errno| panic!("with every attribute: errno {errno}"));
}

/// From RESET to RTS, each step with every attribute needed and without each.
fn climb(service: ibv_qp_type, expected: [ibv_qp_attr_mask; 3]) {
    let lab = Lab::open();
    let (node, link) = (node(&lab, service), LinkOptions::default());
    let (init, init_mask) = Node::init_attr(&link);
    let (rtr, rtr_mask) = node.rtr_attr(&link, node.qp.num(), lab.gid().1);
    let (rts, rts_mask) = Node::rts_attr(&link);
    for (attr, mask, expected) in
        [(init, init_mask, expected[0]), (rtr, rtr_mask, expected[1]), (rts, rts_mask, expected[2])]
    {
        let mask = node.served(mask);
        assert_eq!(mask, expected | IBV_QP_STATE);
        each_is_needed(&node, &attr, mask);
    }
    assert_eq!(node.qp.state(), IBV_QPS_RTS);
}

fn an_unreliable_connection_needs_each_of_its_attributes() -> Outcome {
    climb(
        IBV_QPT_UC,
        [
            IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS,
            IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN,
            IBV_QP_SQ_PSN,
        ],
    );
    Outcome::Passed
}

fn datagrams_need_each_of_their_attributes() -> Outcome {
    climb(IBV_QPT_UD, [IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY, ibv_qp_attr_mask(0), IBV_QP_SQ_PSN]);
    Outcome::Passed
}

fn attributes_of_another_service_are_refused() -> Outcome {
    let lab = Lab::open();
    let link = LinkOptions::default();
    for (service, init_extra, rtr_extra, rts_extra) in [
        (IBV_QPT_UD, IBV_QP_ACCESS_FLAGS, IBV_QP_AV, IBV_QP_TIMEOUT),
        (IBV_QPT_UC, IBV_QP_QKEY, IBV_QP_MIN_RNR_TIMER, IBV_QP_TIMEOUT),
    ] {
        let node = node(&lab, service);
        let refused = |attr: &ibv_qp_attr, mask: ibv_qp_attr_mask, extra: ibv_qp_attr_mask| {
            let result = node.qp.modify(attr, node.served(mask) | extra);
            assert_eq!(result, Err(libc::EINVAL), "{service} with {extra}");
            node.qp.modify(attr, node.served(mask)).expect("without it");
        };
        let (attr, mask) = Node::init_attr(&link);
        refused(&attr, mask, init_extra);
        let (attr, mask) = node.rtr_attr(&link, node.qp.num(), lab.gid().1);
        refused(&attr, mask, rtr_extra);
        let (attr, mask) = Node::rts_attr(&link);
        refused(&attr, mask, rts_extra);
    }
    Outcome::Passed
}

fn a_query_tells_a_datagram_pairs_attributes() -> Outcome {
    let lab = Lab::open();
    let node = node(&lab, IBV_QPT_UD);
    let link = LinkOptions::default();
    node.to_init(&link);
    node.to_rts(&link, 0, lab.gid().1);
    let (attr, init) = node.qp.query(IBV_QP_STATE | IBV_QP_QKEY | IBV_QP_PORT | IBV_QP_SQ_PSN);
    assert_eq!((attr.qp_state, attr.qkey, attr.port_num), (IBV_QPS_RTS, QKEY, 1));
    assert_eq!(attr.sq_psn, link.psn);
    assert!(init.cap.max_send_wr >= 64 && init.cap.max_recv_wr >= 64, "caps: {:?}", init.cap);
    Outcome::Passed
}

fn initialised_again_with_other_attributes() -> Outcome {
    let lab = Lab::open();
    let node = node(&lab, IBV_QPT_UD);
    node.to_init(&LinkOptions::default());
    let attr = ibv_qp_attr { qp_state: IBV_QPS_INIT, qkey: 5, ..Default::default() };
    node.qp.modify(&attr, IBV_QP_STATE | IBV_QP_QKEY).expect("INIT to INIT");
    assert_eq!(node.qp.query(IBV_QP_QKEY).0.qkey, 5);
    let attr = ibv_qp_attr { qp_state: IBV_QPS_RTR, qkey: 6, ..Default::default() };
    node.qp.modify(&attr, IBV_QP_STATE | IBV_QP_QKEY).expect("INIT to RTR");
    assert_eq!(node.qp.query(IBV_QP_QKEY).0.qkey, 6);
    Outcome::Passed
}

fn a_drained_queue_holds_requests_until_it_is_resumed() -> Outcome {
    let lab = Lab::open();
    let pair = Pair::new(&lab);
    let (source, target) = (pair.a.open_region(8), pair.b.open_region(16));
    source.write(0, b"held now");
    pair.a.qp.to_state(IBV_QPS_SQD).expect("RTS to SQD");
    assert_eq!(pair.a.qp.state(), IBV_QPS_SQD);
    pair.a.qp.post(&[Send::write(1, &[source.sge(0, 8)], &target, 0)]);
    pair.a.cq.stays_empty();
    pair.a.qp.to_state(IBV_QPS_RTS).expect("SQD to RTS");
    // A provider may take up what was held when it is next called to send.
    pair.a.qp.post(&[Send::write(2, &[source.sge(0, 8)], &target, 8)]);
    succeeded(&pair.a.cq.wait_one(), 1, IBV_WC_RDMA_WRITE);
    succeeded(&pair.a.cq.wait_one(), 2, IBV_WC_RDMA_WRITE);
    assert_eq!(target.read(0, 16), b"held nowheld now");
    Outcome::Passed
}
