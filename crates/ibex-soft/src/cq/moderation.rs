//! Event moderation: an event that waits for more completions, or for some time, as `ibv_modify_cq(3)` sets it.
//!
//! Owns the count and the period. An armed queue raises its event with the `count`-th completion it is armed for, or when
//! the period has passed since the first of them, whichever comes first; with a count of at most one, or a period of
//! zero, there is no moderation. The time is kept by the NIC's thread ([`crate::nic`]).

use std::sync::{Arc, Weak};

use ibex_proto::Nanos;

use super::{Armed, Cq, Ring};
use crate::nic::Nic;

/// How a queue's events are moderated.
#[derive(Debug)]
pub(crate) struct Moderation {
    /// Completions for one event.
    count: u32,
    /// Nanoseconds from the first of them.
    period: Nanos,
    /// Completions the next event has had so far.
    so_far: u32,
    /// When the event is raised at the latest, on the NIC's clock.
    due: Option<Nanos>,
    /// Whether the NIC is going to look: at most once at a time, however often events come by count.
    awaited: bool,
    nic: Weak<Nic>,
    cq: Weak<Cq>,
}

impl Ring {
    /// Counts a completion that the queue is armed for; true if its event is to be raised now.
    #[inline]
    pub(super) fn is_time_for_event(&mut self) -> bool {
        match &mut self.moderation {
            None => true,
            Some(moderation) => moderation.count_one(),
        }
    }
}

impl Moderation {
    fn count_one(&mut self) -> bool {
        self.so_far += 1;
        if self.so_far >= self.count {
            self.so_far = 0;
            self.due = None;
            return true;
        }
        if self.due.is_none() {
            // Without a NIC there is nobody to wait for, nor to keep the time.
            let Some(nic) = self.nic.upgrade() else { return true };
            let due = nic.now().saturating_add(self.period);
            self.due = Some(due);
            if !self.awaited {
                self.awaited = true;
                nic.alarm(due, self.cq.clone());
            }
        }
        false
    }
}

impl Cq {
    /// Sets the moderation: `count` completions or `period` microseconds.
    pub(crate) fn moderate(self: &Arc<Cq>, nic: Weak<Nic>, count: u16, period: u16) {
        let mut ring = self.lock();
        let waited = ring.moderation.as_ref().is_some_and(|old| old.so_far > 0);
        ring.moderation = (count > 1 && period > 0).then(|| {
            let period = Nanos::from(period) * 1000;
            let cq = Arc::downgrade(self);
            Box::new(Moderation {
                count: u32::from(count),
                period,
                so_far: 0,
                due: None,
                awaited: false,
                nic,
                cq,
            })
        });
        // What the old setting held back does not wait for the new one.
        if waited && ring.armed != Armed::Not {
            self.raise(&mut ring);
        }
    }

    /// The time set for an event may have come.
    pub(crate) fn expire(&self, now: Nanos) {
        let mut ring = self.lock();
        let Some(moderation) = &mut ring.moderation else { return };
        moderation.awaited = false;
        match moderation.due {
            None => return,
            Some(due) if due > now => {
                // The event it was meant for came by count; this is the next one's time.
                if let Some(nic) = moderation.nic.upgrade() {
                    moderation.awaited = true;
                    nic.alarm(due, moderation.cq.clone());
                }
                return;
            }
            Some(_) => moderation.due = None,
        }
        moderation.so_far = 0;
        if ring.armed != Armed::Not {
            self.raise(&mut ring);
        }
    }

    /// No event is raised after this: the queue is about to be destroyed.
    pub(crate) fn close(&self) {
        let mut ring = self.lock();
        ring.moderation = None;
        ring.armed = Armed::Not;
        drop(ring);
        self.discard_events();
    }
}
