//! Requests that came ahead of a missing one, kept until it has come.
//!
//! Owns the copies and their bound. The specification's responder drops such requests and the requester sends them all
//! again (IBTA 9.7.5.1.4); keeping them is invisible on the wire but for an acknowledgement that comes sooner. They are
//! executed by `responder.rs`, in order and not before their turn, as if they had just arrived.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};

use ibex_wire::Packet;

/// Bytes that may be kept by several queue pairs together, and are.
pub(crate) struct Budget {
    max: usize,
    used: AtomicUsize,
}

/// Of the whole process: 64 MiB, what 32 queue pairs keep that each miss the first packet of the longest window. Peers of
/// more have to send more again.
static PROCESS: Budget = Budget::new(64 << 20);

impl Budget {
    const fn new(max: usize) -> Budget {
        Budget { max, used: AtomicUsize::new(0) }
    }

    /// Takes `len` bytes, if there are as many.
    fn take(&self, len: usize) -> bool {
        let add = |used: usize| used.checked_add(len).filter(|sum| *sum <= self.max);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }
}

/// A packet's bytes, part of a budget until dropped.
pub(crate) struct Kept {
    bytes: Box<[u8]>,
    budget: &'static Budget,
}

impl Deref for Kept {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

/// Packets by their distance from the one that is missing.
pub(crate) struct Ahead {
    /// Index 0 is for the number after the one expected. Shorter than `limit`, and empty when nothing is kept.
    slots: VecDeque<Option<Kept>>,
    /// Packets in `slots`.
    kept: usize,
    limit: usize,
    budget: &'static Budget,
}

impl Ahead {
    /// Keeps up to `limit` numbers ahead; 0 keeps nothing.
    pub(crate) fn new(limit: u32) -> Ahead {
        Ahead::with_budget(limit as usize, &PROCESS)
    }

    fn with_budget(limit: usize, budget: &'static Budget) -> Ahead {
        Ahead { slots: VecDeque::new(), kept: 0, limit, budget }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.kept == 0
    }

    /// Whether anything is ever kept.
    pub(crate) fn is_enabled(&self) -> bool {
        self.limit > 0
    }

    /// Keeps a packet `distance` > 0 numbers after the one expected, if it is near enough, not there yet, and within the
    /// budget.
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
        let bytes = packet.bytes();
        let len = bytes.len() + usize::from(packet.bth().pad);
        if !self.budget.take(len) {
            return;
        }
        let mut copy = Vec::with_capacity(len);
        copy.extend_from_slice(bytes);
        copy.resize(len, 0);
        *slot = Some(Kept { bytes: copy.into_boxed_slice(), budget: self.budget });
        self.kept += 1;
    }

    /// The number expected has moved on by `steps` > 0: forgets what is behind it, and hands out the packet with exactly
    /// this number.
    pub(crate) fn advance(&mut self, steps: u32) -> Option<Kept> {
        for _ in 1..steps {
            let Some(slot) = self.slots.pop_front() else { break };
            self.kept -= usize::from(slot.is_some());
        }
        let packet = self.slots.pop_front().flatten();
        self.kept -= usize::from(packet.is_some());
        if self.kept == 0 {
            // Of thousands of queue pairs, few miss something at the same time: nothing is held back for the next time.
            self.slots = VecDeque::new();
        }
        packet
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = Ahead::with_budget(self.limit, self.budget);
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
        assert!(ahead.advance(1).is_none());
        assert_eq!(psn(&ahead.advance(1).expect("kept")), 4);
        assert!(ahead.advance(100).is_none());
        assert!(ahead.is_empty() && ahead.slots.is_empty());
    }

    #[test]
    fn nothing_is_kept_without_a_limit() {
        let mut ahead = Ahead::new(0);
        with_packet(1, 0, |packet| ahead.keep(1, packet));
        assert!(ahead.is_empty() && !ahead.is_enabled());
        assert!(ahead.advance(1).is_none());
    }

    #[test]
    fn queue_pairs_share_a_budget_and_give_it_back() {
        static BUDGET: Budget = Budget::new(3 * (Bth::LEN + 4));
        let [mut one, mut other] = [Ahead::with_budget(8, &BUDGET), Ahead::with_budget(8, &BUDGET)];
        for distance in 1..=2 {
            with_packet(distance, 0, |packet| one.keep(distance, packet));
            with_packet(distance, 0, |packet| other.keep(distance, packet));
        }
        assert_eq!((one.kept, other.kept), (2, 1));
        drop(one.advance(1));
        with_packet(2, 0, |packet| other.keep(2, packet));
        assert_eq!(other.kept, 2);
        drop((one, other));
        assert_eq!(BUDGET.used.load(Ordering::Relaxed), 0);
    }
}
