//! Unreliable connections: whole messages arrive, in order; what finds no room is lost and nobody stops for it.
//! `ibv_post_send(3)`; IBTA vol. 1, clause 9.8.2.

use ibex_sys::{
    IBV_QPS_ERR, IBV_QPS_RTS, IBV_QPT_UC, IBV_WC_RDMA_WRITE, IBV_WC_RECV, IBV_WC_RECV_RDMA_WITH_IMM,
    IBV_WC_SEND, IBV_WC_WITH_IMM, IBV_WC_WR_FLUSH_ERR,
};

use super::data::succeeded;
use crate::Outcome;
use crate::lab::{Lab, LinkOptions, NodeOptions, Pair, Recv, Region, Send, imm_data, pattern};

crate::group!("uc";
    messages_of_every_size_arrive,
    writes_arrive,
    a_write_with_immediate_data_takes_a_receive,
    without_a_receive_a_message_is_lost_and_the_next_arrives,
    a_forbidden_write_is_lost_and_the_next_message_arrives,
    error_flushes_both_queues,
);

/// Two connected nodes and memory at each.
fn rig() -> (Lab, Pair, Region, Region) {
    let lab = Lab::open();
    let options = NodeOptions { service: IBV_QPT_UC, ..NodeOptions::default() };
    let pair = Pair::with(&lab, &options, &LinkOptions::default());
    let (source, target) = (pair.a.open_region(1 << 16), pair.b.open_region(1 << 16));
    (lab, pair, source, target)
}

/// A short message that must arrive: what was sent before it has come or is lost.
fn passes(pair: &Pair, source: &Region, target: &Region) {
    source.write(0, b"passes");
    pair.b.qp.post_recv(&[Recv::new(70, &[target.sge(0, 64)])]);
    pair.a.qp.post(&[Send::message(71, &[source.sge(0, 6)])]);
    succeeded(&pair.a.cq.wait_one(), 71, IBV_WC_SEND);
    succeeded(&pair.b.cq.wait_one(), 70, IBV_WC_RECV);
    assert_eq!(target.read(0, 6), b"passes");
}

fn messages_of_every_size_arrive() -> Outcome {
    let (lab, pair, source, target) = rig();
    let mtu = lab.mtu();
    let bytes = pattern(2, 4 * mtu);
    source.write(0, &bytes);
    for (id, len) in [0, 1, 64, mtu, mtu + 1, 3 * mtu + 17].into_iter().enumerate() {
        pair.b.qp.post_recv(&[Recv::new(id as u64, &[target.sge(0, 1 << 15)])]);
        pair.a.qp.post(&[Send::message(50, &[source.sge(0, len as u32)])]);
        succeeded(&pair.a.cq.wait_one(), 50, IBV_WC_SEND);
        let wc = pair.b.cq.wait_one();
        succeeded(&wc, id as u64, IBV_WC_RECV);
        assert_eq!(wc.byte_len as usize, len);
        assert_eq!(target.read(0, len), bytes[..len]);
    }
    Outcome::Passed
}

fn writes_arrive() -> Outcome {
    let (lab, pair, source, target) = rig();
    let len = 2 * lab.mtu() + 5;
    let bytes = pattern(3, len);
    source.write(100, &bytes);
    pair.a.qp.post(&[Send::write(1, &[source.sge(100, len as u32)], &target, 100)]);
    succeeded(&pair.a.cq.wait_one(), 1, IBV_WC_RDMA_WRITE);
    // Its completion says that it was sent; that it was placed, what comes after it.
    passes(&pair, &source, &target);
    assert_eq!(target.read(100, len), bytes);
    Outcome::Passed
}

fn a_write_with_immediate_data_takes_a_receive() -> Outcome {
    let (_lab, pair, source, target) = rig();
    source.write(0, b"immediately");
    pair.b.qp.post_recv(&[Recv::new(1, &[])]);
    pair.a.qp.post(&[Send::write_imm(2, &[source.sge(0, 11)], &target, 64, 77)]);
    succeeded(&pair.a.cq.wait_one(), 2, IBV_WC_RDMA_WRITE);
    let wc = pair.b.cq.wait_one();
    succeeded(&wc, 1, IBV_WC_RECV_RDMA_WITH_IMM);
    assert_ne!(wc.wc_flags & IBV_WC_WITH_IMM.0, 0);
    assert_eq!((u32::from_be(imm_data(&wc)), wc.byte_len), (77, 11));
    assert_eq!(target.read(64, 11), b"immediately");
    Outcome::Passed
}

fn without_a_receive_a_message_is_lost_and_the_next_arrives() -> Outcome {
    let (_lab, pair, source, target) = rig();
    pair.a.qp.post(&[Send::message(1, &[source.sge(0, 64)])]);
    succeeded(&pair.a.cq.wait_one(), 1, IBV_WC_SEND);
    pair.b.cq.stays_empty();
    passes(&pair, &source, &target);
    pair.b.cq.stays_empty();
    assert_eq!((pair.a.qp.state(), pair.b.qp.state()), (IBV_QPS_RTS, IBV_QPS_RTS));
    Outcome::Passed
}

fn a_forbidden_write_is_lost_and_the_next_message_arrives() -> Outcome {
    let (_lab, pair, source, target) = rig();
    let inert = pair.b.region(64, ibex_sys::IBV_ACCESS_LOCAL_WRITE);
    source.write(0, &[9; 64]);
    pair.a.qp.post(&[Send::write(1, &[source.sge(0, 64)], &inert, 0)]);
    succeeded(&pair.a.cq.wait_one(), 1, IBV_WC_RDMA_WRITE);
    passes(&pair, &source, &target);
    assert_eq!(inert.read(0, 64), [0; 64]);
    assert_eq!(pair.b.qp.state(), IBV_QPS_RTS);
    Outcome::Passed
}

fn error_flushes_both_queues() -> Outcome {
    let (_lab, pair, source, _target) = rig();
    for id in 0..4 {
        pair.a.qp.post_recv(&[Recv::new(id, &[source.sge(0, 8)])]);
    }
    pair.a.qp.to_state(IBV_QPS_ERR).expect("RTS to ERR");
    let wcs = pair.a.cq.wait(4);
    assert!(wcs.iter().all(|wc| wc.status == IBV_WC_WR_FLUSH_ERR), "{wcs:?}");
    assert_eq!(wcs.iter().map(|wc| wc.wr_id).collect::<Vec<_>>(), [0, 1, 2, 3]);
    pair.a.qp.post(&[Send::message(9, &[source.sge(0, 8)])]);
    let wc = pair.a.cq.wait_one();
    assert_eq!((wc.wr_id, wc.status), (9, IBV_WC_WR_FLUSH_ERR));
    Outcome::Passed
}
