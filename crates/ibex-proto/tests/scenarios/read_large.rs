//! Long READs: asked for in pieces, so that the window governs their data, and in pieces again after a loss.

use ibex_proto::sim::{EndConfig, Faults};
use ibex_proto::{Tuning, WcStatus};
use ibex_wire::{Mtu, Opcode};

use crate::util::*;

#[test]
fn pieces_end_at_the_same_places_after_a_loss() {
    let tuning = Tuning { read_chunk: 8, ..Tuning::default() };
    let mut world = pair(EndConfig { tuning, ..EndConfig::default() });
    let start = world.ends[A].qp.sq_psn();
    world.ends[B].host.memory[..256 * 30].copy_from_slice(&pattern(256 * 30));
    let log = drop_first(&mut world, move |seen| seen.from == B && seen.psn == start + 11);
    let cookie = world.post(A, read(0), vec![0; 256 * 30]);
    world.run(SOON);
    assert_eq!(world.ends[A].host.sends[&cookie], pattern(256 * 30));
    let requests: Vec<u32> = log
        .all()
        .iter()
        .filter(|seen| seen.opcode == Opcode::RC_READ_REQUEST)
        .map(|seen| seen.psn.forward_from(start))
        .collect();
    assert_eq!(requests, [0, 8, 16, 24, 11]);
}

#[test]
fn a_megabyte_through_a_short_queue() {
    // The line holds 24 packets; a READ of 256 must not drown itself.
    let faults = Faults { spacing: 1000, queue: 24, ..Faults::NONE };
    let config = EndConfig { memory: 1 << 20, ..EndConfig::default() };
    let mut world = ibex_proto::sim::World::new(&[(config, config, Mtu::Mtu4096)], faults, 1);
    world.ends[B].host.expose(KEY, 0, 1 << 20, ibex_proto::RemoteAccess::ALL);
    world.ends[B].host.memory.copy_from_slice(&pattern(1 << 20));
    let cookie = world.post(A, read(0), vec![0; 1 << 20]);
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS]);
    assert!(world.ends[A].host.sends[&cookie] == pattern(1 << 20));
    assert!(world.net.lost < 256, "{} packets lost", world.net.lost);
}

#[test]
fn one_resource_is_enough() {
    let tuning = Tuning { read_chunk: 4, ..Tuning::default() };
    let mut world =
        pair(EndConfig { tuning, max_rd_atomic: 1, max_dest_rd_atomic: 1, ..EndConfig::default() });
    world.ends[B].host.memory[..5000].copy_from_slice(&pattern(5000));
    let cookie = world.post(A, read(0), vec![0; 5000]);
    world.run(SOON);
    assert_eq!(world.ends[A].host.sends[&cookie], pattern(5000));
}
