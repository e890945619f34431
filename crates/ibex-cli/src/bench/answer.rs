//! The answering side of a benchmark: what `--listen` and the second process do.
//!
//! Owns the reaction to each message of the asking side. It measures nothing; it answers, holds memory to be reached, and
//! compares what arrived.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use ibex::{Context, RemoteHandle, SharedRegion};
use rustix::thread::CpuSet;

use super::bandwidth::{SendSink, WriteSink};
use super::cores::{self, Side};
use super::latency::{self, SendPingPong, WritePingPong};
use super::message::{Answer, Ask, Test, VERSION};
use super::patience::LIMIT;
use super::plan::{ATOMIC, Op};
use super::reference::{Listening, PingPong, Protocol, recv_round};
use super::session::{Idle, Link, Session};
use crate::args::Wait;
use crate::control::Control;
use crate::output;

/// The asking side may measure references or build reports for long between two messages.
const IDLE: Duration = Duration::from_secs(120);
/// A second process that nobody connects to ends.
const UNWANTED: Duration = Duration::from_secs(20);
/// Larger messages are not measured; bounds what a peer can make this side allocate.
const LARGEST: usize = 16 << 20;
/// Polls between two looks for a message of the asking side.
const POLLS: u32 = 32;
/// Longest round a peer may ask for.
const MOST: u64 = 1024;

/// Accepts asking sides one after another.
pub(crate) fn serve(listener: &TcpListener, context: &Context, once: bool, cores: &CpuSet) -> Result<()> {
    if once {
        listener.set_nonblocking(true)?;
    }
    let begin = Instant::now();
    loop {
        let (stream, from) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                ensure!(begin.elapsed() < UNWANTED, "nobody asked for a benchmark");
                std::thread::sleep(Duration::from_millis(2));
                continue;
            }
            Err(error) => return Err(error).context("cannot accept a connection"),
        };
        stream.set_nonblocking(false)?;
        let result = Control::accept(stream, from).and_then(|control| {
            let result = session(&control, context, cores);
            if let Err(error) = &result {
                let _ = control.send(&Answer::Failed(output::one_line(error)));
            }
            result
        });
        if once {
            return result;
        }
        if let Err(error) = result {
            output::complain(&error);
        }
    }
}

/// One benchmark, from the greeting to the end of the connection.
fn session(control: &Control, context: &Context, cores: &CpuSet) -> Result<()> {
    let Ask::Hello { version, wait, seed, largest } = control.expect(LIMIT)? else {
        bail!("no greeting came")
    };
    ensure!(version == VERSION, "this side speaks version {VERSION} and not {version}");
    ensure!((1..=LARGEST).contains(&largest), "messages of {largest} bytes are not measured");
    cores::settle(Side::Answering, wait, cores);
    let (local, peer) = (control.local_addr()?.ip(), control.peer_addr()?.ip());
    let listening = Listening::bind(local)?;
    let (udp, tcp) = listening.ports()?;
    control.send(&Answer::Hello { udp, tcp })?;
    let Ask::Sockets { udp } = control.expect(LIMIT)? else { bail!("no sockets were named") };
    let sockets = listening.accept(peer, udp, wait)?;
    // The patterns are the asking side's the other way round.
    let session = Session::new(context, control, sockets, wait, (seed + 1, seed), largest)?;
    control.send(&Answer::Connected)?;
    loop {
        match control.expect(IDLE)? {
            Ask::Test(test) => {
                ensure!(
                    (1..=largest).contains(&test.bytes),
                    "messages of {} bytes were not announced",
                    test.bytes
                );
                run(&session, &test)
                    .with_context(|| format!("{} at {} bytes", test.op.name(), test.bytes))?;
            }
            Ask::End => return Ok(()),
            other => bail!("the asking side sent a message out of place: {other:?}"),
        }
    }
}

fn run(session: &Session<'_>, test: &Test) -> Result<()> {
    let bytes = test.bytes;
    match test.op {
        Op::SendLat => {
            let link = connect(session, test, SendPingPong::queue_pair(session)?, None)?;
            let mut side = SendPingPong::new(session, &link, bytes)?;
            follow(session, None, |first, count| {
                going(session)?;
                side.answer(first, count)
            })
        }
        Op::WriteLat => {
            let (region, handle) = WritePingPong::region(session, bytes)?;
            let link = connect(session, test, WritePingPong::queue_pair(session)?, Some(handle))?;
            let peer = test.region.context("no memory was named to answer into")?;
            let mut side = WritePingPong::new(session, &link, bytes, &region, peer)?;
            follow(session, None, |first, count| {
                side.arm_both(first)?;
                going(session)?;
                side.answer(first, count)
            })
        }
        Op::ReadLat | Op::ReadBw => {
            let (_region, handle) = latency::readable(session)?;
            let link = connect(session, test, session.queue_pair(1, 1)?, Some(handle))?;
            // The device answers; this program has no part in it.
            follow(session, Some(&link), |_, _| going(session).map(|()| 0))
        }
        Op::AtomicLat => {
            let (region, handle) = latency::counter(session)?;
            let link = connect(session, test, session.queue_pair(1, 1)?, Some(handle))?;
            follow_atomics(session, &link, &region)
        }
        Op::SendBw => {
            let link = connect(session, test, SendSink::queue_pair(session, bytes)?, None)?;
            let mut side = SendSink::new(session, &link, bytes)?;
            follow(session, None, |first, count| {
                side.ready(first, count)?;
                going(session)?;
                side.take()?;
                Ok(side.check())
            })
        }
        Op::WriteBw => {
            let (mut side, handle) = WriteSink::new(session, bytes)?;
            let link = connect(session, test, session.queue_pair(1, 1)?, Some(handle))?;
            // Compared when the asking side says that everything has been written.
            loop {
                match attend(session, Some(&link))? {
                    Ask::Go { first, count } => {
                        ensure!(count <= MOST, "a round of {count} messages is too long");
                        side.ready(first, count)?;
                        going(session)?;
                    }
                    Ask::Check => session.control.send(&Answer::Checked { errors: side.check()? })?,
                    Ask::Done => return Ok(()),
                    other => bail!("the asking side sent a message out of place: {other:?}"),
                }
            }
        }
        Op::UdpLat | Op::TcpLat => {
            session.control.send(&Answer::Ready { endpoint: None, region: None })?;
            let side = PingPong::new(session, protocol(test.op), bytes);
            follow(session, None, |first, count| {
                going(session)?;
                side.answer(first, count)
            })
        }
        Op::TcpBw => {
            session.control.send(&Answer::Ready { endpoint: None, region: None })?;
            let mut buffer = Vec::new();
            follow(session, None, |first, count| {
                ensure!(count <= MOST, "a round of {count} messages is too long");
                buffer.resize(count as usize * bytes, 0);
                going(session)?;
                recv_round(&session.sockets, session.control, &mut buffer)?;
                Ok((first..)
                    .zip(buffer.chunks(bytes))
                    .map(|(k, message)| session.theirs.errors(k, message))
                    .sum())
            })
        }
    }
}

/// Which protocol a reference uses.
pub(crate) fn protocol(op: Op) -> Protocol {
    if op == Op::UdpLat { Protocol::Udp } else { Protocol::Tcp }
}

/// Connects the queue pair to the asking side's and tells it where this one is.
fn connect(session: &Session<'_>, test: &Test, idle: Idle, region: Option<RemoteHandle>) -> Result<Link> {
    let peer = test.endpoint.as_ref().context("no queue pair was named")?;
    let endpoint = idle.endpoint();
    let link = idle.connect(peer)?;
    session.control.send(&Answer::Ready { endpoint: Some(endpoint), region })?;
    Ok(link)
}

fn going(session: &Session<'_>) -> Result<()> {
    session.control.send(&Answer::Going)
}

/// The next message of the asking side. A side that spins polls its queue meanwhile, which drives a software device; what
/// sleeps leaves that to the device's own thread. A NIC needs neither.
fn attend(session: &Session<'_>, link: Option<&Link>) -> Result<Ask> {
    let Some(link) = link.filter(|_| session.wait == Wait::Spin) else { return session.control.expect(IDLE) };
    let begin = Instant::now();
    loop {
        for _ in 0..POLLS {
            link.cq.poll()?;
            std::hint::spin_loop();
        }
        if let Some(ask) = session.control.recv(Duration::ZERO)? {
            return Ok(ask);
        }
        ensure!(begin.elapsed() < IDLE, "{} has gone quiet", session.control.peer());
    }
}

/// Follows the asking side through a measurement: at each `Go` runs `part`, which says how many messages were wrong, and
/// reports that when asked. `passive` is the queue pair whose device does all the work.
fn follow(
    session: &Session<'_>,
    passive: Option<&Link>,
    mut part: impl FnMut(u64, u64) -> Result<u64>,
) -> Result<()> {
    let mut errors = 0;
    loop {
        match attend(session, passive)? {
            Ask::Go { first, count } => errors += part(first, count)?,
            Ask::Check => session.control.send(&Answer::Checked { errors: std::mem::take(&mut errors) })?,
            Ask::Done => return Ok(()),
            other => bail!("the asking side sent a message out of place: {other:?}"),
        }
    }
}

/// The same for atomics, whose result lies in memory: the final value says whether all of them happened once.
fn follow_atomics(session: &Session<'_>, link: &Link, region: &SharedRegion) -> Result<()> {
    debug_assert_eq!(region.len(), ATOMIC);
    let mut total = 0;
    loop {
        match attend(session, Some(link))? {
            Ask::Go { count, .. } => {
                total += count;
                going(session)?;
            }
            Ask::Check => {
                let wrong = region.load_u64(0)? != latency::counted(&session.ours, total);
                session.control.send(&Answer::Checked { errors: u64::from(wrong) })?;
            }
            Ask::Done => return Ok(()),
            other => bail!("the asking side sent a message out of place: {other:?}"),
        }
    }
}
