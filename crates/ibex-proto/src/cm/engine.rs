//! The engine: datagrams, time and commands in; datagrams and events out.
//!
//! Owns the object, its timers and queues, and who handles what. What each message and command does is in `call.rs`
//! (the end that asks), `answer.rs` (the end that is asked), `end.rs` and `sidr.rs`.

use std::collections::{HashMap, VecDeque};

use ibex_wire::mad::{CommId, Gid, MAD_LEN, Mad, Message, TransportService, Which};
use ibex_wire::{Psn, Qpn};

use super::ids::Ids;
use super::listen::Listeners;
use super::repeat::Repeat;
use super::sidr::Sidr;
use super::table::{Conn, Table, Timers};
use super::{CmConfig, CmError, ConnId, ConnState, Disconnect, Event, Operation, Path};
use crate::Nanos;

/// A datagram to send: as a UD SEND from queue pair 1 to queue pair 1, with the key
/// [`GSI_QKEY`](ibex_wire::mad::GSI_QKEY).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transmit {
    /// The address to send from.
    pub local: Gid,
    /// The address to send to.
    pub remote: Gid,
    /// The payload.
    pub mad: [u8; MAD_LEN],
}

/// What a queue pair needs to know to be moved to RTR and RTS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attributes {
    /// The way to the peer.
    pub path: Path,
    /// The kind of queue pair.
    pub transport: TransportService,
    /// The peer's queue pair.
    pub remote_qpn: Qpn,
    /// RTR: the sequence number expected first. At the accepting end it is known from `reply` on, and 0 before.
    pub rq_psn: Psn,
    /// RTS: the sequence number of the first request.
    pub sq_psn: Psn,
    /// RTR, RC only: READs and atomics of the peer to answer at once.
    pub max_dest_rd_atomic: u8,
    /// RTS, RC only: READs and atomics to have outstanding.
    pub max_rd_atomic: u8,
    /// RTS, RC only.
    pub retry_count: u8,
    /// RTS, RC only.
    pub rnr_retry_count: u8,
    /// RTS, RC only: local acknowledgement timeout, 4.096 µs × 2^this (5 bits).
    pub ack_timeout: u8,
}

/// Numbers since the engine was made.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counters {
    /// Datagrams received.
    pub received: u64,
    /// Datagrams sent, repetitions included.
    pub sent: u64,
    /// Repetitions for want of an answer.
    pub repeated: u64,
    /// Received messages that had been received before.
    pub duplicates: u64,
    /// Received datagrams that are no messages of this kind, or belong to no connection here.
    pub ignored: u64,
    /// Requests dropped because the backlog or the table was full.
    pub overflow: u64,
}

/// One process's connection management.
///
/// After any command and any `handle_…`: drain [`poll_transmit`](Cm::poll_transmit) and [`poll_event`](Cm::poll_event), then ask
/// [`poll_timeout`](Cm::poll_timeout) and call [`handle_timeout`](Cm::handle_timeout) at that time. `now` must not go
/// backwards.
///
/// Events tell what has happened, and more may have happened since: when one is read, the next ones of the same connection
/// may be waiting behind it, the last one too. Commands then say [`CmError::Unknown`] or [`CmError::State`], which is no
/// mistake of the host; the events behind say why.
///
/// A connection that asks:
///
/// ```text
/// connect ─ REQ → … ← REP ─ Event::Reply ─ (queue pair to RTS) ─ ready ─ RTU →        data flows
///                 … ← REJ ─ Event::Rejected.     no answer ─ Event::Unreachable.
/// ```
///
/// One that is asked:
///
/// ```text
/// Event::Request ─ (queue pair to RTR) ─ reply ─ REP → … ← RTU ─ Event::Established    data flows
///                                      reject ─ REJ →.     no answer ─ Event::Unreachable.
/// ```
///
/// Either:
///
/// ```text
/// disconnect ─ DREQ → … ← DREP ─ Event::Disconnected … Event::TimewaitExit.
///            ← DREQ ─ Event::DisconnectRequested ─ disconnect ─ DREP → Event::Disconnected … Event::TimewaitExit.
/// ```
#[derive(Debug)]
pub struct Cm {
    pub(super) config: CmConfig,
    pub(super) ids: Ids,
    pub(super) listeners: Listeners,
    pub(super) table: Table,
    pub(super) sidrs: HashMap<CommId, Sidr>,
    /// Resolutions to be answered or just answered, by address and the name the asker gave.
    pub(super) sidr_names: HashMap<(Gid, CommId), CommId>,
    pub(super) timers: Timers,
    /// The timers of what is over, and only remembered for stragglers.
    pub(super) lingering: Timers,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    pub(super) counters: Counters,
}

impl Cm {
    /// An engine without listeners and connections.
    pub fn new(config: CmConfig) -> Cm {
        Cm {
            ids: Ids::new(config.slot, config.secret),
            config,
            listeners: Listeners::default(),
            table: Table::default(),
            sidrs: HashMap::new(),
            sidr_names: HashMap::new(),
            timers: Timers::default(),
            lingering: Timers::default(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// A datagram arrived on queue pair 1: payload `mad`, from address `from` to this end's address `to`, sent by queue pair
    /// `from_qpn`. Anything may be in it; only queue pair 1 is listened to, which programs cannot send from.
    pub fn handle_mad(&mut self, now: Nanos, from: Gid, to: Gid, from_qpn: Qpn, mad: &[u8]) {
        self.counters.received += 1;
        let (Qpn::GSI, Ok(Mad { transaction, message })) = (from_qpn, Mad::parse(mad)) else {
            self.counters.ignored += 1;
            return;
        };
        let origin = Origin { from, to, transaction };
        match message {
            Message::Req(req) => self.on_req(now, origin, &req),
            Message::Mra(mra) => self.on_mra(now, origin, &mra),
            Message::Rej(rej) => self.on_rej(now, origin, &rej),
            Message::Rep(rep) => self.on_rep(now, origin, &rep),
            Message::Rtu(rtu) => self.on_rtu(origin, &rtu),
            Message::Dreq(dreq) => self.on_dreq(now, origin, &dreq),
            Message::Drep(drep) => self.on_drep(now, origin, &drep),
            Message::SidrReq(req) => self.on_sidr_req(now, origin, &req),
            Message::SidrRep(rep) => self.on_sidr_rep(origin, &rep),
            // The parser may learn messages that this engine does not serve.
            _ => self.counters.ignored += 1,
        }
    }

    /// The time asked for by [`poll_timeout`](Cm::poll_timeout) has come. Harmless at other times.
    pub fn handle_timeout(&mut self, now: Nanos) {
        while let Some(id) = self.timers.due(now) {
            if self.sidrs.contains_key(&id) {
                self.sidr_timeout(now, id);
            } else {
                self.conn_timeout(now, id);
            }
        }
    }

    /// A connection's timer ran out. Afterwards it has another deadline or none.
    fn conn_timeout(&mut self, now: Nanos, id: CommId) {
        let Some(conn) = self.table.get_mut(id) else { return };
        if let Some(repeat) = &mut conn.repeat
            && repeat.again()
        {
            let (mad, at) = (*repeat.mad, now + repeat.wait());
            self.counters.repeated += 1;
            self.transmit_on(id, mad);
            self.table.arm(&mut self.timers, id, Some(at));
            return;
        }
        let conn_id = ConnId(id);
        match conn.state {
            ConnState::Timewait if conn.refusal.is_some() => self.forget(id),
            ConnState::Timewait => self.last_event(id, Event::TimewaitExit { conn: conn_id }),
            ConnState::DreqSent => self.disconnected(now, id, Disconnect::TimedOut),
            ConnState::ReqSent => {
                self.last_event(id, Event::Unreachable { conn: conn_id, which: Which::REQ });
            }
            ConnState::RepSent => {
                self.last_event(id, Event::Unreachable { conn: conn_id, which: Which::REP });
            }
            // The others wait for the host, without a timer.
            _ => self.table.arm(&mut self.timers, id, None),
        }
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`handle_timeout`](Cm::handle_timeout) is wanted; `None` while nothing is waited for.
    pub fn poll_timeout(&self) -> Option<Nanos> {
        self.timers.first()
    }

    /// Whether nothing is left: no connection, not even one only remembered, no resolution, nothing to send, no event.
    /// Listeners do not count.
    pub fn is_idle(&self) -> bool {
        self.table.len() == 0
            && self.sidrs.is_empty()
            && self.sidr_names.is_empty()
            && self.transmits.is_empty()
            && self.events.is_empty()
            && self.timers.first().is_none()
            && self.lingering.first().is_none()
    }

    /// Numbers since the engine was made.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Where a connection is; `None` if it is gone.
    pub fn state(&self, conn: ConnId) -> Option<ConnState> {
        let conn = self.table.get(conn.0).filter(|conn| !conn.detached)?;
        Some(conn.state)
    }

    /// What the queue pair needs for RTR and RTS: from [`Event::Request`] on at the accepting end (the numbers of
    /// `reply` once it is given), from [`Event::Reply`] on at the other.
    ///
    /// # Errors
    ///
    /// [`CmError::Unknown`], [`CmError::State`].
    pub fn attributes(&self, conn: ConnId) -> Result<Attributes, CmError> {
        let conn = self.table.get(conn.0).filter(|conn| !conn.detached).ok_or(CmError::Unknown)?;
        if conn.state == ConnState::ReqSent {
            return Err(CmError::State { operation: Operation::Attributes, state: conn.state });
        }
        Ok(Attributes {
            path: conn.path,
            transport: conn.transport,
            remote_qpn: conn.peer.qpn,
            rq_psn: conn.rq_psn,
            sq_psn: conn.sq_psn,
            max_dest_rd_atomic: conn.responder_resources,
            max_rd_atomic: conn.initiator_depth,
            retry_count: conn.retry_count,
            rnr_retry_count: conn.rnr_retry_count,
            ack_timeout: conn.ack_timeout,
        })
    }

    /// A connection that the host may command; released ones are unknown to it.
    pub(super) fn commanded(&mut self, conn: ConnId) -> Result<&mut Conn, CmError> {
        self.table.get_mut(conn.0).filter(|conn| !conn.detached).ok_or(CmError::Unknown)
    }

    /// A new name, if there is room for another connection or resolution.
    pub(super) fn new_id(&mut self) -> Option<CommId> {
        // The limit is far below the number of names, so a free one is found soon.
        let limit = self.config.max_connections.min(1 << (super::ids::INDEX_BITS - 1));
        if self.table.len() + self.sidrs.len() >= limit {
            return None;
        }
        loop {
            let id = self.ids.draw();
            if self.table.get(id).is_none() && !self.sidrs.contains_key(&id) {
                return Some(id);
            }
        }
    }

    pub(super) fn transmit(&mut self, local: Gid, remote: Gid, mad: [u8; MAD_LEN]) {
        self.counters.sent += 1;
        self.transmits.push_back(Transmit { local, remote, mad });
    }

    /// Answers a datagram by one to where it came from, in its transaction.
    pub(super) fn respond(&mut self, origin: Origin, message: Message) {
        let mad = Mad { transaction: origin.transaction, message };
        self.transmit(origin.to, origin.from, mad.to_bytes());
    }

    /// Sends on a connection's path.
    pub(super) fn transmit_on(&mut self, id: CommId, mad: [u8; MAD_LEN]) {
        if let Some(conn) = self.table.get(id) {
            let Path { local, remote, .. } = conn.path;
            self.transmit(local, remote, mad);
        }
    }

    /// Sends a message that expects an answer, and sets the timer.
    pub(super) fn transmit_until_answered(&mut self, now: Nanos, id: CommId, message: Message) {
        let Some(conn) = self.table.get_mut(id) else { return };
        let mad = Mad { transaction: conn.transaction, message }.to_bytes();
        let repeat = Repeat::new(mad, self.config.fast_retry, conn.response, conn.max_retries);
        let at = now + repeat.wait();
        conn.repeat = Some(repeat);
        self.transmit_on(id, mad);
        self.table.arm(&mut self.timers, id, Some(at));
    }

    /// The answer is here: no more repetitions.
    pub(super) fn answered(&mut self, id: CommId) {
        if let Some(conn) = self.table.get_mut(id) {
            conn.repeat = None;
            self.table.arm(&mut self.timers, id, None);
        }
    }

    pub(super) fn event(&mut self, id: CommId, event: Event) {
        if self.table.get(id).is_some_and(|conn| !conn.detached) {
            self.events.push_back(event);
        }
    }

    pub(super) fn push_event(&mut self, event: Event) {
        self.events.push_back(event);
    }

    /// The connection's last event.
    pub(super) fn last_event(&mut self, id: CommId, event: Event) {
        self.event(id, event);
        self.forget(id);
    }

    /// Removes a connection and all that belongs to it.
    pub(super) fn forget(&mut self, id: CommId) {
        if let Some(conn) = self.table.remove(&mut self.timers, id) {
            self.lingering.disarm(id, conn.deadline);
            if let Some(listener) = conn.waiting {
                self.listeners.leave(listener);
            }
        }
    }

    /// Remembers what is over until `at`, and makes room for that if need be.
    pub(super) fn linger(&mut self, id: CommId, at: Nanos) {
        self.lingering.arm(id, Some(at));
        while self.lingering.len() > self.config.max_timewait.max(1) {
            let Some(oldest) = self.lingering.due(Nanos::MAX) else { return };
            if self.sidrs.contains_key(&oldest) {
                self.forget_sidr(oldest);
            } else if self.table.get(oldest).is_some_and(|conn| conn.refusal.is_none()) {
                self.last_event(oldest, Event::TimewaitExit { conn: ConnId(oldest) });
            } else {
                self.forget(oldest);
            }
        }
    }
}

/// Where a datagram came from and went to, and its transaction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    pub(super) from: Gid,
    pub(super) to: Gid,
    pub(super) transaction: u64,
}
