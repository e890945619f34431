//! Memory mapped from the kernel: what pools and shared regions are made of.
//!
//! Owns [`Mapping`] (mmap, munmap) and [`Pages`]. Does not own registration: a mapping that is registered is unmapped
//! only after its registration has gone (I4), which [`MemoryRegion`](super::mr::MemoryRegion) sees to. See mmap(2),
//! memfd_create(2).
//!
//! # Safety
//! The range is mapped and zero-filled from `new` to `drop`. It is private to this process, or shared with children and
//! with processes that a device inside this one lets map it, and then never behind a reference (I2).
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

use ibex_sys::{Errno, Verbs};
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

/// Mappings in files of their own that a process has at once. Each takes a descriptor, of which most systems give a
/// process 1024; more mappings lie in no file, and are reached by copies of the kernel's.
const MAX_FILES: usize = 128;

static FILES: AtomicUsize = AtomicUsize::new(0);

/// A mapping and its length in bytes.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
    /// The file it lies in, of which the device has been told.
    file: Option<Announced>,
}

/// A file that a device has been told of.
#[derive(Debug)]
struct Announced {
    _file: OwnedFd,
    withdraw: unsafe extern "C" fn(*mut c_void) -> c_int,
}

impl Drop for Announced {
    fn drop(&mut self) {
        FILES.fetch_sub(1, Ordering::Relaxed);
    }
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
        match map(rounded, libc::MAP_ANONYMOUS | visibility | huge, -1) {
            Some(base) => Ok(Self { base, len: rounded, file: None }),
            None => Err(MemoryError::map(rounded, pages, Errno::last())),
        }
    }

    /// Maps at least `len` zero bytes of ordinary pages that stay the same memory in a forked child. If the device has a
    /// use for that, they lie in a file which it may let other processes map, so that peers on this host reach the memory
    /// without the kernel; nothing else depends on it.
    pub(crate) fn for_peers(len: usize, verbs: &Verbs) -> Result<Self, MemoryError> {
        let announced = Self::in_file(len, verbs);
        announced.map_or_else(|| Self::new(len, Pages::Normal, true), Ok)
    }

    fn in_file(len: usize, verbs: &Verbs) -> Option<Self> {
        let (announce, withdraw) = verbs.share_memory.zip(verbs.unshare_memory)?;
        let rounded = len.max(1).checked_next_multiple_of(page_size())?;
        let size = libc::off_t::try_from(rounded).ok()?;
        if FILES.fetch_add(1, Ordering::Relaxed) >= MAX_FILES {
            FILES.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let file = file(size);
        let base = file.as_ref().and_then(|file| map(rounded, libc::MAP_SHARED, file.as_raw_fd()));
        let (Some(file), Some(base)) = (file, base) else {
            FILES.fetch_sub(1, Ordering::Relaxed);
            return None;
        };
        let mut mapping = Self { base, len: rounded, file: None };
        // SAFETY: the range maps the file from its beginning until `drop`, which takes the announcement back before.
        if unsafe { announce(base.as_ptr().cast(), rounded, file.as_raw_fd(), 0) } == 0 {
            mapping.file = Some(Announced { _file: file, withdraw });
        } else {
            FILES.fetch_sub(1, Ordering::Relaxed);
        }
        Some(mapping)
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
        if let Some(file) = &self.file {
            // SAFETY: announced by `in_file`; whoever drops the mapping has deregistered all of it (I4).
            unsafe { (file.withdraw)(self.base.as_ptr().cast()) };
        }
        // SAFETY: the range was mapped by `new`; whoever drops the mapping gave up every pointer into it (I4).
        let unmapped = unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert_eq!(unmapped, 0, "munmap of a range that was mapped cannot fail");
    }
}

/// A new mapping of `len` bytes for reading and writing.
fn map(len: usize, flags: c_int, fd: RawFd) -> Option<NonNull<u8>> {
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a mapping at an address of the kernel's choice touches no existing memory.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), len, rights, flags, fd, 0) };
    NonNull::new(base).filter(|base| base.as_ptr() != libc::MAP_FAILED).map(NonNull::cast)
}

/// A new anonymous file of `size` zero bytes that stays as long as that.
fn file(size: libc::off_t) -> Option<OwnedFd> {
    // SAFETY: the name is a C string.
    let fd = unsafe { libc::memfd_create(c"ibex".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
    if fd < 0 {
        return None;
    }
    // SAFETY: just opened, and owned by nobody else.
    let file = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: ftruncate(2) takes no pointer.
    let sized = unsafe { libc::ftruncate(file.as_raw_fd(), size) } == 0;
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: F_ADD_SEALS takes an int.
    let sealed = sized && unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) } == 0;
    sealed.then_some(file)
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
    #[cfg(feature = "soft")]
    fn mappings_for_peers_lie_in_files_as_long_as_there_are_some() {
        let make = || Mapping::for_peers(100, ibex_soft::verbs()).unwrap();
        let many: Vec<_> = (0..=MAX_FILES).map(|_| make()).collect();
        assert!(many.iter().any(|map| map.file.is_some()));
        assert!(many.iter().any(|map| map.file.is_none()), "the limit is for all of them");
        drop(many);
        assert!(make().file.is_some());
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
