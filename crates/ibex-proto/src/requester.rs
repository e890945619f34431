//! The requester: the send queue, and turning it into request packets.
//!
//! Owns which request is sent next and from where, segmentation, the fence, the limits on what is in flight, and going
//! back. Taking in responses is in `completer.rs`, timers and counters in `retry.rs`, the window in `window.rs`.
//! IBTA 9.7.3 (send queue), 9.7.4.1 (requester side).
//!
//! Sequence numbers are kept in 64 bits here, of which the wire sees the low 24: older and newer are then plain
//! comparisons. All of a request's numbers are known when it is posted, one for each packet of a SEND or WRITE, one for
//! each packet of a READ's response, one for an atomic.
//!
//! ```text
//!  send queue   │ done │  sent, not acknowledged  │ sent once, to be sent again │ never sent │
//!                      └ una                      └ nxt (in request `cur`)      └ high
//! ```

use std::collections::VecDeque;

use ibex_wire::{AtomicEth, Bth, Header, Ieth, ImmDt, Mtu, Opcode, Pkey, Psn, Qpn, Reth, padding};

use crate::early::{Early, NEVER, Piece};
use crate::fifo::Fifo;
use crate::output::Output;
use crate::recovery::Recovery;
use crate::retry::Retry;
use crate::window::Window;
use crate::{
    Clock, Host, LocalFault, MAX_MESSAGE, Nanos, RcCaps, RtsAttr, SendCompletion, SendOp, SendWqe, Transmit,
    WcStatus,
};

/// What the requester knows of the connection.
#[derive(Clone, Copy)]
pub(crate) struct Route {
    pub(crate) remote_qpn: Qpn,
    pub(crate) pkey: Pkey,
    pub(crate) mtu: Mtu,
}

/// A send request with its sequence numbers, `first..end`.
pub(crate) struct Entry {
    pub(crate) wqe: SendWqe,
    pub(crate) first: u64,
    pub(crate) end: u64,
    /// How a local operation went that has been carried out; it completes when those before it have.
    local: Option<Result<(), LocalFault>>,
}

impl Entry {
    /// A local operation whose turn has not come, or that has failed and waits to be the oldest.
    pub(crate) fn is_local_and_waits(&self) -> bool {
        self.wqe.op.is_local() && self.local != Some(Ok(()))
    }
}

/// The send queue of a connection that is, or was, in RTS.
pub(crate) struct Requester {
    pub(crate) route: Route,
    /// Posted and not completed, oldest first. `una` lies in the first one, if there is one.
    pub(crate) sq: Fifo<Entry>,
    /// The number of the next request to be posted.
    end: u64,
    /// The oldest number not acknowledged.
    pub(crate) una: u64,
    /// The next number to send.
    pub(crate) nxt: u64,
    /// One past the highest number ever sent.
    pub(crate) high: u64,
    /// Index in `sq` of the request that holds `nxt`; its length when all has been sent.
    pub(crate) cur: usize,
    /// READs and atomics among `sq[..cur]`: what a fence waits for.
    pub(crate) data_before: usize,
    /// Each READ piece and atomic in flight, oldest first.
    pub(crate) data_in_flight: VecDeque<Piece>,
    pub(crate) early: Early,
    pub(crate) max_rd_atomic: usize,
    pub(crate) window: Window,
    pub(crate) retry: Retry,
    pub(crate) recovery: Recovery,
    /// `una` at the last time it went back because something was missing. Going back twice from one place would answer
    /// one loss several times; if the second attempt is lost too, the timer notices.
    pub(crate) went_back_at: Option<u64>,
    /// Packets since the last one that asked for an acknowledgement.
    since_ack: u32,
    ack_every: u32,
    /// Messages sent since the last one that asked for an acknowledgement, and how many there may be; see
    /// [`Tuning::sparse_acks`].
    messages_unasked: u32,
    sparse_acks: u32,
    /// Requests posted at most for messages to go without asking.
    sparse_depth: usize,
    /// Messages to come that ask for an acknowledgement each: operations are carried out at rest lately, and what is not
    /// acknowledged would be in their way.
    prompt: u32,
    read_chunk: u64,
    /// In SQD: no request from this number on is begun.
    pub(crate) drain_at: Option<u64>,
    /// Nor from this one on, until the host says so: [`RcQp::hold`](crate::RcQp::hold).
    hold_at: Option<u64>,
    /// The first request of `sq` has failed and its completion is out; the queue pair must move to ERR.
    pub(crate) failed: bool,
}

/// Messages after an operation at rest that are acknowledged one by one.
const PROMPT: u32 = 64;

/// Where 64-bit numbers start, so that going below the first PSN never underflows.
const EPOCH: u64 = 1 << 32;

impl Requester {
    pub(crate) fn new(route: Route, attr: &RtsAttr, caps: &RcCaps) -> Requester {
        let tuning = &caps.tuning;
        let start = EPOCH + u64::from(attr.sq_psn.get());
        Requester {
            route,
            sq: Fifo::new(),
            end: start,
            una: start,
            nxt: start,
            high: start,
            cur: 0,
            data_before: 0,
            data_in_flight: VecDeque::with_capacity(usize::from(attr.max_rd_atomic)),
            early: Early::new(tuning.max_window.clamp(1, 1 << 16)),
            max_rd_atomic: usize::from(attr.max_rd_atomic),
            window: Window::new(tuning.max_window),
            retry: Retry::new(attr.timeout, attr.retry, attr.rnr_retry, tuning.probe),
            recovery: Recovery::new(tuning.peer_repairs),
            went_back_at: None,
            since_ack: 0,
            ack_every: tuning.ack_every.max(1),
            messages_unasked: 0,
            sparse_acks: tuning.sparse_acks,
            sparse_depth: caps.sq_depth as usize / 2,
            prompt: 0,
            // A piece is sent whole, so one larger than the window would make the window meaningless.
            read_chunk: u64::from(tuning.read_chunk.min(tuning.max_window).clamp(1, 1 << 16)),
            drain_at: None,
            hold_at: None,
            failed: false,
        }
    }

    /// The number of the next request to be posted, as the wire has it.
    pub(crate) fn next_psn(&self) -> Psn {
        wire(self.end)
    }

    #[inline(always)]
    pub(crate) fn post(&mut self, mut wqe: SendWqe) {
        let packets = match wqe.op {
            SendOp::Send { .. } | SendOp::Write { .. } | SendOp::Read { .. } | SendOp::Datagram { .. } => {
                self.route.mtu.packets(wqe.len)
            }
            SendOp::LocalInv { .. } | SendOp::BindMw => 0,
            SendOp::CompareSwap { .. } | SendOp::FetchAdd { .. } => {
                wqe.len = 8;
                1
            }
        };
        let first = self.end;
        self.end += u64::from(packets);
        self.sq.push(Entry { wqe, first, end: self.end, local: None });
    }

    /// Whether the next packet may be sent now as far as order and limits go.
    #[inline]
    fn is_blocked(&self, entry: &Entry) -> bool {
        if self.nxt == entry.first {
            let bars = [self.drain_at, self.hold_at];
            let barred = bars.into_iter().flatten().any(|at| entry.first >= at);
            if barred || (entry.wqe.fence && self.data_before > 0) {
                return true;
            }
        }
        let in_flight = self.nxt - self.una;
        let window = u64::from(self.window.size());
        if !entry.wqe.op.awaits_data() {
            return in_flight >= window;
        }
        // A limit of 0 does not block: it is a fault, reported when the request is reached.
        let full = self.max_rd_atomic != 0 && self.data_in_flight.len() >= self.max_rd_atomic;
        full || (in_flight > 0 && in_flight + self.piece(entry) > window)
    }

    /// Packets of the READ request to be sent next. Pieces always end at the same places, so that one asked for again
    /// is a part of one that the responder remembers.
    fn piece(&self, entry: &Entry) -> u64 {
        let end = self.piece_end(entry, self.nxt);
        let end = if self.nxt < self.early.executed { self.early.trim(self.nxt, end) } else { end };
        end - self.nxt
    }

    /// Where the piece that `number` belongs to ends.
    pub(crate) fn piece_end(&self, entry: &Entry, number: u64) -> u64 {
        let into = number - entry.first;
        entry.end.min(number + self.read_chunk - into % self.read_chunk)
    }

    #[inline]
    pub(crate) fn wants_transmit(&self) -> bool {
        !self.retry.in_rnr_wait()
            && (self.early.wants_transmit()
                || self.sq.get(self.cur).is_some_and(|entry| !self.is_blocked(entry)))
    }

    /// Writes the next request packet.
    #[inline]
    pub(crate) fn poll<H: Host>(
        &mut self,
        now: Nanos,
        host: &mut H,
        buf: &mut [u8],
        out: &mut Output,
    ) -> Option<Transmit> {
        self.retry.end_rnr_wait(now);
        if self.retry.in_rnr_wait() {
            return None;
        }
        if self.early.wants_transmit()
            && let Some(transmit) = self.ask_again(now, buf)
        {
            return Some(transmit);
        }
        let sent = loop {
            let entry = self.sq.get(self.cur)?;
            if self.is_blocked(entry) {
                return None;
            }
            break match entry.wqe.op {
                SendOp::Send { .. } | SendOp::Write { .. } => self.send_or_write(host, buf),
                SendOp::Read { .. } | SendOp::CompareSwap { .. } | SendOp::FetchAdd { .. } => {
                    self.read_or_atomic(now, buf)
                }
                SendOp::LocalInv { .. } | SendOp::BindMw => {
                    if !self.local(host, out) {
                        return None;
                    }
                    continue;
                }
                SendOp::Datagram { .. } => Err(LocalFault::Operation),
            };
        };
        let transmit = match sent {
            Ok(transmit) => transmit?,
            Err(fault) => {
                // Requests complete in order: the fault waits until this one is the oldest.
                if self.cur == 0 {
                    self.fail(fault.status(), out);
                }
                return None;
            }
        };
        if self.nxt > self.high {
            self.high = self.nxt;
            // The round trip of a packet that asks for no answer says nothing.
            if self.since_ack == 0 {
                self.retry.on_sent_first(now, self.nxt);
            }
        }
        self.retry.on_sent(now);
        let entry = &self.sq[self.cur];
        if self.nxt == entry.end {
            self.data_before += usize::from(entry.wqe.op.awaits_data());
            self.cur += 1;
        }
        if self.nxt >= self.recovery.jump_at {
            self.end_burst();
        }
        if self.nxt < self.early.executed {
            self.skip_received();
        }
        Some(transmit)
    }

    /// Carries out the local operation whose turn it is, unless that has been done already. `false` if it failed.
    #[cold]
    fn local<H: Host>(&mut self, host: &mut H, out: &mut Output) -> bool {
        let entry = &mut self.sq[self.cur];
        let carried_out = match (entry.local, entry.wqe.op) {
            (Some(before), _) => before,
            (None, SendOp::LocalInv { rkey }) => host.local_invalidate(rkey),
            (None, _) => host.bind(entry.wqe.cookie),
        };
        entry.local = Some(carried_out);
        if let Err(fault) = carried_out {
            // As for a gather list that cannot be read: the fault waits until this request is the oldest.
            if self.cur == 0 {
                self.fail(fault.status(), out);
            }
            return false;
        }
        let told = entry.wqe.signaled;
        self.cur += 1;
        self.finish_local(out);
        if told && self.cur > 0 {
            self.hurry();
        }
        true
    }

    /// Somebody waits for what is outstanding: asks for it at once if the last message did not.
    fn hurry(&mut self) {
        if self.messages_unasked > 0 && self.una < self.high {
            self.retry.probe_at_once();
        }
    }

    /// Completes local operations that nothing is before any more.
    #[inline]
    fn finish_local(&mut self, out: &mut Output) {
        while let Some(entry) = self.sq.first().filter(|entry| entry.local == Some(Ok(()))) {
            out.send_done(completion(&entry.wqe, WcStatus::SUCCESS));
            self.sq.drop_front();
            self.cur = self.cur.saturating_sub(1);
        }
    }

    /// One packet of a SEND or WRITE. `Ok(None)` if `buf` is too short.
    #[inline(always)]
    fn send_or_write<H: Host>(
        &mut self,
        host: &mut H,
        buf: &mut [u8],
    ) -> Result<Option<Transmit>, LocalFault> {
        let entry = &self.sq[self.cur];
        let wqe = &entry.wqe;
        if wqe.len > MAX_MESSAGE {
            return Err(LocalFault::Length);
        }
        let mtu = self.route.mtu;
        let offset = ((self.nxt - entry.first) << mtu.shift()) as u32;
        let len = (wqe.len - offset).min(mtu.bytes() as u32) as usize;
        let first = self.nxt == entry.first;
        let last = self.nxt + 1 == entry.end;
        let opcode = match wqe.op {
            SendOp::Write { imm, .. } => write_opcode(first, last, imm.is_some()),
            SendOp::Send { imm, inv } => send_opcode(first, last, imm.is_some(), inv.is_some()),
            _ => return Err(LocalFault::Operation),
        };
        let pad = padding(len);
        let window = self.window.size();
        // After this packet the window is full, or a burst ends.
        let pauses = self.nxt + 1 >= (self.una + u64::from(window)).min(self.recovery.jump_at);
        // Four times a window at least: if its end is lost, what arrived is acknowledged, more is sent, and the gap shows.
        let ack_req = pauses
            || self.since_ack + 1 >= self.ack_every.min(window / 4).max(1)
            || last && !self.may_go_unasked(wqe, self.sq.len());
        let bth = Bth {
            solicited: wqe.solicited && last,
            pad: pad as u8,
            pkey: self.route.pkey,
            ack_req,
            ..Bth::new(opcode, self.route.remote_qpn, wire(self.nxt))
        };
        let Some(mut rest) = bth.put(buf) else { return Ok(None) };
        match wqe.op {
            SendOp::Write { rkey, va, imm } => {
                if first {
                    let Some(after) = (Reth { va, rkey, len: wqe.len }).put(rest) else { return Ok(None) };
                    rest = after;
                }
                if let (true, Some(imm)) = (last, imm) {
                    let Some(after) = ImmDt(imm).put(rest) else { return Ok(None) };
                    rest = after;
                }
            }
            SendOp::Send { imm, inv } if last => {
                let after = match (imm, inv) {
                    (Some(imm), _) => ImmDt(imm).put(rest),
                    (None, Some(rkey)) => Ieth { rkey }.put(rest),
                    (None, None) => Some(rest),
                };
                let Some(after) = after else { return Ok(None) };
                rest = after;
            }
            _ => {}
        }
        let Some(payload) = rest.get_mut(..len + pad) else { return Ok(None) };
        if len > 0 {
            host.gather(wqe.cookie, offset, &mut payload[..len])?;
            if pad > 0 {
                payload[len..].fill(0);
            }
        }
        self.since_ack = if ack_req { 0 } else { self.since_ack + 1 };
        if last {
            self.messages_unasked = if ack_req { 0 } else { self.messages_unasked + 1 };
            self.prompt = self.prompt.saturating_sub(1);
        }
        self.nxt += 1;
        let more = !last && !pauses;
        Ok(Some(Transmit { len: opcode.header_len() + len + pad, more }))
    }

    /// Whether the message's last packet may go without asking for an acknowledgement, with so many messages posted.
    #[inline]
    fn may_go_unasked(&self, wqe: &SendWqe, posted: usize) -> bool {
        // A WRITE may be followed by others that its host could carry out itself, were nothing left to be acknowledged.
        matches!(wqe.op, SendOp::Send { .. })
            && self.messages_unasked + 1 < self.sparse_acks
            && !wqe.signaled
            && self.prompt == 0
            && posted <= self.sparse_depth
            && self.drain_at.is_none()
            // A local operation behind it completes when it is acknowledged.
            && self.sq.get(self.cur + 1).is_none_or(|next| !next.wqe.op.is_local())
            // Without one, only the timeout would notice that it was lost.
            && self.retry.probes()
    }

    /// Whether a SEND or WRITE of one packet posted now would be sent next, with room behind it in the window.
    #[inline]
    pub(crate) fn is_clear(&self, wqe: &SendWqe) -> bool {
        self.is_quiet()
            && self.nxt + 1 < self.una + u64::from(self.window.size())
            && !(wqe.fence && self.data_before > 0)
    }

    /// Whether all that was posted has been sent, and nothing else is going on.
    #[inline]
    pub(crate) fn is_quiet(&self) -> bool {
        self.cur == self.sq.len()
            && self.nxt == self.high
            && self.nxt >= self.early.executed
            && self.recovery.jump_at == NEVER
            && self.drain_at.is_none()
            && self.hold_at.is_none()
            && !self.failed
            && !self.retry.in_rnr_wait()
            && !self.early.wants_transmit()
    }

    /// Whether a message of one packet that is posted next asks for an acknowledgement.
    #[inline]
    pub(crate) fn express_asks(&self, wqe: &SendWqe) -> bool {
        self.since_ack + 1 >= self.ack_every.min(self.window.size() / 4).max(1)
            || !self.may_go_unasked(wqe, self.sq.len() + 1)
    }

    /// The message of one packet that was posted last has been sent.
    #[inline(always)]
    pub(crate) fn express_sent(&mut self, ack_req: bool, clock: &impl Clock) {
        self.since_ack = if ack_req { 0 } else { self.since_ack + 1 };
        self.messages_unasked = if ack_req { 0 } else { self.messages_unasked + 1 };
        self.prompt = self.prompt.saturating_sub(1);
        self.nxt = self.end;
        self.high = self.end;
        self.cur = self.sq.len();
        if ack_req && self.retry.wants_trip() {
            self.retry.on_sent_first(clock.now(), self.nxt);
        }
        if !self.retry.is_armed() {
            match clock.next_look() {
                Some(look) => self.retry.on_sent_before(look),
                None => self.retry.on_sent(clock.now()),
            }
        }
    }

    /// Whether no request that is outstanding has asked for an acknowledgement.
    #[inline]
    pub(crate) fn has_asked_nothing(&self) -> bool {
        self.sq.len() <= self.messages_unasked as usize
    }

    /// The next request that is answered with data: a whole READ or a piece of it, or an atomic.
    #[inline(never)]
    fn read_or_atomic(&mut self, now: Nanos, buf: &mut [u8]) -> Result<Option<Transmit>, LocalFault> {
        let entry = &self.sq[self.cur];
        if self.max_rd_atomic == 0 {
            return Err(LocalFault::Operation);
        }
        if entry.wqe.len > MAX_MESSAGE {
            return Err(LocalFault::Length);
        }
        let packets = self.piece(entry);
        let Some(len) = self.put_data_request(entry, self.nxt, packets, buf) else { return Ok(None) };
        let (from, end) = (self.nxt, self.piece_end(entry, self.nxt));
        let asked = if from < self.high { from } else { NEVER };
        self.nxt += packets;
        self.data_in_flight.push_back(Piece::new(from, end, asked, now));
        (self.since_ack, self.messages_unasked) = (0, 0);
        Ok(Some(Transmit { len, more: false }))
    }

    /// Writes a request that is answered with the packets `from..from + packets` of `entry`'s data. `None` if `buf` is
    /// too short.
    pub(crate) fn put_data_request(
        &self,
        entry: &Entry,
        from: u64,
        packets: u64,
        buf: &mut [u8],
    ) -> Option<usize> {
        let bth = |opcode| Bth {
            pkey: self.route.pkey,
            ack_req: true,
            ..Bth::new(opcode, self.route.remote_qpn, wire(from))
        };
        let atomic = |opcode, eth: AtomicEth, buf| {
            eth.put(bth(opcode).put(buf)?)?;
            Some(Bth::LEN + AtomicEth::LEN)
        };
        match entry.wqe.op {
            SendOp::Read { rkey, va } => {
                let shift = self.route.mtu.shift();
                let offset = (from - entry.first) << shift;
                let len = (packets << shift).min(u64::from(entry.wqe.len) - offset) as u32;
                let reth = Reth { va: va.wrapping_add(offset), rkey, len };
                reth.put(bth(Opcode::RC_READ_REQUEST).put(buf)?)?;
                Some(Bth::LEN + Reth::LEN)
            }
            SendOp::CompareSwap { rkey, va, compare, swap } => {
                atomic(Opcode::RC_COMPARE_SWAP, AtomicEth { va, rkey, swap_add: swap, compare }, buf)
            }
            SendOp::FetchAdd { rkey, va, add } => {
                atomic(Opcode::RC_FETCH_ADD, AtomicEth { va, rkey, swap_add: add, compare: 0 }, buf)
            }
            _ => None,
        }
    }

    /// Sends again from the oldest number not acknowledged.
    pub(crate) fn go_back(&mut self) {
        self.nxt = self.una;
        self.cur = 0;
        self.data_before = 0;
        self.data_in_flight.clear();
        (self.since_ack, self.messages_unasked) = (0, 0);
        self.retry.disarm();
        self.recovery.on_go_back();
        self.early.on_go_back();
        self.skip_received();
    }

    /// Ends the oldest request with `status`. The rest is flushed when the queue pair moves to ERR.
    pub(crate) fn fail(&mut self, status: WcStatus, out: &mut Output) {
        self.finish_front(status, out);
        self.failed = true;
    }

    /// Takes the oldest request off the queue with a completion.
    #[inline(never)]
    pub(crate) fn finish_front(&mut self, status: WcStatus, out: &mut Output) {
        self.finish(status, out);
    }

    /// [`finish_front`](Requester::finish_front) for the one caller that every request passes through.
    #[inline(always)]
    pub(crate) fn finish(&mut self, status: WcStatus, out: &mut Output) {
        // Read where it is: an entry is larger than what is needed of it.
        let Some(entry) = self.sq.first() else { return };
        if self.cur > 0 {
            self.cur -= 1;
            self.data_before -= usize::from(entry.wqe.op.awaits_data());
        }
        out.send_done(completion(&entry.wqe, status));
        self.sq.drop_front();
        if status == WcStatus::SUCCESS {
            self.finish_local(out);
        }
    }

    /// Where the oldest request is, or the next will be.
    #[inline]
    pub(crate) fn memory(&self) -> *const u8 {
        self.sq.as_ptr().cast()
    }

    /// With nothing posted: the next `packets` numbers will not be used.
    #[inline]
    pub(crate) fn pass_over(&mut self, packets: u32) {
        self.end += u64::from(packets);
        (self.una, self.nxt, self.high) = (self.end, self.end, self.end);
        self.prompt = PROMPT;
    }

    /// Begins nothing that is not begun. False if what is outstanding is not of the kind that `may_wait_for` names, or not
    /// enough to be worth it.
    pub(crate) fn hold(&mut self, may_wait_for: impl Fn(&SendOp) -> bool) -> bool {
        let worth = self.sq.len() > 1 && self.drain_at.is_none() && !self.retry.in_rnr_wait();
        if self.hold_at.is_some() || !worth || !self.sq.iter().all(|entry| may_wait_for(&entry.wqe.op)) {
            return self.hold_at.is_some();
        }
        self.hold_at = Some(self.end_of_begun());
        self.hurry();
        true
    }

    /// Goes on after [`hold`](Requester::hold).
    pub(crate) fn release(&mut self) {
        self.hold_at = None;
    }

    /// Whether all that was begun has been sent and acknowledged.
    pub(crate) fn is_settled(&self) -> bool {
        self.una == self.high && self.sq.first().is_none_or(|front| front.first == self.una)
    }

    /// Takes requests off the queue for as long as `each` carries them out, if nothing has been sent that is not acknowledged; their
    /// numbers are used by those behind them.
    pub(crate) fn carry_out(&mut self, out: &mut Output, mut each: impl FnMut(&SendWqe) -> bool) {
        if !self.is_settled() || self.cur != 0 || self.failed || self.retry.in_rnr_wait() {
            return;
        }
        let mut unused = 0;
        while let Some(front) = self.sq.first().filter(|front| each(&front.wqe)) {
            unused += front.end - front.first;
            out.send_done(completion(&front.wqe, WcStatus::SUCCESS));
            self.sq.drop_front();
        }
        if unused > 0 {
            self.sq.iter_mut().for_each(|entry| {
                entry.first -= unused;
                entry.end -= unused;
            });
            self.end -= unused;
            self.prompt = PROMPT;
        }
    }

    /// Begins SQD: what has been begun is finished, nothing else started.
    pub(crate) fn begin_drain(&mut self) {
        self.drain_at = Some(self.end_of_begun());
        self.hurry();
    }

    /// The end of the requests that have been begun.
    fn end_of_begun(&self) -> u64 {
        let begun = self.sq.iter().take_while(|entry| entry.first < self.high).last();
        begun.map_or(self.una, |entry| entry.end)
    }

    /// Whether everything begun before SQD has finished.
    #[inline]
    pub(crate) fn is_drained(&self) -> bool {
        self.drain_at.is_some_and(|at| self.una >= at)
    }
}

/// The completion of a request.
#[inline]
pub(crate) fn completion(wqe: &SendWqe, status: WcStatus) -> SendCompletion {
    SendCompletion {
        cookie: wqe.cookie,
        status,
        opcode: wqe.op.wc_opcode(),
        byte_len: wqe.len,
        signaled: wqe.signaled,
    }
}

/// The 24 bits that the wire sees.
#[inline]
pub(crate) fn wire(number: u64) -> Psn {
    Psn::new(number as u32)
}

#[inline]
fn send_opcode(first: bool, last: bool, imm: bool, inv: bool) -> Opcode {
    match (first, last) {
        (true, false) => Opcode::RC_SEND_FIRST,
        (false, false) => Opcode::RC_SEND_MIDDLE,
        (false, true) if imm => Opcode::RC_SEND_LAST_IMM,
        (false, true) if inv => Opcode::RC_SEND_LAST_INV,
        (false, true) => Opcode::RC_SEND_LAST,
        (true, true) if imm => Opcode::RC_SEND_ONLY_IMM,
        (true, true) if inv => Opcode::RC_SEND_ONLY_INV,
        (true, true) => Opcode::RC_SEND_ONLY,
    }
}

#[inline]
fn write_opcode(first: bool, last: bool, imm: bool) -> Opcode {
    match (first, last) {
        (true, false) => Opcode::RC_WRITE_FIRST,
        (false, false) => Opcode::RC_WRITE_MIDDLE,
        (false, true) if imm => Opcode::RC_WRITE_LAST_IMM,
        (false, true) => Opcode::RC_WRITE_LAST,
        (true, true) if imm => Opcode::RC_WRITE_ONLY_IMM,
        (true, true) => Opcode::RC_WRITE_ONLY,
    }
}
