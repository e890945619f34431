//! A peer that stops: silently, in ERR, or with a refusal that gets lost.

use ibex_proto::sim::{EndConfig, Fate};
use ibex_proto::{QpState, WcStatus};
use ibex_wire::{Opcode, Rkey, Syndrome};

use crate::util::*;

#[test]
fn in_the_middle_of_a_message() {
    let mut world = pair(EndConfig::default());
    let mut packets = 0;
    watch(&mut world, move |seen| {
        packets += u32::from(seen.from == A);
        if seen.from == A && packets > 10 { Fate::Drop } else { Fate::Pass }
    });
    world.post(A, write(0), pattern(256 * 5));
    world.post(A, write(0), pattern(256 * 20));
    world.post(A, read(0), vec![0; 100]);
    world.run(SOON);
    let statuses = [WcStatus::SUCCESS, WcStatus::RETRY_EXC_ERR, WcStatus::WR_FLUSH_ERR];
    assert_eq!(world.ends[A].send_statuses(), statuses);
}

#[test]
fn moved_to_err_by_its_host() {
    let mut world = pair(EndConfig::default());
    world.ends[B].qp.set_error();
    let log = log(&mut world);
    world.send(A, b"anyone?");
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::RETRY_EXC_ERR]);
    assert_eq!(log.count(|seen| seen.from == B), 0, "nothing is answered in ERR");
}

#[test]
fn its_refusal_was_lost() {
    let mut world = pair(EndConfig::default());
    let is_nak = |seen: &Seen| matches!(seen.syndrome, Some(Syndrome::Nak(_)));
    let log = drop_first(&mut world, is_nak);
    world.post(A, ibex_proto::SendOp::Write { rkey: Rkey(0xbad), va: va(0), imm: None }, pattern(4));
    world.run(SOON);
    // Asked again, the responder repeats itself although it is in ERR: the requester learns why.
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::REM_ACCESS_ERR]);
    assert_eq!(log.count(is_nak), 2);
    assert_eq!(world.ends[B].events.len(), 1);
}

#[test]
fn read_data_was_lost_before_a_refusal() {
    let mut world = pair(EndConfig::default());
    watch(&mut world, |seen| match seen.opcode {
        Opcode::RC_READ_RESPONSE_ONLY => Fate::Drop,
        _ => Fate::Pass,
    });
    world.post(A, write(0), pattern(4));
    world.post(A, read(0), vec![0; 4]);
    world.post(A, ibex_proto::SendOp::Write { rkey: Rkey(0xbad), va: va(0), imm: None }, pattern(4));
    world.post(A, write(0), pattern(4));
    world.run(SOON);
    // The READ cannot be had any more: it did not fail by itself, and the request that did says so.
    let statuses =
        [WcStatus::SUCCESS, WcStatus::WR_FLUSH_ERR, WcStatus::REM_ACCESS_ERR, WcStatus::WR_FLUSH_ERR];
    assert_eq!(world.ends[A].send_statuses(), statuses);
}

#[test]
fn answers_owed_go_out_before_the_refusal() {
    let mut world = pair(EndConfig::default());
    world.ends[B].host.memory[..1000].copy_from_slice(&pattern(1000));
    let cookie = world.post(A, read(0), vec![0; 1000]);
    world.post(A, ibex_proto::SendOp::Read { rkey: Rkey(0xbad), va: va(0) }, vec![0; 4]);
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS, WcStatus::REM_ACCESS_ERR]);
    assert_eq!(world.ends[A].host.sends[&cookie], pattern(1000));
    assert_eq!(world.ends[B].qp.state(), QpState::Err);
}

#[test]
fn both_ends_fail_at_once() {
    let mut world = pair(EndConfig::default());
    for end in [A, B] {
        world.post(end, ibex_proto::SendOp::Write { rkey: Rkey(0xbad), va: va(0), imm: None }, pattern(4));
        world.send(end, b"x");
    }
    world.run(SOON);
    for end in [A, B] {
        // Serving the other's bad request moves an end to ERR before its own refusal can arrive.
        assert_eq!(world.ends[end].send_statuses(), [WcStatus::WR_FLUSH_ERR; 2]);
    }
}
