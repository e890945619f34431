//! How often a process that shares memory with its peers looks at its sockets.
//!
//! Owns the pace only. A look costs a system call, ten times a look at a ring, and would hold up a packet that comes
//! through memory meanwhile; but a stranger's first packet, a greeting or a hang-up must not wait for long either. So
//! sockets are looked at every time for a while after something came or went by them, and every few microseconds
//! otherwise, however often the caller polls.

use std::time::{Duration, Instant};

use super::wire::Wire;

/// Time between two looks at sockets on which nothing happens: a thirtieth of it is spent there.
const INTERVAL: Duration = Duration::from_micros(10);

/// Most rounds between two looks: what a caller that polls quickly does in [`INTERVAL`].
const MOST: u32 = 512;

/// Empty looks in a row for which sockets stay warm: longer than an answer from the next host takes.
const STAY_WARM: u32 = 256;

/// The state of one receiver.
#[derive(Debug)]
pub(super) struct Pace {
    /// Looks to come at every round.
    warm: u32,
    /// Rounds from the last look to the next, and how many of them are left.
    period: u32,
    left: u32,
    last: Option<Instant>,
}

impl Pace {
    /// Sockets are warm at first.
    pub(super) fn new() -> Self {
        Self { warm: STAY_WARM, period: 1, left: 0, last: None }
    }

    /// Something came by a socket.
    pub(super) fn warm(&mut self) {
        self.warm = STAY_WARM;
    }

    /// Whether this round looks at the sockets.
    #[inline]
    pub(super) fn is_due(&mut self, wire: &Wire) -> bool {
        if wire.take_warmth() {
            self.warm = STAY_WARM;
        }
        if self.warm > 0 {
            self.warm -= 1;
            self.last = None;
            return true;
        }
        self.left = self.left.saturating_sub(1);
        self.left == 0 && self.is_time()
    }

    /// A look is due; sets the pace for the next by how long this one was in coming.
    #[cold]
    fn is_time(&mut self) -> bool {
        let now = Instant::now();
        self.period = match self.last {
            Some(last) => {
                let round = now.duration_since(last) / self.period;
                let fitting = INTERVAL.as_nanos() / round.as_nanos().max(1);
                // A caller that was quick may turn slow: the pace grows by steps, and falls at once.
                (fitting as u32).clamp(1, (self.period * 2).min(MOST))
            }
            None => 1,
        };
        self.last = Some(now);
        self.left = self.period;
        true
    }
}
