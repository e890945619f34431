//! States: what each command and each message does in each. The tables are the documentation of
//! [`ConnState`](ibex_proto::cm::ConnState).

use ibex_proto::cm::{Cm, ConnId, ConnState, Event, RejectParams};
use ibex_wire::Qpn;
use ibex_wire::mad::{MAD_LEN, Message, Which};

use crate::util::*;

const STATES: [ConnState; 10] = [
    ConnState::ReqSent,
    ConnState::ReqRcvd,
    ConnState::MraReqSent,
    ConnState::RepSent,
    ConnState::RepRcvd,
    ConnState::MraRepSent,
    ConnState::Established,
    ConnState::DreqSent,
    ConnState::DreqRcvd,
    ConnState::Timewait,
];

/// A connection in a state, and what its peer may say to it.
struct Subject {
    pair: Pair,
    /// Whether the end looked at is the one that asked.
    asks: bool,
    conn: ConnId,
    messages: Vec<(String, [u8; MAD_LEN])>,
}

impl Subject {
    fn new(state: ConnState) -> Subject {
        let mut pair = Pair::new();
        let a = pair.a.connect(pair.now, &params()).expect("it may be asked");
        let req = only(&pair.sent_a());
        pair.at_b(&req);
        let Some(Event::Request { conn: b, .. }) = pair.b.poll_event() else { panic!("a request") };
        let now = pair.now;
        let asks = matches!(
            state,
            ConnState::ReqSent
                | ConnState::RepRcvd
                | ConnState::MraRepSent
                | ConnState::Established
                | ConnState::DreqSent
        );
        if !matches!(state, ConnState::ReqSent | ConnState::ReqRcvd | ConnState::MraReqSent) {
            pair.b.reply(now, b, &reply()).expect("it was asked");
        }
        if !matches!(state, ConnState::RepSent) {
            pair.deliver();
        }
        match state {
            ConnState::MraReqSent => pair.b.mra(now, b, 1, &[]).expect("it was asked"),
            ConnState::MraRepSent => pair.a.mra(now, a, 1, &[]).expect("it was replied"),
            ConnState::Established | ConnState::DreqSent | ConnState::DreqRcvd | ConnState::Timewait => {
                pair.a.ready(now, a, &[]).expect("it was replied");
                pair.deliver();
            }
            _ => {}
        }
        if matches!(state, ConnState::DreqSent | ConnState::DreqRcvd | ConnState::Timewait) {
            pair.a.disconnect(now, a, &[]).expect("it is established");
        }
        if matches!(state, ConnState::DreqRcvd | ConnState::Timewait) {
            pair.deliver();
        }
        if state == ConnState::Timewait {
            pair.b.disconnect(now, b, &[]).expect("the peer asks");
        }
        pair.sent_a();
        pair.sent_b();
        while pair.a.poll_event().is_some() || pair.b.poll_event().is_some() {}
        let (conn, peer, qpn, rep_qpn) = if asks { (a, b, 0x11, 0x22) } else { (b, a, 0x22, 0x11) };
        let mut messages: Vec<_> = messages(name(conn), name(peer), Qpn::new(qpn))
            .into_iter()
            .map(|mad| match message(&mad) {
                Message::Rep(mut rep) => {
                    rep.local_qpn = Qpn::new(rep_qpn);
                    ("REP".to_owned(), bytes(Message::Rep(rep)))
                }
                Message::Mra(mra) => (format!("MRA({})", which(mra.which)), mad),
                Message::Rej(rej) => (format!("REJ({})", which(rej.which)), mad),
                message => (format!("{:?}", message.attribute()), mad),
            })
            .collect();
        if !asks {
            messages.insert(0, ("REQ".to_owned(), req));
        }
        let subject = Subject { pair, asks, conn, messages };
        assert_eq!(subject.state(), Some(state));
        subject
    }

    fn cm(&mut self) -> &mut Cm {
        if self.asks { &mut self.pair.a } else { &mut self.pair.b }
    }

    fn state(&self) -> Option<ConnState> {
        if self.asks { self.pair.a.state(self.conn) } else { self.pair.b.state(self.conn) }
    }

    fn state_name(&self) -> String {
        self.state().map_or("gone".to_owned(), |state| format!("{state:?}"))
    }

    /// What was said and told since.
    fn effects(&mut self) -> (Vec<String>, Vec<String>) {
        let sent = if self.asks { self.pair.sent_a() } else { self.pair.sent_b() };
        let said = sent.iter().map(|mad| format!("{:?}", message(mad).attribute())).collect();
        let mut told = Vec::new();
        while let Some(event) = self.cm().poll_event() {
            let text = format!("{event:?}");
            let end = text.find([' ', '(']).unwrap_or(text.len());
            told.push(text[..end].to_owned());
        }
        (said, told)
    }
}

fn which(which: Which) -> &'static str {
    match which {
        Which::REQ => "REQ",
        Which::REP => "REP",
        _ => "-",
    }
}

#[test]
fn commands() {
    type Command<'a> = (&'a str, &'a dyn Fn(&mut Cm, ConnId) -> bool);
    let commands: [Command<'_>; 7] = [
        ("mra", &|cm, conn| cm.mra(MS, conn, 1, &[]).is_ok()),
        ("reply", &|cm, conn| cm.reply(MS, conn, &reply()).is_ok()),
        ("reject", &|cm, conn| cm.reject(MS, conn, &RejectParams::consumer(&[])).is_ok()),
        ("ready", &|cm, conn| cm.ready(MS, conn, &[]).is_ok()),
        ("comm_est", &|cm, conn| cm.communication_established(MS, conn).is_ok()),
        ("disconnect", &|cm, conn| cm.disconnect(MS, conn, &[]).is_ok()),
        ("release", &|cm, conn| {
            cm.release(MS, conn);
            true
        }),
    ];
    let mut table = format!("{:<13}", "");
    commands.iter().for_each(|(name, _)| table += &format!("{name:<16}"));
    for state in STATES {
        table = table.trim_end().to_owned() + &format!("\n{:<13}", format!("{state:?}"));
        for (_, command) in commands {
            let mut subject = Subject::new(state);
            let conn = subject.conn;
            let cell = if command(subject.cm(), conn) { subject.state_name() } else { "-".to_owned() };
            assert!(cell != "-" || subject.effects() == Default::default(), "a refused command does nothing");
            // The state, and what was said.
            let (said, _) = subject.effects();
            let cell = if said.is_empty() { cell } else { format!("{cell} {}", said.join(" ")) };
            table += &format!("{cell:<16}");
        }
    }
    // Shown in full when it is not as written.
    println!("{}", table.trim_end());
    assert_eq!(table.trim_end(), include_str!("../../src/cm/commands.txt").trim_end());
}

#[test]
fn messages_received() {
    let mut table = format!("{:<13}{:<10}{:<13}{:<6}{}", "in", "comes", "then", "says", "tells");
    let mut row = |state: ConnState, comes: &str, subject: &mut Subject| {
        let (said, told) = subject.effects();
        let then = subject.state_name();
        if then == format!("{state:?}") && said.is_empty() && told.is_empty() {
            return;
        }
        let line = format!(
            "\n{:<13}{comes:<10}{then:<13}{:<6}{}",
            format!("{state:?}"),
            said.join(" "),
            told.join(" ")
        );
        table += line.trim_end();
    };
    for state in STATES {
        for index in 0..Subject::new(state).messages.len() {
            let mut subject = Subject::new(state);
            let (comes, mad) = subject.messages[index].clone();
            if subject.asks {
                subject.pair.at_a(&mad)
            } else {
                subject.pair.at_b(&mad)
            }
            row(state, &comes, &mut subject);
        }
        let mut subject = Subject::new(state);
        while subject.state() == Some(state) {
            let Some(at) = subject.cm().poll_timeout() else { break };
            subject.effects();
            subject.cm().handle_timeout(at);
        }
        row(state, "timeout", &mut subject);
    }
    println!("{table}");
    assert_eq!(table.trim_end(), include_str!("../../src/cm/messages.txt").trim_end());
}
