//! One reliable connection: its state, and the calls that drive it.
//!
//! What a host holds is [`Qp`](crate::Qp), one of whose services this is. Owns the state and what each change of it does, and hands packets, timeouts and transmit opportunities to
//! requester, completer and responder. Which changes the verbs allow, and with which attributes, is in `state.rs`.
//! IBTA 10.3.1 (queue pair states).

#[path = "bypass.rs"]
mod bypass;
#[path = "express.rs"]
mod express;

pub use express::{Ack, Clock};

use ibex_wire::{Mtu, NakCode, Packet, Pkey, Psn, Qpn, Service};

use crate::errors::Refusal;
use crate::output::Output;
use crate::requester::{self, Requester, Route};
use crate::responder::Responder;
use crate::{
    BadTransition, Completion, Counters, Event, Host, InitAttr, Nanos, PostError, QpState, QpType, RcCaps,
    RemoteAccess, RtrAttr, RtsAttr, SendOp, SendWqe, Transmit, WcStatus,
};

/// Packets one half may send before the other half has a turn, when both have something to send. READ responses and
/// requests are batched by the link; alternating single packets would make every batch one packet long.
const TURN: u32 = 16;

/// One reliable connection: requester, completer and responder.
///
/// It does no I/O and has no clock: the host passes packets, the time and its memory in, and takes packets,
/// completions and events out.
///
/// # Order of calls
/// After any of [`post_send`](RcQp::post_send), [`handle_packet`](RcQp::handle_packet) (one or a batch),
/// [`handle_timeout`](RcQp::handle_timeout) and the state changes, drain [`poll_transmit`](RcQp::poll_transmit),
/// [`poll_completion`](RcQp::poll_completion) and [`poll_event`](RcQp::poll_event) until each returns `None`, then ask
/// [`poll_timeout`](RcQp::poll_timeout) when to come back. A link that cannot send now may leave `poll_transmit` for later:
/// packets are made when asked for, never queued.
pub struct RcQp {
    state: QpState,
    caps: RcCaps,
    access: RemoteAccess,
    pkey: Pkey,
    /// From RTR on.
    receiving: Option<Receiving>,
    /// From RTS on.
    requester: Option<Requester>,
    /// The NAK that ended the connection: repeated when the peer asks again, since it may have been lost.
    last_nak: Option<(Psn, NakCode)>,
    /// SQD is to be reported.
    notify_drained: bool,
    /// Packets left in the turn of the half whose turn it is.
    turn: u32,
    responder_has_turn: bool,
    out: Output,
}

/// What exists from RTR on.
struct Receiving {
    route: Route,
    responder: Responder,
    /// A packet has arrived.
    established: bool,
}

impl RcQp {
    /// A queue pair in RESET.
    pub fn new(caps: RcCaps) -> RcQp {
        RcQp {
            state: QpState::Reset,
            caps,
            access: RemoteAccess::NONE,
            pkey: Pkey::DEFAULT,
            receiving: None,
            requester: None,
            last_nak: None,
            notify_drained: false,
            turn: 0,
            responder_has_turn: false,
            out: Output::new(),
        }
    }

    /// The state now. It can turn to [`QpState::Err`] in any call that takes a [`Host`] and in
    /// [`handle_timeout`](RcQp::handle_timeout).
    #[inline]
    pub fn state(&self) -> QpState {
        self.state
    }

    /// This end's number.
    pub fn local_qpn(&self) -> Qpn {
        self.caps.local_qpn
    }

    /// The peer's number, known from RTR on.
    pub fn remote_qpn(&self) -> Option<Qpn> {
        self.receiving.as_ref().map(|receiving| receiving.route.remote_qpn)
    }

    /// The path MTU, known from RTR on.
    pub fn path_mtu(&self) -> Option<Mtu> {
        self.receiving.as_ref().map(|receiving| receiving.route.mtu)
    }

    /// The PSN of the next request to be posted (the verbs' `sq_psn`); 0 before RTS.
    pub fn sq_psn(&self) -> Psn {
        self.requester.as_ref().map_or(Psn::new(0), |requester| requester.next_psn())
    }

    /// The PSN of the next request expected (the verbs' `rq_psn`); 0 before RTR.
    pub fn rq_psn(&self) -> Psn {
        self.receiving.as_ref().map_or(Psn::new(0), |receiving| receiving.responder.expected)
    }

    /// RESET → INIT, or INIT again with other attributes.
    ///
    /// # Errors
    /// From any other state.
    pub fn to_init(&mut self, attr: InitAttr) -> Result<(), BadTransition> {
        self.step(&[QpState::Reset, QpState::Init], QpState::Init)?;
        self.access = attr.access;
        self.pkey = attr.pkey;
        Ok(())
    }

    /// INIT → RTR: requests of the peer are served from now on.
    ///
    /// # Errors
    /// From any other state.
    pub fn to_rtr(&mut self, attr: RtrAttr) -> Result<(), BadTransition> {
        self.step(&[QpState::Init], QpState::Rtr)?;
        self.receiving = Some(Receiving {
            route: Route { remote_qpn: attr.remote_qpn, pkey: self.pkey, mtu: attr.path_mtu },
            responder: Responder::new(&attr, &self.caps.tuning),
            established: false,
        });
        Ok(())
    }

    /// RTR → RTS: send requests are carried out from now on.
    ///
    /// # Errors
    /// From any other state.
    pub fn to_rts(&mut self, attr: RtsAttr) -> Result<(), BadTransition> {
        self.step(&[QpState::Rtr], QpState::Rts)?;
        if let Some(receiving) = &self.receiving {
            self.requester = Some(Requester::new(receiving.route, &attr, &self.caps));
        }
        Ok(())
    }

    /// RTS → SQD: requests begun are finished, then [`Event::SqDrained`] is reported if `notify` is set; others wait.
    ///
    /// # Errors
    /// From any other state.
    pub fn to_sqd(&mut self, notify: bool) -> Result<(), BadTransition> {
        self.step(&[QpState::Rts], QpState::Sqd)?;
        self.notify_drained = notify;
        if let Some(requester) = &mut self.requester {
            requester.begin_drain();
        }
        self.after_requester();
        Ok(())
    }

    /// SQD → RTS: send requests go on.
    ///
    /// # Errors
    /// From any other state.
    pub fn resume(&mut self) -> Result<(), BadTransition> {
        self.step(&[QpState::Sqd], QpState::Rts)?;
        self.notify_drained = false;
        if let Some(requester) = &mut self.requester {
            requester.drain_at = None;
        }
        Ok(())
    }

    /// Any state → ERR: every outstanding send request, and the receive request being filled, completes with
    /// [`WcStatus::WR_FLUSH_ERR`]. The host flushes its own receive queue.
    pub fn set_error(&mut self) {
        if let Some(receiving) = &mut self.receiving {
            receiving.responder.answers.clear();
        }
        self.last_nak = None;
        self.flush();
    }

    /// Any state → RESET: everything outstanding is forgotten without completions.
    pub fn reset(&mut self) {
        self.state = QpState::Reset;
        self.receiving = None;
        self.requester = None;
        self.last_nak = None;
        self.notify_drained = false;
        self.out.clear();
    }

    /// Changes what the peer may do through this queue pair.
    pub fn set_access(&mut self, access: RemoteAccess) {
        self.access = access;
    }

    /// Changes the wait a peer is asked for when there is no receive request: a code of
    /// [`ibex_wire::RNR_TIMER_NS`]. Has no effect before RTR, which brings its own.
    pub fn set_min_rnr_timer(&mut self, code: u8) {
        if let Some(receiving) = &mut self.receiving {
            receiving.responder.min_rnr_timer = code;
        }
    }

    /// Changes how long to wait for an answer and how often to ask again, as the attributes of RTS have it. Meant for SQD;
    /// has no effect before RTS, which brings its own.
    pub fn set_patience(&mut self, timeout: Option<Nanos>, retry: Option<u8>, rnr_retry: Option<u8>) {
        if let Some(requester) = &mut self.requester {
            requester.retry.set_limits(timeout, retry, rnr_retry);
        }
    }

    /// Changes how many READs and atomics of this end may be outstanding. Meant for SQD; has no effect before RTS.
    pub fn set_max_rd_atomic(&mut self, max_rd_atomic: u8) {
        if let Some(requester) = &mut self.requester {
            requester.max_rd_atomic = usize::from(max_rd_atomic);
        }
    }

    /// Adds a request to the send queue. In ERR it completes at once with `WR_FLUSH_ERR`; in SQD it waits.
    ///
    /// # Errors
    /// [`PostError::Full`] at the depth given, [`PostError::State`] in RESET, INIT and RTR, [`PostError::Operation`] for a
    /// datagram.
    #[inline]
    pub fn post_send(&mut self, wqe: SendWqe) -> Result<(), PostError> {
        if let SendOp::Datagram { .. } = wqe.op {
            return Err(PostError::Operation { operation: wqe.op.wc_opcode(), qp_type: QpType::Rc });
        }
        let queued = self.requester.as_ref().map_or(0, |requester| requester.sq.len());
        if queued + self.out.unfetched_sends() >= self.caps.sq_depth as usize {
            return Err(PostError::Full);
        }
        match (self.state, &mut self.requester) {
            (QpState::Rts | QpState::Sqd, Some(requester)) => requester.post(wqe),
            (QpState::Err | QpState::Sqe, _) => {
                self.out.send_done(requester::completion(&wqe, WcStatus::WR_FLUSH_ERR));
            }
            (state, _) => return Err(PostError::State(state)),
        }
        Ok(())
    }

    /// Takes in one packet for this queue pair, whose ICRC and addresses the link has checked.
    #[inline]
    pub fn handle_packet<H: Host>(&mut self, now: Nanos, packet: &Packet<'_>, host: &mut H) {
        self.out.counters.received += 1;
        let Some(receiving) = &mut self.receiving else {
            self.out.counters.dropped += 1;
            return;
        };
        let bth = packet.bth();
        if bth.opcode.service() != Service::Rc || !bth.pkey.matches(self.pkey) {
            self.out.counters.dropped += 1;
            return;
        }
        match self.state {
            QpState::Rtr | QpState::Rts | QpState::Sqd | QpState::Sqe => {}
            _ => {
                self.out.counters.dropped += 1;
                if let Some((psn, nak)) = self.last_nak.filter(|_| bth.opcode.is_request()) {
                    let msn = receiving.responder.msn;
                    receiving.responder.answers.abort(psn, nak, msn);
                }
                return;
            }
        }
        if bth.opcode.is_request() {
            if !receiving.established {
                receiving.established = true;
                if self.state == QpState::Rtr {
                    self.out.event(Event::CommEst);
                }
            }
            let handled = receiving.responder.handle_request(packet, self.access, host, &mut self.out);
            if let Err(refusal) = handled {
                let psn = receiving.responder.expected;
                self.refuse(refusal, psn);
            }
        } else if let Some(requester) = &mut self.requester {
            requester.handle_response(now, packet, host, &mut self.out);
            self.after_requester();
        } else {
            self.out.counters.stale_responses += 1;
        }
    }

    /// Carries out what was due at [`poll_timeout`](RcQp::poll_timeout). Early and late calls do no harm.
    pub fn handle_timeout(&mut self, now: Nanos) {
        if let (QpState::Rts | QpState::Sqd, Some(requester)) = (self.state, &mut self.requester) {
            requester.handle_timeout(now, &mut self.out);
            self.after_requester();
        }
    }

    /// Writes the next packet to `buf`, which must have room for headers and the path MTU
    /// ([`MAX_PACKET`](ibex_wire::MAX_PACKET) is always enough; with less, nothing is sent). `None` when there is nothing to
    /// send now.
    #[inline]
    pub fn poll_transmit<H: Host>(&mut self, now: Nanos, host: &mut H, buf: &mut [u8]) -> Option<Transmit> {
        // Acknowledgements go first, always: they are small and the peer waits for them. Data takes turns.
        let answers_first = self.receiving.as_ref().is_some_and(|receiving| {
            let answers = &receiving.responder.answers;
            answers.is_owed() && (self.responder_has_turn || !answers.next_is_data())
        });
        let mut sent =
            if answers_first { self.poll_answers(host, buf) } else { self.poll_requests(now, host, buf) };
        if sent.is_none() {
            sent =
                if answers_first { self.poll_requests(now, host, buf) } else { self.poll_answers(host, buf) };
        }
        if sent.is_some() {
            self.out.counters.sent += 1;
            self.turn += 1;
            if self.turn >= TURN {
                self.turn = 0;
                self.responder_has_turn = !self.responder_has_turn;
            }
        }
        sent
    }

    /// Whether all that the peer's requests have left to be sent is an acknowledgement. The peer can wait for that a
    /// little: a host that expects a request to be posted may leave it until then and let both travel in one batch, see
    /// [`poll_request`](RcQp::poll_request).
    #[inline]
    pub fn owes_only_ack(&self) -> bool {
        self.receiving.as_ref().is_some_and(|receiving| receiving.responder.answers.is_only_ack())
    }

    /// As [`poll_transmit`](RcQp::poll_transmit), but only for requests of this end; what is owed to the peer stays owed. For
    /// a host that wants the acknowledgement, which is shorter, behind a request in one batch of the link's.
    #[inline]
    pub fn poll_request<H: Host>(&mut self, now: Nanos, host: &mut H, buf: &mut [u8]) -> Option<Transmit> {
        let sent = self.poll_requests(now, host, buf);
        self.out.counters.sent += u64::from(sent.is_some());
        sent
    }

    #[inline]
    fn poll_requests<H: Host>(&mut self, now: Nanos, host: &mut H, buf: &mut [u8]) -> Option<Transmit> {
        let (QpState::Rts | QpState::Sqd, Some(requester)) = (self.state, &mut self.requester) else {
            return None;
        };
        let sent = requester.poll(now, host, buf, &mut self.out);
        if requester.failed {
            self.after_requester();
        }
        sent
    }

    #[inline]
    fn poll_answers<H: Host>(&mut self, host: &mut H, buf: &mut [u8]) -> Option<Transmit> {
        let receiving = self.receiving.as_mut()?;
        let responder = &mut receiving.responder;
        match responder.answers.poll(&receiving.route, host, buf) {
            Ok(sent) => sent,
            Err(failed) => {
                responder.answers.abort(failed.psn, failed.refusal.nak, responder.msn);
                // Only the NAK is left, which does not touch memory.
                let sent = responder.answers.poll(&receiving.route, host, buf).unwrap_or(None);
                self.refuse(failed.refusal, failed.psn);
                sent
            }
        }
    }

    /// Changes [`Tuning::sparse_acks`](crate::Tuning::sparse_acks): the peer may not be known when the queue pair is made. Has
    /// an effect until RTS.
    pub fn set_sparse_acks(&mut self, messages: u32) {
        self.caps.tuning.sparse_acks = messages;
    }

    /// Changes [`Tuning::peer_repairs`](crate::Tuning::peer_repairs): the peer may not be known when the queue pair is made. Has
    /// an effect until RTR.
    pub fn set_peer_repairs(&mut self, known: bool) {
        self.caps.tuning.peer_repairs = known;
    }

    /// Owes the peer an acknowledgement of all that it has not asked to have acknowledged, see
    /// [`Tuning::sparse_acks`](crate::Tuning::sparse_acks). For an end that closes: the peer would take it for lost.
    pub fn acknowledge_all(&mut self) {
        if let (QpState::Rtr | QpState::Rts | QpState::Sqd | QpState::Sqe, Some(receiving)) =
            (self.state, &mut self.receiving)
        {
            receiving.responder.acknowledge_all();
        }
    }

    /// Owes the peer the acknowledgement of its last message once more, unless something else is owed; only the first call
    /// does. For an end that closes on a network that loses packets: if the last acknowledgement was lost, the peer repeats
    /// its message to nobody, and takes one that was received for lost (Linux' rxe, with a retry count of 7, repeats it for ever).
    pub fn acknowledge_again(&mut self) {
        if let (QpState::Rtr | QpState::Rts | QpState::Sqd | QpState::Sqe, Some(receiving)) =
            (self.state, &mut self.receiving)
        {
            receiving.responder.acknowledge_again();
        }
    }

    /// Whether [`poll_transmit`](RcQp::poll_transmit) may have something now; may say yes in vain, never no in vain.
    /// A wait the peer asked for ends in [`handle_timeout`](RcQp::handle_timeout).
    #[inline]
    pub fn wants_transmit(&self) -> bool {
        let owes = self.receiving.as_ref().is_some_and(|receiving| receiving.responder.answers.is_owed());
        owes || self.wants_request()
    }

    /// [`wants_transmit`](RcQp::wants_transmit) of requests alone.
    #[inline]
    pub fn wants_request(&self) -> bool {
        matches!(self.state, QpState::Rts | QpState::Sqd)
            && self.requester.as_ref().is_some_and(|requester| requester.wants_transmit())
    }

    /// When [`handle_timeout`](RcQp::handle_timeout) is due, if ever.
    #[inline]
    pub fn poll_timeout(&self) -> Option<Nanos> {
        match (self.state, &self.requester) {
            (QpState::Rts | QpState::Sqd, Some(requester)) => requester.retry.next(),
            _ => None,
        }
    }

    /// Whether the send queue is empty: nothing posted is unfinished.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.requester.as_ref().is_none_or(|requester| requester.sq.is_empty())
    }

    /// The next finished request. Send completions come in the order of posting.
    #[inline]
    pub fn poll_completion(&mut self) -> Option<Completion> {
        self.out.pop_completion()
    }

    /// The next event.
    #[inline]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.out.pop_event()
    }

    /// Where the memory is that the next calls will look at besides the `RcQp` itself: a host with so many that they are not
    /// in its processor's caches may have all of it fetched at once. The addresses are good for nothing else.
    #[inline]
    pub fn memory(&self) -> [*const u8; 3] {
        let queue = self.requester.as_ref().map_or(std::ptr::null(), |requester| requester.memory());
        let [sends, recvs] = self.out.memory();
        [queue, sends, recvs]
    }

    /// What has happened on the wire so far.
    pub fn counters(&self) -> &Counters {
        &self.out.counters
    }

    fn step(&mut self, from: &[QpState], to: QpState) -> Result<(), BadTransition> {
        if !from.contains(&self.state) {
            return Err(BadTransition { from: self.state, to });
        }
        self.state = to;
        Ok(())
    }

    /// What the requester's state asks of the queue pair: ERR after a failure, the report of SQD.
    #[inline]
    fn after_requester(&mut self) {
        let Some(requester) = &self.requester else { return };
        if requester.failed {
            self.set_error();
        } else if self.notify_drained && requester.is_drained() {
            self.notify_drained = false;
            self.out.event(Event::SqDrained);
        }
    }

    /// The responder gives up. Its NAK is queued and goes out although the queue pair is in ERR.
    fn refuse(&mut self, refusal: Refusal, psn: Psn) {
        if let Some(event) = refusal.event {
            self.out.event(event);
        }
        self.last_nak = Some((psn, refusal.nak));
        self.flush();
    }

    /// Moves to ERR and completes what is outstanding.
    fn flush(&mut self) {
        self.state = QpState::Err;
        self.notify_drained = false;
        if let Some(receiving) = &mut self.receiving {
            receiving.responder.flush(WcStatus::WR_FLUSH_ERR, &mut self.out);
        }
        if let Some(requester) = &mut self.requester {
            while !requester.sq.is_empty() {
                requester.finish_front(WcStatus::WR_FLUSH_ERR, &mut self.out);
            }
        }
    }
}
