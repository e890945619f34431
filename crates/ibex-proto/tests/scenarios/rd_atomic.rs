//! READs and atomics outstanding: never more than agreed, and what a responder does when a peer sends more.

use ibex_proto::sim::{EndConfig, Fate};
use ibex_proto::{Event, QpState, WcStatus};
use ibex_wire::{Opcode, Reth};

use crate::util::*;

fn limited(max: u8) -> EndConfig {
    EndConfig { max_rd_atomic: max, max_dest_rd_atomic: max, ..EndConfig::default() }
}

#[test]
fn never_more_than_agreed() {
    for max in [1, 2, 5] {
        let mut world = pair(limited(max));
        let log = log(&mut world);
        for round in 0..20 {
            if round % 2 == 0 {
                world.post(A, read(0), vec![0; 300]);
            } else {
                world.post(A, add(0, 1), vec![0; 8]);
            }
        }
        world.drain();
        assert_eq!(log.opcodes(A).len(), usize::from(max));
        world.run(SOON);
        assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS; 20]);
        let mut outstanding = 0i32;
        for seen in log.all() {
            if seen.from == A {
                outstanding += 1;
            } else if seen.opcode.ends_message() {
                outstanding -= 1;
            }
            assert!(outstanding <= i32::from(max));
        }
        assert_eq!(outstanding, 0);
    }
}

#[test]
fn writes_behind_a_held_read_wait_their_turn() {
    let mut world = pair(limited(1));
    let log = log(&mut world);
    world.post(A, read(0), vec![0; 8]);
    world.post(A, read(0), vec![0; 8]);
    world.post(A, write(0), vec![0; 8]);
    world.drain();
    assert_eq!(log.opcodes(A), [Opcode::RC_READ_REQUEST], "requests never overtake each other");
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS; 3]);
}

#[test]
fn holds_after_going_back() {
    let mut world = pair(limited(3));
    // Every first answer to anything is lost.
    let mut answered = Vec::new();
    watch(&mut world, move |seen| {
        if seen.from == B && !answered.contains(&seen.psn) {
            answered.push(seen.psn);
            return Fate::Drop;
        }
        Fate::Pass
    });
    for _ in 0..12 {
        world.post(A, add(0, 1), vec![0; 8]);
    }
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS; 12]);
    assert_eq!(world.ends[B].host.atomics, 12);
    assert_eq!(world.ends[B].qp.state(), QpState::Rts);
}

#[test]
fn zero_means_none() {
    for op in [read(0), add(0, 1)] {
        let mut world = pair(limited(0));
        world.post(A, write(0), vec![0; 8]);
        world.post(A, op, vec![0; 8]);
        world.run(SOON);
        assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS, WcStatus::LOC_QP_OP_ERR]);
    }
}

#[test]
fn a_peer_that_sends_more_is_refused() {
    let mut world = pair(limited(2));
    let start = world.ends[B].qp.rq_psn();
    // All at one time, so that none has been answered when the third one comes.
    let reth = Reth { va: va(0), rkey: KEY, len: 10 };
    let mut bytes = [0; 28];
    for index in 0..3 {
        let bth = ibex_wire::Bth::new(Opcode::RC_READ_REQUEST, ibex_proto::sim::qpn(B), start + index);
        bth.emit(bytes.first_chunk_mut().expect("12 bytes"));
        reth.emit(bytes.last_chunk_mut().expect("16 bytes"));
        world.net.deliver_at(world.now, B, &bytes);
    }
    world.step();
    assert_eq!(world.ends[B].events, [Event::QpReqErr]);
    assert_eq!(world.ends[B].qp.state(), QpState::Err);
}

#[test]
fn a_responder_without_resources_refuses_all() {
    let mut world = pair(EndConfig { max_dest_rd_atomic: 0, max_rd_atomic: 1, ..EndConfig::default() });
    world.post(A, read(0), vec![0; 8]);
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::REM_INV_REQ_ERR]);
}
