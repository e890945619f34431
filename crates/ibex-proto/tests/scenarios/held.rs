//! Requests held back until those before them are acknowledged, and then carried out by the host.

use ibex_proto::sim::{EndConfig, World};
use ibex_proto::{SendOp, SendWqe, Tuning, WcStatus};
use ibex_wire::{MAX_PACKET, Packet};

use crate::util::*;

fn is_write(op: &SendOp) -> bool {
    matches!(op, SendOp::Write { imm: None, .. })
}

fn hold(world: &mut World) -> bool {
    world.ends[A].qp.as_rc_mut().expect("RC").hold(is_write)
}

/// Carries out at most `most` requests of A; their cookies.
fn carry_out(world: &mut World, most: usize) -> Vec<u64> {
    let mut done = Vec::new();
    world.ends[A].qp.as_rc_mut().expect("RC").carry_out(|wqe: &SendWqe| {
        let room = done.len() < most;
        if room {
            done.push(wqe.cookie);
        }
        room
    });
    done
}

fn config() -> EndConfig {
    EndConfig { timeout: Some(50_000_000), ..EndConfig::default() }
}

#[test]
fn what_is_held_waits_for_what_was_begun_and_uses_no_numbers() {
    let mut world = pair(config());
    let begun: Vec<u64> = (0..2).map(|_| world.post(A, write(0), pattern(600))).collect();
    world.drain();
    assert!(hold(&mut world));
    let held: Vec<u64> = (0..3).map(|_| world.post(A, write(0), pattern(600))).collect();
    let before = world.ends[A].qp.sq_psn();
    assert_eq!(carry_out(&mut world, 9), [0; 0], "what was begun is not acknowledged");
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses().len(), begun.len(), "only what was begun");
    assert!(world.ends[A].qp.as_rc().expect("RC").is_settled());
    assert_eq!(carry_out(&mut world, 2), held[..2]);
    assert_ne!(world.ends[A].qp.sq_psn(), before, "their numbers are free again");
    // The third goes as packets, and so does what follows; the peer misses nothing.
    world.ends[A].qp.as_rc_mut().expect("RC").release();
    world.recv(B, 16);
    world.send(A, &pattern(10));
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS; 6]);
    assert_eq!(world.ends[B].qp.rq_psn(), world.ends[A].qp.sq_psn());
}

/// Half of a message was once taken for none of it: what follows went out with numbers that were taken.
#[test]
fn a_message_half_sent_is_not_settled() {
    let tuning = Tuning { max_window: 4, ..Tuning::default() };
    let mut world = pair(EndConfig { tuning, ..config() });
    let mtu = 256;
    (0..2).for_each(|_| {
        world.post(A, write(0), pattern(6 * mtu));
    });
    let mut buf = [0; MAX_PACKET];
    let mut pass = |world: &mut World, from: usize, to: usize| {
        let mut passed = 0;
        loop {
            let end = &mut world.ends[from];
            let Some(sent) = end.qp.poll_transmit(0, &mut end.host, &mut buf) else { return passed };
            let end = &mut world.ends[to];
            end.qp.handle_packet(0, &Packet::parse(&buf[..sent.len]).expect("sound"), &mut end.host);
            passed += 1;
        }
    };
    assert_eq!(pass(&mut world, A, B), 4, "a window full");
    assert!(hold(&mut world));
    pass(&mut world, B, A);
    assert!(!world.ends[A].qp.as_rc().expect("RC").is_settled());
    assert_eq!(carry_out(&mut world, 9), [0; 0]);
    // The rest of what was begun goes on, the other one waits.
    assert_eq!(pass(&mut world, A, B), 2);
    pass(&mut world, B, A);
    assert!(world.ends[A].qp.as_rc().expect("RC").is_settled());
    assert_eq!(carry_out(&mut world, 9).len(), 1);
    world.drain();
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS; 2]);
}

#[test]
fn who_has_little_or_something_else_outstanding_does_not_wait() {
    let mut world = pair(config());
    assert!(!hold(&mut world), "nothing is outstanding");
    world.post(A, write(0), pattern(10));
    assert!(!hold(&mut world), "one is hardly anything");
    world.recv(B, 16);
    world.send(A, &pattern(10));
    assert!(!hold(&mut world), "a SEND is answered by a program");
    world.run(SOON);
    world.ends[A].qp.to_sqd(true).expect("from RTS");
    world.post(A, write(0), pattern(10));
    world.post(A, write(0), pattern(10));
    assert!(!hold(&mut world), "SQD begins nothing anyway");
}

#[test]
fn what_is_held_is_flushed_like_the_rest() {
    let mut world = pair(config());
    (0..2).for_each(|_| {
        world.post(A, write(0), pattern(10));
    });
    world.drain();
    assert!(hold(&mut world));
    world.post(A, write(0), pattern(10));
    world.ends[A].qp.set_error();
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::WR_FLUSH_ERR; 3]);
    assert_eq!(carry_out(&mut world, 9), [0; 0]);
}
