//! Messages without a completion: acknowledged together, and none of them forgotten.

use ibex_proto::sim::{EndConfig, Fate, World};
use ibex_proto::{RemoteAccess, SendOp, SendWqe, Tuning, WcStatus};
use ibex_wire::{Opcode, Rkey};

use crate::util::*;

fn sparse() -> World {
    let tuning = Tuning { sparse_acks: 8, ..Tuning::default() };
    let mut world =
        pair(EndConfig { tuning, sq_depth: 256, timeout: Some(50_000_000), ..EndConfig::default() });
    // Without a round trip there is no probe, and each message asks.
    send(&mut world, true);
    world.run(SOON);
    world
}

fn send(world: &mut World, signaled: bool) {
    world.recv(B, 8);
    let wqe = SendWqe {
        cookie: 0,
        op: SendOp::Send { imm: None, inv: None },
        len: 8,
        signaled,
        fence: false,
        solicited: false,
    };
    world.try_post(A, wqe, pattern(8)).expect("room");
    world.drain();
}

/// Completions of the sender, all of them successes.
fn done(world: &World) -> usize {
    let statuses = world.ends[A].send_statuses();
    assert!(statuses.iter().all(|&status| status == WcStatus::SUCCESS));
    statuses.len()
}

#[test]
fn one_acknowledgement_is_enough_for_several() {
    let mut world = sparse();
    let log = log(&mut world);
    for _ in 0..24 {
        send(&mut world, false);
        world.step();
    }
    world.run(SOON);
    assert_eq!(done(&world), 25);
    assert_eq!(log.opcodes(B), [Opcode::RC_ACK; 3]);
    assert_eq!(log.count(|seen| seen.from == A && seen.ack_req), 3);
}

#[test]
fn a_message_with_a_completion_asks_for_all_before_it() {
    let mut world = sparse();
    let log = log(&mut world);
    for signaled in [false, false, true] {
        send(&mut world, signaled);
    }
    let before = world.now;
    world.run(SOON);
    assert_eq!((done(&world), log.opcodes(B).len()), (4, 1));
    assert!(world.now - before < 1_000_000, "by the answer, not by a probe");
}

#[test]
fn the_last_ones_are_asked_for_by_a_probe() {
    let mut world = sparse();
    for _ in 0..3 {
        send(&mut world, false);
    }
    world.run(SOON);
    let counters = world.ends[A].qp.counters();
    assert_eq!((done(&world), counters.probes, counters.timeouts), (4, 1, 0));
    assert_eq!(world.ends[B].recvs().len(), 4, "each once");
}

#[test]
fn a_lost_one_comes_again() {
    let mut world = sparse();
    let mut armed = true;
    let log = watch(&mut world, move |seen| {
        let lost = armed && seen.from == A;
        armed &= !lost;
        if lost { Fate::Drop } else { Fate::Pass }
    });
    for _ in 0..2 {
        send(&mut world, false);
    }
    world.run(SOON);
    assert_eq!((done(&world), world.ends[B].recvs().len()), (3, 3));
    assert!(log.opcodes(A).len() > 2);
}

#[test]
fn who_closes_acknowledges_what_was_not_asked_for() {
    let mut world = sparse();
    for _ in 0..3 {
        send(&mut world, false);
    }
    while world.ends[B].recvs().len() < 4 {
        assert!(world.step());
    }
    assert_eq!(done(&world), 1);
    world.ends[B].qp.acknowledge_all();
    let before = world.now;
    world.drain();
    while done(&world) < 4 {
        assert!(world.step());
    }
    assert!(world.now - before < 1_000_000, "nobody had to ask");
    assert_eq!(world.ends[A].qp.counters().probes, 0);
    // There is nothing left to say.
    world.ends[B].qp.acknowledge_all();
    assert!(!world.ends[B].qp.wants_transmit());
}

/// Once a WRITE did not ask, and those after it could not be carried out at rest.
#[test]
fn a_write_asks() {
    let mut world = sparse();
    let log = log(&mut world);
    let wqe = SendWqe { cookie: 0, op: write(0), len: 8, signaled: false, fence: false, solicited: false };
    world.try_post(A, wqe, pattern(8)).expect("room");
    world.drain();
    assert_eq!(log.count(|seen| seen.ack_req), 1);
}

#[test]
fn a_queue_half_full_asks() {
    let tuning = Tuning { sparse_acks: 8, ..Tuning::default() };
    let mut world =
        pair(EndConfig { tuning, sq_depth: 4, timeout: Some(50_000_000), ..EndConfig::default() });
    send(&mut world, true);
    world.run(SOON);
    let log = log(&mut world);
    for _ in 0..4 {
        send(&mut world, false);
    }
    assert_eq!(log.count(|seen| seen.ack_req), 2);
}

/// With one retry only: what a timeout sends again is not to wait for the next.
#[test]
fn what_is_sent_again_asks() {
    let tuning = Tuning { sparse_acks: 8, ..Tuning::default() };
    let mut world = pair(EndConfig {
        tuning,
        sq_depth: 256,
        timeout: Some(50_000_000),
        retry: Some(1),
        ..EndConfig::default()
    });
    send(&mut world, true);
    world.run(SOON);
    let away_until = world.now + 50_000_000;
    watch(&mut world, move |seen| if seen.now < away_until { Fate::Drop } else { Fate::Pass });
    for _ in 0..3 {
        send(&mut world, false);
    }
    world.run(SOON);
    let counters = world.ends[A].qp.counters();
    assert_eq!((done(&world), counters.timeouts), (4, 1));
    assert_eq!(world.ends[B].recvs().len(), 4, "each once");
}

/// Once the local operation, which completes behind the message, waited for a probe.
#[test]
fn a_local_operation_behind_a_message_does_not_wait_for_a_probe() {
    for together in [true, false] {
        let mut world = sparse();
        let before = world.now;
        world.recv(B, 8);
        let op = SendOp::Send { imm: None, inv: None };
        let wqe = SendWqe { cookie: 0, op, len: 8, signaled: false, fence: false, solicited: false };
        world.try_post(A, wqe, pattern(8)).expect("room");
        if !together {
            world.drain();
        }
        let rkey = Rkey(0x70);
        world.ends[A].host.expose(rkey, 0, 64, RemoteAccess::ALL);
        world.post(A, SendOp::LocalInv { rkey }, Vec::new());
        world.run(SOON);
        assert_eq!(done(&world), 3);
        assert!(world.now - before < 1_000_000, "{} ns, together: {together}", world.now - before);
    }
}

#[test]
fn a_queue_that_drains_does_not_wait_for_a_probe() {
    let mut world = sparse();
    let before = world.now;
    send(&mut world, false);
    world.ends[A].qp.to_sqd(true).expect("from RTS");
    world.run(SOON);
    assert_eq!(done(&world), 2);
    assert!(world.now - before < 1_000_000, "{} ns", world.now - before);
}
