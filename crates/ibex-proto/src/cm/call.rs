//! The end that asks for a connection: REQ out, REP in, RTU out.

use ibex_wire::mad::{
    CmaHeader, CommId, Mad, Message, Mra, Private, Rej, RejectReason, Rep, Req, ReqPath, Rtu, TooLong,
    TransportService, Which,
};

use super::answer::mra;
use super::engine::Origin;
use super::repeat::code_ns;
use super::table::{Conn, Peer};
use super::{Cm, CmError, ConnId, ConnState, ConnectParams, Event, Operation, Path, Reply};
use crate::Nanos;

/// A LID where there are none: what Linux writes on paths of more than one hop.
const PERMISSIVE_LID: u16 = 0xffff;

impl Cm {
    /// Requests a connection. One of [`Event::Reply`], [`Event::Rejected`] and [`Event::Unreachable`] follows.
    ///
    /// # Errors
    ///
    /// [`CmError::PrivateData`], [`CmError::Range`], [`CmError::TooMany`].
    pub fn connect(&mut self, now: Nanos, params: &ConnectParams) -> Result<ConnId, CmError> {
        check(params)?;
        let private = with_header(params.cma.as_ref(), &params.private)?;
        let id = self.new_id().ok_or(CmError::TooMany(self.config.max_connections))?;
        let path = &params.path;
        let mut conn = Conn::new(ConnState::ReqSent, *path, params.transport);
        conn.transaction = self.ids.transaction(id);
        conn.local_qpn = params.qpn;
        conn.rq_psn = params.starting_psn;
        conn.responder_resources = params.responder_resources;
        conn.initiator_depth = params.initiator_depth;
        conn.retry_count = params.retry_count;
        conn.ack_timeout = (path.packet_life_time + 1).min(31);
        conn.response = 2 * code_ns(path.packet_life_time) + code_ns(params.remote_response_timeout);
        conn.max_retries = params.max_cm_retries;
        let req = Req {
            local_comm_id: id,
            service_id: params.service,
            local_ca_guid: self.config.ca_guid,
            local_qkey: Default::default(),
            local_qpn: params.qpn,
            responder_resources: params.responder_resources,
            initiator_depth: params.initiator_depth,
            local_eecn: 0,
            remote_eecn: 0,
            remote_response_timeout: params.remote_response_timeout,
            service: params.transport,
            flow_control: params.flow_control,
            starting_psn: params.starting_psn,
            local_response_timeout: params.local_response_timeout,
            retry_count: params.retry_count,
            pkey: path.pkey,
            mtu: path.mtu.code(),
            rdc_exists: false,
            rnr_retry_count: params.rnr_retry_count,
            max_cm_retries: params.max_cm_retries,
            srq: params.srq,
            extended_transport: 0,
            primary: req_path(path, conn.ack_timeout),
            alternate: ReqPath::default(),
            private,
        };
        self.table.insert(id, conn);
        self.transmit_until_answered(now, id, Message::Req(req));
        Ok(ConnId(id))
    }

    /// After [`Event::Reply`]: the queue pair is ready, tell the peer. The connection is established, without an event.
    ///
    /// # Errors
    ///
    /// [`CmError::Unknown`], [`CmError::State`], [`CmError::PrivateData`] (224 bytes).
    pub fn ready(&mut self, _now: Nanos, conn: ConnId, private: &[u8]) -> Result<(), CmError> {
        let id = conn.0;
        let conn = self.commanded(conn)?;
        if !matches!(conn.state, ConnState::RepRcvd | ConnState::MraRepSent) {
            return Err(CmError::State { operation: Operation::Ready, state: conn.state });
        }
        let rtu = Rtu { local_comm_id: id, remote_comm_id: conn.peer.id, private: Private::new(private)? };
        let mad = Mad { transaction: conn.transaction, message: Message::Rtu(rtu) }.to_bytes();
        conn.state = ConnState::Established;
        conn.answer = Some(Box::new(mad));
        self.transmit_on(id, mad);
        Ok(())
    }

    /// A reply: to our request, or once more.
    pub(super) fn on_rep(&mut self, now: Nanos, origin: Origin, rep: &Rep) {
        let id = rep.remote_comm_id;
        let Some(conn) = self.table.get(id).filter(|conn| conn.path.remote == origin.from) else {
            // Whoever sent it would repeat it to the end: the request it answers was given up.
            self.counters.ignored += 1;
            return self.refuse_rep(origin, rep, RejectReason::INVALID_COMM_ID);
        };
        match conn.state {
            ConnState::ReqSent => {}
            ConnState::RepRcvd | ConnState::MraRepSent | ConnState::Established
                if conn.peer.id == rep.local_comm_id =>
            {
                self.counters.duplicates += 1;
                return self.rep_again(id);
            }
            _ => {
                self.counters.ignored += 1;
                return;
            }
        }
        if rep.local_comm_id == CommId::NONE {
            self.counters.ignored += 1;
            return;
        }
        let (from, guid) = (origin.from, rep.local_ca_guid);
        if let Some(older) = self.table.connected_to(from, guid, rep.local_qpn) {
            // The queue pair is still in an older connection here: that one is not what the peer has.
            self.refuse_rep(origin, rep, RejectReason::STALE_CONN);
            return self.end_stale(now, older);
        }
        if self.table.named(from, guid, rep.local_comm_id).is_some() {
            self.counters.ignored += 1;
            return;
        }
        self.answered(id);
        self.table.learn(id, Peer { id: rep.local_comm_id, guid, qpn: rep.local_qpn });
        let Some(conn) = self.table.get_mut(id) else { return };
        conn.state = ConnState::RepRcvd;
        conn.sq_psn = rep.starting_psn;
        conn.initiator_depth = rep.responder_resources;
        conn.responder_resources = rep.initiator_depth;
        conn.rnr_retry_count = rep.rnr_retry_count;
        conn.ack_timeout = ack_timeout(rep.target_ack_delay, conn.path.packet_life_time);
        let reply = Reply {
            remote_ca_guid: guid,
            remote_qpn: rep.local_qpn,
            starting_psn: rep.starting_psn,
            responder_resources: rep.initiator_depth,
            initiator_depth: rep.responder_resources,
            target_ack_delay: rep.target_ack_delay,
            flow_control: rep.flow_control,
            rnr_retry_count: rep.rnr_retry_count,
            srq: rep.srq,
            private: rep.private,
        };
        self.event(id, Event::Reply { conn: ConnId(id), reply: Box::new(reply) });
    }

    /// A reply that is here already: the RTU again, or "wait" while the host prepares its queue pair.
    fn rep_again(&mut self, id: CommId) {
        let Some(conn) = self.table.get_mut(id) else { return };
        let (transaction, message) = (conn.transaction, mra(id, conn.peer.id, Which::REP));
        let wait = || Box::new(Mad { transaction, message }.to_bytes());
        let mad = **conn.answer.get_or_insert_with(wait);
        self.transmit_on(id, mad);
    }

    /// "Wait": to our request, or to our reply.
    pub(super) fn on_mra(&mut self, now: Nanos, origin: Origin, mra: &Mra) {
        let id = mra.remote_comm_id;
        let expected = self.table.get(id).filter(|conn| {
            conn.path.remote == origin.from
                && match mra.which {
                    Which::REQ => conn.state == ConnState::ReqSent,
                    Which::REP => conn.state == ConnState::RepSent && conn.peer.id == mra.local_comm_id,
                    _ => false,
                }
        });
        if expected.is_none() {
            self.counters.ignored += 1;
            return;
        }
        let Some(conn) = self.table.get_mut(id) else { return };
        let asked = code_ns(mra.service_timeout) + code_ns(conn.path.packet_life_time + 1);
        if let Some(repeat) = &mut conn.repeat {
            let at = now + repeat.patience(asked);
            self.table.arm(&mut self.timers, id, Some(at));
        }
        self.event(id, Event::Delayed { conn: ConnId(id), which: mra.which, private: mra.private });
    }

    fn refuse_rep(&mut self, origin: Origin, rep: &Rep, reason: RejectReason) {
        let rej = Rej {
            local_comm_id: rep.remote_comm_id,
            remote_comm_id: rep.local_comm_id,
            which: Which::REP,
            reason,
            info_len: 0,
            info: [0; Rej::INFO],
            private: Private::default(),
        };
        self.respond(origin, Message::Rej(rej));
    }
}

/// Private data behind the header, if there is one; both have to fit.
pub(super) fn with_header<const N: usize>(
    header: Option<&CmaHeader>,
    private: &[u8],
) -> Result<Private<N>, TooLong> {
    let Some(header) = header else { return Private::new(private) };
    let mut bytes = [0; N];
    let (head, rest) = bytes.split_at_mut(CmaHeader::LEN);
    let room = rest.len();
    let rest = rest.get_mut(..private.len()).ok_or(TooLong { len: private.len(), max: room })?;
    rest.copy_from_slice(private);
    let mut emitted = [0; CmaHeader::LEN];
    header.emit(&mut emitted);
    head.copy_from_slice(&emitted);
    Ok(Private::from(bytes))
}

/// Refuses numbers that their fields cannot hold.
pub(super) fn at_most(field: &'static str, value: impl Into<u32>, max: u32) -> Result<(), CmError> {
    let value = value.into();
    if value <= max { Ok(()) } else { Err(CmError::Range { field, value, max }) }
}

/// Checks a path.
pub(super) fn check_path(path: &Path) -> Result<(), CmError> {
    at_most("flow_label", path.flow_label, 0xf_ffff)?;
    at_most("sl", path.sl, 15)?;
    at_most("rate", path.rate, 63)?;
    at_most("packet_life_time", path.packet_life_time, 31)
}

fn check(params: &ConnectParams) -> Result<(), CmError> {
    check_path(&params.path)?;
    at_most("transport", params.transport.0, u32::from(TransportService::UC.0))?;
    at_most("retry_count", params.retry_count, 7)?;
    at_most("rnr_retry_count", params.rnr_retry_count, 7)?;
    at_most("remote_response_timeout", params.remote_response_timeout, 31)?;
    at_most("local_response_timeout", params.local_response_timeout, 31)?;
    at_most("max_cm_retries", params.max_cm_retries, 15)
}

fn req_path(path: &Path, ack_timeout: u8) -> ReqPath {
    let subnet_local = path.hop_limit <= 1;
    let lid = if subnet_local { 0 } else { PERMISSIVE_LID };
    ReqPath {
        local_lid: lid,
        remote_lid: lid,
        local_gid: path.local,
        remote_gid: path.remote,
        flow_label: path.flow_label,
        rate: path.rate,
        traffic_class: path.traffic_class,
        hop_limit: path.hop_limit,
        sl: path.sl,
        subnet_local,
        ack_timeout,
        sap_supported: false,
    }
}

/// The code of a time not shorter than the way there and back (2 × 2^life) and the peer's delay (2^delay), and not
/// much longer: the larger of the two, doubled if the other is at least half of it.
fn ack_timeout(delay: u8, life: u8) -> u8 {
    let (large, small) = (delay.max(life + 1), delay.min(life + 1));
    (large + u8::from(small + 1 >= large)).min(31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgement_timeouts_cover_way_and_delay() {
        for delay in 0..25 {
            for life in 0..25 {
                let needed = (1_u64 << delay) + 2 * (1 << life);
                let chosen = 1_u64 << ack_timeout(delay, life);
                assert!(chosen * 3 >= needed * 2 && chosen <= 4 * needed, "{delay} {life}");
            }
        }
        assert_eq!(ack_timeout(15, 18), 19);
        assert_eq!(ack_timeout(31, 31), 31);
    }
}
