//! ERR: every outstanding request comes back, once and in order, and the queue pair can start over.

use ibex_proto::sim::{EndConfig, Fate, rts};
use ibex_proto::{InitAttr, PostError, QpState, RemoteAccess, RtrAttr, WcOpcode, WcStatus};
use ibex_wire::{Mtu, Pkey, Psn};

use crate::util::*;

#[test]
fn by_hand_with_everything_in_flight() {
    let mut world = pair(EndConfig::default());
    let log = log(&mut world);
    let cookies = [
        world.post(A, write(0), pattern(5000)),
        world.post(A, read(0), vec![0; 5000]),
        world.post(A, add(0, 1), vec![0; 8]),
        world.send(A, b"x"),
    ];
    world.drain();
    world.ends[A].qp.set_error();
    world.drain();
    let done = world.ends[A].sends();
    assert_eq!(done.iter().map(|done| done.cookie).collect::<Vec<_>>(), cookies);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::WR_FLUSH_ERR; 4]);
    let opcodes = [WcOpcode::RDMA_WRITE, WcOpcode::RDMA_READ, WcOpcode::FETCH_ADD, WcOpcode::SEND];
    assert_eq!(done.iter().map(|done| done.opcode).collect::<Vec<_>>(), opcodes);
    // Silent from now on, whatever comes back.
    let sent = log.count(|seen| seen.from == A);
    world.run(SOON);
    assert_eq!(log.count(|seen| seen.from == A), sent);
    assert_eq!(world.ends[A].sends().len(), 4);
    assert_eq!(world.ends[A].qp.poll_timeout(), None);
}

#[test]
fn the_receive_request_being_filled() {
    let mut world = pair(EndConfig {
        tuning: ibex_proto::Tuning { max_window: 1, ..Default::default() },
        ..EndConfig::default()
    });
    let cookie = world.recv(B, 2000);
    world.recv(B, 2000);
    world.send(A, &pattern(1000));
    world.drain();
    world.step();
    world.ends[B].qp.set_error();
    world.drain();
    let done = world.ends[B].recvs();
    assert_eq!((done.len(), done[0].cookie, done[0].status), (1, cookie, WcStatus::WR_FLUSH_ERR));
    assert_eq!(world.ends[B].host.recv_queue.len(), 1, "the host flushes its own queue");
}

#[test]
fn posting_in_err_flushes_at_once() {
    let mut world = pair(EndConfig::default());
    world.ends[A].qp.set_error();
    world.send(A, b"late");
    world.send(A, b"later");
    world.drain();
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::WR_FLUSH_ERR; 2]);
}

#[test]
fn the_queue_has_a_depth() {
    let mut world = pair(EndConfig { sq_depth: 3, ..EndConfig::default() });
    let op = write(0);
    for _ in 0..3 {
        world.post(A, op, pattern(1));
    }
    assert_eq!(world.try_post(A, wqe(op, 1), pattern(1)), Err(PostError::Full));
    // A completion that has not been fetched still holds its place.
    world.ends[A].qp.set_error();
    assert_eq!(world.try_post(A, wqe(op, 1), pattern(1)), Err(PostError::Full));
    world.drain();
    assert!(world.try_post(A, wqe(op, 1), pattern(1)).is_ok());
}

#[test]
fn reset_forgets_everything_and_starts_over() {
    let config = EndConfig::default();
    let mut world = pair(config);
    watch(&mut world, |_| Fate::Drop);
    world.post(A, write(0), pattern(5000));
    world.drain();
    for end in [A, B] {
        let peer = world.ends[1 - end].qp.local_qpn();
        let qp = &mut world.ends[end].qp;
        qp.reset();
        assert_eq!(qp.state(), QpState::Reset);
        qp.to_init(InitAttr { pkey: Pkey::DEFAULT, access: RemoteAccess::ALL }).expect("from RESET");
        let rtr = RtrAttr {
            remote_qpn: peer,
            path_mtu: Mtu::Mtu512,
            rq_psn: Psn::new(5),
            max_dest_rd_atomic: 1,
            min_rnr_timer: 1,
        };
        qp.to_rtr(rtr).expect("from INIT");
        qp.to_rts(rts(&EndConfig { psn: Psn::new(5), ..config })).expect("from RTR");
    }
    watch(&mut world, |_| Fate::Pass);
    world.post(A, write(0), pattern(1000));
    world.run(SOON);
    // The request before RESET gave no completion and had no effect.
    assert_eq!(world.ends[A].sends().len(), 1);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS]);
    assert_eq!(world.ends[B].host.written, 1000);
}

#[test]
fn unsignalled_requests_are_reported_too() {
    let mut world = pair(EndConfig::default());
    for signaled in [false, true, false] {
        let wqe = ibex_proto::SendWqe { signaled, ..wqe(write(0), 4) };
        world.try_post(A, wqe, pattern(4)).expect("room");
    }
    world.run(SOON);
    let signaled: Vec<bool> = world.ends[A].sends().iter().map(|done| done.signaled).collect();
    assert_eq!(signaled, [false, true, false]);
}
