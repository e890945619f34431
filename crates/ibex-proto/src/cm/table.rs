//! The connections of an engine, found by their own names, by the peer's, and by the peer's queue pair.

use std::collections::{BTreeSet, HashMap};

use ibex_wire::mad::{CommId, Gid, Guid, MAD_LEN, Rej, TransportService};
use ibex_wire::{Psn, Qpn};

use super::repeat::Repeat;
use super::{ConnState, ListenerId, Path};
use crate::Nanos;

/// One connection.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) state: ConnState,
    /// The host has released it: no more events.
    pub(super) detached: bool,
    /// The listener in whose backlog it has a place.
    pub(super) waiting: Option<ListenerId>,
    /// `remote` is where datagrams come from and go to.
    pub(super) path: Path,
    pub(super) transport: TransportService,
    /// Of the message that began what is going on.
    pub(super) transaction: u64,
    pub(super) peer: Peer,
    pub(super) local_qpn: Qpn,
    /// What this end's queue pair begins with.
    pub(super) sq_psn: Psn,
    /// What it expects first.
    pub(super) rq_psn: Psn,
    /// READs and atomics answered, and outstanding.
    pub(super) responder_resources: u8,
    pub(super) initiator_depth: u8,
    pub(super) retry_count: u8,
    pub(super) rnr_retry_count: u8,
    /// Local acknowledgement timeout, a 5-bit code; TIMEWAIT lasts as long.
    pub(super) ack_timeout: u8,
    /// The peer named a second path, which this end does not use.
    pub(super) alternate: bool,
    /// How long the peer may take to answer, and how often it is asked.
    pub(super) response: Nanos,
    pub(super) max_retries: u8,
    /// The message out, while an answer is expected.
    pub(super) repeat: Option<Repeat>,
    /// What to say to the peer's last message if it comes again.
    pub(super) answer: Option<Box<[u8; MAD_LEN]>>,
    /// The refusal, if that is what TIMEWAIT follows.
    pub(super) refusal: Option<Box<Rej>>,
    /// When the timer runs out; kept by the table.
    pub(super) deadline: Option<Nanos>,
}

/// What is known of the other end; zero until it is.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Peer {
    pub(super) id: CommId,
    pub(super) guid: Guid,
    pub(super) qpn: Qpn,
}

impl Conn {
    /// A connection of which nothing but this is known.
    pub(super) fn new(state: ConnState, path: Path, transport: TransportService) -> Conn {
        Conn {
            state,
            detached: false,
            waiting: None,
            path,
            transport,
            transaction: 0,
            peer: Peer::default(),
            local_qpn: Qpn::default(),
            sq_psn: Psn::new(0),
            rq_psn: Psn::new(0),
            responder_resources: 0,
            initiator_depth: 0,
            retry_count: 0,
            rnr_retry_count: 0,
            ack_timeout: 0,
            alternate: false,
            response: 0,
            max_retries: 0,
            repeat: None,
            answer: None,
            refusal: None,
            deadline: None,
        }
    }

    fn by_name(&self) -> (Gid, Guid, CommId) {
        (self.path.remote, self.peer.guid, self.peer.id)
    }

    fn by_qp(&self) -> (Gid, Guid, Qpn) {
        (self.path.remote, self.peer.guid, self.peer.qpn)
    }
}

/// All of them, with their timers.
#[derive(Default, Debug)]
pub(super) struct Table {
    conns: HashMap<CommId, Box<Conn>>,
    /// The peer's name for a connection. A peer is an address and an adapter: another host that claims to be this
    /// adapter does not touch its connections.
    by_name: HashMap<(Gid, Guid, CommId), CommId>,
    /// The peer's queue pair, while connected.
    by_qp: HashMap<(Gid, Guid, Qpn), CommId>,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.conns.len()
    }

    pub(super) fn get(&self, id: CommId) -> Option<&Conn> {
        self.conns.get(&id).map(|conn| &**conn)
    }

    pub(super) fn get_mut(&mut self, id: CommId) -> Option<&mut Conn> {
        self.conns.get_mut(&id).map(|conn| &mut **conn)
    }

    /// The names of all, in no order.
    pub(super) fn ids(&self) -> impl Iterator<Item = CommId> {
        self.conns.keys().copied()
    }

    pub(super) fn insert(&mut self, id: CommId, conn: Conn) {
        self.conns.insert(id, Box::new(conn));
    }

    /// Forgets a connection, its peer and its timer.
    pub(super) fn remove(&mut self, timers: &mut Timers, id: CommId) -> Option<Box<Conn>> {
        let conn = self.conns.remove(&id)?;
        timers.disarm(id, conn.deadline);
        self.by_name.retain_not(&conn.by_name(), id);
        self.by_qp.retain_not(&conn.by_qp(), id);
        Some(conn)
    }

    /// The connection that the peer calls so.
    pub(super) fn named(&self, remote: Gid, guid: Guid, name: CommId) -> Option<CommId> {
        self.by_name.get(&(remote, guid, name)).copied()
    }

    /// The connection with that queue pair of the peer.
    pub(super) fn connected_to(&self, remote: Gid, guid: Guid, qpn: Qpn) -> Option<CommId> {
        self.by_qp.get(&(remote, guid, qpn)).copied()
    }

    /// Enters what is now known of the peer.
    pub(super) fn learn(&mut self, id: CommId, peer: Peer) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.peer = peer;
            self.by_name.insert(conn.by_name(), id);
            self.by_qp.insert(conn.by_qp(), id);
        }
    }

    /// The peer's queue pair may be connected anew.
    pub(super) fn free_qp(&mut self, id: CommId) {
        if let Some(conn) = self.conns.get(&id) {
            self.by_qp.retain_not(&conn.by_qp(), id);
        }
    }

    /// Sets a connection's timer, instead of the one before.
    pub(super) fn arm(&mut self, timers: &mut Timers, id: CommId, at: Option<Nanos>) {
        if let Some(conn) = self.conns.get_mut(&id) {
            timers.disarm(id, conn.deadline);
            conn.deadline = at;
            timers.arm(id, at);
        }
    }
}

/// Removing an entry that may since belong to somebody else.
trait RetainNot<K> {
    fn retain_not(&mut self, key: &K, id: CommId);
}

impl<K: Eq + std::hash::Hash> RetainNot<K> for HashMap<K, CommId> {
    fn retain_not(&mut self, key: &K, id: CommId) {
        if self.get(key) == Some(&id) {
            self.remove(key);
        }
    }
}

/// Who wants to be woken when, one time each.
#[derive(Default, Debug)]
pub(super) struct Timers(BTreeSet<(Nanos, CommId)>);

impl Timers {
    pub(super) fn arm(&mut self, id: CommId, at: Option<Nanos>) {
        if let Some(at) = at {
            self.0.insert((at, id));
        }
    }

    pub(super) fn disarm(&mut self, id: CommId, at: Option<Nanos>) {
        if let Some(at) = at {
            self.0.remove(&(at, id));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn first(&self) -> Option<Nanos> {
        self.0.first().map(|&(at, _)| at)
    }

    /// Whose time has come; the entry stays until disarmed.
    pub(super) fn due(&self, now: Nanos) -> Option<CommId> {
        self.0.first().filter(|&&(at, _)| at <= now).map(|&(_, id)| id)
    }
}
