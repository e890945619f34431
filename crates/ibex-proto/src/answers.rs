//! What a responder owes its peer: READ data, atomic results, acknowledgements, a NAK.
//!
//! Owns the responder resources (one for each READ or atomic executed lately, so that it can be answered again) and the
//! order of answers, which is that of sequence numbers. READ data is read from memory when the packet is made, never
//! stored. IBTA 9.7.5.1 (responder's acknowledgements), 9.7.5.1.2 (coalescing), 9.4.4 and 9.4.5 (repeated requests).

use std::collections::VecDeque;

use ibex_wire::{Aeth, AtomicAckEth, Bth, Header, Mtu, NakCode, Opcode, Psn, Rkey, Syndrome, padding};

use crate::errors::Refusal;
use crate::requester::Route;
use crate::{Ack, Host, Transmit};

/// A READ or atomic that was executed, as long as it may be asked for again.
struct Resource {
    first: Psn,
    /// Packets of the answer.
    packets: u32,
    /// The message sequence number after it.
    msn: u32,
    data: Data,
    /// Packets of the answer still to be sent, as indices: from `next` to before `until`. Equal when there are none.
    next: u32,
    until: u32,
    /// Where this run of the answer began, which is a "first" packet.
    run: u32,
    /// The answer was sent to its end at least once.
    answered: bool,
}

enum Data {
    Read { rkey: Rkey, va: u64, len: u32 },
    Atomic { original: u64 },
}

impl Resource {
    fn is_pending(&self) -> bool {
        self.next < self.until
    }

    /// The next number to be sent.
    fn cursor(&self) -> Psn {
        self.first + self.next
    }

    /// Index of `psn` in the answer.
    fn index_of(&self, psn: Psn) -> Option<u32> {
        let index = psn.forward_from(self.first);
        (index < self.packets).then_some(index)
    }

    /// Sends packets `from..until` again, or lets an answer under way that has not come to `from` do it.
    fn rewind(&mut self, from: u32, until: u32) {
        if self.is_pending() && self.next <= from {
            self.until = self.until.max(until);
            return;
        }
        self.until = if self.is_pending() { self.until.max(until) } else { until };
        self.next = from;
        self.run = from;
    }
}

/// A failure while making an answer.
pub(crate) struct AnswerFailed {
    pub(crate) refusal: Refusal,
    pub(crate) psn: Psn,
}

/// What is owed, bounded by the responder resources the connection was given.
pub(crate) struct Answers {
    /// Ascending by sequence number; the oldest is forgotten for a new one.
    resources: VecDeque<Resource>,
    max_resources: usize,
    /// Resources with packets to send.
    pending: usize,
    /// An acknowledgement of everything up to this number.
    ack: Option<(Psn, u32)>,
    /// A NAK at this number, after all other answers.
    nak: Option<(Psn, Syndrome, u32)>,
}

impl Answers {
    pub(crate) fn new(max_resources: u8) -> Answers {
        let max_resources = usize::from(max_resources);
        Answers {
            resources: VecDeque::with_capacity(max_resources),
            max_resources,
            pending: 0,
            ack: None,
            nak: None,
        }
    }

    /// Owes an acknowledgement of everything up to `psn`. One that covers more replaces one that is still owed.
    #[inline]
    pub(crate) fn ack(&mut self, psn: Psn, msn: u32) {
        if self.ack.is_none_or(|(owed, _)| owed.precedes(psn)) {
            self.ack = Some((psn, msn));
        }
    }

    /// Owes an acknowledgement of everything up to `psn`, although more may have been asked for.
    pub(crate) fn ack_instead(&mut self, psn: Psn, msn: u32) {
        self.ack = Some((psn, msn));
    }

    /// Owes a NAK, which also acknowledges everything before `psn`.
    pub(crate) fn nak(&mut self, psn: Psn, syndrome: Syndrome, msn: u32) {
        self.ack = None;
        self.nak = Some((psn, syndrome, msn));
    }

    /// The request that a NAK asked for has come: the NAK, if not sent yet, has no purpose any more.
    #[inline]
    pub(crate) fn withdraw_nak(&mut self) {
        self.nak = None;
    }

    /// Makes room for one more READ or atomic, before it is executed. Fails if the peer exceeds the number agreed.
    pub(crate) fn reserve(&mut self) -> Result<(), Refusal> {
        if self.resources.len() < self.max_resources {
            return Ok(());
        }
        match self.resources.front() {
            // The peer sends a new one only after the oldest was answered; what is left of that is a repetition.
            Some(oldest) if oldest.answered => {
                self.pending -= usize::from(oldest.is_pending());
                self.resources.pop_front();
                Ok(())
            }
            _ => Err(Refusal::INVALID),
        }
    }

    /// Owes the data of a READ. `msn` counts it already.
    pub(crate) fn read(&mut self, first: Psn, rkey: Rkey, va: u64, len: u32, mtu: Mtu, msn: u32) {
        self.push(first, mtu.packets(len), Data::Read { rkey, va, len }, msn);
    }

    /// Owes the result of an atomic.
    pub(crate) fn atomic(&mut self, psn: Psn, original: u64, msn: u32) {
        self.push(psn, 1, Data::Atomic { original }, msn);
    }

    fn push(&mut self, first: Psn, packets: u32, data: Data, msn: u32) {
        self.resources.push_back(Resource {
            first,
            packets,
            msn,
            data,
            next: 0,
            until: packets,
            run: 0,
            answered: false,
        });
        self.pending += 1;
    }

    /// Answers a repeated READ request, which may ask for a part of the original one. Anything else is ignored, as the
    /// answer to it is not known any more or it was never asked.
    pub(crate) fn read_again(&mut self, psn: Psn, rkey: Rkey, va: u64, len: u32, mtu: Mtu) {
        let Some((resource, index)) = self.find(psn) else { return };
        let Data::Read { rkey: original_rkey, va: original_va, len: original_len } = resource.data else {
            return;
        };
        let offset = u64::from(index) << mtu.shift();
        let is_part = rkey == original_rkey
            && va == original_va.wrapping_add(offset)
            && offset + u64::from(len) <= u64::from(original_len);
        if !is_part {
            return;
        }
        let was_pending = resource.is_pending();
        resource.rewind(index, index + mtu.packets(len));
        self.pending += usize::from(!was_pending);
    }

    /// Answers a repeated atomic with what the first execution found.
    pub(crate) fn atomic_again(&mut self, psn: Psn) {
        let Some((resource, _)) = self.find(psn) else { return };
        if matches!(resource.data, Data::Atomic { .. }) && !resource.is_pending() {
            resource.rewind(0, 1);
            self.pending += 1;
        }
    }

    fn find(&mut self, psn: Psn) -> Option<(&mut Resource, u32)> {
        // Newest first: numbers come round, and an old resource may carry the number of a newer one.
        self.resources.iter_mut().rev().find_map(|resource| {
            let index = resource.index_of(psn)?;
            Some((resource, index))
        })
    }

    /// Owes an acknowledgement for a repeated SEND or WRITE at `psn`: as far as possible up to `newest`, but not past a
    /// READ or atomic, whose missing answer the peer would take for lost.
    pub(crate) fn ack_again(&mut self, psn: Psn, newest: Psn, msn: u32) {
        let is_later =
            |resource: &&Resource| psn.precedes(resource.first) && !newest.precedes(resource.first);
        match self.resources.iter().find(is_later) {
            Some(resource) => {
                let (up_to, msn) = (resource.first.prev(), resource.msn.wrapping_sub(1));
                self.ack(up_to, msn);
            }
            None => self.ack(newest, msn),
        }
    }

    /// Whether the last request before `expected` was a READ or atomic.
    pub(crate) fn end_at(&self, expected: Psn) -> bool {
        self.resources.back().is_some_and(|resource| resource.first + resource.packets == expected)
    }

    /// Whether a plain acknowledgement is all that is owed.
    #[inline]
    pub(crate) fn is_only_ack(&self) -> bool {
        self.ack.is_some() && self.nak.is_none() && self.pending == 0
    }

    /// Whether anything is owed.
    #[inline]
    pub(crate) fn is_owed(&self) -> bool {
        self.pending > 0 || self.ack.is_some() || self.nak.is_some()
    }

    /// Whether the next answer is data, as opposed to an acknowledgement or NAK.
    #[inline]
    pub(crate) fn next_is_data(&self) -> bool {
        self.pending > 0 && self.next_data().is_some()
    }

    /// The resource whose data is next, unless an acknowledgement comes before it.
    fn next_data(&self) -> Option<usize> {
        let at = self.resources.iter().position(Resource::is_pending)?;
        let ack_first = self.ack.is_some_and(|(psn, _)| psn.precedes(self.resources[at].cursor()));
        (!ack_first).then_some(at)
    }

    /// The acknowledgement that is owed, if there is one and nothing else, to be sent by other means.
    #[inline]
    pub(crate) fn take_ack(&mut self) -> Option<Ack> {
        let (psn, msn) = self.ack.take()?;
        Some(Ack { psn, aeth: Aeth { syndrome: Syndrome::ACK, msn } })
    }

    /// Writes the next answer.
    #[inline]
    pub(crate) fn poll<H: Host>(
        &mut self,
        route: &Route,
        host: &mut H,
        buf: &mut [u8],
    ) -> Result<Option<Transmit>, AnswerFailed> {
        if self.pending > 0
            && let Some(at) = self.next_data()
        {
            return self.poll_data(at, route, host, buf);
        }
        let (psn, syndrome, msn) = match (self.ack.take(), self.nak) {
            (Some((psn, msn)), _) => (psn, Syndrome::ACK, msn),
            (None, Some(nak)) => {
                self.nak = None;
                nak
            }
            (None, None) => return Ok(None),
        };
        let bth = Bth { pkey: route.pkey, ..Bth::new(Opcode::RC_ACK, route.remote_qpn, psn) };
        let written = bth.put(buf).and_then(|rest| Aeth { syndrome, msn }.put(rest));
        Ok(written.map(|_| Transmit { len: Opcode::RC_ACK.header_len(), more: false }))
    }

    fn poll_data<H: Host>(
        &mut self,
        at: usize,
        route: &Route,
        host: &mut H,
        buf: &mut [u8],
    ) -> Result<Option<Transmit>, AnswerFailed> {
        let resource = &mut self.resources[at];
        let aeth = Aeth { syndrome: Syndrome::ACK, msn: resource.msn };
        let psn = resource.cursor();
        let first = resource.next == resource.run;
        let last = resource.next + 1 == resource.until;
        let transmit = match resource.data {
            Data::Atomic { original } => {
                let opcode = Opcode::RC_ATOMIC_ACK;
                let bth = Bth { pkey: route.pkey, ..Bth::new(opcode, route.remote_qpn, psn) };
                let written = bth
                    .put(buf)
                    .and_then(|rest| aeth.put(rest))
                    .and_then(|rest| AtomicAckEth { original }.put(rest));
                written.map(|_| Transmit { len: opcode.header_len(), more: false })
            }
            Data::Read { rkey, va, len } => {
                let offset = u64::from(resource.next) << route.mtu.shift();
                let bytes = (u64::from(len) - offset).min(route.mtu.bytes() as u64) as usize;
                let opcode = response_opcode(first, last);
                let bth = Bth {
                    pkey: route.pkey,
                    pad: padding(bytes) as u8,
                    ..Bth::new(opcode, route.remote_qpn, psn)
                };
                let total = opcode.header_len() + bytes + padding(bytes);
                let rest = bth.put(buf).and_then(|rest| match opcode.has_aeth() {
                    true => aeth.put(rest),
                    false => Some(rest),
                });
                let Some(payload) = rest.and_then(|rest| rest.get_mut(..bytes + padding(bytes))) else {
                    return Ok(None);
                };
                if bytes > 0 {
                    let from = va.wrapping_add(offset);
                    if let Err(fault) = host.read_remote(rkey, from, &mut payload[..bytes]) {
                        return Err(AnswerFailed { refusal: Refusal::remote(fault), psn });
                    }
                }
                payload[bytes..].fill(0);
                Some(Transmit { len: total, more: !last })
            }
        };
        if transmit.is_some() {
            resource.next += 1;
            if !resource.is_pending() {
                resource.answered |= resource.until == resource.packets;
                self.pending -= 1;
            }
        }
        Ok(transmit)
    }

    /// Gives up: nothing but this NAK is owed, after the answers that come before it.
    pub(crate) fn abort(&mut self, psn: Psn, nak: NakCode, msn: u32) {
        for resource in &mut self.resources {
            if resource.is_pending() && !resource.cursor().precedes(psn) {
                resource.until = resource.next;
                self.pending -= 1;
            }
        }
        self.nak(psn, Syndrome::Nak(nak), msn);
    }

    /// Owes nothing and remembers nothing.
    pub(crate) fn clear(&mut self) {
        self.resources.clear();
        self.pending = 0;
        self.ack = None;
        self.nak = None;
    }
}

fn response_opcode(first: bool, last: bool) -> Opcode {
    match (first, last) {
        (true, true) => Opcode::RC_READ_RESPONSE_ONLY,
        (true, false) => Opcode::RC_READ_RESPONSE_FIRST,
        (false, false) => Opcode::RC_READ_RESPONSE_MIDDLE,
        (false, true) => Opcode::RC_READ_RESPONSE_LAST,
    }
}
