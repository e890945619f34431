//! The fence: a request waits for the data of earlier READs and atomics, and for nothing else.

use ibex_proto::SendWqe;
use ibex_proto::WcStatus;
use ibex_proto::sim::{EndConfig, World};
use ibex_wire::Opcode;

use crate::util::*;

fn fenced(world: &mut World, op: ibex_proto::SendOp, bytes: Vec<u8>) {
    let wqe = SendWqe { fence: true, ..wqe(op, bytes.len()) };
    world.try_post(A, wqe, bytes).expect("room");
}

#[test]
fn waits_for_read_data() {
    for first in [read(0), add(0, 1)] {
        let mut world = pair(EndConfig::default());
        let log = log(&mut world);
        world.post(A, first, vec![0; 8]);
        fenced(&mut world, write(0), vec![9; 8]);
        world.drain();
        assert_eq!(log.opcodes(A).len(), 1);
        assert!(!world.ends[A].qp.wants_transmit());
        world.run(SOON);
        assert_eq!(log.opcodes(A).len(), 2);
        assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS; 2]);
    }
}

#[test]
fn does_not_wait_for_acknowledgements() {
    let mut world = pair(EndConfig::default());
    let log = log(&mut world);
    world.post(A, write(0), vec![1; 8]);
    fenced(&mut world, write(0), vec![2; 8]);
    world.drain();
    assert_eq!(log.opcodes(A), [Opcode::RC_WRITE_ONLY; 2]);
}

#[test]
fn a_read_behind_does_not_hold_it() {
    let mut world = pair(EndConfig::default());
    let log = log(&mut world);
    fenced(&mut world, write(0), vec![2; 8]);
    world.post(A, read(0), vec![0; 8]);
    world.drain();
    assert_eq!(log.opcodes(A), [Opcode::RC_WRITE_ONLY, Opcode::RC_READ_REQUEST]);
}

#[test]
fn holds_through_a_retransmission() {
    let mut world = pair(EndConfig::default());
    world.ends[B].host.memory[..1000].copy_from_slice(&pattern(1000));
    let log = drop_first(&mut world, |seen| seen.opcode == Opcode::RC_READ_RESPONSE_MIDDLE);
    let cookie = world.post(A, read(0), vec![0; 1000]);
    fenced(&mut world, write(0), vec![9; 1000]);
    world.run(SOON);
    assert_eq!(world.ends[A].host.sends[&cookie], pattern(1000), "the READ saw the memory before the WRITE");
    let all = log.all();
    let write = all.iter().position(|seen| seen.opcode.is_write()).expect("written");
    let last = all.iter().rposition(|seen| seen.opcode == Opcode::RC_READ_RESPONSE_LAST).expect("read");
    assert!(last < write);
}

#[test]
fn several_in_a_row() {
    let mut world = pair(EndConfig::default());
    let cookies: Vec<u64> = (0..10u8)
        .map(|round| {
            fenced(&mut world, write(0), vec![round; 300]);
            world.post(A, read(0), vec![0xff; 300])
        })
        .collect();
    world.run(SOON);
    for (round, cookie) in cookies.iter().enumerate() {
        assert_eq!(world.ends[A].host.sends[cookie], vec![round as u8; 300]);
    }
}
