//! Objects made and destroyed while packets for them are under way, from many threads: nothing hangs, nothing strays.
#![allow(unsafe_code)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ibex_sys::*;
use support::*;

/// How long each test stirs.
const TIME: Duration = Duration::from_millis(1500);

#[test]
fn regions_vanish_while_they_are_written() {
    let context = Context::open();
    let pd = Pd::alloc(&context);
    let source = Mr::reg(&pd, 65536, ALL);
    let stop = AtomicBool::new(false);
    let (done, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let cq = Cq::create(&context, 64, None);
                    let (a, b) = (
                        Qp::create(&pd, &cq, &cq, Wish::default()),
                        Qp::create(&pd, &cq, &cq, Wish::default()),
                    );
                    a.connect(b.endpoint(1));
                    b.connect(a.endpoint(1));
                    let target = Mr::reg(&pd, 65536, ALL);
                    for id in 0..8 {
                        a.rdma(IBV_WR_RDMA_WRITE, id, source.sge(0, 60_000), target.addr(), target.rkey());
                    }
                    drop(target);
                    for _ in 0..8 {
                        let status = cq.wait().status;
                        assert!(
                            [IBV_WC_SUCCESS, IBV_WC_REM_ACCESS_ERR, IBV_WC_WR_FLUSH_ERR].contains(&status),
                            "{status}"
                        );
                        let counter = if status == IBV_WC_SUCCESS { &done } else { &refused };
                        counter.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        std::thread::sleep(TIME);
        stop.store(true, Ordering::Relaxed);
    });
    println!("{} written, {} refused", done.into_inner(), refused.into_inner());
}

#[test]
fn queue_pairs_vanish_while_they_are_written_to() {
    let context = Context::open();
    let pd = Pd::alloc(&context);
    let memory = Mr::reg(&pd, 65536, ALL);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..3u64 {
            let (context, pd, memory, stop) = (&context, &pd, &memory, &stop);
            scope.spawn(move || {
                let mut rounds = 0;
                while !stop.load(Ordering::Relaxed) {
                    let cq = Cq::create(context, 64, None);
                    let a = Qp::create(pd, &cq, &cq, Wish::default());
                    let b = Qp::create(pd, &cq, &cq, Wish::default());
                    a.connect(b.endpoint(1));
                    b.connect(a.endpoint(0));
                    for id in 0..16 {
                        a.rdma(
                            IBV_WR_RDMA_READ,
                            id,
                            memory.sge(0, 30_000),
                            memory.addr() + 32_768,
                            memory.rkey(),
                        );
                    }
                    // In the middle of it, from either side.
                    if (rounds + thread) % 2 == 0 {
                        drop(a);
                        drop(b);
                    } else {
                        cq.poll();
                        drop(b);
                        drop(a);
                    }
                    rounds += 1;
                }
                assert!(rounds > 0);
            });
        }
        std::thread::sleep(TIME);
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn pollers_and_blockers_share_the_device() {
    let context = Context::open();
    let pd = Pd::alloc(&context);
    let end = Instant::now() + TIME;
    std::thread::scope(|scope| {
        for kind in 0..4 {
            let (context, pd) = (&context, &pd);
            scope.spawn(move || {
                let channel = Channel::create(context);
                let (acq, bcq) = (Cq::create(context, 64, None), Cq::create(context, 64, Some(&channel)));
                let a = Qp::create(pd, &acq, &acq, Wish::default());
                let b = Qp::create(pd, &bcq, &bcq, Wish::default());
                a.connect(b.endpoint(1));
                b.connect(a.endpoint(1));
                let memory = Mr::reg(pd, 8192, ALL);
                let mut rounds = 0u64;
                while Instant::now() < end {
                    memory.fill(0..4000, rounds);
                    b.recv(rounds, memory.sge(4096, 4096));
                    a.send_one(rounds, memory.sge(0, 4000));
                    wait(&bcq, kind % 2 == 0, &channel);
                    memory.check(4096..8096, rounds, 0);
                    assert_eq!(acq.success().wr_id, rounds);
                    rounds += 1;
                }
                assert!(rounds > 10, "{rounds} rounds");
            });
        }
    });
}

/// Waits for one completion, polling or blocking.
fn wait(cq: &Arc<Cq>, polling: bool, channel: &Channel) {
    if polling {
        cq.success();
        return;
    }
    loop {
        cq.arm(false);
        if let Some(wc) = cq.poll() {
            assert_eq!(wc.status, IBV_WC_SUCCESS);
            return;
        }
        assert!(channel.get().is_some());
    }
}
