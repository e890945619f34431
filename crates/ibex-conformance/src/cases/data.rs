//! Payload arrives whole, once, where it was meant to, with its completion: every opcode, every size that matters.

use ibex_sys::{
    IBV_SEND_FENCE, IBV_SEND_INLINE, IBV_WC_COMP_SWAP, IBV_WC_FETCH_ADD, IBV_WC_RDMA_READ, IBV_WC_RDMA_WRITE,
    IBV_WC_RECV, IBV_WC_RECV_RDMA_WITH_IMM, IBV_WC_SEND, IBV_WC_SUCCESS, IBV_WC_WITH_IMM, ibv_qp_cap, ibv_wc,
    ibv_wc_opcode,
};

use crate::Outcome;
use crate::lab::{Lab, LinkOptions, NodeOptions, Pair, Recv, Region, Send, pattern};

crate::group!("data";
    send_at_every_size,
    send_with_immediate_at_every_size,
    write_at_every_size,
    write_with_immediate_at_every_size,
    read_at_every_size,
    compare_and_swap,
    fetch_and_add,
    atomics_of_many_are_all_counted,
    inline_is_copied_when_posted,
    gather_and_scatter_lists,
    unsignalled_work_completes_with_a_later_one,
    fenced_send_sees_the_read_before_it,
    both_directions_at_once,
    sequence_numbers_wrap,
    a_pair_to_itself,
    a_megabyte_in_each_of_many_messages,
);

/// Sizes at which segmentation changes its shape.
fn sizes(lab: &Lab) -> [usize; 7] {
    let mtu = lab.mtu();
    [0, 1, mtu - 1, mtu, mtu + 1, 3 * mtu + 5, 1 << 20]
}

/// Asserts a successful completion.
pub(super) fn succeeded(wc: &ibv_wc, id: u64, opcode: ibv_wc_opcode) {
    assert_eq!(wc.status, IBV_WC_SUCCESS, "request {id}: vendor error {:#x}", wc.vendor_err);
    assert_eq!(wc.wr_id, id);
    assert_eq!(wc.opcode, opcode);
}

/// Asserts that a region holds the payload at an offset and the filling everywhere else.
fn holds(region: &Region, offset: usize, payload: &[u8], filling: u8) {
    let all = region.read(0, region.len());
    let (before, rest) = all.split_at(offset);
    let (middle, after) = rest.split_at(payload.len());
    assert!(middle == payload, "the payload of {} bytes is wrong", payload.len());
    assert!(before.iter().chain(after).all(|byte| *byte == filling), "bytes around the payload were changed");
}

/// Runs one exchange a size: `body(pair, source, target, size)`.
fn at_every_size(body: impl Fn(&Pair, &Region, &Region, usize, &[u8])) -> Outcome {
    let lab = Lab::open();
    let pair = Pair::new(&lab);
    let source = pair.a.open_region(1 << 20);
    let target = pair.b.open_region((1 << 20) + 128);
    for (round, size) in sizes(&lab).into_iter().enumerate() {
        let payload = pattern(round as u64 + 1, size);
        source.write(0, &payload);
        target.fill(0xa5);
        body(&pair, &source, &target, size, &payload);
    }
    pair.a.cq.stays_empty();
    pair.b.cq.stays_empty();
    Outcome::Passed
}

fn send_at_every_size() -> Outcome {
    at_every_size(|pair, source, target, size, payload| {
        pair.b.qp.post_recv(&[Recv::new(70, &[target.sge(64, (1 << 20) as u32)])]);
        pair.a.qp.post(&[Send::message(7, &[source.sge(0, size as u32)])]);
        let wc = pair.b.cq.wait_one();
        succeeded(&wc, 70, IBV_WC_RECV);
        assert_eq!(wc.byte_len as usize, size);
        assert_eq!(wc.wc_flags & IBV_WC_WITH_IMM.0, 0);
        assert_eq!(wc.qp_num, pair.b.qp.num());
        holds(target, 64, payload, 0xa5);
        succeeded(&pair.a.cq.wait_one(), 7, IBV_WC_SEND);
    })
}

fn send_with_immediate_at_every_size() -> Outcome {
    at_every_size(|pair, source, target, size, payload| {
        pair.b.qp.post_recv(&[Recv::new(71, &[target.sge(64, (1 << 20) as u32)])]);
        pair.a.qp.post(&[Send::message_imm(8, &[source.sge(0, size as u32)], 0x0102_0304)]);
        let wc = pair.b.cq.wait_one();
        succeeded(&wc, 71, IBV_WC_RECV);
        assert_eq!(wc.byte_len as usize, size);
        immediate(&wc, 0x0102_0304);
        holds(target, 64, payload, 0xa5);
        succeeded(&pair.a.cq.wait_one(), 8, IBV_WC_SEND);
    })
}

/// Asserts that a completion carries immediate data.
fn immediate(wc: &ibv_wc, value: u32) {
    assert_ne!(wc.wc_flags & IBV_WC_WITH_IMM.0, 0, "no immediate data");
    assert_eq!(u32::from_be(crate::lab::imm_data(wc)), value);
}

fn write_at_every_size() -> Outcome {
    at_every_size(|pair, source, target, size, payload| {
        pair.a.qp.post(&[Send::write(9, &[source.sge(0, size as u32)], target, 64)]);
        succeeded(&pair.a.cq.wait_one(), 9, IBV_WC_RDMA_WRITE);
        holds(target, 64, payload, 0xa5);
    })
}

fn write_with_immediate_at_every_size() -> Outcome {
    at_every_size(|pair, source, target, size, payload| {
        pair.b.qp.post_recv(&[Recv::new(72, &[])]);
        pair.a.qp.post(&[Send::write_imm(10, &[source.sge(0, size as u32)], target, 64, 0xfeed_0001)]);
        let wc = pair.b.cq.wait_one();
        succeeded(&wc, 72, IBV_WC_RECV_RDMA_WITH_IMM);
        assert_eq!(wc.byte_len as usize, size);
        immediate(&wc, 0xfeed_0001);
        holds(target, 64, payload, 0xa5);
        succeeded(&pair.a.cq.wait_one(), 10, IBV_WC_RDMA_WRITE);
    })
}

fn read_at_every_size() -> Outcome {
    let lab = Lab::open();
    let pair = Pair::new(&lab);
    let source = pair.b.open_region(1 << 20);
    let landing = pair.a.open_region((1 << 20) + 128);
    for (round, size) in sizes(&lab).into_iter().enumerate() {
        let payload = pattern(round as u64 + 100, size);
        source.write(0, &payload);
        landing.fill(0x5a);
        pair.a.qp.post(&[Send::read(11, &[landing.sge(64, size as u32)], &source, 0)]);
        let wc = pair.a.cq.wait_one();
        succeeded(&wc, 11, IBV_WC_RDMA_READ);
        holds(&landing, 64, &payload, 0x5a);
    }
    pair.b.cq.stays_empty();
    Outcome::Passed
}

fn word(region: &Region, offset: usize) -> u64 {
    u64::from_ne_bytes(region.read(offset, 8).try_into().expect("eight bytes"))
}

fn compare_and_swap() -> Outcome {
    let lab = Lab::open();
    if lab.attr().atomic_cap == ibex_sys::IBV_ATOMIC_NONE {
        return Outcome::Skipped("the device reports IBV_ATOMIC_NONE".to_owned());
    }
    let pair = Pair::new(&lab);
    let target = pair.b.open_region(64);
    let landing = pair.a.open_region(64);
    target.write(8, &5u64.to_ne_bytes());
    // Matches: swapped. Then does not match: left alone. Both give the value before.
    for (compare, swap, before, after) in [(5, 9, 5, 9), (5, 11, 9, 9)] {
        pair.a.qp.post(&[Send::compare_swap(12, landing.sge(16, 8), &target, 8, compare, swap)]);
        succeeded(&pair.a.cq.wait_one(), 12, IBV_WC_COMP_SWAP);
        assert_eq!((word(&landing, 16), word(&target, 8)), (before, after));
    }
    assert_eq!(target.read(0, 8), [0; 8]);
    assert_eq!(target.read(16, 48), [0; 48]);
    Outcome::Passed
}

fn fetch_and_add() -> Outcome {
    let lab = Lab::open();
    if lab.attr().atomic_cap == ibex_sys::IBV_ATOMIC_NONE {
        return Outcome::Skipped("the device reports IBV_ATOMIC_NONE".to_owned());
    }
    let pair = Pair::new(&lab);
    let target = pair.b.open_region(64);
    let landing = pair.a.open_region(64);
    target.write(0, &u64::MAX.to_ne_bytes());
    pair.a.qp.post(&[Send::fetch_add(13, landing.sge(0, 8), &target, 0, 3)]);
    succeeded(&pair.a.cq.wait_one(), 13, IBV_WC_FETCH_ADD);
    assert_eq!((word(&landing, 0), word(&target, 0)), (u64::MAX, 2), "addition wraps");
    Outcome::Passed
}

fn atomics_of_many_are_all_counted() -> Outcome {
    let lab = Lab::open();
    if lab.attr().atomic_cap == ibex_sys::IBV_ATOMIC_NONE {
        return Outcome::Skipped("the device reports IBV_ATOMIC_NONE".to_owned());
    }
    let pairs: Vec<Pair> = (0..3).map(|_| Pair::new(&lab)).collect();
    // One target, reachable through each pair's own registration of it would need shared memory: here one pair adds
    // forward and the same pair backward, and a third only reads what comes of it.
    let rounds = 50u64;
    for pair in &pairs {
        let target = pair.b.open_region(8);
        let landing = pair.a.open_region(64 * 8);
        let mut seen = Vec::new();
        for batch in 0..rounds / 10 {
            let sends: Vec<Send> = (0..10)
                .map(|index| Send::fetch_add(batch * 10 + index, landing.sge(index * 8, 8), &target, 0, 1))
                .collect();
            pair.a.qp.post(&sends);
            for (index, wc) in pair.a.cq.wait(10).iter().enumerate() {
                succeeded(wc, batch * 10 + index as u64, IBV_WC_FETCH_ADD);
            }
            seen.extend((0..10).map(|index| word(&landing, index * 8)));
        }
        assert_eq!(seen, (0..rounds).collect::<Vec<_>>(), "each addition happened once and in order");
        assert_eq!(word(&target, 0), rounds);
    }
    Outcome::Passed
}

fn inline_is_copied_when_posted() -> Outcome {
    let lab = Lab::open();
    let options = NodeOptions {
        cap: ibv_qp_cap { max_inline_data: 64, ..NodeOptions::default().cap },
        ..NodeOptions::default()
    };
    let pair = Pair::with(&lab, &options, &LinkOptions::default());
    let room = pair.a.qp.cap.max_inline_data;
    assert!(room >= 64, "asked for 64 bytes of inline data, granted {room}");
    let source = pair.a.open_region(64);
    let target = pair.b.open_region(64);
    let payload = pattern(3, 64);
    source.write(0, &payload);
    pair.b.qp.post_recv(&[Recv::new(1, &[target.sge(0, 64)])]);
    // Inline data needs no key (ibv_post_send(3)): a wrong one must not matter, and neither may a later change.
    let sge = crate::lab::Sge { lkey: 0, ..source.sge(0, 64) };
    pair.a.qp.post(&[Send::message(2, &[sge]).flag(IBV_SEND_INLINE)]);
    source.fill(0);
    succeeded(&pair.b.cq.wait_one(), 1, IBV_WC_RECV);
    succeeded(&pair.a.cq.wait_one(), 2, IBV_WC_SEND);
    assert_eq!(target.read(0, 64), payload);
    // More than was granted is refused and nothing is posted.
    let large = pair.a.open_region(room as usize + 1);
    let refused = pair.a.qp.try_post(&[Send::message(3, &[large.sge(0, room + 1)]).flag(IBV_SEND_INLINE)]);
    assert!(refused.is_err(), "inline data beyond max_inline_data was accepted");
    pair.a.cq.stays_empty();
    Outcome::Passed
}

fn gather_and_scatter_lists() -> Outcome {
    let lab = Lab::open();
    let pair = Pair::new(&lab);
    let mtu = lab.mtu() as u32;
    let source = pair.a.open_region(4 * lab.mtu());
    let target = pair.b.open_region(4 * lab.mtu());
    let payload = pattern(4, source.len());
    source.write(0, &payload);
    // Entries that end inside a packet, an empty one, and a scatter list cut elsewhere, with just enough room.
    let gather =
        [source.sge(0, mtu - 13), source.sge(u64::from(mtu), 0), source.sge(100, mtu + 7), source.sge(7, 1)];
    let sent: Vec<u8> =
        [&payload[..mtu as usize - 13], &payload[100..100 + mtu as usize + 7], &payload[7..8]].concat();
    let scatter = [target.sge(0, 5), target.sge(u64::from(mtu), mtu), target.sge(3 * u64::from(mtu), mtu)];
    pair.b.qp.post_recv(&[Recv::new(1, &scatter)]);
    pair.a.qp.post(&[Send::message(2, &gather)]);
    let wc = pair.b.cq.wait_one();
    succeeded(&wc, 1, IBV_WC_RECV);
    assert_eq!(wc.byte_len as usize, sent.len());
    succeeded(&pair.a.cq.wait_one(), 2, IBV_WC_SEND);
    let mut rest = &sent[..];
    for (offset, room) in [(0, 5), (mtu as usize, mtu as usize), (3 * mtu as usize, mtu as usize)] {
        let (part, tail) = rest.split_at(rest.len().min(room));
        assert_eq!(target.read(offset, part.len()), part);
        rest = tail;
    }
    assert!(rest.is_empty());
    // READ scatters and WRITE gathers by the same lists.
    target.fill(0);
    pair.a.qp.post(&[Send::write(3, &gather, &target, 9)]);
    succeeded(&pair.a.cq.wait_one(), 3, IBV_WC_RDMA_WRITE);
    assert_eq!(target.read(9, sent.len()), sent);
    source.fill(0);
    pair.a.qp.post(&[Send::read(4, &[source.sge(0, 3), source.sge(50, sent.len() as u32 - 3)], &target, 9)]);
    succeeded(&pair.a.cq.wait_one(), 4, IBV_WC_RDMA_READ);
    assert_eq!([source.read(0, 3), source.read(50, sent.len() - 3)].concat(), sent);
    Outcome::Passed
}

fn unsignalled_work_completes_with_a_later_one() -> Outcome {
    let lab = Lab::open();
    let pair = Pair::new(&lab);
    let source = pair.a.open_region(64);
    let target = pair.b.open_region(4096);
    // More rounds than the queue is deep: unsignalled work must give its place back.
    for round in 0..40u64 {
        let mut sends: Vec<Send> = (0..9)
            .map(|index| {
                Send::write(index, &[source.sge(index, 1)], &target, round * 10 + index).unsignalled()
            })
            .collect();
        source.write(0, &pattern(round, 10));
        sends.push(Send::write(1000 + round, &[source.sge(9, 1)], &target, round * 10 + 9));
        pair.a.qp.post(&sends);
        succeeded(&pair.a.cq.wait_one(), 1000 + round, IBV_WC_RDMA_WRITE);
        assert_eq!(target.read(round as usize * 10, 10), pattern(round, 10));
    }
    pair.a.cq.stays_empty();
    Outcome::Passed
}

fn fenced_send_sees_the_read_before_it() -> Outcome {
    let lab = Lab::open();
    let pair = Pair::new(&lab);
    let bounce = pair.a.open_region(1 << 16);
    let source = pair.b.open_region(1 << 16);
    let target = pair.b.open_region(1 << 16);
    for round in 0..20 {
        let payload = pattern(round, 1 << 16);
        source.write(0, &payload);
        // The WRITE's payload is what the READ fetched: only the fence makes that order certain.
        pair.a.qp.post(&[
            Send::read(1, &[bounce.sge(0, 1 << 16)], &source, 0),
            Send::write(2, &[bounce.sge(0, 1 << 16)], &target, 0).flag(IBV_SEND_FENCE),
        ]);
        let wcs = pair.a.cq.wait(2);
        succeeded(&wcs[0], 1, IBV_WC_RDMA_READ);
        succeeded(&wcs[1], 2, IBV_WC_RDMA_WRITE);
        assert!(target.read(0, 1 << 16) == payload, "the fenced WRITE overtook the READ");
    }
    Outcome::Passed
}

fn both_directions_at_once() -> Outcome {
    let lab = Lab::open();
    let pair = Pair::new(&lab);
    let (a, b) = (pair.a.open_region(1 << 18), pair.b.open_region(1 << 18));
    let half = 1u32 << 17;
    for round in 0..4u64 {
        let (from_a, from_b) = (pattern(round, half as usize), pattern(round + 50, half as usize));
        a.write(0, &from_a);
        b.write(0, &from_b);
        pair.a.qp.post_recv(&[Recv::new(1, &[a.sge(u64::from(half), half)])]);
        pair.b.qp.post_recv(&[Recv::new(1, &[b.sge(u64::from(half), half)])]);
        pair.a.qp.post(&[Send::message(2, &[a.sge(0, half)])]);
        pair.b.qp.post(&[Send::message(2, &[b.sge(0, half)])]);
        for node in [&pair.a, &pair.b] {
            for wc in node.cq.wait(2) {
                succeeded(&wc, wc.wr_id, if wc.wr_id == 1 { IBV_WC_RECV } else { IBV_WC_SEND });
            }
        }
        assert!(a.read(half as usize, half as usize) == from_b);
        assert!(b.read(half as usize, half as usize) == from_a);
    }
    Outcome::Passed
}

fn sequence_numbers_wrap() -> Outcome {
    let lab = Lab::open();
    let link = LinkOptions { psn: 0x00ff_fffb, ..LinkOptions::default() };
    let pair = Pair::with(&lab, &NodeOptions::default(), &link);
    let (source, target) = (pair.a.open_region(1 << 16), pair.b.open_region(1 << 16));
    for round in 0..4 {
        let payload = pattern(round, 1 << 16);
        source.write(0, &payload);
        pair.a.qp.post(&[Send::write(1, &[source.sge(0, 1 << 16)], &target, 0)]);
        succeeded(&pair.a.cq.wait_one(), 1, IBV_WC_RDMA_WRITE);
        assert!(target.read(0, 1 << 16) == payload);
        source.fill(0);
        pair.a.qp.post(&[Send::read(2, &[source.sge(0, 1 << 16)], &target, 0)]);
        succeeded(&pair.a.cq.wait_one(), 2, IBV_WC_RDMA_READ);
        assert!(source.read(0, 1 << 16) == payload);
    }
    Outcome::Passed
}

fn a_pair_to_itself() -> Outcome {
    let lab = Lab::open();
    let node = lab.node(&NodeOptions::default());
    let link = LinkOptions::default();
    node.to_init(&link);
    node.to_rts(&link, node.qp.num(), lab.gid().1);
    let (source, target) = (node.open_region(5000), node.open_region(5000));
    source.write(0, &pattern(1, 5000));
    node.qp.post_recv(&[Recv::new(1, &[target.sge(0, 5000)])]);
    node.qp.post(&[Send::message(2, &[source.sge(0, 5000)])]);
    for wc in node.cq.wait(2) {
        succeeded(&wc, wc.wr_id, if wc.wr_id == 1 { IBV_WC_RECV } else { IBV_WC_SEND });
    }
    assert!(target.read(0, 5000) == pattern(1, 5000));
    Outcome::Passed
}

fn a_megabyte_in_each_of_many_messages() -> Outcome {
    let lab = Lab::open();
    let pair = Pair::new(&lab);
    let (source, target) = (pair.a.open_region(1 << 20), pair.b.open_region(4 << 20));
    let payload = pattern(77, 1 << 20);
    source.write(0, &payload);
    let sends: Vec<Send> =
        (0..4).map(|index| Send::write(index, &[source.sge(0, 1 << 20)], &target, index << 20)).collect();
    pair.a.qp.post(&sends);
    for (index, wc) in pair.a.cq.wait(4).iter().enumerate() {
        succeeded(wc, index as u64, IBV_WC_RDMA_WRITE);
    }
    for index in 0..4 {
        assert!(target.read(index << 20, 1 << 20) == payload, "message {index} is wrong");
    }
    Outcome::Passed
}
