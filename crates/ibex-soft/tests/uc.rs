//! Unreliable connections: whole messages arrive, others vanish without a trace, and no one stops for them.

#![allow(unsafe_code)]

mod support;

use ibex_sys::*;
use support::*;

fn wish() -> Wish {
    Wish { service: IBV_QPT_UC, ..Wish::default() }
}

fn pair() -> Pair {
    Pair::with(wish(), 1 << 21)
}

/// Nothing arrives at `qp`, though what was sent would have by now.
fn nothing_arrives(qp: &Qp) {
    for _ in 0..1000 {
        assert!(qp.recv.poll().is_none());
    }
}

/// A SEND that arrives: whatever was sent before it is over.
fn passes(pair: &Pair) {
    pair.b.recv(99, pair.bm.sge(0, 64));
    pair.a.send_one(98, pair.am.sge(0, 64));
    assert_eq!(pair.a.send.success().wr_id, 98);
    assert_eq!(pair.b.recv.success().wr_id, 99);
}

#[test]
fn messages_of_every_size_arrive() {
    let pair = pair();
    pair.am.fill(0..1 << 20, 1);
    for len in [0usize, 1, 64, 4096, 4097, 8192, 65_536, 300_001] {
        pair.bm.clear();
        pair.b.recv(len as u64, pair.bm.sge(0, 1 << 20));
        pair.a.send_one(1, pair.am.sge(0, len));
        pair.a.send.success();
        let wc = pair.b.recv.success();
        assert_eq!((wc.wr_id, wc.opcode, wc.byte_len as usize), (len as u64, IBV_WC_RECV, len));
        assert_eq!((wc.src_qp, wc.wc_flags), (pair.a.num(), 0));
        pair.bm.check(0..len, 1, 0);
    }
}

#[test]
fn writes_with_and_without_immediate_data() {
    let pair = pair();
    pair.am.fill(0..20_000, 2);
    pair.a.rdma(IBV_WR_RDMA_WRITE, 1, pair.am.sge(0, 20_000), pair.bm.addr(), pair.bm.rkey());
    assert_eq!(pair.a.send.success().opcode, IBV_WC_RDMA_WRITE);
    passes(&pair);
    pair.bm.check(64..20_000, 2, 64);
    pair.b.recv(7, pair.bm.sge(0, 8));
    pair.a.run(IBV_WR_RDMA_WRITE_WITH_IMM, 2, &mut [pair.am.sge(0, 5000)], |wr| {
        wr.imm = ibv_send_wr_imm { imm_data: 0xa1b2_c3d4 };
        wr.wr.rdma = ibv_send_wr_rdma { remote_addr: pair.bm.addr() + 100_000, rkey: pair.bm.rkey() };
    });
    pair.a.send.success();
    let wc = pair.b.recv.success();
    assert_eq!((wc.wr_id, wc.opcode, wc.byte_len), (7, IBV_WC_RECV_RDMA_WITH_IMM, 5000));
    assert_eq!((wc.wc_flags, c!(wc.imm.imm_data)), (IBV_WC_WITH_IMM.0, 0xa1b2_c3d4));
    pair.bm.check(100_000..105_000, 2, 0);
}

#[test]
fn what_the_peer_cannot_take_is_lost_silently() {
    let pair = pair();
    // No receive request.
    pair.a.send_one(1, pair.am.sge(0, 64));
    pair.a.send.success();
    // One too short: the request stays for the next message.
    pair.b.recv(2, pair.bm.sge(0, 63));
    pair.a.send_one(2, pair.am.sge(0, 64));
    pair.a.send.success();
    nothing_arrives(&pair.b);
    pair.a.send_one(3, pair.am.sge(0, 63));
    pair.a.send.success();
    assert_eq!(pair.b.recv.success().wr_id, 2);
    // A key that does not exist, a range outside.
    for (addr, rkey) in [(pair.bm.addr(), 0x1234), (pair.bm.addr() + (1 << 21), pair.bm.rkey())] {
        pair.a.rdma(IBV_WR_RDMA_WRITE, 4, pair.am.sge(0, 64), addr, rkey);
        assert_eq!(pair.a.send.success().wr_id, 4);
    }
    passes(&pair);
    assert_eq!((pair.a.state(), pair.b.state()), (IBV_QPS_RTS, IBV_QPS_RTS));
}

#[test]
fn operations_that_need_an_answer_are_refused() {
    let pair = pair();
    for opcode in [IBV_WR_RDMA_READ, IBV_WR_ATOMIC_CMP_AND_SWP, IBV_WR_ATOMIC_FETCH_AND_ADD] {
        let mut list = [pair.am.sge(0, 8)];
        let mut wr = wr(opcode, 1, &mut list);
        wr.wr.atomic = ibv_send_wr_atomic { remote_addr: pair.bm.addr(), ..Default::default() };
        assert_eq!(pair.a.try_post(&mut wr), libc::EINVAL, "{opcode}");
    }
    passes(&pair);
}

#[test]
fn a_local_fault_stops_the_send_queue_until_it_is_resumed() {
    let pair = pair();
    let mut bad = pair.am.sge(0, 64);
    bad.lkey = 0;
    pair.a.send_one(1, bad);
    let wc = pair.a.send.wait();
    assert_eq!((wc.wr_id, wc.status), (1, IBV_WC_LOC_PROT_ERR));
    assert_eq!(pair.a.state(), IBV_QPS_SQE);
    pair.a.send_one(2, pair.am.sge(0, 64));
    assert_eq!(pair.a.send.wait().status, IBV_WC_WR_FLUSH_ERR);
    pair.a.recv(3, pair.am.sge(0, 64));
    pair.b.send_one(4, pair.bm.sge(0, 64));
    assert_eq!(pair.a.recv.success().wr_id, 3);
    assert_eq!(pair.b.send.success().wr_id, 4);
    pair.a.to(IBV_QPS_RTS);
    passes(&pair);
}

#[test]
fn the_first_packet_in_rtr_is_reported() {
    let context = Context::open();
    let pd = Pd::alloc(&context);
    let cq = Cq::create(&context, 64, None);
    let (a, b) = (Qp::create(&pd, &cq, &cq, wish()), Qp::create(&pd, &cq, &cq, wish()));
    a.connect(b.endpoint(1));
    b.rtr(a.endpoint(1));
    let memory = Mr::reg(&pd, 4096, ALL);
    b.recv(1, memory.sge(0, 64));
    a.send_one(2, memory.sge(64, 64));
    cq.success();
    cq.success();
    let event = context.event(1000).expect("communication established");
    assert_eq!((event.event_type, c!(event.element.qp)), (IBV_EVENT_COMM_EST, b.qp));
    assert!(context.event(10).is_none());
}

#[test]
fn states_and_queries() {
    let pair = pair();
    let (attr, init) = pair.a.query();
    assert_eq!((attr.qp_state, init.qp_type, attr.dest_qp_num), (IBV_QPS_RTS, IBV_QPT_UC, pair.b.num()));
    assert_eq!((attr.sq_psn, attr.rq_psn, attr.path_mtu), (pair.a.psn, pair.b.psn, IBV_MTU_4096));
    // A path can be set anew in SQD.
    pair.a.to(IBV_QPS_SQD);
    let mut attr = ibv_qp_attr { ah_attr: attr.ah_attr, ..Default::default() };
    pair.a.modify(&mut attr, IBV_QP_AV);
    // Attributes of the reliable service are not those of this one.
    let refused = |mask| pair.a.try_modify(&mut ibv_qp_attr::default(), mask);
    assert_eq!(refused(IBV_QP_TIMEOUT), libc::EINVAL);
    assert_eq!(refused(IBV_QP_QKEY), libc::EINVAL);
    pair.a.to(IBV_QPS_RTS);
    passes(&pair);
    pair.a.to(IBV_QPS_ERR);
    pair.a.send_one(5, pair.am.sge(0, 8));
    assert_eq!(pair.a.send.wait().status, IBV_WC_WR_FLUSH_ERR);
    for qp in [&pair.a, &pair.b] {
        qp.to(IBV_QPS_RESET);
        qp.init();
    }
    pair.a.connect(pair.b.endpoint(1));
    pair.b.connect(pair.a.endpoint(1));
    passes(&pair);
}

#[test]
fn a_stream_both_ways() {
    let pair = pair();
    for round in 0..500u64 {
        let len = 1 + (round as usize * 37) % 9000;
        pair.am.fill(0..len, round);
        pair.b.recv(round, pair.bm.sge(0, 16_384));
        pair.a.send_one(round, pair.am.sge(0, len));
        pair.a.send.success();
        assert_eq!(pair.b.recv.success().byte_len as usize, len);
        pair.bm.check(0..len, round, 0);
        pair.a.recv(round, pair.am.sge(16_384, 16_384));
        pair.b.send_one(round, pair.bm.sge(0, len));
        pair.b.send.success();
        assert_eq!(pair.a.recv.success().byte_len as usize, len);
        pair.am.check(16_384..16_384 + len, round, 0);
    }
}
