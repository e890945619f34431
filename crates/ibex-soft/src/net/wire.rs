//! The link itself: its sockets, and what it has learned about peers on the same address.
//!
//! Owns the table of learned UDP ports and puts the parts together: [`super::udp`] carries,
//! [`super::slot`] numbers, [`super::holder`] elects, [`super::tx`] sends, [`super::rx`] receives.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd as _, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use socket2::SockRef;

use super::config::{self, Config, LinkChoice};
use super::counters::{Counters, Snapshot};
use super::disarm::Dead;
use super::error::NetError;
use super::fault::Injector;
use super::forward::{Header, Kind, Names};
use super::holder::Election;
use super::interest::Interest;
use super::qpn;
use super::rx::{self, Datagram, Received, RxRing, Scan};
use super::slot::{Slot, Slots};
use super::tx::{self, Peer, Route};
use super::udp::{MAX_SEGMENTS, Udp};

/// Least time between two questions for the port of one slot, milliseconds: an answer takes less,
/// and a slot socket queues only ten datagrams by default (`net.unix.max_dgram_qlen`).
const ASK_AGAIN_MS: u32 = 1;

/// What is known about one slot of this address.
#[derive(Debug, Default)]
struct Known {
    /// The UDP port of its process, 0 if unknown.
    port: AtomicU16,
    /// When its port was asked for last, milliseconds of the link's age plus one, 0 for never.
    asked: AtomicU32,
}

/// An open wire link. Shared by reference between all threads; closing is dropping.
#[derive(Debug)]
pub(crate) struct Wire {
    config: Config,
    interest: Arc<Interest>,
    own: Udp,
    own_address: SocketAddr,
    names: Names,
    slots: Slots,
    election: Election,
    known: Box<[Known]>,
    mtu: usize,
    segmenting: AtomicBool,
    injector: Option<Mutex<Injector>>,
    opened: Instant,
    dead: Dead,
    counters: Counters,
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
        let mtu = config::mtu_of(address)?;
        let roce = config.socket_address(address, config.port);
        let names = Names::new(roce);
        let interest = Arc::new(Interest::new().map_err(NetError::io("make an epoll set"))?);
        let wire = Self {
            own_address: config.socket_address(address, own.port()),
            own,
            slots: Slots::new(address, config.buffer),
            election: Election::open(&names.holder(), roce, config.buffer, interest.clone())?,
            interest,
            names,
            known: (0..qpn::SLOTS).map(|_| Known::default()).collect(),
            mtu,
            segmenting: AtomicBool::new(true),
            injector: config.faults.any().then(|| Mutex::new(Injector::new(config.faults))),
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

    /// Asks a peer on this address for its UDP port. Call it when a queue pair learns its destination,
    /// so that the first packet need not ask, and when one retransmits by timeout: the slot may have
    /// another owner now. A known port stays in use until the owner tells another, or turns out to be
    /// gone. At most one system call, at most one a millisecond per slot asked.
    pub(crate) fn hello(&self, peer: Peer) {
        let slot = qpn::slot(peer.qpn);
        let local = peer.address == self.address() && slot != 0 && !self.is_own(slot);
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
        mut sink: impl FnMut(Datagram<'_>),
    ) -> Received {
        rx::recv(self, ring, scan, budget, &mut sink)
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
        self.counters.snapshot(self.own.dropped() + holder)
    }

    /// For the child side of fork(2): replaces every descriptor of the link by a dead one, so that
    /// the child keeps neither the port nor the slots of its parent alive. Async-signal-safe.
    pub(crate) fn disarm_in_child(&self) {
        self.interest.fds().into_iter().for_each(|fd| self.dead.replace(fd));
        self.dead.replace(self.own.fd());
        self.slots.fds().for_each(|fd| self.dead.replace(fd));
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

    pub(super) fn own(&self) -> &Udp {
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
        if self.injector.is_none() && self.segmenting.load(Ordering::Relaxed) { MAX_SEGMENTS } else { 1 }
    }

    pub(super) fn stop_segmenting(&self) {
        self.segmenting.store(false, Ordering::Relaxed);
    }

    /// Notes the port that a process told as the owner of `slot`.
    pub(super) fn learn(&self, slot: u16, port: u16) {
        if port == 0 || port == self.own.port() || self.is_own(slot) {
            return;
        }
        if self.known[usize::from(slot)].port.swap(port, Ordering::Relaxed) != port {
            self.counters.learned.add(1);
        }
    }

    /// Forgets the port of a slot that nobody owns any more.
    fn unlearn(&self, slot: u16) {
        if !self.is_own(slot) && self.known[usize::from(slot)].port.swap(0, Ordering::Relaxed) != 0 {
            self.counters.forgotten.add(1);
        }
    }

    /// Whether it is time to ask for `slot`'s port, if so taking note that it was asked.
    pub(super) fn may_ask(&self, slot: u16) -> bool {
        // Wraps after 49 days; then one question may come early.
        let now = (self.opened.elapsed().as_millis() as u32).wrapping_add(1).max(1);
        let asked = &self.known[usize::from(slot)].asked;
        let last = asked.load(Ordering::Relaxed);
        let due = last == 0 || now.wrapping_sub(last) >= ASK_AGAIN_MS;
        due && asked.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Tells the owner of slot `to`, from our slot `from`, our port, perhaps asking for its own.
    pub(super) fn greet(&self, from: &Slot, to: u16, ask: bool) -> io::Result<()> {
        let header = Header {
            kind: Kind::Hello,
            ask,
            segment: 0,
            first: 0,
            port: self.own.port(),
            source: self.address(),
        };
        self.send_from_slot(from, to, &header, &[])
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

    /// The fault injector, if there is one.
    pub(super) fn injector(&self) -> Option<MutexGuard<'_, Injector>> {
        let injector = self.injector.as_ref()?;
        Some(injector.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Marks a slot as ours, which starts it being routed to our own socket.
    fn own_slot(&self, slot: &Slot) -> Result<(), NetError> {
        self.interest.add(slot.socket.as_raw_fd()).map_err(NetError::io("watch a slot socket"))?;
        self.known[usize::from(slot.number)].port.store(self.own.port(), Ordering::Relaxed);
        Ok(())
    }
}
