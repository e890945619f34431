//! The NIC's thread: drives the device when no caller does.
//!
//! Owns the two ways it waits. *Watching*, it sleeps on the sockets and receives what comes. *Aside*, it sleeps for a few
//! milliseconds at a time (longer while a caller blocks on the sockets) and only sees whether callers have gone quiet, in
//! which case it watches again. It steps aside when it is woken for packets although callers poll anyway. It sleeps for ever
//! when nothing happens.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ibex_proto::Nanos;

use super::Nic;
use super::wait::UNATTENDED_NS;
use crate::net::Scan;
use crate::oneside::OneSide;
use crate::os::{self, watch};

/// How long the thread stays aside before it looks in: what a packet waits at worst when callers go quiet.
const TICK: Duration = Duration::from_millis(1);

/// The same once callers have polled at this many looks in a row, which takes them 60 ms: each look costs a spinning caller
/// that shares the processor 10 µs.
const STEADY_TICK: Duration = Duration::from_millis(4);
const STEADY: u32 = 64;

/// The same while a caller watches the sockets in its place; the caller wakes the thread when it leaves after having
/// slept longer than [`TICK`].
const LONG_TICK: Duration = Duration::from_millis(100);

/// How long it sleeps when a caller was receiving at the moment it wanted to make sure that there is nothing.
const BUSY: Duration = Duration::from_micros(50);

/// The first look after stepping aside; each later one is twice as far off, up to [`TICK`].
const FIRST_TICK: Duration = Duration::from_micros(50);

/// Wake-ups in a row, callers having polled between each two, before the thread steps aside, at first and at most. The number
/// doubles each time that proved wrong, as it does for a program that polls its memory and the device only now and then.
const PATIENCE: u32 = 3;
const MOST_PATIENCE: u32 = 4096;

/// Looks that found callers polling after which having stepped aside was right, whenever they stop: a program that polls
/// its memory for a packet that lies in the socket does not come to the second.
const PROVEN: u32 = 3;

/// Starts the thread.
///
/// # Errors
/// Those of `pthread_create(3)`.
pub(super) fn spawn(nic: Arc<Nic>) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("ibex-nic".into()).stack_size(256 * 1024).spawn(move || {
        os::block_signals();
        // This thread ends with the process or with the NIC.
        let _alive = nic.wire.memory().and_then(OneSide::live);
        let run = AssertUnwindSafe(|| Watcher::new(&nic).run());
        if std::panic::catch_unwind(run).is_err() {
            nic.fail();
        }
    })
}

/// Ready descriptors after a sleep.
struct Woken {
    sockets: bool,
}

struct Watcher<'a> {
    nic: &'a Nic,
    /// The kick's descriptor, then the link's.
    fds: [libc::pollfd; 3],
    housekeeping: Option<Instant>,
    patience: u32,
    late: u32,
    /// Whether it steps aside because a caller was receiving when it wanted to.
    busy: bool,
    /// How often callers had polled at the last wake-up.
    seen: u64,
}

impl<'a> Watcher<'a> {
    fn new(nic: &'a Nic) -> Watcher<'a> {
        let [direct, rest] = nic.wire.fds();
        let fds = [watch(nic.kick.raw()), watch(direct), watch(rest)];
        Watcher { nic, fds, housekeeping: None, patience: PATIENCE, late: 0, busy: false, seen: 0 }
    }

    fn run(&mut self) {
        while !self.nic.stop.load(Ordering::SeqCst) {
            self.watch();
            if self.late >= self.patience {
                self.late = 0;
                self.nic.aside.store(true, Ordering::SeqCst);
                self.stand_aside();
                self.nic.aside.store(false, Ordering::SeqCst);
                // A round that began before may have left something for the thread's next look, which is not near.
                self.nic.pay();
            }
        }
    }

    /// Sleeps on the sockets once and receives what came.
    fn watch(&mut self) {
        let nic = self.nic;
        let woken = self.sleep(None, true);
        self.chores();
        if !woken.sockets {
            return;
        }
        if nic.leading.load(Ordering::SeqCst) > 0 {
            // A caller was woken by the same packet and is the one to have it.
            self.late = self.patience;
            return;
        }
        let callers = nic.polls.load(Ordering::Relaxed) != self.seen;
        self.seen = nic.polls.load(Ordering::Relaxed);
        self.late = if callers { self.late + 1 } else { 0 };
        if self.late < self.patience && nic.try_round(Scan::Full, false).is_none() {
            // Somebody is at it; to wake again and again for the packets they have not come to would only take the
            // processor from them.
            self.late = self.patience;
            self.busy = true;
        }
    }

    /// Leaves the sockets to callers for as long as they take care of them.
    fn stand_aside(&mut self) {
        let nic = self.nic;
        let busy = std::mem::take(&mut self.busy);
        let mut tick = FIRST_TICK;
        let mut looks = 0;
        loop {
            let polls = nic.polls.load(Ordering::Relaxed);
            self.sleep(Some(tick), false);
            if nic.stop.load(Ordering::SeqCst) {
                return;
            }
            self.chores();
            let polled = nic.polls.load(Ordering::Relaxed) != polls;
            if nic.leading.load(Ordering::SeqCst) > 0 {
                // It may not receive for long: what others left owing when they last polled would wait with it.
                if nic.owing.load(Ordering::SeqCst) {
                    nic.pay();
                }
                tick = if polled { TICK } else { (tick * 2).min(LONG_TICK) };
                continue;
            }
            tick = (tick * 2).min(if looks < STEADY { TICK } else { STEADY_TICK });
            looks += 1;
            let recalled = nic.recall.swap(false, Ordering::SeqCst);
            if !recalled && polled {
                continue;
            }
            // Nobody polls any more, unless a caller was pushed from its processor in the middle of it. This round also
            // sends what callers left owing.
            if nic.try_round(Scan::Full, false).is_none() {
                continue;
            }
            if looks > PROVEN {
                self.patience = PATIENCE;
            } else if !busy {
                self.patience = (self.patience * 2).min(MOST_PATIENCE);
            }
            return;
        }
    }

    /// What is the thread's whoever receives.
    fn chores(&mut self) {
        self.nic.run_timers();
        self.housekeeping = self.nic.wire.housekeeping(Instant::now());
    }

    /// Sleeps until kicked, until a timer is due, at most for `limit`, and with `sockets` until one is readable.
    fn sleep(&mut self, limit: Option<Duration>, sockets: bool) -> Woken {
        let nic = self.nic;
        // Published before the timers are read: a deadline entered later kicks, one entered earlier is seen.
        nic.wakes_at.store(Nanos::MAX, Ordering::SeqCst);
        let now = nic.now();
        let timer = nic.timers.lock().unwrap_or_else(PoisonError::into_inner).next();
        let timer = timer.map(|due| Duration::from_nanos(due.saturating_sub(now)));
        let chores = self.housekeeping.map(|at| at.saturating_duration_since(Instant::now()));
        let mut timeout = [limit, timer, chores].into_iter().flatten().min();
        if let Some(timeout) = timeout {
            nic.wakes_at.store(now.saturating_add(timeout.as_nanos() as Nanos), Ordering::SeqCst);
        }
        if !sockets && nic.leading.load(Ordering::SeqCst) == 0 {
            // The caller that watched the sockets may have left before it could see that this sleep is a long one.
            timeout = timeout.map(|long| long.min(STEADY_TICK));
        }
        nic.near
            .store(timeout.is_some_and(|long| long.as_nanos() < u128::from(UNATTENDED_NS)), Ordering::SeqCst);
        let dozing = if sockets { nic.wire.doze() } else { None };
        if dozing.is_some() {
            // A peer that published something before it saw the announcement has not rung.
            match nic.try_round(Scan::Rings, false) {
                Some(received) if received.packets == 0 => {}
                Some(_) => timeout = Some(Duration::ZERO),
                None => timeout = Some(timeout.map_or(BUSY, |long| long.min(BUSY))),
            }
        }
        let fds = if sockets { &mut self.fds[..] } else { &mut self.fds[..1] };
        // Errors (a signal cannot be, all are blocked) show as nothing ready.
        let _ = os::wait(fds, timeout);
        drop(dozing);
        nic.wakes_at.store(0, Ordering::SeqCst);
        nic.near.store(true, Ordering::SeqCst);
        if fds[0].revents != 0 {
            while nic.kick.take() {}
        }
        let ready = fds[1..].iter().any(|fd| fd.revents != 0);
        for fd in fds {
            fd.revents = 0;
        }
        Woken { sockets: ready }
    }
}
