//! The NIC: one per process and address. Everything the contexts opened on it share.
//!
//! Owns the link, the table of regions, the table of queue pairs, the receive engine, timers, and who drives them.
//! Does not own the objects' rules ([`crate::qp`], [`crate::cq`]).
//!
//! | file | owns |
//! |---|---|
//! | `engine` | one receive round, and callers that poll driving it inline |
//! | `thread` | the thread that drives it otherwise, and how it stands back |
//! | `wait` | callers that block for an event, driving it meanwhile |
//! | `stall` | queue pairs that wait for room on their link |
//! | `table` | queue pairs by number |
//! | `fetch` | what of many queue pairs is fetched before it is come to |
//! | `timers` | the times at which queue pairs want to be looked at |
//! | `exit` | acknowledgements still owed when the process ends |
//! | `registry` | which NICs the process has; fork |
//!
//! # Who drives
//!
//! A packet costs one wake-up at most. A caller that polls an empty completion queue receives inline. A caller that
//! blocks in `ibv_get_cq_event` watches the sockets itself (one of them does, the *leader*). The thread watches them
//! when nobody else does; woken again and again although callers poll between, it steps aside and only looks in every
//! few milliseconds. Timers are always the thread's.

mod engine;
mod exit;
mod fetch;
mod registry;
mod stall;
mod table;
mod thread;
mod timers;
mod wait;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ibex_proto::{Clock, Nanos};
use ibex_sys::lock::Lock;

use crate::cm;
use crate::cq::Cq;
use crate::device::{AsyncEvent, AsyncQueue};
use crate::mr::{Held, Keys, MrTable, PdNumber, Region, WindowKind};
use crate::net::{Config, NetError, TxBatch, Wire, management};
use crate::oneside::RegionEntry;
use crate::os;
use crate::os::EventFd;
use crate::qp::Qp;

pub(crate) use registry::{GENERATIONS, OpenNic, generation, open};
pub(crate) use table::QpTable;
pub(crate) use timers::{LATE, Timer};
pub(crate) use wait::sleep;

/// How long the end of a queue pair waits for room for an acknowledgement that it owes: a peer that has not read for so long is
/// taken for stopped, see [`crate::host`].
const LAST_WORDS: Duration = Duration::from_millis(20);

/// A NIC.
pub(crate) struct Nic {
    pub(crate) wire: Wire,
    pub(crate) cm: cm::Service,
    mrs: RwLock<MrTable>,
    qps: RwLock<QpTable>,
    /// What is fetched before it is come to.
    pub(crate) fetch: fetch::Fetch,
    engine: Lock<engine::Engine>,
    /// Queue pairs that the next round drives.
    stalled: stall::Stalled,
    /// Transmit buffers not in use.
    batches: Mutex<Vec<TxBatch>>,
    timers: Mutex<timers::Timers>,
    /// The deadline of connection management.
    cm_timer: Timer,
    /// On the host's clock.
    origin: Nanos,
    /// Times that callers polled or, blocking, were woken: whether it changes tells whether anybody is there.
    polls: AtomicU64,
    leader: Mutex<()>,
    /// Callers that watch the sockets now: 0 or 1.
    leading: AtomicU32,
    /// Callers blocked for events without watching the sockets.
    followers: AtomicU32,
    /// Wakes one follower, to become the leader.
    baton: EventFd,
    /// Wakes the thread.
    kick: EventFd,
    /// When the thread will wake by itself, on the clock of [`Nic::now`]; 0 while it is awake.
    wakes_at: AtomicU64,
    /// Whether that was near when it went to sleep, or it is awake: what a polling caller asks without reading the clock.
    near: AtomicBool,
    /// Whether an acknowledgement was left for a request to come.
    owing: AtomicBool,
    /// Whether the program blocks in `wait_event`, which programs that poll the descriptor never do.
    blocking: AtomicBool,
    /// Whether the thread has left the sockets to callers.
    aside: AtomicBool,
    /// Whether the thread is to come back to them at once.
    recall: AtomicBool,
    stop: AtomicBool,
    /// Whether the process is ending: nothing may be left for later.
    ending: AtomicBool,
    /// Whether something in the device went wrong beyond repair.
    failed: AtomicBool,
    /// Where to tell of that.
    contexts: Mutex<Vec<Weak<AsyncQueue>>>,
    /// Numbers of protection domains given so far.
    domains: AtomicU32,
}

/// Why a NIC could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// The link.
    #[error("the wire link could not be opened: {0}")]
    Net(#[from] NetError),
    /// A descriptor or the thread.
    #[error("no resources for the device: {0}; raise the limit of open files or threads")]
    Os(#[from] std::io::Error),
    /// Too many forks since the first open.
    #[error("the device is lost in this deeply forked process; exec a new program")]
    Forked,
}

/// What other processes have to know of a region.
fn published(rkey: u32, region: &Region) -> RegionEntry {
    let Region { pd, access, iova, .. } = *region;
    let (address, len) = (region.memory.address(), region.memory.len());
    RegionEntry { rkey, pd, access, iova, address, len }
}

impl Clock for Nic {
    fn now(&self) -> Nanos {
        Nic::now(self)
    }
}

impl Nic {
    /// Opens the link and starts the thread.
    fn start(config: &Config) -> Result<(Arc<Nic>, JoinHandle<()>), OpenError> {
        let wire = Wire::open(config)?;
        let mut timers = timers::Timers::default();
        let nic = Arc::new(Nic {
            cm: cm::Service::new(&wire),
            wire,
            mrs: RwLock::new(MrTable::with_secret(crate::net::random() as u32)),
            qps: RwLock::default(),
            fetch: fetch::Fetch::default(),
            engine: Lock::new(engine::Engine::new()),
            stalled: stall::Stalled::default(),
            batches: Mutex::default(),
            cm_timer: timers.add(management::QPN),
            timers: Mutex::new(timers),
            origin: os::clock_ns(),
            polls: AtomicU64::new(0),
            leader: Mutex::default(),
            leading: AtomicU32::new(0),
            followers: AtomicU32::new(0),
            baton: EventFd::new()?,
            kick: EventFd::new()?,
            wakes_at: AtomicU64::new(0),
            near: AtomicBool::new(false),
            owing: AtomicBool::new(false),
            blocking: AtomicBool::new(false),
            aside: AtomicBool::new(false),
            recall: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            contexts: Mutex::default(),
            domains: AtomicU32::new(1),
        });
        let thread = thread::spawn(nic.clone())?;
        Ok((nic, thread))
    }

    /// Nanoseconds since the NIC was opened.
    pub(crate) fn now(&self) -> Nanos {
        os::clock_ns() - self.origin
    }

    /// The table of regions, guarded: none can be deregistered while the guard lives. Not to be taken twice by one
    /// thread, nor with a queue pair's lock held.
    #[inline]
    pub(crate) fn regions(&self) -> RwLockReadGuard<'_, MrTable> {
        self.mrs.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The table of queue pairs, guarded: none is destroyed while the guard lives. Not to be taken twice by one thread, nor
    /// with a queue pair's lock held; after the table of regions.
    pub(crate) fn queue_pairs(&self) -> RwLockReadGuard<'_, QpTable> {
        self.qps.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a region; `None` if there are too many.
    pub(crate) fn register(&self, region: Region) -> Option<Keys> {
        let mut mrs = self.mrs.write().unwrap_or_else(PoisonError::into_inner);
        let keys = mrs.insert(region)?;
        if let (Some(memory), Ok(region)) = (self.wire.memory(), mrs.region_mut(keys.lkey)) {
            memory.enter_region(&published(keys.rkey, region));
        }
        Some(keys)
    }

    /// Removes a region. When this returns no copy from or to it is in progress and none will start (fence F3).
    ///
    /// # Errors
    /// `EBUSY` while windows are bound to it, or if another process was stopped in the middle of a copy; then the region is
    /// still there.
    pub(crate) fn deregister(&self, lkey: u32) -> Result<(), i32> {
        self.withdraw_region(lkey)?;
        match self.mrs.write().unwrap_or_else(PoisonError::into_inner).remove(lkey) {
            // The key may be gone already, with a context that was closed.
            Ok(_) | Err(Held::Gone) => Ok(()),
            Err(held) => Err(held.errno()),
        }
    }

    /// Other processes reach the region by packets only from now on.
    fn withdraw_region(&self, lkey: u32) -> Result<(), i32> {
        if self.regions().is_bound(lkey) {
            return Err(libc::EBUSY);
        }
        match self.wire.memory() {
            Some(memory) => memory.leave_region(lkey),
            None => Ok(()),
        }
    }

    /// Makes a memory window; its key. `None` if there are too many.
    pub(crate) fn add_window(&self, pd: PdNumber, kind: WindowKind) -> Option<u32> {
        self.mrs.write().unwrap_or_else(PoisonError::into_inner).insert_window(pd, kind)
    }

    /// Frees a memory window. When this returns no copy through it is in progress and none will start.
    pub(crate) fn remove_window(&self, pd: PdNumber, key: u32) {
        self.mrs.write().unwrap_or_else(PoisonError::into_inner).remove_window(pd, key);
    }

    /// Removes all regions and windows of these domains.
    ///
    /// # Errors
    /// `EBUSY` if another process was stopped in the middle of a copy; then all are still there.
    pub(crate) fn deregister_domains(&self, domains: &[PdNumber]) -> Result<(), i32> {
        if let Some(memory) = self.wire.memory() {
            let lkeys = self.regions().of_domains(domains);
            lkeys.into_iter().try_for_each(|lkey| memory.leave_region(lkey))?;
        }
        self.mrs.write().unwrap_or_else(PoisonError::into_inner).remove_domains(domains);
        Ok(())
    }

    /// Changes a region in place; what was allowed before and is not any more has ended when this returns.
    ///
    /// # Errors
    /// `EINVAL` if there is no such region; `EBUSY` as for [`Nic::deregister`]. Then nothing has changed.
    pub(crate) fn change_region<R>(
        &self,
        lkey: u32,
        change: impl FnOnce(&mut Region) -> R,
    ) -> Result<R, i32> {
        self.withdraw_region(lkey)?;
        let mut mrs = self.mrs.write().unwrap_or_else(PoisonError::into_inner);
        let region = mrs.region_mut(lkey).map_err(Held::errno)?;
        let changed = change(region);
        if let Some(memory) = self.wire.memory() {
            memory.enter_region(&published(lkey | 1, region));
        }
        Ok(changed)
    }

    /// Makes a queue pair reachable.
    pub(crate) fn attach(&self, qp: Arc<Qp>) {
        let mut qps = self.qps.write().unwrap_or_else(PoisonError::into_inner);
        qps.insert(qp.clone());
        self.fetch.note(&qps);
        drop(qps);
        self.engine.lock().admit(qp);
    }

    /// Makes a queue pair unreachable. When this returns no packet for it is being worked on and none will be, and
    /// no transmission of its is in progress once its lock has been had (fence F2).
    pub(crate) fn detach(&self, num: u32) {
        let mut qps = self.qps.write().unwrap_or_else(PoisonError::into_inner);
        let gone = qps.remove(num);
        self.fetch.note(&qps);
        drop(qps);
        self.engine.lock().release(num);
        if let Some(qp) = gone {
            // What its peers do with this process's memory ends here, too.
            let (mrs, mut inner) = qp.lock_unseen(self, |_| true);
            inner.owe_all();
            if inner.owes() {
                // The program may have seen what the peer still waits to have acknowledged.
                qp.drive(self, &mrs, &mut inner);
            }
            // Behind messages of this end's in a full ring it has to wait for the peer to read some.
            let deadline = Instant::now() + LAST_WORDS;
            while (inner.owes_only_ack() || !inner.settle_link()) && Instant::now() < deadline {
                std::thread::yield_now();
                qp.drive(self, &mrs, &mut inner);
            }
            if inner.owe_again(self.wire.address()) {
                qp.drive(self, &mrs, &mut inner);
            }
            qp.reset(self, &mrs, &mut inner);
            qp.timer.put_off(Nanos::MAX);
        }
        self.wire.free_qpn(num);
    }

    /// Tells a context of the device's failure, if there ever is one.
    pub(crate) fn subscribe(&self, events: &Arc<AsyncQueue>) {
        let mut contexts = self.contexts.lock().unwrap_or_else(PoisonError::into_inner);
        contexts.retain(|known| known.strong_count() > 0);
        contexts.push(Arc::downgrade(events));
    }

    /// The device has failed: every verb gives `EIO` from now on, and every context learns it.
    pub(crate) fn fail(&self) {
        if self.failed.swap(true, Ordering::SeqCst) {
            return;
        }
        let contexts = self.contexts.lock().unwrap_or_else(PoisonError::into_inner);
        for events in contexts.iter().filter_map(Weak::upgrade) {
            events.push(AsyncEvent::Device(ibex_sys::IBV_EVENT_DEVICE_FATAL));
        }
        // Whoever blocks passes it on to the next.
        self.baton.add();
    }

    /// Whether the device has failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// A number for a new protection domain.
    pub(crate) fn domain(&self) -> PdNumber {
        self.domains.fetch_add(1, Ordering::Relaxed)
    }

    /// An empty transmit buffer.
    pub(crate) fn batch(&self) -> TxBatch {
        let pooled = self.batches.lock().unwrap_or_else(PoisonError::into_inner).pop();
        pooled.unwrap_or_else(TxBatch::new)
    }

    /// Gives a transmit buffer back.
    pub(crate) fn return_batch(&self, mut batch: TxBatch) {
        batch.reset();
        self.batches.lock().unwrap_or_else(PoisonError::into_inner).push(batch);
    }

    /// A caller polls a completion queue.
    #[inline]
    pub(crate) fn polled(&self) {
        // A count lost to another caller's does not matter: that it changes is what counts.
        self.polls.store(self.polls.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// A completion queue was armed: its user may be about to sleep on the channel's descriptor, without polling or
    /// blocking here any more.
    pub(crate) fn armed(&self) {
        // Whoever sleeps in `wait_event` instead takes the sockets over at once, and the thread finds nothing to do.
        if self.aside.load(Ordering::SeqCst) && !self.blocking.load(Ordering::Relaxed) {
            self.recall.store(true, Ordering::SeqCst);
            self.kick.add();
        }
    }

    /// Has the completion queue looked at when `due` comes.
    pub(crate) fn alarm(&self, due: Nanos, cq: Weak<Cq>) {
        self.timers.lock().unwrap_or_else(PoisonError::into_inner).enter_alarm(due, cq);
        if due < self.wakes_at.load(Ordering::SeqCst) {
            self.kick.add();
        }
    }

    /// A queue pair could not send all it wanted to: it is driven again by the next round. Returns when it has to be driven
    /// if there is none.
    pub(crate) fn stall(&self, now: Nanos, qp: u32) -> Nanos {
        self.stalled.enter(qp);
        now.saturating_add(stall::RETRY_NS)
    }

    /// A place for a queue pair's deadlines.
    pub(crate) fn add_timer(&self, qp: u32) -> Timer {
        self.timers.lock().unwrap_or_else(PoisonError::into_inner).add(qp)
    }

    /// Has the owner of `timer` looked at when `due` comes, which is sooner than so far.
    pub(crate) fn timer(&self, timer: &Timer, due: Nanos) {
        if timer.advance(due) && due < self.wakes_at.load(Ordering::SeqCst) {
            self.kick.add();
        }
    }

    /// Has connection management looked at when `due` comes, which is sooner than so far.
    pub(crate) fn cm_timer(&self, due: Nanos) {
        self.timer(&self.cm_timer, due);
    }
}
