//! One-sided operations on the memory of another process of this host, carried out by the process that posts them.
//!
//! Owns what a process lets its peers see of its keys and queue pairs, how they reach its memory, and the fence that takes
//! memory back. Does not own when an operation may go this way ([`crate::qp`]), nor who is attached to whom, how
//! descriptors get across, and how the end of a process is noticed: that is the host link's.
//!
//! | file | owns |
//! |---|---|
//! | `tables` | the publication: keys and queue pairs of this process, in memory that peers read |
//! | `hazard` | which key and queue pair a peer works on just now, in memory that peers write; waiting for them |
//! | `life` | whether a process still lives |
//! | `view` | a peer's publication, read; the permission to work on a key |
//! | `reach` | a peer's bytes: shared files mapped here, or the kernel's copies between processes |
//!
//! # Trust
//! Peers are processes of the same user, which could attach a debugger to each other; the kernel's rule for that is the one
//! asked here. A peer that is broken may give wrong data or wait for its own copy; it cannot make this process touch
//! memory it does not own: everything read from shared memory is read once and checked.
//!
//! # Order of calls
//! [`OneSide::new`] with the NIC. When a peer attaches: [`OneSide::admit`] gives it a [`Line`], whose [`Line::greeting`] and
//! [`OneSide::files`] are sent to it; what it sends in turn becomes a [`View`], of which the line learns
//! ([`Line::attached`]). When it is gone, its line and view are dropped.

mod hazard;
mod life;
mod reach;
mod tables;
#[cfg(test)]
mod tests;
mod view;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

pub(crate) use hazard::Line;
pub(crate) use life::Life;
pub(crate) use reach::{Map, Path, Pieces, shares};
pub(crate) use tables::{Access, QpEntry, RegionEntry};
pub(crate) use view::{View, Wanted};

use hazard::Hazards;
use tables::Tables;

/// Bytes that two processes tell each other about their memory when they attach.
pub(crate) const GREETING: usize = 64;

/// Descriptors that go with them.
pub(crate) const FILES: usize = 2;

/// What this process lets its peers do with its memory.
#[derive(Debug)]
pub(crate) struct OneSide {
    tables: Tables,
    hazards: Arc<Hazards>,
}

impl OneSide {
    /// Makes the shared files, with nothing in them.
    ///
    /// # Errors
    /// Those of memfd_create(2), ftruncate(2), mmap(2) and fcntl(2).
    pub(crate) fn new() -> io::Result<OneSide> {
        Ok(OneSide { tables: Tables::new()?, hazards: Arc::default() })
    }

    /// The files the peer with this line needs, in the order in which [`View::attach`] wants them; `None` if it has them.
    pub(crate) fn files<'a>(&'a self, line: &'a Line) -> Option<[BorrowedFd<'a>; FILES]> {
        Some([self.tables.file(), line.file()?])
    }

    /// Has peers see this process as alive, until what is returned is dropped or the calling thread ends.
    pub(crate) fn live(&self) -> Option<Life<'_>> {
        Life::begin(&self.tables)
    }

    /// A place for one more peer to say what it works on; `None` if there are too many peers, or no memory.
    pub(crate) fn admit(&self) -> Option<Line> {
        Line::new(&self.hazards)
    }

    /// Makes a region known to peers. Some are not: those that peers have no rights to, and a few whose place in the
    /// table is taken. Such are reached by packets.
    pub(crate) fn enter_region(&self, region: &RegionEntry) {
        self.tables.enter_region(region, shares().find(region.address, region.len));
    }

    /// Withdraws a region and waits until no peer copies from or to it (fence F3).
    ///
    /// # Errors
    /// `EBUSY` if one does for [`hazard::PATIENCE`]: a process that was stopped in the middle of a copy. Then the region is
    /// known to peers again, and nothing has changed.
    pub(crate) fn leave_region(&self, lkey: u32) -> Result<(), i32> {
        let Some(entry) = self.tables.withdraw_region(lkey) else { return Ok(()) };
        if self.hazards.wait_for_region(entry.index()) {
            return Ok(());
        }
        self.tables.restore(entry);
        Err(libc::EBUSY)
    }

    /// Makes a queue pair known to peers, or what is known of it true again.
    pub(crate) fn enter_queue_pair(&self, num: u32, entry: &QpEntry) {
        self.tables.enter_queue_pair(num, entry);
    }

    /// Withdraws a queue pair. Peers may be in the middle of an operation through it.
    pub(crate) fn leave_queue_pair(&self, num: u32) {
        self.tables.withdraw_queue_pair(num);
    }

    /// Waits for those: when this returns, peers have finished what they did through a queue pair that was withdrawn, or
    /// have been stopped.
    pub(crate) fn await_queue_pair(&self, num: u32) {
        self.hazards.wait_for_queue_pair(tables::queue_pair_index(num));
    }
}
