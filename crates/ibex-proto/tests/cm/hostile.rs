//! Datagrams of strangers: nothing of a connection's is told, changed or ended by them, and memory stays bounded.

use ibex_proto::cm::{ConnState, Event, ListenParams};
use ibex_wire::Qpn;
use ibex_wire::mad::{CommId, Drep, Gid, Guid, Message, Private};

use crate::util::*;

#[test]
fn another_address_does_not_touch_a_connection() {
    let states: [Step; 3] = [Pair::asked, Pair::replied, Pair::established];
    for prepare in states {
        let mut pair = Pair::new();
        let (a, b) = prepare(&mut pair);
        let before = (pair.states((a, b)), pair.a.poll_timeout(), pair.b.poll_timeout());
        for mad in messages(name(a), name(b), Qpn::new(0x11)) {
            pair.a.handle_mad(pair.now, address(66), address(1), Qpn::GSI, &mad);
        }
        for mad in messages(name(b), name(a), Qpn::new(0x22)) {
            pair.b.handle_mad(pair.now, address(66), address(2), Qpn::GSI, &mad);
        }
        pair.sent_a();
        pair.sent_b();
        assert_eq!(before, (pair.states((a, b)), pair.a.poll_timeout(), pair.b.poll_timeout()));
        pair.quiet();
    }
}

#[test]
fn only_queue_pair_one_is_listened_to() {
    let mut pair = Pair::new();
    let (a, b) = pair.established();
    for mad in messages(name(a), name(b), Qpn::new(0x11)) {
        pair.a.handle_mad(pair.now, address(2), address(1), Qpn::new(0x22), &mad);
    }
    pair.quiet();
    assert_eq!(pair.a.state(a), Some(ConnState::Established));
}

#[test]
fn guessed_numbers_do_not_touch_a_connection() {
    let mut pair = Pair::new();
    let (a, b) = pair.established();
    for mad in messages(name(a), CommId(name(b).0 ^ 1), Qpn::new(0x11)) {
        pair.at_a(&mad);
    }
    for mad in messages(CommId(name(a).0 ^ 1), name(b), Qpn::new(0x11)) {
        pair.at_a(&mad);
    }
    // The right connection, but not its queue pair.
    pair.at_a(&messages(name(a), name(b), Qpn::new(0x12))[8]);
    pair.sent_a();
    pair.quiet();
    assert_eq!(pair.a.state(a), Some(ConnState::Established));
}

#[test]
fn another_host_does_not_end_a_connection_by_claiming_its_queue_pair() {
    let mut pair = Pair::new();
    let (_, b) = pair.established();
    let mut asked = params();
    asked.path.local = address(66);
    let mut other = ibex_proto::cm::Cm::new(config(9, GUID_A));
    other.connect(pair.now, &asked).expect("it may be asked");
    let req = other.poll_transmit().expect("a REQ").mad;
    pair.b.handle_mad(pair.now, address(66), address(2), Qpn::GSI, &req);
    assert!(matches!(pair.b.poll_event(), Some(Event::Request { .. })), "it is a request like others");
    assert_eq!(pair.b.state(b), Some(ConnState::Established));
}

#[test]
fn the_peer_is_where_the_datagram_came_from() {
    let mut pair = Pair::new();
    pair.a.connect(pair.now, &params()).expect("it may be asked");
    let Message::Req(mut req) = message(&only(&pair.sent_a())) else { panic!("a REQ") };
    req.primary.local_gid = address(77);
    pair.at_b(&bytes(Message::Req(req)));
    let Some(Event::Request { conn, request, .. }) = pair.b.poll_event() else { panic!("a request") };
    assert_eq!(request.path.remote, address(1));
    pair.b.reply(pair.now, conn, &reply()).expect("it was asked");
    assert_eq!(pair.b.poll_transmit().map(|sent| sent.remote), Some(address(1)));
}

#[test]
fn a_flood_of_requests_is_bounded_by_the_backlog() {
    let mut pair = Pair::new();
    pair.b.listen(&ListenParams { service: SERVICE, local: None, backlog: 5 }).expect("free");
    pair.a.connect(pair.now, &params()).expect("it may be asked");
    let Message::Req(good) = message(&only(&pair.sent_a())) else { panic!("a REQ") };
    for number in 1..=1000 {
        let mut req = good;
        req.local_comm_id = CommId(number);
        req.local_qpn = Qpn::new(number);
        req.local_ca_guid = Guid(u64::from(number));
        let from = Gid([number as u8; 16]);
        pair.b.handle_mad(pair.now, from, address(2), Qpn::GSI, &bytes(Message::Req(req)));
    }
    let mut events = 0;
    while pair.b.poll_event().is_some() {
        events += 1;
    }
    assert_eq!((events, pair.b.counters().overflow), (2, 998));
    assert_eq!(pair.b.poll_transmit(), None);
}

#[test]
fn a_flood_of_refused_requests_leaves_nothing() {
    let mut pair = Pair::new();
    pair.b.unlisten(pair.listener).expect("it listens");
    pair.a.connect(pair.now, &params()).expect("it may be asked");
    let req = only(&pair.sent_a());
    for _ in 0..100 {
        pair.at_b(&req);
    }
    assert_eq!(pair.sent_b().len(), 100, "one answer each");
    assert!(pair.b.is_idle());
}

#[test]
fn a_flood_of_waits_sets_one_timer() {
    let mut pair = Pair::new();
    let (a, b) = pair.asked();
    for _ in 0..1000 {
        pair.now += 1;
        pair.at_a(&messages(name(a), name(b), Qpn::new(0x11))[1]);
        pair.a.poll_event();
    }
    pair.b.release(pair.now, b);
    pair.deliver();
    assert!(matches!(pair.a.poll_event(), Some(Event::Rejected { .. })));
    assert_eq!(pair.a.poll_timeout(), None);
}

#[test]
fn a_peer_cannot_make_an_end_remember_for_hours() {
    let mut pair = Pair::new();
    let mut asked = params();
    asked.path.packet_life_time = 31;
    asked.local_response_timeout = 31;
    let (_, b) = pair.asked_with(&asked);
    pair.b.reply(pair.now, b, &reply()).expect("it was asked");
    let longest = pair.b.poll_timeout().expect("an answer is expected") - pair.now;
    assert!(longest <= 20_000 * MS);
    pair.b.communication_established(pair.now, b).expect("the reply is out");
    pair.b.disconnect(pair.now, b, &[]).expect("it is established");
    let drep = Drep { local_comm_id: CommId(0), remote_comm_id: name(b), private: Private::ZERO };
    pair.at_b(&bytes(Message::Drep(drep)));
    while pair.b.state(b) == Some(ConnState::DreqSent) {
        let at = pair.b.poll_timeout().expect("an answer is expected");
        assert!(at - pair.now <= 20_000 * MS);
        pair.now = at;
        pair.b.handle_timeout(at);
    }
    assert!(pair.b.poll_timeout().expect("TIMEWAIT ends") - pair.now <= 10_000 * MS);
}
