//! Binds and invalidates: in the order of the send queue, once, without a packet.

use ibex_proto::sim::{EndConfig, Fate, Region, World};
use ibex_proto::{QpState, QpType, RemoteAccess, SendOp, SendWqe, WcOpcode, WcStatus};
use ibex_wire::{Opcode, Rkey};

use crate::util::*;

const WINDOW: Rkey = Rkey(0x70);

fn bind(world: &mut World) -> u64 {
    let cookie = world.post(A, SendOp::BindMw, Vec::new());
    let region = Region { rkey: WINDOW, va: va(0), len: 64, access: RemoteAccess::ALL, valid: true };
    world.ends[A].host.binds.insert(cookie, region);
    cookie
}

fn invalidate() -> SendOp {
    SendOp::LocalInv { rkey: WINDOW }
}

fn opcodes(world: &World) -> Vec<WcOpcode> {
    world.ends[A].sends().iter().map(|done| done.opcode).collect()
}

#[test]
fn they_complete_in_order_and_take_no_number() {
    for qp_type in [QpType::Rc, QpType::Uc] {
        let mut world = pair(EndConfig { qp_type, ..EndConfig::default() });
        let log = log(&mut world);
        bind(&mut world);
        world.post(A, write(0), pattern(600));
        world.post(A, invalidate(), Vec::new());
        world.post(A, write(0), pattern(4));
        let before = world.ends[A].qp.sq_psn();
        world.run(SOON);
        let order = [WcOpcode::BIND_MW, WcOpcode::RDMA_WRITE, WcOpcode::LOCAL_INV, WcOpcode::RDMA_WRITE];
        assert_eq!(opcodes(&world), order);
        assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS; 4]);
        assert_eq!(world.ends[A].host.local, [WINDOW, WINDOW]);
        assert_eq!(log.count(|seen| seen.from == A), 4);
        if qp_type == QpType::Rc {
            assert_eq!(before, ibex_wire::Psn::new(104));
        }
        assert!(world.ends[A].qp.is_idle());
    }
}

#[test]
fn going_back_does_not_repeat_them() {
    let mut world = pair(EndConfig::default());
    drop_first(&mut world, |seen| seen.opcode == Opcode::RC_WRITE_ONLY);
    world.post(A, write(0), pattern(4));
    bind(&mut world);
    world.post(A, write(8), pattern(4));
    world.drain();
    assert_eq!(world.ends[A].host.local, [WINDOW], "carried out while what is before it is unacknowledged");
    assert!(world.ends[A].sends().is_empty(), "but not completed");
    world.run(SOON);
    assert_eq!(opcodes(&world), [WcOpcode::RDMA_WRITE, WcOpcode::BIND_MW, WcOpcode::RDMA_WRITE]);
    assert_eq!(world.ends[A].host.local, [WINDOW]);
    assert!(world.ends[A].qp.counters().retransmissions > 0);
}

#[test]
fn a_fence_makes_them_wait_for_reads() {
    for fence in [false, true] {
        let mut world = pair(EndConfig::default());
        world.post(A, read(0), vec![0; 100]);
        let cookie =
            world.try_post(A, SendWqe { fence, ..wqe(SendOp::BindMw, 0) }, Vec::new()).expect("room");
        let region = Region { rkey: WINDOW, va: va(0), len: 64, access: RemoteAccess::ALL, valid: true };
        world.ends[A].host.binds.insert(cookie, region);
        world.drain();
        assert_eq!(world.ends[A].host.local.is_empty(), fence);
        world.run(SOON);
        assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS; 2]);
    }
}

#[test]
fn one_that_fails_waits_for_its_turn_and_ends_the_connection() {
    let mut world = pair(EndConfig::default());
    drop_first(&mut world, |seen| seen.opcode == Opcode::RC_WRITE_ONLY);
    world.post(A, write(0), pattern(4));
    world.post(A, invalidate(), Vec::new());
    world.post(A, write(8), pattern(4));
    world.run(SOON);
    let statuses = [WcStatus::SUCCESS, WcStatus::MW_BIND_ERR, WcStatus::WR_FLUSH_ERR];
    assert_eq!(world.ends[A].send_statuses(), statuses);
    assert_eq!(world.ends[A].qp.state(), QpState::Err);
    assert_eq!(world.ends[B].host.written, 4);
}

#[test]
fn on_an_unreliable_connection_a_failure_stops_the_send_queue() {
    let mut world = pair(EndConfig { qp_type: QpType::Uc, ..EndConfig::default() });
    world.post(A, invalidate(), Vec::new());
    world.post(A, write(8), pattern(4));
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::MW_BIND_ERR, WcStatus::WR_FLUSH_ERR]);
    assert_eq!(world.ends[A].qp.state(), QpState::Sqe);
}

#[test]
fn a_drained_queue_does_not_begin_them() {
    let mut world = pair(EndConfig::default());
    world.tap(|_| Fate::Pass);
    world.ends[A].qp.to_sqd(true).expect("RTS to SQD");
    bind(&mut world);
    world.run(SOON);
    assert!(world.ends[A].host.local.is_empty() && world.ends[A].sends().is_empty());
    world.ends[A].qp.resume().expect("SQD to RTS");
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS]);
}

#[test]
fn flushed_when_not_reached() {
    let mut world = pair(EndConfig::default());
    world.tap(|_| Fate::Drop);
    world.post(A, write(0), pattern(4));
    bind(&mut world);
    world.drain();
    world.ends[A].qp.set_error();
    world.drain();
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::WR_FLUSH_ERR; 2]);
}

#[test]
fn a_failure_survives_the_repair_of_a_loss_before_it() {
    let mut world = pair(EndConfig::default());
    drop_first(&mut world, |seen| seen.opcode == Opcode::RC_WRITE_FIRST);
    world.post(A, write(0), pattern(1000));
    world.post(A, invalidate(), Vec::new());
    world.post(A, write(8), pattern(4));
    world.run(SOON);
    let statuses = [WcStatus::SUCCESS, WcStatus::MW_BIND_ERR, WcStatus::WR_FLUSH_ERR];
    assert_eq!(world.ends[A].send_statuses(), statuses);
    assert_eq!(world.ends[A].qp.counters().timeouts, 0);
}
