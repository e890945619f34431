//! Waiting that always ends: by what is waited for, by the peer's death, or by a deadline.
//!
//! Owns the spin loop's manners (a hint to the core; a yield once a wait has taken so long that the one waited for
//! evidently has no core) and the limit on any wait of a measurement.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::control::Control;

/// Nothing in a measurement takes longer than this, even on an emulated machine, unless something is wrong. A peer that was
/// killed is noticed at once all the same.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);
/// Empty polls between two looks at the clock and at the peer; some tens of microseconds.
const LOOK: u32 = 1024;
/// No answer takes this long unless whoever is to give it waits for a core. Earlier yields would spoil the figures.
const YIELD: Duration = Duration::from_millis(1);

/// Counts empty polls.
#[derive(Debug)]
pub(crate) struct Patience<'a> {
    control: &'a Control,
    polls: u32,
    since: Option<Instant>,
}

impl<'a> Patience<'a> {
    /// For a wait on something the peer behind `control` does.
    pub(crate) fn new(control: &'a Control) -> Self {
        Self { control, polls: 0, since: None }
    }

    /// What was waited for has come.
    pub(crate) fn rest(&mut self) {
        self.polls = 0;
        self.since = None;
    }

    /// One empty poll.
    ///
    /// # Errors
    /// When the peer is gone or [`LIMIT`] has passed since the last success.
    pub(crate) fn poll(&mut self) -> Result<()> {
        self.polls = self.polls.wrapping_add(1);
        std::hint::spin_loop();
        if self.polls.is_multiple_of(LOOK) {
            self.look()?;
            if self.since.is_some_and(|since| since.elapsed() > YIELD) {
                std::thread::yield_now();
            }
        }
        Ok(())
    }

    /// One wait that slept and brought nothing.
    ///
    /// # Errors
    /// As [`Self::poll`].
    pub(crate) fn look(&mut self) -> Result<()> {
        self.control.tick();
        self.control.alive()?;
        if self.since.get_or_insert_with(Instant::now).elapsed() > LIMIT {
            bail!("{} did nothing for {} s", self.control.peer(), LIMIT.as_secs());
        }
        Ok(())
    }
}
