//! The host link: packets between processes of one user on one host, through shared memory instead of UDP.
//!
//! Owns the peers this process is attached to: how two processes find out that they may share memory, the rings, who is
//! woken, and what happens when one of them ends. It carries packets as the wire does, the same bytes without the ICRC, and
//! knows of queue pairs no more than their numbers; semantics are therefore the wire's. What it changes is the cost: while both processes
//! are awake no system call is made.
//!
//! | file | owns |
//! |---|---|
//! | `segment` | shared files and mappings; the only accesses to them |
//! | `ring` | the rings' layout, their writing and their reading end |
//! | `bell` | who sleeps and is to be woken |
//! | `link` | the sending half of a link; a full ring |
//! | `attach` | the handshake, and the connection that tells of the peer's end |
//! | `greeting`, `ancillary` | its messages; descriptors and credentials beside them |
//!
//! # Attaching
//!
//! Peers on one address greet each other over their slots' sockets ([`crate::net`]). Of two processes that have learned
//! each other's UDP port the one with the lower asks: it sends one end of a socket pair to the other's slot. The other makes
//! the file with the rings and answers on the pair; both check that the kernel names the same user. From then on every
//! slot of the peer's is routed to the link. Whoever may not share memory (another user, a process with more rights than
//! its user, another network namespace, `IBEX_SOFT_LINK=wire`) does not answer, and the peers stay on the wire.
//!
//! # The end
//!
//! The pair hangs up when the peer ends, however it does. What it had published is still taken, then the memory is
//! unmapped and its slots are forgotten: its queue pairs meet silence, as on the wire. A peer that is stopped reads
//! nothing: its ring fills, and packets are lost until it goes on. A peer that writes what no ring holds is dropped, and
//! met on the wire. Everything shared is anonymous, so that the kernel frees it.
//!
//! # Security
//!
//! Only processes of the same user are invited, answered and attached, and only their descriptors received; such processes
//! could as well trace each other. What a peer writes is copied before it is looked at, and checked. Others meet the wire,
//! where they may say what anybody may.

mod ancillary;
mod attach;
mod bell;
mod greeting;
mod link;
mod ring;
pub(crate) mod segment;

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

pub(crate) use ancillary::{Letter, ask_for_credentials, peek, receive, receive_bare, send};
pub(crate) use attach::Change;
pub(crate) use bell::Doze;
pub(crate) use link::{Link, LinkId, Room, Sent};
pub(crate) use ring::{HEADER, header, length, record};

use attach::Entry;
use bell::{Bell, PeerBell};
use ring::{Garbage, LINE, Reader, Record, Side, Writer};
use segment::Mapping;

use crate::net::express::Express;
use crate::oneside::OneSide;

/// Most peers: as many as there are slots.
const MAX_PEERS: usize = 1 << 10;

/// Looks at all rings in a round, until something has come.
const LOOKS: usize = 32;

/// With more rings than this a round is not much longer than a look at all of them, whose lines come from as many places.
const FEW_RINGS: usize = 4;

/// What came over a link.
pub(crate) enum Arrival<'a, 'b> {
    Packet(&'a [u8]),
    Express(&'a mut Express<'b>),
}

/// A process's links.
#[derive(Debug)]
pub(crate) struct Host {
    /// Our own UDP port.
    port: u16,
    /// The user with whose other processes memory is shared.
    user: u32,
    bell: Bell,
    /// What peers may do with our memory; `None` if the system refuses the files it takes.
    memory: Option<OneSide>,
    peers: Mutex<Peers>,
    /// Changes whenever links come or go.
    generation: AtomicU32,
    /// Packets sent in express records over links that are gone.
    gone: AtomicU64,
    /// Whether a link may have kept what was sent over it.
    kept: AtomicBool,
    /// The connections to peers, readable without the lock: for fork's child. −1 where there is none.
    connections: Box<[AtomicI32]>,
}

#[derive(Debug, Default)]
struct Peers {
    /// By the tag under which their connections are watched.
    entries: Vec<Option<Entry>>,
    /// The link to ourselves.
    own: Option<(Arc<Link>, Arc<Mapping>)>,
    /// Links there ever were.
    count: LinkId,
    /// Processes, by their ports, that are not to be met again before a time.
    avoided: Vec<(u16, Instant)>,
}

/// The reading half of a link; belongs to whoever receives.
#[derive(Debug)]
pub(crate) struct Incoming {
    link: Arc<Link>,
    map: Arc<Mapping>,
    reader: Reader,
    /// Whether nothing has been read yet: what the peer sent by other ways before comes first.
    fresh: bool,
}

/// The reading halves of all links; keep one per receiving engine.
#[derive(Debug)]
pub(crate) struct Inbox {
    incoming: Vec<Incoming>,
    generation: u32,
    /// Whether a link is down that should not be: [`Host::expel`].
    pub(crate) unfit: bool,
    packet: Box<[u8; crate::net::MAX_PACKET]>,
}

impl Host {
    /// No peers yet, for the process with UDP port `port`; `None` if it must not share memory, or cannot.
    pub(crate) fn open(port: u16) -> Option<Host> {
        let user = ancillary::user()?;
        let host = Host {
            port,
            user,
            bell: Bell::new().ok()?,
            memory: OneSide::new().ok(),
            peers: Mutex::default(),
            generation: AtomicU32::new(1),
            gone: AtomicU64::new(0),
            kept: AtomicBool::new(false),
            connections: (0..MAX_PEERS).map(|_| AtomicI32::new(-1)).collect(),
        };
        host.attach_self().ok()?;
        Some(host)
    }

    /// A ring from this process to itself.
    fn attach_self(&self) -> io::Result<()> {
        let (_file, map) = segment::create(ring::PAIR, false)?;
        let map = Arc::new(map);
        let bell = self.own_bell()?;
        let mut peers = self.lock();
        peers.count += 1;
        let link = Link::new(peers.count, self.port, map.clone(), Writer::new(Side::Forth), bell, None);
        peers.own = Some((Arc::new(link), map));
        Ok(())
    }

    fn own_bell(&self) -> io::Result<PeerBell> {
        let [page, event] = self.bell.fds();
        PeerBell::new(&page.try_clone_to_owned()?, event.try_clone_to_owned()?)
    }

    /// What peers may do with our memory.
    pub(crate) fn memory(&self) -> Option<&OneSide> {
        self.memory.as_ref()
    }

    /// The descriptor that is readable when a peer rang.
    pub(crate) fn bell_fd(&self) -> RawFd {
        self.bell.fd()
    }

    /// The descriptors that a forked child must not keep. Async-signal-safe.
    pub(crate) fn fds(&self) -> impl Iterator<Item = RawFd> {
        let connections = self.connections.iter().map(|fd| fd.load(Ordering::Acquire));
        connections.filter(|&fd| fd >= 0).chain([self.bell.fd()])
    }

    /// Announces a sleeper: peers ring from now on. [`Host::receive`] must find nothing before it sleeps.
    pub(crate) fn doze(&self) -> Doze<'_> {
        self.bell.doze()
    }

    /// Takes note of the bell, if it was rung; [`Host::receive`] must follow.
    pub(crate) fn answer(&self) {
        self.bell.answer();
    }

    /// The link of this number, while there is one.
    pub(crate) fn link(&self, id: LinkId) -> Option<Arc<Link>> {
        let peers = self.lock();
        let own = peers.own.iter().map(|(link, _)| link);
        let live = peers.entries.iter().flatten().filter_map(Entry::link);
        own.chain(live).find(|link| link.id == id && !link.is_down()).cloned()
    }

    /// The link to the process with this UDP port, perhaps our own.
    pub(crate) fn link_to(&self, port: u16) -> Option<LinkId> {
        let peers = self.lock();
        let own = peers.own.iter().map(|(link, _)| link);
        let live = peers.entries.iter().flatten().filter_map(Entry::link);
        own.chain(live).find(|link| link.port == port && !link.is_down()).map(|link| link.id)
    }

    /// Packets sent in express records over any link.
    pub(crate) fn express_packets(&self) -> u64 {
        let peers = self.lock();
        let own = peers.own.iter().map(|(link, _)| link);
        let live = peers.entries.iter().flatten().filter_map(Entry::link);
        let sent: u64 = own.chain(live).map(|link| link.express_packets()).sum();
        self.gone.load(Ordering::Relaxed) + sent
    }

    /// Notes that a link has kept what was sent over it.
    pub(crate) fn note_kept(&self) {
        self.kept.store(true, Ordering::Release);
    }

    /// Sends what links have kept, where there is room by now.
    #[inline]
    pub(crate) fn push_on(&self) {
        if self.kept.load(Ordering::Relaxed) {
            self.push_all_on();
        }
    }

    #[cold]
    fn push_all_on(&self) {
        self.kept.store(false, Ordering::SeqCst);
        let peers = self.lock();
        let own = peers.own.iter().map(|(link, _)| link);
        let live = peers.entries.iter().flatten().filter_map(Entry::link);
        if own.chain(live).filter(|link| link.push_on()).count() > 0 {
            self.note_kept();
        }
    }

    /// Hands what is in the rings to `sink`, up to about `budget` from each; returns how many. An express record that it
    /// does not take it gets as packets. `first` is called before the first that ever came over a link is.
    #[inline]
    pub(crate) fn receive<S>(
        &self,
        inbox: &mut Inbox,
        budget: usize,
        state: &mut S,
        mut first: impl FnMut(&mut S),
        mut sink: impl FnMut(&mut S, Arrival<'_, '_>) -> bool,
    ) -> usize {
        let generation = self.generation.load(Ordering::Acquire);
        let mut total = 0;
        if generation != inbox.generation {
            total += self.refresh(inbox, generation, state, &mut sink);
        }
        // A look at a line that has not changed costs a cycle or two, the rest of a round a hundred: a caller that spins sees
        // a packet sooner this way.
        let looks = if inbox.incoming.len() > FEW_RINGS { 0 } else { LOOKS };
        for _ in 0..looks {
            if inbox.incoming.iter().any(|incoming| incoming.reader.is_ready(&incoming.map)) {
                break;
            }
        }
        for incoming in &mut inbox.incoming {
            inbox.unfit |= incoming.link.is_down();
            if incoming.fresh {
                if !incoming.reader.is_ready(&incoming.map) {
                    continue;
                }
                incoming.fresh = false;
                first(state);
            }
            total += incoming.read(&mut inbox.packet, budget, |arrival| sink(state, arrival));
        }
        total
    }

    /// Takes up new links, and parts with those that are down once they are read empty.
    #[cold]
    fn refresh<S>(
        &self,
        inbox: &mut Inbox,
        generation: u32,
        state: &mut S,
        sink: &mut impl FnMut(&mut S, Arrival<'_, '_>) -> bool,
    ) -> usize {
        let mut total = 0;
        inbox.generation = generation;
        for gone in inbox.incoming.extract_if(.., |incoming| incoming.link.is_down()) {
            let mut gone = gone;
            // A ring holds no more packets than it has lines.
            total += gone.read(&mut inbox.packet, ring::DATA / LINE, |arrival| sink(state, arrival));
        }
        let peers = self.lock();
        let own = peers.own.iter().map(|(link, map)| (link, map, Side::Forth));
        let live = peers.entries.iter().flatten().filter_map(Entry::reading);
        for (link, map, side) in own.chain(live) {
            if !inbox.incoming.iter().any(|known| known.link.id == link.id) {
                let fresh = link.port != self.port;
                let (link, map) = (link.clone(), map.clone());
                inbox.incoming.push(Incoming { link, map, reader: Reader::new(side), fresh });
            }
        }
        total
    }

    /// Has whoever receives look at the list of links.
    fn changed(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    fn lock(&self) -> MutexGuard<'_, Peers> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_connection(&self, tag: usize, connection: Option<&OwnedFd>) {
        if let Some(place) = self.connections.get(tag) {
            place.store(connection.map_or(-1, |fd| fd.as_raw_fd()), Ordering::Release);
        }
    }
}

impl Incoming {
    /// Reads up to `budget` packets.
    #[inline]
    fn read(
        &mut self,
        out: &mut [u8; crate::net::MAX_PACKET],
        budget: usize,
        mut sink: impl FnMut(Arrival<'_, '_>) -> bool,
    ) -> usize {
        let mut packets = 0;
        while packets < budget {
            match self.reader.read(&self.map, out) {
                Ok(None) => break,
                Ok(Some(Record::Packet(length))) => {
                    sink(Arrival::Packet(&out[..length]));
                }
                Ok(Some(Record::Express(mut express))) => {
                    packets += express.packets() - 1;
                    if !sink(Arrival::Express(&mut express)) {
                        express.unpack(out, |packet| {
                            sink(Arrival::Packet(packet));
                        });
                    }
                }
                Err(Garbage) => {
                    // Down, and off the list at the next change, which its connection's end is.
                    self.link.take_down();
                    break;
                }
            }
            packets += 1;
        }
        if packets > 0 && self.reader.tell(&self.map) {
            self.link.ring();
        }
        packets
    }
}

impl Inbox {
    /// No links yet.
    pub(crate) fn new() -> Inbox {
        let packet = Box::new([0; crate::net::MAX_PACKET]);
        Inbox { incoming: Vec::new(), generation: 0, unfit: false, packet }
    }
}
