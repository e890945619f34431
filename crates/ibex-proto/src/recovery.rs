//! What a requester sends again when something was lost.
//!
//! Owns the choice between going back (IBTA 9.7.5.1.4: everything from the missing packet on) and sending only what is
//! missing, and the probe. The timers themselves are in `retry.rs`.
//!
//! The wire does not say whether the peer kept what came after the missing packet, so the requester finds out. It sends
//! a short burst from the missing packet on, then goes on with what it has never sent:
//!
//! | the answer | means |
//! |---|---|
//! | acknowledges more than the burst | the peer keeps packets: so on with the next gap, again with a burst of one |
//! | acknowledges the burst or asks for what follows it, peer known to keep | a longer gap: the burst doubles; beyond [`LONGEST`] go back |
//! | the same, peer unknown | go back; after [`STRIKES`] of these the peer is one that drops |
//!
//! A peer that does not know this requester acknowledges the last packet of several when it is repeated, see
//! [`Tuning::peer_repairs`](crate::Tuning::peer_repairs): the burst is followed by it.
//!
//! With READs or atomics in flight it goes back for a request that was lost, passing over what has been answered: what is in
//! flight is then more than packets to be sent again. Data that was lost is asked for alone, see `early.rs`.

use crate::Nanos;
use crate::WcStatus;
use crate::output::Output;
use crate::requester::{Entry, Requester};

/// A burst longer than this means that going back costs less than finding the gap's end.
const LONGEST: u64 = 64;
/// Bursts that an unknown peer may fail to profit from. One may be a gap of two packets; three are not.
const STRIKES: u8 = 3;

/// What is known of the peer's responder.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Peer {
    Unknown { strikes: u8 },
    Keeps,
    Drops,
}

/// The state of one send queue's repairs.
pub(crate) struct Recovery {
    peer: Peer,
    /// Length of the last burst.
    burst: u64,
    /// While a burst is being sent: its end, where `nxt` goes on with what was never sent. `u64::MAX` otherwise.
    pub(crate) jump_at: u64,
    /// The end of the last burst, as long as the answer to it is not known. An acknowledgement beyond it is proof of a
    /// peer that keeps packets. `u64::MAX` otherwise.
    pub(crate) proof: u64,
    /// The last burst is a probe. Answers may come from before it, so they say nothing about the peer.
    is_probe: bool,
    /// The end of the last burst, known or not. Up to here, what the peer says is missing is on its way.
    end: u64,
    /// When the last repair was begun.
    pub(crate) since: Nanos,
    /// The window shrinks once for all that was in flight up to here.
    pub(crate) shrunk_up_to: u64,
    /// The peer may wait for the end of a message to be repeated before it acknowledges it, see
    /// [`Tuning::peer_repairs`](crate::Tuning::peer_repairs).
    repeats_end: bool,
}

impl Recovery {
    pub(crate) fn new(peer_repairs: bool) -> Recovery {
        Recovery {
            peer: Peer::Unknown { strikes: 0 },
            burst: 1,
            jump_at: u64::MAX,
            proof: u64::MAX,
            is_probe: false,
            end: 0,
            since: 0,
            shrunk_up_to: 0,
            repeats_end: !peer_repairs,
        }
    }

    /// The peer has acknowledged beyond the last burst.
    #[cold]
    pub(crate) fn on_proof(&mut self) {
        if !self.is_probe {
            self.peer = Peer::Keeps;
        }
        self.burst = 1;
        self.proof = u64::MAX;
    }

    /// Everything from `una` on is sent again: nothing can be learned from the answer.
    pub(crate) fn on_go_back(&mut self) {
        self.burst = 1;
        self.jump_at = u64::MAX;
        self.proof = u64::MAX;
        self.end = 0;
    }
}

impl Requester {
    /// The peer says that the packet at `una` is missing, or shows it.
    pub(crate) fn repair(&mut self, now: Nanos, out: &mut Output) {
        if self.retry.in_rnr_wait() {
            return;
        }
        if self.went_back_at == Some(self.una) || self.una < self.recovery.end {
            if self.has_had_time(now) && self.can_burst() {
                self.begin_counted_burst(now, out);
            }
            return;
        }
        let recovery = &mut self.recovery;
        let follows_burst = recovery.proof == self.una;
        let mut go_back = false;
        match &mut recovery.peer {
            Peer::Drops => go_back = true,
            // After so much silence nothing is on its way: the peer has nothing of what follows.
            Peer::Unknown { .. } if follows_burst && recovery.is_probe => go_back = true,
            Peer::Keeps if follows_burst => {
                recovery.burst *= 2;
                if recovery.burst > LONGEST {
                    recovery.peer = Peer::Unknown { strikes: 0 };
                    go_back = true;
                }
            }
            Peer::Unknown { strikes } if follows_burst => {
                *strikes += 1;
                if *strikes >= STRIKES {
                    recovery.peer = Peer::Drops;
                }
                go_back = true;
            }
            Peer::Keeps | Peer::Unknown { .. } => recovery.burst = 1,
        }
        if go_back || !self.can_burst() {
            return self.go_back_for_loss(now, out);
        }
        self.went_back_at = Some(self.una);
        if self.una >= self.recovery.shrunk_up_to && (follows_burst || !self.window.forgives(self.una)) {
            self.window.on_loss();
            self.recovery.shrunk_up_to = self.high;
        }
        self.begin_counted_burst(now, out);
    }

    /// Whether the answer to the last repair should have come, so that what comes now is not from before it.
    pub(crate) fn has_had_time(&self, now: Nanos) -> bool {
        self.retry.round_trip().is_some_and(|span| now >= self.recovery.since + 2 * span)
    }

    /// Goes back without a reason that counts: the retry counter and the timeout do not notice.
    pub(crate) fn go_back_again(&mut self, now: Nanos) {
        let deadline = self.retry.deadline();
        self.go_back();
        self.retry.resume(deadline);
        self.retry.hasten_probe(now);
        self.recovery.since = now;
    }

    /// Begins a burst if a retry is left, and gives up otherwise.
    fn begin_counted_burst(&mut self, now: Nanos, out: &mut Output) {
        out.counters.retransmissions += 1;
        if self.retry.take() {
            self.begin_burst(now);
        } else {
            self.fail(WcStatus::RETRY_EXC_ERR, out);
        }
    }

    /// Whether all that is in flight are packets of SENDs and WRITEs.
    fn can_burst(&self) -> bool {
        let all_known = self.nxt == self.high || self.recovery.jump_at != u64::MAX;
        let no_data = if all_known {
            self.data_in_flight.is_empty()
        } else {
            // While going back, READs and atomics further on are not counted as in flight, but the peer may have them.
            !self
                .sq
                .iter()
                .take_while(|entry| entry.first < self.high)
                .any(|entry| entry.wqe.op.awaits_data())
        };
        no_data && self.una < self.high
    }

    fn begin_burst(&mut self, now: Nanos) {
        let mut end = (self.una + self.recovery.burst).min(self.high);
        if end + 1 == self.high && self.repeats_end_of().is_some() {
            end = self.high;
        }
        self.recovery.since = now;
        self.recovery.is_probe = false;
        self.recovery.end = end;
        self.recovery.jump_at = end;
        // A burst up to the last packet sent proves nothing.
        self.recovery.proof = if end < self.high { end } else { u64::MAX };
        self.nxt = self.una;
        self.cur = 0;
        self.data_before = 0;
        self.retry.hasten_probe(now);
    }

    /// The request whose last packet a repair is to repeat as well: the one that ends with the last packet ever sent, if it has
    /// several. The end of an earlier one is acknowledged together with what followed it.
    fn repeats_end_of(&self) -> Option<usize> {
        if !self.recovery.repeats_end {
            return None;
        }
        let index = self.sq.partition_point(|entry| entry.first < self.high).checked_sub(1)?;
        let Entry { wqe, first, end, .. } = &self.sq[index];
        (*end == self.high && end - first > 1 && !wqe.op.awaits_data()).then_some(index)
    }

    /// The burst has been sent, or is not needed any more: goes on with what was never sent.
    #[cold]
    pub(crate) fn end_burst(&mut self) {
        let again = if self.nxt < self.high { self.repeats_end_of() } else { None };
        self.recovery.jump_at = u64::MAX;
        if let Some(index) = again {
            self.nxt = self.high - 1;
            self.cur = index;
            return;
        }
        self.nxt = self.high;
        while let Some(entry) = self.sq.get(self.cur) {
            if entry.end > self.high || entry.is_local_and_waits() {
                break;
            }
            self.cur += 1;
        }
    }

    /// Nothing has been heard for a while: sends the oldest packet again, which the peer answers in any case.
    pub(crate) fn probe(&mut self, now: Nanos, out: &mut Output) {
        if self.retry.in_rnr_wait() {
            return;
        }
        out.counters.probes += 1;
        if !self.can_burst() {
            return self.go_back_again(now);
        }
        self.recovery.burst = 1;
        self.begin_burst(now);
        self.recovery.is_probe = true;
    }
}
