//! The asking side of a benchmark: goes through the plan, measures, and collects rows.
//!
//! Owns the course of one measurement: set up, warm up, decide how many messages fit the time, measure, ask the other side
//! what it found wrong.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use ibex::{Context, RemoteHandle};

use super::answer::protocol;
use super::bandwidth;
use super::latency::{self, SendPingPong, WritePingPong};
use super::message::{Answer, Ask, Test, VERSION};
use super::patience::LIMIT;
use super::plan::{Op, Plan};
use super::reference::{PingPong, Sockets, send_round};
use super::session::{Idle, Link, Session};
use super::stats::{Row, Tally};
use crate::args::Wait;
use crate::control::Control;
use crate::device::check_route;

/// Checking a round of the largest messages takes the other side no longer than this.
const CHECK: Duration = Duration::from_secs(60);

/// Runs the plan against the answering side behind `control`.
pub(crate) fn run(
    control: &Control,
    context: &Context,
    wait: Wait,
    plan: &Plan,
    mut begins: impl FnMut(Op, usize),
) -> Result<Vec<Row>> {
    let largest = plan.largest();
    // Another run has other payloads.
    let seed = fastrand::u64(..u64::MAX);
    control.send(&Ask::Hello { version: VERSION, wait, seed, largest })?;
    let Answer::Hello { udp, tcp } = answer(control, LIMIT)? else { bail!("the peer did not greet") };
    let (local, peer) = (control.local_addr()?.ip(), control.peer_addr()?.ip());
    let (sockets, own_udp) = Sockets::connect(local, peer, (udp, tcp), wait)?;
    control.send(&Ask::Sockets { udp: own_udp })?;
    let Answer::Connected = answer(control, LIMIT)? else { bail!("the peer did not connect") };
    let session = Session::new(context, control, sockets, wait, (seed, seed + 1), largest)?;
    let mut rows = Vec::new();
    for (index, (op, bytes)) in plan.tests.iter().copied().enumerate() {
        begins(op, bytes);
        let budget = plan.budget(plan.tests.len() - index);
        let test = Measurement { session: &session, op, bytes, budget, iters: plan.iters };
        let row = test.run().with_context(|| format!("{} at {bytes} bytes", op.name()))?;
        rows.push(row);
    }
    control.send(&Ask::End)?;
    rows.sort_by_key(|row| (row.op, row.bytes));
    Ok(rows)
}

/// The peer's next message, unless it says that it failed.
fn answer(control: &Control, limit: Duration) -> Result<Answer> {
    match control.expect(limit)? {
        Answer::Failed(why) => bail!("the peer failed: {why}"),
        answer => Ok(answer),
    }
}

/// One measurement.
struct Measurement<'s> {
    session: &'s Session<'s>,
    op: Op,
    bytes: usize,
    budget: Duration,
    iters: Option<u64>,
}

impl Measurement<'_> {
    fn run(&self) -> Result<Row> {
        let bytes = self.bytes;
        let session = self.session;
        let row = match self.op {
            Op::SendLat => {
                let (link, _) = self.connect(SendPingPong::queue_pair(session)?, None)?;
                let mut side = SendPingPong::new(session, &link, bytes)?;
                self.latency(|first, count, tally| side.ask(first, count, tally), |_| Ok(()))
            }
            Op::WriteLat => {
                let (region, handle) = WritePingPong::region(session, bytes)?;
                let (link, peer) = self.connect(WritePingPong::queue_pair(session)?, Some(handle))?;
                let peer = peer.context("the peer named no memory")?;
                let side = WritePingPong::new(session, &link, bytes, &region, peer)?;
                let side = std::cell::RefCell::new(side);
                self.latency(
                    |first, count, tally| side.borrow_mut().ask(first, count, tally),
                    |first| side.borrow().arm_both(first),
                )
            }
            Op::ReadLat => {
                let (link, peer) = self.connect(session.queue_pair(1, 1)?, None)?;
                let peer = peer.context("the peer named no memory")?;
                let pool = session.pool(bytes, 1)?;
                let read = |first, count, tally: &mut Tally| {
                    latency::read(session, &link, &pool, peer, bytes, (first, count), tally)
                };
                self.latency(read, |_| Ok(()))
            }
            Op::AtomicLat => {
                let (link, peer) = self.connect(session.queue_pair(1, 1)?, None)?;
                let peer = peer.context("the peer named no memory")?;
                let mut value = latency::first_value(session);
                let atomics = |first, count, tally: &mut Tally| {
                    latency::atomics(session, &link, peer, (first, count), &mut value, tally)
                };
                self.latency(atomics, |_| Ok(()))
            }
            Op::SendBw => {
                let (link, _) = self.connect(bandwidth::asking(session)?, None)?;
                self.bandwidth(|numbers, tally| bandwidth::send(session, &link, bytes, numbers, tally))
            }
            Op::WriteBw => {
                let (link, peer) = self.connect(bandwidth::asking(session)?, None)?;
                let target = link.qp.bind(peer.context("the peer named no memory")?)?;
                self.bandwidth(|numbers, tally| {
                    bandwidth::write(session, &link, &target, bytes, numbers, tally)
                })
            }
            Op::ReadBw => {
                let (link, peer) = self.connect(bandwidth::asking(session)?, None)?;
                let target = link.qp.bind(peer.context("the peer named no memory")?)?;
                let pool = session.pool(bytes, bandwidth::round(bytes) as usize)?;
                self.bandwidth(|numbers, tally| {
                    bandwidth::read(session, &link, &pool, &target, bytes, numbers, tally)
                })
            }
            Op::UdpLat | Op::TcpLat => {
                self.begin(None, None)?;
                let side = PingPong::new(session, protocol(self.op), bytes);
                self.latency(|first, count, tally| side.ask(first, count, tally), |_| Ok(()))
            }
            Op::TcpBw => {
                self.begin(None, None)?;
                self.bandwidth(|numbers, tally| {
                    let (first, count) = (numbers.start, numbers.end - numbers.start);
                    let (sockets, control) = (&session.sockets, session.control);
                    let elapsed = send_round(sockets, control, &session.ours, bytes, first, count)?;
                    // A stream has no completion of a single message.
                    let each = elapsed / u32::try_from(count).unwrap_or(u32::MAX);
                    numbers.for_each(|_| tally.time(each));
                    tally.add(count, elapsed);
                    Ok(())
                })
            }
        }?;
        session.control.send(&Ask::Done)?;
        Ok(row)
    }

    /// Announces the measurement; the peer's queue pair and memory.
    fn begin(
        &self,
        endpoint: Option<ibex::Endpoint>,
        region: Option<RemoteHandle>,
    ) -> Result<(Option<ibex::Endpoint>, Option<RemoteHandle>)> {
        let control = self.session.control;
        control.send(&Ask::Test(Test { op: self.op, bytes: self.bytes, endpoint, region }))?;
        match answer(control, LIMIT)? {
            Answer::Ready { endpoint, region } => Ok((endpoint, region)),
            other => bail!("the peer sent a message out of place: {other:?}"),
        }
    }

    fn connect(&self, idle: Idle, region: Option<RemoteHandle>) -> Result<(Link, Option<RemoteHandle>)> {
        let (endpoint, region) = self.begin(Some(idle.endpoint()), region)?;
        let peer = endpoint.context("the peer named no queue pair")?;
        check_route(&idle.endpoint(), &peer, self.session.control)?;
        Ok((idle.connect(&peer)?, region))
    }

    /// Tells the peer which messages come and waits until it is ready for them.
    fn go(&self, first: u64, count: u64) -> Result<()> {
        self.session.control.send(&Ask::Go { first, count })?;
        let Answer::Going = answer(self.session.control, CHECK)? else { bail!("the peer is not going") };
        Ok(())
    }

    /// What the peer found wrong since it was last asked.
    fn found_wrong(&self) -> Result<u64> {
        self.session.control.send(&Ask::Check)?;
        match answer(self.session.control, CHECK)? {
            Answer::Checked { errors } => Ok(errors),
            other => bail!("the peer sent a message out of place: {other:?}"),
        }
    }

    /// Warms up, then measures one message after another: all at once if their number is given, else in growing portions
    /// until the time is over.
    fn latency(
        &self,
        mut part: impl FnMut(u64, u64, &mut Tally) -> Result<()>,
        prepare: impl Fn(u64) -> Result<()>,
    ) -> Result<Row> {
        let begin = Instant::now();
        let mut next = 0;
        let mut portion = |count: u64, tally: &mut Tally| {
            let first = next;
            next += count;
            prepare(first)?;
            self.go(first, count)?;
            part(first, count, tally)
        };
        let mut warm_up = Tally::new()?;
        portion(latency::warm_up(self.bytes), &mut warm_up)?;
        let mut tally = Tally::new()?;
        match self.iters {
            Some(iters) => portion(iters, &mut tally)?,
            None => {
                let mut count = latency::warm_up(self.bytes);
                loop {
                    let start = Instant::now();
                    portion(count, &mut tally)?;
                    let left = self.budget.saturating_sub(begin.elapsed());
                    if left.is_zero() {
                        break;
                    }
                    count = latency::fitting(left, (count, start.elapsed())).min(2 * count);
                }
            }
        }
        tally.errors += warm_up.errors + self.found_wrong()?;
        Ok(tally.row(self.op, self.bytes))
    }

    /// A round to warm up, then rounds until the time is over.
    fn bandwidth<T>(
        &self,
        mut part: impl FnMut(std::ops::Range<u64>, &mut Tally) -> Result<T>,
    ) -> Result<Row> {
        let round = bandwidth::round(self.bytes);
        let mut warm_up = Tally::new()?;
        let mut tally = Tally::new()?;
        let begin = Instant::now();
        let mut next = 0;
        let mut measured_first = false;
        loop {
            let left = self.iters.map_or(round, |iters| (iters - tally.messages()).min(round));
            let over = match self.iters {
                Some(_) => left == 0,
                None => measured_first && begin.elapsed() >= self.budget,
            };
            if over {
                break;
            }
            let (count, into) = if next == 0 { (left, &mut warm_up) } else { (left, &mut tally) };
            measured_first |= next > 0;
            self.go(next, count)?;
            part(next..next + count, into)?;
            into.errors += self.found_wrong()?;
            next += count;
        }
        tally.errors += warm_up.errors;
        ensure!(tally.messages() > 0, "nothing was measured");
        Ok(tally.row(self.op, self.bytes))
    }
}
