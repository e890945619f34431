//! The life of operations over a device that does nothing: what is given back, when, and what never is.
#![allow(clippy::unwrap_used, reason = "a test may fail where it likes")]

mod fake;

use std::sync::atomic::Ordering;

use ibex::prelude::*;
use ibex::sys::{IBV_SEND_SIGNALED, IBV_WC_REM_ACCESS_ERR, IBV_WC_SUCCESS, IBV_WC_WR_FLUSH_ERR};
use ibex::{PostError, QueueError, Status, Unfinished, leaks};

/// A connected queue pair of four requests each way, and eight buffers.
struct Rig {
    cq: CompletionQueue,
    qp: QueuePair,
    pool: Pool,
}

fn rig() -> Rig {
    let context = fake::open_manual();
    let pd = context.alloc_pd().unwrap();
    let cq = context.create_cq(16).unwrap();
    let qp = pd.create_rc(&cq).max_send_wr(4).max_recv_wr(4).build().unwrap();
    let peer = qp.endpoint();
    let qp = qp.connect(&peer).unwrap();
    let pool = pd.pool().block(64).blocks(8).build().unwrap();
    Rig { cq, qp, pool }
}

/// The `wr_id` of the one request posted since last time.
fn posted() -> u64 {
    let posted = fake::take_posted();
    assert_eq!(posted.len(), 1);
    posted[0].wr_id
}

#[test]
fn a_buffer_comes_back_with_its_completion() {
    let _turn = fake::lock();
    let Rig { qp, pool, .. } = rig();
    let buf = pool.take_from(b"hello").unwrap();
    let place = buf.as_ptr();
    let op = qp.send(buf).unwrap();
    assert!(!op.poll());
    fake::complete(posted(), IBV_WC_SUCCESS);
    let (buf, wc) = op.wait().unwrap();
    assert_eq!((&buf[..], buf.as_ptr(), wc.byte_len()), (&b"hello"[..], place, 5));
}

#[test]
fn failures_explain_themselves_and_return_the_buffer() {
    let _turn = fake::lock();
    let Rig { qp, pool, .. } = rig();
    let target =
        qp.bind(RemoteHandle::from_parts(0x1000, 4096, ibex::Rkey(0x1a2b), Access::REMOTE_WRITE)).unwrap();
    let first = qp.write(pool.take().unwrap(), target.at(0)).unwrap();
    let first_id = posted();
    let second = qp.send(pool.take().unwrap()).unwrap();
    fake::complete(first_id, IBV_WC_REM_ACCESS_ERR);
    fake::complete(posted(), IBV_WC_WR_FLUSH_ERR);
    let failed = first.wait().unwrap_err();
    assert_eq!(
        failed.to_string(),
        "WRITE of 64 bytes failed at the peer: remote access error (rkey 0x1a2b revoked, out of bounds or without the \
         right); 1 later operation flushed"
    );
    assert_eq!(failed.into_payload().unwrap().len(), 64);
    assert_eq!(second.wait().unwrap_err().status(), Status::WR_FLUSH_ERR);
    assert_eq!(pool.free(), 8);
}

#[test]
fn dropped_operations_keep_their_buffer_until_they_end() {
    let _turn = fake::lock();
    let Rig { cq, qp, pool } = rig();
    drop(qp.send(pool.take().unwrap()).unwrap());
    let wr_id = posted();
    assert_eq!((cq.poll().unwrap(), pool.free()), (0, 7));
    fake::complete(wr_id, IBV_WC_SUCCESS);
    assert_eq!((cq.poll().unwrap(), pool.free()), (1, 8));
}

#[test]
fn forgotten_operations_cost_a_slot_and_no_more() {
    let _turn = fake::lock();
    let Rig { qp, pool, cq } = rig();
    std::mem::forget(qp.send(pool.take().unwrap()).unwrap());
    fake::complete(posted(), IBV_WC_SUCCESS);
    for _ in 0..20 {
        let op = qp.send(pool.take().unwrap()).unwrap();
        fake::complete(posted(), IBV_WC_SUCCESS);
        op.wait().unwrap();
    }
    assert_eq!(pool.free(), 7);
    drop((qp, cq));
    assert_eq!(pool.free(), 8, "the queue pair's end gives it back");
}

#[test]
fn timeouts_return_the_operation() {
    let _turn = fake::lock();
    let Rig { qp, pool, .. } = rig();
    let op = qp.send(pool.take().unwrap()).unwrap();
    let began = std::time::Instant::now();
    let timeout = std::time::Duration::from_millis(20);
    let Err(Unfinished::Pending(op)) = op.wait_timeout(timeout) else { panic!("it cannot have ended") };
    assert!(began.elapsed() >= timeout);
    let Err(Unfinished::Pending(op)) = op.try_wait() else { panic!("it cannot have ended") };
    fake::complete(posted(), IBV_WC_SUCCESS);
    assert_eq!(op.wait_timeout(timeout).unwrap().0.len(), 64);
}

#[test]
fn dropping_the_queue_pair_ends_operations_as_flushed() {
    let _turn = fake::lock();
    let Rig { qp, pool, .. } = rig();
    let kept = qp.send(pool.take().unwrap()).unwrap().into_static();
    drop(qp.recv(pool.take().unwrap()).unwrap());
    drop(qp);
    assert_eq!(pool.free(), 7);
    let failed = kept.wait().unwrap_err();
    assert_eq!(failed.status(), Status::WR_FLUSH_ERR);
    drop(failed);
    assert_eq!(pool.free(), 8);
}

#[test]
fn a_device_that_keeps_its_queue_pair_keeps_the_memory() {
    let _turn = fake::lock();
    let before = leaks();
    let Rig { qp, pool, cq } = rig();
    drop(qp.send(pool.take().unwrap()).unwrap());
    fake::DESTROY_QP.store(libc::EIO, Ordering::Relaxed);
    assert!(matches!(qp.close(), Err(QueueError::Destroy { what: "queue pair", .. })));
    assert_eq!(pool.free(), 7, "no fence, no memory");
    drop(cq);
    assert_eq!(pool.free(), 7, "not even then");
    let after = leaks();
    assert_eq!((after.buffers, after.objects), (before.buffers + 1, before.objects + 1));
}

#[test]
fn a_device_that_keeps_its_region_keeps_the_memory() {
    let _turn = fake::lock();
    let before = leaks();
    let pd = fake::open_manual().alloc_pd().unwrap();
    let memory = pd.register(vec![7_u8; 100]).unwrap();
    fake::DEREG_MR.store(libc::EBUSY, Ordering::Relaxed);
    assert!(memory.into_inner().is_err());
    drop(pd.pool().block(64).blocks(1).build().unwrap());
    assert_eq!(leaks().bytes, before.bytes + 100 + 4096);
    fake::DEREG_MR.store(0, Ordering::Relaxed);
    let memory = pd.register(vec![7_u8; 100]).unwrap();
    assert_eq!(memory.into_inner().unwrap(), [7; 100]);
}

#[test]
fn stale_completions_reach_nobody() {
    let _turn = fake::lock();
    let Rig { cq, qp, pool } = rig();
    let pd = qp.pd().clone();
    let old = qp.send(pool.take().unwrap()).unwrap();
    let stale = posted();
    drop(old);
    drop(qp);
    let qp = pd.create_rc(&cq).max_send_wr(4).max_recv_wr(4).build().unwrap();
    let peer = qp.endpoint();
    let qp = qp.connect(&peer).unwrap();
    let op = qp.send(pool.take().unwrap()).unwrap();
    let fresh = posted();
    assert_ne!(stale, fresh);
    for wr_id in [stale, 0, u64::MAX, fresh ^ (1 << 32), fresh ^ (1 << 16), fresh ^ 1] {
        fake::complete(wr_id, IBV_WC_SUCCESS);
        assert!(!op.poll(), "{wr_id:#x}");
    }
    fake::complete(fresh, IBV_WC_SUCCESS);
    op.wait().unwrap();
}

#[test]
fn leases_rule_out_an_overflow() {
    let _turn = fake::lock();
    let Rig { cq, qp, .. } = rig();
    assert_eq!((cq.capacity(), cq.room()), (16, 8));
    let error = qp.pd().create_rc(&cq).max_send_wr(6).max_recv_wr(6).build().unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot create a queue pair: the completion queue has room for 8 more entries and max_send_wr + max_recv_wr is 12; \
         create it with at least 20 entries"
    );
    assert_eq!(cq.room(), 8);
    drop(qp);
    assert_eq!(cq.room(), 16);
}

#[test]
fn refused_posts_return_the_buffer() {
    let _turn = fake::lock();
    let Rig { qp, pool, .. } = rig();
    fake::POST.store(libc::EINVAL, Ordering::Relaxed);
    let rejected = qp.send(pool.take_from(b"x").unwrap()).unwrap_err();
    assert!(rejected.to_string().contains("wrong state"), "{rejected}");
    assert_eq!(&rejected.into_payload()[..], b"x");
    fake::POST.store(0, Ordering::Relaxed);
    let ops: Vec<_> = (0..4).map(|_| qp.send(pool.take().unwrap()).unwrap()).collect();
    let rejected = qp.send(pool.take().unwrap()).unwrap_err();
    assert_eq!(
        rejected.to_string(),
        "the send queue is full: 4 requests are in flight; wait for one, or build the queue pair with a larger queue"
    );
    assert!(matches!(rejected.error(), PostError::QueueFull { .. }));
    drop(ops);
}

#[test]
fn unsignalled_requests_are_signalled_in_time_and_give_their_memory_back() {
    let _turn = fake::lock();
    let Rig { qp, pool, cq } = rig();
    for _ in 0..10 {
        qp.post().unsignalled().send(pool.take().unwrap()).unwrap();
        for request in fake::take_posted() {
            if request.flags & IBV_SEND_SIGNALED.0 != 0 {
                fake::complete(request.wr_id, IBV_WC_SUCCESS);
            }
        }
    }
    cq.poll().unwrap();
    assert_eq!(pool.free(), 8);
}

#[test]
fn a_batch_rings_once_and_gives_back_what_was_not_posted() {
    let _turn = fake::lock();
    let Rig { qp, pool, .. } = rig();
    drop(qp.batch::<Buf>());
    let mut batch = qp.batch();
    for _ in 0..3 {
        batch.send(pool.take().unwrap()).unwrap();
    }
    let ops = batch.post().unwrap();
    assert_eq!((ops.len(), fake::doorbells()), (3, 1));
    for request in fake::take_posted() {
        fake::complete(request.wr_id, IBV_WC_SUCCESS);
    }
    for op in ops {
        op.wait().unwrap();
    }
    let mut batch = qp.batch();
    for _ in 0..3 {
        batch.send(pool.take().unwrap()).unwrap();
    }
    drop(batch);
    assert_eq!((pool.free(), fake::doorbells()), (8, 1));
}

#[test]
fn a_refused_transition_names_its_reason() {
    let _turn = fake::lock();
    let Rig { cq, qp, .. } = rig();
    let other = qp.pd().create_rc(&cq).max_send_wr(4).max_recv_wr(4).build().unwrap();
    fake::MODIFY_QP.store(libc::EINVAL, Ordering::Relaxed);
    let options = ibex::RcOptions::default().timeout(40).retry_cnt(9);
    let error = other.to_rtr(&qp.endpoint(), &options.min_rnr_timer(77)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot move the queue pair from INIT to RTR; MIN_RNR_TIMER: 77 has more than 5 bits"
    );
}

#[test]
fn frozen_buffers_are_shared_by_many_operations() {
    let _turn = fake::lock();
    let Rig { qp, pool, .. } = rig();
    let frozen = pool.take_from(b"broadcast").unwrap().freeze();
    let ops = [0..9, 0..5, 5..9].map(|range| qp.send(frozen.slice(range)).unwrap());
    for request in fake::take_posted() {
        fake::complete(request.wr_id, IBV_WC_SUCCESS);
    }
    let frozen = frozen.thaw().unwrap_err();
    let parts = ops.map(|op| op.wait().unwrap().0);
    assert_eq!(&parts[2][..], b"cast");
    drop(parts);
    assert_eq!(&frozen.thaw().unwrap()[..], b"broadcast");
    assert_eq!(pool.free(), 8);
}
