//! Refusals, backlogs, and requests of queue pairs that are connected already.

use ibex_proto::cm::{CmError, ConnState, Disconnect, Event, RejectParams};
use ibex_wire::Qpn;
use ibex_wire::mad::{CommId, Message, Private, Rej, RejectReason, ServiceId, Which};

use crate::util::*;

fn reason(event: Option<Event>) -> RejectReason {
    match event {
        Some(Event::Rejected { reason, .. }) => reason,
        other => panic!("no refusal: {other:?}"),
    }
}

#[test]
fn nobody_listens() {
    let mut pair = Pair::new();
    let mut asked = params();
    asked.service = ServiceId(5);
    let a = pair.a.connect(pair.now, &asked).expect("it may be asked");
    pair.deliver();
    assert_eq!(reason(pair.a.poll_event()), RejectReason::INVALID_SERVICE_ID);
    assert_eq!(pair.a.state(a), None);
    assert!(pair.a.is_idle() && pair.b.is_idle());
}

#[test]
fn what_no_program_could_accept_is_refused_for_it() {
    let mut pair = Pair::new();
    pair.a.connect(pair.now, &params()).expect("it may be asked");
    let Message::Req(good) = message(&only(&pair.sent_a())) else { panic!("a REQ") };
    let mut refused = |change: &dyn Fn(&mut ibex_wire::mad::Req)| {
        let mut req = good;
        change(&mut req);
        pair.at_b(&bytes(Message::Req(req)));
        let Message::Rej(rej) = message(&only(&pair.sent_b())) else { panic!("a REJ") };
        assert_eq!((rej.local_comm_id, rej.remote_comm_id), (CommId::NONE, req.local_comm_id));
        rej.reason
    };
    assert_eq!(refused(&|req| req.mtu = 6), RejectReason::INVALID_MTU);
    assert_eq!(refused(&|req| req.service.0 = 3), RejectReason::INVALID_TRANSPORT_TYPE);
    assert_eq!(refused(&|req| req.primary.remote_gid = address(9)), RejectReason::INVALID_GID);
    assert!(pair.b.is_idle());
}

#[test]
fn the_program_refuses() {
    let mut pair = Pair::new();
    let (a, b) = pair.asked();
    let mut refusal = RejectParams::consumer(b"no");
    refusal.info = vec![1, 2, 3];
    assert!(matches!(
        pair.b.reject(pair.now, b, &RejectParams { info: vec![0; 73], ..refusal.clone() }),
        Err(CmError::Information { len: 73, max: 72 })
    ));
    assert!(matches!(
        pair.b.reject(pair.now, b, &RejectParams { private: vec![0; 149], ..refusal.clone() }),
        Err(CmError::PrivateData(_))
    ));
    pair.b.reject(pair.now, b, &refusal).expect("it was asked");
    assert_eq!(pair.b.reject(pair.now, b, &refusal), Err(CmError::Unknown));
    pair.deliver();
    let Some(Event::Rejected { conn, reason, info, private }) = pair.a.poll_event() else {
        panic!("a refusal")
    };
    assert_eq!((conn, reason, info), (a, RejectReason::CONSUMER_DEFINED, vec![1, 2, 3]));
    assert_eq!(private[..2], *b"no");
    assert_eq!(pair.states((a, b)), (None, None));
    pair.quiet();
    pair.idle();
}

#[test]
fn a_lost_refusal_is_said_again() {
    let mut pair = Pair::new();
    let a = pair.a.connect(pair.now, &params()).expect("it may be asked");
    let req = only(&pair.sent_a());
    pair.at_b(&req);
    let Some(Event::Request { conn: b, .. }) = pair.b.poll_event() else { panic!("a request") };
    pair.b.reject(pair.now, b, &RejectParams::consumer(b"no")).expect("it was asked");
    pair.sent_b();
    pair.at_b(&req);
    assert_eq!(pair.b.poll_event(), None, "the program is not asked again");
    pair.deliver();
    let Some(Event::Rejected { conn, private, .. }) = pair.a.poll_event() else { panic!("a refusal") };
    assert_eq!((conn, &private[..2]), (a, &b"no"[..]));
}

#[test]
fn a_reply_taken_back() {
    let mut pair = Pair::new();
    let (a, b) = pair.replied();
    pair.a.ready(pair.now, a, &[]).expect("it was replied");
    pair.b.reject(pair.now, b, &RejectParams::consumer(&[])).expect("the reply is out");
    // The refusal is lost, the RTU is not: the caller must hear of it all the same.
    pair.sent_b();
    pair.deliver();
    assert_eq!(reason(pair.a.poll_event()), RejectReason::CONSUMER_DEFINED);
    assert_eq!(pair.a.state(a), Some(ConnState::Timewait), "data may be under way");
    pair.idle();
}

#[test]
fn the_caller_refuses_the_reply() {
    let mut pair = Pair::new();
    let (a, b) = pair.replied();
    pair.a.reject(pair.now, a, &RejectParams::consumer(b"late")).expect("it was replied");
    pair.deliver();
    assert_eq!(reason(pair.b.poll_event()), RejectReason::CONSUMER_DEFINED);
    assert_eq!(pair.states((a, b)), (None, None));
    assert!(pair.a.is_idle() && pair.b.is_idle());
}

#[test]
fn a_caller_that_gave_up() {
    // The program still thinks.
    let mut pair = Pair::new();
    let (a, _) = pair.asked();
    pair.a.release(pair.now, a);
    let rej = only(&pair.sent_a());
    let Message::Rej(sent) = message(&rej) else { panic!("a REJ") };
    assert_eq!(
        (sent.reason, sent.remote_comm_id, sent.which),
        (RejectReason::TIMEOUT, CommId::NONE, Which::OTHER)
    );
    assert_eq!(sent.additional_info(), GUID_A.0.to_be_bytes());
    pair.at_b(&rej);
    assert_eq!(reason(pair.b.poll_event()), RejectReason::TIMEOUT);
    assert!(pair.a.is_idle() && pair.b.is_idle());
    // Its word is lost, and the program accepts.
    let (a, b) = pair.asked();
    pair.a.release(pair.now, a);
    pair.sent_a();
    pair.b.reply(pair.now, b, &reply()).expect("it was asked");
    pair.deliver();
    assert_eq!(reason(pair.b.poll_event()), RejectReason::INVALID_COMM_ID);
    assert!(pair.a.is_idle() && pair.b.is_idle());
}

#[test]
fn a_full_backlog_drops() {
    let mut pair = Pair::new();
    let mut calls = Vec::new();
    for qpn in 1..=3 {
        let mut asked = params();
        asked.qpn = Qpn::new(qpn);
        calls.push(pair.a.connect(pair.now, &asked).expect("it may be asked"));
    }
    pair.deliver();
    let Some(Event::Request { conn, .. }) = pair.b.poll_event() else { panic!("one") };
    assert!(matches!(pair.b.poll_event(), Some(Event::Request { .. })));
    pair.quiet();
    assert_eq!(pair.b.counters().overflow, 1);
    assert_eq!(pair.a.state(calls[2]), Some(ConnState::ReqSent), "it is not refused");
    // The program has fetched one: there is room for the third when it is asked again.
    pair.b.taken(conn).expect("it was asked");
    pair.b.taken(conn).expect("once counts");
    pair.now = pair.a.poll_timeout().expect("an answer is expected");
    pair.a.handle_timeout(pair.now);
    pair.deliver();
    assert!(matches!(pair.b.poll_event(), Some(Event::Request { .. })));
    assert_eq!(pair.b.poll_event(), None);
}

#[test]
fn a_queue_pair_connected_anew() {
    let mut pair = Pair::new();
    let (a, b) = pair.established();
    // The other process died, and a new one uses the number.
    let mut cm = ibex_proto::cm::Cm::new(config(3, GUID_A));
    std::mem::swap(&mut cm, &mut pair.a);
    let new = pair.a.connect(pair.now, &params()).expect("it may be asked");
    pair.deliver();
    assert_eq!(reason(pair.a.poll_event()), RejectReason::STALE_CONN);
    assert_eq!(pair.a.state(new), None);
    // The old connection was ended towards the new process, which agreed.
    assert!(
        matches!(pair.b.poll_event(), Some(Event::Disconnected { conn, how: Disconnect::Answered(_) }) if conn == b)
    );
    // Then it works.
    let (again, _) = pair.asked();
    assert_ne!(again, a);
}

#[test]
fn a_request_of_the_same_queue_pair_means_the_older_was_given_up() {
    let mut pair = Pair::new();
    let (a, b) = pair.asked();
    pair.a.release(pair.now, a);
    pair.sent_a();
    let again = pair.a.connect(pair.now, &params()).expect("it may be asked");
    pair.deliver();
    assert_eq!(reason(pair.b.poll_event()), RejectReason::STALE_CONN);
    assert_eq!(pair.b.state(b), None);
    assert!(matches!(pair.b.poll_event(), Some(Event::Request { .. })));
    assert_eq!(pair.a.state(again), Some(ConnState::ReqSent));
}

#[test]
fn a_reply_of_a_connected_queue_pair() {
    let mut pair = Pair::new();
    let (a, _) = pair.established();
    let mut asked = params();
    asked.qpn = Qpn::new(0x12);
    let (second, b) = pair.asked_with(&asked);
    // The program uses one queue pair for two connections.
    pair.b.reply(pair.now, b, &reply()).expect("it was asked");
    pair.deliver();
    assert_eq!(reason(pair.b.poll_event()), RejectReason::STALE_CONN);
    assert_eq!(pair.a.state(a), Some(ConnState::DreqSent), "the older is ended");
    assert_eq!(pair.a.state(second), Some(ConnState::ReqSent));
}

#[test]
fn a_refusal_of_linux() {
    // Before it has told its number, it names none.
    let mut pair = Pair::new();
    let a = pair.a.connect(pair.now, &params()).expect("it may be asked");
    pair.sent_a();
    let rej = Rej {
        local_comm_id: CommId::NONE,
        remote_comm_id: name(a),
        which: Which::REQ,
        reason: RejectReason::CONSUMER_DEFINED,
        info_len: 0,
        info: [0; Rej::INFO],
        private: Private::ZERO,
    };
    pair.at_a(&bytes(Message::Rej(rej)));
    assert_eq!(reason(pair.a.poll_event()), RejectReason::CONSUMER_DEFINED);
    // In an established connection both numbers must be right.
    let (a, b) = pair.established();
    pair.at_a(&bytes(Message::Rej(Rej { remote_comm_id: name(a), ..rej })));
    pair.at_a(&bytes(Message::Rej(Rej { remote_comm_id: name(a), which: Which::OTHER, ..rej })));
    pair.quiet();
    let right = Rej { remote_comm_id: name(a), local_comm_id: name(b), which: Which::OTHER, ..rej };
    pair.at_a(&bytes(Message::Rej(right)));
    assert_eq!(reason(pair.a.poll_event()), RejectReason::CONSUMER_DEFINED);
    assert_eq!(pair.a.state(a), Some(ConnState::Timewait));
}

#[test]
fn callers_that_give_up_leave_the_backlog() {
    let mut pair = Pair::new();
    for qpn in 1..=10 {
        let mut asked = params();
        asked.qpn = Qpn::new(qpn);
        let (a, _) = pair.asked_with(&asked);
        pair.a.release(pair.now, a);
        pair.deliver();
        assert_eq!(reason(pair.b.poll_event()), RejectReason::TIMEOUT);
    }
    assert_eq!(pair.b.counters().overflow, 0);
}
