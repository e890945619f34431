//! Results of atomics: read before the word where they landed can be reused or unmapped.
#![cfg(feature = "soft")]
#![allow(clippy::unwrap_used)]

use ibex::prelude::*;

fn connected(pd: &ProtectionDomain, cq: &CompletionQueue, depth: u32) -> (QueuePair, QueuePair) {
    let left = pd.create_rc(cq).max_send_wr(depth).max_recv_wr(depth).build().unwrap();
    let right = pd.create_rc(cq).max_send_wr(depth).max_recv_wr(depth).build().unwrap();
    let (l, r) = (left.endpoint(), right.endpoint());
    (left.connect(&r).unwrap(), right.connect(&l).unwrap())
}

#[test]
fn a_result_outlives_the_queue_pair() {
    let ctx = Provider::Soft.devices().unwrap()[0].open().unwrap();
    let pd = ctx.alloc_pd().unwrap();
    let cq = ctx.create_cq(16).unwrap();
    let (left, right) = connected(&pd, &cq, 4);
    let region = pd.shared(4 * KIB).unwrap();
    region.store_u64(0, 41).unwrap();
    let target = left.bind(region.expose(Access::REMOTE_ATOMIC).unwrap()).unwrap().u64_at(0).unwrap();
    let op = left.fetch_add(target, 1).unwrap().into_static();
    while !op.poll() {
        std::thread::yield_now();
    }
    // The operation holds the last count of what the queue pair was; the word goes with it.
    drop((left, right));
    assert_eq!(op.wait().unwrap(), 41);
    assert_eq!(region.load_u64(0).unwrap(), 42);
}

/// The slot of an operation is free for another thread's request before its result is returned; the word must have been
/// read by then.
#[test]
fn a_result_is_not_the_next_operations() {
    const EACH: u64 = 2_000;
    let ctx = Provider::Soft.devices().unwrap()[0].open().unwrap();
    let pd = ctx.alloc_pd().unwrap();
    let cq = ctx.create_cq(16).unwrap();
    let (left, _right) = connected(&pd, &cq, 1);
    let region = pd.shared(4 * KIB).unwrap();
    let target = left.bind(region.expose(Access::REMOTE_ATOMIC).unwrap()).unwrap().u64_at(0).unwrap();
    let work = || {
        let mut seen = Vec::new();
        while seen.len() < EACH as usize {
            match left.fetch_add(target, 1) {
                Ok(op) => seen.push(op.wait().unwrap()),
                Err(ibex::PostError::QueueFull { .. }) => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
        seen
    };
    let mut all = std::thread::scope(|scope| {
        let threads = [scope.spawn(work), scope.spawn(work)];
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    all.sort_unstable();
    assert!(all.into_iter().eq(0..2 * EACH), "a former value was returned twice");
}
