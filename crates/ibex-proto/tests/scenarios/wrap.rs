//! Sequence numbers that come round, with loss on both sides of the end.

use ibex_proto::WcStatus;
use ibex_proto::sim::{EndConfig, Faults, World};
use ibex_wire::{Mtu, Psn};

use crate::util::*;

fn around(start: Psn) {
    let config = EndConfig { psn: start, retry: None, ..EndConfig::default() };
    let faults = Faults { loss: 100_000, duplicate: 50_000, reorder: 50_000, ..Faults::NONE };
    let mut world = World::new(&[(config, config, Mtu::Mtu256)], faults, 5);
    world.ends[B].host.expose(KEY, 0, 1 << 16, ibex_proto::RemoteAccess::ALL);
    for _ in 0..10 {
        world.recv(B, 1000);
    }
    let mut reads = Vec::new();
    for round in 0..10 {
        world.post(A, write(0), vec![round; 600]);
        world.send(A, &vec![round; 600]);
        reads.push(world.post(A, read(0), vec![0xff; 600]));
        world.post(A, add(8192, 1), vec![0; 8]);
        world.run(SOON);
    }
    assert_eq!(world.ends[A].send_statuses(), vec![WcStatus::SUCCESS; 40]);
    for (round, cookie) in reads.iter().enumerate() {
        assert_eq!(world.ends[A].host.sends[cookie], vec![round as u8; 600]);
    }
    assert_eq!(world.ends[B].host.atomics, 10);
    assert_eq!(world.ends[B].recvs().len(), 10);
    assert_eq!(world.ends[B].qp.rq_psn(), start + 100);
    assert_eq!(world.ends[A].qp.sq_psn(), start + 100);
}

#[test]
fn at_the_end_of_the_circle() {
    for before in [0, 1, 30, 50, 99, 100] {
        around(Psn::new(0) - before);
    }
}

#[test]
fn at_the_middle_of_the_circle() {
    for before in [0, 1, 50] {
        around(Psn::new(Psn::HALF) - before);
    }
}
