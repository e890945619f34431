//! Two engines, `a` that asks and `b` that is asked, and the datagrams between them.

use std::net::{IpAddr, Ipv4Addr};

use ibex_proto::Nanos;
use ibex_proto::cm::{
    Cm, CmConfig, ConnId, ConnState, ConnectParams, Event, ListenParams, ListenerId, Path, ReplyParams,
    Transmit,
};
use ibex_wire::mad::{
    CommId, Drep, Dreq, Gid, Guid, MAD_LEN, Mad, Message, Mra, PortSpace, Private, Rej, RejectReason, Rep,
    Rtu, ServiceId, Which,
};
use ibex_wire::{Mtu, Psn, Qkey, Qpn};

pub(crate) const MS: Nanos = 1_000_000;
pub(crate) const SERVICE: ServiceId = ServiceId::ip(PortSpace::TCP, 7174);
pub(crate) const GUID_A: Guid = Guid(0xa);
pub(crate) const GUID_B: Guid = Guid(0xb);

pub(crate) fn address(last: u8) -> Gid {
    Gid::from(IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)))
}

pub(crate) struct Pair {
    pub(crate) a: Cm,
    pub(crate) b: Cm,
    pub(crate) now: Nanos,
    pub(crate) listener: ListenerId,
}

pub(crate) fn config(slot: u16, guid: Guid) -> CmConfig {
    // Repetitions as the messages say, so that times can be told.
    CmConfig { fast_retry: 0, ..CmConfig::new(slot, [u64::from(slot), 2], guid) }
}

/// A request of queue pair 0x11 that expects sequence number 0x111 first, with librdmacm's header left out.
pub(crate) fn params() -> ConnectParams {
    let path = Path::new(address(1), address(2), Mtu::Mtu1024);
    let mut params =
        ConnectParams::new(path, ServiceId(0x1000_0000_0000_0001), Qpn::new(0x11), Psn::new(0x111));
    params.responder_resources = 3;
    params.initiator_depth = 4;
    params.retry_count = 5;
    params.rnr_retry_count = 6;
    params.private = b"call".to_vec();
    params
}

/// An acceptance by queue pair 0x22 that expects sequence number 0x222 first.
pub(crate) fn reply() -> ReplyParams {
    let mut params = ReplyParams::new(Qpn::new(0x22), Psn::new(0x222));
    params.responder_resources = 4;
    params.initiator_depth = 2;
    params.rnr_retry_count = 1;
    params.target_ack_delay = 3;
    params.private = Private::new(b"yes").expect("3 of 196");
    params
}

/// Brings a connection to some state, and names it at both ends.
pub(crate) type Step = fn(&mut Pair) -> (ConnId, ConnId);

impl Pair {
    pub(crate) fn new() -> Pair {
        Pair::with(|_| {})
    }

    pub(crate) fn with(tune: impl Fn(&mut CmConfig)) -> Pair {
        let (mut of_a, mut of_b) = (config(1, GUID_A), config(2, GUID_B));
        tune(&mut of_a);
        tune(&mut of_b);
        let mut b = Cm::new(of_b);
        let listener = b
            .listen(&ListenParams { service: params().service, local: None, backlog: 2 })
            .expect("nobody else listens");
        Pair { a: Cm::new(of_a), b, now: 1000 * MS, listener }
    }

    /// A datagram arrives at `a`.
    pub(crate) fn at_a(&mut self, mad: &[u8]) {
        self.a.handle_mad(self.now, address(2), address(1), Qpn::GSI, mad);
    }

    /// A datagram arrives at `b`.
    pub(crate) fn at_b(&mut self, mad: &[u8]) {
        self.b.handle_mad(self.now, address(1), address(2), Qpn::GSI, mad);
    }

    /// Delivers everything, both ways, until nobody says anything more.
    pub(crate) fn deliver(&mut self) {
        loop {
            let (from_a, from_b) = (self.sent_a(), self.sent_b());
            if from_a.is_empty() && from_b.is_empty() {
                return;
            }
            from_a.iter().for_each(|mad| self.at_b(mad));
            from_b.iter().for_each(|mad| self.at_a(mad));
        }
    }

    pub(crate) fn sent_a(&mut self) -> Vec<[u8; MAD_LEN]> {
        drain(&mut self.a, address(1))
    }

    pub(crate) fn sent_b(&mut self) -> Vec<[u8; MAD_LEN]> {
        drain(&mut self.b, address(2))
    }

    /// Time passes, datagrams are lost.
    pub(crate) fn wait_deaf(&mut self, time: Nanos) {
        self.now += time;
        self.a.handle_timeout(self.now);
        self.b.handle_timeout(self.now);
        self.sent_a();
        self.sent_b();
    }

    /// A request, up to [`Event::Request`].
    pub(crate) fn asked(&mut self) -> (ConnId, ConnId) {
        self.asked_with(&params())
    }

    pub(crate) fn asked_with(&mut self, params: &ConnectParams) -> (ConnId, ConnId) {
        let a = self.a.connect(self.now, params).expect("it may be asked");
        self.deliver();
        let Some(Event::Request { conn: b, .. }) = self.b.poll_event() else { panic!("no request") };
        (a, b)
    }

    /// Accepted, up to [`Event::Reply`].
    pub(crate) fn replied(&mut self) -> (ConnId, ConnId) {
        let (a, b) = self.asked();
        self.b.reply(self.now, b, &reply()).expect("it was asked");
        self.deliver();
        assert!(matches!(self.a.poll_event(), Some(Event::Reply { conn, .. }) if conn == a));
        (a, b)
    }

    /// Established at both ends.
    pub(crate) fn established(&mut self) -> (ConnId, ConnId) {
        let (a, b) = self.replied();
        self.a.ready(self.now, a, b"go").expect("it was replied");
        self.deliver();
        assert!(matches!(self.b.poll_event(), Some(Event::Established { conn, .. }) if conn == b));
        self.quiet();
        (a, b)
    }

    pub(crate) fn states(&self, (a, b): (ConnId, ConnId)) -> (Option<ConnState>, Option<ConnState>) {
        (self.a.state(a), self.b.state(b))
    }

    /// Nothing more to say or to tell.
    pub(crate) fn quiet(&mut self) {
        assert_eq!((self.a.poll_event(), self.b.poll_event()), (None, None));
        assert_eq!((self.a.poll_transmit(), self.b.poll_transmit()), (None, None));
    }

    /// After TIMEWAIT, nothing is left.
    pub(crate) fn idle(&mut self) {
        for _ in 0..4 {
            self.now += 20_000 * MS;
            self.a.handle_timeout(self.now);
            self.b.handle_timeout(self.now);
            self.deliver();
            while self.a.poll_event().is_some() || self.b.poll_event().is_some() {}
        }
        assert!(self.a.is_idle() && self.b.is_idle());
    }
}

fn drain(cm: &mut Cm, own: Gid) -> Vec<[u8; MAD_LEN]> {
    let mut mads = Vec::new();
    while let Some(Transmit { local, mad, .. }) = cm.poll_transmit() {
        assert_eq!(local, own);
        mads.push(mad);
    }
    mads
}

/// The only datagram of several.
pub(crate) fn only(mads: &[[u8; MAD_LEN]]) -> [u8; MAD_LEN] {
    assert_eq!(mads.len(), 1, "{mads:?}");
    mads[0]
}

pub(crate) fn message(mad: &[u8]) -> Message {
    Mad::parse(mad).expect("engines send messages").message
}

pub(crate) fn bytes(message: Message) -> [u8; MAD_LEN] {
    Mad { transaction: 0x77, message }.to_bytes()
}

pub(crate) fn name(conn: ConnId) -> CommId {
    conn.comm_id()
}

/// Every message that could concern a connection, with its right numbers.
pub(crate) fn messages(conn: CommId, peer: CommId, qpn: Qpn) -> Vec<[u8; MAD_LEN]> {
    let rej = |which, reason| {
        let mut info = [0; Rej::INFO];
        info[..8].copy_from_slice(&GUID_B.0.to_be_bytes());
        Rej {
            local_comm_id: peer,
            remote_comm_id: conn,
            which,
            reason,
            info_len: 8,
            info,
            private: Private::ZERO,
        }
    };
    let rep = Rep {
        local_comm_id: peer,
        remote_comm_id: conn,
        local_qkey: Qkey(0),
        local_qpn: Qpn::new(9),
        local_eecn: 0,
        starting_psn: Psn::new(9),
        responder_resources: 0,
        initiator_depth: 0,
        target_ack_delay: 0,
        failover: 0,
        flow_control: false,
        rnr_retry_count: 0,
        srq: false,
        local_ca_guid: GUID_B,
        private: Private::ZERO,
    };
    let mra = |which| Mra {
        local_comm_id: peer,
        remote_comm_id: conn,
        which,
        service_timeout: 31,
        private: Private::ZERO,
    };
    [
        Message::Rep(rep),
        Message::Mra(mra(Which::REQ)),
        Message::Mra(mra(Which::REP)),
        Message::Rej(rej(Which::REQ, RejectReason::CONSUMER_DEFINED)),
        Message::Rej(rej(Which::REP, RejectReason::CONSUMER_DEFINED)),
        Message::Rej(rej(Which::OTHER, RejectReason::TIMEOUT)),
        Message::Rtu(Rtu { local_comm_id: peer, remote_comm_id: conn, private: Private::ZERO }),
        Message::Drep(Drep { local_comm_id: peer, remote_comm_id: conn, private: Private::ZERO }),
        Message::Dreq(Dreq {
            local_comm_id: peer,
            remote_comm_id: conn,
            remote_qpn: qpn,
            private: Private::ZERO,
        }),
    ]
    .map(bytes)
    .to_vec()
}
