//! Short messages with nothing in their way: the same packets as ever, made with fewer questions.
//!
//! Owns the question whether a SEND just posted is the next packet in every respect, and whether what a packet brought is
//! a receive completion and nothing else. A host that gets a yes is spared its loop over everything a queue pair may want;
//! after a no it goes the usual way, and nothing has happened. Owns no rule of the protocol: what is asked here is
//! whether any of them would do something.

use ibex_wire::{Bth, Header, Opcode, padding};

use super::RcQp;
use crate::requester::wire;
use crate::{Host, Nanos, QpState, SendOp, SendWqe};

impl RcQp {
    /// Posts a SEND without immediate and sends it at once, if it is one packet and nothing else is to be sent or waited for.
    /// `buf` has its payload after [`Bth::LEN`] bytes; the length of the packet is returned. `None` if it has to be posted.
    /// If an acknowledgement is owed, [`express_ack`](RcQp::express_ack) must follow.
    #[inline]
    pub fn express_send(
        &mut self,
        wqe: SendWqe,
        buf: &mut [u8],
        now: impl FnOnce() -> Nanos,
    ) -> Option<usize> {
        let (QpState::Rts, Some(requester), Some(receiving)) =
            (self.state, &mut self.requester, &self.receiving)
        else {
            return None;
        };
        let SendOp::Send { imm: None, inv: None } = wqe.op else { return None };
        let len = wqe.len as usize;
        let pad = padding(len);
        if len > requester.route.mtu.bytes()
            || self.out.unfetched_sends() + requester.sq.len() >= self.caps.sq_depth as usize
            || receiving.responder.answers.is_owed() && !receiving.responder.answers.is_only_ack()
            || !requester.is_clear(&wqe)
        {
            return None;
        }
        let payload = buf.get_mut(Bth::LEN..Bth::LEN + len + pad)?;
        payload[len..].fill(0);
        requester.post(wqe);
        let ack_req = requester.express_asks(&wqe);
        let bth = Bth {
            solicited: wqe.solicited,
            pad: pad as u8,
            pkey: requester.route.pkey,
            ack_req,
            ..Bth::new(Opcode::RC_SEND_ONLY, requester.route.remote_qpn, wire(requester.nxt))
        };
        bth.put(buf)?;
        requester.express_sent(ack_req, now);
        self.out.counters.sent += 1;
        Some(Bth::LEN + len + pad)
    }

    /// Writes the acknowledgement that is owed, if one is: it travels behind the message.
    #[inline]
    pub fn express_ack<H: Host>(&mut self, host: &mut H, buf: &mut [u8]) -> Option<usize> {
        if !self.owes_only_ack() {
            return None;
        }
        let sent = self.poll_answers(host, buf)?;
        self.out.counters.sent += 1;
        Some(sent.len)
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
