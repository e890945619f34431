//! The responder: executing the peer's requests in order, each once.
//!
//! Owns sequence checking, the rules of what may follow what in a message, lengths, rights, and what a repeated request
//! means. What is sent back is queued in `answers.rs`. IBTA 9.7.4.2 (responder side), 9.7.5.1 and 9.9.3 (its errors).
//!
//! | the request is | then |
//! |---|---|
//! | the next one | executed; acknowledged if asked for |
//! | ahead | kept for its turn, or dropped; a NAK for the missing one, again whenever an acknowledgement is asked for |
//! | behind | SEND, WRITE: acknowledged again; READ: executed again; atomic: answered from memory |
//!
//! A peer that is in the middle of repeating a message is not told that it is whole, see [`Responder::newest_for`].
//!
//! "Ahead" and "behind" are the two halves of the circle of sequence numbers.

use ibex_wire::{AtomicEth, Mtu, NakCode, Opcode, Packet, Psn, Qpn, Reth, Rkey, Syndrome};

use crate::ahead::Ahead;
use crate::answers::Answers;
use crate::errors::Refusal;
use crate::output::Output;
use crate::{
    AtomicOp, Host, MAX_MESSAGE, RecvCompletion, RecvWqe, RemoteAccess, RtrAttr, Tuning, WcOpcode, WcStatus,
};

/// The message of which packets have come, but not the last one.
#[derive(Clone, Copy)]
enum Message {
    None,
    Send { recv: RecvWqe, filled: u32 },
    Write { rkey: Rkey, va: u64, filled: u32, total: u32 },
}

/// What the peer has been told about `expected`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Awaiting {
    Nothing,
    /// It is missing. Said once, or again when the peer asks.
    Missing,
    /// It must come again later; what comes ahead of it is dropped in silence.
    NotReady,
}

/// Why a request was not executed.
enum Stop {
    /// No receive request.
    NotReady,
    /// The connection ends.
    Refused(Refusal),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Stop {
        Stop::Refused(refusal)
    }
}

/// The receiving half of a connection.
pub(crate) struct Responder {
    /// The next number to be executed.
    pub(crate) expected: Psn,
    /// Messages executed, modulo 2^24.
    pub(crate) msn: u32,
    message: Message,
    awaiting: Awaiting,
    /// The last packet executed has not been acknowledged: the peer has not asked for it, or is expected to repeat it.
    unasked: bool,
    /// The last acknowledgement has been owed again, see [`Responder::acknowledge_again`].
    said_again: bool,
    /// What was executed last is the last of several packets of a message.
    ends_several: bool,
    /// [`Tuning::peer_repairs`].
    peer_repairs: bool,
    ahead: Ahead,
    pub(crate) answers: Answers,
    mtu: Mtu,
    max_resources: u8,
    pub(crate) min_rnr_timer: u8,
    remote_qpn: Qpn,
}

impl Responder {
    pub(crate) fn new(attr: &RtrAttr, tuning: &Tuning) -> Responder {
        Responder {
            expected: attr.rq_psn,
            msn: 0,
            message: Message::None,
            awaiting: Awaiting::Nothing,
            unasked: false,
            said_again: false,
            ends_several: false,
            peer_repairs: tuning.peer_repairs,
            ahead: Ahead::new(tuning.keep_ahead.min(1 << 16)),
            answers: Answers::new(attr.max_dest_rd_atomic),
            mtu: attr.path_mtu,
            max_resources: attr.max_dest_rd_atomic,
            min_rnr_timer: attr.min_rnr_timer,
            remote_qpn: attr.remote_qpn,
        }
    }

    /// Takes in a request. An error ends the connection; its NAK is queued already.
    #[inline]
    pub(crate) fn handle_request<H: Host>(
        &mut self,
        packet: &Packet<'_>,
        access: RemoteAccess,
        host: &mut H,
        out: &mut Output,
    ) -> Result<(), Refusal> {
        let distance = packet.bth().psn.distance_from(self.expected);
        if distance < 0 {
            out.counters.duplicate_requests += 1;
            self.answer_again(packet);
            return Ok(());
        }
        if distance > 0 {
            self.handle_ahead(packet, distance as u32, out);
            return Ok(());
        }
        if self.awaiting != Awaiting::Nothing {
            self.awaiting = Awaiting::Nothing;
            self.answers.withdraw_nak();
        }
        let before = self.expected;
        let mut executed = self.execute(packet, access, host, out);
        if !self.ahead.is_empty() && executed.is_ok() {
            executed = self.catch_up(before, access, host, out);
        }
        match executed {
            Ok(()) => Ok(()),
            Err(Stop::NotReady) => {
                self.awaiting = Awaiting::NotReady;
                out.counters.rnr_naks_sent += 1;
                let syndrome = Syndrome::RnrNak { timer: self.min_rnr_timer };
                self.answers.nak(self.expected, syndrome, self.msn);
                Ok(())
            }
            Err(Stop::Refused(refusal)) => {
                self.flush(refusal.recv_status, out);
                self.answers.abort(self.expected, refusal.nak, self.msn);
                Err(refusal)
            }
        }
    }

    /// A request that came ahead of a missing one.
    fn handle_ahead(&mut self, packet: &Packet<'_>, distance: u32, out: &mut Output) {
        out.counters.out_of_sequence += 1;
        if self.awaiting != Awaiting::NotReady {
            self.ahead.keep(distance, packet);
        }
        let tell = match self.awaiting {
            Awaiting::Nothing => true,
            // The NAK may have been lost. Who sends everything again gains nothing from being told twice.
            Awaiting::Missing => packet.bth().ack_req && self.ahead.is_enabled(),
            Awaiting::NotReady => false,
        };
        if tell {
            self.tell_missing(out);
        }
    }

    fn tell_missing(&mut self, out: &mut Output) {
        self.awaiting = Awaiting::Missing;
        out.counters.sequence_naks_sent += 1;
        self.answers.nak(self.expected, Syndrome::Nak(NakCode::PSN_SEQUENCE), self.msn);
    }

    /// The missing request has come: executes those that were kept, up to the next one that is missing. `before` is the
    /// number up to which the kept ones have been looked through.
    #[cold]
    fn catch_up<H: Host>(
        &mut self,
        mut before: Psn,
        access: RemoteAccess,
        host: &mut H,
        out: &mut Output,
    ) -> Result<(), Stop> {
        let repeated = before;
        while let Some(bytes) = self.ahead.advance(self.expected.forward_from(before)) {
            before = self.expected;
            let executed = match Packet::parse(&bytes) {
                Ok(packet) => self.execute(&packet, access, host, out),
                // It was a packet when it was kept.
                Err(_) => Err(Refusal::INVALID.into()),
            };
            executed?;
        }
        if self.ahead.is_empty() {
            let (newest, msn) = self.newest_for(repeated);
            self.answers.ack_instead(newest, msn);
            self.unasked = newest != self.expected.prev();
        } else {
            self.tell_missing(out);
        }
        Ok(())
    }

    #[inline]
    fn execute<H: Host>(
        &mut self,
        packet: &Packet<'_>,
        access: RemoteAccess,
        host: &mut H,
        out: &mut Output,
    ) -> Result<(), Stop> {
        let bth = packet.bth();
        let psn = self.expected;
        let opcode = bth.opcode;
        if opcode.is_send() || opcode.is_write() {
            self.check_shape(opcode, packet.payload().len())?;
            if opcode.is_send() {
                self.send(packet, host, out)?;
            } else {
                self.write(packet, access, host, out)?;
            }
            if opcode.ends_message() {
                self.msn = self.msn.wrapping_add(1);
            }
            self.expected = psn.next();
            self.ends_several = opcode.ends_message() && !opcode.starts_message();
            self.unasked = !bth.ack_req;
            if bth.ack_req {
                self.answers.ack(psn, self.msn);
            }
            return Ok(());
        }
        if !matches!(self.message, Message::None) || self.max_resources == 0 {
            return Err(Refusal::INVALID.into());
        }
        self.ends_several = false;
        if let Some(reth) = packet.reth() {
            self.read(&reth, access, host)
        } else if let Some(eth) = packet.atomic_eth() {
            self.atomic(opcode, &eth, access, host)
        } else {
            Err(Refusal::INVALID.into())
        }
    }

    /// Payload lengths by position in the message, and messages neither nested nor without a beginning.
    #[inline]
    fn check_shape(&self, opcode: Opcode, len: usize) -> Result<(), Refusal> {
        let mtu = self.mtu.bytes();
        let in_place = match self.message {
            Message::None => opcode.starts_message(),
            Message::Send { .. } => opcode.is_send() && !opcode.starts_message(),
            Message::Write { .. } => opcode.is_write() && !opcode.starts_message(),
        };
        let length_fits = match (opcode.starts_message(), opcode.ends_message()) {
            (_, false) => len == mtu,
            (true, true) => len <= mtu,
            (false, true) => (1..=mtu).contains(&len),
        };
        if in_place && length_fits { Ok(()) } else { Err(Refusal::INVALID) }
    }

    /// A packet of a SEND.
    #[inline]
    fn send<H: Host>(&mut self, packet: &Packet<'_>, host: &mut H, out: &mut Output) -> Result<(), Stop> {
        let opcode = packet.opcode();
        let payload = packet.payload();
        let last = opcode.ends_message();
        let (recv, filled) = match self.message {
            Message::Send { recv, filled } => (recv, filled),
            _ => (host.take_recv().ok_or(Stop::NotReady)?, 0),
        };
        // From here on the receive request is accounted for: an error completes it.
        self.message = Message::Send { recv, filled };
        let len = payload.len() as u32;
        if len > recv.capacity.min(MAX_MESSAGE) - filled {
            return Err(Refusal::TOO_LONG.into());
        }
        if len > 0 {
            host.place(recv.cookie, filled, payload, last).map_err(|fault| Refusal::local(fault.status()))?;
        }
        let filled = filled + len;
        if !last {
            self.message = Message::Send { recv, filled };
            return Ok(());
        }
        let invalidated = packet.ieth().map(|ieth| ieth.rkey);
        if let Some(rkey) = invalidated {
            host.invalidate(rkey).map_err(Refusal::invalidate)?;
        }
        self.message = Message::None;
        out.recv_done(RecvCompletion {
            cookie: recv.cookie,
            status: WcStatus::SUCCESS,
            opcode: WcOpcode::RECV,
            byte_len: filled,
            imm: packet.imm().map(|imm| imm.0),
            invalidated,
            grh: false,
            solicited: packet.bth().solicited,
            src_qpn: self.remote_qpn,
        });
        Ok(())
    }

    /// A packet of a WRITE.
    #[inline]
    fn write<H: Host>(
        &mut self,
        packet: &Packet<'_>,
        access: RemoteAccess,
        host: &mut H,
        out: &mut Output,
    ) -> Result<(), Stop> {
        let opcode = packet.opcode();
        let payload = packet.payload();
        let last = opcode.ends_message();
        let (rkey, va, filled, total) = match self.message {
            Message::Write { rkey, va, filled, total } => (rkey, va, filled, total),
            _ => {
                let Reth { rkey, va, len } = packet.reth().ok_or(Refusal::INVALID)?;
                if !access.contains(RemoteAccess::WRITE) || len > MAX_MESSAGE {
                    return Err(Refusal::INVALID.into());
                }
                if len > 0 {
                    host.check_remote(rkey, va, len, RemoteAccess::WRITE).map_err(Refusal::remote)?;
                }
                (rkey, va, 0, len)
            }
        };
        let len = payload.len() as u32;
        let left = total - filled;
        // The last packet brings exactly what is left, the others leave something.
        if if last { len != left } else { len >= left } {
            return Err(Refusal::INVALID.into());
        }
        let imm = packet.imm().map(|imm| imm.0);
        // Asked for before anything is stored: a request that is not ready has no effect.
        let recv = match imm {
            Some(_) => Some(host.take_recv().ok_or(Stop::NotReady)?),
            None => None,
        };
        let mut done = RecvCompletion {
            cookie: 0,
            status: WcStatus::SUCCESS,
            opcode: WcOpcode::RECV_RDMA_WITH_IMM,
            byte_len: total,
            imm,
            invalidated: None,
            grh: false,
            solicited: packet.bth().solicited,
            src_qpn: self.remote_qpn,
        };
        let written = match len {
            0 => Ok(()),
            _ => host.write_remote(rkey, va.wrapping_add(u64::from(filled)), payload, last),
        };
        if let Some(recv) = recv {
            done.cookie = recv.cookie;
            if written.is_err() {
                done.status = WcStatus::WR_FLUSH_ERR;
            }
            out.recv_done(done);
        }
        written.map_err(Refusal::remote)?;
        self.message =
            if last { Message::None } else { Message::Write { rkey, va, filled: filled + len, total } };
        Ok(())
    }

    /// A READ request.
    fn read<H: Host>(&mut self, reth: &Reth, access: RemoteAccess, host: &mut H) -> Result<(), Stop> {
        if !access.contains(RemoteAccess::READ) || reth.len > MAX_MESSAGE {
            return Err(Refusal::INVALID.into());
        }
        self.answers.reserve()?;
        if reth.len > 0 {
            host.check_remote(reth.rkey, reth.va, reth.len, RemoteAccess::READ).map_err(Refusal::remote)?;
        }
        self.msn = self.msn.wrapping_add(1);
        self.answers.read(self.expected, reth.rkey, reth.va, reth.len, self.mtu, self.msn);
        self.expected += self.mtu.packets(reth.len);
        Ok(())
    }

    /// An atomic request.
    fn atomic<H: Host>(
        &mut self,
        opcode: Opcode,
        eth: &AtomicEth,
        access: RemoteAccess,
        host: &mut H,
    ) -> Result<(), Stop> {
        if !access.contains(RemoteAccess::ATOMIC) || !eth.va.is_multiple_of(8) {
            return Err(Refusal::INVALID.into());
        }
        self.answers.reserve()?;
        let op = match opcode {
            Opcode::RC_COMPARE_SWAP => AtomicOp::CompareSwap { compare: eth.compare, swap: eth.swap_add },
            _ => AtomicOp::FetchAdd { add: eth.swap_add },
        };
        let original = host.atomic(eth.rkey, eth.va, op).map_err(Refusal::remote)?;
        self.msn = self.msn.wrapping_add(1);
        self.answers.atomic(self.expected, original, self.msn);
        self.expected = self.expected.next();
        Ok(())
    }

    /// Owes an acknowledgement of everything executed, if it owes none yet.
    pub(crate) fn acknowledge_all(&mut self) {
        if std::mem::take(&mut self.unasked) {
            self.answers.ack(self.expected.prev(), self.msn);
        }
    }

    /// Owes the last acknowledgement once more, and never a third time. Not where that was a READ or atomic: who
    /// still waits for the data must not be told that there is nothing to wait for.
    pub(crate) fn acknowledge_again(&mut self) {
        let told = self.msn > 0 && !self.answers.is_owed();
        if told && !self.answers.end_at(self.expected) && !std::mem::replace(&mut self.said_again, true) {
            self.answers.ack(self.expected.prev(), self.msn);
        }
    }

    /// Whether no message is half received and nothing was asked for again.
    #[inline]
    pub(crate) fn is_between_messages(&self) -> bool {
        matches!(self.message, Message::None) && self.awaiting == Awaiting::Nothing
    }

    /// Whether the connection was given resources for READs and atomics.
    #[inline]
    pub(crate) fn serves_data(&self) -> bool {
        self.max_resources != 0
    }

    /// Whether a SEND in one packet with this number and `len` bytes is what comes next, with nothing left from before it.
    #[inline]
    pub(crate) fn expects_message(&self, psn: Psn, len: usize) -> bool {
        psn == self.expected
            && len <= self.mtu.bytes()
            && self.is_between_messages()
            && self.ahead.is_empty()
            && !self.answers.is_owed()
    }

    /// That message was executed. If it asks for an acknowledgement, the caller sees to that.
    #[inline]
    pub(crate) fn message_taken(&mut self, ack_req: bool) {
        self.pass_over(1);
        self.unasked = !ack_req;
    }

    /// A message of `packets` numbers was executed without any of them.
    #[inline]
    pub(crate) fn pass_over(&mut self, packets: u32) {
        self.msn = self.msn.wrapping_add(1);
        self.expected += packets;
        self.ends_several = false;
    }

    /// A request that has been executed before.
    fn answer_again(&mut self, packet: &Packet<'_>) {
        let psn = packet.bth().psn;
        if let Some(reth) = packet.reth().filter(|_| packet.opcode() == Opcode::RC_READ_REQUEST) {
            self.answers.read_again(psn, reth.rkey, reth.va, reth.len, self.mtu);
        } else if packet.opcode().is_atomic() {
            self.answers.atomic_again(psn);
        } else {
            let (newest, msn) = self.newest_for(psn);
            self.answers.ack_again(psn, newest, msn);
            self.unasked &= psn != self.expected.prev();
        }
    }

    /// Up to where to acknowledge, and the messages executed until there, when the peer has come to `psn` in repeating:
    /// everything executed, but for the last of several packets of a message before it is repeated itself. A peer that goes
    /// back may take the end of a message that it is in the middle of for the end of its waiting, see
    /// [`Tuning::peer_repairs`].
    fn newest_for(&self, psn: Psn) -> (Psn, u32) {
        let newest = self.expected.prev();
        if self.ends_several && !self.peer_repairs && psn != newest {
            (newest.prev(), self.msn.wrapping_sub(1))
        } else {
            (newest, self.msn)
        }
    }

    /// Completes the receive request being filled, if there is one.
    pub(crate) fn flush(&mut self, status: WcStatus, out: &mut Output) {
        if let Message::Send { recv, filled } = self.message {
            out.recv_done(RecvCompletion {
                cookie: recv.cookie,
                status,
                opcode: WcOpcode::RECV,
                byte_len: filled,
                imm: None,
                invalidated: None,
                grh: false,
                solicited: false,
                src_qpn: self.remote_qpn,
            });
        }
        self.message = Message::None;
        self.ahead.clear();
    }
}
