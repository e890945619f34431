//! The shortest way through: two queue pairs, SEND and WRITE, in one process and between two.

mod support;

use ibex_sys::*;
use support::*;

#[test]
fn send_and_write_within_a_process() {
    let pair = Pair::new();
    for (round, size) in [0, 1, 4095, 4096, 4097, 1 << 20].into_iter().enumerate() {
        let seed = round as u64;
        pair.am.fill(0..size, seed);
        pair.bm.clear();
        pair.b.recv(seed, pair.bm.sge(0, 1 << 20));
        pair.a.send_one(100 + seed, pair.am.sge(0, size));
        let got = pair.b.recv.success();
        assert_eq!((got.wr_id, got.byte_len as usize, got.opcode), (seed, size, IBV_WC_RECV));
        assert_eq!((got.qp_num, got.src_qp), (pair.b.num(), pair.a.num()));
        let sent = pair.a.send.success();
        assert_eq!((sent.wr_id, sent.opcode, sent.qp_num), (100 + seed, IBV_WC_SEND, pair.a.num()));
        pair.bm.check(0..size, seed, 0);

        pair.bm.clear();
        pair.a.rdma(IBV_WR_RDMA_WRITE, 200 + seed, pair.am.sge(0, size), pair.bm.addr(), pair.bm.rkey());
        let wrote = pair.a.send.success();
        assert_eq!((wrote.wr_id, wrote.opcode), (200 + seed, IBV_WC_RDMA_WRITE));
        pair.bm.check(0..size, seed, 0);
    }
    assert!(pair.a.send.poll().is_none());
    assert!(pair.b.recv.poll().is_none());
}

/// One end of the test between two processes.
fn process(link: &mut peer::Link, first: bool) {
    let context = Context::open();
    let pd = Pd::alloc(&context);
    let cq = Cq::create(&context, 64, None);
    let qp = Qp::create(&pd, &cq, &cq, Wish::default());
    let memory = Mr::reg(&pd, 1 << 20, ALL);
    let other = link.exchange(qp.endpoint(if first { 0 } else { 1 }));
    link.put(memory.addr());
    link.put(u64::from(memory.rkey()));
    let (addr, rkey) = (link.take(), link.take() as u32);
    qp.recv(1, memory.sge(0, 1 << 20));
    qp.connect(other);
    link.meet();
    let half = 1 << 19;
    if first {
        memory.fill(0..half, 1);
        qp.send_one(2, memory.sge(0, half));
        assert_eq!(cq.success().wr_id, 2);
        assert_eq!(cq.success().wr_id, 1);
        memory.check(0..half, 2, 0);
        memory.fill(0..half, 3);
        qp.rdma(IBV_WR_RDMA_WRITE, 3, memory.sge(0, half), addr + half as u64, rkey);
        assert_eq!(cq.success().wr_id, 3);
        link.meet();
    } else {
        assert_eq!(cq.success().wr_id, 1);
        memory.check(0..half, 1, 0);
        memory.fill(0..half, 2);
        qp.send_one(2, memory.sge(0, half));
        assert_eq!(cq.success().wr_id, 2);
        link.meet();
        memory.check(half..2 * half, 3, 0);
    }
}

#[test]
fn send_and_write_between_processes() {
    match peer::second() {
        Some(mut link) => process(&mut link, false),
        None => {
            let mut other = peer::start("send_and_write_between_processes");
            process(&mut other.link, true);
            other.join();
        }
    }
}
