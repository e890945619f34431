//! Short messages to devices like this one: the packet of a SEND, and beside it the acknowledgement that its sender owes.
//!
//! Owns their forms: what a link in shared memory brings ([`crate::host`]), and a datagram over a line
//! ([`super::lines`]), whose opcode is one of those that IBTA 9.2.1 leaves to manufacturers:
//!
//! ```text
//! 0 BTH, opcode C4h │ 12 acknowledgement, 8 bytes │ 20 payload, padding │ ICRC
//! ```
//!
//! In shared memory the acknowledgement may be that of another queue pair, which is named there; in a datagram it is that of
//! the queue pair that sends. It is a bit that says that there is one, the number up to which all has been executed, and the AETH
//! of a packet of its own. Does not own when messages go this way ([`crate::qp`]), nor what they do (`ibex-proto`). A device
//! that is not known to be like this one is not sent such a datagram, and would drop it.

use std::ops::Range;

use ibex_proto::Ack;
use ibex_wire::{Aeth, Bth, Header, ICRC_LEN, Opcode, Pkey, Psn, Qpn};

use super::tx::MAX_PACKET;
use crate::memory::UserMemory;

/// Most bytes of payload: a packet that is copied twice in less time than is saved.
pub(crate) const MOST: usize = 480;

/// A SEND in one packet, with an acknowledgement beside it.
const WITH_ACK: Opcode = Opcode(0xc0 | Opcode::RC_SEND_ONLY.0);

/// The bit by which devices tell each other that they understand it ([`super::abroad`]).
pub(super) const FORM: u8 = 1;

/// Bytes of the word beside the packet.
const BESIDE: usize = 8;

/// Where the payload of a datagram is while it is made.
const PAYLOAD: usize = Bth::LEN + BESIDE;

/// Set in that word if there is an acknowledgement.
const ACKS: u64 = 1 << 63;

/// An acknowledgement, and the queue pair that it is for, as they stand beside a message: a word, 0 if there is none, and a
/// number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Beside {
    pub(crate) word: u64,
    pub(crate) to: u32,
}

impl Beside {
    /// An acknowledgement for a queue pair.
    #[inline]
    pub(crate) fn new(to: Qpn, ack: Ack) -> Beside {
        let mut bytes = [0; Aeth::LEN];
        ack.aeth.emit(&mut bytes);
        let word = ACKS | u64::from(ack.psn.get()) << 32 | u64::from(u32::from_be_bytes(bytes));
        Beside { word, to: to.get() }
    }

    #[inline]
    pub(crate) fn is_some(self) -> bool {
        self.word & ACKS != 0
    }

    /// The acknowledgement, if there is one.
    #[inline]
    pub(crate) fn ack(self) -> Option<Ack> {
        let aeth = Aeth::parse(&(self.word as u32).to_be_bytes());
        self.is_some().then_some(Ack { psn: Psn::new((self.word >> 32) as u32), aeth })
    }

    /// The same as a packet, in the partition of the message that it stands beside.
    pub(crate) fn packet(self, pkey: Pkey) -> Option<[u8; ACK_LEN]> {
        let ack = self.ack()?;
        let bth = Bth { pkey, ..Bth::new(Opcode::RC_ACK, Qpn::new(self.to), ack.psn) };
        let mut packet = [0; ACK_LEN];
        bth.put(&mut packet).and_then(|rest| ack.aeth.put(rest))?;
        Some(packet)
    }
}

/// Bytes of an acknowledgement as a packet.
pub(crate) const ACK_LEN: usize = Bth::LEN + Aeth::LEN;

/// Where a message's payload is put.
pub(crate) trait Room {
    /// Fills part of it from the user's memory.
    fn copy_from(&mut self, memory: &UserMemory, offset: usize, range: Range<usize>);

    /// Fills part of it.
    fn write(&mut self, at: usize, data: &[u8]);
}

/// A message that has come.
pub(crate) struct Express<'a> {
    beside: Beside,
    pub(crate) bth: Bth,
    place: Place<'a>,
    len: usize,
}

/// Where its payload is.
enum Place<'a> {
    /// In shared memory, at an offset. The other process may still change it: it is copied, once, and not looked at.
    Mapped(&'a UserMemory, usize),
    Here(&'a [u8]),
}

impl<'a> Express<'a> {
    /// A message in shared memory, with `len` bytes of payload and padding.
    #[inline]
    pub(crate) fn mapped(
        beside: Beside,
        bth: Bth,
        memory: &'a UserMemory,
        offset: usize,
        len: usize,
    ) -> Self {
        Express { beside, bth, place: Place::Mapped(memory, offset), len }
    }

    /// The message in a packet, BTH to padding, if it is of this kind.
    #[inline]
    pub(crate) fn of_packet(packet: &'a [u8]) -> Option<Self> {
        let (bth, rest) = packet.split_first_chunk()?;
        let mut bth = Bth::parse(bth);
        let (word, payload) = match bth.opcode {
            Opcode::RC_SEND_ONLY => (0, rest),
            WITH_ACK => {
                let (word, rest) = rest.split_first_chunk()?;
                bth.opcode = Opcode::RC_SEND_ONLY;
                (u64::from_be_bytes(*word) | ACKS, rest)
            }
            _ => return None,
        };
        let beside = Beside { word, to: bth.dest_qpn.get() };
        Some(Express { beside, bth, place: Place::Here(payload), len: payload.len() })
    }

    /// The acknowledgement beside it, if it is for the queue pair that the message is for.
    #[inline]
    pub(crate) fn ack(&self) -> Option<Ack> {
        self.beside.ack().filter(|_| self.beside.to == self.bth.dest_qpn.get())
    }

    /// Takes out the acknowledgement beside it, if it is for another queue pair.
    #[inline]
    pub(crate) fn take_other(&mut self) -> Option<Beside> {
        let other = self.beside.is_some() && self.beside.to != self.bth.dest_qpn.get();
        other.then(|| std::mem::take(&mut self.beside))
    }

    /// How many packets it stands for.
    #[inline]
    pub(crate) fn packets(&self) -> usize {
        1 + usize::from(self.beside.is_some())
    }

    /// Bytes of payload and padding.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Copies bytes `range` of the payload into the user's memory, at `offset` of it.
    #[inline(always)]
    pub(crate) fn copy_to(&self, range: Range<usize>, memory: &UserMemory, offset: usize) {
        match self.place {
            Place::Mapped(from, at) => {
                debug_assert!(range.end <= self.len);
                from.copy_to(at + range.start, memory, offset, range.len(), false);
            }
            Place::Here(payload) => memory.write(offset, &payload[range], false),
        }
    }

    /// The same as packets of their own, one after the other: first the acknowledgement, if there is one. `out` is for the
    /// second.
    pub(crate) fn unpack(&self, out: &mut [u8; MAX_PACKET], mut each: impl FnMut(&[u8])) {
        if let Some(packet) = self.beside.packet(self.bth.pkey) {
            each(&packet);
        }
        let len = Bth::LEN + self.len;
        if self.bth.put(out).is_some()
            && let Some(to) = out.get_mut(Bth::LEN..len)
        {
            match self.place {
                Place::Mapped(from, at) => from.read(at, to),
                Place::Here(payload) => to.copy_from_slice(payload),
            }
            each(&out[..len]);
        }
    }
}

/// A datagram with a message, being made.
pub(crate) struct Datagram {
    bytes: [u8; PAYLOAD + MOST + ICRC_LEN],
}

impl Datagram {
    /// Empty.
    #[inline]
    pub(crate) fn new() -> Datagram {
        Datagram { bytes: [0; PAYLOAD + MOST + ICRC_LEN] }
    }

    /// The finished datagram, with room for the ICRC behind it; `len` are the bytes of payload and padding.
    #[inline]
    pub(super) fn finish(&mut self, len: usize, bth: &Bth, ack: Option<Ack>) -> &mut [u8] {
        let (start, opcode) = match ack {
            Some(_) => (0, WITH_ACK),
            None => (BESIDE, bth.opcode),
        };
        let packet = &mut self.bytes[start..PAYLOAD + len + ICRC_LEN];
        if let Some(rest) = (Bth { opcode, ..*bth }).put(packet)
            && let Some(ack) = ack
        {
            rest[..BESIDE].copy_from_slice(&Beside::new(bth.dest_qpn, ack).word.to_be_bytes());
        }
        packet
    }
}

impl Room for Datagram {
    #[inline]
    fn copy_from(&mut self, memory: &UserMemory, offset: usize, range: Range<usize>) {
        memory.read(offset, &mut self.bytes[PAYLOAD..][range]);
    }

    #[inline]
    fn write(&mut self, at: usize, data: &[u8]) {
        self.bytes[PAYLOAD + at..][..data.len()].copy_from_slice(data);
    }
}

#[cfg(test)]
mod tests {
    use ibex_wire::{Packet, Qpn, Syndrome};

    use super::*;

    fn bth(pad: u8) -> Bth {
        Bth {
            pad,
            solicited: true,
            ack_req: true,
            ..Bth::new(Opcode::RC_SEND_ONLY, Qpn::new(77), Psn::new(5))
        }
    }

    #[test]
    fn a_datagram_says_what_its_two_packets_would() {
        let ack = Ack { psn: Psn::new(0xff_ffff), aeth: Aeth { syndrome: Syndrome::ACK, msn: 0x12_3456 } };
        for (len, ack) in (0..=MOST).step_by(4).flat_map(|len| [(len, None), (len, Some(ack))]) {
            let payload: Vec<u8> = (0..len).map(|byte| byte as u8).collect();
            let mut datagram = Datagram::new();
            datagram.write(0, &payload);
            let bytes = datagram.finish(len, &bth(3), ack);
            let express = Express::of_packet(&bytes[..bytes.len() - ICRC_LEN]).expect("it is one");
            assert_eq!((express.ack(), express.bth, express.len()), (ack, bth(3), len));
            let mut packets = Vec::new();
            express.unpack(&mut [0; MAX_PACKET], |packet| packets.push(packet.to_vec()));
            assert_eq!(packets.len(), express.packets());
            let message = packets.pop().expect("the message");
            assert_eq!((&message[..Bth::LEN], &message[Bth::LEN..]), (&bytes_of(&bth(3))[..], &payload[..]));
            if let Some(ack) = ack {
                let first = Packet::parse(&packets[0]).expect("sound");
                assert_eq!((first.opcode(), first.aeth()), (Opcode::RC_ACK, Some(ack.aeth)));
                assert_eq!((first.bth().psn, first.bth().dest_qpn), (ack.psn, Qpn::new(77)));
            }
        }
    }

    fn bytes_of(bth: &Bth) -> [u8; Bth::LEN] {
        let mut bytes = [0; Bth::LEN];
        bth.emit(&mut bytes);
        bytes
    }

    #[test]
    fn other_packets_and_torn_ones_are_none() {
        let mut packet = bytes_of(&bth(0)).to_vec();
        assert!(Express::of_packet(&packet[..8]).is_none());
        assert!(Express::of_packet(&packet).is_some_and(|express| express.ack().is_none()));
        packet[0] = WITH_ACK.0;
        packet.extend([0; 4]);
        assert!(Express::of_packet(&packet).is_none(), "half an acknowledgement");
        packet[0] = Opcode::RC_SEND_LAST.0;
        assert!(Express::of_packet(&packet).is_none());
        // Nobody else knows the opcode.
        assert!(!WITH_ACK.is_known());
    }
}
