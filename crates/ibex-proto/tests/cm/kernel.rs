//! Exchanges of the kernel's rdma_cm, captured on a wire (`ibex-wire/tests/golden/README.md`), with this engine in the
//! place of one end: what it says is what the kernel said there, but for numbers of its own.

use ibex_proto::cm::{
    Cm, ConnectParams, Disconnect, Event, ListenParams, Path, RejectParams, ReplyParams, SidrParams,
    SidrReplyParams,
};
use ibex_wire::Mtu;
use ibex_wire::mad::{
    CmaHeader, CommId, Gid, Guid, MAD_LEN, Mad, Message, PortSpace, RejectReason, Req, ReqPath, Route,
    ServiceId, SidrStatus,
};

use crate::util::*;

const CAPTURES: [&str; 2] = [
    include_str!("../../../ibex-wire/tests/golden/cm-6.1/frames.txt"),
    include_str!("../../../ibex-wire/tests/golden/cm-6.12/frames.txt"),
];

const TCP: ServiceId = ServiceId::ip(PortSpace::TCP, 30000);
const UDP: ServiceId = ServiceId::ip(PortSpace::UDP, 7174);

/// The datagrams of one exchange: the sender's and receiver's address, and the message.
fn exchange(capture: &str, name: &str) -> Vec<(Gid, Gid, Mad)> {
    let mut found = Vec::new();
    for line in capture.lines() {
        let (scenario, hex) = line.split_once(' ').expect("a name and a frame");
        if scenario.rsplit_once('-').expect("a number").0 != name {
            continue;
        }
        let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
        let frame: Vec<u8> = (0..hex.len()).step_by(2).map(digit).collect();
        // Ethernet, then IPv4 without options or IPv6 without extensions, UDP, BTH, DETH; the ICRC at the end.
        let v4 = |at: usize| {
            let octets: [u8; 4] = frame[at..at + 4].try_into().expect("4 bytes");
            Gid::from(std::net::IpAddr::from(octets))
        };
        let v6 = |at: usize| Gid(frame[at..at + 16].try_into().expect("16 bytes"));
        let (from, to) = if frame[12..14] == [8, 0] { (v4(26), v4(30)) } else { (v6(22), v6(38)) };
        let mad = &frame[frame.len() - 4 - MAD_LEN..frame.len() - 4];
        let parsed = Mad::parse(mad).expect("a message");
        assert_eq!(parsed.to_bytes(), mad, "{scenario}: written as it was read");
        found.push((from, to, parsed));
    }
    assert!(found.len() > 1, "{name} is not whole");
    found
}

/// Runs a check on an exchange of each kernel.
fn each(name: &str, check: impl Fn(Vec<(Gid, Gid, Mad)>)) {
    CAPTURES.into_iter().for_each(|capture| check(exchange(capture, name)));
}

fn request_of(mad: &Mad) -> Req {
    match mad.message {
        Message::Req(req) => req,
        other => panic!("a REQ: {other:?}"),
    }
}

fn header(req: &Req) -> CmaHeader {
    CmaHeader::parse(req.private.first_chunk().expect("36 of 92")).expect("the kernel's header")
}

/// An engine that listens to `service`.
fn listening(service: ServiceId) -> Cm {
    let mut cm = Cm::new(config(5, Guid(0x55)));
    cm.listen(&ListenParams { service, local: None, backlog: 1 }).expect("nobody else listens");
    cm
}

fn sent(cm: &mut Cm) -> Mad {
    let mad = cm.poll_transmit().expect("something is said").mad;
    assert_eq!(cm.poll_transmit(), None);
    Mad::parse(&mad).expect("a message")
}

fn connect_to_us(name: &str) {
    each(name, |exchange| {
        let [(client, server, req), (_, _, rep), (_, _, rtu), (_, _, dreq), (_, _, drep)] = exchange[..]
        else {
            panic!("five messages")
        };
        let mut cm = listening(TCP);
        let arrives =
            |cm: &mut Cm, mad: Mad| cm.handle_mad(MS, client, server, ibex_wire::Qpn::GSI, &mad.to_bytes());
        arrives(&mut cm, req);
        let Some(Event::Request { conn, request, .. }) = cm.poll_event() else { panic!("a request") };
        assert_eq!(request.cma.map(|cma| (cma.src, cma.dst)), Some((client.ip(), server.ip())));
        assert_eq!((request.path.local, request.path.remote), (server, client));
        assert_eq!((request.responder_resources, request.initiator_depth), (5, 3));
        assert_eq!((request.retry_count, request.rnr_retry_count), (6, 7));
        assert_eq!(request.private, (0x10..0x10 + 56).collect::<Vec<u8>>());

        let Message::Rep(theirs) = rep.message else { panic!("a REP") };
        let mut params = ReplyParams::new(theirs.local_qpn, theirs.starting_psn);
        params.responder_resources = theirs.responder_resources;
        params.initiator_depth = theirs.initiator_depth;
        params.target_ack_delay = theirs.target_ack_delay;
        params.rnr_retry_count = theirs.rnr_retry_count;
        params.private = theirs.private;
        cm.reply(MS, conn, &params).expect("it was asked");
        let mut expected = rep;
        if let Message::Rep(rep) = &mut expected.message {
            (rep.local_comm_id, rep.local_ca_guid) = (name_of(conn), Guid(0x55));
        }
        assert_eq!(sent(&mut cm), expected);
        let attributes = cm.attributes(conn).expect("replied");
        assert_eq!(
            (attributes.sq_psn, attributes.rq_psn),
            (request_of(&req).starting_psn, theirs.starting_psn)
        );

        // Their answers, to us instead of to the kernel.
        let Message::Rtu(mut ready) = rtu.message else { panic!("an RTU") };
        ready.remote_comm_id = name_of(conn);
        arrives(&mut cm, Mad { message: Message::Rtu(ready), ..rtu });
        assert!(matches!(cm.poll_event(), Some(Event::Established { private: Some(_), .. })));
        let Message::Dreq(mut end) = dreq.message else { panic!("a DREQ") };
        end.remote_comm_id = name_of(conn);
        arrives(&mut cm, Mad { message: Message::Dreq(end), ..dreq });
        assert!(matches!(cm.poll_event(), Some(Event::DisconnectRequested { .. })));
        cm.disconnect(MS, conn, &[]).expect("the peer asks");
        let mut expected = drep;
        if let Message::Drep(drep) = &mut expected.message {
            drep.local_comm_id = name_of(conn);
        }
        assert_eq!(sent(&mut cm), expected);
    });
}

fn name_of(conn: ibex_proto::cm::ConnId) -> CommId {
    conn.comm_id()
}

#[test]
fn the_kernel_connects_to_us() {
    connect_to_us("connect");
    connect_to_us("v6_connect");
}

fn connect_to_the_kernel(name: &str) {
    each(name, |exchange| {
        let [(client, server, req), (_, _, rep), (_, _, rtu), (_, _, dreq), (_, _, drep)] = exchange[..]
        else {
            panic!("five messages")
        };
        let mut cm = Cm::new(config(5, Guid(0x55)));
        let arrives =
            |cm: &mut Cm, mad: Mad| cm.handle_mad(MS, server, client, ibex_wire::Qpn::GSI, &mad.to_bytes());
        let theirs = request_of(&req);
        let mut path = Path::new(client, server, Mtu::from_code(theirs.mtu).expect("an MTU"));
        // Chosen by the kernel at random, by the interface's speed, and 18 in 6.1 where it is 16 in 6.12.
        (path.flow_label, path.rate) = (theirs.primary.flow_label, theirs.primary.rate);
        path.packet_life_time = theirs.primary.ack_timeout - 1;
        let mut params = ConnectParams::new(path, TCP, theirs.local_qpn, theirs.starting_psn);
        params.cma = Some(header(&theirs));
        params.private = (0x10..0x10 + 56).collect();
        (params.responder_resources, params.initiator_depth, params.retry_count) = (3, 5, 6);
        let conn = cm.connect(MS, &params).expect("it may be asked");
        let ours = sent(&mut cm);
        let mut expected = theirs;
        (expected.local_comm_id, expected.local_ca_guid) = (name_of(conn), Guid(0x55));
        assert_eq!(request_of(&ours), expected);
        assert_eq!(theirs.alternate, ReqPath::default());
        assert_eq!(Route::of(&ours.to_bytes()), Ok(Route::Service(TCP)));

        let Message::Rep(mut accepted) = rep.message else { panic!("a REP") };
        accepted.remote_comm_id = name_of(conn);
        let rep = Mad { transaction: ours.transaction, message: Message::Rep(accepted) };
        assert_eq!(Route::of(&rep.to_bytes()), Ok(Route::Connection(name_of(conn))));
        arrives(&mut cm, rep);
        let Some(Event::Reply { reply, .. }) = cm.poll_event() else { panic!("a reply") };
        assert_eq!(
            reply.private[..],
            (0x40..0x40 + 196).map(|byte: u32| byte as u8).collect::<Vec<u8>>()[..]
        );
        cm.ready(MS, conn, &[]).expect("it was replied");
        let mut ready = rtu;
        ready.transaction = ours.transaction;
        if let Message::Rtu(rtu) = &mut ready.message {
            rtu.local_comm_id = name_of(conn);
        }
        assert_eq!(sent(&mut cm), ready);
        cm.disconnect(MS, conn, &[]).expect("it is established");
        let mut end = dreq;
        end.transaction = ours.transaction;
        if let Message::Dreq(dreq) = &mut end.message {
            dreq.local_comm_id = name_of(conn);
        }
        assert_eq!(sent(&mut cm), end);
        let Message::Drep(mut agreed) = drep.message else { panic!("a DREP") };
        agreed.remote_comm_id = name_of(conn);
        arrives(&mut cm, Mad { message: Message::Drep(agreed), ..drep });
        assert!(matches!(cm.poll_event(), Some(Event::Disconnected { how: Disconnect::Answered(_), .. })));
    });
}

#[test]
fn we_connect_to_the_kernel() {
    connect_to_the_kernel("connect");
    connect_to_the_kernel("v6_connect");
}

#[test]
fn refusals_of_the_kernel() {
    for (name, expected) in
        [("reject", RejectReason::CONSUMER_DEFINED), ("no_listener", RejectReason::INVALID_SERVICE_ID)]
    {
        each(name, |exchange| {
            let [(client, server, req), (_, _, rej)] = exchange[..] else { panic!("two messages") };
            // We are refused.
            let mut pair = Cm::new(config(5, Guid(0x55)));
            let params = ConnectParams::new(
                Path::new(client, server, Mtu::Mtu1024),
                TCP,
                ibex_wire::Qpn::new(1),
                ibex_wire::Psn::new(1),
            );
            let conn = pair.connect(MS, &params).expect("it may be asked");
            let Message::Rej(theirs) = rej.message else { panic!("a REJ") };
            let mut to_us = theirs;
            to_us.remote_comm_id = name_of(conn);
            let mad = Mad { message: Message::Rej(to_us), ..rej }.to_bytes();
            pair.handle_mad(MS, server, client, ibex_wire::Qpn::GSI, &mad);
            let Some(Event::Rejected { reason, private, .. }) = pair.poll_event() else {
                panic!("a refusal")
            };
            assert_eq!((reason, private), (expected, theirs.private));
            // We refuse.
            let mut cm = Cm::new(config(5, Guid(0x55)));
            if name == "reject" {
                cm = listening(TCP);
            }
            cm.handle_mad(MS, client, server, ibex_wire::Qpn::GSI, &req.to_bytes());
            let mut said = rej;
            if let Some(Event::Request { conn, .. }) = cm.poll_event() {
                // The kernel is in the state in which it has asked for time, though it never said so.
                if let Message::Rej(rej) = &mut said.message {
                    rej.local_comm_id = CommId::NONE;
                }
                cm.reject(MS, conn, &RejectParams::consumer(&theirs.private[..20])).expect("it was asked");
            }
            assert_eq!(sent(&mut cm), said);
        });
    }
}

#[test]
fn resolutions_of_the_kernel() {
    for (name, found) in [("sidr", true), ("v6_sidr", true), ("sidr_no_listener", false)] {
        each(name, |exchange| {
            let [(client, server, req), (_, _, rep)] = exchange[..] else { panic!("two messages") };
            let (Message::SidrReq(question), Message::SidrRep(answer)) = (req.message, rep.message) else {
                panic!("a question and an answer")
            };
            // It asks us.
            let mut cm = if found { listening(UDP) } else { Cm::new(config(5, Guid(0x55))) };
            cm.handle_mad(MS, client, server, ibex_wire::Qpn::GSI, &req.to_bytes());
            if let Some(Event::SidrRequest { sidr, request, .. }) = cm.poll_event() {
                assert_eq!(request.cma.map(|cma| (cma.src, cma.dst)), Some((client.ip(), server.ip())));
                let params = SidrReplyParams {
                    status: SidrStatus::SUCCESS,
                    qpn: answer.qpn,
                    qkey: answer.qkey,
                    private: Vec::new(),
                };
                cm.sidr_reply(MS, sidr, &params).expect("it was asked");
            }
            assert_eq!(sent(&mut cm), rep);
            // We ask it.
            let mut params = SidrParams::new(Path::new(client, server, Mtu::Mtu1024), UDP);
            params.cma = CmaHeader::parse(question.private.first_chunk().expect("36 of 216")).ok();
            let sidr = cm.sidr_request(MS, &params).expect("it may be asked");
            let Message::SidrReq(ours) = sent(&mut cm).message else { panic!("a question") };
            let mut expected = question;
            expected.request_id = ours.request_id;
            assert_eq!(ours, expected);
            let mut to_us = answer;
            to_us.request_id = ours.request_id;
            let mad = Mad { message: Message::SidrRep(to_us), ..rep }.to_bytes();
            cm.handle_mad(MS, server, client, ibex_wire::Qpn::GSI, &mad);
            let Some(Event::SidrReply { sidr: of, reply }) = cm.poll_event() else { panic!("an answer") };
            assert_eq!((of, reply.status == SidrStatus::SUCCESS), (sidr, found));
        });
    }
}
