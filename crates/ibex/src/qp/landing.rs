//! Words where the results of atomics land.
//!
//! One word for each slot of the send queue, registered together when the first atomic is posted. Never behind a
//! reference.
//!
//! # Safety
//! The words stay mapped and registered, for local use only (I1), as long as the queue pair's shared part lives.
#![allow(unsafe_code)]

use ibex_sys as sys;

use crate::mem::{Mapping, MemoryError, Pages, Registration};
use crate::pd::ProtectionDomain;

pub(super) struct Landing {
    words: Registration<Mapping>,
    mask: u32,
}

impl Landing {
    /// Words for a queue of so many requests.
    pub(super) fn new(pd: &ProtectionDomain, requests: u32) -> Result<Self, MemoryError> {
        let count = requests.max(1).next_power_of_two();
        let map = Mapping::new(count as usize * size_of::<u64>(), Pages::Normal, false)?;
        let (addr, len) = (map.base().as_ptr(), map.len());
        // SAFETY: a mapping stays in place until dropped; local rights only (I1).
        let words = unsafe { Registration::new(pd, map, addr, len, sys::IBV_ACCESS_LOCAL_WRITE) }?;
        Ok(Self { words, mask: count - 1 })
    }

    /// The word of a request, and what the device needs to know of it.
    pub(super) fn word(&self, seq: u32) -> (*const u64, sys::ibv_sge) {
        let base = self.words.memory().base().as_ptr().cast_const().cast::<u64>();
        let word = base.wrapping_add((seq & self.mask) as usize);
        let piece = sys::ibv_sge { addr: word.addr() as u64, length: 8, lkey: self.words.lkey().0 };
        (word, piece)
    }
}
