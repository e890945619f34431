//! When a requester asks again, and when it gives up.
//!
//! Owns the transport timer with its back-off, the "receiver not ready" wait, and both retry counters (IBTA 9.7.6.1.3,
//! 9.7.5.2.8). What asking again means is the requester's.

use crate::Nanos;

/// The timer doubles at most this often: the specification allows a timeout to last up to four times its value.
const MAX_DOUBLINGS: u32 = 2;

/// The timers and counters of one send queue.
pub(crate) struct Retry {
    timeout: Option<Nanos>,
    limit: Option<u8>,
    rnr_limit: Option<u8>,
    /// Used up since the last progress.
    used: u32,
    rnr_used: u32,
    /// Timeouts since the last progress, which lengthen the next one.
    silent: u32,
    /// When the transport timer expires.
    deadline: Option<Nanos>,
    /// The peer has asked not to be sent anything until then.
    rnr_until: Option<Nanos>,
}

impl Retry {
    pub(crate) fn new(timeout: Option<Nanos>, limit: Option<u8>, rnr_limit: Option<u8>) -> Retry {
        Retry { timeout, limit, rnr_limit, used: 0, rnr_used: 0, silent: 0, deadline: None, rnr_until: None }
    }

    /// Something was sent that will be answered.
    #[inline]
    pub(crate) fn on_sent(&mut self, now: Nanos) {
        if self.deadline.is_none() {
            self.arm(now);
        }
    }

    /// The oldest request moved forward; `waiting` if others are in flight.
    #[inline]
    pub(crate) fn on_progress(&mut self, now: Nanos, waiting: bool) {
        self.used = 0;
        self.rnr_used = 0;
        self.silent = 0;
        self.rnr_until = None;
        self.deadline = None;
        if waiting {
            self.arm(now);
        }
    }

    fn arm(&mut self, now: Nanos) {
        let doubled = |timeout: Nanos| timeout << self.silent.min(MAX_DOUBLINGS);
        self.deadline = self.timeout.map(|timeout| now.saturating_add(doubled(timeout)));
    }

    /// Starts over, for a retransmission that follows at once.
    pub(crate) fn disarm(&mut self) {
        self.deadline = None;
    }

    /// Whether the transport timer has expired. If so the next one is longer.
    pub(crate) fn expired(&mut self, now: Nanos) -> bool {
        let expired = self.deadline.is_some_and(|deadline| deadline <= now);
        if expired {
            self.silent += 1;
            self.deadline = None;
        }
        expired
    }

    /// Takes one retry; `false` if none is left.
    pub(crate) fn take(&mut self) -> bool {
        self.used += 1;
        self.limit.is_none_or(|limit| self.used <= u32::from(limit))
    }

    /// Takes one "receiver not ready" retry and starts its wait; `false` if none is left.
    pub(crate) fn take_rnr(&mut self, now: Nanos, wait: Nanos) -> bool {
        self.rnr_used += 1;
        self.rnr_until = Some(now.saturating_add(wait));
        self.deadline = None;
        self.rnr_limit.is_none_or(|limit| self.rnr_used <= u32::from(limit))
    }

    /// Whether the peer has asked for a wait that has not been ended.
    #[inline]
    pub(crate) fn in_rnr_wait(&self) -> bool {
        self.rnr_until.is_some()
    }

    /// Ends the wait if it is over.
    #[inline]
    pub(crate) fn end_rnr_wait(&mut self, now: Nanos) {
        if self.rnr_until.is_some_and(|until| until <= now) {
            self.rnr_until = None;
        }
    }

    /// The next time something is due.
    #[inline]
    pub(crate) fn next(&self) -> Option<Nanos> {
        match (self.rnr_until, self.deadline) {
            (Some(until), Some(deadline)) => Some(until.min(deadline)),
            (until, deadline) => until.or(deadline),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timer_doubles_up_to_four_times() {
        let mut retry = Retry::new(Some(100), Some(7), None);
        let mut now = 0;
        let mut spans = Vec::new();
        for _ in 0..4 {
            retry.on_sent(now);
            let deadline = retry.next().expect("armed");
            assert!(!retry.expired(deadline - 1));
            assert!(retry.expired(deadline));
            spans.push(deadline - now);
            now = deadline;
        }
        assert_eq!(spans, [100, 200, 400, 400]);
        retry.on_progress(now, true);
        assert_eq!(retry.next(), Some(now + 100));
        retry.on_progress(now, false);
        assert_eq!(retry.next(), None);
    }

    #[test]
    fn counters_end_and_progress_refills_them() {
        let mut retry = Retry::new(None, Some(2), Some(1));
        assert_eq!([retry.take(), retry.take(), retry.take()], [true, true, false]);
        retry.on_progress(0, false);
        assert!(retry.take());
        assert_eq!([retry.take_rnr(0, 10), retry.take_rnr(0, 10)], [true, false]);
        retry.end_rnr_wait(9);
        assert!(retry.in_rnr_wait());
        retry.end_rnr_wait(10);
        assert!(!retry.in_rnr_wait());
        let mut endless = Retry::new(None, None, None);
        assert!((0..1000).all(|_| endless.take() && endless.take_rnr(0, 1)));
    }
}
