//! Completion channels: an event comes when it was asked for, once, and not before. `ibv_req_notify_cq(3)`,
//! `ibv_get_cq_event(3)`.

use std::time::Duration;

use ibex_sys::{IBV_QPS_ERR, IBV_SEND_SOLICITED, IBV_WC_RECV};

use super::data::succeeded;
use crate::Outcome;
use crate::lab::{Lab, LinkOptions, NodeOptions, PATIENCE, Pair, QUIET, Recv, Region, Send};

crate::group!("events";
    no_event_unless_armed,
    one_event_for_one_arming,
    completions_that_lie_there_give_no_event,
    solicited_only_waits_for_a_solicited_one,
    arming_for_solicited_does_not_weaken_any,
    an_error_counts_as_solicited,
    a_sleeper_is_woken_without_polling,
);

/// A pair with channels, a source at `a` and a target at `b`.
fn pair() -> (Pair, Region, Region) {
    let lab = Lab::open();
    let pair =
        Pair::with(&lab, &NodeOptions { channel: true, ..NodeOptions::default() }, &LinkOptions::default());
    let (source, target) = (pair.a.open_region(64), pair.b.open_region(64));
    (pair, source, target)
}

/// Sends one message from `a` to `b` and waits for `a`'s completion: `b`'s lies in its queue then.
fn message(pair: &Pair, source: &Region, target: &Region, solicited: bool) {
    pair.b.qp.post_recv(&[Recv::new(1, &[target.sge(0, 8)])]);
    let send = Send::message(2, &[source.sge(0, 8)]);
    pair.a.qp.post(&[if solicited { send.flag(IBV_SEND_SOLICITED) } else { send }]);
    pair.a.cq.wait_one();
}

fn no_event_unless_armed() -> Outcome {
    let (pair, source, target) = pair();
    message(&pair, &source, &target, true);
    assert!(!pair.b.cq.event_within(QUIET), "an event nobody asked for");
    succeeded(&pair.b.cq.wait_one(), 1, IBV_WC_RECV);
    Outcome::Passed
}

fn one_event_for_one_arming() -> Outcome {
    let (pair, source, target) = pair();
    for _ in 0..3 {
        pair.b.cq.arm(false);
        message(&pair, &source, &target, false);
        assert!(pair.b.cq.event_within(PATIENCE), "no event for an armed queue");
        pair.b.cq.take_event();
        message(&pair, &source, &target, false);
        assert!(!pair.b.cq.event_within(QUIET), "a second event for one arming");
        pair.b.cq.wait(2);
    }
    Outcome::Passed
}

fn completions_that_lie_there_give_no_event() -> Outcome {
    let (pair, source, target) = pair();
    message(&pair, &source, &target, false);
    // b's completion is in the queue (a's is there only after it). Arming now is for the next one.
    while pair.b.cq.poll(0).len() > 1 {}
    pair.b.cq.arm(false);
    let early = pair.b.cq.event_within(QUIET);
    if early {
        // ibv_req_notify_cq(3) leaves a spurious event open; it must be one that can be taken and acknowledged.
        pair.b.cq.take_event();
        pair.b.cq.arm(false);
    }
    message(&pair, &source, &target, false);
    assert!(pair.b.cq.event_within(PATIENCE), "no event for the next completion");
    pair.b.cq.take_event();
    pair.b.cq.wait(2);
    Outcome::Passed
}

fn solicited_only_waits_for_a_solicited_one() -> Outcome {
    let (pair, source, target) = pair();
    pair.b.cq.arm(true);
    message(&pair, &source, &target, false);
    assert!(!pair.b.cq.event_within(QUIET), "an event for a message that was not solicited");
    message(&pair, &source, &target, true);
    assert!(pair.b.cq.event_within(PATIENCE), "no event for a solicited message");
    pair.b.cq.take_event();
    pair.b.cq.wait(2);
    Outcome::Passed
}

fn arming_for_solicited_does_not_weaken_any() -> Outcome {
    let (pair, source, target) = pair();
    pair.b.cq.arm(false);
    pair.b.cq.arm(true);
    message(&pair, &source, &target, false);
    assert!(pair.b.cq.event_within(PATIENCE), "asking for solicited events took back the wish for any");
    pair.b.cq.take_event();
    pair.b.cq.wait_one();
    Outcome::Passed
}

fn an_error_counts_as_solicited() -> Outcome {
    let (pair, _source, target) = pair();
    pair.b.qp.post_recv(&[Recv::new(1, &[target.sge(0, 8)])]);
    pair.b.cq.arm(true);
    pair.b.qp.to_state(IBV_QPS_ERR).expect("RTS to ERR");
    assert!(pair.b.cq.event_within(PATIENCE), "no event for a failed receive");
    pair.b.cq.take_event();
    pair.b.cq.wait_one();
    Outcome::Passed
}

fn a_sleeper_is_woken_without_polling() -> Outcome {
    let (pair, source, target) = pair();
    pair.b.qp.post_recv(&[Recv::new(1, &[target.sge(0, 8)])]);
    pair.b.cq.arm(false);
    std::thread::scope(|scope| {
        // The receiver sleeps in poll(2) and touches no verb: the device has to make progress by itself.
        let sleeper = scope.spawn(|| pair.b.cq.event_within(PATIENCE));
        scope.spawn(|| {
            // Long enough that the sleeper is most likely asleep; correct either way.
            pair.a.cq.event_within(Duration::from_millis(20));
            pair.a.qp.post(&[Send::message(2, &[source.sge(0, 8)])]);
        });
        assert!(sleeper.join().expect("the sleeper returns"), "the sleeper was not woken");
    });
    pair.b.cq.take_event();
    succeeded(&pair.b.cq.wait_one(), 1, IBV_WC_RECV);
    pair.a.cq.wait_one();
    Outcome::Passed
}
