//! Extended verbs: completions walked over, requests built in place. `ibv_create_cq_ex(3)`, `ibv_wr_post(3)`.

use std::time::Instant;

use ibex_sys::{
    IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP, IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD, IBV_QP_EX_WITH_RDMA_READ,
    IBV_QP_EX_WITH_RDMA_WRITE, IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM, IBV_QP_EX_WITH_SEND,
    IBV_QP_EX_WITH_SEND_WITH_IMM, IBV_SEND_INLINE, IBV_WC_COMP_SWAP, IBV_WC_FETCH_ADD, IBV_WC_RDMA_READ,
    IBV_WC_RDMA_WRITE, IBV_WC_RECV, IBV_WC_RECV_RDMA_WITH_IMM, IBV_WC_SEND, IBV_WC_SUCCESS, IBV_WC_WITH_IMM,
    ibv_qp_create_send_ops_flags,
};

use super::data::succeeded;
use crate::Outcome;
use crate::lab::{
    Cq, Lab, Node, NodeOptions, PATIENCE, Pair, QUIET, Qp, Recv, Seen, Send, imm_data, pattern,
};

crate::group!("extended";
    built_requests_are_carried_out,
    pieces_of_different_lengths_are_gathered,
    inline_data_is_copied_when_it_is_set,
    a_batch_is_posted_as_one_and_in_order,
    an_aborted_batch_posts_nothing,
    a_batch_that_does_not_fit_posts_nothing,
    a_walk_over_nothing_finds_nothing,
    a_walk_reads_what_completed,
    each_completion_is_walked_over_exactly_once,
    an_extended_queue_can_be_polled_the_classic_way,
);

fn ops() -> ibv_qp_create_send_ops_flags {
    IBV_QP_EX_WITH_SEND
        | IBV_QP_EX_WITH_SEND_WITH_IMM
        | IBV_QP_EX_WITH_RDMA_WRITE
        | IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM
        | IBV_QP_EX_WITH_RDMA_READ
        | IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP
        | IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD
}

/// A pair whose first end builds its requests, or why there is none.
fn builders(lab: &Lab) -> Result<Pair, Outcome> {
    match Node::try_extended(lab, ops()) {
        Ok(a) => Ok(Pair::connect(lab, a, Node::new(lab, &NodeOptions::default()))),
        Err(libc::EOPNOTSUPP) => Err(Outcome::Skipped("the device has no extended queue pairs".into())),
        Err(errno) => panic!("cannot create an extended queue pair: errno {errno}"),
    }
}

/// A pair whose first end completes into an extended queue, or why there is none.
fn walkers(lab: &Lab) -> Result<Pair, Outcome> {
    let options = NodeOptions::default();
    let cq = match Cq::try_extended(lab, 256) {
        Ok(cq) => cq,
        Err(libc::EOPNOTSUPP) => {
            return Err(Outcome::Skipped("the device has no extended completion queues".into()));
        }
        Err(errno) => panic!("cannot create an extended completion queue: errno {errno}"),
    };
    let pd = lab.pd();
    let qp = Qp::try_new(&pd, &cq, &cq, options.cap, false)
        .unwrap_or_else(|errno| panic!("cannot create a queue pair: errno {errno}"));
    let a = Node { lab: lab.clone(), qp, cq, pd };
    Ok(Pair::connect(lab, a, Node::new(lab, &options)))
}

macro_rules! some_or_skip {
    ($made:expr) => {
        match $made {
            Ok(pair) => pair,
            Err(skipped) => return skipped,
        }
    };
}

/// Walks until so many completions have come.
fn walk(cq: &Cq, count: usize, most: usize) -> Vec<Seen> {
    let end = Instant::now() + PATIENCE;
    let mut seen = Vec::new();
    while seen.len() < count {
        seen.extend(cq.walk(most.min(count - seen.len())));
        assert!(Instant::now() < end, "{} of {count} completions came", seen.len());
    }
    seen
}

fn built_requests_are_carried_out() -> Outcome {
    let lab = Lab::open();
    let pair = some_or_skip!(builders(&lab));
    let (near, far) = (pair.a.open_region(8192), pair.b.open_region(8192));
    near.write(0, &pattern(3, 4096));
    far.write(4096, &40u64.to_ne_bytes());
    pair.b.qp.post_recv(&[
        Recv::new(1, &[far.sge(0, 256)]),
        Recv::new(2, &[far.sge(256, 256)]),
        Recv::new(3, &[]),
    ]);
    pair.a
        .qp
        .try_build(&[
            Send::message(10, &[near.sge(0, 200)]),
            Send::message_imm(11, &[near.sge(200, 25), near.sge(225, 25)], 0x0102_0304),
            Send::write(12, &[near.sge(0, 1000)], &far, 1000),
            Send::write(13, &[near.sge(7, 32)], &far, 2000),
            Send::write_imm(14, &[near.sge(0, 16)], &far, 2048, 5),
            Send::read(15, &[near.sge(5000, 1000)], &far, 1000),
            Send::fetch_add(16, near.sge(6000, 8), &far, 4096, 2),
            Send::compare_swap(17, near.sge(6008, 8), &far, 4096, 42, 7),
        ])
        .expect("a batch of good requests");
    let opcodes = [
        IBV_WC_SEND,
        IBV_WC_SEND,
        IBV_WC_RDMA_WRITE,
        IBV_WC_RDMA_WRITE,
        IBV_WC_RDMA_WRITE,
        IBV_WC_RDMA_READ,
        IBV_WC_FETCH_ADD,
        IBV_WC_COMP_SWAP,
    ];
    for ((wc, id), opcode) in pair.a.cq.wait(8).iter().zip(10..).zip(opcodes) {
        succeeded(wc, id, opcode);
    }
    let arrived = pair.b.cq.wait(3);
    succeeded(&arrived[0], 1, IBV_WC_RECV);
    succeeded(&arrived[1], 2, IBV_WC_RECV);
    assert_eq!((arrived[1].byte_len, u32::from_be(imm_data(&arrived[1]))), (50, 0x0102_0304));
    succeeded(&arrived[2], 3, IBV_WC_RECV_RDMA_WITH_IMM);
    let sent = pattern(3, 4096);
    assert_eq!(far.read(0, 200), sent[..200]);
    assert_eq!(far.read(256, 50), sent[200..250]);
    assert_eq!(far.read(2000, 32), sent[7..39]);
    assert_eq!(near.read(5000, 1000), sent[..1000]);
    assert_eq!(near.read(6000, 8), 40u64.to_ne_bytes());
    assert_eq!(near.read(6008, 8), 42u64.to_ne_bytes());
    assert_eq!(far.read(4096, 8), 7u64.to_ne_bytes());
    Outcome::Passed
}

fn pieces_of_different_lengths_are_gathered() -> Outcome {
    let lab = Lab::open();
    let pair = some_or_skip!(builders(&lab));
    let (near, far) = (pair.a.open_region(64), pair.b.open_region(64));
    near.write(0, &pattern(7, 64));
    let pieces = [near.sge(0, 20), near.sge(24, 30)];
    pair.a.qp.try_build(&[Send::write(1, &pieces, &far, 0)]).expect("a list within the limit");
    succeeded(&pair.a.cq.wait_one(), 1, IBV_WC_RDMA_WRITE);
    let sent = pattern(7, 64);
    assert_eq!(far.read(0, 50), [&sent[..20], &sent[24..54]].concat());
    Outcome::Passed
}

fn inline_data_is_copied_when_it_is_set() -> Outcome {
    let lab = Lab::open();
    let pair = some_or_skip!(builders(&lab));
    if pair.a.qp.cap.max_inline_data < 32 {
        return Outcome::Skipped("the device grants no inline data".into());
    }
    let (near, far) = (pair.a.open_region(64), pair.b.open_region(64));
    near.write(0, &pattern(6, 32));
    pair.a
        .qp
        .try_build(&[Send::write(1, &[near.sge(0, 32)], &far, 8).flag(IBV_SEND_INLINE)])
        .expect("inline data within the limit");
    succeeded(&pair.a.cq.wait_one(), 1, IBV_WC_RDMA_WRITE);
    assert_eq!(far.read(8, 32), pattern(6, 32));
    Outcome::Passed
}

fn a_batch_is_posted_as_one_and_in_order() -> Outcome {
    let lab = Lab::open();
    let pair = some_or_skip!(builders(&lab));
    let (near, far) = (pair.a.open_region(64), pair.b.open_region(64));
    for round in 0..20u64 {
        let batch: Vec<Send> = (0..30)
            .map(|index| {
                let send = Send::write(30 * round + index, &[near.sge(0, 8)], &far, 0);
                // The last of each batch tells of all of them.
                if index < 29 { send.unsignalled() } else { send }
            })
            .collect();
        pair.a.qp.try_build(&batch).expect("room for a batch");
        succeeded(&pair.a.cq.wait_one(), 30 * round + 29, IBV_WC_RDMA_WRITE);
    }
    pair.a.cq.stays_empty();
    Outcome::Passed
}

fn an_aborted_batch_posts_nothing() -> Outcome {
    let lab = Lab::open();
    let pair = some_or_skip!(builders(&lab));
    let (near, far) = (pair.a.open_region(64), pair.b.open_region(64));
    near.write(0, &pattern(1, 8));
    pair.a.qp.abort(&[Send::write(1, &[near.sge(0, 8)], &far, 0), Send::message(2, &[near.sge(0, 8)])]);
    pair.a.cq.stays_empty();
    assert_eq!(far.read(0, 8), [0; 8]);
    pair.a.qp.try_build(&[Send::write(3, &[near.sge(0, 8)], &far, 8)]).expect("a batch after that");
    succeeded(&pair.a.cq.wait_one(), 3, IBV_WC_RDMA_WRITE);
    assert_eq!(far.read(0, 16), [vec![0; 8], pattern(1, 8)].concat());
    Outcome::Passed
}

fn a_batch_that_does_not_fit_posts_nothing() -> Outcome {
    let lab = Lab::open();
    let pair = some_or_skip!(builders(&lab));
    let (near, far) = (pair.a.open_region(64), pair.b.open_region(64));
    let granted = u64::from(pair.a.qp.cap.max_send_wr);
    let writes = |count: u64| -> Vec<Send> {
        (0..count).map(|id| Send::write(id, &[near.sge(0, 8)], &far, 0)).collect()
    };
    // A device may have more room than it granted, but not that much.
    // The manual leaves open by which errno it says so.
    assert!(pair.a.qp.try_build(&writes(4 * granted + 1024)).is_err());
    pair.a.cq.stays_empty();
    pair.a.qp.try_build(&writes(granted)).expect("as many as were granted");
    for (id, wc) in (0..).zip(pair.a.cq.wait(usize::try_from(granted).expect("small"))) {
        succeeded(&wc, id, IBV_WC_RDMA_WRITE);
    }
    Outcome::Passed
}

fn a_walk_over_nothing_finds_nothing() -> Outcome {
    let lab = Lab::open();
    let pair = some_or_skip!(walkers(&lab));
    let end = Instant::now() + QUIET;
    while Instant::now() < end {
        assert_eq!(pair.a.cq.walk(16), []);
    }
    Outcome::Passed
}

fn a_walk_reads_what_completed() -> Outcome {
    let lab = Lab::open();
    let pair = some_or_skip!(walkers(&lab));
    let (near, far) = (pair.a.open_region(64), pair.b.open_region(64));
    pair.a.qp.post_recv(&[Recv::new(7, &[near.sge(0, 64)])]);
    pair.b.qp.post(&[Send::message_imm(1, &[far.sge(0, 24)], 99)]);
    let came = walk(&pair.a.cq, 1, 1)[0];
    assert_eq!((came.wr_id, came.status, came.opcode), (7, IBV_WC_SUCCESS, IBV_WC_RECV));
    assert_eq!((came.byte_len, came.qp_num), (24, pair.a.qp.num()));
    assert_eq!((came.wc_flags & IBV_WC_WITH_IMM.0, u32::from_be(came.imm)), (IBV_WC_WITH_IMM.0, 99));
    pair.a.qp.post(&[Send::write(8, &[near.sge(0, 8)], &far, 0)]);
    let came = walk(&pair.a.cq, 1, 1)[0];
    assert_eq!((came.wr_id, came.status, came.opcode), (8, IBV_WC_SUCCESS, IBV_WC_RDMA_WRITE));
    Outcome::Passed
}

fn each_completion_is_walked_over_exactly_once() -> Outcome {
    let lab = Lab::open();
    let pair = some_or_skip!(walkers(&lab));
    let (near, far) = (pair.a.open_region(64), pair.b.open_region(64));
    let mut next = 0u64;
    for round in 0..40u64 {
        let count = 1 + round % 32;
        let sends: Vec<Send> =
            (0..count).map(|index| Send::write(next + index, &[near.sge(0, 8)], &far, 0)).collect();
        pair.a.qp.post(&sends);
        // Walks that end because there is no more, and walks that stop before.
        let end = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        while seen.len() < sends.len() {
            seen.extend(pair.a.cq.walk(if round % 2 == 0 { usize::MAX } else { 3 }));
            assert!(Instant::now() < end, "{} of {count} completions came", seen.len());
        }
        let ids: Vec<u64> = seen.iter().map(|seen| seen.wr_id).collect();
        assert_eq!(ids, (next..next + count).collect::<Vec<_>>(), "each once, in order, and no other");
        next += count;
    }
    assert_eq!(pair.a.cq.walk(16), []);
    Outcome::Passed
}

fn an_extended_queue_can_be_polled_the_classic_way() -> Outcome {
    let lab = Lab::open();
    let pair = some_or_skip!(walkers(&lab));
    let (near, far) = (pair.a.open_region(64), pair.b.open_region(64));
    pair.a.qp.post(&(0..20).map(|id| Send::write(id, &[near.sge(0, 8)], &far, 0)).collect::<Vec<_>>());
    for (id, wc) in (0..).zip(pair.a.cq.wait(20)) {
        succeeded(&wc, id, IBV_WC_RDMA_WRITE);
    }
    pair.a.cq.stays_empty();
    Outcome::Passed
}
