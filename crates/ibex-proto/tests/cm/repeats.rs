//! Messages lost, and said again; when it is given up.

use ibex_proto::cm::{ConnState, Disconnect, Event};
use ibex_wire::mad::{AttrId, Message, Mra, Private, Which};

use crate::util::*;

/// The timeout of a request with rdma_cm's settings: 4.096 µs × (2 × 2^16 + 2^20).
const REQ_TIMEOUT: u64 = 4096 * (2 * (1 << 16) + (1 << 20));

#[test]
fn a_request_is_sent_sixteen_times() {
    let mut pair = Pair::new();
    let start = pair.now;
    let a = pair.a.connect(pair.now, &params()).expect("it may be asked");
    let first = only(&pair.sent_a());
    for _ in 0..15 {
        let at = pair.a.poll_timeout().expect("an answer is expected");
        assert_eq!(at, pair.now + REQ_TIMEOUT);
        pair.now = at;
        pair.a.handle_timeout(pair.now);
        assert_eq!(only(&pair.sent_a()), first, "the same once more");
        assert_eq!(pair.a.poll_event(), None);
    }
    pair.now += REQ_TIMEOUT;
    pair.a.handle_timeout(pair.now);
    assert_eq!(pair.a.poll_event(), Some(Event::Unreachable { conn: a, which: Which::REQ }));
    assert_eq!(pair.now - start, 16 * REQ_TIMEOUT);
    assert!(pair.a.is_idle());
}

#[test]
fn the_first_repetitions_come_quickly() {
    let mut pair = Pair::with(|config| config.fast_retry = 100 * MS);
    pair.a.connect(pair.now, &params()).expect("it may be asked");
    let mut waits = Vec::new();
    for _ in 0..9 {
        let at = pair.a.poll_timeout().expect("an answer is expected");
        waits.push((at - pair.now) / MS);
        pair.now = at;
        pair.a.handle_timeout(pair.now);
    }
    assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, REQ_TIMEOUT / MS, REQ_TIMEOUT / MS, REQ_TIMEOUT / MS]);
}

#[test]
fn a_request_that_comes_again() {
    let mut pair = Pair::new();
    let a = pair.a.connect(pair.now, &params()).expect("it may be asked");
    let req = only(&pair.sent_a());
    pair.at_b(&req);
    let Some(Event::Request { conn: b, .. }) = pair.b.poll_event() else { panic!("a request") };
    // While the program thinks: wait.
    pair.at_b(&req);
    let mra = only(&pair.sent_b());
    assert!(
        matches!(message(&mra), Message::Mra(mra) if mra.which == Which::REQ && mra.remote_comm_id == name(a))
    );
    // After the reply: the reply.
    pair.b.reply(pair.now, b, &reply()).expect("it was asked");
    let rep = only(&pair.sent_b());
    pair.at_b(&req);
    assert_eq!(only(&pair.sent_b()), rep);
    // When established: nothing.
    pair.at_a(&rep);
    pair.a.poll_event();
    pair.a.ready(pair.now, a, &[]).expect("it was replied");
    pair.deliver();
    pair.b.poll_event();
    pair.at_b(&req);
    pair.quiet();
    assert_eq!(pair.b.counters().duplicates, 3);
    pair.at_a(&mra);
    pair.quiet();
}

#[test]
fn a_reply_that_comes_again() {
    let mut pair = Pair::new();
    let (a, b) = pair.asked();
    pair.b.reply(pair.now, b, &reply()).expect("it was asked");
    let rep = only(&pair.sent_b());
    pair.at_a(&rep);
    pair.a.poll_event();
    pair.at_a(&rep);
    assert_eq!(message(&only(&pair.sent_a())).attribute(), AttrId::MRA);
    pair.a.ready(pair.now, a, b"go").expect("it was replied");
    let rtu = only(&pair.sent_a());
    // The RTU is lost; the reply comes again by itself.
    pair.wait_deaf(0);
    let at = pair.b.poll_timeout().expect("an answer is expected");
    pair.now = at;
    pair.b.handle_timeout(at);
    assert_eq!(only(&pair.sent_b()), rep);
    pair.at_a(&rep);
    assert_eq!(only(&pair.sent_a()), rtu);
    pair.at_b(&rtu);
    assert!(matches!(pair.b.poll_event(), Some(Event::Established { private: Some(_), .. })));
    // Once is enough.
    pair.at_b(&rtu);
    pair.quiet();
}

#[test]
fn data_says_what_the_lost_rtu_would_have() {
    let mut pair = Pair::new();
    let (a, b) = pair.replied();
    pair.a.ready(pair.now, a, &[]).expect("it was replied");
    let rtu = only(&pair.sent_a());
    pair.b.communication_established(pair.now, b).expect("the reply is out");
    assert_eq!(pair.b.poll_event(), Some(Event::Established { conn: b, private: None }));
    pair.b.communication_established(pair.now, b).expect("it is no harm");
    pair.at_b(&rtu);
    pair.quiet();
    assert_eq!(pair.b.poll_timeout(), None, "the reply is not repeated");
}

#[test]
fn a_reply_without_an_answer() {
    let mut pair = Pair::new();
    let (a, b) = pair.asked();
    pair.b.reply(pair.now, b, &reply()).expect("it was asked");
    while pair.b.state(b).is_some() {
        pair.now = pair.b.poll_timeout().expect("an answer is expected");
        pair.b.handle_timeout(pair.now);
    }
    assert_eq!(pair.sent_b().len(), 16);
    assert_eq!(pair.b.poll_event(), Some(Event::Unreachable { conn: b, which: Which::REP }));
    pair.a.release(pair.now, a);
    pair.deliver();
    assert!(pair.a.is_idle() && pair.b.is_idle());
}

#[test]
fn who_asks_for_time_gets_it_and_is_asked_again() {
    let mut pair = Pair::with(|config| config.fast_retry = 100 * MS);
    let (a, b) = pair.asked();
    pair.b.mra(pair.now, b, 10, b"busy").expect("it was asked");
    assert_eq!(pair.b.state(b), Some(ConnState::MraReqSent));
    pair.deliver();
    let Some(Event::Delayed { which: Which::REQ, private, .. }) = pair.a.poll_event() else {
        panic!("delayed")
    };
    assert_eq!(private[..4], *b"busy");
    // 2^10 that the peer asks for and 2^17 for the way.
    assert_eq!(pair.a.poll_timeout(), Some(pair.now + 4096 * ((1 << 10) + (1 << 17))));
    // However long it asks for, it is asked again after 2.1 s: it could have died.
    pair.b.mra(pair.now, b, 31, &[]).expect("it was asked");
    pair.deliver();
    assert_eq!(pair.a.poll_timeout(), Some(pair.now + 4096 * (1 << 19)));
    pair.a.poll_event();
    // A peer that says "wait" for hours is not unreachable.
    for _ in 0..1000 {
        pair.now = pair.a.poll_timeout().expect("an answer is expected");
        pair.a.handle_timeout(pair.now);
        pair.deliver();
        assert!(matches!(pair.a.poll_event(), Some(Event::Delayed { .. })));
    }
    pair.b.reply(pair.now, b, &reply()).expect("it was asked");
    pair.deliver();
    assert!(matches!(pair.a.poll_event(), Some(Event::Reply { .. })));
    pair.a.mra(pair.now, a, 20, &[]).expect("it was replied");
    pair.deliver();
    assert!(matches!(pair.b.poll_event(), Some(Event::Delayed { which: Which::REP, .. })));
    assert_eq!(pair.a.state(a), Some(ConnState::MraRepSent));
    pair.a.ready(pair.now, a, &[]).expect("it was replied");
}

#[test]
fn a_wait_for_another_message_is_no_wait() {
    let mut pair = Pair::new();
    let (a, b) = pair.asked();
    let at = pair.a.poll_timeout();
    let mra = |which| {
        bytes(Message::Mra(Mra {
            local_comm_id: name(b),
            remote_comm_id: name(a),
            which,
            service_timeout: 1,
            private: Private::ZERO,
        }))
    };
    pair.at_a(&mra(Which::REP));
    pair.at_a(&mra(Which::OTHER));
    assert_eq!((pair.a.poll_timeout(), pair.a.poll_event()), (at, None));
}

#[test]
fn a_disconnection_that_is_lost() {
    let mut pair = Pair::new();
    let (a, b) = pair.established();
    pair.a.disconnect(pair.now, a, b"bye").expect("it is established");
    let dreq = only(&pair.sent_a());
    pair.now = pair.a.poll_timeout().expect("an answer is expected");
    pair.a.handle_timeout(pair.now);
    assert_eq!(only(&pair.sent_a()), dreq);
    pair.at_b(&dreq);
    assert!(
        matches!(pair.b.poll_event(), Some(Event::DisconnectRequested { private, .. }) if private[..3] == *b"bye")
    );
    // Once more, while the program thinks: nothing new.
    pair.at_b(&dreq);
    pair.quiet();
    pair.b.disconnect(pair.now, b, b"ok").expect("the peer asks");
    let drep = only(&pair.sent_b());
    assert_eq!(pair.b.poll_event(), Some(Event::Disconnected { conn: b, how: Disconnect::Agreed }));
    // The DREP is lost: the DREQ comes again, in TIMEWAIT.
    pair.at_b(&dreq);
    assert_eq!(only(&pair.sent_b()), drep);
    pair.at_a(&drep);
    let Some(Event::Disconnected { how: Disconnect::Answered(private), .. }) = pair.a.poll_event() else {
        panic!("answered")
    };
    assert_eq!(private[..2], *b"ok");
    pair.at_a(&drep);
    pair.quiet();
    // And after TIMEWAIT, when nothing is known any more.
    pair.now += 4096 << 17;
    pair.a.handle_timeout(pair.now);
    pair.b.handle_timeout(pair.now);
    assert_eq!(pair.a.poll_event(), Some(Event::TimewaitExit { conn: a }));
    assert_eq!(pair.b.poll_event(), Some(Event::TimewaitExit { conn: b }));
    assert!(pair.a.is_idle() && pair.b.is_idle());
    pair.at_b(&dreq);
    let Message::Drep(again) = message(&only(&pair.sent_b())) else { panic!("a DREP") };
    assert_eq!((again.local_comm_id, again.remote_comm_id), (name(b), name(a)));
}

#[test]
fn a_disconnection_without_an_answer() {
    let mut pair = Pair::new();
    let (a, _) = pair.established();
    pair.a.disconnect(pair.now, a, &[]).expect("it is established");
    while pair.a.state(a) == Some(ConnState::DreqSent) {
        pair.now = pair.a.poll_timeout().expect("an answer is expected");
        pair.a.handle_timeout(pair.now);
    }
    assert_eq!(pair.sent_a().len(), 16);
    assert_eq!(pair.a.poll_event(), Some(Event::Disconnected { conn: a, how: Disconnect::TimedOut }));
    assert_eq!(pair.a.state(a), Some(ConnState::Timewait));
}
