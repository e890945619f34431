//! Data that came ahead of data that is missing, and asking for the missing part alone.
//!
//! Owns which numbers beyond the oldest outstanding one have their READ data or atomic result already, and the requests
//! for the holes between them. Loss of whole requests is `recovery.rs`'s. IBTA 9.4.4 (a READ may be asked for again, in
//! part), 9.7.5.1.4.
//!
//! A requester knows which data it has and where it goes, so what arrives ahead is stored at once; requests complete in
//! order all the same. For each piece of a READ one hole at a time is asked for, the first: a responder (Linux' rxe)
//! may have forgotten what is before the part it was asked for last. Resources are no concern: a piece with a hole counts as
//! in flight, so the peer has not been given cause to forget it.

use std::collections::VecDeque;

use ibex_wire::Packet;

use crate::output::Output;
use crate::requester::Requester;
use crate::{Host, Nanos, SendOp, Transmit, WcStatus};

/// A READ request or atomic in flight.
pub(crate) struct Piece {
    pub(crate) from: u64,
    pub(crate) end: u64,
    /// The part of it that was last asked for again, from [`NEVER`] if none was, when, and how often in vain before.
    pub(crate) asked: u64,
    pub(crate) asked_end: u64,
    pub(crate) at: Nanos,
    pub(crate) tries: u32,
}

impl Piece {
    /// One that has just been asked for, from `asked` on not for the first time.
    pub(crate) fn new(from: u64, end: u64, asked: u64, at: Nanos) -> Piece {
        Piece { from, end, asked, asked_end: end, at, tries: 0 }
    }
}

/// A number that does not occur.
pub(crate) const NEVER: u64 = u64::MAX;

/// The wait for an answer doubles at most this often: it has reached the timeout long before.
const MAX_DOUBLINGS: u32 = 8;

/// What has arrived beyond a hole.
pub(crate) struct Early {
    /// One bit for each number that has its data, in a ring of `limit` numbers; empty until it is needed.
    bits: Vec<u64>,
    limit: u64,
    /// The peer has executed everything before this. Beyond the oldest outstanding number only while there is a hole.
    pub(crate) executed: u64,
    /// Holes to be asked for, each within one piece.
    again: VecDeque<(u64, u64)>,
}

impl Early {
    /// For `window` numbers in flight at most.
    pub(crate) fn new(window: u32) -> Early {
        let limit = u64::from(window).next_power_of_two().max(64);
        Early { bits: Vec::new(), limit, executed: 0, again: VecDeque::new() }
    }

    /// Where the bit of `number` is.
    fn place(&self, number: u64) -> (usize, u64) {
        let index = number & (self.limit - 1);
        ((index / 64) as usize, 1 << (index % 64))
    }

    fn has(&self, number: u64) -> bool {
        let (word, bit) = self.place(number);
        number < self.executed && self.bits.get(word).is_some_and(|bits| bits & bit != 0)
    }

    fn set(&mut self, number: u64) {
        self.bits.resize((self.limit / 64) as usize, 0);
        let (word, bit) = self.place(number);
        self.bits[word] |= bit;
        self.executed = self.executed.max(number + 1);
    }

    /// Whether `number` has its data, which is forgotten.
    fn take(&mut self, number: u64) -> bool {
        let has = self.has(number);
        if has {
            let (word, bit) = self.place(number);
            self.bits[word] &= !bit;
        }
        has
    }

    /// The first number of `from..end` without data.
    fn missing(&self, from: u64, end: u64) -> Option<u64> {
        (from..end).find(|number| !self.has(*number))
    }

    /// The part of `from..end` up to the last number without data.
    #[cold]
    pub(crate) fn trim(&self, from: u64, end: u64) -> u64 {
        (from..end).rev().find(|number| !self.has(*number)).map_or(from, |last| last + 1)
    }

    /// Whether there is something to ask for.
    #[inline]
    pub(crate) fn wants_transmit(&self) -> bool {
        !self.again.is_empty()
    }

    /// Everything is asked for in another way.
    pub(crate) fn on_go_back(&mut self) {
        self.again.clear();
    }
}

impl Requester {
    /// Data for `number`, before which other data is missing.
    #[cold]
    pub(crate) fn take_early<H: Host>(
        &mut self,
        now: Nanos,
        number: u64,
        packet: &Packet<'_>,
        host: &mut H,
        out: &mut Output,
    ) {
        if number - self.una >= self.early.limit || self.early.has(number) {
            return;
        }
        let at = self.sq.partition_point(|entry| entry.end <= number);
        let Some(entry) = self.sq.get(at) else { return };
        let stored = match (entry.wqe.op, packet.atomic_ack_eth()) {
            (SendOp::Read { .. }, None) => {
                let mtu = self.route.mtu;
                let offset = ((number - entry.first) << mtu.shift()) as u32;
                let len = (entry.wqe.len - offset).min(mtu.bytes() as u32);
                let payload = packet.payload();
                payload.len() == len as usize
                    && (len == 0 || host.scatter(entry.wqe.cookie, offset, payload).is_ok())
            }
            (SendOp::CompareSwap { .. } | SendOp::FetchAdd { .. }, Some(result)) => {
                host.scatter(entry.wqe.cookie, 0, &result.original.to_ne_bytes()).is_ok()
            }
            _ => false,
        };
        // What cannot be stored is asked for again, and is the request's error when its turn has come.
        if stored {
            self.early.set(number);
            self.skip_received();
        }
        self.early.executed = self.early.executed.max(number);
        self.ask_for_missing(now, out);
    }

    /// The oldest hole has been filled, at least in part: passes over what is there already.
    #[cold]
    pub(crate) fn catch_up(&mut self, now: Nanos, out: &mut Output) {
        let before = self.una;
        while let Some(front) = self.sq.first() {
            let end = front.end;
            match front.wqe.op {
                SendOp::Send { .. } | SendOp::Write { .. } if self.una < self.early.executed => {
                    self.una = end.min(self.early.executed);
                }
                op if op.awaits_data() && self.early.take(self.una) => self.una += 1,
                _ => break,
            }
            if self.una == end {
                self.finish_front(WcStatus::SUCCESS, out);
            }
        }
        if self.una > before {
            self.after_progress(now, self.una - before);
        }
        if self.una < self.early.executed {
            self.ask_for_missing(now, out);
        } else {
            self.early.again.clear();
        }
    }

    /// Asks for the first hole of each piece in flight that the peer has answered beyond.
    #[cold]
    pub(crate) fn ask_for_missing(&mut self, now: Nanos, out: &mut Output) {
        if self.retry.in_rnr_wait() {
            return;
        }
        let patience = self.retry.round_trip().map_or(NEVER, |span| 2 * span);
        let mut asks_front = false;
        // All holes together are no more than may be in flight.
        let mut room = u64::from(self.window.size());
        for piece in &mut self.data_in_flight {
            let Some(from) = self.early.missing(piece.from.max(self.una), piece.end) else { continue };
            if from >= self.early.executed || room == 0 {
                break;
            }
            let end = (from..piece.end).find(|number| self.early.has(*number)).unwrap_or(piece.end);
            room = room.saturating_sub(end - from);
            let is_asked = (piece.asked..piece.asked_end).contains(&from);
            // An answer of several packets comes in order: behind a gap in it, the rest is not waited for.
            let was_lost_again = from > piece.asked && end < piece.asked_end;
            if !is_asked || was_lost_again {
                piece.tries = 0;
                asks_front |= from == self.una;
                let is_noise = end - from == 1 && self.window.forgives(from);
                if from >= self.recovery.shrunk_up_to && !is_noise {
                    self.window.on_loss();
                    self.recovery.shrunk_up_to = self.high;
                }
            } else {
                // The answer may be on its way, behind everything else that is.
                let patience = patience.saturating_mul(1 << piece.tries.min(MAX_DOUBLINGS));
                if now < piece.at.saturating_add(patience) {
                    continue;
                }
                piece.tries += 1;
            }
            (piece.asked, piece.asked_end, piece.at) = (from, end, now);
            self.early.again.push_back((from, end));
        }
        self.retry.hasten_probe(now);
        // Once for each hole. Beyond that, as long as data comes, only the timer counts.
        if asks_front {
            out.counters.retransmissions += 1;
            if !self.retry.take() {
                self.fail(WcStatus::RETRY_EXC_ERR, out);
            }
        }
    }

    /// While going back: moves `nxt` over what needs not be sent again.
    pub(crate) fn skip_received(&mut self) {
        while self.nxt < self.early.executed {
            let Some(entry) = self.sq.get(self.cur) else { return };
            let end = entry.end;
            let data = entry.wqe.op.awaits_data();
            if data {
                let to = self.early.missing(self.nxt, end).unwrap_or(end);
                // What is passed over holds a resource of the peer's until what is before it has been answered.
                while self.nxt < to {
                    let (from, end) = (self.nxt, self.piece_end(entry, self.nxt));
                    self.nxt = end.min(to);
                    if end <= to && self.data_in_flight.back().is_none_or(|piece| piece.end < end) {
                        self.data_in_flight.push_back(Piece::new(from, end, NEVER, 0));
                    }
                }
            } else if !entry.wqe.op.is_local() {
                self.nxt = end.min(self.early.executed);
            }
            if self.nxt != end || entry.is_local_and_waits() {
                return;
            }
            self.data_before += usize::from(data);
            self.cur += 1;
        }
    }

    /// Writes the request for the next hole.
    #[cold]
    pub(crate) fn ask_again(&mut self, now: Nanos, buf: &mut [u8]) -> Option<Transmit> {
        while let Some(&(from, end)) = self.early.again.front() {
            let at = self.sq.partition_point(|entry| entry.end <= from);
            if let Some(from) = self.early.missing(from.max(self.una), end)
                && let Some(entry) = self.sq.get(at).filter(|entry| entry.wqe.op.awaits_data())
            {
                let len = self.put_data_request(entry, from, end - from, buf)?;
                self.early.again.pop_front();
                self.retry.on_sent(now);
                return Some(Transmit { len, more: false });
            }
            self.early.again.pop_front();
        }
        None
    }
}
