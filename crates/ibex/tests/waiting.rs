//! Waiting in every way, by many threads on one completion queue: no wake-up is lost, and nobody gets another's end.
#![cfg(feature = "soft")]
#![allow(clippy::unwrap_used, reason = "a test may fail where it likes")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ibex::Unfinished;
use ibex::prelude::*;

/// Every way to wait.
const MODES: [Wait; 3] = [Wait::Sleep, Wait::Adaptive { spin: Duration::from_micros(20) }, Wait::Spin];

/// Long enough that nothing honest takes it, short enough for a test to fail in time.
const PATIENCE: Duration = Duration::from_secs(20);

struct Pair {
    left: QueuePair,
    right: QueuePair,
    pool: Pool,
}

fn pair(pd: &ProtectionDomain, cq: &CompletionQueue) -> Pair {
    let left = pd.create_rc(cq).max_send_wr(8).max_recv_wr(8).build().unwrap();
    let right = pd.create_rc(cq).max_send_wr(8).max_recv_wr(8).build().unwrap();
    let (l, r) = (left.endpoint(), right.endpoint());
    let (left, right) = (left.connect(&r).unwrap(), right.connect(&l).unwrap());
    let pool = pd.pool().block(256).blocks(16).build().unwrap();
    Pair { left, right, pool }
}

/// Sends `count` numbered messages one after the other and checks each.
fn exchange(pair: &Pair, count: u64) {
    let deadline = Instant::now() + PATIENCE;
    for number in 0..count {
        let incoming = pair.right.recv(pair.pool.take().unwrap()).unwrap();
        let sent = pair.left.send(pair.pool.take_from(&number.to_le_bytes()).unwrap()).unwrap();
        let (message, _) = incoming.wait_deadline(deadline).unwrap();
        assert_eq!(message[..], number.to_le_bytes());
        sent.wait_deadline(deadline).unwrap();
    }
}

#[test]
fn many_threads_share_a_completion_queue() {
    let ctx = Provider::Soft.devices().unwrap()[0].open().unwrap();
    let pd = ctx.alloc_pd().unwrap();
    for wait in MODES {
        let cq = ctx.cq(256).wait(wait).build().unwrap();
        let pairs: Vec<_> = (0..4).map(|_| pair(&pd, &cq)).collect();
        std::thread::scope(|scope| {
            for pair in &pairs {
                scope.spawn(|| exchange(pair, 300));
            }
        });
    }
}

#[test]
fn somebody_else_may_reap_while_others_sleep() {
    let ctx = Provider::Soft.devices().unwrap()[0].open().unwrap();
    let pd = ctx.alloc_pd().unwrap();
    let cq = ctx.cq(256).wait(Wait::Sleep).build().unwrap();
    let pairs: Vec<_> = (0..2).map(|_| pair(&pd, &cq)).collect();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let busy: Vec<_> = pairs.iter().map(|pair| scope.spawn(|| exchange(pair, 300))).collect();
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                cq.poll().unwrap();
                std::thread::yield_now();
            }
        });
        let ends: Vec<_> = busy.into_iter().map(|thread| thread.join()).collect();
        over.store(true, Ordering::Relaxed);
        ends.into_iter().for_each(|end| end.unwrap());
    });
}

#[test]
fn a_waiter_wakes_when_another_thread_sends_late() {
    let ctx = Provider::Soft.devices().unwrap()[0].open().unwrap();
    let pd = ctx.alloc_pd().unwrap();
    for wait in MODES {
        let cq = ctx.cq(64).wait(wait).build().unwrap();
        let pair = pair(&pd, &cq);
        let incoming = pair.right.recv(pair.pool.take().unwrap()).unwrap();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| incoming.wait_timeout(PATIENCE).unwrap().0.len());
            std::thread::sleep(Duration::from_millis(30));
            pair.left.send(pair.pool.take_from(b"late").unwrap()).unwrap().wait().unwrap();
            assert_eq!(waiter.join().unwrap(), 4);
        });
    }
}

#[test]
fn timeouts_are_kept_in_every_mode() {
    let ctx = Provider::Soft.devices().unwrap()[0].open().unwrap();
    let pd = ctx.alloc_pd().unwrap();
    for wait in MODES {
        let cq = ctx.cq(64).wait(wait).build().unwrap();
        let pair = pair(&pd, &cq);
        let incoming = pair.right.recv(pair.pool.take().unwrap()).unwrap();
        let (began, timeout) = (Instant::now(), Duration::from_millis(15));
        let Err(Unfinished::Pending(incoming)) = incoming.wait_timeout(timeout) else {
            panic!("nothing was sent")
        };
        assert!((timeout..PATIENCE).contains(&began.elapsed()));
        pair.left.send(pair.pool.take_from(b"x").unwrap()).unwrap().wait().unwrap();
        assert_eq!(incoming.wait().unwrap().0.len(), 1);
    }
}

/// An operation that is kept in another thread ends when its queue pair is dropped, even though no event says so.
#[test]
fn a_waiter_survives_the_end_of_its_queue_pair() {
    let ctx = Provider::Soft.devices().unwrap()[0].open().unwrap();
    let pd = ctx.alloc_pd().unwrap();
    for wait in MODES {
        let cq = ctx.cq(64).wait(wait).build().unwrap();
        let Pair { left, right, pool } = pair(&pd, &cq);
        let incoming = right.recv(pool.take().unwrap()).unwrap().into_static();
        let waiter = std::thread::spawn(move || incoming.wait().unwrap_err().status());
        std::thread::sleep(Duration::from_millis(20));
        drop((left, right));
        assert_eq!(waiter.join().unwrap(), ibex::Status::WR_FLUSH_ERR);
        assert_eq!(pool.free(), 16);
    }
}
