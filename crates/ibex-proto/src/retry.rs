//! When a requester asks again, and when it gives up.
//!
//! Owns the transport timer with its back-off, the round trip and when to probe, the "receiver not ready" wait, and both retry counters (IBTA 9.7.6.1.3,
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
    /// The least wait before a probe.
    probe_after: Nanos,
    /// The usual wait before a probe: [`NEVER`] without a round trip, or where a probe has no purpose.
    probe_wait: Nanos,
    /// When to probe, or [`NEVER`].
    probe: Nanos,
    /// Probes since the last progress, which lengthen the next wait.
    probed: u32,
    /// A packet whose round trip is being measured: one past its number, or [`NEVER`], and when it was sent.
    timed_end: u64,
    timed_at: Nanos,
    /// The smoothed round trip, once there is one.
    round_trip: Option<Nanos>,
}

/// The wait for a probe doubles at most this often; it has reached the timeout long before.
const MAX_PROBE_DOUBLINGS: u32 = 16;
/// A time that does not come, and a number that is not reached.
const NEVER: u64 = u64::MAX;
/// A probe waits for as many round trips: answers may be late, and a probe that was not needed is only noise.
const TRIPS: Nanos = 4;
/// While a loss is being repaired, a probe waits for this fraction of its usual time at least.
const HASTE: Nanos = 16;

impl Retry {
    pub(crate) fn new(
        timeout: Option<Nanos>,
        limit: Option<u8>,
        rnr_limit: Option<u8>,
        probe_after: Nanos,
    ) -> Retry {
        Retry {
            timeout,
            limit,
            rnr_limit,
            used: 0,
            rnr_used: 0,
            silent: 0,
            deadline: None,
            rnr_until: None,
            probe_after,
            probe_wait: NEVER,
            probe: NEVER,
            probed: 0,
            timed_end: NEVER,
            timed_at: 0,
            round_trip: None,
        }
    }

    /// Changes how long to wait and how often to ask again. A wait that has begun ends as it would have.
    pub(crate) fn set_limits(&mut self, timeout: Option<Nanos>, limit: Option<u8>, rnr_limit: Option<u8>) {
        (self.timeout, self.limit, self.rnr_limit) = (timeout, limit, rnr_limit);
    }

    /// A packet was sent for the first time; all numbers below `end` have been sent now.
    #[inline]
    pub(crate) fn on_sent_first(&mut self, now: Nanos, end: u64) {
        if self.timed_end == NEVER {
            self.timed_end = end;
            self.timed_at = now;
        }
    }

    /// Whether silence is met with a probe, before the timeout.
    #[inline]
    pub(crate) fn probes(&self) -> bool {
        self.probe_wait != NEVER
    }

    /// The smoothed round trip, if one has been measured.
    pub(crate) fn round_trip(&self) -> Option<Nanos> {
        self.round_trip
    }

    /// The wait before a probe, `least` or longer.
    fn probe_wait(&self, least: Nanos) -> Nanos {
        let Some(trip) = self.round_trip else { return NEVER };
        let wait = (trip * TRIPS).max(least) << self.probed.min(MAX_PROBE_DOUBLINGS);
        // Close to the timeout a probe has no purpose.
        if self.timeout.is_none_or(|timeout| wait <= timeout / 2) { wait } else { NEVER }
    }

    /// The round trip of the packet that was measured is known.
    fn on_trip(&mut self, now: Nanos) {
        let trip = now.saturating_sub(self.timed_at);
        self.round_trip = Some(self.round_trip.map_or(trip, |smooth| smooth - smooth / 8 + trip / 8));
        self.timed_end = NEVER;
        self.probed = 0;
        self.probe_wait = self.probe_wait(self.probe_after);
    }

    /// A loss is being repaired: what is lost now is worth noticing soon.
    pub(crate) fn hasten_probe(&mut self, now: Nanos) {
        // The answers that are measured now would include the wait for the repair.
        self.timed_end = NEVER;
        self.probe = now.saturating_add(self.probe_wait(self.probe_after / HASTE));
    }

    /// An answer is waited for that nobody has asked for: the probe that would come is due at once.
    pub(crate) fn probe_at_once(&mut self) {
        if self.probe != NEVER {
            self.probe = 0;
        }
    }

    /// Whether it is time for a probe. If so the next one waits longer.
    pub(crate) fn probe_due(&mut self, now: Nanos) -> bool {
        let due = self.probe <= now;
        if due {
            self.probed += 1;
            self.probe = NEVER;
        }
        due
    }

    /// Whether [`on_sent`](Retry::on_sent) would change nothing, whatever the time.
    #[inline]
    pub(crate) fn is_armed(&self) -> bool {
        let timer = self.deadline.is_some() || self.timeout.is_none();
        timer && (self.probe != NEVER || self.probed != 0 || self.probe_wait == NEVER)
    }

    /// Something was sent that will be answered.
    #[inline]
    pub(crate) fn on_sent(&mut self, now: Nanos) {
        if self.deadline.is_none() {
            self.arm(now);
        }
        if self.probe == NEVER && self.probed == 0 {
            self.probe = now.saturating_add(self.probe_wait);
        }
    }

    /// Everything before `una` has been acknowledged; `waiting` if others are in flight.
    #[inline]
    pub(crate) fn on_progress(&mut self, now: Nanos, una: u64, waiting: bool) {
        if una >= self.timed_end {
            self.on_trip(now);
        }
        self.probed = 0;
        self.probe = NEVER;
        self.used = 0;
        self.rnr_used = 0;
        self.silent = 0;
        self.rnr_until = None;
        self.deadline = None;
        if waiting {
            self.arm(now);
            self.probe = now.saturating_add(self.probe_wait);
        }
    }

    fn arm(&mut self, now: Nanos) {
        let doubled = |timeout: Nanos| timeout << self.silent.min(MAX_DOUBLINGS);
        self.deadline = self.timeout.map(|timeout| now.saturating_add(doubled(timeout)));
    }

    /// Starts over, for a retransmission that follows at once.
    pub(crate) fn disarm(&mut self) {
        self.deadline = None;
        self.probe = NEVER;
        self.timed_end = NEVER;
    }

    /// When the transport timer expires.
    pub(crate) fn deadline(&self) -> Option<Nanos> {
        self.deadline
    }

    /// Lets the transport timer go on as if it had not been [disarmed](Retry::disarm).
    pub(crate) fn resume(&mut self, deadline: Option<Nanos>) {
        self.deadline = deadline;
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
        self.probe = NEVER;
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
        let due = self.rnr_until.unwrap_or(NEVER).min(self.deadline.unwrap_or(NEVER)).min(self.probe);
        (due != NEVER).then_some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timer_doubles_up_to_four_times() {
        let mut retry = Retry::new(Some(100), Some(7), None, 1000);
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
        retry.on_progress(now, 0, true);
        assert_eq!(retry.next(), Some(now + 100));
        retry.on_progress(now, 0, false);
        assert_eq!(retry.next(), None);
    }

    #[test]
    fn counters_end_and_progress_refills_them() {
        let mut retry = Retry::new(None, Some(2), Some(1), 1000);
        assert_eq!([retry.take(), retry.take(), retry.take()], [true, true, false]);
        retry.on_progress(0, 0, false);
        assert!(retry.take());
        assert_eq!([retry.take_rnr(0, 10), retry.take_rnr(0, 10)], [true, false]);
        retry.end_rnr_wait(9);
        assert!(retry.in_rnr_wait());
        retry.end_rnr_wait(10);
        assert!(!retry.in_rnr_wait());
        let mut endless = Retry::new(None, None, None, 1000);
        assert!((0..1000).all(|_| endless.take() && endless.take_rnr(0, 1)));
    }
}
