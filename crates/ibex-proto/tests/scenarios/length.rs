//! Lengths: receive requests that are too short, messages that are too long, memory that fails locally.

use ibex_proto::sim::EndConfig;
use ibex_proto::{Event, LocalFault, MAX_MESSAGE, QpState, SendOp, WcStatus};

use crate::util::*;

#[test]
fn a_short_receive_request() {
    // Too long in the only packet, in the middle of the message, and in its last packet.
    for (room, len) in [(3, 4), (300, 1000), (999, 1000), (0, 1)] {
        let mut world = pair(EndConfig::default());
        world.recv(B, room);
        world.recv(B, 5000);
        world.send(A, &pattern(len));
        world.send(A, b"next");
        world.run(SOON);
        assert_eq!(world.ends[A].send_statuses(), [WcStatus::REM_INV_REQ_ERR, WcStatus::WR_FLUSH_ERR]);
        assert_eq!(world.ends[B].recv_statuses(), [WcStatus::LOC_LEN_ERR]);
        assert_eq!(world.ends[B].qp.state(), QpState::Err);
        assert_eq!(world.ends[B].events, [], "the completion tells it");
        assert_eq!(world.ends[B].host.recv_queue.len(), 1, "the host flushes its own queue");
    }
}

#[test]
fn an_exact_receive_request() {
    for len in [0, 1, 256, 257, 1000] {
        let mut world = pair(EndConfig::default());
        let cookie = world.recv(B, len);
        world.send(A, &pattern(len));
        world.run(SOON);
        assert_eq!(world.ends[B].recvs()[0].byte_len as usize, len);
        assert_eq!(world.ends[B].host.recv_taken[&cookie], pattern(len));
    }
}

#[test]
fn messages_longer_than_the_transport_allows() {
    for op in [SendOp::Send { imm: None, inv: None }, write(0), read(0)] {
        let mut world = pair(EndConfig::default());
        world.post(A, write(0), pattern(8));
        world.try_post(A, wqe(op, MAX_MESSAGE as usize + 1), vec![]).expect("found out when it is its turn");
        world.run(SOON);
        assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS, WcStatus::LOC_LEN_ERR], "{op:?}");
        assert_eq!(world.ends[A].qp.state(), QpState::Err);
    }
}

#[test]
fn local_memory_of_the_sender() {
    let mut world = pair(EndConfig::default());
    world.recv(B, 4096);
    world.post(A, write(0), pattern(700));
    let victim = world.send(A, &pattern(600));
    world.post(A, write(0), pattern(8));
    world.ends[A].host.gather_fault = Some((victim, 512, LocalFault::Protection));
    world.run(SOON);
    // What came before completes first although the fault was noticed while it was under way.
    let statuses = [WcStatus::SUCCESS, WcStatus::LOC_PROT_ERR, WcStatus::WR_FLUSH_ERR];
    assert_eq!(world.ends[A].send_statuses(), statuses);
    assert_eq!(world.ends[A].qp.state(), QpState::Err);
    // The peer has part of a message and no way to know; its queue pair is still up.
    assert_eq!(world.ends[B].qp.state(), QpState::Rts);
    assert_eq!(world.ends[B].recvs(), []);
}

#[test]
fn local_memory_of_the_reader() {
    for op in [read(0), add(0, 1)] {
        let mut world = pair(EndConfig::default());
        world.post(A, write(0), pattern(700));
        let victim = world.post(A, op, vec![0; 8]);
        world.ends[A].host.scatter_fault = Some((victim, LocalFault::Protection));
        world.run(SOON);
        assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS, WcStatus::LOC_PROT_ERR]);
    }
}

#[test]
fn local_memory_of_the_receiver() {
    let mut world = pair(EndConfig::default());
    let victim = world.recv(B, 4096);
    world.ends[B].host.place_fault = Some((victim, LocalFault::Protection));
    world.send(A, &pattern(600));
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::REM_OP_ERR]);
    assert_eq!(world.ends[B].recv_statuses(), [WcStatus::LOC_PROT_ERR]);
    assert_eq!(world.ends[B].qp.state(), QpState::Err);
}

#[test]
fn a_device_that_fails_at_the_responder() {
    let mut world = pair(EndConfig::default());
    world.ends[B].host.read_fault = Some((va(300), ibex_proto::RemoteFault::Operation));
    world.post(A, read(0), vec![0; 256]);
    world.post(A, read(0), vec![0; 1000]);
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS, WcStatus::REM_OP_ERR]);
    assert_eq!(world.ends[B].events, [Event::QpFatal]);
}
