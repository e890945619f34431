//! Memory shared with another process: anonymous files, their seals, and mappings of them.
//!
//! Owns making, checking and mapping such a file, and every access to what is mapped. What the bytes mean is
//! [`super::ring`]'s and [`super::bell`]'s. The kernel frees file and pages with the last process that has them.
//!
//! Read first: memfd_create(2), fcntl(2) (file sealing), mmap(2), madvise(2) (`MADV_DONTFORK`).
//!
//! # Safety
//! The other process may change every byte at any moment, so no Rust reference to the memory is ever made but to
//! atomics; bulk copies go through [`UserMemory`], which tolerates concurrent change. A file that could shrink under a
//! mapping would raise SIGBUS: only files sealed against it are mapped. A mapping lives as long as its [`Mapping`]; the
//! child of a fork does not have it.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::memory::{LINE, UserMemory};

/// Seals without which a file of another process is not mapped: its size stays as it is.
const FIXED_SIZE: libc::c_int = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;

/// A mapped range of a shared file.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: usize,
    len: usize,
    memory: UserMemory,
}

/// A mapping that only this process's peer writes.
#[derive(Debug)]
pub(crate) struct ReadOnly(Mapping);

/// A new anonymous file of `len` zero bytes, mapped; `readers_only` if others may map it for reading only.
///
/// # Errors
/// Those of memfd_create(2), ftruncate(2), mmap(2) and fcntl(2).
pub(crate) fn create(len: usize, readers_only: bool) -> io::Result<(OwnedFd, Mapping)> {
    // SAFETY: the name is a C string.
    let fd =
        unsafe { libc::memfd_create(c"ibex-soft".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just opened and owned by nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let size = libc::off_t::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: ftruncate(2) takes no pointer.
    if unsafe { libc::ftruncate(fd.as_raw_fd(), size) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mapping = map(fd.as_fd(), len, true)?;
    // The seal against further writable mappings leaves the one that exists. Kernels before 5.1 do not know it: there
    // the peers, processes of the same user, are trusted not to write.
    if readers_only && seal(fd.as_fd(), libc::F_SEAL_FUTURE_WRITE).is_err() {
        seal(fd.as_fd(), 0)?;
    }
    seal(fd.as_fd(), FIXED_SIZE)?;
    Ok((fd, mapping))
}

/// Maps a file got from another process, for reading and writing.
///
/// # Errors
/// `InvalidData` if it is not an anonymous file of exactly `len` bytes that cannot change its size; those of mmap(2).
pub(crate) fn open(fd: BorrowedFd<'_>, len: usize) -> io::Result<Mapping> {
    check(fd, len)?;
    map(fd, len, true)
}

/// [`open`], for reading only.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_read_only(fd: BorrowedFd<'_>, len: usize) -> io::Result<ReadOnly> {
    check(fd, len)?;
    map(fd, len, false).map(ReadOnly)
}

fn seal(fd: BorrowedFd<'_>, seals: libc::c_int) -> io::Result<()> {
    // SAFETY: F_ADD_SEALS takes an int.
    let result = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether a file is of ordinary pages, which are there whenever they are touched; those of hugetlbfs may not be.
pub(crate) fn is_ordinary(fd: BorrowedFd<'_>) -> bool {
    let mut status = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: fstatfs(2) writes one `struct statfs`, for which there is room.
    if unsafe { libc::fstatfs(fd.as_raw_fd(), status.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: fstatfs(2) succeeded and filled it.
    let status = unsafe { status.assume_init() };
    status.f_type == libc::TMPFS_MAGIC
}

fn check(fd: BorrowedFd<'_>, len: usize) -> io::Result<()> {
    // SAFETY: F_GET_SEALS takes no argument; it fails on anything but an anonymous file.
    let seals = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) };
    let mut status = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: fstat(2) writes one `struct stat`, for which there is room.
    if unsafe { libc::fstat(fd.as_raw_fd(), status.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fstat(2) succeeded and filled it.
    let status = unsafe { status.assume_init() };
    let fixed = seals >= 0 && seals & FIXED_SIZE == FIXED_SIZE && is_ordinary(fd);
    if fixed && usize::try_from(status.st_size) == Ok(len) {
        Ok(())
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

fn map(fd: BorrowedFd<'_>, len: usize, write: bool) -> io::Result<Mapping> {
    let rights = if write { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), len, rights, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `[base, base + len)` has just been mapped and stays so until `Mapping` is dropped, and `memory` with it.
    // Nobody calls `write` on a read-only one, see `ReadOnly`.
    let memory = unsafe { UserMemory::new(base as usize, len) };
    let mapping = Mapping { base: base as usize, len, memory };
    // SAFETY: the range is the mapping's own. Should it fail, a forked child only keeps the pages until it ends.
    let _ = unsafe { libc::madvise(base, len, libc::MADV_DONTFORK) };
    Ok(mapping)
}

impl Mapping {
    /// The word at `offset`, which must be a multiple of 8.
    ///
    /// # Panics
    /// If it is not inside the mapping, or not aligned.
    #[inline]
    pub(crate) fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset <= self.len - 8, "a word at {offset} of {}", self.len);
        // SAFETY: aligned (mappings begin at a page) and inside the mapping, by the check; mapped as long as `self`
        // lives; any bit pattern is a valid integer, and all accesses to words are atomic or the peer's.
        unsafe { AtomicU64::from_ptr((self.base + offset) as *mut u64) }
    }

    /// The words of the line at `offset`, which must be a multiple of its length.
    ///
    /// # Panics
    /// If it is not inside the mapping, or not aligned.
    #[inline]
    pub(crate) fn line(&self, offset: usize) -> &[AtomicU64; LINE / 8] {
        assert!(
            offset.is_multiple_of(LINE) && offset <= self.len - LINE,
            "a line at {offset} of {}",
            self.len
        );
        // SAFETY: as for `word`, with all words of the line inside the mapping by the check.
        unsafe { &*((self.base + offset) as *const [AtomicU64; LINE / 8]) }
    }

    /// What is mapped, for copies between it and other memory.
    #[inline]
    pub(crate) fn memory(&self) -> &UserMemory {
        &self.memory
    }

    /// Copies from the mapping.
    ///
    /// # Panics
    /// If the bytes are not inside the mapping.
    #[inline]
    pub(crate) fn read(&self, offset: usize, out: &mut [u8]) {
        self.memory.read(offset, out);
    }

    /// Copies into the mapping.
    ///
    /// # Panics
    /// If the bytes are not inside the mapping.
    #[inline]
    pub(crate) fn write(&self, offset: usize, data: &[u8]) {
        self.memory.write(offset, data, false);
    }

    /// Brings the cache line at `offset` near, to be read soon. Nothing happens outside the mapping.
    #[inline]
    pub(crate) fn prefetch_to_read(&self, offset: usize) {
        #[cfg(target_arch = "x86_64")]
        if offset < self.len {
            // SAFETY: a prefetch faults never, and the address is inside the mapping.
            unsafe {
                std::arch::asm!("prefetcht0 [{}]", in(reg) self.base + offset, options(nostack, preserves_flags));
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = offset;
    }

    /// Brings the cache line at `offset` near, to be written soon. Nothing happens outside the mapping.
    #[inline]
    pub(crate) fn prefetch(&self, offset: usize) {
        #[cfg(target_arch = "x86_64")]
        if offset < self.len {
            // SAFETY: a prefetch faults never, and the address is inside the mapping.
            unsafe {
                std::arch::asm!("prefetchw [{}]", in(reg) self.base + offset, options(nostack, preserves_flags));
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = offset;
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what `map` mapped; nothing can refer to it any more, since all references borrow `self`.
        unsafe { libc::munmap(self.base as *mut libc::c_void, self.len) };
    }
}

impl ReadOnly {
    /// Loads the word at `offset`.
    ///
    /// # Panics
    /// As [`Mapping::word`].
    #[inline]
    pub(crate) fn load(&self, offset: usize, ordering: Ordering) -> u64 {
        // The reference does not leave this function, so nothing can store through it.
        self.0.word(offset).load(ordering)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_mappings_of_one_file_share_its_bytes() {
        let (fd, ours) = create(8192, false).unwrap();
        let theirs = open(fd.as_fd(), 8192).unwrap();
        ours.write(4090, b"0123456789");
        let mut got = [0; 10];
        theirs.read(4090, &mut got);
        assert_eq!(&got, b"0123456789");
        theirs.word(8184).store(7, Ordering::Release);
        assert_eq!(ours.word(8184).load(Ordering::Acquire), 7);
    }

    #[test]
    fn files_that_may_change_are_not_mapped() {
        let (fd, _ours) = create(4096, false).unwrap();
        assert!(open(fd.as_fd(), 8192).is_err(), "of another size");
        // SAFETY: ftruncate(2) takes no pointer.
        assert_ne!(unsafe { libc::ftruncate(fd.as_raw_fd(), 0) }, 0, "sealed");
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert!(open(file.as_fd(), file.metadata().unwrap().len() as usize).is_err(), "no anonymous file");
    }

    #[test]
    fn files_of_huge_pages_are_not_mapped() {
        let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | libc::MFD_HUGETLB;
        // SAFETY: the name is a C string.
        let fd = unsafe { libc::memfd_create(c"huge".as_ptr(), flags) };
        if fd < 0 {
            // A kernel without them has none that could come from a peer.
            return;
        }
        // SAFETY: just opened and owned by nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: fstat(2) writes one `struct stat`, for which zeros are room.
        let mut status: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        assert_eq!(unsafe { libc::fstat(fd.as_raw_fd(), &raw mut status) }, 0);
        let len = status.st_blksize;
        // SAFETY: ftruncate(2) takes no pointer.
        assert_eq!(unsafe { libc::ftruncate(fd.as_raw_fd(), len) }, 0);
        seal(fd.as_fd(), FIXED_SIZE).unwrap();
        assert!(check(fd.as_fd(), len as usize).is_err(), "its pages may not be there");
    }

    #[test]
    fn readers_cannot_write() {
        let (fd, ours) = create(4096, true).unwrap();
        let theirs = open_read_only(fd.as_fd(), 4096).unwrap();
        ours.word(0).store(3, Ordering::Release);
        assert_eq!(theirs.load(0, Ordering::Acquire), 3);
        assert!(open(fd.as_fd(), 4096).is_err(), "no further writable mapping");
    }
}
