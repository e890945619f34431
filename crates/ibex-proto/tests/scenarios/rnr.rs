//! Receiver not ready: the wait, its end, the counter that ends it for good, and that nothing happens meanwhile.

use ibex_proto::sim::EndConfig;
use ibex_proto::{QpState, SendOp, WcOpcode, WcStatus};
use ibex_wire::{Opcode, Syndrome, rnr_timer_ns};

use crate::util::*;

#[test]
fn waits_as_long_as_asked_and_then_delivers() {
    let code = 14;
    let mut world = pair(EndConfig { min_rnr_timer: code, ..EndConfig::default() });
    let log = log(&mut world);
    world.send(A, b"early");
    world.drain();
    world.step();
    world.recv(B, 16);
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS]);
    assert_eq!(world.ends[B].recv_statuses(), [WcStatus::SUCCESS]);
    assert_eq!(&world.ends[B].host.recv_taken[&1][..5], b"early");
    let sends: Vec<Seen> = log.all().into_iter().filter(|seen| seen.from == A).collect();
    assert_eq!(sends.len(), 2);
    let nak = log.all()[1];
    assert_eq!(nak.syndrome, Some(Syndrome::RnrNak { timer: code }));
    let waited = sends[1].now - (nak.now + world.net.faults.latency);
    assert_eq!(waited, rnr_timer_ns(code));
}

#[test]
fn the_counter_ends_it() {
    let mut world = pair(EndConfig { rnr_retry: Some(3), ..EndConfig::default() });
    let log = log(&mut world);
    world.send(A, b"one");
    world.send(A, b"two");
    world.run(SOON);
    let statuses = [WcStatus::RNR_RETRY_EXC_ERR, WcStatus::WR_FLUSH_ERR];
    assert_eq!(world.ends[A].send_statuses(), statuses);
    assert_eq!(world.ends[A].qp.state(), QpState::Err);
    // The first attempt and three retries. The peer is none the wiser and stays usable.
    let first = log.all()[0].psn;
    assert_eq!(log.count(|seen| seen.from == A && seen.psn == first), 4);
    assert_eq!(world.ends[B].qp.state(), QpState::Rts);
}

#[test]
fn unlimited_means_unlimited() {
    let mut world = pair(EndConfig { rnr_retry: None, ..EndConfig::default() });
    world.send(A, b"patience");
    world.drain();
    for _ in 0..200 {
        world.step();
    }
    assert!(world.ends[A].qp.counters().rnr_naks_received > 50);
    world.recv(B, 16);
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS]);
}

#[test]
fn progress_refills_the_counter() {
    let mut world = pair(EndConfig { rnr_retry: Some(1), ..EndConfig::default() });
    for _ in 0..5 {
        world.send(A, b"x");
        world.drain();
        // One refusal each time, then a receive request.
        while world.ends[B].qp.counters().rnr_naks_sent == world.ends[A].qp.counters().rnr_naks_received {
            world.step();
        }
        world.recv(B, 4);
        world.run(SOON);
    }
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS; 5]);
    assert_eq!(world.ends[A].qp.counters().rnr_naks_received, 5);
}

#[test]
fn a_write_that_is_not_ready_writes_nothing() {
    let mut world = pair(EndConfig::default());
    let imm = Some([1, 2, 3, 4]);
    world.post(A, SendOp::Write { rkey: KEY, va: va(0), imm }, vec![9; 100]);
    world.drain();
    world.step();
    assert_eq!(world.ends[B].qp.counters().rnr_naks_sent, 1);
    assert_eq!(world.ends[B].host.written, 0);
    world.recv(B, 0);
    world.run(SOON);
    assert_eq!(world.ends[B].host.written, 100);
    let done = world.ends[B].recvs()[0];
    assert_eq!((done.opcode, done.byte_len, done.imm), (WcOpcode::RECV_RDMA_WITH_IMM, 100, imm));
}

#[test]
fn a_long_write_asks_at_its_last_packet_only() {
    let mut world = pair(EndConfig::default());
    let log = log(&mut world);
    world.post(A, SendOp::Write { rkey: KEY, va: va(0), imm: Some([0; 4]) }, pattern(1000));
    world.drain();
    world.step();
    world.step();
    world.recv(B, 0);
    world.run(SOON);
    assert_eq!(world.ends[B].recvs()[0].byte_len, 1000);
    assert_eq!(&world.ends[B].host.memory[..1000], pattern(1000));
    // Only the last packet is repeated: the NAK acknowledges those before.
    let lasts = log.count(|seen| seen.opcode == Opcode::RC_WRITE_LAST_IMM);
    assert_eq!((lasts, log.count(|seen| seen.opcode == Opcode::RC_WRITE_FIRST)), (2, 1));
}

#[test]
fn what_follows_is_dropped_in_silence() {
    let mut world = pair(EndConfig::default());
    let log = log(&mut world);
    for _ in 0..5 {
        world.send(A, b"several");
    }
    world.drain();
    world.step();
    world.step();
    // One "not ready", and no sequence error for the four behind it.
    assert_eq!(log.count(|seen| seen.from == B), 1);
    for _ in 0..5 {
        world.recv(B, 16);
    }
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS; 5]);
    assert_eq!(world.ends[B].qp.counters().sequence_naks_sent, 0);
}
