//! Every operation at sizes around packet boundaries, both ways at once, and the flags that travel with them.

use ibex_proto::sim::{EndConfig, World};
use ibex_proto::{RemoteAccess, SendOp, SendWqe, WcOpcode, WcStatus};
use ibex_wire::{Mtu, Opcode};

use crate::util::*;

#[test]
fn every_operation_at_every_boundary() {
    for mtu in Mtu::ALL {
        let m = mtu.bytes();
        for len in [0, 1, 2, 3, 4, m - 1, m, m + 1, 2 * m - 1, 2 * m, 2 * m + 1, 7 * m] {
            let mut world = World::pair(EndConfig::default(), mtu);
            let bytes = pattern(len);
            for end in [A, B] {
                world.ends[end].host.expose(KEY, 0, 1 << 16, RemoteAccess::ALL);
            }
            let recvs = [A, B].map(|end| [world.recv(end, len), world.recv(end, 0), world.recv(end, len)]);
            for from in [A, B] {
                world.send(from, &bytes);
                world.post(from, SendOp::Write { rkey: KEY, va: va(3), imm: Some([5; 4]) }, bytes.clone());
                world.post(from, read(3), vec![0xdd; len]);
                world.post(from, SendOp::Send { imm: Some([1, 2, 3, 4]), inv: None }, bytes.clone());
            }
            world.run(SOON);
            for (end, cookies) in world.ends.iter().zip(recvs) {
                assert_eq!(end.send_statuses(), [WcStatus::SUCCESS; 4], "{mtu:?} {len}");
                assert!(end.sends().iter().all(|done| done.byte_len as usize == len));
                assert_eq!(&end.host.memory[3..3 + len], bytes);
                let [first, _, third] = cookies.map(|cookie| &end.host.recv_taken[&cookie]);
                let recvs = end.recvs();
                let opcodes = [WcOpcode::RECV, WcOpcode::RECV_RDMA_WITH_IMM, WcOpcode::RECV];
                assert_eq!(recvs.iter().map(|done| done.opcode).collect::<Vec<_>>(), opcodes);
                assert!(recvs.iter().all(|done| done.byte_len as usize == len));
                let imms = [None, Some([5; 4]), Some([1, 2, 3, 4])];
                assert_eq!(recvs.iter().map(|done| done.imm).collect::<Vec<_>>(), imms);
                assert_eq!((first, third), (&bytes, &bytes));
            }
        }
    }
}

#[test]
fn segments_of_a_message() {
    let mut world = pair(EndConfig::default());
    let log = log(&mut world);
    world.recv(B, 1000);
    world.post(A, SendOp::Send { imm: Some([0; 4]), inv: None }, pattern(700));
    world.post(A, write(0), pattern(513));
    world.run(SOON);
    let opcodes = [
        Opcode::RC_SEND_FIRST,
        Opcode::RC_SEND_MIDDLE,
        Opcode::RC_SEND_LAST_IMM,
        Opcode::RC_WRITE_FIRST,
        Opcode::RC_WRITE_MIDDLE,
        Opcode::RC_WRITE_LAST,
    ];
    assert_eq!(log.opcodes(A), opcodes);
    let lens: Vec<usize> = log.all().iter().filter(|seen| seen.from == A).map(|seen| seen.len).collect();
    assert_eq!(lens, [256, 256, 188, 256, 256, 1]);
}

#[test]
fn solicited_events_travel_with_the_message() {
    let mut world = pair(EndConfig::default());
    let log = log(&mut world);
    for solicited in [true, false] {
        for (op, len) in [
            (SendOp::Send { imm: None, inv: None }, 600),
            (SendOp::Write { rkey: KEY, va: va(0), imm: Some([0; 4]) }, 600),
            (SendOp::Send { imm: None, inv: None }, 0),
        ] {
            world.recv(B, 600);
            let wqe = SendWqe { solicited, ..wqe(op, len) };
            world.try_post(A, wqe, pattern(len)).expect("room");
        }
    }
    world.run(SOON);
    let solicited: Vec<bool> = world.ends[B].recvs().iter().map(|done| done.solicited).collect();
    assert_eq!(solicited, [true, true, true, false, false, false]);
    assert_eq!(log.count(|seen| seen.solicited), 3, "only last packets ask for the event");
    assert!(world.ends[B].recvs().iter().all(|done| done.src_qpn == world.ends[A].qp.local_qpn()));
}

#[test]
fn compare_and_swap_and_fetch_and_add() {
    let mut world = pair(EndConfig::default());
    world.ends[B].host.memory[..8].copy_from_slice(&10u64.to_ne_bytes());
    let swap = |compare, swap| SendOp::CompareSwap { rkey: KEY, va: va(0), compare, swap };
    let ops = [swap(10, 20), swap(10, 30), add(0, 5), add(0, u64::MAX)];
    let cookies = ops.map(|op| world.post(A, op, vec![0; 8]));
    world.run(SOON);
    let originals = cookies.map(|cookie| {
        u64::from_ne_bytes(world.ends[A].host.sends[&cookie][..].try_into().expect("eight bytes"))
    });
    assert_eq!(originals, [10, 20, 20, 25]);
    assert_eq!(world.ends[B].host.memory[..8], 24u64.to_ne_bytes());
    assert!(world.ends[A].sends().iter().all(|done| done.byte_len == 8));
}

#[test]
fn the_last_packet_of_a_write_says_so() {
    let mut world = pair(EndConfig::default());
    for len in [0, 1, 256, 257, 2000] {
        world.post(A, write(0), pattern(len));
    }
    world.run(SOON);
    assert_eq!(world.ends[B].host.lasts, 4, "one for each that carries bytes");
}
