//! Which express messages are taken in: what is expected, and nothing else.

use ibex_proto::sim::{EndConfig, World, qpn};
use ibex_proto::{Ack, SendOp, SendWqe, WcStatus};
use ibex_wire::{
    Aeth, Bth, Header as _, MAX_PACKET, NakCode, Opcode, Packet, Pkey, Psn, Rkey, Syndrome, padding,
};

use super::{Record, SEND, config, deliver, expects, express, express_as, roomy};
use crate::util::*;

/// A's next number, and what B's requests begin with.
const PSN: Psn = Psn::new(100);
const BACK: Psn = Psn::new(0x80_0000);

/// A SEND of A's, as it comes to B.
fn message(psn: Psn, len: usize) -> Record {
    made(Bth { ack_req: true, ..Bth::new(Opcode::RC_SEND_ONLY, qpn(B), psn) }, len)
}

fn made(bth: Bth, len: usize) -> Record {
    let pad = padding(len);
    let mut packet = vec![0; bth.opcode.header_len() + len + pad];
    Bth { pad: pad as u8, ..bth }.put(&mut packet).expect("room");
    Record { packet, ack: None }
}

fn beside(record: Record, psn: Psn, syndrome: Syndrome) -> Record {
    Record { ack: Some(Ack { psn, aeth: Aeth { syndrome, msn: 1 } }), ..record }
}

/// What can be seen of a queue pair from outside.
fn look(world: &World, end: usize) -> impl PartialEq + std::fmt::Debug {
    let qp = &world.ends[end].qp;
    let flags = [qp.wants_transmit(), qp.wants_request(), qp.owes_only_ack(), qp.is_idle()];
    (qp.state(), qp.sq_psn(), qp.rq_psn(), *qp.counters(), qp.poll_timeout(), flags)
}

/// That B does not expect it, and that asking changes nothing.
fn refused(world: &World, record: &Record, why: &str) {
    let before = look(world, B);
    assert!(!expects(world, B, record), "{why}");
    assert_eq!(look(world, B), before, "{why}");
}

/// Takes the next packet of `end`'s and keeps it from the network.
fn next(world: &mut World, end: usize) -> Vec<u8> {
    let mut buf = [0; MAX_PACKET];
    let now = world.now;
    let end = &mut world.ends[end];
    let sent = end.qp.poll_transmit(now, &mut end.host, &mut buf).expect("a packet");
    buf[..sent.len].to_vec()
}

fn hand(world: &mut World, end: usize, bytes: &[u8]) {
    let now = world.now;
    let end = &mut world.ends[end];
    end.qp.handle_packet(now, &Packet::parse(bytes).expect("sound"), &mut end.host);
}

/// B has sent `messages` signalled messages that nobody has seen.
fn outstanding(messages: u64) -> World {
    let mut world = pair(config());
    for cookie in 0..messages {
        let wqe = SendWqe { cookie, ..SEND };
        express_as(&mut world, B, wqe, &pattern(10), &0).expect("room in the window");
    }
    world
}

#[test]
fn what_is_next_is_taken_in() {
    let mut world = pair(config());
    for (number, len) in [0, 1, 3, 4, 256].into_iter().enumerate() {
        let recv = world.recv(B, 256);
        let wqe = SendWqe { len, solicited: number % 2 == 0, ..SEND };
        let record = express(&mut world, 7, wqe).expect("free");
        assert!(deliver(&mut world, B, &record, &0));
        let done = *world.ends[B].recvs().last().expect("one");
        let expected = (recv, WcStatus::SUCCESS, len, wqe.solicited);
        assert_eq!((done.cookie, done.status, done.byte_len, done.solicited), expected);
        assert_eq!(world.ends[B].host.recv_taken[&recv][..len as usize], pattern(len as usize));
        assert_eq!(world.ends[B].qp.rq_psn(), world.ends[A].qp.sq_psn());
        let ack = next(&mut world, B);
        hand(&mut world, A, &ack);
        assert!(world.ends[A].qp.is_idle());
        world.drain();
    }
    assert_eq!(world.ends[A].sends().len(), 5);
    assert_eq!(world.ends[B].qp.counters().received, 5);
}

#[test]
fn another_number_is_not_expected() {
    let mut world = pair(config());
    world.recv(B, 16);
    refused(&world, &message(PSN.prev(), 10), "before the first");
    refused(&world, &message(PSN.next(), 10), "ahead");
    refused(&world, &message(PSN + 0x80_0000, 10), "half a circle away");
    let record = express(&mut world, 7, SEND).expect("free");
    assert!(deliver(&mut world, B, &record, &0));
    next(&mut world, B);
    refused(&world, &record, "a duplicate");
    assert!(!deliver(&mut world, B, &record, &0));
    assert_eq!(world.ends[B].qp.counters().duplicate_requests, 1);
    next(&mut world, B);
    assert!(expects(&world, B, &message(PSN.next(), 10)));
}

#[test]
fn other_packets_are_not_expected() {
    let world = pair(config());
    assert!(expects(&world, B, &message(PSN, 256)));
    refused(&world, &message(PSN, 260), "longer than a packet");
    let bth = *Packet::parse(&message(PSN, 0).packet).expect("sound").bth();
    refused(&world, &made(Bth { pkey: Pkey(0x8001), ..bth }, 0), "another partition");
    for opcode in [
        Opcode::RC_SEND_FIRST,
        Opcode::RC_SEND_MIDDLE,
        Opcode::RC_SEND_LAST,
        Opcode::RC_SEND_ONLY_IMM,
        Opcode::RC_SEND_ONLY_INV,
        Opcode::RC_WRITE_ONLY,
        Opcode::RC_READ_REQUEST,
        Opcode::RC_FETCH_ADD,
        Opcode::RC_ACK,
        Opcode::UC_SEND_ONLY,
    ] {
        let rc = world.ends[B].qp.as_rc().expect("RC");
        assert!(!rc.expects_express(&Bth { opcode, ..bth }, 8, None), "{opcode:?}");
    }
}

#[test]
fn in_rts_only() {
    let mut world = pair(config());
    world.ends[B].qp.to_sqd(false).expect("from RTS");
    refused(&world, &message(PSN, 10), "SQD");
    world.ends[B].qp.resume().expect("from SQD");
    assert!(expects(&world, B, &message(PSN, 10)));
    world.ends[B].qp.set_error();
    refused(&world, &message(PSN, 10), "ERR");
    world.ends[B].qp.reset();
    refused(&world, &message(PSN, 10), "RESET");
}

#[test]
fn an_acknowledgement_beside_covers_everything_or_it_is_not_expected() {
    let ack = |psn| beside(message(PSN, 10), psn, Syndrome::ACK);
    let world = pair(config());
    refused(&world, &ack(BACK.prev()), "nothing has been sent");
    refused(&world, &ack(BACK), "of what was not sent");

    let world = outstanding(2);
    assert!(expects(&world, B, &ack(BACK.next())));
    assert!(expects(&world, B, &beside(message(PSN, 10), BACK.next(), Syndrome::Ack { credits: 0 })));
    refused(&world, &ack(BACK), "of a part");
    refused(&world, &ack(BACK.prev()), "nothing new");
    refused(&world, &ack(BACK + 2), "beyond what was sent");
    refused(&world, &ack(BACK + 0x80_0000), "half a circle away");
    refused(&world, &message(PSN, 10), "one was asked for and is on its way");
    for syndrome in [
        Syndrome::RnrNak { timer: 1 },
        Syndrome::Nak(NakCode::PSN_SEQUENCE),
        Syndrome::Nak(NakCode::REMOTE_ACCESS),
        Syndrome::Reserved(0),
    ] {
        refused(&world, &beside(message(PSN, 10), BACK.next(), syndrome), "no acknowledgement");
    }

    // One that is posted and not sent is not covered.
    let mut world = outstanding(2);
    world.try_post(B, SEND, pattern(10)).expect("room");
    refused(&world, &ack(BACK.next()), "one waits to be sent");
    refused(&world, &ack(BACK + 2), "it was not sent");
}

#[test]
fn what_was_acknowledged_completes_before_the_message() {
    let mut world = outstanding(3);
    world.recv(B, 16);
    let record = beside(message(PSN, 10), BACK + 2, Syndrome::ACK);
    assert!(deliver(&mut world, B, &record, &0));
    let end = &world.ends[B];
    let sends: Vec<_> = end.sends().iter().map(|done| (done.cookie, done.status)).collect();
    assert_eq!(sends, [(0, WcStatus::SUCCESS), (1, WcStatus::SUCCESS), (2, WcStatus::SUCCESS)]);
    assert!(matches!(end.completions[..], [_, _, _, ibex_proto::Completion::Recv(_)]));
    assert!(end.qp.is_idle());
    assert_eq!((end.qp.counters().received, end.qp.poll_timeout()), (2, None));
}

#[test]
fn what_waits_for_data_goes_the_usual_way() {
    let mut world = pair(config());
    world.post(B, read(0), vec![0; 8]);
    refused(&world, &message(PSN, 10), "a READ is to be sent");
    next(&mut world, B);
    refused(&world, &message(PSN, 10), "its data is on its way");
    refused(&world, &beside(message(PSN, 10), BACK, Syndrome::ACK), "an acknowledgement is not its data");
    express_as(&mut world, B, SendWqe { cookie: 9, ..SEND }, &pattern(10), &0).expect("free");
    refused(&world, &beside(message(PSN, 10), BACK.next(), Syndrome::ACK), "nor is one behind it");
}

#[test]
fn local_operations_complete_the_usual_way() {
    let mut world = outstanding(1);
    let rkey = Rkey(0x70);
    world.ends[B].host.expose(rkey, 0, 64, ibex_proto::RemoteAccess::ALL);
    world.post(B, SendOp::LocalInv { rkey }, Vec::new());
    world.drain();
    assert_eq!(world.ends[B].host.local, [rkey]);
    refused(&world, &beside(message(PSN, 10), BACK, Syndrome::ACK), "it completes behind the message");
}

#[test]
fn what_is_not_fetched_comes_first() {
    let mut world = pair(config());
    world.recv(B, 16);
    world.recv(B, 16);
    let record = express(&mut world, 7, SendWqe { signaled: false, ..SEND }).expect("free");
    // The usual way, as if there had been a reason.
    hand(&mut world, B, &record.packet);
    next(&mut world, B);
    refused(&world, &message(PSN.next(), 10), "a receive completion is to be fetched");
    world.drain();
    assert!(expects(&world, B, &message(PSN.next(), 10)));

    let mut world = outstanding(1);
    world.recv(B, 16);
    let ack = craft(B, Opcode::RC_ACK, BACK, &[&Aeth { syndrome: Syndrome::ACK, msn: 1 }], &[]);
    hand(&mut world, B, &ack);
    refused(&world, &message(PSN, 10), "a send completion is to be fetched");
    world.drain();
    assert!(expects(&world, B, &message(PSN, 10)));
}

#[test]
fn what_is_owed_already_is_paid_first() {
    let mut world = pair(config());
    for _ in 0..2 {
        world.recv(B, 16);
    }
    let first = express(&mut world, 7, SEND).expect("free");
    let second = express(&mut world, 8, SEND).expect("free");
    assert!(deliver(&mut world, B, &first, &0));
    refused(&world, &second, "an acknowledgement is owed");
    next(&mut world, B);
    assert!(expects(&world, B, &second));

    let mut world = pair(config());
    let first = express(&mut world, 7, SEND).expect("free");
    assert!(!deliver(&mut world, B, &first, &0), "there is no receive request");
    assert_eq!(world.ends[B].qp.counters().rnr_naks_sent, 1);
    refused(&world, &message(PSN, 10), "a NAK is owed");
    next(&mut world, B);
    refused(&world, &message(PSN, 10), "the sender has been asked to wait");
}

#[test]
fn a_message_half_received_or_kept_ahead_comes_first() {
    let mut world = pair(config());
    world.recv(B, 1000);
    world.send(A, &pattern(300));
    let first = next(&mut world, A);
    hand(&mut world, B, &first);
    refused(&world, &message(PSN.next(), 10), "inside another message");

    let mut world = pair(config());
    express(&mut world, 7, SEND).expect("free");
    let second = express(&mut world, 8, SEND).expect("free");
    assert!(!deliver(&mut world, B, &second, &0));
    next(&mut world, B);
    refused(&world, &message(PSN, 10), "the next has come already");
}

/// Once there is a round trip, silence is met by a repair: what is acknowledged then may prove something.
#[test]
fn while_a_loss_is_repaired_the_usual_way() {
    let mut world = pair(EndConfig { timeout: None, ..config() });
    world.recv(A, 16);
    world.send(B, &pattern(4));
    world.run(SOON);
    let from = world.ends[B].qp.sq_psn();
    let now = world.now;
    for cookie in 60..62 {
        express_as(&mut world, B, SendWqe { cookie, ..SEND }, &pattern(10), &now).expect("free");
    }
    let due = world.ends[B].qp.poll_timeout().expect("a probe");
    world.ends[B].qp.handle_timeout(due);
    let ack = beside(message(PSN, 10), from.next(), Syndrome::ACK);
    refused(&world, &ack, "a probe is to be sent");
    next(&mut world, B);
    refused(&world, &ack, "a probe is on its way");
}

/// Messages that ask for no acknowledgement are not in the way of what comes.
#[test]
fn what_has_not_been_asked_for_is_not_waited_for() {
    let mut world = pair(roomy());
    world.recv(A, 16);
    world.send(B, &pattern(4));
    world.run(SOON);
    world.recv(B, 16);
    let now = world.now;
    let wqe = SendWqe { cookie: 60, signaled: false, ..SEND };
    let sent = express_as(&mut world, B, wqe, &pattern(10), &now).expect("free");
    assert!(!Packet::parse(&sent.packet).expect("sound").bth().ack_req);
    assert!(deliver(&mut world, B, &message(PSN, 10), &now));
    next(&mut world, B);
    let wqe = SendWqe { cookie: 61, ..SEND };
    express_as(&mut world, B, wqe, &pattern(10), &now).expect("free");
    refused(&world, &message(PSN.next(), 10), "now one is");
}

/// Messages that nobody asked about were acknowledged all the same; another waits to be sent.
#[test]
fn what_is_to_be_sent_goes_first() {
    let mut world = pair(roomy());
    world.recv(A, 16);
    world.send(B, &pattern(4));
    world.run(SOON);
    let now = world.now;
    for cookie in 60..63 {
        world.recv(A, 16);
        let wqe = SendWqe { cookie, signaled: false, ..SEND };
        let sent = express_as(&mut world, B, wqe, &pattern(10), &now).expect("free");
        assert!(deliver(&mut world, A, &sent, &now));
    }
    world.ends[A].qp.acknowledge_all();
    let ack = next(&mut world, A);
    hand(&mut world, B, &ack);
    world.drain();
    assert!(world.ends[B].qp.is_idle());
    assert!(expects(&world, B, &message(PSN, 10)));
    world.try_post(B, SEND, pattern(10)).expect("room");
    refused(&world, &message(PSN, 10), "one waits to be sent");
}

/// An end that closes acknowledges what it took in without being asked.
#[test]
fn what_was_taken_in_unasked_can_be_acknowledged() {
    for asked in [false, true] {
        let mut world = pair(config());
        world.recv(B, 16);
        let bth = Bth { ack_req: asked, ..Bth::new(Opcode::RC_SEND_ONLY, qpn(B), PSN) };
        assert!(deliver(&mut world, B, &made(bth, 10), &0));
        assert_eq!(world.ends[B].qp.owes_only_ack(), asked);
        if asked {
            next(&mut world, B);
        }
        world.ends[B].qp.acknowledge_all();
        assert_eq!(world.ends[B].qp.owes_only_ack(), !asked, "once");
        if !asked {
            let ack = next(&mut world, B);
            let ack = Packet::parse(&ack).expect("sound");
            let aeth = Some(Aeth { syndrome: Syndrome::ACK, msn: 1 });
            assert_eq!((ack.bth().psn, ack.aeth()), (PSN, aeth));
        }
    }
}
