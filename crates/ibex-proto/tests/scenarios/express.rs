//! The express way of a short message: the packet is that of the usual way, and when it is not its turn nothing happens.

use ibex_proto::sim::{EndConfig, World};
use ibex_proto::{SendOp, SendWqe, Tuning, WcStatus};
use ibex_wire::{Bth, MAX_PACKET, Opcode, Packet};

use crate::util::*;

const SEND: SendWqe = SendWqe {
    cookie: 0,
    op: SendOp::Send { imm: None, inv: None },
    len: 10,
    signaled: true,
    fence: false,
    solicited: true,
};

fn config() -> EndConfig {
    let tuning = Tuning { max_window: 4, sparse_acks: 8, ..Tuning::default() };
    EndConfig { tuning, sq_depth: 8, timeout: Some(50_000_000), ..EndConfig::default() }
}

/// Posts on the express way; the packet, if it went.
fn express(world: &mut World, cookie: u64, wqe: SendWqe) -> Option<Vec<u8>> {
    let mut buf = [0xaa; MAX_PACKET];
    let payload = pattern(wqe.len as usize);
    buf[Bth::LEN..Bth::LEN + payload.len()].copy_from_slice(&payload);
    let end = &mut world.ends[A];
    let len = end.qp.as_rc_mut()?.express_send(SendWqe { cookie, ..wqe }, &mut buf, || 0)?;
    end.host.sends.insert(cookie, payload);
    Some(buf[..len].to_vec())
}

/// Posts the usual way; the packet that is sent.
fn usual(world: &mut World, wqe: SendWqe) -> Vec<u8> {
    world.try_post(A, wqe, pattern(wqe.len as usize)).expect("room");
    let mut buf = [0xaa; MAX_PACKET];
    let end = &mut world.ends[A];
    let sent = end.qp.poll_transmit(0, &mut end.host, &mut buf).expect("a packet");
    buf[..sent.len].to_vec()
}

#[test]
fn the_packets_are_those_of_the_usual_way() {
    for signaled in [true, false] {
        for len in [0, 1, 10, 64, 256] {
            let wqe = SendWqe { len, signaled, ..SEND };
            let (mut one, mut other) = (pair(config()), pair(config()));
            for round in 0..2 {
                assert_eq!(express(&mut one, round, wqe), Some(usual(&mut other, wqe)), "{len} {round}");
            }
            assert_eq!(one.ends[A].qp.sq_psn(), other.ends[A].qp.sq_psn());
            assert_eq!(one.ends[A].qp.poll_timeout(), other.ends[A].qp.poll_timeout());
        }
    }
}

#[test]
fn one_that_is_lost_comes_again() {
    let mut world = pair(config());
    world.send(A, &pattern(4));
    world.recv(B, 16);
    let recv = world.recv(B, 16);
    world.run(SOON);
    // It goes nowhere.
    express(&mut world, 77, SEND).expect("nothing is in its way");
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS; 2]);
    assert_eq!(world.ends[B].host.recv_taken[&recv][..10], pattern(10));
}

#[test]
fn who_is_not_next_is_not_posted() {
    let refused = |world: &mut World, wqe: SendWqe| {
        let before = world.ends[A].qp.sq_psn();
        let refused = express(world, 99, wqe).is_none();
        refused && world.ends[A].qp.sq_psn() == before
    };
    let mut world = pair(config());
    for (what, wqe) in [
        ("more than a packet", SendWqe { len: 257, ..SEND }),
        ("immediate data", SendWqe { op: SendOp::Send { imm: Some([1; 4]), inv: None }, ..SEND }),
        ("another operation", SendWqe { op: write(0), ..SEND }),
    ] {
        assert!(refused(&mut world, wqe), "{what}");
    }
    world.try_post(A, SEND, pattern(10)).expect("room");
    assert!(refused(&mut world, SEND), "another is to be sent first");

    let mut world = pair(config());
    for cookie in 0..3 {
        assert!(express(&mut world, cookie, SEND).is_some());
    }
    assert!(refused(&mut world, SEND), "the last of a window has to ask");

    let mut world = pair(EndConfig { sq_depth: 1, ..config() });
    assert!(express(&mut world, 0, SEND).is_some());
    assert!(refused(&mut world, SEND), "the queue is full");

    let mut world = pair(config());
    world.ends[A].qp.to_sqd(true).expect("from RTS");
    assert!(refused(&mut world, SEND), "SQD begins nothing");

    let mut world = pair(config());
    world.post(A, read(0), vec![0; 8]);
    world.drain();
    assert!(refused(&mut world, SendWqe { fence: true, ..SEND }), "a fence waits for the READ");
    assert!(!refused(&mut world, SEND));
}

#[test]
fn an_acknowledgement_that_is_owed_follows() {
    let mut world = pair(config());
    world.recv(A, 16);
    world.send(B, &pattern(4));
    let log = log(&mut world);
    // Until the message has come: what A owes then has not been sent.
    let mut buf = [0; MAX_PACKET];
    let end = &mut world.ends[B];
    let sent = end.qp.poll_transmit(0, &mut end.host, &mut buf).expect("the message");
    let end = &mut world.ends[A];
    end.qp.handle_packet(0, &Packet::parse(&buf[..sent.len]).expect("sound"), &mut end.host);
    assert!(end.qp.owes_only_ack());
    assert!(express(&mut world, 5, SEND).is_some());
    let end = &mut world.ends[A];
    let ack = end.qp.as_rc_mut().expect("RC").express_ack(&mut end.host, &mut buf).expect("owed");
    assert_eq!(Packet::parse(&buf[..ack]).expect("sound").opcode(), Opcode::RC_ACK);
    assert!(!end.qp.wants_transmit());
    assert_eq!(end.qp.as_rc_mut().expect("RC").express_ack(&mut end.host, &mut buf), None);
    assert!(log.all().is_empty());
}
