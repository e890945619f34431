//! A queue pair of any service: what a host holds.
//!
//! Owns the choice between the services; each call goes straight to the one the queue pair was made with.
//! IBTA 10.3.1 (queue pair states).

use ibex_wire::{Grh, Mtu, Packet, Psn, Qkey, Qpn};

use crate::unreliable::Unreliable;
use crate::{
    BadTransition, Completion, Counters, Event, Host, InitAttr, Nanos, PostError, QpState, QpType, RcCaps,
    RcQp, RemoteAccess, RtrAttr, RtsAttr, SendWqe, Transmit,
};

/// A queue pair of a reliable connection, an unreliable connection or datagrams.
///
/// It does no I/O and has no clock: the host passes packets, the time and its memory in, and takes packets,
/// completions and events out. The order of calls is that of [`RcQp`].
pub struct Qp(Kind);

#[expect(clippy::large_enum_variant, reason = "most are RC, the fastest, which needs no indirection")]
enum Kind {
    Rc(RcQp),
    Unreliable(Box<Unreliable>),
}

/// Calls the same method of whichever it is.
macro_rules! each {
    ($self:ident, $qp:ident => $call:expr) => {
        match &$self.0 {
            Kind::Rc($qp) => $call,
            Kind::Unreliable($qp) => $call,
        }
    };
    (mut $self:ident, $qp:ident => $call:expr) => {
        match &mut $self.0 {
            Kind::Rc($qp) => $call,
            Kind::Unreliable($qp) => $call,
        }
    };
}

impl Qp {
    /// A queue pair in RESET.
    pub fn new(qp_type: QpType, caps: RcCaps) -> Qp {
        Qp(match qp_type {
            QpType::Rc => Kind::Rc(RcQp::new(caps)),
            QpType::Uc | QpType::Ud => Kind::Unreliable(Box::new(Unreliable::new(qp_type, caps))),
        })
    }

    /// What it was made for.
    pub fn qp_type(&self) -> QpType {
        match &self.0 {
            Kind::Rc(_) => QpType::Rc,
            Kind::Unreliable(qp) => qp.qp_type,
        }
    }

    /// The reliable connection, if it is one.
    #[inline]
    pub fn as_rc(&self) -> Option<&RcQp> {
        match &self.0 {
            Kind::Rc(qp) => Some(qp),
            Kind::Unreliable(_) => None,
        }
    }

    /// The reliable connection, if it is one, to be told of operations that its host carried out, see
    /// [`RcQp::is_at_rest`].
    #[inline]
    pub fn as_rc_mut(&mut self) -> Option<&mut RcQp> {
        match &mut self.0 {
            Kind::Rc(qp) => Some(qp),
            Kind::Unreliable(_) => None,
        }
    }

    /// The state now. It can turn to [`QpState::Err`] (the send queue of UC and UD alone: [`QpState::Sqe`]) in any call
    /// that takes a [`Host`], and to `Err` in [`handle_timeout`](Qp::handle_timeout).
    #[inline]
    pub fn state(&self) -> QpState {
        match &self.0 {
            Kind::Rc(qp) => qp.state(),
            Kind::Unreliable(qp) => qp.state,
        }
    }

    /// This end's number.
    pub fn local_qpn(&self) -> Qpn {
        match &self.0 {
            Kind::Rc(qp) => qp.local_qpn(),
            Kind::Unreliable(qp) => qp.caps.local_qpn,
        }
    }

    /// The peer's number, known from RTR on; `None` for datagrams.
    pub fn remote_qpn(&self) -> Option<Qpn> {
        each!(self, qp => qp.remote_qpn())
    }

    /// The path MTU, known from RTR on.
    pub fn path_mtu(&self) -> Option<Mtu> {
        each!(self, qp => qp.path_mtu())
    }

    /// The PSN of the next request to be posted (RC), or packet to be sent (UC, UD); 0 before RTS.
    pub fn sq_psn(&self) -> Psn {
        match &self.0 {
            Kind::Rc(qp) => qp.sq_psn(),
            Kind::Unreliable(qp) => qp.psn,
        }
    }

    /// The PSN of the next packet expected; 0 before RTR and for datagrams.
    pub fn rq_psn(&self) -> Psn {
        each!(self, qp => qp.rq_psn())
    }

    /// RESET → INIT, or INIT again with other attributes.
    ///
    /// # Errors
    /// From any other state.
    pub fn to_init(&mut self, attr: InitAttr) -> Result<(), BadTransition> {
        match &mut self.0 {
            Kind::Rc(qp) => qp.to_init(attr),
            Kind::Unreliable(qp) => qp.enter_init(attr),
        }
    }

    /// INIT → RTR: what the peer sends is received from now on. UC uses `remote_qpn`, `path_mtu` and `rq_psn` of the
    /// attributes, UD `path_mtu`, the port's.
    ///
    /// # Errors
    /// From any other state.
    pub fn to_rtr(&mut self, attr: RtrAttr) -> Result<(), BadTransition> {
        match &mut self.0 {
            Kind::Rc(qp) => qp.to_rtr(attr),
            Kind::Unreliable(qp) => qp.enter_rtr(attr),
        }
    }

    /// RTR → RTS: send requests are carried out from now on. UC and UD use `sq_psn` of the attributes.
    ///
    /// # Errors
    /// From any other state.
    pub fn to_rts(&mut self, attr: RtsAttr) -> Result<(), BadTransition> {
        match &mut self.0 {
            Kind::Rc(qp) => qp.to_rts(attr),
            Kind::Unreliable(qp) => qp.enter_rts(attr),
        }
    }

    /// RTS → SQD: requests begun are finished, then [`Event::SqDrained`] is reported if `notify` is set; others wait.
    ///
    /// # Errors
    /// From any other state.
    pub fn to_sqd(&mut self, notify: bool) -> Result<(), BadTransition> {
        match &mut self.0 {
            Kind::Rc(qp) => qp.to_sqd(notify),
            Kind::Unreliable(qp) => qp.enter_sqd(notify),
        }
    }

    /// SQD → RTS, and SQE → RTS of UC and UD: send requests go on.
    ///
    /// # Errors
    /// From any other state.
    pub fn resume(&mut self) -> Result<(), BadTransition> {
        each!(mut self, qp => qp.resume())
    }

    /// Any state → ERR: every outstanding send request, and the receive request the transport holds, completes with
    /// [`WcStatus::WR_FLUSH_ERR`](crate::WcStatus::WR_FLUSH_ERR). The host flushes its own receive queue.
    pub fn set_error(&mut self) {
        each!(mut self, qp => qp.set_error());
    }

    /// Any state → RESET: everything outstanding is forgotten without completions, a receive request the transport
    /// holds too.
    pub fn reset(&mut self) {
        each!(mut self, qp => qp.reset());
    }

    /// Changes what the peer may do through this queue pair.
    pub fn set_access(&mut self, access: RemoteAccess) {
        match &mut self.0 {
            Kind::Rc(qp) => qp.set_access(access),
            Kind::Unreliable(qp) => qp.access = access,
        }
    }

    /// Changes the key that a datagram needs to get in. Connections have none.
    pub fn set_qkey(&mut self, qkey: Qkey) {
        match &mut self.0 {
            Kind::Rc(_) => {}
            Kind::Unreliable(qp) => qp.qkey = qkey,
        }
    }

    /// Changes the wait a peer is asked for when there is no receive request (RC); see [`RcQp::set_min_rnr_timer`].
    pub fn set_min_rnr_timer(&mut self, code: u8) {
        match &mut self.0 {
            Kind::Rc(qp) => qp.set_min_rnr_timer(code),
            Kind::Unreliable(_) => {}
        }
    }

    /// Changes how long to wait for an answer and how often to ask again (RC); see [`RcQp::set_patience`].
    pub fn set_patience(&mut self, timeout: Option<Nanos>, retry: Option<u8>, rnr_retry: Option<u8>) {
        match &mut self.0 {
            Kind::Rc(qp) => qp.set_patience(timeout, retry, rnr_retry),
            Kind::Unreliable(_) => {}
        }
    }

    /// Changes how many READs and atomics of this end may be outstanding (RC); see [`RcQp::set_max_rd_atomic`].
    pub fn set_max_rd_atomic(&mut self, max_rd_atomic: u8) {
        match &mut self.0 {
            Kind::Rc(qp) => qp.set_max_rd_atomic(max_rd_atomic),
            Kind::Unreliable(_) => {}
        }
    }

    /// Adds a request to the send queue. In ERR and SQE it completes at once with `WR_FLUSH_ERR`; in SQD it waits.
    ///
    /// # Errors
    /// [`PostError::Full`] at the depth given, [`PostError::State`] in RESET, INIT and RTR, [`PostError::Operation`] for
    /// what the service does not have, [`PostError::TooLong`] for a datagram beyond the path MTU.
    #[inline]
    pub fn post_send(&mut self, wqe: SendWqe) -> Result<(), PostError> {
        each!(mut self, qp => qp.post_send(wqe))
    }

    /// Takes in one packet for this queue pair, whose ICRC and addresses the link has checked.
    #[inline]
    pub fn handle_packet<H: Host>(&mut self, now: Nanos, packet: &Packet<'_>, host: &mut H) {
        match &mut self.0 {
            Kind::Rc(qp) => qp.handle_packet(now, packet, host),
            Kind::Unreliable(qp) => qp.handle_packet(packet, None, host),
        }
    }

    /// As [`handle_packet`](Qp::handle_packet), with the network header that a datagram's receiver is shown: the GRH, or
    /// on IPv4 20 bytes of anything and the IP header. Connections do not look at it.
    #[inline]
    pub fn handle_datagram<H: Host>(
        &mut self,
        now: Nanos,
        packet: &Packet<'_>,
        grh: &[u8; Grh::LEN],
        host: &mut H,
    ) {
        match &mut self.0 {
            Kind::Rc(qp) => qp.handle_packet(now, packet, host),
            Kind::Unreliable(qp) => qp.handle_packet(packet, Some(grh), host),
        }
    }

    /// Changes how many messages need not be acknowledged one by one (RC); see [`RcQp::set_sparse_acks`].
    pub fn set_sparse_acks(&mut self, messages: u32) {
        match &mut self.0 {
            Kind::Rc(qp) => qp.set_sparse_acks(messages),
            Kind::Unreliable(_) => {}
        }
    }

    /// Says whether the peer is known to repeat only what is missing (RC); see [`RcQp::set_peer_repairs`].
    pub fn set_peer_repairs(&mut self, known: bool) {
        match &mut self.0 {
            Kind::Rc(qp) => qp.set_peer_repairs(known),
            Kind::Unreliable(_) => {}
        }
    }

    /// Owes the peer an acknowledgement of all that it has not asked to have acknowledged (RC); see
    /// [`RcQp::acknowledge_all`].
    pub fn acknowledge_all(&mut self) {
        match &mut self.0 {
            Kind::Rc(qp) => qp.acknowledge_all(),
            Kind::Unreliable(_) => {}
        }
    }

    /// Owes the peer the acknowledgement of its last message once more (RC); see [`RcQp::acknowledge_again`].
    pub fn acknowledge_again(&mut self) {
        match &mut self.0 {
            Kind::Rc(qp) => qp.acknowledge_again(),
            Kind::Unreliable(_) => {}
        }
    }

    /// Carries out what was due at [`poll_timeout`](Qp::poll_timeout). Early and late calls do no harm.
    pub fn handle_timeout(&mut self, now: Nanos) {
        match &mut self.0 {
            Kind::Rc(qp) => qp.handle_timeout(now),
            Kind::Unreliable(_) => {}
        }
    }

    /// Where the packet goes that [`poll_transmit`](Qp::poll_transmit) would write next: the `address` of its
    /// [`SendOp::Datagram`](crate::SendOp::Datagram). `None` on connections, and when there is nothing to send.
    #[inline]
    pub fn next_address(&self) -> Option<u64> {
        match &self.0 {
            Kind::Rc(_) => None,
            Kind::Unreliable(qp) => qp.next_address(),
        }
    }

    /// Writes the next packet to `buf`, which must have room for headers and the path MTU
    /// ([`MAX_PACKET`](ibex_wire::MAX_PACKET) is always enough; with less, nothing is sent). `None` when there is nothing to
    /// send now. Local operations whose turn has come are carried out on the way.
    #[inline]
    pub fn poll_transmit<H: Host>(&mut self, now: Nanos, host: &mut H, buf: &mut [u8]) -> Option<Transmit> {
        match &mut self.0 {
            Kind::Rc(qp) => qp.poll_transmit(now, host, buf),
            Kind::Unreliable(qp) => qp.poll_transmit(host, buf),
        }
    }

    /// Whether all that the peer's requests have left to be sent is an acknowledgement, see [`RcQp::owes_only_ack`].
    #[inline]
    pub fn owes_only_ack(&self) -> bool {
        match &self.0 {
            Kind::Rc(qp) => qp.owes_only_ack(),
            Kind::Unreliable(_) => false,
        }
    }

    /// As [`poll_transmit`](Qp::poll_transmit), but only for requests of this end, see [`RcQp::poll_request`].
    #[inline]
    pub fn poll_request<H: Host>(&mut self, now: Nanos, host: &mut H, buf: &mut [u8]) -> Option<Transmit> {
        match &mut self.0 {
            Kind::Rc(qp) => qp.poll_request(now, host, buf),
            Kind::Unreliable(qp) => qp.poll_transmit(host, buf),
        }
    }

    /// Whether [`poll_transmit`](Qp::poll_transmit) may have something now; may say yes in vain, never no in vain.
    /// A wait the peer asked for ends in [`handle_timeout`](Qp::handle_timeout).
    #[inline]
    pub fn wants_transmit(&self) -> bool {
        each!(self, qp => qp.wants_transmit())
    }

    /// [`wants_transmit`](Qp::wants_transmit) of requests alone.
    #[inline]
    pub fn wants_request(&self) -> bool {
        match &self.0 {
            Kind::Rc(qp) => qp.wants_request(),
            Kind::Unreliable(qp) => qp.wants_transmit(),
        }
    }

    /// Whether the send queue is empty: nothing posted is unfinished.
    #[inline]
    pub fn is_idle(&self) -> bool {
        each!(self, qp => qp.is_idle())
    }

    /// When [`handle_timeout`](Qp::handle_timeout) is due, if ever.
    #[inline]
    pub fn poll_timeout(&self) -> Option<Nanos> {
        match &self.0 {
            Kind::Rc(qp) => qp.poll_timeout(),
            Kind::Unreliable(_) => None,
        }
    }

    /// The next finished request. Send completions come in the order of posting.
    #[inline]
    pub fn poll_completion(&mut self) -> Option<Completion> {
        match &mut self.0 {
            Kind::Rc(qp) => qp.poll_completion(),
            Kind::Unreliable(qp) => qp.out.pop_completion(),
        }
    }

    /// The next event.
    #[inline]
    pub fn poll_event(&mut self) -> Option<Event> {
        match &mut self.0 {
            Kind::Rc(qp) => qp.poll_event(),
            Kind::Unreliable(qp) => qp.out.pop_event(),
        }
    }

    /// Where the memory is that the next calls will look at, see [`RcQp::memory`]. Null for other services.
    #[inline]
    pub fn memory(&self) -> [*const u8; 3] {
        match &self.0 {
            Kind::Rc(qp) => qp.memory(),
            Kind::Unreliable(_) => [std::ptr::null(); 3],
        }
    }

    /// What has happened on the wire so far.
    pub fn counters(&self) -> &Counters {
        match &self.0 {
            Kind::Rc(qp) => qp.counters(),
            Kind::Unreliable(qp) => &qp.out.counters,
        }
    }
}
