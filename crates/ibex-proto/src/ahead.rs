//! Requests that came ahead of a missing one, kept until it has come.
//!
//! Owns the copies and their bound. The specification's responder drops such requests and the requester sends them all
//! again (IBTA 9.7.5.1.4); keeping them is invisible on the wire but for an acknowledgement that comes sooner. They are
//! executed by `responder.rs`, in order and not before their turn, as if they had just arrived.

use std::collections::VecDeque;

use ibex_wire::Packet;

/// Buffers that are not given back to the allocator when the last packet has been used.
const SPARE: usize = 32;

/// Packets by their distance from the one that is missing.
pub(crate) struct Ahead {
    /// Index 0 is for the number after the one expected. Shorter than `limit`, and empty when nothing is kept.
    slots: VecDeque<Option<Vec<u8>>>,
    /// Packets in `slots`.
    kept: usize,
    limit: usize,
    spare: Vec<Vec<u8>>,
}

impl Ahead {
    /// Keeps up to `limit` numbers ahead; 0 keeps nothing.
    pub(crate) fn new(limit: u32) -> Ahead {
        Ahead { slots: VecDeque::new(), kept: 0, limit: limit as usize, spare: Vec::new() }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.kept == 0
    }

    /// Whether anything is ever kept.
    pub(crate) fn is_enabled(&self) -> bool {
        self.limit > 0
    }

    /// Keeps a packet `distance` > 0 numbers after the one expected, if it is near enough and not there yet.
    pub(crate) fn keep(&mut self, distance: u32, packet: &Packet<'_>) {
        let index = distance as usize - 1;
        if index >= self.limit {
            return;
        }
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, || None);
        }
        let slot = &mut self.slots[index];
        if slot.is_some() {
            return;
        }
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.extend_from_slice(packet.bytes());
        bytes.resize(bytes.len() + usize::from(packet.bth().pad), 0);
        *slot = Some(bytes);
        self.kept += 1;
    }

    /// The number expected has moved on by `steps` > 0: forgets what is behind it, and hands out the packet with exactly
    /// this number. [`recycle`](Ahead::recycle) takes it back.
    pub(crate) fn advance(&mut self, steps: u32) -> Option<Vec<u8>> {
        for _ in 1..steps {
            let Some(slot) = self.slots.pop_front() else { break };
            if let Some(bytes) = slot {
                self.kept -= 1;
                self.recycle(bytes);
            }
        }
        let bytes = self.slots.pop_front().flatten();
        self.kept -= usize::from(bytes.is_some());
        if self.kept == 0 {
            self.slots.clear();
        }
        bytes
    }

    /// Takes a packet's buffer back.
    pub(crate) fn recycle(&mut self, mut bytes: Vec<u8>) {
        if self.spare.len() < SPARE.max(self.kept) {
            bytes.clear();
            self.spare.push(bytes);
        }
        if self.kept == 0 {
            self.spare.truncate(SPARE);
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = Ahead::new(self.limit as u32);
    }
}

#[cfg(test)]
mod tests {
    use ibex_wire::{Bth, Opcode, Psn, Qpn};

    use super::*;

    fn with_packet(psn: u32, pad: u8, act: impl FnOnce(&Packet<'_>)) {
        let mut bytes = vec![0; Bth::LEN + 4];
        let bth = Bth { pad, ..Bth::new(Opcode::RC_SEND_ONLY, Qpn::new(1), Psn::new(psn)) };
        bth.emit(bytes.first_chunk_mut().expect("room"));
        act(&Packet::parse(&bytes).expect("valid"));
    }

    fn psn(bytes: &[u8]) -> u32 {
        Packet::parse(bytes).expect("as it was").bth().psn.get()
    }

    #[test]
    fn packets_come_out_in_their_place() {
        let mut ahead = Ahead::new(8);
        for (distance, pad) in [(1, 0), (2, 3), (4, 1), (8, 0), (9, 0), (2, 0)] {
            with_packet(distance, pad, |packet| ahead.keep(distance, packet));
        }
        assert_eq!(ahead.kept, 4, "one was too far, one was there");
        let one = ahead.advance(1).expect("kept");
        let two = ahead.advance(1).expect("kept");
        assert_eq!((psn(&one), psn(&two)), (1, 2));
        assert_eq!(ahead.advance(1), None);
        assert_eq!(psn(&ahead.advance(1).expect("kept")), 4);
        assert_eq!(ahead.advance(100), None);
        assert!(ahead.is_empty() && ahead.slots.is_empty());
    }

    #[test]
    fn nothing_is_kept_without_a_limit() {
        let mut ahead = Ahead::new(0);
        with_packet(1, 0, |packet| ahead.keep(1, packet));
        assert!(ahead.is_empty() && !ahead.is_enabled());
        assert_eq!(ahead.advance(1), None);
    }
}
