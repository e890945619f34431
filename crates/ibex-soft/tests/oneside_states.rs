//! One-sided operations while the queue pair that serves them changes its state: what has begun ends before it is gone, and
//! what packets would have told is told.
#![allow(unsafe_code)]

mod support;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ibex_sys::*;
use support::*;

/// Enough that a copy takes milliseconds, which is longer than a call.
const BYTES: usize = 64 << 20;

/// Packets end within a quarter of a second if nobody answers.
fn wish() -> Wish {
    Wish { timeout: 13, retry: 6, ..Wish::default() }
}

/// Both ends' objects, connected; what is connected later is the callers' own.
struct End {
    context: std::sync::Arc<Context>,
    pd: std::sync::Arc<Pd>,
    cq: std::sync::Arc<Cq>,
    qp: Qp,
    memory: Mr,
}

fn end(link: &mut peer::Link) -> End {
    let context = Context::open();
    let pd = Pd::alloc(&context);
    let cq = Cq::create(&context, 64, None);
    let qp = Qp::create(&pd, &cq, &cq, wish());
    let memory = Mr::reg(&pd, BYTES, ALL);
    memory.fill(0..BYTES, 1);
    let peer = link.exchange(qp.endpoint(1));
    qp.connect(peer);
    End { context, pd, cq, qp, memory }
}

/// Waits until the other process's memory is reached without its help.
fn attach(end: &End, addr: u64, rkey: u32) {
    let start = Instant::now();
    loop {
        end.qp.rdma(IBV_WR_RDMA_READ, 7, end.memory.sge(0, 8), addr, rkey);
        if end.qp.send.poll().is_some_and(|wc| wc.status == IBV_WC_SUCCESS) {
            return;
        }
        end.qp.send.success();
        assert!(start.elapsed() < LIMIT, "the other process's memory is not reached");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn destroyed_in_a_copy(mut link: peer::Link) {
    let End { qp, memory, .. } = end(&mut link);
    link.put(memory.addr());
    link.put(u64::from(memory.rkey()));
    link.take();
    let load = |at: usize| memory.word(at).load(Ordering::SeqCst);
    let before = load(512);
    let start = Instant::now();
    while load(512) == before {
        assert!(start.elapsed() < LIMIT, "nothing comes");
        std::hint::spin_loop();
    }
    // It fails by itself: nobody has waited for the copy yet.
    let mut bad = memory.sge(0, 8);
    bad.lkey ^= 0x7700;
    qp.rdma(IBV_WR_RDMA_WRITE, 9, bad, 0x1000, 77);
    assert_ne!(qp.send.wait().status, IBV_WC_SUCCESS);
    drop(qp);
    let last = load(BYTES / 8 - 1);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(load(BYTES / 8 - 1), last, "written after the queue pair was destroyed");
    link.put(0);
}

#[test]
fn nothing_is_written_through_a_queue_pair_that_failed_and_was_destroyed() {
    if let Some(link) = peer::second() {
        return destroyed_in_a_copy(link);
    }
    let test = "nothing_is_written_through_a_queue_pair_that_failed_and_was_destroyed";
    let mut peer = peer::start_with(test, &[]);
    let near = end(&mut peer.link);
    let (addr, rkey) = (peer.link.take(), peer.link.take() as u32);
    attach(&near, addr, rkey);
    near.memory.fill(0..BYTES, 2);
    peer.link.put(0);
    // The other one looks by now.
    std::thread::sleep(Duration::from_millis(20));
    near.qp.rdma(IBV_WR_RDMA_WRITE, 7, near.memory.sge(0, BYTES), addr, rkey);
    assert_eq!(peer.link.take(), 0);
    peer.join();
}

fn waiting_for_the_first_packet(mut link: peer::Link) {
    let End { context, pd, cq, qp: _qp, memory } = end(&mut link);
    link.put(memory.addr());
    link.put(u64::from(memory.rkey()));
    let late = Qp::create(&pd, &cq, &cq, wish());
    let peer = link.exchange(late.endpoint(1));
    late.rtr(peer);
    link.put(0);
    let event = context.event(10_000).expect("communication established");
    assert_eq!((event.event_type, c!(event.element.qp)), (IBV_EVENT_COMM_EST, late.qp));
    link.take();
}

#[test]
fn the_first_operation_on_a_queue_pair_in_rtr_is_told() {
    if let Some(link) = peer::second() {
        return waiting_for_the_first_packet(link);
    }
    let mut peer = peer::start_with("the_first_operation_on_a_queue_pair_in_rtr_is_told", &[]);
    let near = end(&mut peer.link);
    let (addr, rkey) = (peer.link.take(), peer.link.take() as u32);
    attach(&near, addr, rkey);
    let late = Qp::create(&near.pd, &near.cq, &near.cq, wish());
    let theirs = peer.link.exchange(late.endpoint(1));
    late.connect(theirs);
    assert_eq!(peer.link.take(), 0);
    late.rdma(IBV_WR_RDMA_WRITE, 8, near.memory.sge(0, 8), addr, rkey);
    late.send.success();
    peer.link.put(0);
    peer.join();
}
