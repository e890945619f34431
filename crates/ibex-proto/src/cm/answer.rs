//! The end that is asked for a connection: REQ in, REP or REJ out, RTU in.

use ibex_wire::Mtu;
use ibex_wire::mad::{
    CmaHeader, CommId, Mad, Message, Mra, Private, Rej, RejectReason, Rep, Req, Rtu, ServiceId,
    TransportService, Which,
};

use super::call::at_most;
use super::engine::Origin;
use super::repeat::code_ns;
use super::table::{Conn, Peer};
use super::{Cm, CmError, ConnId, ConnState, Event, Operation, Path, RejectParams, ReplyParams, Request};
use crate::Nanos;

/// What a peer is told when it sends again while the program thinks: 4.096 µs × 2^24, over a minute, as Linux does.
const SERVICE_TIMEOUT: u8 = 24;

/// The shortest time in which a caller is expected to answer a reply, whatever it says (16.8 ms): the answer takes a program.
const MIN_RESPONSE: Nanos = 4096 << 12;

/// How long a refusal is remembered (1.1 s), to be repeated if the request is: over a few of this engine's quick repetitions.
/// Afterwards a repeated request is a new one, as it is for Linux at once.
const REFUSAL_MEMORY: Nanos = 4096 << 18;

impl Cm {
    /// A request: new, once more, or from a queue pair that is thought to be connected.
    pub(super) fn on_req(&mut self, now: Nanos, origin: Origin, req: &Req) {
        if req.local_comm_id == CommId::NONE {
            self.counters.ignored += 1;
            return;
        }
        let (from, guid) = (origin.from, req.local_ca_guid);
        if let Some(id) = self.table.named(from, guid, req.local_comm_id) {
            self.counters.duplicates += 1;
            return self.req_again(origin, id);
        }
        if let Some(older) = self.table.connected_to(from, guid, req.local_qpn) {
            match self.table.get(older).map(|conn| conn.state) {
                Some(ConnState::ReqRcvd | ConnState::MraReqSent | ConnState::RepSent) => {
                    // The caller gave that one up, and its word was lost.
                    self.rejected_last(older, RejectReason::STALE_CONN);
                }
                _ => {
                    self.refuse_req(origin, req, RejectReason::STALE_CONN, &[]);
                    return self.end_stale(now, older);
                }
            }
        }
        let Some(listener) = self.listeners.find(req.service_id, origin.to) else {
            return self.refuse_req(origin, req, RejectReason::INVALID_SERVICE_ID, &[]);
        };
        let (mtu, cma) = match check(origin, req) {
            Ok(checked) => checked,
            Err(Refusal(reason, info)) => return self.refuse_req(origin, req, reason, info),
        };
        // No answer when there is no room: the caller asks again, and there may be then.
        let Some(id) = self.new_id().filter(|_| self.listeners.enter(listener)) else {
            self.counters.overflow += 1;
            return;
        };
        let request = request(origin, req, mtu, cma);
        let mut conn = Conn::new(ConnState::ReqRcvd, request.path, req.service);
        conn.waiting = Some(listener);
        conn.transaction = origin.transaction;
        conn.sq_psn = req.starting_psn;
        conn.responder_resources = request.responder_resources;
        conn.initiator_depth = request.initiator_depth;
        conn.retry_count = req.retry_count;
        conn.rnr_retry_count = req.rnr_retry_count;
        conn.ack_timeout = req.primary.ack_timeout.max(1);
        conn.response = code_ns(req.local_response_timeout).max(MIN_RESPONSE);
        conn.max_retries = req.max_cm_retries;
        conn.alternate = req.has_alternate();
        self.table.insert(id, conn);
        self.table.learn(id, Peer { id: req.local_comm_id, guid, qpn: req.local_qpn });
        self.event(id, Event::Request { listener, conn: ConnId(id), request: Box::new(request) });
    }

    /// A request that is here already.
    fn req_again(&mut self, origin: Origin, id: CommId) {
        let Some(conn) = self.table.get_mut(id) else { return };
        let peer = conn.peer.id;
        let mad = match conn.state {
            ConnState::ReqRcvd | ConnState::MraReqSent => {
                let mra = || {
                    Box::new(
                        Mad { transaction: conn.transaction, message: mra(id, peer, Which::REQ) }.to_bytes(),
                    )
                };
                **conn.answer.get_or_insert_with(mra)
            }
            ConnState::RepSent => match &conn.repeat {
                Some(repeat) => *repeat.mad,
                None => return,
            },
            ConnState::Timewait => {
                let stale = || rej(CommId::NONE, peer, RejectReason::STALE_CONN);
                let refusal = conn.refusal.as_deref().copied().unwrap_or_else(stale);
                return self.respond(origin, Message::Rej(Rej { which: Which::REQ, ..refusal }));
            }
            _ => return,
        };
        self.transmit_on(id, mad);
    }

    /// The caller is ready.
    pub(super) fn on_rtu(&mut self, origin: Origin, rtu: &Rtu) {
        let id = rtu.remote_comm_id;
        let Some(conn) = self.known(origin, id, rtu.local_comm_id) else {
            self.counters.ignored += 1;
            return;
        };
        if let Some(refusal) = conn.refusal.as_deref().copied() {
            // The refusal was lost, and the caller thinks it is connected.
            return self.respond(origin, Message::Rej(refusal));
        }
        if conn.state != ConnState::RepSent {
            self.counters.duplicates += 1;
            return;
        }
        self.establish(id, Some(rtu.private));
    }

    /// The caller is known to be ready.
    pub(super) fn establish(&mut self, id: CommId, private: Option<Private<{ Rtu::PRIVATE }>>) {
        self.answered(id);
        if let Some(conn) = self.table.get_mut(id) {
            conn.state = ConnState::Established;
        }
        self.event(id, Event::Established { conn: ConnId(id), private });
    }

    /// The program has fetched this request: it no longer counts against the listener's backlog. Answers say so too.
    ///
    /// # Errors
    ///
    /// [`CmError::Unknown`].
    pub fn taken(&mut self, conn: ConnId) -> Result<(), CmError> {
        if let Some(listener) = self.commanded(conn)?.waiting.take() {
            self.listeners.leave(listener);
        }
        Ok(())
    }

    /// Tells the peer that the answer to its request or reply takes longer, 4.096 µs × 2^`service_timeout` (5 bits) from now.
    /// Said again when its message comes again, which happens even without this call.
    ///
    /// # Errors
    ///
    /// [`CmError::Unknown`], [`CmError::State`], [`CmError::PrivateData`] (222 bytes), [`CmError::Range`].
    pub fn mra(
        &mut self,
        _now: Nanos,
        conn: ConnId,
        service_timeout: u8,
        private: &[u8],
    ) -> Result<(), CmError> {
        let id = conn.0;
        let conn = self.commanded(conn)?;
        let (which, state) = match conn.state {
            ConnState::ReqRcvd | ConnState::MraReqSent => (Which::REQ, ConnState::MraReqSent),
            ConnState::RepRcvd | ConnState::MraRepSent => (Which::REP, ConnState::MraRepSent),
            state => return Err(CmError::State { operation: Operation::Mra, state }),
        };
        at_most("service_timeout", service_timeout, 31)?;
        let private = Private::new(private)?;
        let message = Message::Mra(Mra {
            local_comm_id: id,
            remote_comm_id: conn.peer.id,
            which,
            service_timeout,
            private,
        });
        let mad = Mad { transaction: conn.transaction, message }.to_bytes();
        conn.answer = Some(Box::new(mad));
        conn.state = state;
        self.transmit_on(id, mad);
        Ok(())
    }

    /// Accepts a request; the queue pair must be able to receive already. One of [`Event::Established`],
    /// [`Event::Rejected`] and [`Event::Unreachable`] follows.
    ///
    /// # Errors
    ///
    /// [`CmError::Unknown`], [`CmError::State`], [`CmError::Range`].
    pub fn reply(&mut self, now: Nanos, conn: ConnId, params: &ReplyParams) -> Result<(), CmError> {
        let id = conn.0;
        let ca_guid = self.config.ca_guid;
        let known = self.commanded(conn)?;
        if !matches!(known.state, ConnState::ReqRcvd | ConnState::MraReqSent) {
            return Err(CmError::State { operation: Operation::Reply, state: known.state });
        }
        at_most("target_ack_delay", params.target_ack_delay, 31)?;
        at_most("rnr_retry_count", params.rnr_retry_count, 7)?;
        known.state = ConnState::RepSent;
        known.answer = None;
        known.local_qpn = params.qpn;
        known.rq_psn = params.starting_psn;
        known.responder_resources = params.responder_resources;
        known.initiator_depth = params.initiator_depth;
        let rep = Rep {
            local_comm_id: id,
            remote_comm_id: known.peer.id,
            local_qkey: Default::default(),
            local_qpn: params.qpn,
            local_eecn: 0,
            starting_psn: params.starting_psn,
            responder_resources: params.responder_resources,
            initiator_depth: params.initiator_depth,
            target_ack_delay: params.target_ack_delay,
            // A second path is not supported.
            failover: u8::from(known.alternate),
            flow_control: params.flow_control,
            rnr_retry_count: params.rnr_retry_count,
            srq: params.srq,
            local_ca_guid: ca_guid,
            private: params.private,
        };
        self.taken(conn)?;
        self.transmit_until_answered(now, id, Message::Rep(rep));
        Ok(())
    }

    /// Refuses a request or a reply, or gives up a reply of one's own. No event follows; the connection is gone.
    ///
    /// # Errors
    ///
    /// [`CmError::Unknown`], [`CmError::State`], [`CmError::PrivateData`] (148 bytes), [`CmError::Information`] (72 bytes).
    pub fn reject(&mut self, now: Nanos, conn: ConnId, params: &RejectParams) -> Result<(), CmError> {
        let id = conn.0;
        let conn = self.commanded(conn)?;
        let (local, which) = match conn.state {
            // Linux names no connection of its own here, and with it no number that would have to be remembered.
            ConnState::ReqRcvd => (CommId::NONE, Which::REQ),
            ConnState::MraReqSent => (id, Which::REQ),
            ConnState::RepRcvd | ConnState::MraRepSent => (id, Which::REP),
            ConnState::RepSent => (id, Which::OTHER),
            state => return Err(CmError::State { operation: Operation::Reject, state }),
        };
        let (transaction, asked) = (conn.transaction, which != Which::REP);
        let mut refusal = Rej { which, ..rej(local, conn.peer.id, params.reason) };
        refusal.private = Private::new(&params.private)?;
        let len = params.info.len();
        let room = refusal.info.get_mut(..len).ok_or(CmError::Information { len, max: Rej::INFO })?;
        room.copy_from_slice(&params.info);
        refusal.info_len = len as u8; // at most 72
        self.transmit_on(id, Mad { transaction, message: Message::Rej(refusal) }.to_bytes());
        if asked {
            self.remember_refusal(now, id, refusal);
        } else {
            // A reply that comes again is one to an unknown connection, and refused as that.
            self.forget(id);
        }
        Ok(())
    }

    /// The host is done with the connection, but the caller may ask again for want of hearing so.
    fn remember_refusal(&mut self, now: Nanos, id: CommId, refusal: Rej) {
        self.table.free_qp(id);
        let Some(conn) = self.table.get_mut(id) else { return };
        conn.state = ConnState::Timewait;
        conn.detached = true;
        conn.repeat = None;
        conn.refusal = Some(Box::new(refusal));
        if let Some(listener) = conn.waiting.take() {
            self.listeners.leave(listener);
        }
        self.table.arm(&mut self.timers, id, Some(now + REFUSAL_MEMORY));
        self.linger(id, now + REFUSAL_MEMORY);
    }

    /// Data arrived on a queue pair whose reply is out: the caller is ready, though its message was lost.
    /// [`Event::Established`] follows, unless it came before.
    ///
    /// # Errors
    ///
    /// [`CmError::Unknown`], [`CmError::State`].
    pub fn communication_established(&mut self, _now: Nanos, conn: ConnId) -> Result<(), CmError> {
        match self.commanded(conn)?.state {
            ConnState::RepSent => self.establish(conn.0, None),
            ConnState::Established => {}
            state => {
                return Err(CmError::State { operation: Operation::CommunicationEstablished, state });
            }
        }
        Ok(())
    }

    /// Refuses a request of which nothing is kept.
    fn refuse_req(&mut self, origin: Origin, req: &Req, reason: RejectReason, info: &[u8]) {
        let mut refusal = rej(CommId::NONE, req.local_comm_id, reason);
        refusal.info[..info.len()].copy_from_slice(info);
        refusal.info_len = info.len() as u8; // an address at most
        self.respond(origin, Message::Rej(refusal));
    }

    /// A connection that has no later than this.
    pub(super) fn rejected_last(&mut self, id: CommId, reason: RejectReason) {
        let private = Private::default();
        self.last_event(id, Event::Rejected { conn: ConnId(id), reason, info: Vec::new(), private });
    }

    /// The connection both ends of which are named, if the datagram comes from its peer.
    pub(super) fn known(&self, origin: Origin, id: CommId, peer: CommId) -> Option<&Conn> {
        self.table.get(id).filter(|conn| conn.path.remote == origin.from && conn.peer.id == peer)
    }
}

/// A refusal of a request, bare.
pub(super) fn rej(local: CommId, remote: CommId, reason: RejectReason) -> Rej {
    Rej {
        local_comm_id: local,
        remote_comm_id: remote,
        which: Which::REQ,
        reason,
        info_len: 0,
        info: [0; Rej::INFO],
        private: Private::default(),
    }
}

/// "Wait", bare.
pub(super) fn mra(local: CommId, remote: CommId, which: Which) -> Message {
    Message::Mra(Mra {
        local_comm_id: local,
        remote_comm_id: remote,
        which,
        service_timeout: SERVICE_TIMEOUT,
        private: Private::default(),
    })
}

/// The header at the front of a service's private data, and the rest; the whole if the service has no header.
pub(super) fn split_header(
    service: ServiceId,
    private: &[u8],
) -> Result<(Option<CmaHeader>, &[u8]), ibex_wire::mad::CmaError> {
    match private.split_first_chunk::<{ CmaHeader::LEN }>() {
        Some((head, rest)) if service.port().is_some() => Ok((Some(CmaHeader::parse(head)?), rest)),
        _ => Ok((None, private)),
    }
}

/// Why a request is refused before the program sees it, and what is added.
struct Refusal<'a>(RejectReason, &'a [u8]);

/// Checks what every program would have to.
fn check(origin: Origin, req: &Req) -> Result<(Mtu, Option<CmaHeader>), Refusal<'static>> {
    if !matches!(req.service, TransportService::RC | TransportService::UC) {
        return Err(Refusal(RejectReason::INVALID_TRANSPORT_TYPE, &[]));
    }
    // It came here, but was it meant for here? The two differ behind address translation, which connections do not survive.
    if req.primary.remote_gid != origin.to {
        return Err(Refusal(RejectReason::INVALID_GID, &[]));
    }
    let mtu = Mtu::from_code(req.mtu).ok_or(Refusal(RejectReason::INVALID_MTU, &[]))?;
    let (cma, _) =
        split_header(req.service_id, &req.private).map_err(|_| Refusal(RejectReason::UNSUPPORTED, &[]))?;
    Ok((mtu, cma))
}

/// The request as the host sees it. The peer's address is where the datagram came from, not what it says: otherwise
/// anybody could point this end's packets at somebody else.
fn request(origin: Origin, req: &Req, mtu: Mtu, cma: Option<CmaHeader>) -> Request {
    let skip = if cma.is_some() { CmaHeader::LEN } else { 0 };
    Request {
        path: Path {
            local: origin.to,
            remote: origin.from,
            flow_label: req.primary.flow_label,
            traffic_class: req.primary.traffic_class,
            hop_limit: req.primary.hop_limit,
            sl: req.primary.sl,
            pkey: req.pkey,
            mtu,
            rate: req.primary.rate,
            packet_life_time: req.primary.ack_timeout.saturating_sub(1),
        },
        service: req.service_id,
        cma,
        transport: req.service,
        remote_ca_guid: req.local_ca_guid,
        remote_qpn: req.local_qpn,
        starting_psn: req.starting_psn,
        responder_resources: req.initiator_depth,
        initiator_depth: req.responder_resources,
        retry_count: req.retry_count,
        rnr_retry_count: req.rnr_retry_count,
        flow_control: req.flow_control,
        srq: req.srq,
        private: req.private[skip..].to_vec(),
    }
}
