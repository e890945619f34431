//! The express way of a short message: its packets are those of the usual way, and when it is not its turn nothing
//! happens. Sending, loss and time are here; what is taken in is in `express/taken.rs`, both ways side by side in
//! `express/twins.rs`.

mod taken;
mod twins;

use ibex_proto::sim::{EndConfig, World};
use ibex_proto::{
    Ack, Clock, Completion, Host as _, Nanos, QpState, RecvCompletion, RemoteAccess, SendOp, SendWqe, Tuning,
    WcOpcode, WcStatus,
};
use ibex_wire::{Bth, Header as _, MAX_PACKET, Opcode, Packet, Rkey, padding};

use crate::util::*;

const SEND: SendWqe = SendWqe {
    cookie: 0,
    op: SendOp::Send { imm: None, inv: None },
    len: 10,
    signaled: true,
    fence: false,
    solicited: true,
};

const TIMEOUT: Nanos = 50_000_000;

fn config() -> EndConfig {
    let tuning = Tuning { max_window: 4, sparse_acks: 8, ..Tuning::default() };
    EndConfig { tuning, sq_depth: 8, timeout: Some(TIMEOUT), ..EndConfig::default() }
}

/// With a window wide enough that messages go without asking for an acknowledgement.
fn roomy() -> EndConfig {
    EndConfig { tuning: Tuning { max_window: 64, ..config().tuning }, sq_depth: 64, ..config() }
}

/// A clock whose timers are looked at from time to time.
#[derive(Clone, Copy)]
struct Watch {
    now: Nanos,
    look: Nanos,
}

impl Clock for Watch {
    fn now(&self) -> Nanos {
        self.now
    }

    fn next_look(&self) -> Option<Nanos> {
        Some(self.look)
    }
}

/// A clock that nobody has a reason to read.
struct Unread;

impl Clock for Unread {
    fn now(&self) -> Nanos {
        panic!("the time does not matter")
    }

    fn next_look(&self) -> Option<Nanos> {
        Some(Nanos::MAX)
    }
}

/// An acknowledgement as a packet.
fn ack_packet(ack: &Ack, header: &Bth) -> Vec<u8> {
    let mut bytes = vec![0; 16];
    let rest = header.put(&mut bytes).expect("room");
    ack.aeth.put(rest).expect("room");
    bytes
}

/// Takes in a packet that is an acknowledgement of everything; false, and nothing has happened, if it is anything else.
fn acknowledged(world: &mut World, end: usize, packet: &Packet<'_>, clock: &impl Clock) -> bool {
    let end = &mut world.ends[end];
    let (Some(rc), Some(aeth), Opcode::RC_ACK) = (end.qp.as_rc_mut(), packet.aeth(), packet.opcode()) else {
        return false;
    };
    let expected = rc.expects_ack(packet.bth().pkey, &Ack { psn: packet.bth().psn, aeth });
    if expected {
        rc.express_acknowledged(clock, |done| end.completions.push(Completion::Send(done)));
        assert!(rc.poll_completion().is_none() && rc.poll_event().is_none() && !rc.wants_request());
    }
    expected
}

/// What travels in an express record: a packet, and what is beside it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Record {
    packet: Vec<u8>,
    ack: Option<Ack>,
}

impl Record {
    /// The packets that say the same, in their order.
    fn unpack(&self) -> Vec<Vec<u8>> {
        let ack = self.ack.map(|ack| {
            let beside = *Packet::parse(&self.packet).expect("sound").bth();
            let header = Bth { pkey: beside.pkey, ..Bth::new(Opcode::RC_ACK, beside.dest_qpn, ack.psn) };
            ack_packet(&ack, &header)
        });
        ack.into_iter().chain([self.packet.clone()]).collect()
    }
}

/// Posts with this cookie, and sends, on the express way, if that is open.
fn express_as(
    world: &mut World,
    from: usize,
    wqe: SendWqe,
    payload: &[u8],
    clock: &impl Clock,
) -> Option<Record> {
    let end = &mut world.ends[from];
    let rc = end.qp.as_rc_mut()?;
    if !rc.may_express(&wqe) {
        return None;
    }
    let (bth, ack) = rc.express_header(&wqe).expect("it may");
    rc.express_sent(wqe, bth.ack_req, ack.is_some(), clock);
    let mut packet = vec![0; Bth::LEN];
    bth.put(&mut packet).expect("room");
    packet.extend(payload);
    packet.resize(packet.len() + padding(payload.len()), 0);
    end.host.sends.insert(wqe.cookie, payload.to_vec());
    Some(Record { packet, ack })
}

/// Posts on A's express way at time 0.
fn express(world: &mut World, cookie: u64, wqe: SendWqe) -> Option<Record> {
    express_as(world, A, SendWqe { cookie, ..wqe }, &pattern(wqe.len as usize), &0)
}

/// Whether `end` expects what has come. Asking changes nothing.
fn expects(world: &World, end: usize, record: &Record) -> bool {
    let packet = Packet::parse(&record.packet).expect("sound");
    let rc = world.ends[end].qp.as_rc().expect("RC");
    rc.expects_express(packet.bth(), packet.payload().len(), record.ack.as_ref())
}

/// Hands `end` what has come: on the express way if it is expected and there is room for it, as packets if not. Whether it
/// went that way.
fn deliver(world: &mut World, end: usize, record: &Record, clock: &impl Clock) -> bool {
    deliver_leaving(world, end, record, clock, None)
}

/// The same; the acknowledgement that it asks for is put into `left` as a packet, if there is room in it.
fn deliver_leaving(
    world: &mut World,
    end: usize,
    record: &Record,
    clock: &impl Clock,
    left: Option<&mut Option<Vec<u8>>>,
) -> bool {
    let expected = expects(world, end, record);
    let end = &mut world.ends[end];
    let packet = Packet::parse(&record.packet).expect("sound");
    let payload = packet.payload();
    let room = end.host.recv_queue.front().is_some_and(|(_, buffer)| buffer.len() >= payload.len());
    if !expected || !room {
        for bytes in record.unpack() {
            let packet = Packet::parse(&bytes).expect("sound");
            end.qp.handle_packet(clock.now(), &packet, &mut end.host);
        }
        return false;
    }
    let recv = end.host.take_recv().expect("one is there");
    if !payload.is_empty() {
        end.host.place(recv.cookie, 0, payload, true).expect("there is room");
    }
    let rc = end.qp.as_rc_mut().expect("RC");
    let done = |done| end.completions.push(Completion::Send(done));
    let asks = rc.express_receive(packet.bth(), record.ack.as_ref(), clock, done);
    let left = left.filter(|left| asks && left.is_none());
    let owes = asks && left.is_none();
    if let Some(left) = left {
        let (to, ack) = rc.give_ack().expect("it was asked for");
        *left = Some(ack_packet(&ack, &Bth::new(Opcode::RC_ACK, to, ack.psn)));
    } else if owes {
        rc.owe_ack();
    }
    end.completions.push(Completion::Recv(RecvCompletion {
        cookie: recv.cookie,
        status: WcStatus::SUCCESS,
        opcode: WcOpcode::RECV,
        byte_len: payload.len() as u32,
        imm: None,
        invalidated: None,
        grh: false,
        solicited: packet.bth().solicited,
        src_qpn: rc.remote_qpn().expect("connected"),
    }));
    assert_eq!(rc.owes_only_ack(), owes);
    assert!(rc.wants_transmit() == owes && rc.poll_completion().is_none() && rc.poll_event().is_none());
    true
}

/// Posts the usual way; the packet that is sent.
fn usual(world: &mut World, wqe: SendWqe) -> Vec<u8> {
    world.try_post(A, wqe, pattern(wqe.len as usize)).expect("room");
    let mut buf = [0xaa; MAX_PACKET];
    let end = &mut world.ends[A];
    let sent = end.qp.poll_transmit(0, &mut end.host, &mut buf).expect("a packet");
    buf[..sent.len].to_vec()
}

/// A has measured a round trip, from which on there are probes.
fn acquainted(config: EndConfig) -> World {
    let mut world = pair(config);
    world.recv(B, 16);
    world.send(A, &pattern(4));
    world.run(SOON);
    world
}

#[test]
fn the_packets_are_those_of_the_usual_way() {
    for (signaled, config) in [(true, config()), (false, config()), (true, roomy()), (false, roomy())] {
        for len in [0, 1, 10, 64, 255, 256] {
            let wqe = SendWqe { len, signaled, ..SEND };
            let (mut one, mut other) = (acquainted(config), acquainted(config));
            for round in 2..4 {
                let record = express(&mut one, round, wqe).expect("nothing is in its way");
                assert_eq!(record, Record { packet: usual(&mut other, wqe), ack: None }, "{len} {round}");
            }
            assert_eq!(one.ends[A].qp.sq_psn(), other.ends[A].qp.sq_psn());
            assert_eq!(one.ends[A].qp.poll_timeout(), other.ends[A].qp.poll_timeout());
            assert_eq!(one.ends[A].qp.counters(), other.ends[A].qp.counters());
        }
    }
}

#[test]
fn one_that_is_lost_comes_again() {
    let mut world = acquainted(config());
    let recv = world.recv(B, 16);
    // It goes nowhere.
    express(&mut world, 77, SEND).expect("nothing is in its way");
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS; 2]);
    assert_eq!(world.ends[B].recv_statuses(), [WcStatus::SUCCESS; 2]);
    assert_eq!(world.ends[B].host.recv_taken[&recv][..10], pattern(10));
}

/// Each record of three in turn, and each two of them.
#[test]
fn whichever_is_lost_each_completes_once_and_in_order() {
    for lost in 1..8 {
        for signaled in [true, false] {
            let mut world = acquainted(config());
            let recvs: Vec<_> = (0..3).map(|_| world.recv(B, 16)).collect();
            for number in 0..3 {
                let wqe = SendWqe { signaled, len: number + 1, ..SEND };
                let record = express(&mut world, 70 + u64::from(number), wqe).expect("room in the window");
                if lost & 1 << number == 0 {
                    assert_eq!(deliver(&mut world, B, &record, &0), lost % (1 << number) == 0);
                    world.drain();
                }
            }
            world.run(SOON);
            let cookies: Vec<_> = world.ends[A].sends().iter().map(|done| done.cookie).collect();
            assert_eq!(cookies, [1, 70, 71, 72], "lost: {lost:03b}");
            assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS; 4]);
            let received: Vec<_> =
                world.ends[B].recvs()[1..].iter().map(|done| (done.cookie, done.byte_len)).collect();
            assert_eq!(received, [(recvs[0], 1), (recvs[1], 2), (recvs[2], 3)], "lost: {lost:03b}");
            assert!(world.ends[A].qp.is_idle());
        }
    }
}

/// The acknowledgement that was beside a lost message is lost with it.
#[test]
fn what_was_beside_a_lost_message_is_told_again() {
    let mut world = acquainted(config());
    world.recv(A, 16);
    world.recv(B, 16);
    let record = express_as(&mut world, B, SendWqe { cookie: 5, ..SEND }, &pattern(10), &0).expect("free");
    assert!(deliver(&mut world, A, &record, &0));
    let answer = express(&mut world, 6, SEND).expect("free");
    assert!(answer.ack.is_some());
    world.run(SOON);
    for end in [A, B] {
        let sends = world.ends[end].sends();
        assert_eq!(sends.last().map(|done| done.cookie), Some([6, 5][end]));
        assert!(sends.iter().all(|done| done.status == WcStatus::SUCCESS));
    }
    assert_eq!([world.ends[A].sends().len(), world.ends[B].sends().len()], [2, 1]);
    assert_eq!([world.ends[A].recvs().len(), world.ends[B].recvs().len()], [1, 2]);
}

#[test]
fn who_is_not_next_is_not_posted() {
    let refused = |world: &mut World, wqe: SendWqe| {
        let before = world.ends[A].qp.sq_psn();
        let refused = express(world, 99, wqe).is_none();
        refused && world.ends[A].qp.sq_psn() == before
    };
    let mut world = pair(config());
    for (what, wqe) in [
        ("more than a packet", SendWqe { len: 257, ..SEND }),
        ("immediate data", SendWqe { op: SendOp::Send { imm: Some([1; 4]), inv: None }, ..SEND }),
        ("an invalidation", SendWqe { op: SendOp::Send { imm: None, inv: Some(KEY) }, ..SEND }),
        ("another operation", SendWqe { op: write(0), ..SEND }),
    ] {
        assert!(refused(&mut world, wqe), "{what}");
    }
    world.try_post(A, SEND, pattern(10)).expect("room");
    assert!(refused(&mut world, SEND), "another is to be sent first");

    let mut world = pair(config());
    for cookie in 0..3 {
        assert!(express(&mut world, cookie, SEND).is_some());
    }
    assert!(refused(&mut world, SEND), "the last of a window has to ask");

    let mut world = pair(EndConfig { sq_depth: 1, ..config() });
    assert!(express(&mut world, 0, SEND).is_some());
    assert!(refused(&mut world, SEND), "the queue is full");

    let mut world = pair(EndConfig { sq_depth: 1, ..config() });
    world.recv(B, 16);
    let record = express(&mut world, 0, SEND).expect("free");
    assert!(deliver(&mut world, B, &record, &0));
    let mut buf = [0; MAX_PACKET];
    let end = &mut world.ends[B];
    let sent = end.qp.poll_transmit(0, &mut end.host, &mut buf).expect("owed");
    let end = &mut world.ends[A];
    end.qp.handle_packet(0, &Packet::parse(&buf[..sent.len]).expect("sound"), &mut end.host);
    assert!(refused(&mut world, SEND), "a completion that is not fetched keeps its place");
    world.drain();
    assert!(!refused(&mut world, SEND));

    let mut world = pair(config());
    world.ends[A].qp.to_sqd(true).expect("from RTS");
    assert!(refused(&mut world, SEND), "SQD begins nothing");
    world.ends[A].qp.set_error();
    assert!(refused(&mut world, SEND), "ERR flushes");

    let mut world = pair(config());
    world.post(A, read(0), vec![0; 8]);
    world.drain();
    assert!(refused(&mut world, SendWqe { fence: true, ..SEND }), "a fence waits for the READ");
    assert!(!refused(&mut world, SEND));
}

#[test]
fn more_than_an_acknowledgement_goes_first() {
    let mut world = pair(config());
    world.post(B, read(0), vec![0; 8]);
    let mut buf = [0; MAX_PACKET];
    let end = &mut world.ends[B];
    let sent = end.qp.poll_transmit(0, &mut end.host, &mut buf).expect("the READ");
    let end = &mut world.ends[A];
    end.qp.handle_packet(0, &Packet::parse(&buf[..sent.len]).expect("sound"), &mut end.host);
    assert_eq!(express(&mut world, 5, SEND), None, "data is owed");
    world.drain();
    assert!(express(&mut world, 5, SEND).is_some());
}

#[test]
fn an_acknowledgement_that_is_owed_travels_beside() {
    let mut world = pair(config());
    world.recv(A, 16);
    world.send(B, &pattern(4));
    let log = log(&mut world);
    // Until the message has come: what A owes then has not been sent.
    let mut buf = [0; MAX_PACKET];
    let end = &mut world.ends[B];
    let sent = end.qp.poll_transmit(0, &mut end.host, &mut buf).expect("the message");
    let end = &mut world.ends[A];
    end.qp.handle_packet(0, &Packet::parse(&buf[..sent.len]).expect("sound"), &mut end.host);
    assert!(end.qp.owes_only_ack());
    // As it would have been sent, had it been asked for.
    let mut other = pair(config());
    other.recv(A, 16);
    let end = &mut other.ends[A];
    end.qp.handle_packet(0, &Packet::parse(&buf[..sent.len]).expect("sound"), &mut end.host);
    let sent = end.qp.poll_transmit(0, &mut end.host, &mut buf).expect("owed");

    let before = world.ends[A].qp.counters().sent;
    let record = express(&mut world, 5, SEND).expect("nothing else is owed");
    assert_eq!(record.unpack()[0], buf[..sent.len]);
    let end = &mut world.ends[A];
    assert_eq!(end.qp.counters().sent, before + 2);
    assert!(!end.qp.wants_transmit() && !end.qp.owes_only_ack());
    assert_eq!(express(&mut world, 6, SEND).expect("free").ack, None, "once");
    assert!(log.all().is_empty());
}

/// At which time the first message comes again, and how often by then timers have been looked at in vain.
fn comes_again(world: &mut World, until: Nanos) -> Option<Nanos> {
    let mut buf = [0; MAX_PACKET];
    while let Some(due) = world.ends[A].qp.poll_timeout().filter(|due| *due <= until) {
        world.now = due.max(world.now);
        let end = &mut world.ends[A];
        end.qp.handle_timeout(world.now);
        if end.qp.poll_transmit(world.now, &mut end.host, &mut buf).is_some() {
            return Some(world.now);
        }
    }
    None
}

#[test]
fn the_timer_may_begin_at_the_next_look() {
    // With looks that come in time, late and very late.
    for late in [0, 1, 1_000_000, 3 * TIMEOUT] {
        let mut world = pair(config());
        let look = 7_000_000;
        express_as(&mut world, A, SEND, &pattern(10), &Watch { now: 1_000, look }).expect("free");
        let end = &mut world.ends[A];
        assert_eq!(end.qp.poll_timeout(), Some(look));
        // A call that comes early does not begin it.
        end.qp.handle_timeout(look - 1);
        assert_eq!(end.qp.poll_timeout(), Some(look));
        assert!(!end.qp.wants_transmit());
        end.qp.handle_timeout(look + late);
        assert!(!end.qp.wants_transmit(), "nothing is late that has only begun to be timed");
        assert_eq!(end.qp.poll_timeout(), Some(look + late + TIMEOUT));
        world.now = look + late;
        assert_eq!(comes_again(&mut world, SECOND), Some(look + late + TIMEOUT));
        assert_eq!(world.ends[A].qp.counters().timeouts, 1);
    }
}

/// As one whose timer ran from the beginning: further messages do not put it off.
#[test]
fn further_messages_do_not_put_the_timer_off() {
    let mut world = pair(config());
    express(&mut world, 0, SEND).expect("free");
    assert_eq!(world.ends[A].qp.poll_timeout(), Some(TIMEOUT));
    express_as(&mut world, A, SEND, &pattern(10), &Watch { now: 5, look: 9 }).expect("free");
    assert_eq!(world.ends[A].qp.poll_timeout(), Some(TIMEOUT), "it runs");

    let mut world = pair(config());
    for look in [100, 200] {
        express_as(&mut world, A, SEND, &pattern(10), &Watch { now: 5, look }).expect("free");
        assert_eq!(world.ends[A].qp.poll_timeout(), Some(100), "the first look");
    }
    usual(&mut world, SEND);
    assert_eq!(world.ends[A].qp.poll_timeout(), Some(100), "after the usual way, too");
}

#[test]
fn without_a_retry_it_ends_after_a_whole_timeout() {
    let mut world = pair(EndConfig { retry: Some(0), ..config() });
    let look = 7_000_000;
    express_as(&mut world, A, SEND, &pattern(10), &Watch { now: 1_000, look }).expect("free");
    for now in [0, look - 1, look, look + 1, look + TIMEOUT - 1] {
        world.ends[A].qp.handle_timeout(now);
        world.drain();
        assert!(world.ends[A].completions.is_empty(), "at {now}");
    }
    world.ends[A].qp.handle_timeout(look + TIMEOUT);
    world.drain();
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::RETRY_EXC_ERR]);
    assert_eq!(world.ends[A].qp.state(), QpState::Err);
}

#[test]
fn as_many_retries_as_agreed() {
    for retry in 0..3 {
        let mut world = pair(EndConfig { retry: Some(retry), ..config() });
        world.tap(|_| ibex_proto::sim::Fate::Drop);
        express_as(&mut world, A, SEND, &pattern(10), &Watch { now: 0, look: 1_000 }).expect("free");
        world.run(SOON);
        assert_eq!(world.ends[A].send_statuses(), [WcStatus::RETRY_EXC_ERR]);
        assert_eq!(world.ends[A].qp.counters().timeouts, u64::from(retry) + 1);
    }
}

#[test]
fn progress_before_the_look_calls_it_off() {
    let look = 7_000_000;
    for beside in [false, true] {
        let mut world = pair(config());
        world.recv(A, 16);
        world.recv(B, 16);
        let watch = Watch { now: 1_000, look };
        let record = express_as(&mut world, A, SEND, &pattern(10), &watch).expect("free");
        assert!(deliver(&mut world, B, &record, &2_000));
        if beside {
            let wqe = SendWqe { signaled: false, ..SEND };
            let answer = express_as(&mut world, B, wqe, &pattern(10), &2_000).expect("free");
            assert!(deliver(&mut world, A, &answer, &3_000));
        } else {
            let mut buf = [0; MAX_PACKET];
            let end = &mut world.ends[B];
            let sent = end.qp.poll_transmit(2_000, &mut end.host, &mut buf).expect("owed");
            let end = &mut world.ends[A];
            end.qp.handle_packet(3_000, &Packet::parse(&buf[..sent.len]).expect("sound"), &mut end.host);
        }
        let end = &mut world.ends[A];
        assert_eq!(end.qp.poll_timeout(), None);
        end.qp.handle_timeout(look);
        assert_eq!((end.qp.poll_timeout(), end.qp.wants_request()), (None, false));
        // The next is timed from its own look on.
        let watch = Watch { now: look, look: 2 * look };
        express_as(&mut world, A, SEND, &pattern(10), &watch).expect("free");
        assert_eq!(world.ends[A].qp.poll_timeout(), Some(2 * look));
    }
}

/// Of two messages the first is acknowledged: the other is timed from then on.
#[test]
fn progress_of_a_part_begins_it() {
    let mut world = pair(config());
    world.recv(B, 16);
    let watch = Watch { now: 0, look: 7_000_000 };
    let first = express_as(&mut world, A, SEND, &pattern(10), &watch).expect("free");
    express_as(&mut world, A, SendWqe { cookie: 1, ..SEND }, &pattern(10), &watch).expect("free");
    assert!(deliver(&mut world, B, &first, &0));
    let mut buf = [0; MAX_PACKET];
    let end = &mut world.ends[B];
    let sent = end.qp.poll_transmit(0, &mut end.host, &mut buf).expect("owed");
    let end = &mut world.ends[A];
    end.qp.handle_packet(3_000, &Packet::parse(&buf[..sent.len]).expect("sound"), &mut end.host);
    world.drain();
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS]);
    let probe = 3_000 + Tuning::default().probe;
    assert_eq!(comes_again(&mut world, SECOND), Some(probe), "now that a round trip is known");
}

/// With the timer not begun: a probe when somebody begins to wait, the next after the look.
#[test]
fn who_hurries_does_not_wait_for_the_look() {
    for local in [false, true] {
        let mut world = acquainted(roomy());
        world.recv(B, 16);
        let now = world.now;
        let (wqe, look) = (SendWqe { cookie: 50, signaled: false, ..SEND }, now + SECOND);
        let record = express_as(&mut world, A, wqe, &pattern(10), &Watch { now, look }).expect("free");
        assert!(!Packet::parse(&record.packet).expect("sound").bth().ack_req);
        assert!(deliver(&mut world, B, &record, &now));
        assert_eq!(world.ends[A].qp.poll_timeout(), Some(look));
        if local {
            let rkey = Rkey(0x70);
            world.ends[A].host.expose(rkey, 0, 64, RemoteAccess::ALL);
            world.post(A, SendOp::LocalInv { rkey }, Vec::new());
        } else {
            world.ends[A].qp.to_sqd(true).expect("from RTS");
        }
        world.run(SOON);
        assert!(world.now - now < 1_000_000, "{} ns, local: {local}", world.now - now);
        assert_eq!(world.ends[A].qp.counters().probes, 1);
        assert_eq!(world.ends[A].sends().len(), 2 + usize::from(local));
        assert_eq!(world.ends[B].recvs().len(), 2, "each once");
        assert!(world.ends[A].qp.is_idle());
    }
}

/// A lost message without a completion is asked for after its look, not only after the timeout.
#[test]
fn the_look_begins_the_wait_for_a_probe_too() {
    let mut world = acquainted(roomy());
    world.recv(B, 16);
    let (now, look) = (world.now, world.now + 2_000_000);
    let wqe = SendWqe { cookie: 50, signaled: false, ..SEND };
    express_as(&mut world, A, wqe, &pattern(10), &Watch { now, look }).expect("free");
    assert_eq!(comes_again(&mut world, SECOND), Some(look + Tuning::default().probe));
}

/// In a conversation the time is asked for once in a while, and not for each message.
#[test]
fn a_conversation_rarely_asks_for_the_time() {
    let mut world = acquainted(roomy());
    let clock = Watch { now: world.now, look: Nanos::MAX };
    for round in 0..60 {
        world.recv(A, 16);
        world.recv(B, 16);
        let wqe = SendWqe { cookie: 100 + round, ..SEND };
        let record = express_as(&mut world, A, wqe, &pattern(10), &Unread).expect("free");
        assert!(deliver(&mut world, B, &record, &clock));
        let wqe = SendWqe { signaled: false, ..wqe };
        let answer = express_as(&mut world, B, wqe, &pattern(10), &clock).expect("free");
        assert!(answer.ack.is_some());
        assert!(deliver(&mut world, A, &answer, &Unread));
    }
    assert_eq!(world.ends[A].sends().len(), 61);
    assert_eq!([world.ends[A].recvs().len(), world.ends[B].recvs().len()], [60, 61]);
}

/// After silence little may be in flight, and more with each acknowledgement, also of those that come beside messages.
#[test]
fn the_window_grows_with_what_is_acknowledged_beside() {
    let mut world = pair(roomy());
    world.recv(B, 16);
    express(&mut world, 0, SEND).expect("free");
    // It was lost, and nothing is known of round trips.
    world.run(SOON);
    assert_eq!(world.ends[A].qp.counters().timeouts, 1);
    let now = world.now;
    for cookie in 1..11 {
        world.recv(A, 16);
        world.recv(B, 16);
        let record = express_as(&mut world, A, SendWqe { cookie, ..SEND }, &pattern(10), &now).expect("free");
        assert!(deliver(&mut world, B, &record, &now));
        let wqe = SendWqe { cookie, signaled: false, ..SEND };
        let answer = express_as(&mut world, B, wqe, &pattern(10), &now).expect("free");
        assert!(deliver(&mut world, A, &answer, &now));
    }
    let sent = (20..80).take_while(|cookie| {
        let wqe = SendWqe { cookie: *cookie, ..SEND };
        express_as(&mut world, A, wqe, &pattern(10), &now).is_some()
    });
    // Four, one for the message that was lost, ten; the last of a window goes the usual way.
    assert_eq!(sent.count(), 4 + 1 + 10 - 1);
}
