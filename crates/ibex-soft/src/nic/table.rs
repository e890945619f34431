//! Queue pairs by number.
//!
//! Owns the look-up that every packet needs: an index into an array, so that queue pairs used in the order of their numbers
//! are found in lines that are near already.

use std::sync::Arc;

use crate::net::qpn;
use crate::qp::Qp;

/// Queue pairs by number.
#[derive(Default)]
pub(crate) struct QpTable {
    /// Of each slot of the process: rarely more than one.
    slots: Vec<Slot>,
    /// How many queue pairs there are.
    count: usize,
}

/// More queue pairs than this are not all near when one of them is needed: each takes about four kilobytes with its
/// queues, of which a processor's second cache holds some hundreds.
const CROWD: usize = 256;

/// Queue pairs up to which what is sent next mostly goes over the one that the last message came by.
const FEW: usize = 4;

struct Slot {
    number: u16,
    /// By index; as long as the highest one that was used.
    qps: Vec<Option<Arc<Qp>>>,
}

impl QpTable {
    /// The queue pair of a number, if it is one of this process.
    #[inline]
    pub(crate) fn get(&self, num: u32) -> Option<&Arc<Qp>> {
        let number = qpn::slot(num);
        let slot = self.slots.iter().find(|slot| slot.number == number)?;
        slot.qps.get(qpn::index(num) as usize)?.as_ref()
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Qp>> {
        self.slots.iter().flat_map(|slot| &slot.qps).flatten()
    }

    /// Whether there are so many that one that is needed is worth being fetched at once.
    #[inline]
    pub(super) fn is_crowd(&self) -> bool {
        self.count > CROWD
    }

    /// Whether there are more than a few.
    #[inline]
    pub(super) fn is_several(&self) -> bool {
        self.count > FEW
    }

    /// Enters a queue pair.
    pub(super) fn insert(&mut self, qp: Arc<Qp>) {
        let (number, index) = (qpn::slot(qp.num), qpn::index(qp.num) as usize);
        let at = self.slots.iter().position(|slot| slot.number == number).unwrap_or_else(|| {
            self.slots.push(Slot { number, qps: Vec::new() });
            self.slots.len() - 1
        });
        let qps = &mut self.slots[at].qps;
        if qps.len() <= index {
            qps.resize(index + 1, None);
        }
        self.count += usize::from(qps[index].replace(qp).is_none());
    }

    /// Takes a queue pair out.
    pub(super) fn remove(&mut self, num: u32) -> Option<Arc<Qp>> {
        let number = qpn::slot(num);
        let slot = self.slots.iter_mut().find(|slot| slot.number == number)?;
        let gone = slot.qps.get_mut(qpn::index(num) as usize)?.take();
        self.count -= usize::from(gone.is_some());
        gone
    }
}
