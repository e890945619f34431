//! Unreliable connections: a message is whole or not there, and nothing is sent back.

use ibex_proto::sim::{EndConfig, Fate, World};
use ibex_proto::{Event, LocalFault, PostError, QpState, QpType, SendOp, WcOpcode, WcStatus};
use ibex_wire::{Opcode, Psn, Reth};

use crate::util::*;

const UC: QpType = QpType::Uc;

fn uc_pair() -> World {
    pair(EndConfig { qp_type: UC, ..EndConfig::default() })
}

fn send_imm() -> SendOp {
    SendOp::Send { imm: Some([1, 2, 3, 4]), inv: None }
}

#[test]
fn sends_and_writes_arrive_and_nothing_comes_back() {
    let mut world = uc_pair();
    let log = log(&mut world);
    let (one, two, three) = (world.recv(B, 700), world.recv(B, 10), world.recv(B, 0));
    world.send(A, &pattern(700));
    world.post(A, send_imm(), pattern(10));
    world.post(A, write(8), pattern(513));
    world.post(A, SendOp::Write { rkey: KEY, va: va(4096), imm: Some([9; 4]) }, pattern(256));
    world.post(A, write(0), Vec::new());
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS; 5]);
    assert_eq!(world.ends[B].recv_statuses(), [WcStatus::SUCCESS; 3]);
    let recvs = world.ends[B].recvs();
    assert_eq!(recvs.iter().map(|done| done.cookie).collect::<Vec<_>>(), [one, two, three]);
    assert_eq!(recvs.iter().map(|done| done.byte_len).collect::<Vec<_>>(), [700, 10, 256]);
    assert_eq!([recvs[0].imm, recvs[1].imm, recvs[2].imm], [None, Some([1, 2, 3, 4]), Some([9; 4])]);
    assert_eq!(recvs[2].opcode, WcOpcode::RECV_RDMA_WITH_IMM);
    assert_eq!(recvs[0].src_qpn, ibex_proto::sim::qpn(A));
    let host = &world.ends[B].host;
    assert_eq!(host.recv_taken[&one], pattern(700));
    assert_eq!(host.memory[8..8 + 513], pattern(513));
    assert_eq!(host.memory[4096..4096 + 256], pattern(256));
    assert!(log.opcodes(B).is_empty());
    assert_eq!(log.count(|seen| seen.ack_req), 0);
    assert_eq!(log.all().len(), 3 + 1 + 3 + 1 + 1);
    assert_eq!(log.opcodes(A)[..3], [Opcode::UC_SEND_FIRST, Opcode::UC_SEND_MIDDLE, Opcode::UC_SEND_LAST]);
    assert_eq!(world.ends[B].qp.counters().lost, 0);
}

#[test]
fn a_message_with_a_hole_is_dropped_and_its_receive_request_serves_the_next() {
    for lost in 0..4 {
        let mut world = uc_pair();
        let log = drop_first(&mut world, move |seen| seen.psn == Psn::new(100 + lost));
        let recv = world.recv(B, 1024);
        world.send(A, &[1; 1024]);
        world.send(A, &pattern(600));
        world.run(SOON);
        assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS; 2], "the sender does not know");
        let recvs = world.ends[B].recvs();
        assert_eq!((recvs.len(), recvs[0].cookie, recvs[0].byte_len), (1, recv, 600), "lost {lost}");
        assert_eq!(world.ends[B].host.recv_taken[&recv][..600], pattern(600));
        assert!(world.ends[B].qp.counters().lost > 0 && log.opcodes(B).is_empty());
        assert_eq!(world.ends[B].qp.rq_psn(), Psn::new(107));
        assert_eq!(world.ends[B].qp.state(), QpState::Rts);
    }
}

#[test]
fn a_lost_tail_is_noticed_at_the_next_first() {
    let mut world = uc_pair();
    drop_first(&mut world, |seen| seen.opcode == Opcode::UC_WRITE_LAST);
    let recv = world.recv(B, 16);
    world.post(A, write(0), pattern(700));
    world.send(A, &[5; 16]);
    world.run(SOON);
    assert_eq!(world.ends[B].recvs()[0].cookie, recv);
    assert_eq!(world.ends[B].host.written, 512, "what came of a dropped WRITE may have been stored");
}

#[test]
fn without_a_receive_request_the_message_is_dropped() {
    let mut world = uc_pair();
    world.send(A, &pattern(600));
    world.post(A, SendOp::Write { rkey: KEY, va: va(0), imm: Some([1; 4]) }, pattern(600));
    world.run(SOON);
    let recv = world.recv(B, 16);
    world.send(A, &[7; 16]);
    world.run(SOON);
    assert_eq!(world.ends[B].recvs().len(), 1);
    assert_eq!(world.ends[B].recvs()[0].cookie, recv);
}

#[test]
fn a_request_posted_in_the_middle_of_a_dropped_message_is_not_filled_from_there() {
    let mut world = uc_pair();
    world.tap(|_| Fate::Pass);
    world.send(A, &pattern(1024));
    let mut buf = [0; 1500];
    for index in 0..4 {
        if index == 2 {
            world.recv(B, 1024);
        }
        let end = &mut world.ends[A];
        let sent = end.qp.poll_transmit(0, &mut end.host, &mut buf).expect("four packets");
        assert_eq!(sent.more, index < 3);
        world.net.deliver_at(0, B, &buf[..sent.len]);
        world.step();
    }
    assert!(world.ends[B].recvs().is_empty());
    assert_eq!(world.ends[B].host.recv_queue.len(), 1);
}

#[test]
fn what_is_not_allowed_is_dropped_in_silence() {
    let mut world = uc_pair();
    let log = log(&mut world);
    let recv = world.recv(B, 100);
    world.send(A, &pattern(101));
    world.send(A, &pattern(600));
    world.post(A, SendOp::Write { rkey: ibex_wire::Rkey(8), va: va(0), imm: None }, pattern(600));
    world.post(A, write(65_536 - 300), pattern(301));
    world.run(SOON);
    world.ends[B].qp.set_access(ibex_proto::RemoteAccess::READ);
    world.post(A, write(0), pattern(4));
    world.run(SOON);
    assert_eq!((world.ends[B].recvs().len(), world.ends[B].host.written), (0, 0));
    assert_eq!((world.ends[B].qp.state(), world.ends[B].events.len()), (QpState::Rts, 0));
    world.send(A, &pattern(100));
    world.run(SOON);
    assert_eq!(world.ends[B].recvs()[0].cookie, recv, "the request that was too short is still there");
    assert!(log.opcodes(B).is_empty());
}

#[test]
fn malformed_messages_are_dropped() {
    let mut world = uc_pair();
    let psn = Psn::new(100);
    world.recv(B, 4096);
    let reth = Reth { va: va(0), rkey: KEY, len: 300 };
    // Middle and last of nothing; a first that is short; a last that is empty; a WRITE that brings too much.
    inject(&mut world, B, Opcode::UC_SEND_MIDDLE, psn, &[], &pattern(256));
    inject(&mut world, B, Opcode::UC_SEND_LAST, psn, &[], &pattern(4));
    inject(&mut world, B, Opcode::UC_SEND_FIRST, psn, &[], &pattern(252));
    inject(&mut world, B, Opcode::UC_SEND_FIRST, psn, &[], &pattern(256));
    inject(&mut world, B, Opcode::UC_SEND_LAST, psn + 1, &[], &[]);
    inject(&mut world, B, Opcode::UC_SEND_FIRST, psn, &[], &pattern(256));
    inject(&mut world, B, Opcode::UC_WRITE_LAST, psn + 1, &[], &pattern(4));
    inject(&mut world, B, Opcode::UC_WRITE_FIRST, psn, &[&reth], &pattern(256));
    inject(&mut world, B, Opcode::UC_WRITE_LAST, psn + 1, &[], &pattern(48));
    inject(&mut world, B, Opcode::RC_SEND_ONLY, psn, &[], &pattern(4));
    assert_eq!(world.ends[B].recvs().len(), 0);
    inject(&mut world, B, Opcode::UC_SEND_ONLY, Psn::new(0xdead), &[], &pattern(4));
    assert_eq!(world.ends[B].recvs()[0].byte_len, 4, "any first packet is welcome");
    assert_eq!(world.ends[B].qp.counters().dropped, 1);
}

#[test]
fn operations_it_does_not_have_are_refused() {
    let mut world = uc_pair();
    let ops = [
        read(0),
        add(0, 1),
        SendOp::CompareSwap { rkey: KEY, va: va(0), compare: 0, swap: 0 },
        SendOp::Send { imm: None, inv: Some(KEY) },
        SendOp::Datagram {
            remote_qpn: ibex_wire::Qpn::new(1),
            qkey: ibex_wire::Qkey(1),
            address: 0,
            imm: None,
        },
    ];
    for op in ops {
        let refused = world.try_post(A, wqe(op, 8), vec![0; 8]);
        let expected = PostError::Operation { operation: op.wc_opcode(), qp_type: UC };
        assert_eq!(refused, Err(expected));
    }
    let rc = EndConfig::default();
    let refused = pair(rc).try_post(A, wqe(ops[4], 8), vec![0; 8]);
    assert!(matches!(refused, Err(PostError::Operation { qp_type: QpType::Rc, .. })));
}

#[test]
fn a_local_fault_stops_the_send_queue_alone() {
    let mut world = uc_pair();
    let bad = world.post(A, write(0), pattern(1024));
    world.ends[A].host.gather_fault = Some((bad, 512, LocalFault::Protection));
    world.post(A, write(0), pattern(4));
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::LOC_PROT_ERR, WcStatus::WR_FLUSH_ERR]);
    assert_eq!(world.ends[A].qp.state(), QpState::Sqe);
    world.post(A, write(0), pattern(4));
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses()[2], WcStatus::WR_FLUSH_ERR);
    let recv = world.recv(A, 8);
    world.send(B, &[3; 8]);
    world.run(SOON);
    assert_eq!(world.ends[A].recvs()[0].cookie, recv, "receiving goes on");
    world.ends[A].qp.resume().expect("SQE to RTS");
    world.post(A, write(0), pattern(4));
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses()[3], WcStatus::SUCCESS);
    assert_eq!(world.ends[B].host.written, 512 + 4);
}

#[test]
fn a_receive_request_that_fails_ends_the_connection() {
    let mut world = uc_pair();
    let recv = world.recv(B, 8);
    world.ends[B].host.place_fault = Some((recv, LocalFault::Protection));
    world.post(B, write(0), Vec::new());
    world.send(A, &[3; 8]);
    world.run(SOON);
    assert_eq!(world.ends[B].recv_statuses(), [WcStatus::LOC_PROT_ERR]);
    assert_eq!(world.ends[B].qp.state(), QpState::Err);
    assert_eq!(world.ends[A].qp.state(), QpState::Rts);
}

#[test]
fn draining_finishes_the_message_begun() {
    let mut world = uc_pair();
    world.post(A, write(0), pattern(600));
    world.post(A, write(0), pattern(4));
    let end = &mut world.ends[A];
    let mut buf = [0; 1500];
    assert!(end.qp.poll_transmit(0, &mut end.host, &mut buf).is_some());
    end.qp.to_sqd(true).expect("RTS to SQD");
    assert_eq!(end.qp.poll_event(), None);
    world.run(SOON);
    assert_eq!(world.ends[A].sends().len(), 1);
    assert_eq!(world.ends[A].events, [Event::SqDrained]);
    world.ends[A].qp.resume().expect("SQD to RTS");
    world.run(SOON);
    assert_eq!(world.ends[A].sends().len(), 2);
}

#[test]
fn the_queue_is_bounded_and_flushed() {
    let mut world = pair(EndConfig { qp_type: UC, sq_depth: 2, ..EndConfig::default() });
    world.post(A, write(0), pattern(4));
    world.post(A, write(0), pattern(4));
    assert_eq!(world.try_post(A, wqe(write(0), 4), pattern(4)), Err(PostError::Full));
    let recv = world.recv(A, 600);
    inject(&mut world, A, Opcode::UC_SEND_FIRST, Psn::new(0), &[], &pattern(256));
    world.ends[A].completions.clear();
    world.post(A, write(0), pattern(600));
    world.ends[A].qp.set_error();
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::WR_FLUSH_ERR]);
    let recvs = world.ends[A].recvs();
    assert_eq!((recvs[0].cookie, recvs[0].status), (recv, WcStatus::WR_FLUSH_ERR));
}
