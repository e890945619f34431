//! Connection management of a NIC: communication identifiers, listeners, and queue pair 1 behind them.
//!
//! Owns which identifier an event of the state machine (`ibex_proto::cm`) is for, which process a management datagram
//! is for, and when the state machine is driven: by whoever calls it, by the receive engine, and by the NIC's timers
//! (under the number of queue pair 1). Does not own the protocol, nor the C side ([`crate::abi`]).
//!
//! | file | owns |
//! |---|---|
//! | `commands` | what programs ask for |
//! | `id` | one identifier |
//! | `event` | channels |
//! | `kept` | datagrams whose receiver has no room, or is not there yet |
//! | `ports` | who has which port |
//!
//! # Whose datagram
//! Datagrams for queue pair 1 arrive at whoever holds the RoCE port. An answer names the connection as its receiver does,
//! and that name begins with the receiver's slot; a request names a service, which its listener's mailbox is named
//! after ([`crate::net`]). Who receives what is another process's passes it on; a request that nobody listens for is
//! refused by whoever receives it. Between processes of one address datagrams go straight to the receiver.
//!
//! # Locks
//! Engine → service → identifier → channel. Programs' threads send what they caused after they have given the service's
//! lock back; queue pairs are never moved under it.

mod commands;
mod event;
mod id;
mod kept;
mod ports;

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ibex_proto::Nanos;
use ibex_proto::cm::{Cm, CmConfig, ConnId, Disconnect, Event, ListenerId, SidrId, Transmit};
use ibex_wire::mad::{Gid, Guid, MAD_LEN, PortSpace, Route, ServiceId};
use ibex_wire::{Packet, Qpn};

use crate::device;
use crate::net::management::{self, PACKET, QPN};
use crate::net::{Peer, TxBatch, Wire, qpn, random};
use crate::nic::Nic;

pub(crate) use commands::{Accept, Call, port_space};
pub(crate) use event::{Channel, Queued, What};
pub(crate) use id::{Id, Options, Phase};
use kept::{Kept, Receiver, Tried};
use ports::Ports;

/// Datagrams that may wait to be looked at: a round of the engine brings no more than that.
const INBOX: usize = 1024;

/// How long a request for a service that was listened for a moment ago waits for somebody to listen again, before it is
/// refused; and one whose listener does not keep up, before it is lost. Some programs (perftest) call again in the moment in which their peer changes
/// listeners, and count on the kernel taking milliseconds to resolve what is known here at once; a second is enough on an
/// emulated machine. Who repeats the request meanwhile is refused twice, which does no harm.
const GRACE: Nanos = 1_000_000_000;

/// How long ago that moment may be.
const RECENT: Nanos = 10_000_000_000;

/// Services remembered for that; with more, those that are no longer recent are forgotten.
const REMEMBERED: usize = 256;

/// The service that stands for a port in whichever port space: a program that changes listeners may go on in another one
/// (`ib_send_lat -R -c UD` first speaks over a connection).
fn of_any_space(service: ServiceId) -> ServiceId {
    service.port().map_or(service, |(_, port)| ServiceId::ip(PortSpace::TCP, port))
}

/// The service of a NIC.
pub(crate) struct Service {
    address: Gid,
    inner: Mutex<Inner>,
    inbox: Mutex<Vec<Letter>>,
    mail: AtomicBool,
    ports: Arc<Ports>,
}

/// A received datagram.
struct Letter {
    from: Gid,
    to: Gid,
    from_qpn: Qpn,
    packet: Box<[u8; PACKET]>,
}

impl Letter {
    fn mad(&self) -> &[u8] {
        &self.packet[PACKET - MAD_LEN..]
    }
}

/// A datagram to be sent over the network.
struct Outgoing {
    to: Peer,
    packet: [u8; PACKET],
}

struct Inner {
    cm: Cm,
    conns: HashMap<ConnId, Arc<Id>>,
    sidrs: HashMap<SidrId, Arc<Id>>,
    listeners: HashMap<ListenerId, Arc<Id>>,
    /// Services listened for here.
    services: HashMap<ServiceId, ListenerId>,
    /// Requests no identifier was made for yet: their listener, and what happened to them meanwhile.
    pending: HashMap<ConnId, (Arc<Id>, Vec<What>)>,
    /// Datagrams that wait for their receiver.
    kept: Kept,
    /// Services, of any port space, that were listened for when last seen, and when that was.
    recent: HashMap<ServiceId, Nanos>,
    /// When a timer of the NIC will look here; `Nanos::MAX` if none will.
    timer: Nanos,
    /// Sequence number of the last datagram.
    psn: u32,
}

impl Service {
    /// A service without identifiers.
    pub(crate) fn new(wire: &Wire) -> Service {
        let guid = Guid(u64::from_be(device::guid(wire.address())));
        let config = CmConfig::new(wire.first_slot(), [random(), random()], guid);
        let inner = Inner {
            cm: Cm::new(config),
            conns: HashMap::new(),
            sidrs: HashMap::new(),
            listeners: HashMap::new(),
            services: HashMap::new(),
            pending: HashMap::new(),
            kept: Kept::default(),
            recent: HashMap::new(),
            timer: Nanos::MAX,
            psn: random() as u32,
        };
        Service {
            address: Gid::from(wire.address()),
            inner: Mutex::new(inner),
            inbox: Mutex::default(),
            mail: AtomicBool::new(false),
            ports: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn inbox(&self) -> MutexGuard<'_, Vec<Letter>> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a packet for queue pair 1, to be looked at by [`Service::work`]. What is no management datagram, or has not
    /// the key of that queue pair, is dropped (IBTA 9.6.1.5.3); so is what comes too fast.
    pub(crate) fn deliver(&self, source: IpAddr, bytes: &[u8], packet: &Packet<'_>) {
        let Some((_, from_qpn)) = management::open(packet) else { return };
        let Ok(packet) = <&[u8; PACKET]>::try_from(bytes) else { return };
        let mut inbox = self.inbox();
        if inbox.len() < INBOX {
            let from = Gid::from(source);
            inbox.push(Letter { from, to: self.address, from_qpn, packet: Box::new(*packet) });
            self.mail.store(true, Ordering::Release);
        }
    }

    /// Looks at what was delivered. Called by the receive engine at the end of a round.
    #[inline]
    pub(crate) fn work(&self, nic: &Nic) {
        if self.mail.load(Ordering::Acquire) {
            self.read_mail(nic);
        }
    }

    #[cold]
    fn read_mail(&self, nic: &Nic) {
        self.mail.store(false, Ordering::Release);
        let letters = std::mem::take(&mut *self.inbox());
        let (_, outgoing) = self.with(nic, |inner, now| {
            for letter in letters {
                // What cannot be read is nobody's; the state machine counts it.
                let owner = Route::of(letter.mad()).map_or(Owner::Here, |route| inner.owner(nic, route));
                match owner {
                    Owner::Here => inner.handle(now, &letter),
                    Owner::Slot(slot) => inner.pass(nic, now, Receiver::Slot(slot), letter),
                    Owner::Listener(service) => inner.pass(nic, now, Receiver::Service(service), letter),
                }
            }
        });
        send_pooled(nic, outgoing);
    }

    /// The NIC's timer for this service has come.
    pub(crate) fn timeout(&self, nic: &Nic) {
        self.run(nic, |inner, now| {
            inner.timer = Nanos::MAX;
            inner.cm.handle_timeout(now);
            inner.pass_kept(nic, now);
        });
    }

    /// The process ends: peers are told of connections it leaves behind. Waits for no lock: whoever called exit(3) may hold
    /// any, in a signal handler.
    pub(crate) fn end(&self, nic: &Nic) {
        let Ok(mut inner) = self.inner.try_lock() else { return };
        let now = nic.now();
        inner.cm.part(now);
        let mut outgoing = Vec::new();
        while let Some(transmit) = inner.cm.poll_transmit() {
            inner.transmit(nic, now, &transmit, &mut outgoing);
        }
        drop(inner);
        send(nic, &mut TxBatch::new(), outgoing);
    }

    /// Runs a command, and sends what it gives rise to.
    fn run<R>(&self, nic: &Nic, command: impl FnOnce(&mut Inner, Nanos) -> R) -> R {
        let (result, outgoing) = self.with(nic, command);
        send_pooled(nic, outgoing);
        result
    }

    fn with<R>(&self, nic: &Nic, command: impl FnOnce(&mut Inner, Nanos) -> R) -> (R, Vec<Outgoing>) {
        let mut inner = self.lock();
        let now = nic.now();
        let result = command(&mut inner, now);
        let outgoing = inner.settle(nic, now);
        (result, outgoing)
    }
}

/// Whose a datagram is that is on this address.
enum Owner {
    Here,
    Slot(u16),
    Listener(ServiceId),
}

impl Inner {
    fn owner(&self, nic: &Nic, route: Route) -> Owner {
        match route {
            Route::Service(service) if self.services.contains_key(&service) => Owner::Here,
            Route::Service(service) => Owner::Listener(service),
            Route::Connection(id) => {
                // The upper ten bits, by which the state machine was told to begin its names.
                let slot = (id.0 >> 22) as u16;
                // Of a process that is gone nothing is known, which is what the state machine answers here, too.
                let ours = slot == 0 || nic.wire.owns(slot) || !nic.wire.alive(slot);
                if ours { Owner::Here } else { Owner::Slot(slot) }
            }
            // A caller that gave up before it was answered: it is taken for silent a little later.
            Route::Unnamed(_) => Owner::Here,
        }
    }

    /// Deals with everything the state machine has to say; what is to be sent over the network.
    fn settle(&mut self, nic: &Nic, now: Nanos) -> Vec<Outgoing> {
        let mut outgoing = Vec::new();
        loop {
            while let Some(event) = self.cm.poll_event() {
                self.dispatch(now, event);
            }
            let Some(transmit) = self.cm.poll_transmit() else { break };
            self.transmit(nic, now, &transmit, &mut outgoing);
        }
        let due = self.cm.poll_timeout().into_iter().chain(self.kept.next()).min().unwrap_or(Nanos::MAX);
        if due < self.timer {
            nic.cm_timer(due);
            self.timer = due;
        }
        outgoing
    }

    /// Sends a datagram inside this address, or lists it.
    fn transmit(&mut self, nic: &Nic, now: Nanos, transmit: &Transmit, outgoing: &mut Vec<Outgoing>) {
        let own = nic.wire.address();
        // The program's address was checked when it was resolved; a peer's came from a packet.
        let Some(address) = device::address_of(transmit.remote.0, own) else { return };
        self.psn = self.psn.wrapping_add(1);
        let packet = management::packet(self.psn, &transmit.mad);
        if address != own {
            outgoing.push(Outgoing { to: Peer { address, qpn: QPN }, packet });
            return;
        }
        let Ok(route) = Route::of(&transmit.mad) else { return };
        let owner = self.owner(nic, route);
        if let Owner::Slot(slot) = owner {
            outgoing.push(Outgoing { to: Peer { address, qpn: qpn::join(slot, QPN) }, packet });
            return;
        }
        nic.wire.capture_passed(&packet);
        let (from, to) = (transmit.local, transmit.remote);
        let letter = Letter { from, to, from_qpn: Qpn::new(QPN), packet: Box::new(packet) };
        match owner {
            Owner::Listener(service) => self.pass(nic, now, Receiver::Service(service), letter),
            _ => self.handle(now, &letter),
        }
    }

    /// Gives a datagram to the state machine.
    fn handle(&mut self, now: Nanos, letter: &Letter) {
        self.cm.handle_mad(now, letter.from, letter.to, letter.from_qpn, letter.mad());
    }

    /// Passes a datagram on to whom it is for, or keeps it for a while.
    fn pass(&mut self, nic: &Nic, now: Nanos, receiver: Receiver, letter: Letter) {
        let tried = if self.kept.waits(receiver) {
            // Its turn comes after those before it.
            Tried::Full
        } else {
            match self.try_once(nic, now, receiver, &letter) {
                Ok(()) => return,
                Err(tried) if self.is_hopeless(now, receiver, tried) => {
                    return self.give_up(now, tried, &letter);
                }
                Err(tried) => tried,
            }
        };
        if let Err(letter) = self.kept.keep(now, receiver, tried, letter) {
            self.give_up(now, tried, &letter);
        }
    }

    /// Passes a datagram on, if there is room: nothing is waited for here, since no queue pair of the process may make
    /// progress meanwhile.
    fn try_once(&mut self, nic: &Nic, now: Nanos, receiver: Receiver, letter: &Letter) -> Result<(), Tried> {
        let (from, packet) = (letter.from.ip(), &letter.packet[..]);
        let passed = match receiver {
            // It is listened for here by now.
            Receiver::Service(service) if self.services.contains_key(&service) => {
                self.handle(now, letter);
                return Ok(());
            }
            Receiver::Service(service) => nic.wire.post(&ports::mailbox(service), from, packet),
            Receiver::Slot(slot) => nic.wire.relay(slot, from, packet),
        };
        match (passed, receiver) {
            (Ok(()), Receiver::Service(service)) => self.remember(now, service),
            (Ok(()), Receiver::Slot(_)) => {}
            (Err(error), _) if error.kind() == ErrorKind::ConnectionRefused => return Err(Tried::Nobody),
            (Err(_), _) => return Err(Tried::Full),
        }
        Ok(())
    }

    /// Whether to wait for a receiver that was not there makes no sense.
    fn is_hopeless(&self, now: Nanos, receiver: Receiver, tried: Tried) -> bool {
        match receiver {
            Receiver::Service(service) => tried == Tried::Nobody && !self.was_listened_for(now, service),
            Receiver::Slot(_) => tried == Tried::Nobody,
        }
    }

    /// A datagram is not passed on any more.
    fn give_up(&mut self, now: Nanos, tried: Tried, letter: &Letter) {
        match tried {
            // The state machine refuses it, or says that it knows nothing of the connection.
            Tried::Nobody => self.handle(now, letter),
            // Lost, and repeated by its sender.
            Tried::Full => {}
        }
    }

    /// Notes that a service is, or just was, listened for.
    fn remember(&mut self, now: Nanos, service: ServiceId) {
        let service = of_any_space(service);
        if self.recent.len() >= REMEMBERED {
            self.recent.retain(|_, at| now.saturating_sub(*at) < RECENT);
        }
        if self.recent.len() < REMEMBERED || self.recent.contains_key(&service) {
            self.recent.insert(service, now);
        }
    }

    fn was_listened_for(&self, now: Nanos, service: ServiceId) -> bool {
        self.recent.get(&of_any_space(service)).is_some_and(|&at| now.saturating_sub(at) < RECENT)
    }

    /// Tries once more to pass on what was kept.
    fn pass_kept(&mut self, nic: &Nic, now: Nanos) {
        while let Some((receiver, mut turn)) = self.kept.take(now) {
            while let Some((came, letter)) = turn.letters.pop_front() {
                let Err(tried) = self.try_once(nic, now, receiver, &letter) else {
                    turn.went_on();
                    continue;
                };
                // What comes after it would meet the same.
                let hopeless = self.is_hopeless(now, receiver, tried);
                let mut first = Some((came, letter));
                while let Some((came, letter)) = first.take().or_else(|| turn.letters.pop_front()) {
                    if !hopeless && now.saturating_sub(came) < GRACE {
                        turn.letters.push_front((came, letter));
                        break;
                    }
                    self.give_up(now, tried, &letter);
                }
                self.kept.put_back(now, receiver, tried, turn);
                break;
            }
        }
    }

    /// Queues an event for whom it is.
    fn dispatch(&mut self, now: Nanos, event: Event) {
        match event {
            Event::Request { listener, conn, request } => match self.listeners.get(&listener) {
                Some(id) => {
                    self.pending.insert(conn, (id.clone(), Vec::new()));
                    push(id, What::Request(conn, request));
                }
                None => self.cm.release(now, conn),
            },
            Event::SidrRequest { listener, sidr, request } => match self.listeners.get(&listener) {
                Some(id) => push(id, What::SidrRequest(sidr, request)),
                None => self.cm.sidr_release(now, sidr),
            },
            Event::Reply { conn, reply } => self.tell(conn, What::Reply(reply)),
            Event::Established { conn, private } => {
                let private = private.map_or_else(Vec::new, |private| private.to_vec());
                self.tell(conn, What::Established(private));
            }
            Event::Rejected { conn, reason, private, .. } => {
                self.tell(conn, What::Rejected(reason.0, private.to_vec()));
                self.forget(conn);
            }
            Event::Unreachable { conn, .. } => {
                self.tell(conn, What::Unreachable);
                self.forget(conn);
            }
            Event::DisconnectRequested { conn, private } => {
                self.tell(conn, What::Disconnected(private.to_vec()));
            }
            Event::Disconnected { conn, how } => {
                let private = match how {
                    Disconnect::Answered(private) => private.to_vec(),
                    Disconnect::Crossed(private) => private.to_vec(),
                    _ => Vec::new(),
                };
                self.tell(conn, What::Disconnected(private));
            }
            Event::TimewaitExit { conn } => {
                self.tell(conn, What::TimewaitExit);
                self.forget(conn);
            }
            Event::SidrReply { sidr, reply } => {
                if let Some(id) = self.sidrs.remove(&sidr) {
                    push(&id, What::SidrReply(reply));
                }
            }
            Event::SidrUnreachable { sidr } => {
                if let Some(id) = self.sidrs.remove(&sidr) {
                    push(&id, What::Unreachable);
                }
            }
            // "The peer has it and needs more time" is for the state machine alone; so is what it learns later.
            _ => {}
        }
    }

    /// Queues an event of a connection.
    fn tell(&mut self, conn: ConnId, what: What) {
        if let Some(id) = self.conns.get(&conn) {
            push(id, what);
        } else if let Some((_, early)) = self.pending.get_mut(&conn) {
            early.push(what);
        }
    }

    /// Takes a connection that is gone off the list.
    fn forget(&mut self, conn: ConnId) {
        if self.cm.state(conn).is_none() {
            self.conns.remove(&conn);
        }
    }
}

/// Queues an event, unless it is the second end of one connection.
fn push(id: &Arc<Id>, what: What) {
    match &what {
        What::Disconnected(_) if !id.end() => return,
        // Who called may have the answer by now.
        What::Established(_) | What::Rejected(..) | What::Unreachable => drop(id.state().called.take()),
        _ => {}
    }
    id.channel().push(Queued { id: id.clone(), what });
}

/// Sends over the network, by a transmit buffer of the NIC's.
fn send_pooled(nic: &Nic, outgoing: Vec<Outgoing>) {
    if outgoing.is_empty() {
        return;
    }
    let mut tx = nic.batch();
    send(nic, &mut tx, outgoing);
    nic.return_batch(tx);
}

/// Sends over the network.
fn send(nic: &Nic, tx: &mut TxBatch, outgoing: Vec<Outgoing>) {
    for Outgoing { to, packet } in outgoing {
        tx.push(&nic.wire, to, |room| {
            room[..PACKET].copy_from_slice(&packet);
            PACKET
        });
        if tx.take_stalled() {
            // The link is full of queue pairs' packets. What finds no room here either is repeated.
            let _ = nic.wire.relay(qpn::slot(to.qpn), nic.wire.address(), &packet);
        }
    }
    tx.flush(&nic.wire);
}
