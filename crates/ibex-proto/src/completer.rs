//! The completer: what responses do to the send queue.
//!
//! Owns acknowledgements, explicit and implied, READ data and atomic results, NAKs, and the timer's expiry. Sending is
//! in `requester.rs`. IBTA 9.7.5 (acknowledgements), 9.7.6 and 9.9.2 (requester's errors).
//!
//! Responses are taken leniently where peers differ and nothing is at stake: a READ response is known by its sequence
//! number, and whether it calls itself first, middle or last does not matter.

use ibex_wire::{NakCode, Packet, Psn, Syndrome, rnr_timer_ns};

use crate::early::NEVER;
use crate::errors;
use crate::output::Output;
use crate::requester::{Requester, completion, wire};
use crate::{Clock, Host, Nanos, SendCompletion, SendOp, WcStatus};

impl Requester {
    /// Takes in a response.
    #[inline]
    pub(crate) fn handle_response<H: Host>(
        &mut self,
        now: Nanos,
        packet: &Packet<'_>,
        host: &mut H,
        out: &mut Output,
    ) {
        let opcode = packet.opcode();
        let number = self.widen(packet.bth().psn);
        if opcode.is_read_response() || opcode.has_atomic_ack_eth() {
            if number >= self.high {
                out.counters.stale_responses += 1;
                return;
            }
            self.handle_data(now, number, packet, host, out);
            return;
        }
        let Some(aeth) = packet.aeth() else { return };
        match aeth.syndrome {
            Syndrome::Ack { .. } if number < self.high => {
                if !self.acknowledge(now, number + 1, out) {
                    self.early.executed = self.early.executed.max(number + 1);
                    self.ask_for_missing(now, out);
                } else if self.una == self.recovery.proof {
                    // What came after the gap has not been kept.
                    self.repair(now, out);
                }
            }
            Syndrome::RnrNak { timer } if number < self.high => {
                self.handle_rnr(now, number, timer, out);
            }
            // A sequence error names the number expected, which may be one that has not been sent.
            Syndrome::Nak(NakCode::PSN_SEQUENCE) if number <= self.high => {
                if !self.acknowledge(now, number, out) {
                    self.go_back_for_loss(now, out);
                } else if number < self.high {
                    self.repair(now, out);
                }
            }
            Syndrome::Nak(code) if number < self.high => {
                if let Some(status) = errors::status_of(code) {
                    self.handle_refusal(now, number, status, out);
                }
            }
            _ => out.counters.stale_responses += 1,
        }
    }

    /// The 64-bit number of a response, counted forward from the oldest one outstanding. What is not outstanding comes
    /// out at or beyond `high`.
    #[inline]
    fn widen(&self, psn: Psn) -> u64 {
        self.una + u64::from(psn.forward_from(wire(self.una)))
    }

    /// Everything before `to` has been executed. `false` if data of a READ or atomic before `to` is missing.
    #[inline]
    fn acknowledge(&mut self, now: Nanos, to: u64, out: &mut Output) -> bool {
        let before = self.una;
        while self.una < to {
            let Some(front) = self.sq.first() else { break };
            if !matches!(front.wqe.op, SendOp::Send { .. } | SendOp::Write { .. }) {
                break;
            }
            self.una = front.end.min(to);
            if self.una == front.end {
                self.finish(WcStatus::SUCCESS, out);
            }
        }
        if self.una > before {
            self.after_progress(now, self.una - before);
        }
        self.una >= to
    }

    /// Whether an acknowledgement up to `psn` is one of everything ever sent, which is all that was posted, and of
    /// SENDs and WRITEs only; and nothing is being repaired.
    #[inline]
    pub(crate) fn is_all_up_to(&self, psn: Psn) -> bool {
        self.una < self.high
            && self.widen(psn) + 1 == self.high
            && self.is_quiet()
            && self.recovery.proof == NEVER
            && self.sq.iter().all(|entry| matches!(entry.wqe.op, SendOp::Send { .. } | SendOp::Write { .. }))
    }

    /// Everything has been acknowledged that was posted, see [`is_all_up_to`](Requester::is_all_up_to).
    #[inline]
    pub(crate) fn all_acknowledged(&mut self, clock: &impl Clock, mut done: impl FnMut(SendCompletion)) {
        self.sq.iter().for_each(|entry| done(completion(&entry.wqe, WcStatus::SUCCESS)));
        self.sq.clear();
        let packets = self.high - self.una;
        (self.una, self.cur) = (self.high, 0);
        self.window.on_progress(packets);
        self.retry.on_answer(self.una, || clock.now());
    }

    #[inline]
    pub(crate) fn after_progress(&mut self, now: Nanos, packets: u64) {
        if self.una > self.recovery.proof {
            self.recovery.on_proof();
        }
        if self.nxt < self.una {
            // An answer to the first attempt arrived while a later attempt was under way.
            self.nxt = self.una;
            if self.nxt >= self.recovery.jump_at {
                self.end_burst();
            }
        }
        while self.data_in_flight.front().is_some_and(|piece| piece.end <= self.una) {
            self.data_in_flight.pop_front();
        }
        self.window.on_progress(packets);
        self.retry.on_progress(now, self.una, self.high > self.una);
    }

    /// A READ response or an atomic result.
    #[inline]
    fn handle_data<H: Host>(
        &mut self,
        now: Nanos,
        number: u64,
        packet: &Packet<'_>,
        host: &mut H,
        out: &mut Output,
    ) {
        // Whoever answers this has executed everything before it.
        if !self.acknowledge(now, number, out) {
            return self.take_early(now, number, packet, host, out);
        }
        let Some(front) = self.sq.first() else { return };
        let cookie = front.wqe.cookie;
        let end = front.end;
        let stored = match (front.wqe.op, packet.atomic_ack_eth()) {
            (SendOp::Read { .. }, None) => {
                let mtu = self.route.mtu;
                let offset = ((number - front.first) << mtu.shift()) as u32;
                let len = (front.wqe.len - offset).min(mtu.bytes() as u32);
                let payload = packet.payload();
                if payload.len() != len as usize {
                    return self.fail(WcStatus::BAD_RESP_ERR, out);
                }
                if payload.is_empty() { Ok(()) } else { host.scatter(cookie, offset, payload) }
            }
            (SendOp::CompareSwap { .. } | SendOp::FetchAdd { .. }, Some(result)) => {
                host.scatter(cookie, 0, &result.original.to_ne_bytes())
            }
            _ => return self.fail(WcStatus::BAD_RESP_ERR, out),
        };
        if let Err(fault) = stored {
            return self.fail(fault.status(), out);
        }
        self.una += 1;
        if self.una == end {
            self.finish_front(WcStatus::SUCCESS, out);
        }
        self.after_progress(now, 1);
        if self.una < self.early.executed {
            self.catch_up(now, out);
        }
    }

    /// The peer has no receive request for the message at `number`.
    fn handle_rnr(&mut self, now: Nanos, number: u64, timer: u8, out: &mut Output) {
        out.counters.rnr_naks_received += 1;
        self.retry.end_rnr_wait(now);
        if !self.acknowledge(now, number, out) {
            return self.go_back_for_loss(now, out);
        }
        if self.retry.in_rnr_wait() {
            return;
        }
        if self.retry.take_rnr(now, rnr_timer_ns(timer)) {
            self.go_back();
        } else {
            self.fail(WcStatus::RNR_RETRY_EXC_ERR, out);
        }
    }

    /// The peer has refused the request at `number` for good and serves no other.
    fn handle_refusal(&mut self, now: Nanos, number: u64, status: WcStatus, out: &mut Output) {
        let before = self.una;
        while let Some(front) = self.sq.first() {
            if front.end > number {
                break;
            }
            // Data that has not arrived now never will: the request was executed, not completed.
            let lost = front.wqe.op.awaits_data();
            self.una = front.end;
            self.finish_front(if lost { WcStatus::WR_FLUSH_ERR } else { WcStatus::SUCCESS }, out);
        }
        if self.una > before {
            self.after_progress(now, self.una - before);
        }
        self.fail(status, out);
    }

    /// Something at `una` is missing although what follows was received.
    pub(crate) fn go_back_for_loss(&mut self, now: Nanos, out: &mut Output) {
        if self.retry.in_rnr_wait() {
            return;
        }
        if self.went_back_at == Some(self.una) {
            if self.has_had_time(now) {
                self.go_back_again(now);
            }
            return;
        }
        self.went_back_at = Some(self.una);
        self.window.on_loss();
        self.retransmit(out);
        self.recovery.since = now;
    }

    /// Goes back if a retry is left, and gives up otherwise.
    fn retransmit(&mut self, out: &mut Output) {
        out.counters.retransmissions += 1;
        if self.retry.take() {
            self.go_back();
        } else {
            self.fail(WcStatus::RETRY_EXC_ERR, out);
        }
    }

    /// Carries out what is due.
    pub(crate) fn handle_timeout(&mut self, now: Nanos, out: &mut Output) {
        self.retry.end_rnr_wait(now);
        self.retry.begin(now);
        if self.retry.expired(now) && self.una < self.high {
            out.counters.timeouts += 1;
            self.window.on_silence();
            self.retransmit(out);
        } else if self.retry.probe_due(now) && self.una < self.high {
            self.probe(now, out);
        }
    }
}
