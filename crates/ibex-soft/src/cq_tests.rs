//! Tests of order, arming and overflow.

use super::*;
use ibex_sys::IBV_WC_WR_FLUSH_ERR;

fn entry(wr_id: u64) -> ibv_wc {
    ibv_wc { wr_id, qp_num: (wr_id % 2) as u32, ..Default::default() }
}

fn owner() -> Unpolled {
    Unpolled::default()
}

#[test]
fn requests_count_as_outstanding_until_their_completion_is_polled() {
    let (cq, mine, other) = (Cq::new(8, 1, None, false), owner(), owner());
    for i in 0..4 {
        cq.push(entry(i), false, if i == 3 { &other } else { &mine }).unwrap();
    }
    assert_eq!((mine.count(), other.count()), (3, 1));
    cq.pop(1, |_, _| ());
    assert_eq!(mine.count(), 2);
    cq.resize(16).unwrap();
    // Entries 1 and 3 are of queue pair 1.
    cq.purge(1);
    assert_eq!((mine.count(), other.count()), (1, 0));
    assert_eq!(drain(&cq), vec![2]);
    assert_eq!(mine.count(), 0);
}

fn channel() -> Arc<Channel> {
    Arc::new(Channel { events: EventQueue::new().unwrap(), users: AtomicU32::new(0) })
}

fn drain(cq: &Cq) -> Vec<u64> {
    let mut ids = Vec::new();
    while cq.pop(3, |_, wc| ids.push(wc.wr_id)) > 0 {}
    ids
}

#[test]
fn completions_come_in_order_round_the_ring() {
    let cq = Cq::new(4, 1, None, false);
    for round in 0..10u64 {
        for i in 0..3 {
            cq.push(entry(round * 3 + i), false, &owner()).unwrap();
        }
        assert_eq!(drain(&cq), vec![round * 3, round * 3 + 1, round * 3 + 2]);
    }
}

#[test]
fn overflow_is_reported_once_as_the_first() {
    let cq = Cq::new(2, 1, None, false);
    cq.push(entry(1), false, &owner()).unwrap();
    cq.push(entry(2), false, &owner()).unwrap();
    assert_eq!(cq.push(entry(3), false, &owner()), Err(Overflow { first: true }));
    assert_eq!(drain(&cq), vec![1, 2]);
    assert_eq!(cq.push(entry(4), false, &owner()), Err(Overflow { first: false }));
}

#[test]
fn arming_follows_the_manual() {
    let channel = channel();
    let cq = Cq::new(16, 77, Some(channel.clone()), false);
    cq.push(entry(1), true, &owner()).unwrap();
    assert!(!channel.events.is_ready(), "not armed");
    cq.arm(false);
    assert!(!channel.events.is_ready(), "completions from before the arming raise nothing");
    cq.push(entry(2), false, &owner()).unwrap();
    cq.push(entry(3), false, &owner()).unwrap();
    assert_eq!(channel.events.pop(|_| ()), Some(77));
    assert_eq!(channel.events.pop(|_| ()), None, "one arming, one event");

    cq.arm(true);
    cq.push(entry(4), false, &owner()).unwrap();
    assert!(!channel.events.is_ready(), "unsolicited");
    cq.push(entry(5), true, &owner()).unwrap();
    assert_eq!(channel.events.pop(|_| ()), Some(77));

    cq.arm(true);
    cq.push(ibv_wc { status: IBV_WC_WR_FLUSH_ERR, ..entry(6) }, false, &owner()).unwrap();
    assert_eq!(channel.events.pop(|_| ()), Some(77), "errors count as solicited");

    cq.arm(false);
    cq.arm(true);
    cq.push(entry(7), false, &owner()).unwrap();
    assert!(channel.events.is_ready(), "arming for less does not disarm");
    drop(cq);
    assert!(!channel.events.is_ready(), "undelivered events die with their queue");
}

#[test]
fn resizing_and_purging_keep_the_rest_in_order() {
    let cq = Cq::new(4, 1, None, false);
    cq.push(entry(0), false, &owner()).unwrap();
    assert_eq!(drain(&cq), vec![0]);
    for i in 1..=4 {
        cq.push(entry(i), false, &owner()).unwrap();
    }
    assert_eq!(cq.resize(3), Err(libc::EINVAL));
    cq.resize(8).unwrap();
    cq.push(entry(5), false, &owner()).unwrap();
    cq.purge(0);
    assert_eq!(drain(&cq), vec![1, 3, 5]);
}
