//! Room in the send queue: what refused requests and partial batches may not spoil.
#![allow(clippy::unwrap_used)]

mod fake;

use ibex::prelude::*;
use ibex::sys::*;

const CAPACITY: u32 = 8;

fn setup() -> (Context, CompletionQueue, Pool, QueuePair) {
    let ctx = fake::open_manual();
    let pd = ctx.alloc_pd().unwrap();
    let cq = ctx.create_cq(64).unwrap();
    let pool = pd.pool().block(64).blocks(64).build().unwrap();
    let qp = pd.create_rc(&cq).max_send_wr(CAPACITY).max_recv_wr(1).build().unwrap();
    let peer = qp.endpoint();
    let qp = qp.connect(&peer).unwrap();
    (ctx, cq, pool, qp)
}

fn complete_all() {
    for posted in fake::take_posted() {
        if posted.flags & IBV_SEND_SIGNALED.0 != 0 {
            fake::complete(posted.wr_id, IBV_WC_SUCCESS);
        }
    }
}

/// Requests that nobody waits for must not fill the queue unsignalled, however many others the device refuses in between.
#[test]
fn refused_requests_do_not_delay_the_signal() {
    let _turn = fake::lock();
    let (_ctx, cq, pool, qp) = setup();
    for _ in 0..CAPACITY {
        fake::POST.store(libc::EINVAL, std::sync::atomic::Ordering::Relaxed);
        assert!(qp.send(pool.take().unwrap()).is_err());
        assert!(qp.post().unsignalled().send(pool.take().unwrap()).is_err());
        fake::POST.store(0, std::sync::atomic::Ordering::Relaxed);
        qp.post().unsignalled().send(pool.take().unwrap()).unwrap();
    }
    complete_all();
    while cq.poll().unwrap() > 0 {}
    // At most half the queue may be of unknown fate.
    assert!(pool.free() >= pool.blocks() - CAPACITY as usize / 2, "no request was signalled");
    qp.post().unsignalled().send(pool.take().unwrap()).unwrap();
}

/// A batch that needs more room than was counted last must count anew, and leave the count right.
#[test]
fn batches_across_the_end_of_the_room() {
    let _turn = fake::lock();
    let (_ctx, _cq, pool, qp) = setup();
    for round in 0..40 {
        let size = [3, 5, 8, 1][round % 4];
        let mut batch = qp.batch();
        for _ in 0..size {
            batch.send(pool.take().unwrap()).unwrap();
        }
        let refused = round % 3 == 2;
        if refused {
            fake::POST.store(libc::ENOMEM, std::sync::atomic::Ordering::Relaxed);
            fake::POST_AFTER.store(size / 2, std::sync::atomic::Ordering::Relaxed);
        }
        let ops = match batch.post() {
            Ok(ops) => ops,
            Err(error) => {
                assert_eq!((error.posted.len(), error.rest.len()), (size / 2, size - size / 2));
                error.posted
            }
        };
        fake::POST.store(0, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(ops.len(), if refused { size / 2 } else { size });
        complete_all();
        ops.into_iter().for_each(|op| drop(op.wait().unwrap()));
    }
    assert_eq!(pool.free(), pool.blocks());
    // Exactly the capacity fits.
    let ops: Vec<_> = (0..CAPACITY).map(|_| qp.send(pool.take().unwrap()).unwrap()).collect();
    let refused = qp.send(pool.take().unwrap()).unwrap_err();
    assert!(matches!(refused.error(), ibex::PostError::QueueFull { in_flight: CAPACITY, .. }), "{refused}");
    drop(ops);
}

/// The message of a batch that can never fit must not blame operations that nobody waits for.
#[test]
fn a_batch_longer_than_the_queue_says_so() {
    let _turn = fake::lock();
    let (_ctx, _cq, pool, qp) = setup();
    let mut batch = qp.batch();
    for _ in 0..=CAPACITY {
        batch.send(pool.take().unwrap()).unwrap();
    }
    let error = batch.post().unwrap_err();
    let text = error.to_string();
    assert!(!text.contains("ended without anybody"), "{text}");
    assert_eq!(error.rest.len(), CAPACITY as usize + 1);
}

/// Receives that completed unnoticed make room as sends do.
#[test]
fn receives_that_nobody_waits_for_make_room() {
    let _turn = fake::lock();
    let (_ctx, _cq, pool, qp) = setup();
    for _ in 0..4 {
        qp.recv(pool.take().unwrap()).unwrap().detach();
        for posted in fake::take_posted() {
            fake::complete(posted.wr_id, IBV_WC_SUCCESS);
        }
    }
}

/// Slots of operations that have ended and not been claimed are not vacant, and no slot is vacant twice in one batch.
#[test]
fn a_batch_does_not_use_one_slot_twice() {
    let _turn = fake::lock();
    let (_ctx, cq, pool, qp) = setup();
    let ended: Vec<_> = (0..4).map(|_| qp.send(pool.take().unwrap()).unwrap()).collect();
    complete_all();
    assert_eq!(cq.poll().unwrap(), 4);
    let batch_of = |size: usize| {
        let mut batch = qp.batch();
        (0..size).for_each(|_| batch.send(pool.take().unwrap()).unwrap());
        batch.post()
    };
    let refused = batch_of(5).unwrap_err();
    assert_eq!((refused.posted.len(), refused.rest.len()), (0, 5), "there are 4 free slots");
    drop(refused);
    let ops = batch_of(4).unwrap();
    complete_all();
    for op in ops.into_iter().chain(ended) {
        op.wait_timeout(std::time::Duration::from_secs(1)).unwrap();
    }
    assert_eq!(pool.free(), pool.blocks());
}
