//! Completion queues: the ring of completions, arming, overflow.
//!
//! Owns when a completion raises an event, as `ibv_req_notify_cq(3)` has it: arming concerns completions added
//! afterwards; a queue armed for any completion stays so when armed again for solicited ones; completions with an error
//! count as solicited; one arming gives one event. Does not own waiting for events ([`crate::nic`]).
//!
//! | file | owns |
//! |---|---|
//! | `walk` | taking completions one by one, as the extended interface does |
//! | `unpolled` | how many completions of a queue wait to be polled |
//! | `moderation` | events that wait for more completions or some time |
//!
//! Locks: a queue pair's lock may be held when one of these is taken, never the other way round.

mod moderation;
mod unpolled;
mod walk;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ibex_sys::lock::{Guard, Lock};
use ibex_sys::{IBV_WC_SUCCESS, ibv_wc};

use crate::event::{EventQueue, Unacked};
use crate::os;

pub(crate) use moderation::Moderation;
pub(crate) use unpolled::Unpolled;
pub(crate) use walk::Walk;

/// Most entries a completion queue can be created with.
pub(crate) const MAX_CQE: u32 = 1 << 20;

/// What a completion channel's event names: the address of the program's `ibv_cq`, as a number.
pub(crate) type CqName = usize;

/// A completion channel: `ibv_comp_channel`'s inside.
#[derive(Debug)]
pub(crate) struct Channel {
    /// Events of the queues on this channel.
    pub(crate) events: EventQueue<CqName>,
    /// Completion queues that use the channel; it cannot be destroyed before they are.
    pub(crate) users: AtomicU32,
}

/// What the next completion does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Armed {
    Not,
    Solicited,
    Any,
}

/// A completion and the queue whose request it was of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entry {
    pub(crate) wc: ibv_wc,
    /// When it completed, on the device's clock; 0 in a queue that takes no times.
    pub(crate) time: u64,
    /// Left in place when the completion is taken, so that in a steady state no reference is counted.
    owner: Option<Unpolled>,
}

impl Entry {
    #[inline(always)]
    fn set(&mut self, wc: ibv_wc, time: u64, owner: &Unpolled) {
        self.wc = wc;
        self.time = time;
        if !self.owner.as_ref().is_some_and(|old| old.is(owner)) {
            self.hand_over(owner);
        }
        owner.add();
    }

    #[inline(never)]
    fn hand_over(&mut self, owner: &Unpolled) {
        self.owner = Some(owner.clone());
    }

    /// It is polled, with the queue's lock held.
    #[inline]
    fn taken(&self) {
        if let Some(owner) = &self.owner {
            owner.take();
        }
    }

    /// The same without the lock.
    #[inline]
    fn walked(&self) {
        if let Some(owner) = &self.owner {
            owner.walk();
        }
    }
}

#[derive(Debug)]
struct Ring {
    /// `capacity` of them, and room for what a walk gives back.
    entries: Box<[Entry]>,
    capacity: usize,
    head: usize,
    len: usize,
    armed: Armed,
    overflown: bool,
    /// When an event for which the queue is armed is raised; `None`: at once.
    moderation: Option<Box<Moderation>>,
    /// Whether a walk took several completions the last time, and may not have moved to all of them.
    lent: bool,
    /// Queue pairs whose completions were removed since then.
    purged: Vec<u32>,
}

/// A completion queue.
#[derive(Debug)]
pub(crate) struct Cq {
    ring: Lock<Ring>,
    /// `Ring::len` without the lock, to see emptiness cheaply.
    waiting: AtomicUsize,
    /// The channel events go to, and the name they carry.
    channel: Option<(Arc<Channel>, CqName)>,
    /// The address of the program's `ibv_cq`, for asynchronous events.
    pub(crate) name: CqName,
    /// Whether completions are stamped with the time.
    timed: bool,
    /// Whether `Ring::purged` has something for a walk to see.
    purges: AtomicBool,
    /// Counts for the queues attached.
    counts: Mutex<unpolled::Supply>,
    /// Queue pair ends attached (send and receive count one each): it cannot be destroyed before they are gone.
    pub(crate) users: AtomicU32,
    /// Completion events delivered and not acknowledged.
    pub(crate) completion_events: Unacked,
    /// Asynchronous events delivered and not acknowledged.
    pub(crate) async_events: Unacked,
}

/// The queue was full: the completion is lost and the queue is in error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("completion queue overflow; create it with an entry for every request that can be outstanding")]
pub(crate) struct Overflow {
    /// True for the overflow that put the queue in error: the one to report.
    pub(crate) first: bool,
}

impl Cq {
    /// A queue of `capacity` entries, named `name` in events; if `timed`, completions are stamped with the time.
    pub(crate) fn new(capacity: u32, name: CqName, channel: Option<Arc<Channel>>, timed: bool) -> Cq {
        if let Some(channel) = &channel {
            channel.users.fetch_add(1, Ordering::Relaxed);
        }
        let ring = Ring {
            entries: room(capacity),
            capacity: capacity as usize,
            head: 0,
            len: 0,
            armed: Armed::Not,
            overflown: false,
            moderation: None,
            lent: false,
            purged: Vec::new(),
        };
        Cq {
            ring: Lock::new(ring),
            waiting: AtomicUsize::new(0),
            channel: channel.map(|channel| (channel, name)),
            name,
            timed,
            purges: AtomicBool::new(false),
            counts: Mutex::default(),
            users: AtomicU32::new(0),
            completion_events: Unacked::default(),
            async_events: Unacked::default(),
        }
    }

    /// A count for a queue whose completions all come here.
    pub(crate) fn unpolled(&self) -> Unpolled {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Adds a completion of a request of `owner`'s and raises the event it is armed for.
    ///
    /// # Errors
    /// [`Overflow`] if there is no room, now or earlier.
    #[inline(always)]
    pub(crate) fn push(&self, completion: ibv_wc, solicited: bool, owner: &Unpolled) -> Result<(), Overflow> {
        let mut ring = self.lock();
        if ring.overflown || ring.len >= ring.capacity {
            let first = !ring.overflown;
            ring.overflown = true;
            return Err(Overflow { first });
        }
        let at = ring.slot(ring.len);
        let weight =
            if solicited || completion.status != IBV_WC_SUCCESS { Armed::Solicited } else { Armed::Any };
        let time = if self.timed { os::clock_ns() } else { 0 };
        ring.entries[at].set(completion, time, owner);
        ring.len += 1;
        self.waiting.store(ring.len, Ordering::Release);
        if ring.armed >= weight && ring.is_time_for_event() {
            self.raise(&mut ring);
        }
        Ok(())
    }

    /// Raises the event the queue is armed for.
    #[cold]
    fn raise(&self, ring: &mut Ring) {
        ring.armed = Armed::Not;
        if let Some((channel, name)) = &self.channel {
            channel.events.push(*name);
        }
    }

    /// Takes up to `most` completions, oldest first, giving each to `take`; returns how many.
    #[inline]
    pub(crate) fn pop(&self, most: usize, mut take: impl FnMut(usize, &ibv_wc)) -> usize {
        if self.is_empty() {
            return 0;
        }
        let mut ring = self.lock();
        let count = ring.len.min(most);
        for index in 0..count {
            let at = ring.slot(index);
            take(index, &ring.entries[at].wc);
            ring.entries[at].taken();
        }
        ring.head = ring.slot(count);
        ring.len -= count;
        self.waiting.store(ring.len, Ordering::Release);
        count
    }

    /// Whether no completion waits; may be out of date at once.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.load(Ordering::Acquire) == 0
    }

    /// Asks for an event at the next completion, or the next solicited one.
    pub(crate) fn arm(&self, solicited_only: bool) {
        let mut ring = self.lock();
        ring.armed = ring.armed.max(if solicited_only { Armed::Solicited } else { Armed::Any });
    }

    /// Changes the number of entries.
    ///
    /// # Errors
    /// `EINVAL` if more completions wait than would fit.
    pub(crate) fn resize(&self, capacity: u32) -> Result<(), i32> {
        let mut ring = self.lock();
        if ring.len > capacity as usize {
            return Err(libc::EINVAL);
        }
        let mut entries = room(capacity);
        for (index, entry) in entries.iter_mut().enumerate().take(ring.len) {
            let at = ring.slot(index);
            std::mem::swap(entry, &mut ring.entries[at]);
        }
        ring.entries = entries;
        ring.capacity = capacity as usize;
        ring.head = 0;
        Ok(())
    }

    /// Removes the completions of one queue pair, as its destruction and its reset do.
    pub(crate) fn purge(&self, qp_num: u32) {
        let mut ring = self.lock();
        let mut kept = 0;
        for index in 0..ring.len {
            let (at, to) = (ring.slot(index), ring.slot(kept));
            if ring.entries[at].wc.qp_num == qp_num {
                ring.entries[at].taken();
            } else {
                ring.entries.swap(at, to);
                kept += 1;
            }
        }
        ring.len = kept;
        self.waiting.store(kept, Ordering::Release);
        if ring.lent {
            ring.purged.push(qp_num);
            self.purges.store(true, Ordering::Release);
        }
    }

    /// Discards events that were raised and not delivered.
    pub(crate) fn discard_events(&self) {
        if let Some((channel, name)) = &self.channel {
            channel.events.retain(|event| event != name);
        }
    }

    #[inline]
    fn lock(&self) -> Guard<'_, Ring> {
        self.ring.lock()
    }
}

/// Memory for a queue of `capacity` entries.
fn room(capacity: u32) -> Box<[Entry]> {
    vec![Entry::default(); capacity as usize + walk::BATCH].into_boxed_slice()
}

impl Ring {
    /// Where the entry `index` places behind the head stands.
    fn slot(&self, index: usize) -> usize {
        let at = self.head + index;
        if at >= self.entries.len() { at - self.entries.len() } else { at }
    }
}

impl Drop for Cq {
    fn drop(&mut self) {
        self.discard_events();
        if let Some((channel, _)) = &self.channel {
            channel.users.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
#[path = "cq_tests.rs"]
mod tests;
