//! Memory windows: what a peer can do through one, and when no longer. `ibv_alloc_mw(3)`, `ibv_bind_mw(3)`.

use ibex_sys::{
    IBV_ACCESS_LOCAL_WRITE, IBV_ACCESS_MW_BIND, IBV_ACCESS_REMOTE_READ, IBV_ACCESS_REMOTE_WRITE,
    IBV_MW_TYPE_1, IBV_MW_TYPE_2, IBV_WC_BIND_MW, IBV_WC_LOCAL_INV, IBV_WC_MW_BIND_ERR, IBV_WC_RDMA_READ,
    IBV_WC_RDMA_WRITE, IBV_WC_RECV, IBV_WC_REM_ACCESS_ERR, IBV_WC_SEND, IBV_WC_SUCCESS, IBV_WC_WITH_IMM,
    IBV_WC_WITH_INV, ibv_access_flags, ibv_mw_type,
};

use super::data::succeeded;
use crate::Outcome;
use crate::lab::{ALL_ACCESS, Lab, Pair, Recv, Region, Send, Window, imm_data, pattern};

crate::group!("windows";
    a_peer_writes_and_reads_through_a_type_1_window,
    a_peer_writes_and_reads_through_a_type_2_window,
    a_window_gives_no_byte_beyond_what_was_bound,
    the_key_before_a_bind_gives_nothing,
    binding_a_type_1_window_anew_ends_the_old_key,
    a_local_invalidation_ends_the_right,
    a_send_of_the_peer_ends_the_right,
    a_completion_says_that_it_invalidated,
    freeing_a_window_ends_the_right,
    a_region_is_not_deregistered_under_a_window,
    a_region_without_the_right_to_bind_is_refused,
);

/// Rights of a region that windows can be bound to.
fn bindable() -> ibv_access_flags {
    IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_MW_BIND
}

/// The rights the windows here give.
fn rights() -> ibv_access_flags {
    IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ
}

/// A pair, a region of its second end, and a window of this type; or why there is none.
fn opened(lab: &Lab, kind: ibv_mw_type) -> Result<(Pair, Region, Window), Outcome> {
    if lab.attr().max_mw == 0 {
        return Err(Outcome::Skipped("the device has no memory windows".into()));
    }
    let pair = Pair::new(lab);
    let region = pair.b.region(8192, bindable());
    match Window::try_new(&pair.b.pd, kind) {
        Ok(window) => Ok((pair, region, window)),
        Err(libc::EOPNOTSUPP) => Err(Outcome::Skipped("the device has no windows of this type".into())),
        Err(errno) => panic!("cannot allocate a window: errno {errno}"),
    }
}

/// Binds bytes 1024..2048 of the region.
fn bind(pair: &Pair, region: &Region, window: &Window) -> u32 {
    let before = window.rkey();
    let rkey = window.try_bind(&pair.b.qp, 50, region, (1024, 1024), rights()).expect("a good bind");
    succeeded(&pair.b.cq.wait_one(), 50, IBV_WC_BIND_MW);
    assert_ne!(rkey, before, "a bind gives a new key");
    rkey
}

/// A WRITE of eight bytes through a key must fail for want of the right.
fn no_longer(pair: &Pair, region: &Region, rkey: u32) {
    let near = pair.a.open_region(8);
    pair.a.qp.post(&[Send::write(60, &[near.sge(0, 8)], region, 0).remote(region.addr() + 1024, rkey)]);
    let wc = pair.a.cq.wait_one();
    assert_eq!((wc.wr_id, wc.status), (60, IBV_WC_REM_ACCESS_ERR));
}

macro_rules! some_or_skip {
    ($made:expr) => {
        match $made {
            Ok(made) => made,
            Err(skipped) => return skipped,
        }
    };
}

fn through(kind: ibv_mw_type) -> Outcome {
    let lab = Lab::open();
    let (pair, region, window) = some_or_skip!(opened(&lab, kind));
    let rkey = bind(&pair, &region, &window);
    let near = pair.a.open_region(4096);
    near.write(0, &pattern(5, 1024));
    let at = region.addr() + 1024;
    pair.a.qp.post(&[
        Send::write(1, &[near.sge(0, 1024)], &region, 0).remote(at, rkey),
        Send::read(2, &[near.sge(2048, 1000)], &region, 0).remote(at + 24, rkey),
    ]);
    let done = pair.a.cq.wait(2);
    succeeded(&done[0], 1, IBV_WC_RDMA_WRITE);
    succeeded(&done[1], 2, IBV_WC_RDMA_READ);
    assert_eq!(region.read(1024, 1024), pattern(5, 1024));
    assert_eq!(near.read(2048, 1000), pattern(5, 1024)[24..]);
    Outcome::Passed
}

fn a_peer_writes_and_reads_through_a_type_1_window() -> Outcome {
    through(IBV_MW_TYPE_1)
}

fn a_peer_writes_and_reads_through_a_type_2_window() -> Outcome {
    through(IBV_MW_TYPE_2)
}

fn a_window_gives_no_byte_beyond_what_was_bound() -> Outcome {
    let lab = Lab::open();
    // A byte too many, a byte too early; the region has both.
    for (offset, len) in [(1024, 1025), (1023, 8)] {
        let (pair, region, window) = some_or_skip!(opened(&lab, IBV_MW_TYPE_2));
        let rkey = bind(&pair, &region, &window);
        let near = pair.a.open_region(2048);
        let to = region.addr() + offset;
        pair.a.qp.post(&[Send::write(1, &[near.sge(0, len)], &region, 0).remote(to, rkey)]);
        assert_eq!(pair.a.cq.wait_one().status, IBV_WC_REM_ACCESS_ERR, "{len} bytes at {offset}");
    }
    Outcome::Passed
}

fn the_key_before_a_bind_gives_nothing() -> Outcome {
    let lab = Lab::open();
    let (pair, region, window) = some_or_skip!(opened(&lab, IBV_MW_TYPE_2));
    let unbound = window.rkey();
    bind(&pair, &region, &window);
    no_longer(&pair, &region, unbound);
    Outcome::Passed
}

fn binding_a_type_1_window_anew_ends_the_old_key() -> Outcome {
    let lab = Lab::open();
    let (pair, region, window) = some_or_skip!(opened(&lab, IBV_MW_TYPE_1));
    let first = bind(&pair, &region, &window);
    let second = bind(&pair, &region, &window);
    let near = pair.a.open_region(8);
    let at = region.addr() + 1024;
    pair.a.qp.post(&[Send::write(1, &[near.sge(0, 8)], &region, 0).remote(at, second)]);
    succeeded(&pair.a.cq.wait_one(), 1, IBV_WC_RDMA_WRITE);
    no_longer(&pair, &region, first);
    Outcome::Passed
}

fn a_local_invalidation_ends_the_right() -> Outcome {
    let lab = Lab::open();
    let (pair, region, window) = some_or_skip!(opened(&lab, IBV_MW_TYPE_2));
    let rkey = bind(&pair, &region, &window);
    pair.b.qp.try_invalidate(51, rkey).expect("a bound window");
    succeeded(&pair.b.cq.wait_one(), 51, IBV_WC_LOCAL_INV);
    // It can be bound again, under another key.
    let again = bind(&pair, &region, &window);
    let near = pair.a.open_region(8);
    let at = region.addr() + 1024;
    pair.a.qp.post(&[Send::write(1, &[near.sge(0, 8)], &region, 0).remote(at, again)]);
    succeeded(&pair.a.cq.wait_one(), 1, IBV_WC_RDMA_WRITE);
    no_longer(&pair, &region, rkey);
    Outcome::Passed
}

fn a_send_of_the_peer_ends_the_right() -> Outcome {
    let lab = Lab::open();
    let (pair, region, window) = some_or_skip!(opened(&lab, IBV_MW_TYPE_2));
    let rkey = bind(&pair, &region, &window);
    let (near, inbox) = (pair.a.open_region(8), pair.b.open_region(8));
    pair.b.qp.post_recv(&[Recv::new(9, &[inbox.sge(0, 8)])]);
    pair.a.qp.try_send_invalidate(10, near.sge(0, 8), rkey).expect("a good SEND");
    succeeded(&pair.a.cq.wait_one(), 10, IBV_WC_SEND);
    let wc = pair.b.cq.wait_one();
    succeeded(&wc, 9, IBV_WC_RECV);
    assert_eq!(imm_data(&wc), rkey);
    no_longer(&pair, &region, rkey);
    Outcome::Passed
}

fn a_completion_says_that_it_invalidated() -> Outcome {
    let lab = Lab::open();
    let (pair, region, window) = some_or_skip!(opened(&lab, IBV_MW_TYPE_2));
    let rkey = bind(&pair, &region, &window);
    let (near, inbox) = (pair.a.open_region(8), pair.b.open_region(8));
    pair.b.qp.post_recv(&[Recv::new(9, &[inbox.sge(0, 8)])]);
    pair.a.qp.try_send_invalidate(10, near.sge(0, 8), rkey).expect("a good SEND");
    // ibv_poll_cq(3): only with this flag may the key be read.
    let wc = pair.b.cq.wait_one();
    assert_eq!(wc.wc_flags & (IBV_WC_WITH_INV | IBV_WC_WITH_IMM).0, IBV_WC_WITH_INV.0);
    Outcome::Passed
}

fn freeing_a_window_ends_the_right() -> Outcome {
    let lab = Lab::open();
    let (pair, region, window) = some_or_skip!(opened(&lab, IBV_MW_TYPE_2));
    let rkey = bind(&pair, &region, &window);
    drop(window);
    no_longer(&pair, &region, rkey);
    Outcome::Passed
}

fn a_region_is_not_deregistered_under_a_window() -> Outcome {
    let lab = Lab::open();
    let (pair, region, window) = some_or_skip!(opened(&lab, IBV_MW_TYPE_2));
    let rkey = bind(&pair, &region, &window);
    // IBTA 10.6.6: which refusal it is is the provider's choice.
    region.deregister_must_fail();
    let near = pair.a.open_region(8);
    let at = region.addr() + 1024;
    pair.a.qp.post(&[Send::write(1, &[near.sge(0, 8)], &region, 0).remote(at, rkey)]);
    assert_eq!(pair.a.cq.wait_one().status, IBV_WC_SUCCESS, "the window is as it was");
    drop(window);
    Outcome::Passed
}

fn a_region_without_the_right_to_bind_is_refused() -> Outcome {
    let lab = Lab::open();
    let (pair, _region, window) = some_or_skip!(opened(&lab, IBV_MW_TYPE_2));
    let closed = pair.b.region(4096, ALL_ACCESS);
    // At once, or by the completion.
    if window.try_bind(&pair.b.qp, 50, &closed, (0, 64), rights()).is_ok() {
        let wc = pair.b.cq.wait_one();
        assert_eq!((wc.wr_id, wc.status), (50, IBV_WC_MW_BIND_ERR));
    }
    Outcome::Passed
}
