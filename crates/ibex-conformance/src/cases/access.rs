//! Keys, rights and bounds: what is not allowed does not happen, both sides learn it by the right status, and the queue
//! pair ends in ERR with the rest flushed. IBTA vol. 1, clauses 9.7.4 and 10.6; `ibv_poll_cq(3)` lists the statuses.

use ibex_sys::{
    IBV_ACCESS_LOCAL_WRITE, IBV_ACCESS_REMOTE_ATOMIC, IBV_ACCESS_REMOTE_READ, IBV_ACCESS_REMOTE_WRITE,
    IBV_QPS_ERR, IBV_WC_LOC_LEN_ERR, IBV_WC_LOC_PROT_ERR, IBV_WC_REM_ACCESS_ERR, IBV_WC_REM_INV_REQ_ERR,
    IBV_WC_REM_OP_ERR, IBV_WC_SUCCESS, IBV_WC_WR_FLUSH_ERR, ibv_access_flags, ibv_wc_status,
};

use crate::Outcome;
use crate::lab::{ALL_ACCESS, Lab, LinkOptions, NodeOptions, PATIENCE, Pair, Recv, Region, Send, Sge};

crate::group!("access";
    a_remote_key_that_does_not_exist,
    a_remote_key_of_another_domain,
    a_remote_key_that_was_deregistered,
    a_write_that_starts_before_the_region,
    a_write_that_ends_behind_the_region,
    a_write_to_the_end_of_the_address_space,
    a_read_beyond_the_region,
    a_write_to_a_region_without_the_right,
    a_read_of_a_region_without_the_right,
    an_atomic_on_a_region_without_the_right,
    an_atomic_beyond_the_region,
    a_misaligned_atomic,
    a_write_through_a_pair_without_the_right,
    a_read_through_a_pair_without_the_right,
    a_local_key_that_does_not_exist,
    a_local_range_beyond_the_region,
    a_local_key_of_another_domain,
    a_read_into_a_region_without_local_write,
    a_message_larger_than_the_receive,
    a_receive_into_a_region_without_local_write,
    a_receive_beyond_its_region,
    zero_bytes_need_no_key,
    registration_refuses_rights_without_local_write,
);

/// What a violation has to lead to.
struct Expected {
    /// The requester's status.
    requester: &'static [ibv_wc_status],
    /// The status of the responder's receive, where one is consumed.
    receive: Option<ibv_wc_status>,
    /// The fault shows only when an answer arrives: requests behind it may have been carried out by then, and are
    /// reported as flushed all the same.
    late: bool,
}

const REMOTE_ACCESS: Expected = Expected { requester: &[IBV_WC_REM_ACCESS_ERR], receive: None, late: false };
const LOCAL: Expected = Expected { requester: &[IBV_WC_LOC_PROT_ERR], receive: None, late: false };

/// Posts a bad request with good ones behind it; checks statuses, flushes, states, and that nothing was written.
fn violates(pair: &Pair, bad: Send, expected: &Expected, guard: &Region) {
    let before = guard.read(0, guard.len());
    let good = pair.a.open_region(8);
    pair.a.qp.post_recv(&[Recv::new(50, &[good.sge(0, 8)])]);
    let mut chain = vec![bad];
    // They name a valid place, so that only the flush keeps them from happening.
    chain.extend((0..3).map(|id| Send::write(100 + id, &[good.sge(0, 8)], guard, 0)));
    good.fill(0xee);
    pair.a.qp.post(&chain);
    let wcs = pair.a.cq.wait(5);
    let bad_wc = wcs.iter().find(|wc| wc.wr_id == 1).expect("the bad request completes");
    assert!(
        expected.requester.contains(&bad_wc.status),
        "the requester's status is {:?}, expected {:?}",
        bad_wc.status,
        expected.requester
    );
    let flushed: Vec<u64> =
        wcs.iter().filter(|wc| wc.status == IBV_WC_WR_FLUSH_ERR).map(|wc| wc.wr_id).collect();
    let mut sorted = flushed.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, [50, 100, 101, 102], "what stood behind it is flushed: {wcs:?}");
    assert_eq!(pair.a.qp.state(), IBV_QPS_ERR, "the requester's state");
    if let Some(status) = expected.receive {
        let wc = pair.b.cq.wait_one();
        assert_eq!((wc.wr_id, wc.status), (70, status), "the responder's receive");
        assert_eq!(pair.b.qp.state(), IBV_QPS_ERR, "the responder's state");
    } else if !expected.requester.contains(&IBV_WC_LOC_PROT_ERR) {
        // IBTA 9.9.3: a responder that found an access or request error has sent a NAK and moves to ERR.
        let end = std::time::Instant::now() + PATIENCE;
        while pair.b.qp.state() != IBV_QPS_ERR {
            assert!(std::time::Instant::now() < end, "the responder stays in {:?}", pair.b.qp.state());
            std::thread::yield_now();
        }
    }
    assert!(expected.late || guard.read(0, guard.len()) == before, "the refused request changed memory");
    pair.a.cq.stays_empty();
}

/// A pair, local memory, and remote memory with the given rights.
fn scene(rights: ibv_access_flags) -> (Pair, Region, Region) {
    scene_with(rights, &LinkOptions::default())
}

fn scene_with(rights: ibv_access_flags, link: &LinkOptions) -> (Pair, Region, Region) {
    let lab = Lab::open();
    let pair = Pair::with(&lab, &NodeOptions::default(), link);
    let local = pair.a.open_region(8192);
    let remote = pair.b.region(4096, rights);
    local.fill(0x11);
    remote.fill(0x22);
    (pair, local, remote)
}

fn a_remote_key_that_does_not_exist() -> Outcome {
    let (pair, local, remote) = scene(ALL_ACCESS);
    let bad =
        Send::write(1, &[local.sge(0, 8)], &remote, 0).remote(remote.addr(), remote.rkey() ^ 0x5a5a_0000);
    violates(&pair, bad, &REMOTE_ACCESS, &remote);
    Outcome::Passed
}

fn a_remote_key_of_another_domain() -> Outcome {
    let (pair, local, remote) = scene(ALL_ACCESS);
    let foreign = Region::new(&pair.b.lab.pd(), 4096, ALL_ACCESS);
    violates(&pair, Send::write(1, &[local.sge(0, 8)], &foreign, 0), &REMOTE_ACCESS, &remote);
    assert_eq!(foreign.read(0, 8), [0; 8]);
    Outcome::Passed
}

fn a_remote_key_that_was_deregistered() -> Outcome {
    let (pair, local, remote) = scene(ALL_ACCESS);
    let gone = pair.b.open_region(4096);
    let (addr, rkey) = (gone.addr(), gone.rkey());
    gone.close().expect("nothing uses it");
    violates(
        &pair,
        Send::write(1, &[local.sge(0, 8)], &remote, 0).remote(addr, rkey),
        &REMOTE_ACCESS,
        &remote,
    );
    Outcome::Passed
}

fn a_write_that_starts_before_the_region() -> Outcome {
    let (pair, local, remote) = scene(ALL_ACCESS);
    violates(
        &pair,
        Send::write(1, &[local.sge(0, 8)], &remote, 0u64.wrapping_sub(1)),
        &REMOTE_ACCESS,
        &remote,
    );
    Outcome::Passed
}

fn a_write_that_ends_behind_the_region() -> Outcome {
    let (pair, local, remote) = scene(ALL_ACCESS);
    violates(&pair, Send::write(1, &[local.sge(0, 8)], &remote, 4096 - 7), &REMOTE_ACCESS, &remote);
    Outcome::Passed
}

fn a_write_to_the_end_of_the_address_space() -> Outcome {
    let (pair, local, remote) = scene(ALL_ACCESS);
    // Address plus length wraps around.
    let bad = Send::write(1, &[local.sge(0, 8)], &remote, 0).remote(u64::MAX - 3, remote.rkey());
    violates(&pair, bad, &REMOTE_ACCESS, &remote);
    Outcome::Passed
}

fn a_read_beyond_the_region() -> Outcome {
    let (pair, local, remote) = scene(ALL_ACCESS);
    violates(&pair, Send::read(1, &[local.sge(0, 4097)], &remote, 0), &REMOTE_ACCESS, &remote);
    assert!(local.read(0, 4097).iter().all(|byte| *byte == 0x11), "a refused READ delivered something");
    Outcome::Passed
}

fn a_write_to_a_region_without_the_right() -> Outcome {
    let (pair, local, remote) =
        scene(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC);
    violates(&pair, Send::write(1, &[local.sge(0, 8)], &remote, 0), &REMOTE_ACCESS, &remote);
    Outcome::Passed
}

fn a_read_of_a_region_without_the_right() -> Outcome {
    let (pair, local, remote) = scene(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
    violates(&pair, Send::read(1, &[local.sge(0, 8)], &remote, 0), &REMOTE_ACCESS, &remote);
    Outcome::Passed
}

fn an_atomic_on_a_region_without_the_right() -> Outcome {
    let (pair, local, remote) =
        scene(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ);
    if pair.a.lab.attr().atomic_cap == ibex_sys::IBV_ATOMIC_NONE {
        return Outcome::Skipped("the device reports IBV_ATOMIC_NONE".to_owned());
    }
    violates(&pair, Send::fetch_add(1, local.sge(0, 8), &remote, 0, 1), &REMOTE_ACCESS, &remote);
    Outcome::Passed
}

fn an_atomic_beyond_the_region() -> Outcome {
    let (pair, local, remote) = scene(ALL_ACCESS);
    if pair.a.lab.attr().atomic_cap == ibex_sys::IBV_ATOMIC_NONE {
        return Outcome::Skipped("the device reports IBV_ATOMIC_NONE".to_owned());
    }
    violates(&pair, Send::fetch_add(1, local.sge(0, 8), &remote, 4096, 1), &REMOTE_ACCESS, &remote);
    Outcome::Passed
}

fn a_misaligned_atomic() -> Outcome {
    let (pair, local, remote) = scene(ALL_ACCESS);
    if pair.a.lab.attr().atomic_cap == ibex_sys::IBV_ATOMIC_NONE {
        return Outcome::Skipped("the device reports IBV_ATOMIC_NONE".to_owned());
    }
    // IBTA 9.4.5: the address is naturally aligned; the responder answers with "invalid request".
    let expected =
        Expected { requester: &[IBV_WC_REM_INV_REQ_ERR, IBV_WC_REM_ACCESS_ERR], receive: None, late: false };
    violates(&pair, Send::fetch_add(1, local.sge(0, 8), &remote, 4, 1), &expected, &remote);
    Outcome::Passed
}

fn a_write_through_a_pair_without_the_right() -> Outcome {
    let link =
        LinkOptions { access: IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ, ..LinkOptions::default() };
    let (pair, local, remote) = scene_with(ALL_ACCESS, &link);
    let expected =
        Expected { requester: &[IBV_WC_REM_ACCESS_ERR, IBV_WC_REM_INV_REQ_ERR], receive: None, late: false };
    violates(&pair, Send::write(1, &[local.sge(0, 8)], &remote, 0), &expected, &remote);
    Outcome::Passed
}

fn a_read_through_a_pair_without_the_right() -> Outcome {
    let link =
        LinkOptions { access: IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE, ..LinkOptions::default() };
    let (pair, local, remote) = scene_with(ALL_ACCESS, &link);
    let expected =
        Expected { requester: &[IBV_WC_REM_ACCESS_ERR, IBV_WC_REM_INV_REQ_ERR], receive: None, late: false };
    violates(&pair, Send::read(1, &[local.sge(0, 8)], &remote, 0), &expected, &remote);
    Outcome::Passed
}

fn a_local_key_that_does_not_exist() -> Outcome {
    let (pair, local, remote) = scene(ALL_ACCESS);
    let sge = Sge { lkey: local.lkey() ^ 0x5a5a_0000, ..local.sge(0, 8) };
    violates(&pair, Send::write(1, &[sge], &remote, 0), &LOCAL, &remote);
    Outcome::Passed
}

fn a_local_range_beyond_the_region() -> Outcome {
    let (pair, local, remote) = scene(ALL_ACCESS);
    violates(&pair, Send::write(1, &[local.sge(8190, 8)], &remote, 0), &LOCAL, &remote);
    Outcome::Passed
}

fn a_local_key_of_another_domain() -> Outcome {
    let (pair, _local, remote) = scene(ALL_ACCESS);
    let foreign = Region::new(&pair.a.lab.pd(), 64, ALL_ACCESS);
    violates(&pair, Send::write(1, &[foreign.sge(0, 8)], &remote, 0), &LOCAL, &remote);
    Outcome::Passed
}

fn a_read_into_a_region_without_local_write() -> Outcome {
    let (pair, _local, remote) = scene(ALL_ACCESS);
    let landing = pair.a.region(64, ibv_access_flags(0));
    landing.fill(0x33);
    // Whether the device finds this before it asks the peer or when the response arrives is its own affair.
    let expected = Expected { requester: &[IBV_WC_LOC_PROT_ERR], receive: None, late: true };
    violates(&pair, Send::read(1, &[landing.sge(0, 8)], &remote, 0), &expected, &remote);
    assert_eq!(landing.read(0, 64), [0x33; 64]);
    Outcome::Passed
}

fn a_message_larger_than_the_receive() -> Outcome {
    let (pair, local, remote) = scene(ALL_ACCESS);
    pair.b.qp.post_recv(&[Recv::new(70, &[remote.sge(0, 16)])]);
    // Guarded by another region: the receive's own memory may have been written up to its end.
    let guard = pair.b.open_region(64);
    let expected =
        Expected { requester: &[IBV_WC_REM_INV_REQ_ERR], receive: Some(IBV_WC_LOC_LEN_ERR), late: false };
    violates(&pair, Send::message(1, &[local.sge(0, 17)]), &expected, &guard);
    assert!(remote.read(16, 4080).iter().all(|byte| *byte == 0x22), "bytes behind the receive were written");
    Outcome::Passed
}

fn a_receive_into_a_region_without_local_write() -> Outcome {
    let (pair, local, _remote) = scene(ALL_ACCESS);
    let landing = pair.b.region(64, ibv_access_flags(0));
    let guard = pair.b.open_region(64);
    pair.b.qp.post_recv(&[Recv::new(70, &[landing.sge(0, 64)])]);
    let expected =
        Expected { requester: &[IBV_WC_REM_OP_ERR], receive: Some(IBV_WC_LOC_PROT_ERR), late: false };
    violates(&pair, Send::message(1, &[local.sge(0, 8)]), &expected, &guard);
    assert_eq!(landing.read(0, 64), [0; 64]);
    Outcome::Passed
}

fn a_receive_beyond_its_region() -> Outcome {
    let (pair, local, remote) = scene(ALL_ACCESS);
    let guard = pair.b.open_region(64);
    pair.b.qp.post_recv(&[Recv::new(70, &[remote.sge(4090, 100)])]);
    let expected =
        Expected { requester: &[IBV_WC_REM_OP_ERR], receive: Some(IBV_WC_LOC_PROT_ERR), late: false };
    violates(&pair, Send::message(1, &[local.sge(0, 50)]), &expected, &guard);
    Outcome::Passed
}

fn zero_bytes_need_no_key() -> Outcome {
    let (pair, _local, remote) = scene(ALL_ACCESS);
    // IBTA 9.7.4.1.3: an operation of no bytes is not checked against a region.
    let bad_key = remote.rkey() ^ 0x5a5a_0000;
    pair.a.qp.post(&[
        Send::write(1, &[], &remote, 0).remote(0, bad_key),
        Send::read(2, &[], &remote, 0).remote(0, bad_key),
    ]);
    for (wc, id) in pair.a.cq.wait(2).iter().zip([1, 2]) {
        assert_eq!((wc.wr_id, wc.status), (id, IBV_WC_SUCCESS));
    }
    Outcome::Passed
}

fn registration_refuses_rights_without_local_write() -> Outcome {
    let pd = Lab::open().pd();
    // ibv_reg_mr(3): remote write and remote atomic need local write.
    for rights in [IBV_ACCESS_REMOTE_WRITE, IBV_ACCESS_REMOTE_ATOMIC] {
        let result = Region::try_new(&pd, 4096, rights);
        assert_eq!(result.err(), Some(libc::EINVAL), "{rights:?} without local write");
    }
    Outcome::Passed
}
