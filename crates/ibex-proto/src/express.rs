//! Short messages with nothing in their way: the same packets as ever, made and taken in with fewer questions.
//!
//! Owns the questions whether a SEND about to be posted is the next packet in every respect, whether one that has come is
//! what is expected and asks for nothing but a receive completion, and what each then changes. A host that gets a yes is
//! spared its loop over everything a queue pair may want; after a no it goes the usual way, and nothing has happened.
//! Owns no rule of the protocol: what is asked here is whether any of them would do something else.
//!
//! An acknowledgement that is owed travels beside such a packet. It says what a packet of its own before it would have said.

use ibex_wire::{Aeth, Bth, Opcode, Pkey, Psn, Qpn, Syndrome, padding};

use super::RcQp;
use crate::requester::wire;
use crate::{Nanos, QpState, SendCompletion, SendOp, SendWqe};

/// An acknowledgement, as its packet would say it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ack {
    /// Everything up to this number has been executed.
    pub psn: Psn,
    /// How, and the messages executed so far.
    pub aeth: Aeth,
}

/// The time, for a transport that asks for no more of it than it needs.
pub trait Clock {
    /// The time.
    fn now(&self) -> Nanos;

    /// When [`handle_timeout`](RcQp::handle_timeout) will be called whatever happens, or soon after, if that is certain. What is
    /// to be timed may then begin to be timed there, and the clock need not be read. May be in the past.
    fn next_look(&self) -> Option<Nanos> {
        None
    }
}

/// A clock that stands still.
impl Clock for Nanos {
    fn now(&self) -> Nanos {
        *self
    }
}

impl RcQp {
    /// Whether a SEND without immediate would be one packet, sent at once, were it posted now; nothing else is to be sent, and
    /// nothing but an acknowledgement is owed. [`express_header`](RcQp::express_header) may follow.
    #[inline]
    pub fn may_express(&self, wqe: &SendWqe) -> bool {
        let (QpState::Rts, Some(requester), Some(receiving)) = (self.state, &self.requester, &self.receiving)
        else {
            return false;
        };
        matches!(wqe.op, SendOp::Send { imm: None, inv: None })
            && wqe.len as usize <= requester.route.mtu.bytes()
            && self.out.unfetched_sends() + requester.sq.len() < self.caps.sq_depth as usize
            && (receiving.responder.answers.is_only_ack() || !receiving.responder.answers.is_owed())
            && requester.is_clear(wqe)
    }

    /// The header of a message of which [`may_express`](RcQp::may_express) says that it may, behind which the payload and
    /// [`padding`] belong, and the acknowledgement to travel with it. It must be sent now, and
    /// [`express_sent`](RcQp::express_sent) must follow: that is best done when the peer has the packet already.
    #[inline(always)]
    pub fn express_header(&mut self, wqe: &SendWqe) -> Option<(Bth, Option<Ack>)> {
        let (Some(requester), Some(receiving)) = (&self.requester, &mut self.receiving) else {
            return None;
        };
        let bth = Bth {
            solicited: wqe.solicited,
            pad: padding(wqe.len as usize) as u8,
            pkey: requester.route.pkey,
            ack_req: requester.express_asks(wqe),
            ..Bth::new(Opcode::RC_SEND_ONLY, requester.route.remote_qpn, wire(requester.nxt))
        };
        Some((bth, receiving.responder.answers.take_ack()))
    }

    /// Posts the message that was sent: whether its header asks for an acknowledgement, and whether one went with it.
    #[inline(always)]
    pub fn express_sent(&mut self, wqe: SendWqe, asks: bool, acks: bool, clock: &impl Clock) {
        if let Some(requester) = &mut self.requester {
            requester.post(wqe);
            requester.express_sent(asks, clock);
        }
        self.out.counters.sent += 1 + u64::from(acks);
    }

    /// Whether a packet that has come, with `len` bytes of payload and perhaps an acknowledgement beside it, is a SEND that
    /// is expected now, and both together are a receive completion, completions of sends before it, and nothing else
    /// but an acknowledgement to be sent. [`express_receive`](RcQp::express_receive) may follow, if there is a receive
    /// request with room for it.
    #[inline]
    pub fn expects_express(&self, bth: &Bth, len: usize, ack: Option<&Ack>) -> bool {
        let (QpState::Rts, Some(requester), Some(receiving)) = (self.state, &self.requester, &self.receiving)
        else {
            return false;
        };
        let all_known = match ack {
            Some(Ack { psn, aeth: Aeth { syndrome: Syndrome::Ack { .. }, .. } }) => {
                requester.is_all_up_to(*psn)
            }
            Some(_) => false,
            // No completion of a send may be on its way that has to come before that of the receive.
            None => requester.has_asked_nothing() && !requester.wants_transmit(),
        };
        all_known
            && bth.opcode == Opcode::RC_SEND_ONLY
            && bth.pkey.matches(self.pkey)
            && receiving.responder.expects_message(bth.psn, len)
            && self.out.is_idle()
    }

    /// Takes in a packet of which [`expects_express`](RcQp::expects_express) said that it is expected, and whose payload has
    /// been placed. Calls `done` for each request that the acknowledgement completes. Whether the peer asks for an
    /// acknowledgement: then [`owe_ack`](RcQp::owe_ack) or [`give_ack`](RcQp::give_ack) must follow.
    #[inline]
    pub fn express_receive(
        &mut self,
        bth: &Bth,
        ack: Option<&Ack>,
        clock: &impl Clock,
        done: impl FnMut(SendCompletion),
    ) -> bool {
        if let (Some(_), Some(requester)) = (ack, &mut self.requester) {
            requester.all_acknowledged(clock, done);
        }
        self.out.counters.received += 1 + u64::from(ack.is_some());
        if let Some(receiving) = &mut self.receiving {
            receiving.responder.message_taken(bth.ack_req);
        }
        bth.ack_req
    }

    /// Owes the acknowledgement that the message taken in last has asked for.
    #[inline]
    pub fn owe_ack(&mut self) {
        if let Some(receiving) = &mut self.receiving {
            let responder = &mut receiving.responder;
            responder.answers.ack(responder.expected.prev(), responder.msn);
        }
    }

    /// The same acknowledgement, and the queue pair that it is for. It is the host's to send it, before any packet that this queue
    /// pair sends from here on.
    #[inline]
    pub fn give_ack(&mut self) -> Option<(Qpn, Ack)> {
        let receiving = self.receiving.as_ref()?;
        let responder = &receiving.responder;
        let aeth = Aeth { syndrome: Syndrome::ACK, msn: responder.msn };
        self.out.counters.sent += 1;
        Some((receiving.route.remote_qpn, Ack { psn: responder.expected.prev(), aeth }))
    }

    /// Whether an acknowledgement that has come, and nothing of the peer's beside it, is one of all that was posted, so that it
    /// is completions of sends and nothing else. [`express_acknowledged`](RcQp::express_acknowledged) may follow.
    #[inline]
    pub fn expects_ack(&self, pkey: Pkey, ack: &Ack) -> bool {
        let (QpState::Rts, Some(requester)) = (self.state, &self.requester) else { return false };
        matches!(ack.aeth.syndrome, Syndrome::Ack { .. })
            && requester.is_all_up_to(ack.psn)
            && pkey.matches(self.pkey)
            && self.out.is_idle()
    }

    /// Takes in an acknowledgement of which [`expects_ack`](RcQp::expects_ack) said that it is one of everything. Calls `done` for
    /// each request that it completes.
    #[inline]
    pub fn express_acknowledged(&mut self, clock: &impl Clock, done: impl FnMut(SendCompletion)) {
        if let Some(requester) = &mut self.requester {
            requester.all_acknowledged(clock, done);
        }
        self.out.counters.received += 1;
    }

    /// Whether all that is left to do after a packet is to fetch completions of receives: nothing is to be sent or reported, and
    /// no completion of a send may be on its way that has to come before them.
    #[inline]
    pub fn has_only_received(&self) -> bool {
        self.state == QpState::Rts
            && self.out.has_only_receives()
            && self.receiving.as_ref().is_some_and(|receiving| !receiving.responder.answers.is_owed())
            && self
                .requester
                .as_ref()
                .is_some_and(|requester| requester.has_asked_nothing() && !requester.wants_transmit())
    }
}
