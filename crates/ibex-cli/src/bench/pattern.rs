//! Payloads: what each message must contain, so that any other content is an error.
//!
//! Owns the pseudo-random master pattern of a run and the choice of the window that message number `k` is. Both sides
//! derive it from the run's seed; making and checking a payload is then a copy and a comparison, cheap beside the
//! transfer. Consecutive messages differ in every single byte: a stale or repeated message never passes.

use std::ops::Range;

/// Windows begin this many bytes apart.
const STEP: usize = 8;
/// Number of different windows.
const WINDOWS: usize = 8192;

/// The master pattern for messages of up to a given size.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    bytes: Vec<u8>,
}

impl Pattern {
    /// The pattern of `seed` for messages of at most `size` bytes.
    pub(crate) fn new(seed: u64, size: usize) -> Self {
        let mut bytes = vec![0; Self::length(size)];
        fastrand::Rng::with_seed(seed).fill(&mut bytes);
        // A byte equal to the one at the same place of the next window is moved by one.
        for index in STEP..bytes.len() {
            if bytes[index] == bytes[index - STEP] {
                bytes[index] = bytes[index].wrapping_add(1);
            }
        }
        Self { bytes }
    }

    /// Bytes of a pattern for messages of `size` bytes.
    pub(crate) const fn length(size: usize) -> usize {
        size + (WINDOWS - 1) * STEP
    }

    /// All of it: what a peer READs from.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where message number `k` of `size` bytes lies in the pattern. The window moves to the end and back again, so that
    /// neighbours in time are neighbours in place.
    pub(crate) fn window(k: u64, size: usize) -> Range<usize> {
        let turn = (k % (2 * (WINDOWS as u64 - 1))) as usize;
        let index = if turn < WINDOWS { turn } else { 2 * (WINDOWS - 1) - turn };
        index * STEP..index * STEP + size
    }

    /// Message number `k`.
    pub(crate) fn message(&self, k: u64, size: usize) -> &[u8] {
        &self.bytes[Self::window(k, size)]
    }

    /// 1 if `received` is not message number `k`, else 0.
    pub(crate) fn errors(&self, k: u64, received: &[u8]) -> u64 {
        u64::from(self.message(k, received.len()) != received)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_differ_in_every_byte() {
        let pattern = Pattern::new(7, 33);
        for k in 0..3 * WINDOWS as u64 {
            let (this, next) = (pattern.message(k, 33), pattern.message(k + 1, 33));
            assert!(this.iter().zip(next).all(|(a, b)| a != b), "message {k}");
        }
    }

    #[test]
    fn a_wrong_message_is_an_error() {
        let pattern = Pattern::new(7, 64);
        assert_eq!(pattern.errors(5, pattern.message(5, 64)), 0);
        assert_eq!(pattern.errors(5, pattern.message(6, 64)), 1);
        assert_eq!(pattern.errors(5, Pattern::new(8, 64).message(5, 64)), 1);
        let mut damaged = pattern.message(5, 64).to_vec();
        damaged[63] ^= 1;
        assert_eq!(pattern.errors(5, &damaged), 1);
    }
}
