//! One reliable connection: its state, and the calls that drive it.

use std::collections::VecDeque;

use ibex_wire::{Packet, Psn, Qpn};

use crate::{
    BadTransition, Completion, Counters, Event, Host, InitAttr, Nanos, QpState, RcCaps, RemoteAccess,
    RtrAttr, RtsAttr, SendWqe,
};

/// A packet written into the caller's buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transmit {
    /// Bytes written: BTH to the end of the padding. The link adds the ICRC.
    pub len: usize,
    /// The next packet is likely to be of this length too: a link that sends batches of equal segments goes on.
    pub more: bool,
}

/// The send queue cannot take a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PostError {
    /// All of the queue's requests are outstanding.
    #[error("the send queue is full; fetch completions first, or make the queue longer")]
    Full,
    /// The state takes no send requests.
    #[error("a queue pair in {0:?} takes no send requests; move it to Rts")]
    State(QpState),
}

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
    counters: Counters,
    completions: VecDeque<Completion>,
}

impl RcQp {
    /// A queue pair in RESET.
    pub fn new(caps: RcCaps) -> RcQp {
        RcQp {
            state: QpState::Reset,
            caps,
            access: RemoteAccess::NONE,
            counters: Counters::default(),
            completions: VecDeque::new(),
        }
    }

    /// The state now. It can turn to [`QpState::Err`] in any call.
    pub fn state(&self) -> QpState {
        self.state
    }

    /// This end's number.
    pub fn local_qpn(&self) -> Qpn {
        self.caps.local_qpn
    }

    /// The PSN of the next request to be posted (the verbs' `sq_psn`).
    pub fn sq_psn(&self) -> Psn {
        Psn::new(0)
    }

    /// The PSN of the next request expected (the verbs' `rq_psn`).
    pub fn rq_psn(&self) -> Psn {
        Psn::new(0)
    }

    /// RESET → INIT, or INIT again with other attributes.
    ///
    /// # Errors
    /// From any other state.
    pub fn to_init(&mut self, attr: InitAttr) -> Result<(), BadTransition> {
        self.access = attr.access;
        self.step(&[QpState::Reset, QpState::Init], QpState::Init)
    }

    /// INIT → RTR: requests of the peer are served from now on.
    ///
    /// # Errors
    /// From any other state.
    pub fn to_rtr(&mut self, _attr: RtrAttr) -> Result<(), BadTransition> {
        self.step(&[QpState::Init], QpState::Rtr)
    }

    /// RTR → RTS: send requests are carried out from now on.
    ///
    /// # Errors
    /// From any other state.
    pub fn to_rts(&mut self, _attr: RtsAttr) -> Result<(), BadTransition> {
        self.step(&[QpState::Rtr], QpState::Rts)
    }

    /// RTS → SQD: requests begun are finished, then [`Event::SqDrained`] is reported (if asked for) and others wait.
    ///
    /// # Errors
    /// From any other state.
    pub fn to_sqd(&mut self, _notify: bool) -> Result<(), BadTransition> {
        self.step(&[QpState::Rts], QpState::Sqd)
    }

    /// SQD → RTS: send requests go on.
    ///
    /// # Errors
    /// From any other state.
    pub fn resume(&mut self) -> Result<(), BadTransition> {
        self.step(&[QpState::Sqd], QpState::Rts)
    }

    /// Any state → ERR: every outstanding send request, and the receive request being filled, completes with
    /// [`WcStatus::WR_FLUSH_ERR`](crate::WcStatus::WR_FLUSH_ERR). The host flushes its own receive queue. From RESET this
    /// only sets the state.
    pub fn set_error(&mut self) {
        self.state = QpState::Err;
    }

    /// Any state → RESET: everything outstanding is forgotten without completions.
    pub fn reset(&mut self) {
        self.state = QpState::Reset;
    }

    /// Changes what the peer may do (in any state but RESET and ERR the verbs allow it).
    pub fn set_access(&mut self, access: RemoteAccess) {
        self.access = access;
    }

    /// Changes the wait a peer is asked for when there is no receive request.
    pub fn set_min_rnr_timer(&mut self, _code: u8) {}

    /// Adds a request to the send queue. In ERR it completes at once with `WR_FLUSH_ERR`; in SQD it waits.
    ///
    /// # Errors
    /// [`PostError::Full`] at the depth given, [`PostError::State`] in RESET, INIT and RTR.
    pub fn post_send(&mut self, _wqe: SendWqe) -> Result<(), PostError> {
        Err(PostError::State(self.state))
    }

    /// Takes in one packet for this queue pair, whose ICRC and addresses the link has checked.
    pub fn handle_packet<H: Host>(&mut self, _now: Nanos, _packet: &Packet<'_>, _host: &mut H) {
        self.counters.received += 1;
        self.counters.dropped += 1;
    }

    /// Carries out what was due at [`poll_timeout`](RcQp::poll_timeout). Early and late calls do no harm.
    pub fn handle_timeout(&mut self, _now: Nanos) {}

    /// Writes the next packet to `buf`, which must have room for [`MAX_PACKET`](ibex_wire::MAX_PACKET) bytes (or for headers
    /// and the path MTU). `None` when there is nothing to send now.
    pub fn poll_transmit<H: Host>(
        &mut self,
        _now: Nanos,
        _host: &mut H,
        _buf: &mut [u8],
    ) -> Option<Transmit> {
        None
    }

    /// Whether [`poll_transmit`](RcQp::poll_transmit) may have something now; may say yes in vain, never no in vain.
    pub fn wants_transmit(&self) -> bool {
        false
    }

    /// When [`handle_timeout`](RcQp::handle_timeout) is due, if ever.
    pub fn poll_timeout(&self) -> Option<Nanos> {
        None
    }

    /// The next finished request. Send completions come in the order of posting.
    pub fn poll_completion(&mut self) -> Option<Completion> {
        self.completions.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }

    /// What has happened on the wire so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn step(&mut self, from: &[QpState], to: QpState) -> Result<(), BadTransition> {
        if !from.contains(&self.state) {
            return Err(BadTransition { from: self.state, to });
        }
        self.state = to;
        Ok(())
    }
}
