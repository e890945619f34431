//! Asking, accepting, being ready: who says what, and what each end knows then.

use ibex_proto::cm::{Cm, CmError, ConnState, Event, ListenParams, Operation};
use ibex_wire::mad::{CmaHeader, Message, TransportService};
use ibex_wire::{Mtu, Psn, Qpn};

use crate::util::*;

#[test]
fn three_messages_make_a_connection() {
    let mut pair = Pair::new();
    let a = pair.a.connect(pair.now, &params()).expect("it may be asked");
    assert_eq!(name(a).0 >> 22, 1, "the slot is in the name");
    let req = only(&pair.sent_a());
    let Message::Req(sent) = message(&req) else { panic!("a REQ") };
    assert_eq!((sent.local_comm_id, sent.local_ca_guid), (name(a), GUID_A));
    assert_eq!((sent.primary.local_gid, sent.primary.remote_gid), (address(1), address(2)));
    assert_eq!((sent.primary.local_lid, sent.primary.subnet_local), (0xffff, false));
    assert_eq!((sent.max_cm_retries, sent.remote_response_timeout, sent.primary.ack_timeout), (15, 20, 17));
    pair.at_b(&req);
    let Some(Event::Request { listener, conn: b, request }) = pair.b.poll_event() else {
        panic!("a request")
    };
    assert_eq!((listener, name(b).0 >> 22), (pair.listener, 2));
    assert_eq!((request.path.local, request.path.remote), (address(2), address(1)));
    assert_eq!((request.path.mtu, request.path.packet_life_time), (Mtu::Mtu1024, 16));
    assert_eq!((request.remote_qpn, request.starting_psn), (Qpn::new(0x11), Psn::new(0x111)));
    assert_eq!(
        (request.responder_resources, request.initiator_depth),
        (4, 3),
        "what the peer wants and offers"
    );
    assert_eq!((request.private.len(), &request.private[..4]), (92, &b"call"[..]));
    assert_eq!(request.cma, None);
    assert_eq!(pair.states((a, b)), (Some(ConnState::ReqSent), Some(ConnState::ReqRcvd)));
    assert!(pair.a.attributes(a).is_err(), "the peer is not known yet");

    pair.b.reply(pair.now, b, &reply()).expect("it was asked");
    let rep = only(&pair.sent_b());
    pair.at_a(&rep);
    let Some(Event::Reply { conn, reply }) = pair.a.poll_event() else { panic!("a reply") };
    assert_eq!((conn, reply.remote_qpn, reply.starting_psn), (a, Qpn::new(0x22), Psn::new(0x222)));
    assert_eq!((reply.responder_resources, reply.initiator_depth), (2, 4));
    assert_eq!(reply.private[..3], *b"yes");
    assert_eq!(pair.states((a, b)), (Some(ConnState::RepRcvd), Some(ConnState::RepSent)));

    pair.a.ready(pair.now, a, b"go").expect("it was replied");
    let rtu = only(&pair.sent_a());
    pair.at_b(&rtu);
    let Some(Event::Established { conn, private: Some(private) }) = pair.b.poll_event() else {
        panic!("established")
    };
    assert_eq!((conn, &private[..2]), (b, &b"go"[..]));
    assert_eq!(pair.states((a, b)), (Some(ConnState::Established), Some(ConnState::Established)));
    assert_eq!((pair.a.poll_timeout(), pair.b.poll_timeout()), (None, None), "nothing is waited for");
    pair.quiet();

    let (of_a, of_b) = (pair.a.attributes(a).expect("known"), pair.b.attributes(b).expect("known"));
    assert_eq!((of_a.remote_qpn, of_b.remote_qpn), (Qpn::new(0x22), Qpn::new(0x11)));
    assert_eq!((of_a.sq_psn, of_a.rq_psn), (of_b.rq_psn, of_b.sq_psn));
    assert_eq!((of_a.rq_psn, of_b.rq_psn), (Psn::new(0x111), Psn::new(0x222)));
    assert_eq!((of_a.max_rd_atomic, of_a.max_dest_rd_atomic), (4, 2));
    assert_eq!((of_b.max_rd_atomic, of_b.max_dest_rd_atomic), (2, 4));
    assert_eq!((of_a.retry_count, of_b.retry_count), (5, 5));
    assert_eq!((of_a.rnr_retry_count, of_b.rnr_retry_count), (1, 6), "each uses what the other asked for");
    assert_eq!((of_a.ack_timeout, of_b.ack_timeout), (17, 17));
}

#[test]
fn one_engine_calls_itself() {
    let mut cm = Cm::new(config(1, GUID_A));
    let listen = ListenParams { service: params().service, local: None, backlog: 1 };
    cm.listen(&listen).expect("nobody else listens");
    let mut to_self = params();
    to_self.path.remote = to_self.path.local;
    let deliver = |cm: &mut Cm| {
        while let Some(sent) = cm.poll_transmit() {
            cm.handle_mad(MS, sent.local, sent.remote, Qpn::GSI, &sent.mad);
        }
    };
    let a = cm.connect(MS, &to_self).expect("it may be asked");
    deliver(&mut cm);
    let Some(Event::Request { conn: b, .. }) = cm.poll_event() else { panic!("a request") };
    assert_ne!(a, b);
    cm.reply(MS, b, &reply()).expect("it was asked");
    deliver(&mut cm);
    assert!(matches!(cm.poll_event(), Some(Event::Reply { .. })));
    cm.ready(MS, a, &[]).expect("it was replied");
    deliver(&mut cm);
    assert!(matches!(cm.poll_event(), Some(Event::Established { conn, .. }) if conn == b));
    cm.disconnect(MS, b, &[]).expect("it is established");
    deliver(&mut cm);
    assert!(matches!(cm.poll_event(), Some(Event::DisconnectRequested { conn, .. }) if conn == a));
    cm.disconnect(MS, a, &[]).expect("the peer asks");
    deliver(&mut cm);
    cm.handle_timeout(60_000 * MS);
    while cm.poll_event().is_some() {}
    assert!(cm.is_idle());
}

#[test]
fn services_of_ports_have_a_header() {
    let mut pair = Pair::new();
    pair.b.listen(&ListenParams { service: SERVICE, local: Some(address(2)), backlog: 1 }).expect("free");
    let header = CmaHeader { src_port: 1234, src: address(1).ip(), dst: address(2).ip() };
    let mut asked = params();
    (asked.service, asked.cma, asked.private) = (SERVICE, Some(header), vec![7; 56]);
    pair.a.connect(pair.now, &asked).expect("56 bytes fit");
    pair.deliver();
    let Some(Event::Request { request, .. }) = pair.b.poll_event() else { panic!("a request") };
    assert_eq!((request.cma, request.private), (Some(header), vec![7; 56]));
}

#[test]
fn an_address_comes_before_all_addresses() {
    let mut pair = Pair::new();
    let service = params().service;
    let here = ListenParams { service, local: Some(address(2)), backlog: 1 };
    let elsewhere = ListenParams { service, local: Some(address(3)), backlog: 1 };
    let of_here = pair.b.listen(&here).expect("free");
    assert_eq!(pair.b.listen(&here), Err(CmError::InUse(service)));
    pair.b.listen(&elsewhere).expect("free");
    let ask = |pair: &mut Pair| {
        pair.a.connect(pair.now, &params()).expect("it may be asked");
        pair.deliver();
        match pair.b.poll_event() {
            Some(Event::Request { listener, conn, .. }) => {
                pair.b.release(pair.now, conn);
                pair.deliver();
                while pair.a.poll_event().is_some() {}
                Some(listener)
            }
            _ => None,
        }
    };
    assert_eq!(ask(&mut pair), Some(of_here));
    pair.b.unlisten(of_here).expect("it listens");
    assert_eq!(pair.b.unlisten(of_here), Err(CmError::Unknown));
    assert_eq!(ask(&mut pair), Some(pair.listener));
    pair.b.unlisten(pair.listener).expect("it listens");
    assert_eq!(ask(&mut pair), None, "a listener of another address does not answer");
}

#[test]
fn private_data_and_numbers_have_to_fit() {
    let mut pair = Pair::new();
    let mut too_long = params();
    too_long.private = vec![0; 93];
    let error = pair.a.connect(pair.now, &too_long).expect_err("93 of 92");
    assert!(matches!(error, CmError::PrivateData(long) if (long.len, long.max) == (93, 92)));
    too_long.cma = Some(CmaHeader { src_port: 1, src: address(1).ip(), dst: address(2).ip() });
    too_long.private = vec![0; 57];
    let error = pair.a.connect(pair.now, &too_long).expect_err("57 of 56");
    assert!(matches!(error, CmError::PrivateData(long) if (long.len, long.max) == (57, 56)));
    let mut wide = params();
    wide.retry_count = 8;
    let error = pair.a.connect(pair.now, &wide).expect_err("3 bits");
    assert_eq!(error, CmError::Range { field: "retry_count", value: 8, max: 7 });
    let mut datagram = params();
    datagram.transport = TransportService::RD;
    assert!(pair.a.connect(pair.now, &datagram).is_err());
    pair.quiet();

    let (a, b) = pair.replied();
    let long = [0; 225];
    assert!(matches!(pair.a.mra(pair.now, a, 1, &long[..223]), Err(CmError::PrivateData(_))));
    assert!(matches!(pair.a.ready(pair.now, a, &long), Err(CmError::PrivateData(_))));
    assert_eq!(pair.a.state(a), Some(ConnState::RepRcvd), "nothing has changed");
    pair.a.ready(pair.now, a, &long[..224]).expect("224 fit");
    assert!(matches!(pair.a.disconnect(pair.now, a, &long[..221]), Err(CmError::PrivateData(_))));
    pair.deliver();
    pair.b.disconnect(pair.now, b, &long[..220]).expect("220 fit");
    pair.deliver();
    assert!(matches!(pair.a.disconnect(pair.now, a, &long), Err(CmError::PrivateData(_))));
    pair.a.disconnect(pair.now, a, &long[..224]).expect("224 fit");
}

#[test]
fn commands_out_of_turn_are_refused() {
    let mut pair = Pair::new();
    let (a, b) = pair.asked();
    let state = |operation, state| Err(CmError::State { operation, state });
    assert_eq!(pair.a.ready(pair.now, a, &[]), state(Operation::Ready, ConnState::ReqSent));
    assert_eq!(pair.a.disconnect(pair.now, a, &[]), state(Operation::Disconnect, ConnState::ReqSent));
    assert_eq!(pair.b.ready(pair.now, b, &[]), state(Operation::Ready, ConnState::ReqRcvd));
    assert_eq!(
        pair.b.communication_established(pair.now, b),
        state(Operation::CommunicationEstablished, ConnState::ReqRcvd)
    );
    pair.b.reply(pair.now, b, &reply()).expect("it was asked");
    assert_eq!(pair.b.reply(pair.now, b, &reply()), state(Operation::Reply, ConnState::RepSent));
    assert_eq!(pair.b.ready(pair.now, a, &[]), Err(CmError::Unknown), "a connection of the other engine");
}

#[test]
fn there_is_a_limit() {
    let mut pair = Pair::with(|config| config.max_connections = 2);
    let a = pair.a.connect(pair.now, &params()).expect("one");
    pair.a.connect(pair.now, &params()).expect("two");
    assert_eq!(pair.a.connect(pair.now, &params()), Err(CmError::TooMany(2)));
    pair.a.release(pair.now, a);
    pair.a.connect(pair.now, &params()).expect("two again");
}
