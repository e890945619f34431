//! Latency over the device: ping-pong by SEND and by WRITE, and READ and atomics that the peer's program does not see.
//!
//! Owns both roles, the asking one that measures and the answering one. A payload is compared after the answer has left (or
//! the clock has stopped), so that comparing does not count as transfer.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use ibex::{Access, Buf, Op, Pool, RemoteHandle, SharedRegion};

use super::patience::Patience;
use super::pattern::Pattern;
use super::plan::ATOMIC;
use super::session::{Idle, Link, Session};
use super::stats::Tally;
use crate::args::Wait;

/// Receives posted in advance: the next message may come before this one is compared.
pub(crate) const RECEIVES: usize = 4;
/// WRITE ping-pong alternates between two places, since the next message may come before this one is compared.
const PLACES: usize = 2;
/// A WRITE has arrived when its last bytes have.
const TAIL: usize = 8;
/// Places are apart by cache lines.
const LINE: usize = 64;
/// A receive that only takes immediate data.
const NOTICE: usize = 64;

/// SEND ping-pong.
pub(crate) struct SendPingPong<'s> {
    session: &'s Session<'s>,
    link: &'s Link,
    bytes: usize,
    recvs: VecDeque<Op<'s, Buf>>,
}

impl<'s> SendPingPong<'s> {
    /// A queue pair for it.
    pub(crate) fn queue_pair(session: &Session<'_>) -> Result<Idle> {
        session.queue_pair(2, RECEIVES)
    }

    /// Posts the receives.
    pub(crate) fn new(session: &'s Session<'s>, link: &'s Link, bytes: usize) -> Result<Self> {
        let pool = session.pool(bytes, RECEIVES)?;
        let mut recvs = VecDeque::new();
        for _ in 0..RECEIVES {
            recvs.push_back(link.recv(pool.take()?)?);
        }
        Ok(Self { session, link, bytes, recvs })
    }

    fn next(&mut self) -> Result<Buf> {
        let op = self.recvs.pop_front().context("no receive is posted")?;
        Ok(self.session.settle(op)?.0)
    }

    /// Compares what was received and posts its buffer again.
    fn check(&mut self, k: u64, buf: Buf) -> Result<u64> {
        let errors = u64::from(buf.len() != self.bytes).max(self.session.theirs.errors(k, &buf));
        self.recvs.push_back(self.link.recv(buf)?);
        Ok(errors)
    }

    /// Sends first, `iters` times from message `first` on.
    pub(crate) fn ask(&mut self, first: u64, iters: u64, tally: &mut Tally) -> Result<()> {
        for k in first..first + iters {
            let message = self.session.message(k, self.bytes);
            let start = Instant::now();
            let sent = self.link.qp.send(message)?;
            let buf = self.next()?;
            tally.message(start.elapsed() / 2);
            tally.errors += self.check(k, buf)?;
            self.session.settle(sent)?;
        }
        Ok(())
    }

    /// Answers; the number of wrong messages.
    pub(crate) fn answer(&mut self, first: u64, iters: u64) -> Result<u64> {
        let mut errors = 0;
        for k in first..first + iters {
            let message = self.session.message(k, self.bytes);
            let buf = self.next()?;
            let sent = self.link.qp.send(message)?;
            errors += self.check(k, buf)?;
            self.session.settle(sent)?;
        }
        Ok(errors)
    }
}

/// WRITE ping-pong. Spinning sides look at the memory itself; sleeping sides get immediate data with each WRITE.
pub(crate) struct WritePingPong<'s> {
    session: &'s Session<'s>,
    link: &'s Link,
    bytes: usize,
    region: &'s SharedRegion,
    target: ibex::RemoteRegion,
    notices: VecDeque<Op<'s, Buf>>,
    copy: Vec<u8>,
}

impl<'s> WritePingPong<'s> {
    /// A queue pair for it.
    pub(crate) fn queue_pair(session: &Session<'_>) -> Result<Idle> {
        session.queue_pair(2, RECEIVES)
    }

    /// The memory the peer writes into.
    pub(crate) fn region(session: &Session<'_>, bytes: usize) -> Result<(SharedRegion, RemoteHandle)> {
        session.region(PLACES * bytes.next_multiple_of(LINE), Access::REMOTE_WRITE)
    }

    /// Ready to be written to once [`Self::arm`]ed.
    pub(crate) fn new(
        session: &'s Session<'s>,
        link: &'s Link,
        bytes: usize,
        region: &'s SharedRegion,
        peer: RemoteHandle,
    ) -> Result<Self> {
        let target = link.qp.bind(peer)?;
        let mut notices = VecDeque::new();
        if session.wait == Wait::Block {
            let pool = session.pool(NOTICE, RECEIVES)?;
            for _ in 0..RECEIVES {
                notices.push_back(link.recv(pool.take()?)?);
            }
        }
        Ok(Self { session, link, bytes, region, target, notices, copy: vec![0; bytes] })
    }

    fn place(&self, k: u64) -> usize {
        (k % PLACES as u64) as usize * self.bytes.next_multiple_of(LINE)
    }

    /// The last bytes of message `k` and where they lie.
    fn tail(&self, k: u64) -> (usize, &[u8]) {
        let message = self.session.theirs.message(k, self.bytes);
        let cut = self.bytes.saturating_sub(TAIL);
        (self.place(k) + cut, &message[cut..])
    }

    /// Makes sure that message `k` is not there yet: its last bytes are all different.
    fn arm(&self, k: u64) -> Result<()> {
        let (at, tail) = self.tail(k);
        let wrong: Vec<u8> = tail.iter().map(|byte| !byte).collect();
        Ok(self.region.write_at(at, &wrong)?)
    }

    /// Makes both places ready, before the first message.
    pub(crate) fn arm_both(&self, first: u64) -> Result<()> {
        (first..first + PLACES as u64).try_for_each(|k| self.arm(k))
    }

    fn write(&self, k: u64) -> Result<Op<'s, ibex::FrozenBuf>> {
        let message = self.session.message(k, self.bytes);
        let at = self.target.at(self.place(k) as u64);
        Ok(match self.session.wait {
            Wait::Spin => self.link.qp.write(message, at)?,
            Wait::Block => self.link.qp.write_with_imm(message, at, k as u32)?,
        })
    }

    /// Waits for message `k`.
    fn next(&mut self, k: u64) -> Result<()> {
        if let Some(notice) = self.notices.pop_front() {
            let (buf, wc) = self.session.settle(notice)?;
            self.notices.push_back(self.link.recv(buf)?);
            anyhow::ensure!(wc.imm() == Some(k as u32), "another message than number {k} was announced");
            return Ok(());
        }
        let (at, tail) = self.tail(k);
        let mut seen = [0; TAIL];
        let seen = &mut seen[..tail.len()];
        let mut patience = Patience::new(self.session.control);
        loop {
            self.region.read_at(at, seen)?;
            if seen == tail {
                return Ok(());
            }
            // Looking at memory does not drive a software device; looking at its queue does.
            self.link.cq.poll()?;
            patience.poll()?;
        }
    }

    /// Compares message `k` and makes its place ready for the next but one.
    fn check(&mut self, k: u64) -> Result<u64> {
        let mut copy = std::mem::take(&mut self.copy);
        self.region.read_at(self.place(k), &mut copy)?;
        let errors = self.session.theirs.errors(k, &copy);
        self.copy = copy;
        self.arm(k + PLACES as u64)?;
        Ok(errors)
    }

    /// Writes first, `iters` times from message `first` on.
    pub(crate) fn ask(&mut self, first: u64, iters: u64, tally: &mut Tally) -> Result<()> {
        for k in first..first + iters {
            let start = Instant::now();
            let written = self.write(k)?;
            self.next(k)?;
            tally.message(start.elapsed() / 2);
            tally.errors += self.check(k)?;
            self.session.settle(written)?;
        }
        Ok(())
    }

    /// Answers; the number of wrong messages.
    pub(crate) fn answer(&mut self, first: u64, iters: u64) -> Result<u64> {
        let mut errors = 0;
        for k in first..first + iters {
            self.next(k)?;
            let written = self.write(k)?;
            errors += self.check(k)?;
            self.session.settle(written)?;
        }
        Ok(errors)
    }
}

/// What READs are measured on: the peer's pattern in its memory.
pub(crate) fn readable(session: &Session<'_>) -> Result<(SharedRegion, RemoteHandle)> {
    let (region, handle) = session.region(session.ours.bytes().len(), Access::REMOTE_READ)?;
    region.write_at(0, session.ours.bytes())?;
    Ok((region, handle))
}

/// READs `iters` messages one after another.
pub(crate) fn read(
    session: &Session<'_>,
    link: &Link,
    pool: &Pool,
    peer: RemoteHandle,
    bytes: usize,
    (first, iters): (u64, u64),
    tally: &mut Tally,
) -> Result<()> {
    let target = link.qp.bind(peer)?;
    let mut buf = pool.take()?;
    for k in first..first + iters {
        buf.set_len(bytes);
        let at = target.at(Pattern::window(k, bytes).start as u64);
        let start = Instant::now();
        let op = link.qp.read(buf, at)?;
        (buf, _) = session.settle(op)?;
        tally.message(start.elapsed());
        tally.errors += session.theirs.errors(k, &buf);
    }
    Ok(())
}

/// The word atomics are measured on, with the value it begins with.
pub(crate) fn counter(session: &Session<'_>) -> Result<(SharedRegion, RemoteHandle)> {
    let (region, handle) = session.region(ATOMIC, Access::REMOTE_ATOMIC)?;
    region.store_u64(0, seed(&session.ours))?;
    Ok((region, handle))
}

/// What the counter of the side with this pattern begins with.
fn seed(pattern: &Pattern) -> u64 {
    pattern.bytes().first_chunk().copied().map_or(0, u64::from_le_bytes)
}

/// What fetch-and-add adds for message `k`: odd, so that every message changes the word.
fn addend(k: u64) -> u64 {
    k.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
}

/// The value after `count` atomics.
pub(crate) fn counted(pattern: &Pattern, count: u64) -> u64 {
    (0..count).fold(seed(pattern), |value, k| value.wrapping_add(addend(k)))
}

/// Fetch-and-add and compare-and-swap in turn, `iters` of them; `value` is what the word holds.
pub(crate) fn atomics(
    session: &Session<'_>,
    link: &Link,
    peer: RemoteHandle,
    (first, iters): (u64, u64),
    value: &mut u64,
    tally: &mut Tally,
) -> Result<()> {
    let word = link.qp.bind(peer)?.u64_at(0)?;
    for k in first..first + iters {
        let next = value.wrapping_add(addend(k));
        let start = Instant::now();
        let op = if k % 2 == 0 {
            link.qp.fetch_add(word, addend(k))?
        } else {
            link.qp.compare_swap(word, *value, next)?
        };
        let old = session.settle(op)?;
        tally.message(start.elapsed());
        tally.errors += u64::from(old != *value);
        *value = next;
    }
    Ok(())
}

/// The value the counter of the peer begins with.
pub(crate) fn first_value(session: &Session<'_>) -> u64 {
    seed(&session.theirs)
}

/// Messages that are not counted: enough for caches, tables and sleeping threads to be where they stay.
pub(crate) fn warm_up(bytes: usize) -> u64 {
    if bytes > 256 << 10 { 8 } else { 64 }
}

/// How many messages fit a time, judging by some that were measured.
pub(crate) fn fitting(left: Duration, (messages, took): (u64, Duration)) -> u64 {
    let each = (took.as_nanos() / u128::from(messages.max(1))).max(1);
    u64::try_from(left.as_nanos() / each).unwrap_or(u64::MAX).max(1)
}
