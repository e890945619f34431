//! Sequence errors: one NAK until the missing packet has come, and the timer when that NAK is lost.

use ibex_proto::sim::{EndConfig, Fate};
use ibex_proto::{Tuning, WcStatus};
use ibex_wire::{NakCode, Opcode, Syndrome};

use crate::util::*;

const SEQUENCE: Option<Syndrome> = Some(Syndrome::Nak(NakCode::PSN_SEQUENCE));

/// Ends that drop what comes too soon.
fn dropping() -> EndConfig {
    let tuning = Tuning { keep_ahead: 0, peer_repairs: true, ..Tuning::default() };
    EndConfig { tuning, ..EndConfig::default() }
}

#[test]
fn one_nak_brings_back_everything_behind_the_gap() {
    let mut world = pair(dropping());
    let start = world.ends[A].qp.sq_psn();
    let log = drop_first(&mut world, move |seen| seen.psn == start + 2);
    world.post(A, write(0), pattern(256 * 10));
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS]);
    assert_eq!(&world.ends[B].host.memory[..2560], pattern(2560));
    assert_eq!(log.count(|seen| seen.syndrome == SEQUENCE), 1, "seven packets were out of sequence");
    assert_eq!(world.ends[B].qp.counters().out_of_sequence, 7);
    // Ten, and eight again from the missing one on; it goes on as a message in its middle.
    assert_eq!(log.opcodes(A).len(), 18);
    assert_eq!(log.opcodes(A)[10], Opcode::RC_WRITE_MIDDLE);
    assert_eq!(world.ends[A].qp.counters().timeouts, 0);
}

#[test]
fn the_timer_makes_up_for_a_lost_nak() {
    let mut world = pair(EndConfig::default());
    let start = world.ends[A].qp.sq_psn();
    let mut armed = true;
    let log = watch(&mut world, move |seen| {
        let first_time = armed && seen.psn == start + 2;
        armed &= !first_time;
        if first_time || seen.syndrome == SEQUENCE { Fate::Drop } else { Fate::Pass }
    });
    world.post(A, write(0), pattern(256 * 10));
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS]);
    assert_eq!(log.count(|seen| seen.syndrome == SEQUENCE), 1);
    assert_eq!(world.ends[A].qp.counters().timeouts, 1);
}

#[test]
fn a_repeated_nak_is_answered_once() {
    let mut world = pair(dropping());
    let start = world.ends[A].qp.sq_psn();
    let mut armed = true;
    let log = watch(&mut world, move |seen| {
        if armed && seen.psn == start + 2 {
            armed = false;
            return Fate::Drop;
        }
        if seen.syndrome == SEQUENCE { Fate::Twice } else { Fate::Pass }
    });
    world.post(A, write(0), pattern(256 * 10));
    world.run(SOON);
    assert_eq!(log.opcodes(A).len(), 18);
}

#[test]
fn a_packet_that_is_only_late() {
    let mut world = pair(EndConfig::default());
    let start = world.ends[A].qp.sq_psn();
    watch(&mut world, move |seen| if seen.psn == start + 2 { Fate::Late(500) } else { Fate::Pass });
    for round in 0..6 {
        world.post(A, write(round * 8), pattern(8));
    }
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS; 6]);
    assert_eq!(world.ends[B].host.written, 48, "each once");
}

#[test]
fn a_nak_whose_packet_has_come_is_not_sent() {
    let mut world = pair(dropping());
    let log = log(&mut world);
    let start = world.ends[B].qp.rq_psn();
    // Both arrive before anything is answered, the wrong way round.
    let reth = ibex_wire::Reth { va: va(0), rkey: KEY, len: 4 };
    for psn in [start + 1, start] {
        let bytes = craft(B, Opcode::RC_WRITE_ONLY, psn, &[&reth], &[1; 4]);
        world.net.deliver_at(world.now, B, &bytes);
    }
    world.step();
    let answers: Vec<_> = log.all().iter().map(|seen| (seen.syndrome, seen.psn)).collect();
    assert_eq!(answers, [(Some(Syndrome::ACK), start)]);
}
