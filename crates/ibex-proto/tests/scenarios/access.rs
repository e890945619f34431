//! What a peer may not do: the status at the requester, the event and the state at the responder, and untouched memory.

use ibex_proto::sim::{EndConfig, World};
use ibex_proto::{Event, QpState, RemoteAccess, SendOp, WcStatus};
use ibex_wire::Rkey;

use crate::util::*;

/// Posts `op` between two others; checks both ends.
fn refused(mut world: World, op: SendOp, len: usize, status: WcStatus, event: Event) {
    let before = world.ends[B].host.memory.clone();
    world.post(A, add(8, 0), vec![0; 8]);
    world.post(A, op, vec![0x55; len]);
    world.post(A, write(0), pattern(8));
    world.run(SOON);
    let statuses = [WcStatus::SUCCESS, status, WcStatus::WR_FLUSH_ERR];
    assert_eq!(world.ends[A].send_statuses(), statuses, "{op:?}");
    assert_eq!(world.ends[A].qp.state(), QpState::Err);
    assert_eq!(world.ends[B].qp.state(), QpState::Err);
    assert_eq!(world.ends[B].events, [event], "{op:?}");
    assert_eq!(world.ends[B].host.memory, before, "{op:?}");
}

fn every_access(rkey: Rkey, offset: u64) -> [(SendOp, usize); 4] {
    let va = va(offset);
    [
        (SendOp::Write { rkey, va, imm: None }, 600),
        (SendOp::Read { rkey, va }, 600),
        (SendOp::CompareSwap { rkey, va, compare: 0, swap: 1 }, 8),
        (SendOp::FetchAdd { rkey, va, add: 1 }, 8),
    ]
}

#[test]
fn keys_that_do_not_exist() {
    for (op, len) in every_access(Rkey(0xdead), 0) {
        refused(pair(EndConfig::default()), op, len, WcStatus::REM_ACCESS_ERR, Event::QpAccessErr);
    }
}

#[test]
fn ranges_that_leave_the_region() {
    for (op, len) in every_access(KEY, EndConfig::default().memory as u64) {
        refused(pair(EndConfig::default()), op, len, WcStatus::REM_ACCESS_ERR, Event::QpAccessErr);
    }
    let edge = EndConfig::default().memory as u64 - 599;
    for op in [write(edge), read(edge)] {
        refused(pair(EndConfig::default()), op, 600, WcStatus::REM_ACCESS_ERR, Event::QpAccessErr);
    }
    let end_of_space = SendOp::Read { rkey: KEY, va: u64::MAX - 10 };
    refused(pair(EndConfig::default()), end_of_space, 600, WcStatus::REM_ACCESS_ERR, Event::QpAccessErr);
}

#[test]
fn rights_the_region_does_not_give() {
    let key = Rkey(9);
    for (index, (op, len)) in every_access(key, 0).into_iter().enumerate() {
        let missing =
            [RemoteAccess::WRITE, RemoteAccess::READ, RemoteAccess::ATOMIC, RemoteAccess::ATOMIC][index];
        let mut world = pair(EndConfig::default());
        world.ends[B].host.expose(key, 0, 4096, RemoteAccess(RemoteAccess::ALL.0 & !missing.0));
        refused(world, op, len, WcStatus::REM_ACCESS_ERR, Event::QpAccessErr);
    }
}

#[test]
fn rights_the_queue_pair_does_not_give() {
    for (index, (op, len)) in every_access(KEY, 0).into_iter().enumerate() {
        let missing =
            [RemoteAccess::WRITE, RemoteAccess::READ, RemoteAccess::ATOMIC, RemoteAccess::ATOMIC][index];
        let mut world = pair(EndConfig::default());
        world.post(A, op, vec![0; len]);
        world.ends[B].qp.set_access(RemoteAccess(RemoteAccess::ALL.0 & !missing.0));
        world.run(SOON);
        // Not a matter of keys: the queue pair does not serve such requests at all.
        assert_eq!(world.ends[A].send_statuses(), [WcStatus::REM_INV_REQ_ERR]);
        assert_eq!(world.ends[B].events, [Event::QpReqErr]);
    }
}

#[test]
fn atomics_must_be_aligned() {
    for offset in [1, 4, 7] {
        let op = SendOp::FetchAdd { rkey: KEY, va: va(offset), add: 1 };
        refused(pair(EndConfig::default()), op, 8, WcStatus::REM_INV_REQ_ERR, Event::QpReqErr);
    }
}

#[test]
fn nothing_needs_no_right() {
    let mut world = pair(EndConfig::default());
    world.post(A, SendOp::Write { rkey: Rkey(0), va: 0, imm: None }, vec![]);
    world.post(A, SendOp::Read { rkey: Rkey(0), va: 0 }, vec![]);
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS; 2]);
}

#[test]
fn a_key_that_dies_during_a_write() {
    let mut world = pair(EndConfig {
        tuning: ibex_proto::Tuning { max_window: 1, ..Default::default() },
        ..EndConfig::default()
    });
    world.post(A, write(0), pattern(1000));
    world.drain();
    world.step();
    world.ends[B].host.regions[0].valid = false;
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::REM_ACCESS_ERR]);
    assert_eq!(world.ends[B].host.written, 256);
}

#[test]
fn a_key_that_dies_during_a_read() {
    let mut world = pair(EndConfig::default());
    world.post(A, read(0), vec![0; 1000]);
    world.drain();
    world.ends[B].host.read_fault = Some((va(512), ibex_proto::RemoteFault::Access));
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::REM_ACCESS_ERR]);
    assert_eq!(world.ends[B].events, [Event::QpAccessErr]);
}

#[test]
fn invalidating_a_key_that_is_not_there() {
    let mut world = pair(EndConfig::default());
    world.recv(B, 16);
    world.post(A, SendOp::Send { imm: None, inv: Some(Rkey(0xdead)) }, b"hello".to_vec());
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::REM_ACCESS_ERR]);
    assert_eq!(world.ends[B].recv_statuses(), [WcStatus::LOC_ACCESS_ERR]);
}

#[test]
fn invalidating_a_key_that_is_there() {
    let mut world = pair(EndConfig::default());
    world.recv(B, 16);
    world.post(A, SendOp::Send { imm: None, inv: Some(KEY) }, b"hello".to_vec());
    world.run(SOON);
    assert_eq!(world.ends[B].recvs()[0].invalidated, Some(KEY));
    assert!(!world.ends[B].host.regions[0].valid);
}
