//! Datagrams: one packet each, to whom the request says, with 40 bytes in front.

use ibex_proto::sim::{EndConfig, NETWORK_HEADER, QKEY, World, qpn};
use ibex_proto::{LocalFault, PostError, QpState, QpType, SendOp, WcOpcode, WcStatus};
use ibex_wire::{Deth, Opcode, Psn, Qkey};

use crate::util::*;

fn ud_pair() -> World {
    pair(EndConfig { qp_type: QpType::Ud, ..EndConfig::default() })
}

fn to(end: usize, qkey: Qkey) -> SendOp {
    SendOp::Datagram { remote_qpn: qpn(end), qkey, address: 0x77, imm: None }
}

#[test]
fn a_datagram_arrives_behind_its_network_header() {
    let mut world = ud_pair();
    let log = log(&mut world);
    let (one, two) = (world.recv(B, 296), world.recv(B, 40));
    world.post(A, to(B, QKEY), pattern(256));
    let imm = SendOp::Datagram { remote_qpn: qpn(B), qkey: QKEY, address: 5, imm: Some([4, 3, 2, 1]) };
    world.post(A, imm, Vec::new());
    assert_eq!(world.ends[A].qp.next_address(), Some(0x77));
    world.run(SOON);
    assert_eq!(world.ends[A].qp.next_address(), None);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS; 2]);
    assert_eq!(world.ends[A].sends()[0].opcode, WcOpcode::SEND);
    let recvs = world.ends[B].recvs();
    assert_eq!([recvs[0].cookie, recvs[1].cookie], [one, two]);
    assert_eq!([recvs[0].byte_len, recvs[1].byte_len], [296, 40]);
    assert_eq!([recvs[0].imm, recvs[1].imm], [None, Some([4, 3, 2, 1])]);
    assert!(recvs.iter().all(|done| done.grh && done.src_qpn == qpn(A) && done.opcode == WcOpcode::RECV));
    let taken = &world.ends[B].host.recv_taken;
    assert_eq!(taken[&one], [&NETWORK_HEADER[..], &pattern(256)].concat());
    assert_eq!(taken[&two], NETWORK_HEADER);
    assert_eq!(log.opcodes(A), [Opcode::UD_SEND_ONLY, Opcode::UD_SEND_ONLY_IMM]);
    assert!(log.opcodes(B).is_empty());
    assert_eq!(world.ends[A].qp.sq_psn(), Psn::new(102));
}

#[test]
fn without_a_network_header_the_payload_stands_at_the_same_place() {
    let mut world = ud_pair();
    let recv = world.recv(B, 44);
    let bytes =
        craft(B, Opcode::UD_SEND_ONLY, Psn::new(0), &[&Deth { qkey: QKEY, src_qpn: qpn(9) }], &[8; 4]);
    let packet = ibex_wire::Packet::parse(&bytes).expect("valid");
    let end = &mut world.ends[B];
    end.qp.handle_packet(0, &packet, &mut end.host);
    world.drain();
    let done = world.ends[B].recvs()[0];
    assert_eq!((done.grh, done.byte_len, done.src_qpn), (false, 44, qpn(9)));
    assert_eq!(world.ends[B].host.recv_taken[&recv][40..], [8; 4]);
}

#[test]
fn the_key_must_match() {
    let mut world = ud_pair();
    let recv = world.recv(B, 64);
    world.post(A, to(B, Qkey(QKEY.0 + 1)), pattern(4));
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS], "nobody tells the sender");
    assert_eq!((world.ends[B].recvs().len(), world.ends[B].qp.counters().bad_qkeys), (0, 1));
    // The highest bit stands for the sending queue pair's own key.
    world.post(A, to(B, Qkey(0x8000_0001)), pattern(4));
    world.run(SOON);
    assert_eq!(world.ends[B].recvs()[0].cookie, recv);
    world.ends[B].qp.set_qkey(Qkey(0x8001_0000));
    world.ends[A].qp.set_qkey(Qkey(0x8001_0000));
    world.recv(B, 64);
    world.post(A, to(B, Qkey(0x8001_0000)), pattern(4));
    world.run(SOON);
    assert_eq!(world.ends[B].recvs().len(), 2);
}

#[test]
fn a_datagram_is_one_packet() {
    let mut world = ud_pair();
    let refused = world.try_post(A, wqe(to(B, QKEY), 257), pattern(257));
    assert_eq!(refused, Err(PostError::TooLong { len: 257, max: 256 }));
    for op in [write(0), read(0), SendOp::Send { imm: None, inv: None }, SendOp::BindMw] {
        let refused = world.try_post(A, wqe(op, 4), pattern(4));
        assert_eq!(refused, Err(PostError::Operation { operation: op.wc_opcode(), qp_type: QpType::Ud }));
    }
}

#[test]
fn what_does_not_fit_is_dropped_and_the_request_stays() {
    let mut world = ud_pair();
    world.post(A, to(B, QKEY), pattern(4));
    world.run(SOON);
    let recv = world.recv(B, 50);
    world.post(A, to(B, QKEY), pattern(11));
    world.run(SOON);
    assert_eq!((world.ends[B].recvs().len(), world.ends[B].qp.counters().lost), (0, 2));
    world.post(A, to(B, QKEY), pattern(10));
    world.run(SOON);
    assert_eq!(world.ends[B].recvs()[0].cookie, recv);
    assert_eq!(world.ends[B].qp.state(), QpState::Rts);
}

#[test]
fn order_and_numbers_do_not_matter() {
    let mut world = ud_pair();
    for psn in [77, 3, 3, 0xff_ffff] {
        world.recv(B, 64);
        let deth = Deth { qkey: QKEY, src_qpn: qpn(5) };
        inject(&mut world, B, Opcode::UD_SEND_ONLY, Psn::new(psn), &[&deth], &[1; 8]);
    }
    // Other services' packets, and more than the path MTU, are none of its business.
    inject(&mut world, B, Opcode::UC_SEND_ONLY, Psn::new(0), &[], &[1; 8]);
    inject(
        &mut world,
        B,
        Opcode::UD_SEND_ONLY,
        Psn::new(0),
        &[&Deth { qkey: QKEY, src_qpn: qpn(5) }],
        &[1; 260],
    );
    assert_eq!(world.ends[B].recvs().len(), 4);
    let counters = world.ends[B].qp.counters();
    assert_eq!((counters.dropped, counters.lost), (1, 1));
}

#[test]
fn local_faults() {
    let mut world = ud_pair();
    let bad = world.post(A, to(B, QKEY), pattern(4));
    world.post(A, to(B, QKEY), pattern(4));
    world.ends[A].host.gather_fault = Some((bad, 0, LocalFault::Protection));
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::LOC_PROT_ERR, WcStatus::WR_FLUSH_ERR]);
    assert_eq!(world.ends[A].qp.state(), QpState::Sqe);
    assert_eq!(world.ends[A].qp.next_address(), None);
    world.ends[A].qp.resume().expect("SQE to RTS");
    let recv = world.recv(B, 64);
    world.ends[B].host.place_fault = Some((recv, LocalFault::Protection));
    world.post(A, to(B, QKEY), pattern(4));
    world.run(SOON);
    assert_eq!(world.ends[B].recv_statuses(), [WcStatus::LOC_PROT_ERR]);
    assert_eq!(world.ends[B].qp.state(), QpState::Err);
}
