//! A peer's bytes: files that both processes map, or copies that the kernel makes from one process to another.
//!
//! Owns the list of this process's memory that lies in files ([`Shares`]), opening and mapping a peer's, and the kernel's
//! copies. A file is opened through the peer's list of descriptors, which the kernel lets a process of the same user do
//! that could debug the peer; the inode tells whether it is still the file that was meant.
//!
//! Read first: memfd_create(2), proc_pid_fd(5), process_vm_readv(2), ptrace(2) ("access mode checking").
//!
//! # Safety
//! A file of a peer's is mapped only if it is sealed against shrinking, so that no access to the mapping faults. The kernel's
//! copies name this process's memory by ranges that the caller holds as [`UserMemory`]; the peer's addresses cannot harm
//! this process.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{PoisonError, RwLock};

use crate::host::segment;
use crate::memory::UserMemory;

/// How a peer's bytes are reached.
#[derive(Debug)]
pub(crate) enum Path<'a> {
    /// In memory that is mapped here, from this offset on.
    Mapped(&'a UserMemory, usize),
    /// By copies of the kernel's.
    Process {
        /// The peer.
        pid: i32,
        /// Where in it.
        address: u64,
    },
}

/// Where in a shared file a region begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    number: u32,
    fd: RawFd,
    inode: u64,
    offset: u64,
}

impl Share {
    /// As published: number and descriptor, offset, inode.
    pub(super) fn words(self) -> (u64, u64, u64) {
        (u64::from(self.number) << 32 | u64::from(self.fd.cast_unsigned()), self.offset, self.inode)
    }
}

/// A range of this process's memory that lies in a file.
#[derive(Clone, Copy, Debug)]
struct Range {
    len: usize,
    share: Share,
}

/// This process's memory that lies in files, by address.
#[derive(Debug, Default)]
pub(crate) struct Shares(RwLock<BTreeMap<usize, Range>>);

/// All of this process's: memory belongs to the process, whatever device it is registered with.
pub(crate) fn shares() -> &'static Shares {
    static SHARES: Shares = Shares(RwLock::new(BTreeMap::new()));
    &SHARES
}

impl Shares {
    /// `[address, address + len)` maps the file of `fd` from `offset` on, for as long as the descriptor is open.
    ///
    /// # Errors
    /// `EINVAL` if the range is empty, overlaps one that is known, or the file may shrink; `EBADF`.
    pub(crate) fn enter(&self, address: usize, len: usize, fd: RawFd, offset: u64) -> Result<(), i32> {
        static NUMBERS: AtomicU32 = AtomicU32::new(1);
        let inode = fixed_file(fd).map_err(|error| error.raw_os_error().unwrap_or(libc::EINVAL))?.0;
        let end = address.checked_add(len).filter(|_| len > 0).ok_or(libc::EINVAL)?;
        let mut ranges = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let before = ranges.range(..end).next_back();
        if before.is_some_and(|(&start, range)| start + range.len > address) {
            return Err(libc::EINVAL);
        }
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        ranges.insert(address, Range { len, share: Share { number, fd, inode, offset } });
        Ok(())
    }

    /// The range that begins at `address` is not shared any more; regions in it have to be deregistered before.
    pub(crate) fn leave(&self, address: usize) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&address);
    }

    /// Where a range lies, if it lies in one file.
    pub(super) fn find(&self, address: usize, len: usize) -> Option<Share> {
        let ranges = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let (&start, range) = ranges.range(..=address).next_back()?;
        let into = address - start;
        if into.checked_add(len)? > range.len {
            return None;
        }
        Some(Share { offset: range.share.offset + into as u64, ..range.share })
    }
}

/// Inode and size of a file that cannot shrink.
fn fixed_file(fd: RawFd) -> io::Result<(u64, u64)> {
    // SAFETY: F_GET_SEALS takes no argument; it fails on anything but an anonymous file.
    let seals = unsafe { libc::fcntl(fd, libc::F_GET_SEALS) };
    if seals < 0 {
        return Err(io::Error::last_os_error());
    }
    if seals & libc::F_SEAL_SHRINK == 0 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut status = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: fstat(2) writes one `struct stat`, for which there is room.
    if unsafe { libc::fstat(fd, status.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fstat(2) succeeded and filled it.
    let status = unsafe { status.assume_init() };
    Ok((status.st_ino, u64::try_from(status.st_size).unwrap_or(0)))
}

/// Where in a file of a peer's a stretch begins, as the peer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RemoteShare {
    /// Number and descriptor.
    word: u64,
    offset: u64,
    inode: u64,
}

impl RemoteShare {
    pub(super) fn new(word: u64, offset: u64, inode: u64) -> Option<RemoteShare> {
        (word != 0).then_some(RemoteShare { word, offset, inode })
    }

    /// The place `bytes` further on. An offset that is nonsense is found out where it is used.
    pub(super) fn advance(self, bytes: u64) -> RemoteShare {
        RemoteShare { offset: self.offset.saturating_add(bytes), ..self }
    }
}

/// A file of a peer's, mapped; or known not to be possible.
#[derive(Debug)]
pub(crate) struct Map {
    word: u64,
    inode: u64,
    mapped: Option<(usize, UserMemory)>,
}

impl Map {
    /// Maps the file, if that can be.
    pub(super) fn open(pid: i32, share: &RemoteShare) -> Map {
        let mapped = Map::try_open(pid, share).ok();
        Map { word: share.word, inode: share.inode, mapped }
    }

    fn try_open(pid: i32, share: &RemoteShare) -> io::Result<(usize, UserMemory)> {
        let fd = share.word & 0xffff_ffff;
        let path = format!("/proc/{pid}/fd/{fd}");
        // The link's target says what it is before anything is opened: opening a device or a pipe may have effects.
        if !std::fs::read_link(&path)?.as_os_str().as_encoded_bytes().starts_with(b"/memfd:") {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let file = File::options().read(true).write(true).open(&path)?;
        let (inode, size) = fixed_file(file.as_raw_fd())?;
        if inode != share.inode || !segment::is_ordinary(file.as_fd()) || file.metadata()?.ino() != inode {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let len = usize::try_from(size).map_err(|_| io::ErrorKind::InvalidData)?;
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let base =
            unsafe { libc::mmap(std::ptr::null_mut(), len, rights, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the range is the mapping's own. Should it fail, a forked child only keeps the pages until it ends.
        let _ = unsafe { libc::madvise(base, len, libc::MADV_DONTFORK) };
        let base = base.expose_provenance();
        // SAFETY: mapped for reading and writing until `Map` is dropped, and `memory` with it; the file cannot shrink.
        let memory = unsafe { UserMemory::new(base, len) };
        Ok((base, memory))
    }

    #[inline]
    pub(super) fn is(&self, share: &RemoteShare) -> bool {
        self.word == share.word && self.inode == share.inode
    }

    /// Whether the peer still has the file.
    pub(super) fn is_there(&self, pid: i32) -> bool {
        let fd = self.word & 0xffff_ffff;
        std::fs::metadata(format!("/proc/{pid}/fd/{fd}")).is_ok_and(|file| file.ino() == self.inode)
    }

    pub(super) fn is_usable(&self) -> bool {
        self.mapped.is_some()
    }

    /// The offset in the mapping of `len` bytes, if they are inside.
    #[inline]
    pub(super) fn offset(&self, share: &RemoteShare, len: usize) -> Option<usize> {
        let (_, memory) = self.mapped.as_ref()?;
        let at = usize::try_from(share.offset).ok()?;
        (at.checked_add(len)? <= memory.len()).then_some(at)
    }

    /// What is mapped.
    ///
    /// # Panics
    /// If it could not be mapped; [`Map::offset`] has said so.
    #[inline]
    pub(super) fn memory(&self) -> &UserMemory {
        match &self.mapped {
            Some((_, memory)) => memory,
            None => unreachable!("an offset in a file that is not mapped"),
        }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        if let Some((base, memory)) = &self.mapped {
            let base = std::ptr::with_exposed_provenance_mut(*base);
            // SAFETY: exactly what `try_open` mapped; references to it borrow `self`.
            unsafe { libc::munmap(base, memory.len()) };
        }
    }
}

/// Reads the word at `address` of a process; `None` if the kernel does not let us.
pub(super) fn probe(pid: i32, address: u64) -> Option<u64> {
    let mut word = 0u64;
    let local = libc::iovec { iov_base: (&raw mut word).cast(), iov_len: 8 };
    let remote = libc::iovec { iov_base: pointer(address), iov_len: 8 };
    // SAFETY: eight writable bytes here; the other address is the other process's.
    let got = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    (got == 8).then_some(word)
}

fn pointer(address: u64) -> *mut libc::c_void {
    std::ptr::without_provenance_mut(address as usize)
}

/// Pieces of this process's memory, in order, for one copy of the kernel's.
pub(crate) struct Pieces<'a> {
    vectors: [libc::iovec; MOST],
    count: usize,
    len: usize,
    /// Whether all may be read into.
    writable: bool,
    memory: PhantomData<&'a UserMemory>,
}

/// Most pieces: more elements than this no request's list has (`max_sge`).
const MOST: usize = 32;

impl<'a> Pieces<'a> {
    pub(crate) fn new() -> Pieces<'a> {
        let none = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Pieces { vectors: [none; MOST], count: 0, len: 0, writable: true, memory: PhantomData }
    }

    /// Adds a stretch of registered memory, of which `write` was asked when it was looked up if it is read into; false if
    /// there are too many.
    ///
    /// # Panics
    /// If the bytes are not inside the memory.
    #[must_use]
    pub(crate) fn add(&mut self, memory: &'a UserMemory, at: usize, len: usize) -> bool {
        self.push(memory.address_of(at, len), len)
    }

    /// Adds bytes of the device's own, which are only copied from.
    #[must_use]
    pub(crate) fn add_bytes(&mut self, bytes: &'a [u8]) -> bool {
        self.writable = false;
        self.push(bytes.as_ptr().expose_provenance(), bytes.len())
    }

    fn push(&mut self, address: usize, len: usize) -> bool {
        let Some(vector) = self.vectors.get_mut(self.count) else { return false };
        *vector = libc::iovec { iov_base: std::ptr::with_exposed_provenance_mut(address), iov_len: len };
        self.count += 1;
        self.len += len;
        true
    }

    /// Copies the pieces to `address` of process `pid`, the last bytes last; false if not all could be.
    pub(crate) fn write(&self, pid: i32, address: u64) -> bool {
        // Vectors are worked off in order, and a word of a vector of its own is stored after all before it.
        let tail = self.len.min(8);
        let head = self.len - tail;
        let remote = [
            libc::iovec { iov_base: pointer(address), iov_len: head },
            libc::iovec { iov_base: pointer(address + head as u64), iov_len: tail },
        ];
        let (vectors, count) = (self.vectors.as_ptr(), self.count as libc::c_ulong);
        // SAFETY: `count` vectors of memory that is mapped for as long as it is borrowed (`UserMemory::new`); the other
        // addresses are the other process's.
        let done = unsafe { libc::process_vm_writev(pid, vectors, count, remote.as_ptr(), 2, 0) };
        usize::try_from(done) == Ok(self.len)
    }

    /// Copies to the pieces from `address` of process `pid`; false if not all could be.
    pub(crate) fn read(&self, pid: i32, address: u64) -> bool {
        if !self.writable {
            return false;
        }
        let remote = libc::iovec { iov_base: pointer(address), iov_len: self.len };
        let (vectors, count) = (self.vectors.as_ptr(), self.count as libc::c_ulong);
        // SAFETY: as in `write`; that it is writable was checked with its rights.
        let done = unsafe { libc::process_vm_readv(pid, vectors, count, &raw const remote, 1, 0) };
        usize::try_from(done) == Ok(self.len)
    }
}
