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
    /// When the transport timer expires, or, if it is not `running`, when it begins to run.
    deadline: Option<Nanos>,
    running: bool,
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
    /// Packets since the last that was measured, of those that need not be.
    unmeasured: u32,
}

/// The wait for a probe doubles at most this often; it has reached the timeout long before.
const MAX_PROBE_DOUBLINGS: u32 = 16;
/// A time that does not come, and a number that is not reached.
const NEVER: u64 = u64::MAX;
/// A probe waits for as many round trips: answers may be late, and a probe that was not needed is only noise.
const TRIPS: Nanos = 4;
/// Of packets whose round trip need not be measured, one in so many is.
const MEASURED_EVERY: u32 = 64;
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
            running: true,
            rnr_until: None,
            probe_after,
            probe_wait: NEVER,
            probe: NEVER,
            probed: 0,
            timed_end: NEVER,
            timed_at: 0,
            round_trip: None,
            unmeasured: 0,
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

    /// Whether the round trip of the next packet is worth being measured, where to read a clock is dear.
    #[inline]
    pub(crate) fn wants_trip(&mut self) -> bool {
        if self.timed_end != NEVER {
            return false;
        }
        self.unmeasured += 1;
        let wanted = self.round_trip.is_none() || self.unmeasured >= MEASURED_EVERY;
        if wanted {
            self.unmeasured = 0;
        }
        wanted
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
        if self.probe != NEVER || !self.running && self.probes() {
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
        if !self.running {
            return true;
        }
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

    /// The same, before `look`, when [`begin`](Retry::begin) will be called: the timer begins to run there. It lasts up to
    /// twice as long then, which the specification allows for.
    #[inline]
    pub(crate) fn on_sent_before(&mut self, look: Nanos) {
        if self.deadline.is_none() && self.probe == NEVER {
            self.deadline = Some(look);
            self.running = false;
        }
    }

    /// The timer begins to run, if it was to.
    #[inline]
    pub(crate) fn begin(&mut self, now: Nanos) {
        if !self.running && self.deadline.is_some_and(|look| look <= now) {
            self.running = true;
            self.deadline = None;
            self.on_sent(now);
        }
    }

    /// Everything before `una` has been acknowledged; `waiting` if others are in flight.
    #[inline]
    pub(crate) fn on_progress(&mut self, now: Nanos, una: u64, waiting: bool) {
        self.on_answer(una, || now);
        if waiting {
            self.arm(now);
            self.probe = now.saturating_add(self.probe_wait);
        }
    }

    /// [`on_progress`](Retry::on_progress) with nothing in flight. The time is asked for if it matters.
    #[inline]
    pub(crate) fn on_answer(&mut self, una: u64, now: impl FnOnce() -> Nanos) {
        if una >= self.timed_end {
            self.on_trip(now());
        }
        self.probed = 0;
        self.probe = NEVER;
        self.used = 0;
        self.rnr_used = 0;
        self.silent = 0;
        self.rnr_until = None;
        self.stop();
    }

    #[inline]
    fn stop(&mut self) {
        self.deadline = None;
        self.running = true;
    }

    fn arm(&mut self, now: Nanos) {
        let doubled = |timeout: Nanos| timeout << self.silent.min(MAX_DOUBLINGS);
        self.deadline = self.timeout.map(|timeout| now.saturating_add(doubled(timeout)));
    }

    /// Starts over, for a retransmission that follows at once.
    pub(crate) fn disarm(&mut self) {
        self.stop();
        self.probe = NEVER;
        self.timed_end = NEVER;
    }

    /// When the transport timer expires, if it runs.
    pub(crate) fn deadline(&self) -> Option<Nanos> {
        self.deadline.filter(|_| self.running)
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
        self.stop();
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
    fn a_timer_that_begins_at_a_look_runs_from_there() {
        for late in [0, 1, 5000] {
            let mut retry = Retry::new(Some(100), Some(0), None, 1000);
            retry.on_sent_before(30);
            assert!(retry.is_armed());
            assert_eq!((retry.next(), retry.deadline()), (Some(30), None));
            // Neither an early look nor another message changes that.
            retry.begin(29);
            retry.on_sent_before(20);
            retry.on_sent(25);
            assert_eq!((retry.next(), retry.deadline()), (Some(30), None));
            assert!(!retry.expired(29));
            let look = 30 + late;
            retry.begin(look);
            assert!(!retry.expired(look));
            assert_eq!(retry.deadline(), Some(look + 100));
            // It runs: the next look is none of its business.
            retry.on_sent_before(look + 1);
            retry.begin(look + 50);
            assert_eq!(retry.deadline(), Some(look + 100));
            assert!(!retry.expired(look + 99) && retry.expired(look + 100));
        }
    }

    #[test]
    fn what_stops_a_timer_stops_one_that_has_not_begun() {
        let stops: [fn(&mut Retry); 4] = [
            |retry| retry.on_answer(0, || panic!("nothing is being measured")),
            |retry| retry.on_progress(10, 0, false),
            |retry| retry.disarm(),
            |retry| {
                retry.take_rnr(10, 5);
                retry.end_rnr_wait(15);
            },
        ];
        for stop in stops {
            let mut retry = Retry::new(Some(100), Some(7), None, 1000);
            retry.on_sent_before(30);
            stop(&mut retry);
            assert_eq!(retry.next(), None);
            retry.begin(30);
            assert_eq!(retry.next(), None);
            retry.on_sent(40);
            assert_eq!(retry.deadline(), Some(140), "the next runs at once");
        }
        // With others in flight it runs from the progress on.
        let mut retry = Retry::new(Some(100), Some(7), None, 1000);
        retry.on_sent_before(30);
        retry.on_progress(10, 0, true);
        assert_eq!(retry.deadline(), Some(110));
    }

    /// With a round trip known, there is a probe: its wait begins at the look as well, unless somebody is in a hurry.
    #[test]
    fn the_wait_for_a_probe_begins_at_the_look() {
        let acquainted = || {
            let mut retry = Retry::new(Some(100_000), Some(7), None, 1000);
            assert!(retry.wants_trip());
            retry.on_sent_first(0, 1);
            retry.on_answer(1, || 10);
            assert!(retry.probes());
            retry.on_sent_before(30);
            retry
        };
        let mut retry = acquainted();
        retry.begin(30);
        assert_eq!((retry.next(), retry.deadline()), (Some(1030), Some(100_030)));

        let mut retry = acquainted();
        retry.probe_at_once();
        assert_eq!(retry.next(), Some(0));
        retry.begin(20);
        assert!(!retry.expired(20) && retry.probe_due(20));
        assert_eq!((retry.next(), retry.deadline()), (Some(30), None));
        retry.begin(30);
        assert_eq!((retry.next(), retry.deadline()), (Some(100_030), Some(100_030)), "one probe is enough");
    }

    #[test]
    fn without_a_timeout_a_look_begins_no_timer() {
        let mut retry = Retry::new(None, Some(7), None, 1000);
        retry.on_sent_before(30);
        assert!(!retry.expired(29));
        retry.begin(30);
        assert!(!retry.expired(Nanos::MAX));
        assert_eq!(retry.next(), None);
    }

    #[test]
    fn where_a_clock_is_dear_one_round_trip_in_many_is_measured() {
        let mut retry = Retry::new(Some(100), Some(7), None, 1000);
        let mut measured = Vec::new();
        for number in 0..200 {
            if retry.wants_trip() {
                retry.on_sent_first(number, number + 1);
                assert!(!retry.wants_trip(), "one at a time");
                measured.push(number);
            }
            retry.on_answer(number + 1, || number);
        }
        assert_eq!(measured, [0, 64, 128, 192]);
        // One that was lost says nothing: the next is measured in its place sooner or later.
        retry.on_sent_first(200, 300);
        retry.disarm();
        assert!((0..u64::from(MEASURED_EVERY)).any(|_| retry.wants_trip()));
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
