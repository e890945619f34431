//! A destructor of a program's memory that itself waits for an operation, run by a thread that is about to sleep for the
//! same completion queue.
//!
//! # Safety
//! The two verbs here touch only what ibv_poll_cq(3) and ibv_post_send(3) have their caller pass.
#![allow(unsafe_code, clippy::unwrap_used)]

mod fake;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use ibex::mem::StableMem;
use ibex::prelude::*;
use ibex::sys::*;
use ibex::{Inline, Unfinished};

/// Numbers of the three requests: what is dropped, what its destructor waits for, what the thread waits for.
static ORPHAN: AtomicU64 = AtomicU64::new(0);
static INNER: AtomicU64 = AtomicU64::new(0);
static OUTER: AtomicU64 = AtomicU64::new(0);
/// Set by the destructor when it begins and when it has ended in success.
static DROPPED: AtomicU32 = AtomicU32::new(0);
static POLLS: AtomicU32 = AtomicU32::new(0);

/// The operation for the destructor.
static WAITED_FOR: Mutex<Option<Op<'static, Inline>>> = Mutex::new(None);

struct Waits(Vec<u8>);

// SAFETY: the rule of `StableMem`: the vector's bytes lie on the heap, stay there when it moves, and are neither changed
// nor let go before `Waits` is dropped.
unsafe impl StableMem for Waits {
    const WRITABLE: bool = false;

    fn region(&self) -> (*const u8, usize) {
        (self.0.as_ptr(), self.0.len())
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        let op = WAITED_FOR.lock().unwrap().take().unwrap();
        DROPPED.store(1, Ordering::SeqCst);
        // Whoever leads must let others lead: a follower of itself would sleep to the end.
        match op.wait_timeout(Duration::from_secs(5)) {
            Ok(_) => DROPPED.store(2, Ordering::SeqCst),
            Err(Unfinished::Pending(op)) => op.detach(),
            Err(Unfinished::Failed(_)) => {}
        }
    }
}

/// Nothing at first, then the orphan, then what its destructor waits for, then the rest. The rounds in between are those
/// of a waiting thread, the third of which is the one before a sleep.
unsafe extern "C" fn poll_cq(_: *mut ibv_cq, _: i32, wcs: *mut ibv_wc) -> i32 {
    let wr_id = match (POLLS.fetch_add(1, Ordering::SeqCst), DROPPED.load(Ordering::SeqCst)) {
        (2, _) => &ORPHAN,
        // Not by the looks that come before the sleep.
        (7.., 1) => &INNER,
        (7.., 2) => &OUTER,
        _ => return 0,
    };
    let wr_id = wr_id.swap(0, Ordering::SeqCst);
    if wr_id == 0 {
        return 0;
    }
    // SAFETY: ibv_poll_cq(3): the caller has room for one completion at least.
    unsafe { wcs.write(ibv_wc { wr_id, status: IBV_WC_SUCCESS, ..Default::default() }) };
    1
}

unsafe extern "C" fn post_send(_: *mut ibv_qp, wr: *mut ibv_send_wr, _: *mut *mut ibv_send_wr) -> i32 {
    // SAFETY: ibv_post_send(3): the caller's list has at least one request, valid during the call.
    let wr_id = unsafe { (*wr).wr_id };
    for place in [&ORPHAN, &INNER, &OUTER] {
        if place.compare_exchange(0, wr_id, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            break;
        }
    }
    0
}

#[test]
fn a_destructor_may_wait_where_it_is_run() {
    let _turn = fake::lock();
    let ctx = fake::open(post_send, poll_cq);
    let pd = ctx.alloc_pd().unwrap();
    let cq = ctx.cq(16).wait(Wait::Sleep).build().unwrap();
    let qp = pd.create_rc(&cq).max_send_wr(4).max_recv_wr(1).max_inline(0).build().unwrap();
    let peer = qp.endpoint();
    let qp = qp.connect(&peer).unwrap();
    qp.send(pd.register(Waits(vec![0; 8])).unwrap()).unwrap().detach();
    *WAITED_FOR.lock().unwrap() = Some(qp.send_inline(b"").unwrap().into_static());
    let outer = qp.send_inline(b"").unwrap();
    let ended = outer.wait_timeout(Duration::from_secs(10));
    assert_eq!(DROPPED.load(Ordering::SeqCst), 2, "the destructor waited in vain");
    ended.unwrap();
}
