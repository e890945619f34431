//! Resolutions of datagram services.

use ibex_proto::cm::{CmError, Event, ListenParams, Path, SidrParams, SidrReplyParams};
use ibex_wire::mad::{CmaHeader, PortSpace, ServiceId, SidrStatus};
use ibex_wire::{Mtu, Qkey, Qpn};

use crate::util::*;

const UDP: ServiceId = ServiceId::ip(PortSpace::UDP, 5);

fn question() -> SidrParams {
    let mut params = SidrParams::new(Path::new(address(1), address(2), Mtu::Mtu1024), UDP);
    params.cma = Some(CmaHeader { src_port: 9, src: address(1).ip(), dst: address(2).ip() });
    params.private = b"who?".to_vec();
    params
}

fn answer() -> SidrReplyParams {
    SidrReplyParams {
        status: SidrStatus::SUCCESS,
        qpn: Qpn::new(0x33),
        qkey: Qkey(0x0123_4567),
        private: b"me".to_vec(),
    }
}

fn pair() -> Pair {
    let mut pair = Pair::new();
    pair.b.listen(&ListenParams { service: UDP, local: None, backlog: 1 }).expect("free");
    pair
}

#[test]
fn one_question_one_answer() {
    let mut pair = pair();
    let asked = pair.a.sidr_request(pair.now, &question()).expect("it may be asked");
    let req = only(&pair.sent_a());
    pair.at_b(&req);
    let Some(Event::SidrRequest { sidr, request, .. }) = pair.b.poll_event() else { panic!("a question") };
    assert_eq!((request.local, request.remote, request.service), (address(2), address(1), UDP));
    assert_eq!(
        (request.cma, request.private.len(), &request.private[..4]),
        (question().cma, 180, &b"who?"[..])
    );
    // Once more, while the program thinks.
    pair.at_b(&req);
    pair.quiet();
    pair.b.sidr_taken(sidr).expect("it was asked");
    pair.b.sidr_reply(pair.now, sidr, &answer()).expect("it was asked");
    assert_eq!(pair.b.sidr_reply(pair.now, sidr, &answer()), Err(CmError::Unknown), "once");
    // The answer is lost, and said again.
    let rep = only(&pair.sent_b());
    pair.at_b(&req);
    assert_eq!(only(&pair.sent_b()), rep);
    assert_eq!(pair.b.poll_event(), None);
    pair.at_a(&rep);
    let Some(Event::SidrReply { sidr, reply }) = pair.a.poll_event() else { panic!("an answer") };
    assert_eq!(
        (sidr, reply.status, reply.qpn, reply.qkey),
        (asked, SidrStatus::SUCCESS, Qpn::new(0x33), Qkey(0x0123_4567))
    );
    assert_eq!(reply.private[..2], *b"me");
    pair.at_a(&rep);
    pair.quiet();
    assert!(pair.a.is_idle());
    // Later the same question is a new one.
    pair.idle();
    pair.at_b(&req);
    assert!(matches!(pair.b.poll_event(), Some(Event::SidrRequest { .. })));
}

#[test]
fn who_leaves_at_once_answers_once_more() {
    let mut pair = pair();
    let asked = pair.a.sidr_request(pair.now, &question()).expect("it may be asked");
    let req = only(&pair.sent_a());
    pair.at_b(&req);
    let Some(Event::SidrRequest { sidr, .. }) = pair.b.poll_event() else { panic!("a question") };
    pair.b.sidr_reply(pair.now, sidr, &answer()).expect("it was asked");
    // The answer is lost.
    assert_eq!(pair.sent_b().len(), 1);
    pair.b.part(pair.now);
    pair.deliver();
    let told = pair.a.poll_event();
    assert!(matches!(told, Some(Event::SidrReply { sidr, .. }) if sidr == asked), "{told:?}");
}

#[test]
fn refusals() {
    let mut pair = pair();
    let mut elsewhere = question();
    elsewhere.service = ServiceId::ip(PortSpace::UDP, 6);
    pair.a.sidr_request(pair.now, &elsewhere).expect("it may be asked");
    pair.deliver();
    let Some(Event::SidrReply { reply, .. }) = pair.a.poll_event() else { panic!("an answer") };
    assert_eq!(reply.status, SidrStatus::UNSUPPORTED);
    pair.a.sidr_request(pair.now, &question()).expect("it may be asked");
    pair.deliver();
    let Some(Event::SidrRequest { sidr, .. }) = pair.b.poll_event() else { panic!("a question") };
    pair.b.sidr_release(pair.now, sidr);
    pair.deliver();
    let Some(Event::SidrReply { reply, .. }) = pair.a.poll_event() else { panic!("an answer") };
    assert_eq!(reply.status, SidrStatus::REJECT);
    pair.idle();
}

#[test]
fn no_answer_and_no_patience() {
    let mut pair = pair();
    let asked = pair.a.sidr_request(pair.now, &question()).expect("it may be asked");
    let mut sent = 0;
    let event = loop {
        sent += pair.sent_a().len();
        if let Some(event) = pair.a.poll_event() {
            break event;
        }
        pair.now = pair.a.poll_timeout().expect("an answer is expected");
        pair.a.handle_timeout(pair.now);
    };
    assert_eq!((event, sent), (Event::SidrUnreachable { sidr: asked }, 16));
    let asked = pair.a.sidr_request(pair.now, &question()).expect("it may be asked");
    pair.a.sidr_release(pair.now, asked);
    pair.sent_a();
    assert!(pair.a.is_idle());
}

#[test]
fn lengths_and_backlog() {
    let mut pair = pair();
    let mut long = question();
    long.private = vec![0; 181];
    assert!(matches!(pair.a.sidr_request(pair.now, &long), Err(CmError::PrivateData(_))));
    long.private = vec![0; 180];
    pair.a.sidr_request(pair.now, &long).expect("180 fit");
    pair.a.sidr_request(pair.now, &question()).expect("it may be asked");
    pair.deliver();
    let Some(Event::SidrRequest { sidr, .. }) = pair.b.poll_event() else { panic!("a question") };
    assert_eq!((pair.b.poll_event(), pair.b.counters().overflow), (None, 1));
    let mut much = answer();
    much.private = vec![0; 137];
    assert!(matches!(pair.b.sidr_reply(pair.now, sidr, &much), Err(CmError::PrivateData(_))));
    pair.b.sidr_reply(pair.now, sidr, &answer()).expect("it was asked");
}
