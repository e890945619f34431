//! Acknowledgements: coalesced, lost, and implied by later answers.

use ibex_proto::WcStatus;
use ibex_proto::sim::{EndConfig, Fate};
use ibex_wire::Opcode;

use crate::util::*;

#[test]
fn a_lost_one_is_asked_for_again_and_nothing_is_executed_twice() {
    let mut world = pair(EndConfig::default());
    let log = drop_first(&mut world, |seen| seen.opcode == Opcode::RC_ACK);
    world.recv(B, 100);
    world.recv(B, 100);
    world.send(A, b"once");
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS]);
    assert_eq!(world.ends[B].recvs().len(), 1);
    assert_eq!(log.opcodes(A), [Opcode::RC_SEND_ONLY; 2]);
    assert_eq!(world.ends[A].qp.counters().timeouts, 1);
}

#[test]
fn one_acknowledgement_covers_a_batch() {
    let mut world = pair(EndConfig::default());
    let log = log(&mut world);
    for round in 0..20 {
        world.post(A, write(round), pattern(1));
    }
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS; 20]);
    // They arrive at one time, and are answered before the next thing happens.
    assert_eq!(log.opcodes(B), [Opcode::RC_ACK]);
}

#[test]
fn one_may_wait_for_a_request_of_its_own_side() {
    let mut world = pair(EndConfig::default());
    let log = log(&mut world);
    world.post(A, write(0), pattern(1));
    world.post(B, write(0), pattern(1));
    world.requests_first = true;
    // A's request is on its way; before B sends its own, A's arrives and is to be acknowledged.
    world.ends[B].qp.to_sqd(false).expect("from RTS");
    world.drain();
    world.ends[B].qp.resume().expect("from SQD");
    world.step();
    assert_eq!(log.opcodes(B), [Opcode::RC_WRITE_ONLY, Opcode::RC_ACK]);
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS]);
    assert_eq!(world.ends[B].send_statuses(), [WcStatus::SUCCESS]);
}

#[test]
fn data_owed_never_waits_for_a_request() {
    let mut world = pair(EndConfig::default());
    world.post(A, read(0), vec![0; 8]);
    world.post(A, write(0), pattern(1));
    world.drain();
    world.ends[B].qp.to_sqd(false).expect("from RTS");
    let mut probe = false;
    while let Some(next) = world.next() {
        world.now = next;
        let Some((to, bytes)) = world.net.receive(next) else { break };
        let end = &mut world.ends[to];
        let packet = ibex_wire::Packet::parse(&bytes).expect("valid");
        end.qp.handle_packet(next, &packet, &mut end.host);
        probe |= end.qp.owes_only_ack();
    }
    assert!(!probe, "a READ's data comes before the acknowledgement of the WRITE");
}

#[test]
fn a_later_one_makes_up_for_a_lost_one() {
    let mut world = pair(EndConfig::default());
    drop_first(&mut world, |seen| seen.opcode == Opcode::RC_ACK);
    world.post(A, write(0), pattern(1));
    world.drain();
    world.step();
    world.post(A, write(0), pattern(1));
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS; 2]);
    assert_eq!(world.ends[A].qp.counters().retransmissions, 0);
}

#[test]
fn read_data_and_atomic_results_acknowledge_what_came_before() {
    for op in [read(0), add(0, 1)] {
        let mut world = pair(EndConfig::default());
        watch(&mut world, |seen| if seen.opcode == Opcode::RC_ACK { Fate::Drop } else { Fate::Pass });
        world.post(A, write(0), pattern(700));
        world.post(A, op, vec![0; 8]);
        world.run(SOON);
        assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS; 2]);
        assert_eq!(world.ends[A].qp.counters().retransmissions, 0);
    }
}

#[test]
fn a_long_message_is_acknowledged_on_the_way() {
    let mut world = pair(EndConfig::default());
    let log = log(&mut world);
    let packets = 100;
    world.post(A, write(0), pattern(256 * packets));
    world.run(SOON);
    let asked: Vec<usize> = log
        .all()
        .iter()
        .filter(|seen| seen.from == A)
        .enumerate()
        .filter(|(_, seen)| seen.ack_req)
        .map(|(at, _)| at)
        .collect();
    // Four times in the first window of 64; then it is larger, but not four times the default of 32; and at the end.
    assert_eq!(asked, [15, 31, 47, 63, 95, 99]);
}

#[test]
fn stale_ones_do_nothing() {
    let mut world = pair(EndConfig::default());
    let start = world.ends[A].qp.sq_psn();
    world.post(A, write(0), pattern(1));
    world.run(SOON);
    let aeth = |syndrome| ibex_wire::Aeth { syndrome, msn: 1 };
    for syndrome in (0..=255).map(ibex_wire::Syndrome::from_byte) {
        for psn in [start, start - 1, start + 1, start + 2, start + (1 << 23), start - (1 << 23)] {
            inject(&mut world, A, Opcode::RC_ACK, psn, &[&aeth(syndrome)], &[]);
        }
    }
    world.post(A, write(0), pattern(1));
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS; 2]);
    assert_eq!(world.ends[A].qp.counters().retransmissions, 0);
}

/// Once `ibv_rc_pingpong` on rxe waited for ever: the last acknowledgement was lost, and this end had left.
#[test]
fn the_last_one_is_said_again_by_an_end_that_closes() {
    let mut world = pair(EndConfig { timeout: None, ..EndConfig::default() });
    let log = drop_first(&mut world, |seen| seen.opcode == Opcode::RC_ACK);
    world.recv(B, 100);
    world.send(A, b"goodbye");
    world.run(SOON);
    assert_eq!((world.ends[B].recvs().len(), world.ends[A].send_statuses().len()), (1, 0));
    world.ends[B].qp.acknowledge_again();
    world.drain();
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS]);
    assert_eq!((log.opcodes(A).len(), log.opcodes(B).len()), (1, 2));
    world.ends[B].qp.acknowledge_again();
    assert!(!world.ends[B].qp.wants_transmit(), "it is not said a third time");
}

#[test]
fn an_end_that_closes_does_not_acknowledge_data_in_place_of_sending_it() {
    let mut world = pair(EndConfig::default());
    world.ends[B].qp.acknowledge_again();
    assert!(!world.ends[B].qp.wants_transmit(), "nothing was received");
    for op in [read(0), add(0, 1)] {
        world.post(A, op, vec![0; 8]);
        world.run(SOON);
        world.ends[B].qp.acknowledge_again();
        assert!(!world.ends[B].qp.wants_transmit(), "{op:?}");
    }
    world.post(A, write(0), pattern(1));
    world.run(SOON);
    world.ends[B].qp.acknowledge_again();
    assert!(world.ends[B].qp.wants_transmit());
}

/// As when `ibv_srq_pingpong` leaves: it has enough, and the peer is in the middle of one more.
#[test]
fn an_end_that_closes_in_the_middle_of_a_message_says_it_again_too() {
    let mut world = pair(EndConfig { timeout: None, ..EndConfig::default() });
    let mut acks = 0;
    let log = watch(&mut world, move |seen| {
        acks += u32::from(seen.opcode == Opcode::RC_ACK);
        // Of the next message only the beginning arrives.
        let lost = seen.opcode == Opcode::RC_ACK && acks <= 2 || seen.opcode == Opcode::RC_SEND_LAST;
        if lost { Fate::Drop } else { Fate::Pass }
    });
    for _ in 0..2 {
        world.recv(B, 1000);
    }
    world.send(A, b"goodbye");
    world.send(A, &pattern(600));
    world.run(SOON);
    assert_eq!((world.ends[B].recvs().len(), world.ends[A].send_statuses().len()), (1, 0));
    world.ends[B].qp.acknowledge_all();
    world.drain();
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), []);
    world.ends[B].qp.acknowledge_again();
    world.drain();
    while world.ends[A].send_statuses().is_empty() {
        assert!(world.step(), "{:?}", log.all());
    }
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS]);
}
