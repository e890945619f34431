//! Memory mapped from the kernel: what pools and shared regions are made of.
//!
//! Owns [`Mapping`] (mmap, munmap) and [`Pages`]. Does not own registration: a mapping that is registered is unmapped
//! only after its registration has gone (I4), which [`MemoryRegion`](super::mr::MemoryRegion) sees to. See mmap(2).
//!
//! # Safety
//! The range is mapped, private to this process or shared with children only, and zero-filled, from `new` to `drop`.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use ibex_sys::Errno;
use serde::{Deserialize, Serialize};

use super::MemoryError;

/// Which pages back a mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Pages {
    /// Ordinary pages, which the kernel may merge into huge ones by itself.
    #[default]
    Normal,
    /// Pages from the kernel's huge page pool (2 MiB on x86-64): fewer entries in the device's translation cache.
    /// Fails when the pool is too small (`/proc/sys/vm/nr_hugepages`).
    Huge,
}

/// Size of a huge page of the default size on the architectures supported.
const HUGE_PAGE: usize = 2 << 20;

/// A mapping and its length in bytes.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread; what may be done with its bytes is up to its owner.
unsafe impl Send for Mapping {}
// SAFETY: as above; the methods of `&Mapping` touch no byte of it.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps at least `len` zero bytes, rounded up to whole pages. `shared` mappings stay the same memory in a forked
    /// child, so that a peer's writes never land in a copy.
    pub(crate) fn new(len: usize, pages: Pages, shared: bool) -> Result<Self, MemoryError> {
        let granule = match pages {
            Pages::Normal => page_size(),
            Pages::Huge => HUGE_PAGE,
        };
        let rounded = len
            .max(1)
            .checked_next_multiple_of(granule)
            .filter(|&rounded| isize::try_from(rounded).is_ok())
            .ok_or(MemoryError::TooLarge { bytes: len })?;
        let visibility = if shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
        let huge = if pages == Pages::Huge { libc::MAP_HUGETLB } else { 0 };
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no existing memory.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                rounded,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_ANONYMOUS | visibility | huge,
                -1,
                0,
            )
        };
        match NonNull::new(base) {
            Some(base) if base.as_ptr() != libc::MAP_FAILED => Ok(Self { base: base.cast(), len: rounded }),
            _ => Err(MemoryError::map(rounded, pages, Errno::last())),
        }
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `new`; whoever drops the mapping gave up every pointer into it (I4).
        let unmapped = unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert_eq!(unmapped, 0, "munmap of a range that was mapped cannot fail");
    }
}

/// The size of a page in bytes.
pub(crate) fn page_size() -> usize {
    // SAFETY: sysconf has no preconditions.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    // It fails for unknown names only; 4 KiB is the smallest page of any architecture supported.
    usize::try_from(size).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_is_whole_zero_pages() {
        let map = Mapping::new(1, Pages::Normal, false).unwrap();
        assert_eq!(map.len(), page_size());
        // SAFETY: the mapping is mapped, readable and zero-filled, and nobody else has it.
        let bytes = unsafe { std::slice::from_raw_parts(map.base().as_ptr(), map.len()) };
        assert!(bytes.iter().all(|&byte| byte == 0));
    }

    #[test]
    fn an_absurd_length_is_an_error() {
        assert!(matches!(
            Mapping::new(usize::MAX - 5, Pages::Normal, false),
            Err(MemoryError::TooLarge { .. })
        ));
        assert!(matches!(Mapping::new(1 << 60, Pages::Normal, true), Err(MemoryError::Map { .. })));
    }
}
