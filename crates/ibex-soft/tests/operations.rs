//! Every operation of a reliable connection, with verified payload.

#![allow(unsafe_code)]

mod support;

use std::sync::atomic::Ordering;

use ibex_sys::*;
use support::*;

/// MTUs differ so that messages meet their edges.
const SIZES: [usize; 8] = [0, 1, 255, 256, 257, 4096, 4097, 100_003];

fn small_mtu() -> Wish {
    Wish { mtu: IBV_MTU_256, ..Wish::default() }
}

#[test]
fn read_brings_remote_memory() {
    for wish in [Wish::default(), small_mtu()] {
        let pair = Pair::with(wish, 1 << 17);
        for (round, size) in SIZES.into_iter().enumerate() {
            let seed = 10 + round as u64;
            pair.bm.fill(0..size, seed);
            pair.am.clear();
            pair.a.rdma(IBV_WR_RDMA_READ, seed, pair.am.sge(3, size), pair.bm.addr(), pair.bm.rkey());
            let wc = pair.a.send.success();
            assert_eq!((wc.wr_id, wc.opcode, wc.byte_len as usize), (seed, IBV_WC_RDMA_READ, size));
            pair.am.check(3..3 + size, seed, 0);
            assert_eq!(pair.am.byte(3 + size).load(Ordering::Relaxed), 0, "wrote beyond the end");
        }
    }
}

#[test]
fn small_packets_carry_whole_messages() {
    let pair = Pair::with(small_mtu(), 1 << 17);
    for (round, size) in SIZES.into_iter().enumerate() {
        let seed = round as u64;
        pair.am.fill(0..size, seed);
        pair.bm.clear();
        pair.b.recv(seed, pair.bm.sge(0, 1 << 17));
        pair.a.send_one(seed, pair.am.sge(0, size));
        assert_eq!(pair.b.recv.success().byte_len as usize, size);
        pair.a.send.success();
        pair.bm.check(0..size, seed, 0);
    }
}

#[test]
fn immediate_data_arrives_in_network_order() {
    let pair = Pair::new();
    let imm = 0xdead_beef_u32.to_be();
    pair.am.fill(0..64, 1);
    pair.b.recv(1, pair.bm.sge(0, 64));
    pair.a.run(IBV_WR_SEND_WITH_IMM, 1, &mut [pair.am.sge(0, 64)], |wr| wr.imm.imm_data = imm);
    let wc = pair.b.recv.success();
    assert_eq!((wc.opcode, wc.wc_flags, c!(wc.imm.imm_data)), (IBV_WC_RECV, IBV_WC_WITH_IMM.0, imm));

    pair.b.recv(2, pair.bm.sge(0, 0));
    pair.a.run(IBV_WR_RDMA_WRITE_WITH_IMM, 2, &mut [pair.am.sge(0, 50)], |wr| {
        wr.imm.imm_data = imm;
        wr.wr.rdma = ibv_send_wr_rdma { remote_addr: pair.bm.addr() + 1000, rkey: pair.bm.rkey() };
    });
    let wc = pair.b.recv.success();
    assert_eq!((wc.wr_id, wc.opcode, wc.byte_len), (2, IBV_WC_RECV_RDMA_WITH_IMM, 50));
    assert_eq!((wc.wc_flags, c!(wc.imm.imm_data)), (IBV_WC_WITH_IMM.0, imm));
    pair.bm.check(1000..1050, 1, 0);
    assert_eq!(pair.a.send.success().opcode, IBV_WC_SEND);
    assert_eq!(pair.a.send.success().opcode, IBV_WC_RDMA_WRITE);
}

#[test]
fn atomics_return_the_old_value_and_store_the_new() {
    let pair = Pair::new();
    pair.bm.word(5).store(40, Ordering::Relaxed);
    let atomic = |opcode, compare_add, swap| {
        pair.a.run(opcode, 1, &mut [pair.am.sge(8, 8)], |wr| {
            let (remote_addr, rkey) = (pair.bm.addr() + 40, pair.bm.rkey());
            wr.wr.atomic = ibv_send_wr_atomic { remote_addr, compare_add, swap, rkey };
        });
        let wc = pair.a.send.success();
        (wc.opcode, wc.byte_len, pair.am.word(1).load(Ordering::Acquire))
    };
    assert_eq!(atomic(IBV_WR_ATOMIC_FETCH_AND_ADD, 2, 0), (IBV_WC_FETCH_ADD, 8, 40));
    assert_eq!(atomic(IBV_WR_ATOMIC_CMP_AND_SWP, 41, 7), (IBV_WC_COMP_SWAP, 8, 42));
    assert_eq!(atomic(IBV_WR_ATOMIC_CMP_AND_SWP, 42, 7), (IBV_WC_COMP_SWAP, 8, 42));
    assert_eq!(atomic(IBV_WR_ATOMIC_FETCH_AND_ADD, u64::MAX, 0), (IBV_WC_FETCH_ADD, 8, 7));
    assert_eq!(pair.bm.word(5).load(Ordering::Acquire), 6);
}

#[test]
fn inline_data_is_copied_when_posted() {
    let pair = Pair::new();
    pair.b.recv(1, pair.bm.sge(0, 128));
    pair.am.fill(0..128, 4);
    let mut sges = [pair.am.sge(0, 100), pair.am.sge(100, 28)];
    // Inline data needs no registration.
    sges.iter_mut().for_each(|sge| sge.lkey = 0);
    pair.a.run(IBV_WR_SEND, 1, &mut sges, |wr| wr.send_flags |= IBV_SEND_INLINE.0);
    pair.am.clear();
    assert_eq!(pair.b.recv.success().byte_len, 128);
    pair.bm.check(0..128, 4, 0);
    pair.a.send.success();

    sges[0].length = 101;
    let mut too_long = wr(IBV_WR_SEND, 2, &mut sges);
    too_long.send_flags |= IBV_SEND_INLINE.0;
    assert_eq!(pair.a.try_post(&mut too_long), libc::EINVAL);
}

#[test]
fn lists_gather_and_scatter() {
    let pair = Pair::new();
    pair.am.fill(0..60_000, 9);
    let mut from =
        [pair.am.sge(0, 1), pair.am.sge(1, 9999), pair.am.sge(10_000, 0), pair.am.sge(10_000, 50_000)];
    let mut to = [pair.bm.sge(100_000, 30_001), pair.bm.sge(0, 2), pair.bm.sge(200_000, 40_000)];
    assert_eq!(pair.b.try_recv(1, &mut to), 0);
    pair.a.run(IBV_WR_SEND, 1, &mut from, |_| ());
    assert_eq!(pair.b.recv.success().byte_len, 60_000);
    pair.a.send.success();
    pair.bm.check(100_000..130_001, 9, 0);
    pair.bm.check(0..2, 9, 30_001);
    pair.bm.check(200_000..229_997, 9, 30_003);

    // A READ scatters as well.
    pair.am.clear();
    pair.a.run(IBV_WR_RDMA_READ, 2, &mut [pair.am.sge(7, 10), pair.am.sge(100, 20_000)], |wr| {
        wr.wr.rdma = ibv_send_wr_rdma { remote_addr: pair.bm.addr() + 100_000, rkey: pair.bm.rkey() };
    });
    pair.a.send.success();
    pair.am.check(7..17, 9, 0);
    pair.am.check(100..20_100, 9, 10);
}

#[test]
fn unsignalled_requests_complete_silently_and_free_their_slots() {
    let pair = Pair::new();
    for round in 0..10u64 {
        for i in 0..63 {
            pair.a.run(IBV_WR_RDMA_WRITE, i, &mut [pair.am.sge(0, 64)], |wr| {
                wr.send_flags = 0;
                wr.wr.rdma = ibv_send_wr_rdma { remote_addr: pair.bm.addr(), rkey: pair.bm.rkey() };
            });
        }
        pair.a.rdma(IBV_WR_RDMA_WRITE, round, pair.am.sge(0, 64), pair.bm.addr(), pair.bm.rkey());
        assert_eq!(pair.a.send.success().wr_id, round);
    }
    assert!(pair.a.send.poll().is_none());
}

#[test]
fn sq_sig_all_signals_everything() {
    let pair = Pair::with(Wish { sig_all: true, ..Wish::default() }, 4096);
    pair.a.run(IBV_WR_RDMA_WRITE, 5, &mut [pair.am.sge(0, 64)], |wr| {
        wr.send_flags = 0;
        wr.wr.rdma = ibv_send_wr_rdma { remote_addr: pair.bm.addr(), rkey: pair.bm.rkey() };
    });
    assert_eq!(pair.a.send.success().wr_id, 5);
}

#[test]
fn a_fence_waits_for_the_read_before_it() {
    let pair = Pair::new();
    for round in 0..50u64 {
        // READ into the place that the fenced SEND then sends.
        pair.bm.fill(0..9000, round);
        pair.am.clear();
        pair.b.recv(round, pair.bm.sge(20_000, 9000));
        pair.a.rdma(IBV_WR_RDMA_READ, 1, pair.am.sge(0, 9000), pair.bm.addr(), pair.bm.rkey());
        pair.a.run(IBV_WR_SEND, 2, &mut [pair.am.sge(0, 9000)], |wr| wr.send_flags |= IBV_SEND_FENCE.0);
        assert_eq!(pair.a.send.success().wr_id, 1);
        assert_eq!(pair.a.send.success().wr_id, 2);
        pair.b.recv.success();
        pair.bm.check(20_000..29_000, round, 0);
    }
}

#[test]
fn a_list_of_requests_is_posted_in_order() {
    let pair = Pair::new();
    let mut sges = [[pair.am.sge(0, 10)], [pair.am.sge(10, 10)], [pair.am.sge(20, 10)]];
    pair.am.fill(0..30, 2);
    for i in 0..3 {
        pair.b.recv(i, pair.bm.sge(i as usize * 10, 10));
    }
    let [first, second, third] = &mut sges;
    let mut third = wr(IBV_WR_SEND, 3, third);
    let mut second = ibv_send_wr { next: &mut third, ..wr(IBV_WR_SEND, 2, second) };
    let mut first = ibv_send_wr { next: &mut second, ..wr(IBV_WR_SEND, 1, first) };
    pair.a.post(&mut first);
    for id in 1..=3 {
        assert_eq!(pair.a.send.success().wr_id, id);
        assert_eq!(pair.b.recv.success().wr_id, id - 1);
    }
    pair.bm.check(0..30, 2, 0);
}

#[test]
fn both_directions_at_once_with_two_threads() {
    let pair = Pair::new();
    const ROUNDS: u64 = 2000;
    let run = |qp: &Qp, from: &Mr, to: &Mr, seed: u64| {
        from.fill(0..5000, seed);
        let half = 1 << 19;
        for i in 0..ROUNDS {
            qp.rdma(IBV_WR_RDMA_WRITE, i, from.sge(0, 5000), to.addr() + half, to.rkey());
            if i >= 16 {
                assert_eq!(qp.send.success().wr_id, i - 16);
            }
        }
        for i in ROUNDS - 16..ROUNDS {
            assert_eq!(qp.send.success().wr_id, i);
        }
        to.check(half as usize..half as usize + 5000, seed, 0);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| run(&pair.a, &pair.am, &pair.bm, 1));
        scope.spawn(|| run(&pair.b, &pair.bm, &pair.am, 2));
    });
}

#[test]
fn two_threads_post_to_one_queue_pair() {
    let pair = Pair::new();
    const EACH: u64 = 3000;
    let post = |thread: u64| {
        let mut posted = 0;
        while posted < EACH {
            let mut sges = [pair.am.sge(0, 32)];
            let mut wr = wr(IBV_WR_RDMA_WRITE, thread << 32 | posted, &mut sges);
            wr.wr.rdma = ibv_send_wr_rdma { remote_addr: pair.bm.addr(), rkey: pair.bm.rkey() };
            match pair.a.try_post(&mut wr) {
                0 => posted += 1,
                libc::ENOMEM => std::thread::yield_now(),
                code => panic!("post_send: {code}"),
            }
        }
    };
    let mut next = [0u64; 2];
    std::thread::scope(|scope| {
        scope.spawn(|| post(0));
        scope.spawn(|| post(1));
        for _ in 0..2 * EACH {
            let wc = pair.a.send.success();
            let thread = (wc.wr_id >> 32) as usize;
            assert_eq!(wc.wr_id & 0xffff_ffff, next[thread], "each thread's requests complete in its order");
            next[thread] += 1;
        }
    });
    assert_eq!(next, [EACH; 2]);
    assert!(pair.a.send.poll().is_none());
}
