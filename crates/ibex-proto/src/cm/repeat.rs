//! Repeating a message until it is answered, and when to give up.
//!
//! The first repetitions come quickly ([`CmConfig::fast_retry`](super::CmConfig::fast_retry)), at intervals that double up to the
//! message's own timeout; only intervals of that length count as the retries that messages agree on. So a lost
//! datagram costs little, and giving up takes as long as the peer was told.

use ibex_wire::mad::MAD_LEN;

use crate::Nanos;

/// Codes of time above this count as this (17 s): a peer cannot make this end remember it for hours.
const MAX_CODE: u8 = 22;

/// A peer that said "wait" is asked again after this time at the latest (4.096 µs × 2^19, 2.1 s), lest its answer was lost
/// or it died. Its answer then is another "wait".
const PATIENCE: Nanos = 4096 << 19;

/// Nanoseconds of a 5-bit code of time: 4.096 µs × 2^code.
pub(super) fn code_ns(code: u8) -> Nanos {
    4096 << code.min(MAX_CODE)
}

/// A message waiting for its answer.
#[derive(Debug)]
pub(super) struct Repeat {
    /// The datagram.
    pub(super) mad: Box<[u8; MAD_LEN]>,
    /// The interval of now.
    interval: Nanos,
    /// The interval that counts.
    timeout: Nanos,
    retries: u8,
    left: u8,
}

impl Repeat {
    /// For a message just sent.
    pub(super) fn new(mad: [u8; MAD_LEN], fast: Nanos, timeout: Nanos, retries: u8) -> Repeat {
        let interval = if fast == 0 { timeout } else { fast.min(timeout) };
        Repeat { mad: Box::new(mad), interval, timeout, retries, left: retries }
    }

    /// How long to wait from now.
    pub(super) fn wait(&self) -> Nanos {
        self.interval
    }

    /// The wait is over: whether to send again and [`wait`](Repeat::wait), or to give up.
    pub(super) fn again(&mut self) -> bool {
        if self.interval < self.timeout {
            self.interval = self.interval.saturating_mul(2).min(self.timeout);
            return true;
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    /// The peer has it and asks for time: how long to wait from now. It is alive, so counting starts anew.
    pub(super) fn patience(&mut self, asked: Nanos) -> Nanos {
        self.left = self.retries;
        self.interval = asked.min(PATIENCE).min(self.timeout);
        asked.min(PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(mut repeat: Repeat) -> Vec<Nanos> {
        let mut waits = vec![repeat.wait()];
        while repeat.again() {
            waits.push(repeat.wait());
        }
        waits
    }

    #[test]
    fn retries_count_whole_timeouts() {
        assert_eq!(waits(Repeat::new([0; MAD_LEN], 0, 7, 2)), [7, 7, 7]);
        assert_eq!(waits(Repeat::new([0; MAD_LEN], 2, 7, 1)), [2, 4, 7, 7]);
        assert_eq!(waits(Repeat::new([0; MAD_LEN], 100, 7, 0)), [7]);
    }

    #[test]
    fn a_peer_that_asks_for_time_is_alive() {
        let mut repeat = Repeat::new([0; MAD_LEN], 0, 7, 1);
        assert!(repeat.again());
        assert_eq!(repeat.patience(u64::MAX), PATIENCE);
        assert!(repeat.again());
        assert!(!repeat.again());
    }

    #[test]
    fn codes_of_time() {
        assert_eq!([code_ns(0), code_ns(20)], [4096, 4_294_967_296]);
        assert_eq!(code_ns(31), code_ns(22));
    }
}
