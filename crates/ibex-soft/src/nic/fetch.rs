//! What is fetched into the processor's caches before it is come to.
//!
//! Owns that choice. A queue pair and what it refers to are some forty lines of the
//! processor's caches. With few of them in use they stay there; with thousands they do not, and each line would be waited for
//! as it is come to. So all are asked for at once when a queue pair is about to be worked on ([`Fetch::approach`]), and, where queue
//! pairs are used in the order of their numbers, while there is nothing else to do ([`Fetch::look_ahead`]).

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::QpTable;
use crate::memory;
use crate::qp::Qp;

/// What was worked on last. Nothing goes wrong if threads disagree about it.
#[derive(Default)]
pub(crate) struct Fetch {
    /// Whether there are many queue pairs, see [`QpTable::is_crowd`].
    crowd: AtomicBool,
    /// If so, the number of the one worked on last.
    last: AtomicU32,
    /// The one that has been fetched although nobody works on it.
    fetched: AtomicU32,
}

/// The one after the queue pair worked on last.
#[derive(Default)]
pub(super) struct Ahead {
    /// The queue pair worked on last, when last seen.
    last: u32,
    next: Next,
}

/// How much of it is fetched.
#[derive(Clone, Copy, Default)]
enum Next {
    /// All, or nothing is to be.
    #[default]
    Done,
    /// Nothing yet.
    Wanted,
    /// All but what it refers to.
    Begun,
}

impl Fetch {
    /// There are many queue pairs now, or few.
    pub(super) fn note(&self, qps: &QpTable) {
        self.crowd.store(qps.is_crowd(), Ordering::Relaxed);
    }

    /// Whether there are many queue pairs.
    #[inline]
    pub(crate) fn is_crowd(&self) -> bool {
        self.crowd.load(Ordering::Relaxed)
    }

    /// A queue pair is about to be worked on: has it fetched at once if it is one among many, and neither the one that was
    /// worked on last nor fetched already. Says so; [`Inner::prefetch`](crate::qp::Inner::prefetch) does the rest.
    #[inline]
    pub(crate) fn approach(&self, qp: &Qp) -> bool {
        if !self.is_crowd() || self.last.load(Ordering::Relaxed) == qp.num {
            return false;
        }
        self.last.store(qp.num, Ordering::Relaxed);
        let far = self.fetched.load(Ordering::Relaxed) != qp.num;
        if far {
            memory::prefetch(qp);
        }
        far
    }

    /// There is nothing to do: if many queue pairs are used in the order of their numbers, has the next one fetched, the queue
    /// pair in one look and what it refers to in another. On the way of a message so many lines at once would hold it up.
    #[inline]
    pub(super) fn look_ahead(&self, ahead: &mut Ahead, queue_pairs: &QpTable) {
        if !self.is_crowd() {
            return;
        }
        let last = self.last.load(Ordering::Relaxed);
        if last != ahead.last {
            ahead.next = if last == ahead.last.wrapping_add(1) { Next::Wanted } else { Next::Done };
            ahead.last = last;
        }
        if let Next::Done = ahead.next {
            return;
        }
        ahead.next = match (ahead.next, queue_pairs.get(last.wrapping_add(1))) {
            (Next::Wanted, Some(next)) => {
                memory::prefetch(&**next);
                Next::Begun
            }
            (Next::Begun, Some(next)) => {
                next.prefetch();
                self.fetched.store(next.num, Ordering::Relaxed);
                Next::Done
            }
            _ => Next::Done,
        };
    }
}
