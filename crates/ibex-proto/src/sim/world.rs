//! Queue pairs, their hosts and the network between them, in virtual time.
//!
//! Owns the clock and the order of calls. What is posted, and what must come of it, is the test's.

use ibex_wire::{Grh, MAX_PACKET, Mtu, Packet, Pkey, Psn, Qkey, Qpn};

use super::host::MemHost;
use super::net::{Faults, Network};
use crate::{
    Completion, Event, InitAttr, Nanos, PostError, Qp, QpType, RcCaps, RecvCompletion, RemoteAccess, RtrAttr,
    RtsAttr, SendCompletion, SendOp, SendWqe, Tuning, WcStatus,
};

/// How one end of a connection is made.
#[derive(Clone, Copy, Debug)]
pub struct EndConfig {
    /// What both ends are.
    pub qp_type: QpType,
    /// Bytes peers can reach.
    pub memory: usize,
    /// See [`RcCaps::sq_depth`].
    pub sq_depth: u32,
    /// See [`RcCaps::tuning`].
    pub tuning: Tuning,
    /// The first number of its requests.
    pub psn: Psn,
    /// See [`InitAttr::access`].
    pub access: RemoteAccess,
    /// See [`RtrAttr::max_dest_rd_atomic`].
    pub max_dest_rd_atomic: u8,
    /// See [`RtsAttr::max_rd_atomic`].
    pub max_rd_atomic: u8,
    /// See [`RtrAttr::min_rnr_timer`].
    pub min_rnr_timer: u8,
    /// See [`RtsAttr::timeout`].
    pub timeout: Option<Nanos>,
    /// See [`RtsAttr::retry`].
    pub retry: Option<u8>,
    /// See [`RtsAttr::rnr_retry`].
    pub rnr_retry: Option<u8>,
}

impl Default for EndConfig {
    fn default() -> EndConfig {
        EndConfig {
            qp_type: QpType::Rc,
            memory: 1 << 16,
            sq_depth: 64,
            tuning: Tuning::default(),
            psn: Psn::new(100),
            access: RemoteAccess::ALL,
            max_dest_rd_atomic: 4,
            max_rd_atomic: 4,
            min_rnr_timer: 1,
            timeout: Some(100_000),
            retry: Some(7),
            rnr_retry: Some(6),
        }
    }
}

/// What a test's tap decides about a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// To the network, with its faults.
    Pass,
    /// Nowhere.
    Drop,
    /// Twice.
    Twice,
    /// Later by so many nanoseconds.
    Late(Nanos),
}

/// A packet on its way, as a tap sees it.
pub struct Sighting<'a> {
    /// When.
    pub now: Nanos,
    /// The endpoint that sent it.
    pub from: usize,
    /// How many this endpoint sent before.
    pub index: u64,
    /// The packet.
    pub packet: Packet<'a>,
}

/// A queue pair with its host, and what has come out of it.
pub struct Endpoint {
    /// The queue pair.
    pub qp: Qp,
    /// Its memory.
    pub host: MemHost,
    /// Every completion so far.
    pub completions: Vec<Completion>,
    /// Every event so far.
    pub events: Vec<Event>,
    /// The endpoint it is connected to.
    pub peer: usize,
    next_cookie: u64,
    sent: u64,
}

impl Endpoint {
    /// Completions of the send queue so far.
    pub fn sends(&self) -> Vec<SendCompletion> {
        let sends = self.completions.iter().filter_map(|completion| match completion {
            Completion::Send(done) => Some(*done),
            Completion::Recv(_) => None,
        });
        sends.collect()
    }

    /// Completions of the receive queue so far.
    pub fn recvs(&self) -> Vec<RecvCompletion> {
        let recvs = self.completions.iter().filter_map(|completion| match completion {
            Completion::Recv(done) => Some(*done),
            Completion::Send(_) => None,
        });
        recvs.collect()
    }

    /// Statuses of the send queue's completions so far.
    pub fn send_statuses(&self) -> Vec<WcStatus> {
        self.sends().iter().map(|done| done.status).collect()
    }

    /// Statuses of the receive queue's completions so far.
    pub fn recv_statuses(&self) -> Vec<WcStatus> {
        self.recvs().iter().map(|done| done.status).collect()
    }
}

type Tap = Box<dyn FnMut(&Sighting<'_>) -> Fate>;

/// The simulated world.
pub struct World {
    /// Virtual time, in nanoseconds.
    pub now: Nanos,
    /// Queue pairs; 2n and 2n + 1 are connected.
    pub ends: Vec<Endpoint>,
    /// The network.
    pub net: Network,
    /// Acknowledgements travel behind requests that are ready, as a host may have it.
    pub requests_first: bool,
    tap: Option<Tap>,
    buf: Vec<u8>,
}

/// The key of every datagram queue pair.
pub const QKEY: Qkey = Qkey(0x1234);
/// The network header that every datagram arrives with.
pub const NETWORK_HEADER: [u8; Grh::LEN] = [0xa5; Grh::LEN];

/// The number of endpoint `index`'s queue pair.
pub fn qpn(index: usize) -> Qpn {
    Qpn::new(0x1000 + index as u32)
}

impl World {
    /// Two connected queue pairs in RTS, alike but for their first number.
    pub fn pair(config: EndConfig, mtu: Mtu) -> World {
        World::new(&[(config, EndConfig { psn: Psn::new(0x80_0000), ..config }, mtu)], Faults::NONE, 0)
    }

    /// Connected pairs in RTS.
    pub fn new(pairs: &[(EndConfig, EndConfig, Mtu)], faults: Faults, seed: u64) -> World {
        let mut ends = Vec::new();
        for (left, right, mtu) in pairs {
            let index = ends.len();
            ends.push(connected(left, right, *mtu, index, index + 1));
            ends.push(connected(right, left, *mtu, index + 1, index));
        }
        let net = Network::new(faults, seed, ends.len());
        World { now: 0, ends, net, requests_first: false, tap: None, buf: vec![0; MAX_PACKET] }
    }

    /// Lets `tap` decide about every packet from now on.
    pub fn tap(&mut self, tap: impl FnMut(&Sighting<'_>) -> Fate + 'static) {
        self.tap = Some(Box::new(tap));
    }

    /// Resets endpoints `index` and its peer and connects them again. Packets under way stay there.
    pub fn reconnect(&mut self, index: usize, own: &EndConfig, other: &EndConfig, mtu: Mtu) {
        let peer = self.ends[index].peer;
        for (from, to, own, other) in [(index, peer, own, other), (peer, index, other, own)] {
            let qp = &mut self.ends[from].qp;
            qp.reset();
            qp.to_init(InitAttr { pkey: Pkey::DEFAULT, access: own.access }).expect("RESET precedes INIT");
            connect(qp, own, other, mtu, to);
        }
    }

    /// Posts a request with `buffer` behind it and returns its cookie. The length sent or read is the buffer's.
    ///
    /// # Errors
    /// The queue pair's.
    pub fn try_post(&mut self, end: usize, wqe: SendWqe, buffer: Vec<u8>) -> Result<u64, PostError> {
        let endpoint = &mut self.ends[end];
        let cookie = endpoint.next_cookie;
        endpoint.qp.post_send(SendWqe { cookie, ..wqe })?;
        endpoint.next_cookie += 1;
        endpoint.host.sends.insert(cookie, buffer);
        Ok(cookie)
    }

    /// Posts a signalled operation without flags.
    ///
    /// # Panics
    /// If the queue pair refuses.
    pub fn post(&mut self, end: usize, op: SendOp, buffer: Vec<u8>) -> u64 {
        let len = buffer.len() as u32;
        let wqe = SendWqe { cookie: 0, op, len, signaled: true, fence: false, solicited: false };
        self.try_post(end, wqe, buffer).expect("the test posts what fits")
    }

    /// Posts a SEND.
    pub fn send(&mut self, end: usize, bytes: &[u8]) -> u64 {
        self.post(end, SendOp::Send { imm: None, inv: None }, bytes.to_vec())
    }

    /// Posts a receive request for `len` bytes.
    pub fn recv(&mut self, end: usize, len: usize) -> u64 {
        let endpoint = &mut self.ends[end];
        let cookie = endpoint.next_cookie;
        endpoint.next_cookie += 1;
        endpoint.host.recv_queue.push_back((cookie, vec![0xee; len]));
        cookie
    }

    /// Takes everything out of every queue pair and puts its packets on the network.
    pub fn drain(&mut self) {
        for end in 0..self.ends.len() {
            self.drain_one(end);
        }
    }

    fn drain_one(&mut self, index: usize) {
        let World { now, ends, net, requests_first, tap, buf } = self;
        let end = &mut ends[index];
        loop {
            let wanted = end.qp.wants_transmit();
            let mut transmit = None;
            if *requests_first && end.qp.owes_only_ack() {
                transmit = end.qp.poll_request(*now, &mut end.host, buf);
            }
            if transmit.is_none() {
                transmit = end.qp.poll_transmit(*now, &mut end.host, buf);
            }
            let Some(transmit) = transmit else { break };
            assert!(wanted, "wants_transmit said no in vain");
            let bytes = &buf[..transmit.len];
            let packet = Packet::parse(bytes).expect("a queue pair sends valid packets");
            assert_eq!(packet.bth().dest_qpn, qpn(end.peer), "a packet goes to its peer");
            let sighting = Sighting { now: *now, from: index, index: end.sent, packet };
            end.sent += 1;
            let fate = tap.as_mut().map_or(Fate::Pass, |tap| tap(&sighting));
            match fate {
                Fate::Pass => net.send(*now, end.peer, bytes),
                Fate::Drop => {}
                Fate::Twice => {
                    net.send(*now, end.peer, bytes);
                    net.send(*now, end.peer, bytes);
                }
                Fate::Late(by) => net.deliver_at(*now + by + net.faults.latency, end.peer, bytes),
            }
        }
        while let Some(completion) = end.qp.poll_completion() {
            end.completions.push(completion);
        }
        while let Some(event) = end.qp.poll_event() {
            end.events.push(event);
        }
    }

    /// When something happens next: a packet arrives or a timer is due.
    pub fn next(&self) -> Option<Nanos> {
        let timers = self.ends.iter().filter_map(|end| end.qp.poll_timeout());
        timers.chain(self.net.next()).min()
    }

    /// Moves to the next time at which something happens, lets it happen, and drains. `false` if nothing ever will.
    pub fn step(&mut self) -> bool {
        let Some(next) = self.next() else { return false };
        self.advance(next.max(self.now));
        true
    }

    /// Moves the clock to `to` and lets happen what has come due.
    pub fn advance(&mut self, to: Nanos) {
        self.now = to;
        let mut touched = 0u64;
        while let Some((to, bytes)) = self.net.receive(self.now) {
            let end = &mut self.ends[to];
            let packet = Packet::parse(&bytes).expect("only valid packets are delivered");
            end.qp.handle_datagram(self.now, &packet, &NETWORK_HEADER, &mut end.host);
            touched |= 1 << to;
            self.net.recycle(bytes);
        }
        for (index, end) in self.ends.iter_mut().enumerate() {
            if end.qp.poll_timeout().is_some_and(|due| due <= self.now) {
                end.qp.handle_timeout(self.now);
                touched |= 1 << index;
            }
        }
        for index in (0..self.ends.len()).filter(|index| touched & 1 << index != 0) {
            self.drain_one(index);
        }
    }

    /// Drains and steps until nothing is left to happen.
    ///
    /// # Panics
    /// If that takes more than `limit` of virtual time or a million steps: something is stuck in a circle.
    pub fn run(&mut self, limit: Nanos) {
        let deadline = self.now + limit;
        self.drain();
        for _ in 0..1_000_000 {
            if !self.step() {
                return;
            }
            assert!(self.now <= deadline, "still busy after {limit} ns of virtual time");
        }
        panic!("still busy after a million steps");
    }
}

/// A queue pair in RTS.
fn connected(own: &EndConfig, other: &EndConfig, mtu: Mtu, index: usize, peer: usize) -> Endpoint {
    let mut qp = unconnected(own, index);
    connect(&mut qp, own, other, mtu, peer);
    Endpoint {
        qp,
        host: MemHost::new(own.memory),
        completions: Vec::new(),
        events: Vec::new(),
        peer,
        next_cookie: 1,
        sent: 0,
    }
}

/// Brings a queue pair from INIT to RTS.
fn connect(qp: &mut Qp, own: &EndConfig, other: &EndConfig, mtu: Mtu, peer: usize) {
    let rtr = RtrAttr {
        remote_qpn: qpn(peer),
        path_mtu: mtu,
        rq_psn: other.psn,
        max_dest_rd_atomic: own.max_dest_rd_atomic,
        min_rnr_timer: own.min_rnr_timer,
    };
    qp.to_rtr(rtr).expect("INIT precedes RTR");
    qp.to_rts(rts(own)).expect("RTR precedes RTS");
}

/// A queue pair in INIT.
pub fn unconnected(own: &EndConfig, index: usize) -> Qp {
    let caps = RcCaps { local_qpn: qpn(index), sq_depth: own.sq_depth, tuning: own.tuning };
    let mut qp = Qp::new(own.qp_type, caps);
    qp.set_qkey(QKEY);
    qp.to_init(InitAttr { pkey: Pkey::DEFAULT, access: own.access }).expect("RESET precedes INIT");
    qp
}

/// The attributes for RTS in `config`.
pub fn rts(config: &EndConfig) -> RtsAttr {
    RtsAttr {
        sq_psn: config.psn,
        timeout: config.timeout,
        retry: config.retry,
        rnr_retry: config.rnr_retry,
        max_rd_atomic: config.max_rd_atomic,
    }
}
