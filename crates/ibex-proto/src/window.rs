//! How many packets a requester may have in flight.
//!
//! The IBTA leaves this to the implementation. Loss on a software link means that a socket buffer overflowed, so the
//! window halves at a loss that is more than noise, falls to [`FLOOR`] when nothing comes back at all, and grows with what is acknowledged:
//! by as much below the size that last worked, then by one packet a window.

/// The window after silence, and the least it shrinks to: enough that a lost packet is noticed by one that follows.
const FLOOR: u32 = 4;
/// Single packets lost as often as this, 4 %, are noise: a buffer that overflows loses runs of them.
const PER_LOSS: u64 = 24;
/// The most acknowledged packets that count: losses bunch by chance.
const PATIENCE: u64 = 5 * PER_LOSS;
/// The window of a new connection: well within the default socket buffer of Linux (208 KiB) at MTU 1024.
const INITIAL: u32 = 64;

/// A window in packets, with its memory of the last loss.
pub(crate) struct Window {
    max: u32,
    size: u32,
    /// Below this, the window grows by what is acknowledged.
    threshold: u32,
    /// Acknowledged since the last growth above the threshold.
    credit: u32,
    /// How many packets' worth of single losses can be forgiven, as of packet number `counted_to`.
    patience: u64,
    counted_to: u64,
}

impl Window {
    pub(crate) fn new(max: u32) -> Window {
        // Sequence numbers are told apart within half of their circle, 2^23; 2^16 leaves room for READ pieces.
        let max = max.clamp(1, 1 << 16);
        Window { max, size: INITIAL.min(max), threshold: max, credit: 0, patience: PATIENCE, counted_to: 0 }
    }

    #[inline]
    pub(crate) fn size(&self) -> u32 {
        self.size
    }

    /// `packets` were acknowledged.
    #[inline]
    pub(crate) fn on_progress(&mut self, packets: u64) {
        if self.size >= self.max {
            return;
        }
        let packets = packets.min(u64::from(self.max)) as u32;
        if self.size < self.threshold {
            self.size = (self.size + packets).min(self.max);
            return;
        }
        self.credit += packets;
        if self.credit >= self.size {
            self.credit = 0;
            self.size += 1;
        }
    }

    /// Whether a single missing packet, the one with number `una`, is no reason to shrink: one in [`PER_LOSS`] may be.
    pub(crate) fn forgives(&mut self, una: u64) -> bool {
        self.patience = (self.patience + una.saturating_sub(self.counted_to)).min(PATIENCE);
        self.counted_to = una;
        let forgiven = self.patience >= PER_LOSS;
        self.patience -= if forgiven { PER_LOSS } else { 0 };
        forgiven
    }

    /// A packet is missing although later ones arrived. Going back starts over, so a loss after that is a new one.
    pub(crate) fn on_loss(&mut self) {
        self.threshold = (self.size / 2).max(FLOOR.min(self.max));
        self.size = self.threshold;
        self.credit = 0;
    }

    /// Nothing came back in time.
    pub(crate) fn on_silence(&mut self) {
        let floor = FLOOR.min(self.max);
        self.threshold = (self.size / 2).max(floor);
        self.size = floor;
        self.credit = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_with_progress_and_halves_at_a_loss() {
        let mut window = Window::new(256);
        assert_eq!(window.size(), 64);
        window.on_progress(100);
        assert_eq!(window.size(), 164);
        window.on_progress(1000);
        assert_eq!(window.size(), 256);
        window.on_loss();
        assert_eq!(window.size(), 128);
        window.on_progress(127);
        assert_eq!(window.size(), 128);
        window.on_progress(1);
        assert_eq!(window.size(), 129);
        window.on_loss();
        assert_eq!(window.size(), 64);
        window.on_silence();
        assert_eq!(window.size(), 4);
        window.on_progress(2);
        assert_eq!(window.size(), 6);
    }

    #[test]
    fn single_losses_are_forgiven_as_long_as_they_are_rare() {
        let mut window = Window::new(256);
        let forgiven = (0..100).filter(|loss| window.forgives(1000 + loss * 100)).count();
        assert_eq!(forgiven, 100);
        let forgiven = (0..100).filter(|loss| window.forgives(20_000 + loss * 12)).count();
        assert!((50..60).contains(&forgiven), "{forgiven}");
    }

    #[test]
    fn a_window_of_one_stays_one() {
        let mut window = Window::new(0);
        window.on_progress(5);
        window.on_silence();
        window.on_loss();
        assert_eq!(window.size(), 1);
    }
}
