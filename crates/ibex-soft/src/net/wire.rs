//! The link itself: its sockets, and what it has learned about peers on the same address.
//!
//! Owns the table of learned UDP ports and puts the parts together: [`super::udp`] carries,
//! [`super::slot`] numbers, [`super::holder`] elects, [`super::tx`] sends, [`super::rx`] receives.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ibex_proto::Ack;
use ibex_wire::Bth;
use socket2::SockRef;

use super::abroad::Abroad;
use super::config::{self, Config, LinkChoice};
use super::counters::{Counters, Snapshot};
use super::disarm::Dead;
use super::error::NetError;
use super::express::{self, Express};
use super::fault::Injector;
use super::forward::{HEADER, Header, Kind, Names};
use super::holder::Election;
use super::interest::Interest;
use super::lines::{Line, Lines};
use super::mailbox::Mailboxes;
use super::pcap::Capture;
use super::qpn;
use super::rx::{self, Datagram, Received, RxRing, Scan, Sink};
use super::slot::{Slot, Slots};
use super::tx::{self, MAX_PACKET, Path, Peer, Route};
use super::udp::{MAX_SEGMENTS, Udp};
use crate::host::{self, Change, Doze, Host, Letter, Link, LinkId, Sent};
use crate::oneside::{OneSide, View};

/// Least time between two questions for the port of one slot, milliseconds: an answer takes less,
/// and a slot socket queues only ten datagrams by default (`net.unix.max_dgram_qlen`).
const ASK_AGAIN_MS: u32 = 1;

/// Datagrams that go to a slot's socket before packets wait for the answer: it takes ten, from whoever sends.
const AHEAD: u32 = 4;

/// How long packets wait for the answer, milliseconds: a process that has lost the processor is back within a few of the
/// scheduler's slices. After that they go to the slot's socket, which keeps a few.
const ANSWER_MS: u32 = 20;

/// What is known about one slot of this address.
#[derive(Debug, Default)]
struct Known {
    /// The UDP port of its process, 0 if unknown.
    port: AtomicU16,
    /// When its port was asked for last, milliseconds of the link's age plus one, 0 for never.
    asked: AtomicU32,
    /// Datagrams sent to its socket since.
    by_slot: AtomicU32,
    /// When packets began to wait for the answer, in the same way, 0 if none do.
    awaited: AtomicU32,
    /// The link to its process, 0 if there is none.
    link: AtomicU32,
}

impl Known {
    /// Its port is known, or has to be asked for anew.
    fn not_awaited(&self) {
        self.by_slot.store(0, Ordering::Relaxed);
        self.awaited.store(0, Ordering::Relaxed);
    }
}

/// An open wire link. Shared by reference between all threads; closing is dropping.
#[derive(Debug)]
pub(crate) struct Wire {
    config: Config,
    interest: Arc<Interest>,
    own: Arc<Udp>,
    own_address: SocketAddr,
    names: Names,
    slots: Slots,
    mailboxes: Arc<Mailboxes>,
    election: Election,
    known: Box<[Known]>,
    lines: Lines,
    mtu: usize,
    segmenting: AtomicBool,
    injector: Option<Mutex<Injector>>,
    capture: Option<Capture>,
    /// Whether packets for other hosts, or from them, are to be expected: a queue pair has a peer there.
    travels: AtomicBool,
    abroad: Abroad,
    /// Whether something was sent by a socket since last asked.
    warm: AtomicBool,
    /// Memory shared with other processes; `None` if that may not be.
    host: Option<Host>,
    opened: Instant,
    dead: Dead,
    counters: Counters,
}

/// Writes what comes from other addresses to the capture, before it goes on.
struct Captured<'a, S> {
    wire: &'a Wire,
    sink: &'a mut S,
}

impl<S: Sink> Sink for Captured<'_, S> {
    fn datagram(&mut self, datagram: Datagram<'_>) {
        if datagram.source != self.wire.address() {
            match Express::of_packet(datagram.packet).filter(|express| express.packets() > 1) {
                // Nobody else knows the form.
                Some(express) => express.unpack(&mut [0; MAX_PACKET], |packet| {
                    self.wire.capture_from(datagram.source, packet);
                }),
                None => self.wire.capture_from(datagram.source, datagram.packet),
            }
        }
        self.sink.datagram(datagram);
    }

    fn express(&mut self, express: &mut Express<'_>) -> bool {
        self.sink.express(express)
    }
}

impl Wire {
    /// Opens the link: binds the sockets, takes a first slot, becomes the holder or finds it.
    ///
    /// May take 0.3 s when the holder is just exiting.
    ///
    /// # Errors
    /// See [`NetError`]; each says what to do.
    pub(crate) fn open(config: &Config) -> Result<Self, NetError> {
        let address = config.address;
        if address.is_unspecified() || address.is_multicast() {
            return Err(NetError::NotLocal { address });
        }
        let own =
            Udp::bind(config.socket_address(address, 0), config.buffer).map_err(|source| {
                match source.kind() {
                    io::ErrorKind::AddrNotAvailable => NetError::NotLocal { address },
                    _ => NetError::Io { what: "bind a UDP socket", source },
                }
            })?;
        let own = Arc::new(own);
        let mtu = config::mtu_of(address)?;
        let roce = config.socket_address(address, config.port);
        let names = Names::new(roce);
        let interest = Arc::new(Interest::new().map_err(NetError::io("make an epoll set"))?);
        let host = (config.link >= LinkChoice::Host).then(|| Host::open(own.port())).flatten();
        if let Some(host) = &host {
            interest.add(host.bell_fd()).map_err(NetError::io("watch the bell"))?;
        }
        let wire = Self {
            travels: AtomicBool::new(false),
            abroad: Abroad::default(),
            warm: AtomicBool::new(false),
            host,
            own_address: config.socket_address(address, own.port()),
            slots: Slots::new(address, config.buffer),
            mailboxes: Arc::default(),
            election: Election::open(&names.holder(), roce, config.buffer, interest.clone())?,
            interest,
            names,
            known: (0..qpn::SLOTS).map(|_| Known::default()).collect(),
            lines: Lines::default(),
            mtu,
            segmenting: AtomicBool::new(true),
            injector: match config.faults.any() {
                true => {
                    let injector = Injector::new(config.faults, &own);
                    Some(Mutex::new(injector.map_err(NetError::io("start a thread for delayed packets"))?))
                }
                false => None,
            },
            capture: match &config.capture {
                Some(path) => {
                    Some(Capture::open(path).map_err(NetError::io("open the file of IBEX_SOFT_PCAP"))?)
                }
                None => None,
            },
            own,
            opened: Instant::now(),
            dead: Dead::new().map_err(NetError::io("make a pipe"))?,
            counters: Counters::default(),
            config: config.clone(),
        };
        wire.slots.open(&wire.names, |slot| wire.own_slot(slot))?;
        Ok(wire)
    }

    /// The address of the device.
    pub(crate) fn address(&self) -> IpAddr {
        self.config.address
    }

    /// Whether the host knows a way from here to `address`.
    ///
    /// # Errors
    /// Those of connect(2): `ENETUNREACH`, `EHOSTUNREACH`, `EINVAL` from a loopback address to elsewhere.
    pub(crate) fn reach(&self, address: IpAddr) -> io::Result<()> {
        let probe = std::net::UdpSocket::bind(self.config.socket_address(self.address(), 0))?;
        probe.connect(self.roce_address(address))
    }

    /// The largest IB MTU that the interface carries: 256, 512, 1024, 2048 or 4096 bytes.
    pub(crate) fn mtu(&self) -> usize {
        self.mtu
    }

    /// The best link that may be used.
    pub(crate) fn link_choice(&self) -> LinkChoice {
        self.config.link
    }

    /// Bytes of receive buffer the kernel granted, by its own accounting: it charges each packet with
    /// its overhead, so count on about half of it for payload.
    pub(crate) fn rcvbuf(&self) -> usize {
        self.own.receive_buffer()
    }

    /// Gives out a queue pair number that was not in use lately.
    ///
    /// # Errors
    /// [`NetError::NoQpn`], [`NetError::NoSlot`].
    pub(crate) fn alloc_qpn(&self) -> Result<u32, NetError> {
        self.slots.alloc(&self.names, |slot| self.own_slot(slot))
    }

    /// Takes back a number of [`Wire::alloc_qpn`]; others are ignored.
    pub(crate) fn free_qpn(&self, qpn: u32) {
        self.slots.free(qpn);
    }

    /// Asks a peer on this address for its UDP port, and one on another whether it is a device like this. Call it when a queue
    /// pair learns its destination, so that the first packet need not ask, and when one retransmits by timeout: the slot may
    /// have another owner now. A known port stays in use until the owner tells
    /// another, or turns out to be gone. At most one system call, at most one a millisecond per slot asked.
    pub(crate) fn hello(&self, peer: Peer) {
        if peer.address != self.address() {
            self.travels.store(true, Ordering::Relaxed);
            return self.ask_abroad(peer.address);
        }
        let slot = qpn::slot(peer.qpn);
        let local = slot != 0 && !self.is_own(slot);
        if let Some(first) = self.slots.first()
            && local
            && self.may_ask(slot)
        {
            // A full queue will be asked again by the first packet.
            let _ = self.greet(first, slot, true);
        }
    }

    /// Receives up to about `budget` packets from each socket (what the kernel coalesced is not split)
    /// and calls `sink` for each, in order of arrival per socket. Never blocks.
    pub(crate) fn recv(
        &self,
        ring: &mut RxRing,
        scan: Scan,
        budget: usize,
        sink: &mut impl Sink,
    ) -> Received {
        if !self.captures() {
            return rx::recv(self, ring, scan, budget, sink);
        }
        rx::recv(self, ring, scan, budget, &mut Captured { wire: self, sink })
    }

    /// The descriptors to watch for POLLIN, level-triggered: one is readable when [`Wire::recv`] with
    /// [`Scan::Full`] has something to do. They are the same for the life of the link.
    pub(crate) fn fds(&self) -> [RawFd; 2] {
        // Our own socket is not in the set: that would cost 0.2 us with every packet, sleeping or not.
        [self.own.fd(), self.interest.fd()]
    }

    /// Notices that the holder has gone and takes its place. A receive with [`Scan::Full`] that finds
    /// nothing does this too; who receives otherwise calls it now and then, and at the latest at the
    /// instant it returned.
    pub(crate) fn housekeeping(&self, now: Instant) -> Option<Instant> {
        let (next, elected) = self.election.tend(now);
        self.counters.takeovers.add(elected.into());
        next
    }

    /// Whether this process holds the RoCE port.
    #[cfg(test)]
    pub(super) fn is_holder(&self) -> bool {
        self.election.holder().is_some()
    }

    /// The counters so far.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let holder = self.election.holder().map_or(0, Udp::dropped);
        let mut snapshot = self.counters.snapshot(self.own.dropped() + holder);
        snapshot.tx_via_host += self.host.as_ref().map_or(0, Host::express_packets);
        snapshot
    }

    /// For the child side of fork(2): replaces every descriptor of the link by a dead one, so that
    /// the child keeps neither the port nor the slots of its parent alive. Async-signal-safe.
    pub(crate) fn disarm_in_child(&self) {
        self.interest.fds().into_iter().for_each(|fd| self.dead.replace(fd));
        self.dead.replace(self.own.fd());
        self.slots.fds().for_each(|fd| self.dead.replace(fd));
        self.host.iter().flat_map(Host::fds).for_each(|fd| self.dead.replace(fd));
        self.mailboxes.each_fd(|fd| self.dead.replace(fd));
        self.election.fds().for_each(|fd| self.dead.replace(fd));
    }

    /// Sleeps on [`Wire::fds`], at most for `milliseconds`; whether one is readable.
    #[cfg(test)]
    pub(super) fn sleep(&self, milliseconds: i32) -> bool {
        Interest::sleep(self.fds(), milliseconds)
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(super) fn own(&self) -> &Arc<Udp> {
        &self.own
    }

    pub(super) fn own_address(&self) -> SocketAddr {
        self.own_address
    }

    pub(super) fn holder(&self) -> Option<&Udp> {
        self.election.holder()
    }

    pub(super) fn slots(&self) -> &Slots {
        &self.slots
    }

    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    pub(super) fn mailboxes(&self) -> &Arc<Mailboxes> {
        &self.mailboxes
    }

    pub(super) fn interest(&self) -> &Arc<Interest> {
        &self.interest
    }

    /// The slot this process had first, by which its own names for connections are told from others'.
    pub(crate) fn first_slot(&self) -> u16 {
        self.slots.first().map_or(0, |slot| slot.number)
    }

    /// Whether this process owns `slot`.
    pub(crate) fn owns(&self, slot: u16) -> bool {
        self.is_own(slot)
    }

    /// The RoCE port at `address`.
    pub(super) fn roce_address(&self, address: IpAddr) -> SocketAddr {
        self.config.socket_address(address, self.config.port)
    }

    pub(super) fn roce_port(&self) -> u16 {
        self.config.port
    }

    /// Another port of our own address.
    pub(super) fn neighbour(&self, port: u16) -> SocketAddr {
        let mut address = self.own_address;
        address.set_port(port);
        address
    }

    /// A line to a queue pair, if packets for it go to the port of another process of ours, or to a device at another address
    /// that is known to be like this one; it lasts as long as somebody keeps it. The batch that asked for it uses it from then on.
    pub(crate) fn line(&self, to: Peer) -> Option<Arc<Line>> {
        match self.route(to) {
            Route::Udp(address) if address.ip() != self.address() => self.abroad.line(address.ip()),
            Route::Udp(address) if self.may_have_line(address) => {
                self.lines.open(self.own(), self.own_address, address, self.config.buffer)
            }
            _ => None,
        }
    }

    /// Whether packets to `to` go by `line`, now.
    #[inline]
    pub(crate) fn goes_by(&self, line: &Line, to: Peer) -> bool {
        if to.address != self.address() {
            return line.leads_to(to.address);
        }
        let slot = qpn::slot(to.qpn);
        self.link_of(slot).is_none() && self.port_of(slot) == Some(line.port())
    }

    /// Sends a short message, `len` bytes with its padding, past any batch: what was collected for its queue pair before must
    /// have been sent. Lost if it cannot be.
    pub(crate) fn send_express(
        &self,
        line: &Line,
        mut datagram: express::Datagram,
        len: usize,
        (bth, ack): (&Bth, Option<Ack>),
    ) {
        // An answer may come the same way.
        self.warm();
        let packet = datagram.finish(len, bth, ack);
        let counters = self.counters();
        let sent = match self.injector() {
            None => line.send(packet),
            Some(mut injector) => {
                let len = packet.len();
                return injector.send(self, &line.path(), packet, len);
            }
        };
        match sent {
            Ok(()) => {
                counters.tx_packets.add(1 + u64::from(ack.is_some()));
                counters.tx_bytes.add(packet.len() as u64);
            }
            Err(_) => counters.tx_dropped.add(1),
        }
    }

    /// Whether there may be a line to `address`. Delayed packets all leave by our own socket.
    pub(super) fn may_have_line(&self, address: SocketAddr) -> bool {
        if address.ip() != self.address() {
            return self.abroad.line(address.ip()).is_some();
        }
        address.port() != self.config.port && self.injector.is_none()
    }

    pub(super) fn abroad(&self) -> &Abroad {
        &self.abroad
    }

    /// A number that is another one when lines have come or gone, or may now be had.
    #[inline]
    pub(crate) fn line_changes(&self) -> u32 {
        self.lines.changes()
    }

    pub(super) fn lines(&self) -> &Lines {
        &self.lines
    }

    pub(super) fn route(&self, to: Peer) -> Route {
        tx::route(self, to)
    }

    /// The UDP port of the process that owns `slot`, if it is known.
    pub(super) fn port_of(&self, slot: u16) -> Option<u16> {
        let port = self.known[usize::from(slot)].port.load(Ordering::Relaxed);
        (port != 0).then_some(port)
    }

    /// Whether this process owns `slot`: nobody else is ever learned with our port.
    pub(super) fn is_own(&self, slot: u16) -> bool {
        self.port_of(slot) == Some(self.own.port())
    }

    /// Packets in one batch: one once a route turned out not to segment.
    pub(super) fn max_segments(&self) -> usize {
        if self.segmenting.load(Ordering::Relaxed) { MAX_SEGMENTS } else { 1 }
    }

    /// Records in one batch for a link: one if the injector has to see each.
    pub(super) fn max_records(&self) -> usize {
        if self.injector.is_none() { MAX_SEGMENTS } else { 1 }
    }

    /// Whether every packet is to be seen.
    pub(crate) fn captures(&self) -> bool {
        self.capture.is_some()
    }

    /// Writes a packet to the capture that stays on this address and passes by the link.
    pub(crate) fn capture_passed(&self, packet: &[u8]) {
        self.capture(&Path::None, packet, packet.len());
    }

    /// Writes what is sent along `path` to the capture, if there is one.
    pub(super) fn capture(&self, path: &Path, packets: &[u8], segment: usize) {
        if let Some(capture) = &self.capture {
            capture.sent(self.own_address, self.roce_address(self.address()), path, packets, segment);
        }
    }

    /// Writes a packet that came from another address to the capture, if there is one.
    pub(super) fn capture_from(&self, source: IpAddr, packet: &[u8]) {
        if let Some(capture) = &self.capture {
            capture.unsealed(self.roce_address(source), self.roce_address(self.address()), packet);
        }
    }

    pub(super) fn stop_segmenting(&self) {
        self.segmenting.store(false, Ordering::Relaxed);
    }

    /// Sockets are in use: they have to be looked at.
    #[inline]
    pub(super) fn warm(&self) {
        if !self.warm.load(Ordering::Relaxed) {
            self.warm.store(true, Ordering::Relaxed);
        }
    }

    /// Whether sockets are in use, or were since this was last asked.
    #[inline]
    pub(super) fn take_warmth(&self) -> bool {
        let warm = self.warm.load(Ordering::Relaxed);
        if warm {
            self.warm.store(false, Ordering::Relaxed);
        }
        warm || self.travels.load(Ordering::Relaxed)
    }

    /// Memory shared with others.
    pub(super) fn host(&self) -> Option<&Host> {
        self.host.as_ref()
    }

    /// The link to the process that owns `slot`.
    #[inline]
    pub(super) fn link_of(&self, slot: u16) -> Option<LinkId> {
        let link = self.known[usize::from(slot)].link.load(Ordering::Relaxed);
        (link != 0).then_some(link)
    }

    /// Whether a queue pair is, or could be, one of this process's.
    pub(crate) fn is_here(&self, peer: Peer) -> bool {
        peer.address == self.address() && self.is_own(qpn::slot(peer.qpn))
    }

    /// The link to the process of a queue pair, if there is one and it is not our own.
    #[inline]
    pub(crate) fn link_to(&self, peer: Peer) -> Option<LinkId> {
        let slot = qpn::slot(peer.qpn);
        if peer.address == self.address() && !self.is_own(slot) { self.link_of(slot) } else { None }
    }

    /// The link that packets to a queue pair go over, if they do; perhaps to this process itself.
    #[inline]
    pub(crate) fn lane_to(&self, peer: Peer) -> Option<LinkId> {
        if peer.address == self.address() { self.link_of(qpn::slot(peer.qpn)) } else { None }
    }

    /// Whether packets to a queue pair on this address go over a link.
    #[inline]
    pub(crate) fn goes_over(&self, peer: Peer, link: LinkId) -> bool {
        self.known[usize::from(qpn::slot(peer.qpn))].link.load(Ordering::Relaxed) == link
    }

    /// A link by its number, while there is one.
    pub(crate) fn link(&self, link: LinkId) -> Option<Arc<Link>> {
        self.host.as_ref()?.link(link)
    }

    /// Sends the acknowledgement that was left to a link, if nothing has taken it along.
    #[inline]
    pub(crate) fn send_left(&self, link: Option<&Arc<Link>>) {
        if let Some(link) = link.filter(|link| link.has_left())
            && link.send_left() == Sent::Later
            && let Some(host) = &self.host
        {
            host.note_kept();
        }
    }

    /// The memory of the process at the other end of a link, as far as it lets us reach it.
    pub(crate) fn view(&self, link: LinkId) -> Option<Arc<View>> {
        self.host.as_ref()?.link(link)?.view()
    }

    /// What other processes of this host may do with this one's memory; `None` if there are to be none.
    #[inline]
    pub(crate) fn memory(&self) -> Option<&OneSide> {
        self.host.as_ref()?.memory()
    }

    /// Sends what links have kept for want of room, where there is some by now.
    #[inline]
    pub(crate) fn push_on(&self) {
        if let Some(host) = &self.host {
            host.push_on();
        }
    }

    /// Announces somebody who is going to sleep on [`Wire::fds`]; a receive with [`Scan::Rings`] must find nothing
    /// before he does. `None` if only sockets can wake him.
    pub(crate) fn doze(&self) -> Option<Doze<'_>> {
        self.host.as_ref().map(Host::doze)
    }

    /// Notes the port that a process told as the owner of `slot`. Whether it may share memory with this one, its
    /// datagram tells.
    pub(super) fn learn(&self, slot: u16, port: u16, letter: &Letter) {
        if port == 0 || port == self.own.port() || self.is_own(slot) {
            return;
        }
        self.known[usize::from(slot)].not_awaited();
        if self.known[usize::from(slot)].port.swap(port, Ordering::Relaxed) != port {
            self.counters.learned.add(1);
        }
        if let Some(host) = &self.host {
            if !host.knows(letter) {
                // What it says of a port must not lead to the link of another, nor to an attempt at one.
                self.known[usize::from(slot)].link.store(0, Ordering::Relaxed);
                return;
            }
            match host.link_to(port) {
                Some(link) => self.known[usize::from(slot)].link.store(link, Ordering::Relaxed),
                None => {
                    self.known[usize::from(slot)].link.store(0, Ordering::Relaxed);
                    self.invite(host, slot, port);
                }
            }
        }
    }

    /// Invites the process with `port`, which owns `slot`, to share memory, if that is up to us.
    fn invite(&self, host: &Host, slot: u16, port: u16) {
        let Some(from) = self.slots.first() else { return };
        let Some(invitation) = host.invite(port, |fd| self.interest.remove(fd)) else { return };
        let (fd, tag) = invitation.watch;
        let header = self.hello_header(Kind::Invite, false).emit();
        let sent = self.interest.add_tagged(fd, tag as u64 + 1).and_then(|()| {
            let address = self.names.slot_address(slot)?;
            host::send(from.socket.as_fd(), Some(&address), &header, &[invitation.end.as_fd()])
        });
        // Otherwise the connection's other end closes here, which ends the attempt.
        let _ = sent;
    }

    /// Answers an invitation that came to a slot of ours.
    pub(super) fn invited(&self, port: u16, letter: &mut Letter) {
        let Some(host) = &self.host else { return };
        let unwatch = |fd| self.interest.remove(fd);
        let Some((fd, tag)) = host.accept(port, letter, unwatch) else { return };
        if self.interest.add_tagged(fd, tag as u64 + 1).is_err() {
            self.attend(tag);
        }
    }

    /// Attends to connections of peers that have something to say, or are gone.
    pub(super) fn attend_ready(&self) {
        self.interest.ready().for_each(|tag| {
            self.attend(tag as usize - 1);
        });
    }

    fn attend(&self, tag: usize) -> bool {
        let change = self.host.as_ref().and_then(|host| host.attend(tag, |fd| self.interest.remove(fd)));
        self.note(change)
    }

    /// Parts with a peer that wrote garbage.
    pub(super) fn expel(&self) {
        while self.note(self.host.as_ref().and_then(|host| host.expel(|fd| self.interest.remove(fd)))) {}
    }

    /// Changes routes as links come and go.
    fn note(&self, change: Option<Change>) -> bool {
        match change {
            None => return false,
            Some(Change::Up(port, link)) => {
                self.counters.attached.add(1);
                for known in self.known.iter().filter(|known| known.port.load(Ordering::Relaxed) == port) {
                    known.link.store(link, Ordering::Relaxed);
                }
            }
            Some(Change::Down(port, link)) => {
                self.counters.detached.add(1);
                for known in self.known.iter().filter(|known| known.link.load(Ordering::Relaxed) == link) {
                    known.link.store(0, Ordering::Relaxed);
                    known.not_awaited();
                    // Gone, or to be met anew.
                    let _ = known.port.compare_exchange(port, 0, Ordering::Relaxed, Ordering::Relaxed);
                }
            }
        }
        true
    }

    /// Forgets the port of a slot that nobody owns any more.
    fn unlearn(&self, slot: u16) {
        if !self.is_own(slot) && self.known[usize::from(slot)].port.swap(0, Ordering::Relaxed) != 0 {
            self.known[usize::from(slot)].not_awaited();
            self.counters.forgotten.add(1);
        }
    }

    /// Whether packets for `slot`, whose port is not known, should wait for the answer of its owner, who is asked if need be,
    /// and not go to its socket: of many sent at once, as datagram services do, most would find that full.
    pub(super) fn awaits_port(&self, slot: u16) -> bool {
        let known = &self.known[usize::from(slot)];
        if known.by_slot.fetch_add(1, Ordering::Relaxed) < AHEAD {
            return false;
        }
        let Some(first) = self.slots.first() else { return false };
        if self.may_ask(slot)
            && self.greet(first, slot, true).is_err_and(|error| {
                // A full queue: asked again in a while.
                error.kind() != io::ErrorKind::WouldBlock
            })
        {
            // There is nobody.
            return false;
        }
        // The answer comes by a socket.
        self.warm();
        let now = self.age();
        match known.awaited.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => true,
            Err(since) => now.wrapping_sub(since) < ANSWER_MS,
        }
    }

    /// Milliseconds since the link was opened, never 0. Wraps after 49 days; then one question may come early.
    pub(super) fn age(&self) -> u32 {
        (self.opened.elapsed().as_millis() as u32).wrapping_add(1).max(1)
    }

    /// Whether it is time to ask for `slot`'s port, if so taking note that it was asked.
    pub(super) fn may_ask(&self, slot: u16) -> bool {
        let now = self.age();
        let asked = &self.known[usize::from(slot)].asked;
        let last = asked.load(Ordering::Relaxed);
        let due = last == 0 || now.wrapping_sub(last) >= ASK_AGAIN_MS;
        due && asked.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Tells the owner of slot `to`, from our slot `from`, our port, perhaps asking for its own.
    pub(super) fn greet(&self, from: &Slot, to: u16, ask: bool) -> io::Result<()> {
        self.send_from_slot(from, to, &self.hello_header(Kind::Hello, ask), &[])
    }

    /// The header of a datagram without packets.
    fn hello_header(&self, kind: Kind, ask: bool) -> Header {
        Header { kind, ask, segment: 0, first: 0, port: self.own.port(), source: self.address() }
    }

    /// Receives a datagram from a slot of ours, descriptors only with an invitation of somebody who may invite.
    pub(super) fn receive_letter(&self, slot: &Slot, buffer: &mut [u8]) -> io::Result<Letter> {
        let socket = slot.socket.as_fd();
        let Some(host) = &self.host else { return host::receive_bare(socket, buffer) };
        let mut start = [0; HEADER];
        let letter = host::peek(socket, &mut start)?;
        let header = Header::parse(&start[..letter.length.min(HEADER)]);
        let invites = header.is_some_and(|(header, _)| header.kind == Kind::Invite);
        if invites && host.knows(&letter) {
            host::receive(socket, buffer)
        } else {
            host::receive_bare(socket, buffer)
        }
    }

    /// Sends a datagram from our first slot to slot `to`.
    pub(super) fn send_to_slot(&self, to: u16, header: &Header, packets: &[u8]) -> io::Result<()> {
        // Opening took it.
        let from = self.slots.first().ok_or(io::ErrorKind::NotConnected)?;
        self.send_from_slot(from, to, header, packets)
    }

    /// Sends a datagram from slot to slot; forgets the receiver's port if nobody owns it any more.
    fn send_from_slot(&self, from: &Slot, to: u16, header: &Header, packets: &[u8]) -> io::Result<()> {
        let header = header.emit();
        let parts = [IoSlice::new(&header), IoSlice::new(packets)];
        let address = self.names.slot_address(to)?;
        let result = SockRef::from(&from.socket).send_to_vectored(&parts, &address);
        if result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            self.unlearn(to);
        }
        result.map(drop)
    }

    /// Whether what is sent has to be packets: they are to meet faults, or to be seen.
    pub(crate) fn wants_packets(&self) -> bool {
        self.injector.is_some() || self.captures()
    }

    /// The fault injector, if there is one.
    pub(super) fn injector(&self) -> Option<MutexGuard<'_, Injector>> {
        let injector = self.injector.as_ref()?;
        Some(injector.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Marks a slot as ours, which starts it being routed to our own socket.
    fn own_slot(&self, slot: &Slot) -> Result<(), NetError> {
        self.interest.add(slot.socket.as_raw_fd()).map_err(NetError::io("watch a slot socket"))?;
        let known = &self.known[usize::from(slot.number)];
        known.port.store(self.own.port(), Ordering::Relaxed);
        if let Some(host) = &self.host {
            host::ask_for_credentials(slot.socket.as_fd()).map_err(NetError::io("set up a slot socket"))?;
            known.link.store(host.link_to(self.own.port()).unwrap_or(0), Ordering::Relaxed);
        }
        Ok(())
    }
}
