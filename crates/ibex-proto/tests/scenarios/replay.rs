//! Requests that come again: READs are read again from any place, atomics are answered from memory, SENDs and WRITEs
//! are acknowledged and not executed.

use ibex_proto::WcStatus;
use ibex_proto::sim::{EndConfig, Fate};
use ibex_wire::{AtomicEth, Opcode, Reth, Rkey};

use crate::util::*;

#[test]
fn a_read_response_lost_in_the_middle() {
    let mut world = pair(EndConfig::default());
    world.ends[B].host.memory[..2000].copy_from_slice(&pattern(2000));
    let first = world.ends[A].qp.sq_psn();
    let log = drop_first(&mut world, move |seen| {
        seen.opcode == Opcode::RC_READ_RESPONSE_MIDDLE && seen.psn == first + 3
    });
    let cookie = world.post(A, read(0), vec![0; 2000]);
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS]);
    assert_eq!(world.ends[A].host.sends[&cookie], pattern(2000));
    // Asked for once more, the missing packet alone, and answered as a READ of its own.
    let requests: Vec<Seen> = log.all().into_iter().filter(|seen| seen.from == A).collect();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[1].psn, first + 3);
    let answers = log.count(|seen| seen.opcode == Opcode::RC_READ_RESPONSE_ONLY);
    assert_eq!(answers, 1);
    assert_eq!(world.ends[A].qp.counters().timeouts, 0, "the packet behind the gap tells it");
}

#[test]
fn a_read_response_lost_at_the_end() {
    let mut world = pair(EndConfig::default());
    world.ends[B].host.memory[..1000].copy_from_slice(&pattern(1000));
    drop_first(&mut world, |seen| seen.opcode == Opcode::RC_READ_RESPONSE_LAST);
    let cookie = world.post(A, read(0), vec![0; 1000]);
    world.run(SOON);
    assert_eq!(world.ends[A].host.sends[&cookie], pattern(1000));
    assert_eq!(world.ends[A].qp.counters().timeouts, 1);
}

#[test]
fn a_read_whose_acknowledgement_overtakes_it() {
    // The SEND behind the READ is acknowledged while the READ's data is missing: that acknowledgement proves the
    // loss and must not complete the READ.
    let mut world = pair(EndConfig::default());
    world.recv(B, 16);
    drop_first(&mut world, |seen| seen.opcode == Opcode::RC_READ_RESPONSE_ONLY);
    let cookie = world.post(A, read(0), vec![1; 100]);
    world.send(A, b"behind");
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS; 2]);
    assert_eq!(world.ends[A].host.sends[&cookie], vec![0; 100]);
    assert_eq!(world.ends[A].qp.counters().timeouts, 0);
    assert_eq!(world.ends[B].recvs().len(), 1);
}

#[test]
fn an_atomic_is_executed_once() {
    let mut world = pair(EndConfig::default());
    drop_first(&mut world, |seen| seen.opcode == Opcode::RC_ATOMIC_ACK);
    let cookies: Vec<u64> = (0..3).map(|_| world.post(A, add(0, 5), vec![0; 8])).collect();
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS; 3]);
    let originals = cookies.iter().map(|cookie| &world.ends[A].host.sends[cookie][..]);
    let originals: Vec<u64> =
        originals.map(|bytes| u64::from_ne_bytes(bytes.try_into().expect("eight bytes"))).collect();
    assert_eq!(originals, [0, 5, 10]);
    assert_eq!(world.ends[B].host.atomics, 3);
}

#[test]
fn everything_twice() {
    let mut world = pair(EndConfig::default());
    watch(&mut world, |_| Fate::Twice);
    for _ in 0..10 {
        world.recv(B, 1000);
    }
    let mut reads = Vec::new();
    for round in 0..10 {
        world.send(A, &pattern(round * 60));
        world.post(A, write(round as u64 * 100), pattern(100));
        reads.push(world.post(A, read(0), vec![0xff; 500]));
        world.post(A, add(8192, 1), vec![0; 8]);
    }
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), vec![WcStatus::SUCCESS; 40]);
    assert_eq!(world.ends[B].recvs().len(), 10);
    assert_eq!(world.ends[B].host.atomics, 10);
    assert_eq!(world.ends[B].host.written, 1000);
    assert!(world.ends[B].qp.counters().duplicate_requests >= 40);
}

#[test]
fn an_atomic_that_is_not_remembered_is_not_answered() {
    let mut world = pair(EndConfig { max_dest_rd_atomic: 2, max_rd_atomic: 2, ..EndConfig::default() });
    let first = world.ends[A].qp.sq_psn();
    for _ in 0..3 {
        world.post(A, add(0, 1), vec![0; 8]);
    }
    world.run(SOON);
    let log = log(&mut world);
    let eth = AtomicEth { va: va(0), rkey: KEY, swap_add: 1, compare: 0 };
    inject(&mut world, B, Opcode::RC_FETCH_ADD, first, &[&eth], &[]);
    world.run(SOON);
    assert_eq!(log.all(), [], "two are remembered, this is the third last");
    inject(&mut world, B, Opcode::RC_FETCH_ADD, first + 1, &[&eth], &[]);
    world.run(SOON);
    assert_eq!(log.opcodes(B), [Opcode::RC_ATOMIC_ACK]);
    assert_eq!(world.ends[B].host.atomics, 3);
}

#[test]
fn a_read_again_must_be_a_part_of_the_first() {
    let mut world = pair(EndConfig::default());
    let first = world.ends[A].qp.sq_psn();
    world.post(A, read(0), vec![0; 1000]);
    world.run(SOON);
    let log = log(&mut world);
    let good = Reth { va: va(256), rkey: KEY, len: 744 };
    for reth in [
        Reth { rkey: Rkey(1), ..good },
        Reth { va: va(255), ..good },
        Reth { va: va(512), ..good },
        Reth { len: 745, ..good },
        Reth { len: u32::MAX, ..good },
        Reth { va: u64::MAX, ..good },
    ] {
        inject(&mut world, B, Opcode::RC_READ_REQUEST, first + 1, &[&reth], &[]);
        world.run(SOON);
        assert_eq!(log.all(), [], "{reth:?}");
    }
    // A part of it, from its second packet to before its end.
    let part = Reth { len: 300, ..good };
    inject(&mut world, B, Opcode::RC_READ_REQUEST, first + 1, &[&part], &[]);
    world.run(SOON);
    assert_eq!(log.opcodes(B), [Opcode::RC_READ_RESPONSE_FIRST, Opcode::RC_READ_RESPONSE_LAST]);
    assert_eq!(log.all()[0].psn, first + 1);
}

#[test]
fn a_write_again_is_not_acknowledged_past_a_read() {
    let mut world = pair(EndConfig::default());
    let start = world.ends[B].qp.rq_psn();
    world.post(A, write(0), pattern(4));
    world.post(A, write(0), pattern(4));
    world.post(A, read(0), vec![0; 4]);
    world.post(A, write(0), pattern(4));
    world.post(A, write(0), pattern(4));
    world.run(SOON);
    let log = log(&mut world);
    let reth = Reth { va: va(0), rkey: KEY, len: 4 };
    let mut acknowledged = |psn| {
        inject(&mut world, B, Opcode::RC_WRITE_ONLY, psn, &[&reth], &[1; 4]);
        log.all().last().expect("answered").psn
    };
    // As far as possible, but the READ's answer may be what the requester is missing.
    assert_eq!(acknowledged(start), start + 1);
    assert_eq!(acknowledged(start + 1), start + 1);
    assert_eq!(acknowledged(start + 3), start + 4);
    assert_eq!(world.ends[B].host.written, 16, "nothing is written again");
}
