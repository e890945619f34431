//! How often a process that shares memory with its peers looks at its sockets.
//!
//! Owns the pace only. A look costs a system call, ten times a look at a ring, and would hold up a packet that comes
//! through memory meanwhile; but a stranger's first packet, a greeting or a hang-up must not wait for long either. So
//! sockets are looked at every time for a while after something came or went by them, and every few microseconds
//! otherwise, however often the caller polls; less often where system calls are slow (an emulated processor, a tracer).

use std::time::{Duration, Instant};

use super::wire::Wire;

/// Least time between two looks at sockets on which nothing happens.
const INTERVAL: Duration = Duration::from_micros(10);

/// The time between two looks in those that a look takes: a thirtieth of all time is spent there at most.
const SHARE: u32 = 30;

/// What a look is taken to cost at most: one that took longer was interrupted.
const DEAREST: Duration = Duration::from_micros(30);

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
    /// What a look costs, smoothed.
    cost: Duration,
}

impl Pace {
    /// Sockets are warm at first.
    pub(super) fn new() -> Self {
        Self { warm: STAY_WARM, period: 1, left: 0, last: None, cost: Duration::ZERO }
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

    /// The look that was due has found nothing.
    #[inline]
    pub(super) fn in_vain(&mut self) {
        if let Some(began) = self.last {
            let now = Instant::now();
            let took = now.duration_since(began).min(DEAREST);
            self.cost = if self.cost.is_zero() { took } else { (self.cost * 7 + took) / 8 };
            // Between two looks there are rounds only.
            self.last = Some(now);
        }
    }

    /// A look is due; sets the pace for the next by how long this one was in coming.
    #[cold]
    fn is_time(&mut self) -> bool {
        let now = Instant::now();
        self.period = match self.last {
            Some(last) => {
                let round = now.duration_since(last) / self.period;
                let interval = INTERVAL.max(self.cost * SHARE);
                let fitting = interval.as_nanos() / round.as_nanos().max(1);
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
