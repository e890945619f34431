//! The end of a connection: DREQ and DREP, TIMEWAIT, refusals that come in, and release.

use ibex_wire::mad::{CommId, Drep, Dreq, Guid, Mad, Message, Private, Rej, RejectReason, Which};

use super::answer::rej;
use super::engine::Origin;
use super::repeat::code_ns;
use super::{Cm, CmError, ConnId, ConnState, Disconnect, Event, Operation, RejectParams};
use crate::Nanos;

/// TIMEWAIT lasts as long as a packet and its acknowledgement may be under way, by the peer's word, and at most 4.096 µs × 2^21
/// (8.6 s).
const MAX_TIMEWAIT_CODE: u8 = 21;

impl Cm {
    /// Ends an established connection, or one whose reply is out; or agrees to its end after
    /// [`Event::DisconnectRequested`]. [`Event::Disconnected`] follows, later [`Event::TimewaitExit`].
    ///
    /// # Errors
    ///
    /// [`CmError::Unknown`], [`CmError::State`], [`CmError::PrivateData`] (220 bytes; 224 when agreeing).
    pub fn disconnect(&mut self, now: Nanos, conn: ConnId, private: &[u8]) -> Result<(), CmError> {
        match self.commanded(conn)?.state {
            ConnState::Established | ConnState::RepSent => {
                self.send_dreq(now, conn.0, Private::new(private)?);
            }
            ConnState::DreqRcvd => self.send_drep(now, conn.0, Private::new(private)?),
            state => return Err(CmError::State { operation: Operation::Disconnect, state }),
        }
        Ok(())
    }

    fn send_dreq(&mut self, now: Nanos, id: CommId, private: Private<{ Dreq::PRIVATE }>) {
        let transaction = self.ids.transaction(id);
        let Some(conn) = self.table.get_mut(id) else { return };
        conn.state = ConnState::DreqSent;
        conn.transaction = transaction;
        conn.answer = None;
        let dreq =
            Dreq { local_comm_id: id, remote_comm_id: conn.peer.id, remote_qpn: conn.peer.qpn, private };
        self.transmit_until_answered(now, id, Message::Dreq(dreq));
    }

    fn send_drep(&mut self, now: Nanos, id: CommId, private: Private<{ Drep::PRIVATE }>) {
        let Some(conn) = self.table.get_mut(id) else { return };
        let drep = Drep { local_comm_id: id, remote_comm_id: conn.peer.id, private };
        let mad = Mad { transaction: conn.transaction, message: Message::Drep(drep) }.to_bytes();
        conn.answer = Some(Box::new(mad));
        self.transmit_on(id, mad);
        self.disconnected(now, id, Disconnect::Agreed);
    }

    /// A queue pair of the peer turned up in a new connection: the old one is over, and the peer is told so in case it
    /// is not.
    pub(super) fn end_stale(&mut self, now: Nanos, id: CommId) {
        if self.table.get(id).is_some_and(|conn| conn.state == ConnState::Established) {
            self.send_dreq(now, id, Private::default());
        }
    }

    /// The peer ends a connection.
    pub(super) fn on_dreq(&mut self, now: Nanos, origin: Origin, dreq: &Dreq) {
        let id = dreq.remote_comm_id;
        let Some(conn) = self.known(origin, id, dreq.local_comm_id) else {
            // It ended so long ago that nothing is known of it, or this is a new process: agree.
            self.counters.duplicates += 1;
            return self.agree(origin, dreq);
        };
        let (state, answer) = (conn.state, conn.answer.as_deref().copied());
        if state != ConnState::Timewait && conn.local_qpn != dreq.remote_qpn {
            self.counters.ignored += 1;
            return;
        }
        match state {
            ConnState::RepSent => {
                // Who asks for the end had the reply.
                self.establish(id, None);
                self.disconnect_requested(origin, id, dreq);
            }
            ConnState::Established | ConnState::RepRcvd | ConnState::MraRepSent => {
                self.disconnect_requested(origin, id, dreq);
            }
            ConnState::DreqSent => {
                // Both at once. This host has asked for the end and need not be asked.
                self.agree(origin, dreq);
                self.disconnected(now, id, Disconnect::Crossed(dreq.private));
            }
            ConnState::Timewait => {
                self.counters.duplicates += 1;
                match answer {
                    Some(drep) => self.transmit_on(id, drep),
                    None => self.agree(origin, dreq),
                }
            }
            ConnState::DreqRcvd => self.counters.duplicates += 1,
            ConnState::ReqSent | ConnState::ReqRcvd | ConnState::MraReqSent => {
                self.counters.ignored += 1;
            }
        }
    }

    fn disconnect_requested(&mut self, origin: Origin, id: CommId, dreq: &Dreq) {
        let Some(conn) = self.table.get_mut(id) else { return };
        conn.state = ConnState::DreqRcvd;
        conn.transaction = origin.transaction;
        conn.answer = None;
        self.event(id, Event::DisconnectRequested { conn: ConnId(id), private: dreq.private });
    }

    /// A DREP that says nothing of its own.
    fn agree(&mut self, origin: Origin, dreq: &Dreq) {
        let drep = Drep {
            local_comm_id: dreq.remote_comm_id,
            remote_comm_id: dreq.local_comm_id,
            private: Private::default(),
        };
        self.respond(origin, Message::Drep(drep));
    }

    /// The peer agrees.
    pub(super) fn on_drep(&mut self, now: Nanos, origin: Origin, drep: &Drep) {
        let id = drep.remote_comm_id;
        match self.known(origin, id, drep.local_comm_id).map(|conn| conn.state) {
            Some(ConnState::DreqSent) => {
                self.disconnected(now, id, Disconnect::Answered(drep.private));
            }
            Some(_) => self.counters.duplicates += 1,
            None => self.counters.ignored += 1,
        }
    }

    /// The disconnection is complete.
    pub(super) fn disconnected(&mut self, now: Nanos, id: CommId, how: Disconnect) {
        self.event(id, Event::Disconnected { conn: ConnId(id), how });
        self.enter_timewait(now, id);
    }

    fn enter_timewait(&mut self, now: Nanos, id: CommId) {
        self.table.free_qp(id);
        let Some(conn) = self.table.get_mut(id) else { return };
        conn.state = ConnState::Timewait;
        conn.repeat = None;
        let at = now + code_ns(conn.ack_timeout.min(MAX_TIMEWAIT_CODE));
        if let Some(listener) = conn.waiting.take() {
            self.listeners.leave(listener);
        }
        self.table.arm(&mut self.timers, id, Some(at));
        self.linger(id, at);
    }

    /// The peer refuses or gives up.
    pub(super) fn on_rej(&mut self, now: Nanos, origin: Origin, rej: &Rej) {
        let found = self.rejected(origin, rej);
        let Some((id, conn)) = found.and_then(|id| Some((id, self.table.get(id)?))) else {
            self.counters.ignored += 1;
            return;
        };
        let event = Event::Rejected {
            conn: ConnId(id),
            reason: rej.reason,
            info: rej.additional_info().to_vec(),
            private: rej.private,
        };
        match conn.state {
            ConnState::ReqSent | ConnState::ReqRcvd | ConnState::MraReqSent | ConnState::RepSent => {
                self.last_event(id, event);
            }
            ConnState::RepRcvd | ConnState::MraRepSent | ConnState::Established => {
                self.event(id, event);
                self.enter_timewait(now, id);
            }
            ConnState::DreqSent => self.disconnected(now, id, Disconnect::Refused(rej.reason)),
            ConnState::DreqRcvd | ConnState::Timewait => self.counters.duplicates += 1,
        }
    }

    /// Which connection a refusal means.
    fn rejected(&self, origin: Origin, rej: &Rej) -> Option<CommId> {
        if rej.reason == RejectReason::TIMEOUT {
            // A caller that gave up never learned this end's name. It names itself, and its adapter; so it can only mean
            // a connection whose reply it has not seen.
            let guid = rej.additional_info().first_chunk().map(|guid| Guid(u64::from_be_bytes(*guid)));
            let named = guid.and_then(|guid| self.table.named(origin.from, guid, rej.local_comm_id));
            let named = named.filter(|&id| {
                let state = self.table.get(id).map(|conn| conn.state);
                matches!(state, Some(ConnState::ReqRcvd | ConnState::MraReqSent | ConnState::RepSent))
            });
            if named.is_some() {
                return named;
            }
        }
        let id = rej.remote_comm_id;
        let conn = self.table.get(id).filter(|conn| conn.path.remote == origin.from)?;
        let meant = match rej.which {
            // The other end may not have a name for it, and if it has, this end does not know it yet.
            Which::REQ => conn.state == ConnState::ReqSent,
            _ => conn.peer.id == rej.local_comm_id,
        };
        meant.then_some(id)
    }

    /// The host has no more use for the connection, in whatever state: the engine tells the peer what is proper
    /// (refusal, disconnection), sees it through by itself, and gives no more events of it. Unknown connections are no error.
    ///
    /// Events of it that are queued already still come.
    pub fn release(&mut self, now: Nanos, conn: ConnId) {
        let id = conn.0;
        let Ok(known) = self.commanded(conn) else { return };
        match known.state {
            ConnState::ReqSent => {
                let (transaction, guid) = (known.transaction, self.config.ca_guid.0.to_be_bytes());
                let mut given_up =
                    Rej { which: Which::OTHER, ..rej(id, CommId::NONE, RejectReason::TIMEOUT) };
                given_up.info[..guid.len()].copy_from_slice(&guid);
                given_up.info_len = guid.len() as u8; // 8
                let mad = Mad { transaction, message: Message::Rej(given_up) };
                self.transmit_on(id, mad.to_bytes());
                self.forget(id);
            }
            ConnState::ReqRcvd
            | ConnState::MraReqSent
            | ConnState::RepSent
            | ConnState::RepRcvd
            | ConnState::MraRepSent => {
                // Such a refusal fits, and these are the states it is for.
                let refused = self.reject(now, conn, &RejectParams::consumer(&[]));
                debug_assert_eq!(refused, Ok(()));
            }
            ConnState::Established => {
                self.send_dreq(now, id, Private::default());
                self.detach(id);
            }
            ConnState::DreqRcvd => {
                self.detach(id);
                self.send_drep(now, id, Private::default());
            }
            ConnState::DreqSent | ConnState::Timewait => self.detach(id),
        }
    }

    /// The host ends at once. Every connection is released, and what was said last is said once more, a wish to part that nobody
    /// has answered and answers that are remembered: nobody will be there to repeat them, and a peer whose copy was lost would
    /// wait for ever.
    pub fn part(&mut self, now: Nanos) {
        let ids: Vec<CommId> = self.table.ids().collect();
        for id in ids {
            self.release(now, ConnId(id));
            let last = self.table.get(id).and_then(|conn| match conn.state {
                ConnState::DreqSent => Some(*conn.repeat.as_ref()?.mad),
                ConnState::Timewait => conn.answer.as_deref().copied(),
                _ => None,
            });
            if let Some(mad) = last {
                self.transmit_on(id, mad);
            }
        }
        self.repeat_answers();
    }

    fn detach(&mut self, id: CommId) {
        if let Some(conn) = self.table.get_mut(id) {
            conn.detached = true;
        }
    }
}
