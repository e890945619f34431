//! Receiving: all sockets of the link, one packet after the other.
//!
//! Owns the order in which shared memory and sockets are looked at, the receive buffer, the check of the ICRC, the holder's forwarding and the hellos of the slot
//! sockets. What is handed on has a right ICRC, or came over a slot socket or shared memory from a process of this
//! host without one; nothing above the destination's slot has been looked at.
//!
//! Read first: udp(7) (`UDP_GRO`), unix(7).

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use ibex_wire::icrc::Flow;
use ibex_wire::{Bth, ICRC_LEN};

use super::crowd::Crowd;
use super::express::Express;
use super::forward::{HEADER, Header, Kind};
use super::mailbox;
use super::management;
use super::pace::Pace;
use super::qpn;
use super::slot::Slot;
use super::tx;
use super::udp::{Burst, Udp};
use super::wire::Wire;
use crate::host::{Arrival, Host, Inbox};

/// Bytes of the receive buffer: the largest datagram of any kind, and one more to notice larger ones.
const BUFFER: usize = 65_536 + HEADER + 1;

/// Receives between two looks at the sockets that are not direct traffic's. They cost about
/// 0.2 µs each when empty, and what comes there is foreign or the first of its kind.
const OTHERS_EVERY: u32 = 16;

/// The same while direct traffic comes: its next packet should not wait for them.
const OTHERS_SELDOM: u32 = 64;

/// Receives for which direct traffic counts as coming: longer than an answer from another process of this host takes.
const STAY_DIRECT: u32 = 256;

/// Receives for which they are looked at every time after something came.
const STAY_HOT: u32 = 64;

/// Packets taken from the sockets at most before those of a new link.
const BACKLOG: usize = 4096;

/// Receives between two that look for a second burst behind a single packet.
const PROBE_EVERY: u32 = 16;

/// Flows remembered: as many senders can be active without their prefix being hashed anew.
const FLOWS: usize = 16;

/// A received packet, its ICRC verified and removed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Datagram<'a> {
    /// The address it came from.
    pub(crate) source: IpAddr,
    /// BTH, extended headers, payload and padding; at least a BTH, a multiple of four bytes.
    pub(crate) packet: &'a [u8],
}

/// Who gets what is received.
pub(crate) trait Sink {
    /// A packet.
    fn datagram(&mut self, datagram: Datagram<'_>);

    /// A short message from shared memory; false if it is to come as packets instead. Of an acknowledgement beside it that is for
    /// another queue pair nothing is left in it then.
    fn express(&mut self, express: &mut Express<'_>) -> bool {
        let _ = express;
        false
    }
}

impl<F: FnMut(Datagram<'_>)> Sink for F {
    #[inline]
    fn datagram(&mut self, datagram: Datagram<'_>) {
        self(datagram);
    }
}

/// Which sockets to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scan {
    /// Shared memory and the socket of direct traffic, the others now and then: for callers that spin. A process whose
    /// peers are all reached through shared memory looks at sockets now and then only.
    Quick,
    /// The same, and if there is nothing, all others too: after one of [`super::Wire::fds`]
    /// was readable. It stays readable while there is more.
    Full,
    /// Shared memory only: before going to sleep on the sockets.
    Rings,
}

/// What a call of [`super::Wire::recv`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Received {
    /// Packets handed over.
    pub(crate) packets: usize,
    /// Whether the call ended before it found a socket empty, so that there may be more.
    pub(crate) more: bool,
    /// Whether it asked the kernel for anything.
    pub(crate) sockets: bool,
}

/// Receive buffers; keep one per receiving thread or engine and reuse it.
#[derive(Debug)]
pub(crate) struct RxRing {
    inbox: Inbox,
    sockets: Sockets,
}

/// What receiving from sockets needs.
#[derive(Debug)]
struct Sockets {
    buffer: Box<[u8]>,
    flows: Flows,
    /// Receives so far, wrapping.
    quick: u32,
    /// Receives for which the other sockets are looked at first.
    hot: u32,
    /// Receives for which they are looked at seldom.
    direct: u32,
    /// Receives for which the RoCE port is looked at first: a peer on another host answers there.
    port: u32,
    /// Whether direct traffic comes in more than one burst at a time.
    streaming: bool,
    /// How direct traffic comes.
    crowd: Crowd,
    pace: Pace,
}

impl RxRing {
    /// Buffers for the largest datagram the kernel hands out.
    pub(crate) fn new() -> Self {
        let sockets = Sockets {
            buffer: vec![0; BUFFER].into_boxed_slice(),
            flows: Flows([None; FLOWS]),
            quick: 0,
            hot: 0,
            direct: 0,
            port: 0,
            streaming: false,
            crowd: Crowd::default(),
            pace: Pace::new(),
        };
        Self { inbox: Inbox::new(), sockets }
    }
}

impl Sockets {
    /// Whether this receive looks at the other sockets first.
    fn others_due(&mut self) -> bool {
        self.quick = self.quick.wrapping_add(1);
        self.hot = self.hot.saturating_sub(1);
        self.direct = self.direct.saturating_sub(1);
        self.port = self.port.saturating_sub(1);
        let every = if self.direct > 0 { OTHERS_SELDOM } else { OTHERS_EVERY };
        self.hot > 0 || self.quick.is_multiple_of(every)
    }
}

/// The ICRC prefixes of recent senders.
#[derive(Debug)]
struct Flows([Option<(IpAddr, u16, u16, Flow)>; FLOWS]);

impl Flows {
    fn get(&mut self, wire: &Wire, from: IpAddr, port: u16, to_port: u16) -> Option<Flow> {
        let place = &mut self.0[usize::from(port ^ to_port) % FLOWS];
        match place {
            Some((address, source, dest, flow))
                if *address == from && *source == port && *dest == to_port =>
            {
                Some(*flow)
            }
            _ => {
                let flow = Flow::new(SocketAddr::new(from, port), wire.neighbour(to_port))?;
                *place = Some((from, port, to_port, flow));
                Some(flow)
            }
        }
    }
}

/// See [`super::Wire::recv`].
pub(super) fn recv(
    wire: &Wire,
    ring: &mut RxRing,
    scan: Scan,
    budget: usize,
    sink: &mut impl Sink,
) -> Received {
    let RxRing { inbox, sockets } = ring;
    let mut total = Received::default();
    if let Some(host) = wire.host() {
        if scan == Scan::Full {
            host.answer();
        }
        total.add(from_rings(wire, host, inbox, sockets, budget, sink));
        let must = scan == Scan::Full && total.packets == 0;
        if scan == Scan::Rings || !sockets.pace.is_due(wire) && !must {
            return total;
        }
    }
    let found = from_sockets(wire, sockets, scan, budget, sink);
    total.sockets = true;
    if found.packets > 0 {
        sockets.pace.warm();
    } else {
        sockets.pace.in_vain();
    }
    total.add(found);
    if scan == Scan::Full && total.packets == 0 {
        // Then what woke the caller is not a packet.
        wire.housekeeping(Instant::now());
    }
    total
}

/// Shared memory.
#[inline]
fn from_rings(
    wire: &Wire,
    host: &Host,
    inbox: &mut Inbox,
    sockets: &mut Sockets,
    budget: usize,
    sink: &mut impl Sink,
) -> Received {
    let source = wire.address();
    let mut state = (sockets, sink);
    let packets = host.receive(
        inbox,
        budget,
        &mut state,
        // Packets that the peer sent before it had the link come before those it sent over it.
        |(sockets, sink)| {
            others(wire, sockets, BACKLOG, *sink);
            drain(BACKLOG, || from_own(wire, sockets, *sink));
        },
        |(_, sink), arrival| match arrival {
            Arrival::Packet(packet) => {
                sink.datagram(Datagram { source, packet });
                true
            }
            Arrival::Express(express) => sink.express(express),
        },
    );
    if packets > 0 {
        // Only who holds the engine receives.
        wire.counters().rx_via_host.add_alone(packets as u64);
    }
    if inbox.unfit {
        inbox.unfit = false;
        wire.expel();
    }
    Received { packets, more: packets >= budget, sockets: false }
}

/// The sockets that are due.
fn from_sockets(
    wire: &Wire,
    sockets: &mut Sockets,
    scan: Scan,
    budget: usize,
    sink: &mut impl Sink,
) -> Received {
    let others_first = sockets.others_due();
    let mut total = Received::default();
    if sockets.port > 0
        && !others_first
        && let Some(udp) = wire.holder()
    {
        total.add(eager(sockets, budget, |sockets| from_roce_port(wire, sockets, udp, sink)));
        if total.packets > 0 {
            sockets.port = STAY_HOT;
            return total;
        }
    }
    if others_first {
        total.add(others(wire, sockets, budget, sink));
    }
    total.add(direct(wire, sockets, budget, sink));
    if scan == Scan::Full && total.packets == 0 && !others_first {
        total.add(others(wire, sockets, budget, sink));
    }
    total
}

/// Direct traffic, from our own socket.
fn direct(wire: &Wire, sockets: &mut Sockets, budget: usize, sink: &mut impl Sink) -> Received {
    let received = eager(sockets, budget, |sockets| from_own(wire, sockets, sink));
    if received.packets > 0 {
        sockets.direct = STAY_DIRECT;
    }
    received
}

/// Bursts from one socket.
///
/// A single packet is mostly the only one, as in every ping-pong (with the acknowledgement of the one before, it is two in
/// one burst), and to ask for more would delay it; whether there tends to be more is found out now and then.
fn eager(
    sockets: &mut Sockets,
    budget: usize,
    mut burst: impl FnMut(&mut Sockets) -> Option<usize>,
) -> Received {
    let Some(first) = burst(sockets) else { return Received::default() };
    if first <= 2 && !sockets.streaming && !sockets.quick.is_multiple_of(PROBE_EVERY) {
        return Received { packets: first, more: true, sockets: true };
    }
    let left = budget.saturating_sub(first.max(1));
    let mut bursts = 1;
    let mut received = drain(left, || burst(sockets).inspect(|_| bursts += 1));
    sockets.streaming = bursts > 1 || received.more;
    received.packets += first;
    received
}

/// What came to the slots and to the RoCE port.
fn others(wire: &Wire, sockets: &mut Sockets, budget: usize, sink: &mut impl Sink) -> Received {
    let mut total = Received::default();
    for slot in wire.slots().iter() {
        total.add(drain(budget, || from_slot(wire, sockets, slot, sink)));
    }
    total.add(mailbox::receive(wire, budget, sink));
    if wire.host().is_some() {
        wire.attend_ready();
    }
    if total.packets > 0 {
        sockets.hot = STAY_HOT;
    }
    if let Some(udp) = wire.holder() {
        let received = drain(budget, || from_roce_port(wire, sockets, udp, sink));
        if received.packets > 0 {
            sockets.port = STAY_HOT;
        }
        total.add(received);
    }
    total
}

/// Calls `burst`, which returns the packets it dealt with or that there are none, up to the budget.
fn drain(budget: usize, mut burst: impl FnMut() -> Option<usize>) -> Received {
    let (mut packets, mut used) = (0, 0);
    while used < budget {
        match burst() {
            Some(good) => {
                packets += good;
                // A burst without a good packet counts too, or a flood of bad ones would never end.
                used += good.max(1);
            }
            None => return Received { packets, more: false, sockets: true },
        }
    }
    Received { packets, more: true, sockets: true }
}

/// One burst from our own socket.
fn from_own(wire: &Wire, sockets: &mut Sockets, sink: &mut impl Sink) -> Option<usize> {
    let Some(mut burst) = receive(wire, wire.own(), &mut sockets.buffer) else {
        sockets.crowd.missed(wire.own());
        return None;
    };
    let flow = sockets.flows.get(wire, burst.source, burst.port, wire.own().port());
    if sockets.crowd.doubt
        && let Some(flow) = &flow
    {
        burst.segment = sockets.crowd.segment(flow, &sockets.buffer[..burst.length]);
    }
    sockets.crowd.found(wire.own(), burst.length.div_ceil(burst.segment));
    let mut inspector = Inspector::new(wire, flow, 0);
    inspector.alternative = sockets.crowd.next;
    for sealed in sockets.buffer[..burst.length].chunks(burst.segment) {
        if let Some(packet) = inspector.open(sealed) {
            let slot = qpn::slot(qpn::destination(packet));
            // Management datagrams name no slot; who is on this address sends them here directly.
            if slot == 0 || wire.is_own(slot) {
                inspector.hand_over_from(wire.own(), &burst, packet, sink);
            } else {
                wire.counters().rx_stray.add(1);
            }
        }
    }
    sockets.crowd.next = inspector.expected;
    Some(inspector.finish())
}

/// One burst from the RoCE port: ours, or to be forwarded.
fn from_roce_port(wire: &Wire, sockets: &mut Sockets, udp: &Udp, sink: &mut impl Sink) -> Option<usize> {
    let burst = receive(wire, udp, &mut sockets.buffer)?;
    let flow = sockets.flows.get(wire, burst.source, burst.port, udp.port());
    let mut inspector = Inspector::new(wire, flow, 0);
    let data = &sockets.buffer[..burst.length];
    // Neighbours for the same slot travel on together: the place of the first of them, and the slot.
    let mut run: Option<(usize, u16)> = None;
    for (index, sealed) in data.chunks(burst.segment).enumerate() {
        let slot = if sealed.len() < Bth::LEN { 0 } else { qpn::slot(qpn::destination(sealed)) };
        let foreign = slot != 0 && !wire.is_own(slot);
        if let Some((start, to)) = run
            && (!foreign || to != slot)
        {
            forward(wire, &burst, data, start..index, to);
            run = None;
        }
        if foreign {
            run = run.or(Some((index, slot)));
        } else {
            inspector.expect(index as u16);
            if let Some(packet) = inspector.open(sealed) {
                inspector.hand_over_from(udp, &burst, packet, sink);
            }
        }
    }
    if let Some((start, to)) = run {
        forward(wire, &burst, data, start..data.len().div_ceil(burst.segment), to);
    }
    Some(inspector.finish())
}

/// Passes on the packets of `data` numbered `range`.
fn forward(wire: &Wire, burst: &Burst, data: &[u8], range: std::ops::Range<usize>, to: u16) {
    let count = range.len() as u64;
    let bytes = &data[range.start * burst.segment..data.len().min(range.end * burst.segment)];
    let header = Header {
        kind: Kind::Foreign,
        ask: false,
        // Sizes and positions inside a datagram of at most 65 535 bytes.
        segment: burst.segment as u16,
        first: range.start as u16,
        port: burst.port,
        source: burst.source,
    };
    match tx::patiently(|| wire.send_to_slot(to, &header, bytes)) {
        Ok(()) => wire.counters().forwarded.add(count),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            wire.counters().rx_stray.add(count);
        }
        // The owner does not keep up; to wait longer would hold up everybody else's packets.
        Err(_) => wire.counters().forward_dropped.add(count),
    }
}

/// One datagram from a slot's socket: hellos, first packets, and what the holder passed on.
fn from_slot(wire: &Wire, sockets: &mut Sockets, slot: &Slot, sink: &mut impl Sink) -> Option<usize> {
    let mut letter = wire.receive_letter(slot, &mut sockets.buffer).ok()?;
    let length = letter.length;
    let malformed = || wire.counters().rx_malformed.add(1);
    let parsed = if length < BUFFER { Header::parse(&sockets.buffer[..length]) } else { None };
    let Some((header, packets)) = parsed else {
        malformed();
        return Some(0);
    };
    // Only the owner of a slot can send from its name.
    let Some(peer) = wire.names().parse(letter.name.bytes()) else {
        malformed();
        return Some(0);
    };
    let flow = match header.kind {
        Kind::Foreign => sockets.flows.get(wire, header.source, header.port, wire.roce_port()),
        Kind::Hello | Kind::Local | Kind::Invite => {
            if header.kind == Kind::Invite {
                wire.invited(header.port, &mut letter);
            }
            wire.learn(peer, header.port, &letter);
            if header.ask {
                // It asked for the port of this slot, so the answer has to come from it. When its
                // queue is full it will ask again.
                let _ = wire.greet(slot, peer, false);
            }
            None
        }
    };
    let mut inspector = Inspector::new(wire, flow, header.first);
    if !matches!(header.kind, Kind::Hello | Kind::Invite) {
        for bytes in packets.chunks(header.segment.into()) {
            let packet =
                if header.kind == Kind::Local { inspector.check(bytes) } else { inspector.open(bytes) };
            if let Some(packet) = packet {
                // Who is on this address speaks for it only; a management datagram may be one that was passed on.
                let relayed = header.kind == Kind::Foreign || qpn::destination(packet) == management::QPN;
                if relayed || header.source == wire.address() {
                    inspector.hand_over(Datagram { source: header.source, packet }, sink);
                } else {
                    malformed();
                }
            }
        }
    }
    Some(inspector.finish())
}

/// One burst, or `None` when there is nothing or the socket is of no use.
fn receive(wire: &Wire, udp: &Udp, buffer: &mut [u8]) -> Option<Burst> {
    match udp.recv(buffer) {
        Ok(burst) => burst,
        Err(_) => {
            wire.counters().rx_malformed.add(1);
            None
        }
    }
}

/// Judges the packets of one burst and counts them.
struct Inspector<'a> {
    wire: &'a Wire,
    /// `None` if the sender's address family is not ours, which cannot be.
    flow: Option<Flow>,
    /// The identification that the next packet's IP header had, if its sender is one like us.
    expected: u16,
    /// Another one that is no surprise.
    alternative: u16,
    packets: u64,
    bytes: u64,
}

impl<'a> Inspector<'a> {
    fn new(wire: &'a Wire, flow: Option<Flow>, expected: u16) -> Self {
        Self { wire, flow, expected, alternative: expected, packets: 0, bytes: 0 }
    }

    /// The next packet is number `index` of the burst.
    fn expect(&mut self, index: u16) {
        self.expected = index;
    }

    /// The packet in `sealed`, if it looks like one and its ICRC is right.
    fn open<'p>(&mut self, sealed: &'p [u8]) -> Option<&'p [u8]> {
        if sealed.len() < Bth::LEN + ICRC_LEN {
            self.wire.counters().rx_malformed.add(1);
            return None;
        }
        let expected = self.expected;
        let opened = self.flow?.verify_any_identification(expected, sealed);
        let Some((packet, identification)) = opened else {
            self.expected = expected.wrapping_add(1);
            self.wire.counters().rx_bad_icrc.add(1);
            return None;
        };
        // A sender that counts goes on counting; one that does not sends the same again.
        self.expected = identification.wrapping_add(1);
        let surprise = identification != expected && identification != self.alternative;
        if surprise && self.flow_has_identification() {
            self.wire.counters().rx_guessed_ident.add(1);
        }
        self.check(packet)
    }

    fn flow_has_identification(&self) -> bool {
        self.wire.address().is_ipv4()
    }

    /// The packet, if it looks like one.
    fn check<'p>(&mut self, packet: &'p [u8]) -> Option<&'p [u8]> {
        let sound = packet.len() >= Bth::LEN && packet.len().is_multiple_of(4);
        if !sound {
            self.wire.counters().rx_malformed.add(1);
        }
        sound.then_some(packet)
    }

    /// Hands over a packet that came to `udp`, unless the link itself is meant.
    #[inline]
    fn hand_over_from(&mut self, udp: &Udp, burst: &Burst, packet: &[u8], sink: &mut impl Sink) {
        let managed = qpn::destination(packet) == management::QPN && burst.source != self.wire.address();
        if managed && self.wire.acquaint(udp, SocketAddr::new(burst.source, burst.port), packet) {
            self.count(packet);
        } else {
            self.hand_over(Datagram { source: burst.source, packet }, sink);
        }
    }

    fn hand_over(&mut self, datagram: Datagram<'_>, sink: &mut impl Sink) {
        self.count(datagram.packet);
        sink.datagram(datagram);
    }

    fn count(&mut self, packet: &[u8]) {
        self.packets += 1;
        self.bytes += (packet.len() + ICRC_LEN) as u64;
    }

    /// Counts, and says how many packets were good.
    fn finish(self) -> usize {
        self.wire.counters().rx_packets.add(self.packets);
        self.wire.counters().rx_bytes.add(self.bytes);
        self.packets as usize
    }
}

impl Received {
    fn add(&mut self, other: Self) {
        self.packets += other.packets;
        self.more |= other.more;
        self.sockets |= other.sockets;
    }
}
