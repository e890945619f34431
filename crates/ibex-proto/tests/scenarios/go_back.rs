//! A peer that goes back after a loss and repeats everything, although what came ahead was kept.
//!
//! Such a peer may take the acknowledgement of a message that it is in the middle of repeating, without completing it, and
//! wait for nothing any more: Linux' rxe does.

use ibex_proto::sim::{BASE, EndConfig, World};
use ibex_proto::{Tuning, WcStatus};
use ibex_wire::{NakCode, Opcode, Psn, Reth, Syndrome};

use crate::util::*;

/// Packets of the message.
const PACKETS: u32 = 6;
const MTU: usize = 256;

/// Delivers packet `index` of a WRITE of [`PACKETS`] packets that begins at `first` to B.
fn deliver(world: &mut World, first: Psn, index: u32) {
    let reth = Reth { va: BASE, rkey: KEY, len: PACKETS * MTU as u32 };
    let headers: &[&dyn Emit] = if index == 0 { &[&reth] } else { &[] };
    let opcode = match index {
        0 => Opcode::RC_WRITE_FIRST,
        _ if index == PACKETS - 1 => Opcode::RC_WRITE_LAST,
        _ => Opcode::RC_WRITE_MIDDLE,
    };
    inject(world, B, opcode, first + index, headers, &[index as u8 + 1; MTU]);
}

/// What B has said since the last time: the acknowledgements' numbers, counted from `first`.
fn said(log: &Log, first: Psn) -> Vec<i32> {
    let acks: Vec<i32> = log
        .all()
        .iter()
        .filter(|seen| seen.from == B && seen.syndrome == Some(Syndrome::ACK))
        .map(|seen| seen.psn.distance_from(first))
        .collect();
    log.clear();
    acks
}

/// A world whose B has all of a message but packet 2, the first number, and the log.
fn all_but_one(tuning: Tuning) -> (World, Psn, Log) {
    let mut world = pair(EndConfig { tuning, ..EndConfig::default() });
    let log = log(&mut world);
    let first = world.ends[B].qp.rq_psn();
    for index in [0, 1, 3, 4, 5] {
        deliver(&mut world, first, index);
    }
    let missing = Some(Syndrome::Nak(NakCode::PSN_SEQUENCE));
    assert!(log.all().iter().any(|seen| seen.syndrome == missing && seen.psn == first + 2));
    log.clear();
    (world, first, log)
}

/// Once rxe waited for ever: told in the middle of repeating that the message was whole, and not told again at its end.
#[test]
fn a_message_is_not_acknowledged_whole_while_it_is_repeated() {
    let (mut world, first, log) = all_but_one(Tuning::default());
    deliver(&mut world, first, 2);
    assert_eq!(world.ends[B].host.written, u64::from(PACKETS) * MTU as u64, "executed at once all the same");
    assert_eq!(said(&log, first), [4]);
    for index in [3, 4, 1] {
        deliver(&mut world, first, index);
        assert_eq!(said(&log, first), [4], "repeating {index}");
    }
    deliver(&mut world, first, 5);
    assert_eq!(said(&log, first), [5]);
    // The peer goes back once more, as that one was lost.
    deliver(&mut world, first, 3);
    assert_eq!(said(&log, first), [4]);
    deliver(&mut world, first, 5);
    assert_eq!(said(&log, first), [5]);
}

/// As after the timeout of a peer to which the acknowledgement was lost.
#[test]
fn nor_when_nothing_was_missing() {
    let mut world = pair(EndConfig::default());
    let log = log(&mut world);
    let first = world.ends[B].qp.rq_psn();
    for index in 0..PACKETS {
        deliver(&mut world, first, index);
    }
    assert_eq!(said(&log, first).last(), Some(&5));
    for index in 0..PACKETS - 1 {
        deliver(&mut world, first, index);
        assert_eq!(said(&log, first), [4]);
    }
    deliver(&mut world, first, 5);
    assert_eq!(said(&log, first), [5]);
}

#[test]
fn what_follows_asks_for_the_end_too() {
    let (mut world, first, log) = all_but_one(Tuning::default());
    deliver(&mut world, first, 2);
    assert_eq!(said(&log, first), [4]);
    let reth = Reth { va: BASE, rkey: KEY, len: 1 };
    inject(&mut world, B, Opcode::RC_WRITE_ONLY, first + PACKETS, &[&reth], &[7]);
    assert_eq!(said(&log, first), [6]);
    // The message of one packet is sent whole or not at all.
    deliver(&mut world, first, 3);
    assert_eq!(said(&log, first), [6]);
}

#[test]
fn an_end_that_closes_acknowledges_the_end_too() {
    let (mut world, first, log) = all_but_one(Tuning::default());
    deliver(&mut world, first, 2);
    assert_eq!(said(&log, first), [4]);
    world.ends[B].qp.acknowledge_all();
    world.drain();
    assert_eq!(said(&log, first), [5]);
    world.ends[B].qp.acknowledge_all();
    world.drain();
    assert_eq!(said(&log, first), [], "once");
}

#[test]
fn a_peer_known_to_repair_is_told_at_once() {
    let (mut world, first, log) = all_but_one(Tuning { peer_repairs: true, ..Tuning::default() });
    deliver(&mut world, first, 2);
    assert_eq!(said(&log, first), [5]);
    deliver(&mut world, first, 1);
    assert_eq!(said(&log, first), [5]);
}

/// The requester of this crate, not known to the peer, repeats the end with what is missing and does not wait for a probe.
#[test]
fn a_repair_brings_the_end_along() {
    for lost in 0..PACKETS {
        let mut world = pair(EndConfig { timeout: Some(50_000_000), ..EndConfig::default() });
        let start = world.ends[A].qp.sq_psn();
        world.post(A, write(0), pattern(MTU * PACKETS as usize));
        world.run(SOON);
        let before = world.now;
        let log = drop_first(&mut world, move |seen| seen.from == A && seen.psn == start + PACKETS + lost);
        world.post(A, write(0), pattern(MTU * PACKETS as usize));
        world.run(SOON);
        assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS; 2]);
        let counters = world.ends[A].qp.counters();
        let is_end = lost == PACKETS - 1;
        assert_eq!((counters.timeouts, counters.probes), (0, u64::from(is_end)), "{lost}");
        // The probe for a lost end is the first packet, and the NAK then asks for the last one.
        assert!(log.opcodes(A).len() <= PACKETS as usize + 3, "{lost}: {:?}", log.all());
        assert!(is_end || world.now - before < 100_000, "{lost}: {}", world.now - before);
    }
}

/// The second-to-last packet lost again and again says nothing about the peer: it keeps what follows.
#[test]
fn a_repair_next_to_the_end_is_no_strike() {
    let mut world = pair(EndConfig { timeout: Some(50_000_000), ..EndConfig::default() });
    // One by one, each answered before the next arrives.
    world.net.faults.spacing = 1000;
    for round in 0..6 {
        let start = world.ends[A].qp.sq_psn();
        let log = drop_first(&mut world, move |seen| seen.from == A && seen.psn == start + PACKETS - 2);
        world.post(A, write(0), pattern(MTU * PACKETS as usize));
        world.run(SOON);
        assert_eq!(log.opcodes(A).len(), PACKETS as usize + 2, "round {round}");
    }
    // Of the packets behind a hole further from the end none is repeated but the last.
    let start = world.ends[A].qp.sq_psn();
    let log = drop_first(&mut world, move |seen| seen.from == A && seen.psn == start + 1);
    world.post(A, write(0), pattern(MTU * 2 * PACKETS as usize));
    world.run(SOON);
    assert_eq!(log.opcodes(A).len(), 2 * PACKETS as usize + 2);
}
