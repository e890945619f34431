//! Tests of walks and of their gate.

use ibex_sys::ibv_wc;

use super::*;
use crate::cq::Unpolled;

fn filled(capacity: u32, ids: std::ops::Range<u64>) -> (Cq, Unpolled) {
    let (cq, owner) = (Cq::new(capacity, 1, None, true), Unpolled::default());
    for wr_id in ids {
        push(&cq, wr_id, &owner);
    }
    (cq, owner)
}

fn push(cq: &Cq, wr_id: u64, owner: &Unpolled) {
    let wc = ibv_wc { wr_id, qp_num: (wr_id % 2) as u32, ..Default::default() };
    cq.push(wc, false, owner).unwrap();
}

fn id(walk: &Walk) -> u64 {
    walk.current().wc.wr_id
}

fn rest(cq: &Cq) -> Vec<u64> {
    let mut ids = Vec::new();
    cq.pop(100, |_, wc| ids.push(wc.wr_id));
    ids
}

#[test]
fn a_completion_counts_as_polled_when_the_walk_moves_to_it() {
    let (cq, owner) = filled(40, 0..40);
    let mut walk = Walk::default();
    assert!(walk.start(&cq));
    for seen in 0..40 {
        assert_eq!(id(&walk), seen);
        assert_eq!(owner.count() as u64, 39 - seen);
        assert_eq!(walk.next(&cq), seen < 39);
    }
    assert!(!walk.next(&cq), "beyond the last nothing comes");
    push(&cq, 40, &owner);
    assert!(walk.next(&cq), "unless something came meanwhile");
    assert_eq!(id(&walk), 40);
    walk.end(&cq);
    assert!(!walk.start(&cq));
}

#[test]
fn what_a_walk_did_not_come_to_goes_back_in_order_even_if_the_queue_was_filled_meanwhile() {
    let (cq, owner) = filled(8, 0..8);
    let mut walk = Walk { last: 6, ..Walk::default() };
    assert!(walk.start(&cq));
    assert!(walk.next(&cq));
    // The program reuses the two requests that completed, and others complete before the walk ends.
    push(&cq, 8, &owner);
    push(&cq, 9, &owner);
    walk.end(&cq);
    assert_eq!(owner.count(), 8);
    assert!(cq.push(ibv_wc::default(), false, &owner).is_err(), "full again");
    assert_eq!(rest(&cq), (2..10).collect::<Vec<_>>());
    assert_eq!(owner.count(), 0);
}

#[test]
fn completions_of_a_destroyed_queue_pair_disappear_from_a_walk() {
    let (cq, owner) = filled(16, 0..16);
    let mut walk = Walk { last: 16, ..Walk::default() };
    assert!(walk.start(&cq));
    cq.purge(1);
    let mut seen = vec![id(&walk)];
    while walk.next(&cq) {
        seen.push(id(&walk));
    }
    walk.end(&cq);
    assert_eq!(seen, [0, 2, 4, 6, 8, 10, 12, 14]);
    assert_eq!(owner.count(), 0);
    // Neither the next walk nor one that ends at once is touched by what was removed before it.
    (16..20).for_each(|wr_id| push(&cq, wr_id, &owner));
    let mut walk = Walk { last: 3, ..Walk::default() };
    assert!(walk.start(&cq));
    cq.purge(0);
    walk.end(&cq);
    assert_eq!(rest(&cq), [17, 19]);
    assert_eq!(owner.count(), 0);
}

#[test]
fn completions_are_stamped_in_order() {
    let (cq, _owner) = filled(8, 0..8);
    let mut walk = Walk::default();
    assert!(walk.start(&cq));
    let mut before = walk.current().time;
    assert!(before > 0);
    while walk.next(&cq) {
        assert!(walk.current().time >= before);
        before = walk.current().time;
    }
}
