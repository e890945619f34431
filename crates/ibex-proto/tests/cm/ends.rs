//! Disconnection from each side and both, release in every state, TIMEWAIT.

use ibex_proto::cm::{CmError, ConnState, Disconnect, Event, RejectParams};

use ibex_wire::Qpn;

use crate::util::*;

#[test]
fn both_disconnect_at_once() {
    let mut pair = Pair::new();
    let (a, b) = pair.established();
    pair.a.disconnect(pair.now, a, b"a").expect("it is established");
    pair.b.disconnect(pair.now, b, b"b").expect("it is established");
    pair.deliver();
    assert!(
        matches!(pair.a.poll_event(), Some(Event::Disconnected { how: Disconnect::Crossed(private), .. }) if private[0] == b'b')
    );
    assert!(
        matches!(pair.b.poll_event(), Some(Event::Disconnected { how: Disconnect::Crossed(private), .. }) if private[0] == b'a')
    );
    pair.quiet();
    assert_eq!(pair.states((a, b)), (Some(ConnState::Timewait), Some(ConnState::Timewait)));
    pair.idle();
}

#[test]
fn the_end_before_the_rtu() {
    let mut pair = Pair::new();
    let (a, b) = pair.replied();
    pair.a.ready(pair.now, a, &[]).expect("it was replied");
    pair.sent_a();
    pair.a.disconnect(pair.now, a, &[]).expect("it is established");
    pair.deliver();
    assert_eq!(pair.b.poll_event(), Some(Event::Established { conn: b, private: None }));
    assert!(matches!(pair.b.poll_event(), Some(Event::DisconnectRequested { .. })));
    pair.b.disconnect(pair.now, b, &[]).expect("the peer asks");
    pair.deliver();
    pair.idle();
}

#[test]
fn the_accepting_end_leaves_before_the_rtu() {
    let mut pair = Pair::new();
    let (a, b) = pair.replied();
    pair.b.disconnect(pair.now, b, &[]).expect("the reply is out");
    pair.deliver();
    assert!(matches!(pair.a.poll_event(), Some(Event::DisconnectRequested { conn, .. }) if conn == a));
    assert!(pair.a.ready(pair.now, a, &[]).is_err());
    pair.a.disconnect(pair.now, a, &[]).expect("the peer asks");
    pair.deliver();
    assert!(matches!(pair.b.poll_event(), Some(Event::Disconnected { how: Disconnect::Answered(_), .. })));
    pair.idle();
}

#[test]
fn a_reply_read_when_all_is_over() {
    let mut pair = Pair::new();
    let (a, b) = pair.asked();
    pair.b.reply(pair.now, b, &reply()).expect("it was asked");
    pair.deliver();
    pair.b.reject(pair.now, b, &RejectParams::consumer(b"sorry")).expect("the reply is out");
    pair.deliver();
    pair.wait_deaf(20_000 * MS);
    // The host reads its events only now.
    assert!(matches!(pair.a.poll_event(), Some(Event::Reply { conn, .. }) if conn == a));
    assert_eq!(pair.a.attributes(a), Err(CmError::Unknown));
    assert_eq!(pair.a.ready(pair.now, a, &[]), Err(CmError::Unknown));
    assert!(matches!(pair.a.poll_event(), Some(Event::Rejected { conn, .. }) if conn == a));
    assert_eq!(pair.a.poll_event(), Some(Event::TimewaitExit { conn: a }));
    pair.quiet();
    pair.idle();
}

#[test]
fn release_in_every_state() {
    let disconnecting: Step = |pair| {
        let (a, b) = pair.established();
        pair.a.disconnect(pair.now, a, &[]).expect("it is established");
        pair.deliver();
        pair.b.poll_event();
        (a, b)
    };
    let over: Step = |pair| {
        let (a, b) = pair.established();
        pair.a.disconnect(pair.now, a, &[]).expect("it is established");
        pair.deliver();
        pair.b.disconnect(pair.now, b, &[]).expect("the peer asks");
        pair.deliver();
        while pair.a.poll_event().is_some() || pair.b.poll_event().is_some() {}
        (a, b)
    };
    let steps: [Step; 5] = [Pair::asked, Pair::replied, Pair::established, disconnecting, over];
    for (step, prepare) in steps.iter().enumerate() {
        for first in ['a', 'b'] {
            let mut pair = Pair::new();
            let (a, b) = prepare(&mut pair);
            if first == 'a' {
                pair.a.release(pair.now, a);
                assert_eq!(pair.a.state(a), None);
                pair.a.release(pair.now, a);
            } else {
                pair.b.release(pair.now, b);
                assert_eq!(pair.b.state(b), None);
            }
            pair.deliver();
            let (here, there) =
                if first == 'a' { (&mut pair.a, &mut pair.b) } else { (&mut pair.b, &mut pair.a) };
            assert_eq!(here.poll_event(), None, "step {step}");
            let told = there.poll_event();
            let expected = match (step, first) {
                (0 | 1, _) => matches!(told, Some(Event::Rejected { .. })),
                (2, _) => matches!(told, Some(Event::DisconnectRequested { .. })),
                (3, 'b') => matches!(told, Some(Event::Disconnected { how: Disconnect::Answered(_), .. })),
                _ => told.is_none(),
            };
            assert!(expected, "step {step} {first}: {told:?}");
            pair.a.release(pair.now, a);
            pair.b.release(pair.now, b);
            pair.deliver();
            pair.quiet();
            pair.idle();
        }
    }
}

#[test]
fn who_leaves_at_once_is_heard_although_one_datagram_is_lost() {
    // Connected, and when the disconnection was asked for already and its first datagram lost.
    for asked in [false, true] {
        let mut pair = Pair::new();
        let (a, b) = pair.established();
        if asked {
            pair.a.disconnect(pair.now, a, &[]).expect("it is established");
            pair.sent_a();
        }
        pair.a.part(pair.now);
        assert_eq!(pair.a.state(a), None);
        let last = pair.sent_a();
        assert_eq!(last.len(), if asked { 1 } else { 2 }, "nobody is there to repeat it");
        pair.at_b(last.last().expect("a DREQ"));
        let told = pair.b.poll_event();
        assert!(matches!(told, Some(Event::DisconnectRequested { conn, .. }) if conn == b), "{told:?}");
    }
    // What has been answered is not said again, but the answer is.
    let mut pair = Pair::new();
    let (a, b) = pair.established();
    pair.a.disconnect(pair.now, a, &[]).expect("it is established");
    pair.deliver();
    pair.b.disconnect(pair.now, b, &[]).expect("the peer asks");
    pair.deliver();
    pair.a.part(pair.now);
    assert!(pair.sent_a().is_empty());
    pair.b.part(pair.now);
    assert_eq!(pair.sent_b().len(), 1);
}

#[test]
fn timewait_lasts_and_is_bounded() {
    let mut pair = Pair::with(|config| config.max_timewait = 2);
    // Those of `a` that are over for good.
    let exits = |pair: &mut Pair| {
        while pair.b.poll_event().is_some() {}
        let events = std::iter::from_fn(|| pair.a.poll_event());
        let exit = |event| if let Event::TimewaitExit { conn } = event { Some(conn) } else { None };
        events.filter_map(exit).collect::<Vec<_>>()
    };
    let mut ended = Vec::new();
    let mut gone = Vec::new();
    for _ in 0..3 {
        let (a, b) = pair.established();
        pair.a.disconnect(pair.now, a, &[]).expect("it is established");
        pair.deliver();
        pair.b.disconnect(pair.now, b, &[]).expect("the peer asks");
        pair.deliver();
        pair.now += MS;
        ended.push(a);
        gone.append(&mut exits(&mut pair));
    }
    assert_eq!(gone, ended[..1], "the oldest makes room");
    // 4.096 µs × 2^17: the path's lifetime and one more, as the timeout of acknowledgements.
    let at = pair.a.poll_timeout().expect("TIMEWAIT ends");
    assert_eq!(at, pair.now - 2 * MS + (4096 << 17));
    pair.now = at;
    pair.a.handle_timeout(at);
    assert_eq!(exits(&mut pair), ended[1..2]);
    pair.idle();
}

#[test]
fn the_same_queue_pair_may_connect_again_at_once() {
    let mut pair = Pair::new();
    let (a, b) = pair.established();
    pair.a.disconnect(pair.now, a, &[]).expect("it is established");
    pair.deliver();
    pair.b.poll_event();
    pair.b.disconnect(pair.now, b, &[]).expect("the peer asks");
    pair.deliver();
    while pair.a.poll_event().is_some() || pair.b.poll_event().is_some() {}
    let (again, _) = pair.established();
    assert_ne!(again, a);
}

#[test]
fn ten_thousand_connections_and_nothing_left() {
    let mut pair = Pair::new();
    let mut conns = Vec::new();
    for qpn in 1..=10_000 {
        let mut asked = params();
        asked.qpn = Qpn::new(qpn);
        let (a, b) = pair.asked_with(&asked);
        let mut accepted = reply();
        accepted.qpn = Qpn::new(qpn);
        pair.b.reply(pair.now, b, &accepted).expect("it was asked");
        pair.deliver();
        assert!(matches!(pair.a.poll_event(), Some(Event::Reply { .. })));
        pair.a.ready(pair.now, a, &[]).expect("it was replied");
        pair.deliver();
        assert!(matches!(pair.b.poll_event(), Some(Event::Established { .. })));
        conns.push((a, b));
    }
    assert_eq!(
        (pair.a.poll_timeout(), pair.b.poll_timeout()),
        (None, None),
        "idle connections cost no timer"
    );
    for (a, b) in conns {
        pair.a.release(pair.now, a);
        pair.deliver();
        pair.b.release(pair.now, b);
        pair.deliver();
    }
    pair.idle();
}
