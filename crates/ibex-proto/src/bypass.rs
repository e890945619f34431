//! Operations that do not travel as packets: what a host must know and tell when it carries one out itself.
//!
//! Owns the question whether a connection is in a state in which that cannot be told from packets, and the sequence
//! numbers of requests that were posted before they were carried out so. Does not own the operation: that is the
//! host's, which has both ends of the connection, or the peer's memory, at hand.
//!
//! The rule: whatever does not plainly succeed is left to packets, which give the exact NAK, retry and status. So the
//! host asks first, carries out an operation that cannot fail any more, and then tells both ends.

use ibex_wire::Psn;

use super::RcQp;
use crate::requester::wire;
use crate::{QpState, RemoteAccess, SendOp, SendWqe, WcStatus};

impl RcQp {
    /// Whether a request posted now would be the only one, with nothing of earlier ones left to be told: it may be carried out
    /// at once, without being posted.
    #[inline]
    pub fn is_at_rest(&self) -> bool {
        self.state == QpState::Rts
            && self.out.unfetched_sends() == 0
            && self.requester.as_ref().is_some_and(|requester| requester.sq.is_empty())
    }

    /// The oldest request posted, if it has not been begun and everything before it has been acknowledged: it may be
    /// carried out now, if [`front_done`](RcQp::front_done) and [`was_bypassed`](RcQp::was_bypassed) follow.
    #[inline]
    pub fn front_at_rest(&self) -> Option<&SendWqe> {
        let requester = self.requester.as_ref().filter(|_| self.state == QpState::Rts)?;
        let rest = requester.una == requester.high && requester.cur == 0 && !requester.retry.in_rnr_wait();
        let front = requester.sq.first().filter(|_| rest && !requester.failed)?;
        (front.first == requester.una).then_some(&front.wqe)
    }

    /// Whether the operation is one that this end was set up for; if not, packets report it.
    #[inline]
    pub fn may_request(&self, op: &SendOp) -> bool {
        !op.awaits_data() || self.requester.as_ref().is_some_and(|requester| requester.max_rd_atomic != 0)
    }

    /// A request of `len` bytes was carried out at rest, without having been posted. The sequence numbers that it would have
    /// had are passed over; how many there were is returned, for the other end.
    #[inline]
    pub fn rest_done(&mut self, len: u32) -> u32 {
        let Some(requester) = &mut self.requester else { return 0 };
        let packets = requester.route.mtu.packets(len);
        requester.pass_over(packets);
        packets
    }

    /// The oldest request has been carried out: it completes, and its sequence numbers are passed over. How many there
    /// were is returned, for the other end.
    #[inline]
    pub fn front_done(&mut self) -> u32 {
        let Some(requester) = &mut self.requester else { return 0 };
        let Some(entry) = requester.sq.first() else { return 0 };
        let (first, end) = (entry.first, entry.end);
        requester.una = end;
        requester.nxt = end;
        requester.high = end;
        requester.finish_front(WcStatus::SUCCESS, &mut self.out);
        (end - first) as u32
    }

    /// Begins no more requests until [`release`](RcQp::release), and has what is outstanding acknowledged soon: the host means to
    /// carry out itself what is posted behind it. False, and nothing has changed, if that would take too long: what is outstanding is not
    /// of the kind that `may_wait_for` names, or is hardly anything.
    pub fn hold(&mut self, may_wait_for: impl Fn(&SendOp) -> bool) -> bool {
        self.state == QpState::Rts
            && self.requester.as_mut().is_some_and(|requester| requester.hold(may_wait_for))
    }

    /// Requests begin again.
    pub fn release(&mut self) {
        if let Some(requester) = &mut self.requester {
            requester.release();
        }
    }

    /// If everything that was begun has been acknowledged, gives the requests behind it to `each`, oldest first, for as long as
    /// it carries them out: they complete, and have used no sequence numbers.
    pub fn carry_out(&mut self, each: impl FnMut(&SendWqe) -> bool) {
        if let (QpState::Rts, Some(requester)) = (self.state, &mut self.requester) {
            requester.carry_out(&mut self.out, each);
        }
    }

    /// Whether every request that was begun has been sent whole and acknowledged.
    pub fn is_settled(&self) -> bool {
        self.requester.as_ref().is_none_or(|requester| requester.is_settled())
    }

    /// Whether this end, as the target, is ready for an operation that comes without packets: in a state that serves
    /// requests, in the middle of none.
    #[inline]
    pub fn may_be_bypassed(&self, op: &SendOp) -> bool {
        // In RTR a first packet is an event.
        matches!(self.state, QpState::Rts | QpState::Rtr)
            && self.receiving.as_ref().is_some_and(|receiving| {
                (self.state == QpState::Rts || receiving.established)
                    && receiving.responder.is_between_messages()
                    && (!op.awaits_data() || receiving.responder.serves_data())
            })
            && self.out.is_empty()
    }

    /// Whether this end serves requests, and what the first of them has to tell has been told: packets of the peer's may
    /// stay out from now on.
    pub fn serves_unseen(&self) -> bool {
        match self.state {
            // In RTR a first packet is an event.
            QpState::Rtr => self.receiving.as_ref().is_some_and(|receiving| receiving.established),
            QpState::Rts | QpState::Sqd => true,
            _ => false,
        }
    }

    /// Whether the two ends agree on everything that has been sent either way so far, as far as `self` sends: the peer
    /// expects what comes next, and has been told of all that `self` carried out for it.
    #[inline]
    pub fn is_level_with(&self, peer: &RcQp) -> bool {
        let told = |one: &RcQp, other: &RcQp| {
            one.requester.as_ref().is_none_or(|requester| wire(requester.una) == other.rq_psn())
        };
        // Ends that disagree on the path MTU refuse each other's packets.
        self.path_mtu() == peer.path_mtu() && told(self, peer) && told(peer, self)
    }

    /// `packets` sequence numbers of one message were passed over by the other end.
    #[inline]
    pub fn was_bypassed(&mut self, packets: u32) {
        if let Some(receiving) = &mut self.receiving {
            receiving.responder.pass_over(packets);
        }
    }

    /// What the peer may do through this queue pair.
    #[inline]
    pub fn access(&self) -> RemoteAccess {
        self.access
    }

    /// The oldest sequence number not acknowledged; `None` before RTS.
    pub fn una(&self) -> Option<Psn> {
        self.requester.as_ref().map(|requester| wire(requester.una))
    }
}
