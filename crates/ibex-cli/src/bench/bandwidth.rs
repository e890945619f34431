//! Bandwidth over the device: rounds of SENDs, WRITEs and READs with many in flight.
//!
//! Owns both roles. Each message of a round has its own place at the receiving side, which compares all of them when the
//! round's clock has stopped: everything is verified and none of it is timed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use ibex::{Access, Buf, FrozenBuf, Op, Pool, RemoteHandle, RemoteRegion, SharedRegion, Work};

use super::pattern::Pattern;
use super::session::{Idle, Link, Session};
use super::stats::Tally;

/// Operations in flight: enough to fill any pipe with large messages, within what every device offers.
pub(crate) const DEPTH: usize = 128;
/// Memory of a round: the round's beginning and end, when the pipe is not full, hardly count.
const ROUND_BYTES: usize = 32 << 20;
/// Messages of a round at most: receives for all of them are posted beforehand.
const ROUND_MESSAGES: usize = 1024;
/// The last bytes of a place are spoilt before a round, so that a message that does not arrive is noticed.
const TAIL: usize = 8;

/// Messages of a round.
pub(crate) fn round(bytes: usize) -> u64 {
    (ROUND_BYTES / bytes).clamp(4, ROUND_MESSAGES) as u64
}

/// Keeps [`DEPTH`] operations in flight and notes how long each took.
fn pump<'l, T: Work>(
    session: &Session<'_>,
    numbers: std::ops::Range<u64>,
    tally: &mut Tally,
    mut post: impl FnMut(u64) -> Result<Op<'l, T>>,
    mut done: impl FnMut(u64, T::Output),
) -> Result<Duration> {
    let mut flying: VecDeque<(u64, Instant, Op<'l, T>)> = VecDeque::with_capacity(DEPTH);
    let count = numbers.end - numbers.start;
    let begin = Instant::now();
    for k in numbers {
        if flying.len() >= DEPTH
            && let Some((number, posted, op)) = flying.pop_front()
        {
            done(number, session.settle(op)?);
            tally.time(posted.elapsed());
        }
        flying.push_back((k, Instant::now(), post(k)?));
    }
    for (number, posted, op) in flying {
        done(number, session.settle(op)?);
        tally.time(posted.elapsed());
    }
    let elapsed = begin.elapsed();
    tally.add(count, elapsed);
    Ok(elapsed)
}

/// A queue pair for the asking side.
pub(crate) fn asking(session: &Session<'_>) -> Result<Idle> {
    session.queue_pair(DEPTH, 1)
}

/// SENDs a round.
pub(crate) fn send(
    session: &Session<'_>,
    link: &Link,
    bytes: usize,
    numbers: std::ops::Range<u64>,
    tally: &mut Tally,
) -> Result<Duration> {
    let post = |k| -> Result<Op<'_, FrozenBuf>> { Ok(link.qp.send(session.message(k, bytes))?) };
    pump(session, numbers, tally, post, |_, _| {})
}

/// WRITEs a round, each message to its own place.
pub(crate) fn write(
    session: &Session<'_>,
    link: &Link,
    target: &RemoteRegion,
    bytes: usize,
    numbers: std::ops::Range<u64>,
    tally: &mut Tally,
) -> Result<Duration> {
    let first = numbers.start;
    let post = |k| -> Result<Op<'_, FrozenBuf>> {
        let at = target.at((k - first) * bytes as u64);
        Ok(link.qp.write(session.message(k, bytes), at)?)
    };
    pump(session, numbers, tally, post, |_, _| {})
}

/// READs a round, each message into its own buffer, and compares them afterwards.
pub(crate) fn read(
    session: &Session<'_>,
    link: &Link,
    pool: &Pool,
    target: &RemoteRegion,
    bytes: usize,
    numbers: std::ops::Range<u64>,
    tally: &mut Tally,
) -> Result<Duration> {
    let mut bufs: Vec<(u64, Buf)> = Vec::with_capacity((numbers.end - numbers.start) as usize);
    let mut spare = Vec::new();
    for _ in numbers.clone() {
        let mut buf = pool.take()?;
        buf.set_len(bytes);
        spare.push(buf);
    }
    let post = |k| -> Result<Op<'_, Buf>> {
        let buf = spare.pop().context("a buffer for every message")?;
        Ok(link.qp.read(buf, target.at(Pattern::window(k, bytes).start as u64))?)
    };
    let elapsed = pump(session, numbers, tally, post, |k, (buf, _)| bufs.push((k, buf)))?;
    tally.errors += bufs.iter().map(|(k, buf)| session.theirs.errors(*k, buf)).sum::<u64>();
    Ok(elapsed)
}

/// The receiving side of SENDs.
pub(crate) struct SendSink<'s> {
    session: &'s Session<'s>,
    link: &'s Link,
    pool: Pool,
    bytes: usize,
    posted: VecDeque<Op<'s, Buf>>,
    arrived: Vec<Buf>,
    first: u64,
}

impl<'s> SendSink<'s> {
    /// A queue pair for it.
    pub(crate) fn queue_pair(session: &Session<'_>, bytes: usize) -> Result<Idle> {
        session.queue_pair(1, round(bytes) as usize)
    }

    /// Buffers for a round.
    pub(crate) fn new(session: &'s Session<'s>, link: &'s Link, bytes: usize) -> Result<Self> {
        let pool = session.pool(bytes, round(bytes) as usize)?;
        Ok(Self { session, link, pool, bytes, posted: VecDeque::new(), arrived: Vec::new(), first: 0 })
    }

    /// Posts a receive for every message of the round.
    pub(crate) fn ready(&mut self, first: u64, count: u64) -> Result<()> {
        self.first = first;
        for _ in 0..count {
            self.posted.push_back(self.link.recv(self.pool.take()?)?);
        }
        Ok(())
    }

    /// Takes the messages as they come.
    pub(crate) fn take(&mut self) -> Result<()> {
        while let Some(op) = self.posted.pop_front() {
            self.arrived.push(self.session.settle(op)?.0);
        }
        Ok(())
    }

    /// Compares them; the number of wrong ones.
    pub(crate) fn check(&mut self) -> u64 {
        let bytes = self.bytes;
        let theirs = &self.session.theirs;
        let wrong = |(k, buf): (u64, Buf)| u64::from(buf.len() != bytes).max(theirs.errors(k, &buf));
        (self.first..).zip(self.arrived.drain(..)).map(wrong).sum()
    }
}

/// The receiving side of WRITEs.
pub(crate) struct WriteSink<'s> {
    session: &'s Session<'s>,
    region: SharedRegion,
    bytes: usize,
    copy: Vec<u8>,
    first: u64,
    count: u64,
}

impl<'s> WriteSink<'s> {
    /// Memory for a round.
    pub(crate) fn new(session: &'s Session<'s>, bytes: usize) -> Result<(Self, RemoteHandle)> {
        let (region, handle) = session.region(round(bytes) as usize * bytes, Access::REMOTE_WRITE)?;
        Ok((Self { session, region, bytes, copy: vec![0; bytes], first: 0, count: 0 }, handle))
    }

    /// Spoils every place of the round.
    pub(crate) fn ready(&mut self, first: u64, count: u64) -> Result<()> {
        (self.first, self.count) = (first, count);
        for k in 0..count {
            let message = self.session.theirs.message(first + k, self.bytes);
            let cut = self.bytes.saturating_sub(TAIL);
            let wrong: Vec<u8> = message[cut..].iter().map(|byte| !byte).collect();
            self.region.write_at(k as usize * self.bytes + cut, &wrong)?;
        }
        Ok(())
    }

    /// Compares the round; the number of wrong messages.
    pub(crate) fn check(&mut self) -> Result<u64> {
        let mut errors = 0;
        for k in 0..self.count {
            self.region.read_at(k as usize * self.bytes, &mut self.copy)?;
            errors += self.session.theirs.errors(self.first + k, &self.copy);
        }
        Ok(errors)
    }
}
