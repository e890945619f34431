//! Repairing a loss: what came too soon is kept, only what is missing is sent again, and in vain as little as can be.

use ibex_proto::sim::{EndConfig, Fate, World};
use ibex_proto::{QpState, SendOp, Tuning, WcStatus};
use ibex_wire::{NakCode, Opcode, Psn, Reth, Syndrome};

use crate::util::*;

const SEQUENCE: Option<Syndrome> = Some(Syndrome::Nak(NakCode::PSN_SEQUENCE));
const START: Psn = Psn::new(100);

/// Ends that know of each other how they repair.
fn with(tuning: Tuning) -> EndConfig {
    let tuning = Tuning { peer_repairs: true, ..tuning };
    EndConfig { tuning, sq_depth: 256, timeout: Some(50_000_000), ..EndConfig::default() }
}

/// Drops the packets with these distances from the first one, once each.
fn drop_once(world: &mut World, distances: &[u32]) -> Log {
    let mut armed = distances.to_vec();
    watch(world, move |seen| {
        let at = armed.iter().position(|distance| seen.from == A && seen.psn == START + *distance);
        match at {
            Some(at) => {
                armed.swap_remove(at);
                Fate::Drop
            }
            None => Fate::Pass,
        }
    })
}

#[test]
fn only_the_missing_packets_are_sent_again() {
    let mut world = pair(with(Tuning::default()));
    let log = drop_once(&mut world, &[3, 9, 20]);
    let recv = world.recv(B, 256 * 30);
    world.send(A, &pattern(256 * 30));
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS]);
    assert_eq!(world.ends[B].host.recv_taken[&recv], pattern(256 * 30));
    assert_eq!(world.ends[B].host.placed, 256 * 30, "each byte once");
    assert_eq!(log.opcodes(A).len(), 33);
    let naks: Vec<_> =
        log.all().iter().filter(|seen| seen.syndrome == SEQUENCE).map(|seen| seen.psn).collect();
    assert_eq!(naks, [START + 3, START + 9, START + 20], "one for each hole, at once when it is the next");
    assert_eq!((world.ends[A].qp.counters().timeouts, world.ends[A].qp.counters().probes), (0, 0));
}

#[test]
fn messages_kept_are_executed_in_order_and_not_before_their_turn() {
    let mut world = pair(with(Tuning::default()));
    drop_once(&mut world, &[0]);
    world.post(A, write(0), vec![1; 256]);
    world.post(A, write(0), vec![2; 256]);
    world.post(A, add(512, 5), vec![0; 8]);
    world.post(A, read(0), vec![0; 256]);
    world.drain();
    world.step();
    assert_eq!((world.ends[B].host.written, world.ends[B].host.atomics), (0, 0), "nothing ahead of its turn");
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS; 4]);
    assert_eq!((world.ends[B].host.written, world.ends[B].host.atomics), (512, 1));
    assert_eq!(world.ends[B].host.memory[..256], [2; 256], "the second WRITE is the later one");
    assert_eq!(world.ends[A].host.sends[&4], vec![2; 256]);
}

#[test]
fn a_long_gap_is_found_by_doubling() {
    let mut world = pair(with(Tuning::default()));
    // A first small loss tells the requester what the peer does.
    let gap: Vec<u32> = [1].into_iter().chain(10..26).collect();
    let log = drop_once(&mut world, &gap);
    world.post(A, write(0), pattern(256 * 40));
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS]);
    assert_eq!(world.ends[B].host.memory[..256 * 40], pattern(256 * 40));
    let sent = log.opcodes(A).len();
    assert!((57..=57 + 16).contains(&sent), "{sent}: forty, seventeen again, and less than twice the gap");
    assert_eq!(world.ends[A].qp.counters().timeouts, 0);
}

#[test]
fn a_peer_that_drops_is_recognised_and_served_by_going_back() {
    let mut world = pair(with(Tuning { keep_ahead: 0, ..Tuning::default() }));
    for round in 0..6 {
        let start = world.ends[A].qp.sq_psn();
        let log = drop_first(&mut world, move |seen| seen.psn == start + 2);
        world.post(A, write(0), pattern(256 * 10));
        world.run(SOON);
        // One probing burst of one packet at most, then everything behind the gap.
        // Later the window is shorter than the message, and less was in vain.
        let sent = log.opcodes(A).len();
        assert!(sent == 18 || round > 2 && sent < 18, "{sent} in round {round}");
        assert_eq!(log.count(|seen| seen.syndrome == SEQUENCE), 1);
    }
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS; 6]);
    assert_eq!((world.ends[A].qp.counters().timeouts, world.ends[A].qp.counters().probes), (0, 0));
}

#[test]
fn a_lost_nak_is_repeated_when_the_peer_asks() {
    let mut world = pair(with(Tuning { ack_every: 4, ..Tuning::default() }));
    let (mut armed, mut naks) = (true, 0);
    let log = watch(&mut world, move |seen| {
        let lost = armed && seen.psn == START + 1 && seen.from == A;
        armed &= !lost;
        naks += u32::from(seen.syndrome == SEQUENCE);
        if lost || (seen.syndrome == SEQUENCE && naks == 1) { Fate::Drop } else { Fate::Pass }
    });
    world.net.faults.spacing = 1000;
    world.post(A, write(0), pattern(256 * 20));
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS]);
    assert!(log.count(|seen| seen.syndrome == SEQUENCE) > 1);
    assert_eq!(world.ends[A].qp.counters().timeouts, 0);
    assert!((21..=22).contains(&log.opcodes(A).len()), "twenty, and the missing one when it was asked for");
}

#[test]
fn a_lost_tail_is_probed_for_long_before_the_timeout() {
    let mut world = pair(with(Tuning::default()));
    world.post(A, write(0), pattern(8));
    world.run(SOON);
    let before = world.now;
    let log = drop_first(&mut world, |seen| seen.from == A);
    world.post(A, write(0), pattern(8));
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS; 2]);
    let counters = world.ends[A].qp.counters();
    assert_eq!((counters.probes, counters.timeouts, counters.retransmissions), (1, 0, 0));
    assert!(world.now - before < 5_000_000, "{}", world.now - before);
    assert_eq!(log.opcodes(A).len(), 2);
}

#[test]
fn probes_do_not_keep_a_dead_peer_alive() {
    let mut world = pair(EndConfig { retry: Some(1), ..with(Tuning::default()) });
    world.post(A, write(0), pattern(8));
    world.run(SOON);
    let log = watch(&mut world, |_| Fate::Drop);
    world.post(A, write(0), pattern(8));
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses()[1], WcStatus::RETRY_EXC_ERR);
    assert_eq!(world.ends[A].qp.counters().timeouts, 2);
    assert!(log.opcodes(A).len() < 16, "a few probes between the timeouts, fewer and fewer");
}

#[test]
fn without_a_receive_request_what_was_kept_waits_too() {
    let mut world = pair(with(Tuning::default()));
    drop_once(&mut world, &[0]);
    let first = world.recv(B, 300);
    for round in 0..4 {
        world.send(A, &[round; 300]);
    }
    for _ in 0..6 {
        world.drain();
        world.step();
    }
    assert_eq!(world.ends[B].recvs().len(), 1);
    let others: Vec<u64> = (0..3).map(|_| world.recv(B, 300)).collect();
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS; 4]);
    let cookies: Vec<u64> = world.ends[B].recvs().iter().map(|done| done.cookie).collect();
    assert_eq!(cookies, [&[first][..], &others].concat());
    for (round, cookie) in cookies.iter().enumerate() {
        assert_eq!(world.ends[B].host.recv_taken[cookie], [round as u8; 300]);
    }
}

#[test]
fn a_kept_request_that_is_refused_ends_the_connection_when_its_turn_comes() {
    let mut world = pair(with(Tuning::default()));
    drop_once(&mut world, &[0]);
    world.post(A, write(0), pattern(8));
    world.post(A, SendOp::Write { rkey: ibex_wire::Rkey(99), va: va(0), imm: None }, pattern(8));
    world.post(A, write(0), pattern(8));
    world.drain();
    world.step();
    assert_eq!(world.ends[B].qp.state(), QpState::Rts);
    world.run(SOON);
    let statuses = [WcStatus::SUCCESS, WcStatus::REM_ACCESS_ERR, WcStatus::WR_FLUSH_ERR];
    assert_eq!(world.ends[A].send_statuses(), statuses);
    assert_eq!(world.ends[B].host.written, 8);
}

#[test]
fn a_hostile_peer_finds_a_bound() {
    let mut world = pair(with(Tuning { keep_ahead: 16, ..Tuning::default() }));
    let start = world.ends[B].qp.rq_psn();
    let reth = Reth { va: va(0), rkey: KEY, len: 8 };
    // Near and far, again and again, and one whose packets would reach over the others.
    for distance in [1, 16, 17, 1000, 1 << 22, 16, 2] {
        inject(&mut world, B, Opcode::RC_WRITE_ONLY, start + distance, &[&reth], &[1; 8]);
    }
    let long = Reth { va: va(0), rkey: KEY, len: 256 * 8 };
    inject(&mut world, B, Opcode::RC_READ_REQUEST, start + 3, &[&long], &[]);
    inject(&mut world, B, Opcode::RC_WRITE_ONLY, start + 5, &[&reth], &[1; 8]);
    assert_eq!(world.ends[B].host.written, 0);
    inject(&mut world, B, Opcode::RC_WRITE_ONLY, start, &[&reth], &[1; 8]);
    world.drain();
    // 0 to 2 were there, the READ takes 3 to 10 and what was kept within it is void; 16 waits for 11.
    assert_eq!(world.ends[B].host.written, 24);
    assert_eq!(world.ends[B].qp.rq_psn(), start + 11);
    inject(&mut world, B, Opcode::RC_WRITE_ONLY, start + 11, &[&reth], &[1; 8]);
    assert_eq!(world.ends[B].qp.rq_psn(), start + 12);
}
