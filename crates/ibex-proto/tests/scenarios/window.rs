//! What is in flight: never more than the window, less after losses, and throughput that does not collapse.

use ibex_proto::sim::{EndConfig, Fate, Faults, World};
use ibex_proto::{RemoteAccess, Tuning, WcStatus};
use ibex_wire::{Mtu, Opcode};

use crate::util::*;

#[test]
fn never_more_than_the_window() {
    for max_window in [1, 2, 16] {
        let tuning = Tuning { max_window, ..Tuning::default() };
        let mut world = pair(EndConfig { tuning, ..EndConfig::default() });
        let log = watch(&mut world, |seen| if seen.from == B { Fate::Drop } else { Fate::Pass });
        world.post(A, write(0), pattern(256 * 100));
        world.drain();
        assert_eq!(log.all().len(), max_window as usize);
        assert!(log.all().last().expect("some").ack_req, "a full window asks for an acknowledgement");
        assert!(!world.ends[A].qp.wants_transmit());
    }
}

#[test]
fn a_window_of_one_gets_there() {
    let tuning = Tuning { max_window: 1, read_chunk: 1, ack_every: 1, ..Tuning::default() };
    let mut world = pair(EndConfig { tuning, ..EndConfig::default() });
    world.post(A, write(0), pattern(5000));
    let cookie = world.post(A, read(0), vec![0; 5000]);
    world.run(SOON);
    assert_eq!(world.ends[A].host.sends[&cookie], pattern(5000));
}

#[test]
fn finds_its_size_before_a_short_queue() {
    // The line takes a packet a microsecond and holds 20; a round trip is 40 of them. The start is brutal, then it
    // settles: most of what is sent arrives.
    let faults = Faults { spacing: 1000, queue: 20, latency: 10_000, ..Faults::NONE };
    let config = EndConfig { memory: 1 << 20, ..EndConfig::default() };
    let mut world = World::new(&[(config, config, Mtu::Mtu4096)], faults, 3);
    world.ends[B].host.expose(KEY, 0, 1 << 20, RemoteAccess::ALL);
    for _ in 0..16 {
        world.post(A, write(0), pattern(1 << 20));
    }
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS; 16]);
    let useful = 16 * 256;
    let sent = world.ends[A].qp.counters().sent;
    assert!(sent < useful * 12 / 10, "{sent} packets for {useful}");
    assert!(world.now < useful * 1000 * 2, "{} us for {useful} packets of 1 us", world.now / 1000);
}

#[test]
fn reads_and_writes_take_turns() {
    // Both sides have much to send: neither the answers nor the requests of one end wait for all of the other.
    let mut world = pair(EndConfig::default());
    world.post(A, read(0), vec![0; 256 * 64]);
    world.drain();
    world.step();
    let log = log(&mut world);
    world.post(B, write(0), pattern(256 * 64));
    world.post(A, read(0), vec![0; 256 * 64]);
    world.run(SOON);
    let order: Vec<Opcode> = log.opcodes(B);
    let first_write = order.iter().position(|opcode| opcode.is_write()).expect("written");
    let last_answer = order.iter().rposition(|opcode| opcode.is_read_response()).expect("answered");
    assert!(first_write < last_answer);
}
