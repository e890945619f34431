//! The NIC's thread: drives the device when no caller does.
//!
//! Owns the two ways it waits. *Watching*, it sleeps on the sockets and receives what comes. *Aside*, it sleeps for a
//! millisecond at a time (longer while a caller blocks on the sockets) and only sees whether packets are left lying
//! or callers have gone quiet, in which case it watches again. It steps aside when it keeps arriving too late for packets
//! that a polling caller has taken. It sleeps for ever when nothing happens.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ibex_proto::Nanos;

use super::Nic;
use crate::net::Scan;
use crate::os::{self, watch};

/// How long the thread stays aside before it looks in: what a packet waits at worst when callers go quiet.
const TICK: Duration = Duration::from_millis(1);

/// The same while a caller watches the sockets in its place; the caller wakes the thread when it leaves after having
/// slept longer than [`TICK`].
const LONG_TICK: Duration = Duration::from_millis(100);

/// Wake-ups in a row that came too late before the thread steps aside, at first and at most: the number doubles each
/// time stepping aside proved wrong, as it does for a program that polls memory and not the device.
const PATIENCE: u32 = 3;
const MOST_PATIENCE: u32 = 64;

/// Starts the thread.
///
/// # Errors
/// Those of `pthread_create(3)`.
pub(super) fn spawn(nic: Arc<Nic>) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("ibex-nic".into()).stack_size(256 * 1024).spawn(move || {
        os::block_signals();
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
}

impl<'a> Watcher<'a> {
    fn new(nic: &'a Nic) -> Watcher<'a> {
        let [direct, rest] = nic.wire.fds();
        let fds = [watch(nic.kick.raw()), watch(direct), watch(rest)];
        Watcher { nic, fds, housekeeping: None, patience: PATIENCE, late: 0 }
    }

    fn run(&mut self) {
        while !self.nic.stop.load(Ordering::SeqCst) {
            self.watch();
            if self.late >= self.patience {
                self.late = 0;
                self.nic.aside.store(true, Ordering::SeqCst);
                self.stand_aside();
                self.nic.aside.store(false, Ordering::SeqCst);
            }
        }
    }

    /// Sleeps on the sockets once and receives what came.
    fn watch(&mut self) {
        let rounds = self.nic.inline_rounds.load(Ordering::Relaxed);
        let woken = self.sleep(None, true);
        self.chores();
        if !woken.sockets {
            return;
        }
        if self.nic.leading.load(Ordering::SeqCst) > 0 {
            // A caller was woken by the same packet and is the one to have it.
            self.late = self.patience;
            return;
        }
        let taken = match self.nic.try_round(Scan::Full) {
            Some(received) => received.packets == 0,
            None => {
                // Whoever receives may have been preempted: to spin here would keep it so.
                std::thread::yield_now();
                true
            }
        };
        let callers = self.nic.inline_rounds.load(Ordering::Relaxed) != rounds;
        self.late = if taken && callers { self.late + 1 } else { 0 };
    }

    /// Leaves the sockets to callers for as long as they take care of them.
    fn stand_aside(&mut self) {
        let mut tick = TICK;
        let mut found = 0;
        loop {
            let rounds = self.nic.inline_rounds.load(Ordering::Relaxed);
            self.sleep(Some(tick), false);
            if self.nic.stop.load(Ordering::SeqCst) {
                return;
            }
            self.chores();
            if self.nic.leading.load(Ordering::SeqCst) > 0 {
                tick = (tick * 2).min(LONG_TICK);
                continue;
            }
            tick = TICK;
            if self.nic.inline_rounds.load(Ordering::Relaxed) == rounds {
                // Nobody has polled since: take over, and receive what may wait already.
                self.nic.try_round(Scan::Full);
                self.patience = PATIENCE.max(self.patience / 2);
                return;
            }
            // A packet may have just come; two ticks in a row with packets lying about is no chance.
            let waiting = self.nic.try_round(Scan::Full).is_some_and(|received| received.packets > 0);
            found = if waiting { found + 1 } else { 0 };
            if found == 2 {
                self.patience = (self.patience * 2).min(MOST_PATIENCE);
                return;
            }
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
        let timeout = [limit, timer, chores].into_iter().flatten().min();
        if let Some(timeout) = timeout {
            nic.wakes_at.store(now + timeout.as_nanos() as Nanos, Ordering::SeqCst);
        }
        let fds = if sockets { &mut self.fds[..] } else { &mut self.fds[..1] };
        // Errors (a signal cannot be, all are blocked) show as nothing ready.
        let _ = os::wait(fds, timeout);
        nic.wakes_at.store(0, Ordering::SeqCst);
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
