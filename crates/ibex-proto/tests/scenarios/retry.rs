//! Asking again: how often, how long, and when it ends.

use ibex_proto::sim::{EndConfig, Fate};
use ibex_proto::{QpState, WcStatus};
use ibex_wire::Opcode;

use crate::util::*;

const TIMEOUT: u64 = 100_000;

#[test]
fn silence_ends_after_the_retries_given() {
    for retry in [0, 1, 7] {
        let mut world =
            pair(EndConfig { retry: Some(retry), timeout: Some(TIMEOUT), ..EndConfig::default() });
        let log = watch(&mut world, |_| Fate::Drop);
        world.post(A, write(0), pattern(10));
        world.post(A, write(0), pattern(10));
        world.run(SOON);
        let statuses = [WcStatus::RETRY_EXC_ERR, WcStatus::WR_FLUSH_ERR];
        assert_eq!(world.ends[A].send_statuses(), statuses);
        assert_eq!(world.ends[A].qp.state(), QpState::Err);
        let first = log.all()[0].psn;
        assert_eq!(log.count(|seen| seen.psn == first), usize::from(retry) + 1);
        // At least the time asked for, at most four times as long for each.
        let attempts = u64::from(retry) + 1;
        assert!((attempts * TIMEOUT..=attempts * TIMEOUT * 4).contains(&world.now), "{}", world.now);
    }
}

#[test]
fn without_a_limit_it_goes_on() {
    let mut world = pair(EndConfig { retry: None, ..EndConfig::default() });
    let mut swallowed = 0;
    watch(&mut world, move |_| {
        swallowed += 1;
        if swallowed <= 100 { Fate::Drop } else { Fate::Pass }
    });
    world.post(A, write(0), pattern(10));
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS]);
    assert_eq!(world.ends[A].qp.counters().timeouts, 100);
}

#[test]
fn without_a_timeout_nothing_is_sent_again() {
    let mut world = pair(EndConfig { timeout: None, ..EndConfig::default() });
    let log = watch(&mut world, |_| Fate::Drop);
    world.post(A, write(0), pattern(10));
    world.run(SOON);
    assert_eq!((log.all().len(), world.ends[A].sends().len()), (1, 0));
    assert_eq!(world.ends[A].qp.poll_timeout(), None);
}

#[test]
fn sequence_errors_use_up_retries_too() {
    // The first packet of the second message never arrives; everything behind it is refused.
    let mut world = pair(EndConfig { retry: Some(2), ..EndConfig::default() });
    let log = watch(&mut world, |seen| match seen.opcode {
        Opcode::RC_WRITE_ONLY if seen.len == 8 => Fate::Drop,
        _ => Fate::Pass,
    });
    world.post(A, write(0), pattern(4));
    world.post(A, write(0), pattern(8));
    world.post(A, write(0), pattern(12));
    world.run(SOON);
    let statuses = [WcStatus::SUCCESS, WcStatus::RETRY_EXC_ERR, WcStatus::WR_FLUSH_ERR];
    assert_eq!(world.ends[A].send_statuses(), statuses);
    assert_eq!(log.count(|seen| seen.len == 8), 3);
}

#[test]
fn progress_refills_the_counter() {
    let mut world = pair(EndConfig { retry: Some(1), ..EndConfig::default() });
    // Every packet is lost the first time.
    let mut last = None;
    watch(&mut world, move |seen| {
        if seen.from == A && last != Some(seen.psn) {
            last = Some(seen.psn);
            return Fate::Drop;
        }
        Fate::Pass
    });
    for round in 0..20 {
        world.post(A, write(round), pattern(1));
        world.run(SOON);
    }
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS; 20]);
}

#[test]
fn the_timer_rests_when_nothing_is_outstanding() {
    let mut world = pair(EndConfig::default());
    world.post(A, write(0), pattern(1000));
    world.run(SOON);
    assert_eq!(world.ends[A].qp.poll_timeout(), None);
    assert_eq!(world.ends[A].qp.counters().retransmissions, 0);
    assert!(world.now < TIMEOUT);
}
