//! Faults on the send path: loss, duplication and reordering, in percent, from a seed.
//!
//! Owns the choice of what happens to each packet and the packet that is held back. For tests and
//! interoperability runs; without faults none of this is on the path.

use super::tx::{self, Path};
use super::wire::Wire;

/// How often to harm an outgoing packet. The shares add up to at most 100; what exceeds it is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Faults {
    /// Percent of packets lost, 0–100.
    pub(crate) loss: f64,
    /// Percent of packets sent twice, 0–100.
    pub(crate) duplicate: f64,
    /// Percent of packets sent after the one that follows them, to whomever it goes, 0–100. The last
    /// one is delayed until there is another: in effect lost.
    pub(crate) reorder: f64,
    /// Seed of the random choices.
    pub(crate) seed: u64,
}

/// The fate of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Send,
    Lose,
    Duplicate,
    Delay,
}

/// The choices in progress.
#[derive(Debug)]
pub(super) struct Injector {
    faults: Faults,
    state: u64,
    /// A delayed packet and where it goes.
    held: Option<(Path, Vec<u8>)>,
}

impl Faults {
    /// Whether there is anything to do.
    pub(super) fn any(&self) -> bool {
        self.loss > 0.0 || self.duplicate > 0.0 || self.reorder > 0.0
    }
}

impl Injector {
    pub(super) fn new(faults: Faults) -> Self {
        Self { faults, state: faults.seed, held: None }
    }

    /// Sends one packet, or does to it what is due.
    pub(super) fn send(&mut self, wire: &Wire, path: &Path, packet: &mut [u8]) {
        let fate = self.fate();
        wire.counters().tx_faults.add((fate != Fate::Send).into());
        let copies = match fate {
            Fate::Send => 1,
            Fate::Duplicate => 2,
            Fate::Lose | Fate::Delay => 0,
        };
        for _ in 0..copies {
            tx::transmit(wire, path, packet, packet.len());
        }
        let delayed = (fate == Fate::Delay).then(|| (path.clone(), packet.to_vec()));
        if fate != Fate::Lose
            && let Some((path, mut packet)) = std::mem::replace(&mut self.held, delayed)
        {
            let length = packet.len();
            tx::transmit(wire, &path, &mut packet, length);
        }
    }

    /// Decides about the next packet.
    fn fate(&mut self) -> Fate {
        // One draw decides, so that the percentages add up instead of hiding each other.
        let mut draw = self.percent();
        for (share, fate) in [
            (self.faults.loss, Fate::Lose),
            (self.faults.duplicate, Fate::Duplicate),
            (self.faults.reorder, Fate::Delay),
        ] {
            if draw < share {
                return fate;
            }
            draw -= share;
        }
        Fate::Send
    }

    /// A number in 0..100, from SplitMix64: good enough to lose packets by, and repeatable.
    fn percent(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // 53 bits are what a double holds exactly.
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64 * 100.0
    }
}
