//! What can go wrong with memory: mapping, registration, bounds, handles.

use ibex_sys::Errno;

use super::map::Pages;
use crate::error::Bytes;

/// An error about memory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// Misuse: a length that no address space holds, or beyond the device's limit.
    #[error("cannot map {}: more than an address space holds", Bytes(*bytes as u64))]
    TooLarge {
        /// Bytes asked for.
        bytes: usize,
    },
    /// Misuse: a pool without a block or with blocks without a byte.
    #[error(
        "a pool needs at least one block of 1 byte to 2 GiB (the longest message); got {blocks} blocks of {block} bytes"
    )]
    EmptyPool {
        /// Bytes of a block.
        block: usize,
        /// Number of blocks.
        blocks: usize,
    },
    /// Misuse: every buffer of the pool is in use.
    #[error(
        "the pool's {blocks} buffers are all in use; drop some, wait for operations that hold them, or build it with more blocks"
    )]
    PoolExhausted {
        /// Number of blocks.
        blocks: usize,
    },
    /// Misuse: content longer than a buffer.
    #[error("{bytes} bytes do not fit a buffer of {capacity} bytes; build the pool with larger blocks")]
    TooLong {
        /// Bytes given.
        bytes: usize,
        /// Bytes a buffer holds.
        capacity: usize,
    },
    /// Misuse: a range outside the memory it is cut from.
    #[error("range {start}..{end} is outside the region of {len} bytes")]
    OutOfBounds {
        /// First byte.
        start: u64,
        /// Byte after the last.
        end: u64,
        /// Length of the region.
        len: u64,
    },
    /// Misuse: a word that is not aligned to its size.
    #[error("address {addr:#x} is not aligned to 8 bytes, which words and atomics need")]
    Misaligned {
        /// The address.
        addr: u64,
    },
    /// Peer: bytes that are not a handle.
    #[error("not a remote handle: {why}")]
    BadHandle {
        /// What is wrong with it.
        why: &'static str,
    },
    /// Misuse: withdrawing what is not exposed.
    #[error("rkey {rkey} is not exposed by this region, or was withdrawn already")]
    NotExposed {
        /// The key.
        rkey: crate::Rkey,
    },
    /// Host: mmap failed.
    #[error("cannot map {}{}", Bytes(*bytes as u64), map_remedy(*pages))]
    Map {
        /// Bytes asked for.
        bytes: usize,
        /// Kind of pages.
        pages: Pages,
        /// The kernel's answer.
        source: Errno,
    },
    /// Host or device: registration failed.
    #[error("cannot register {}{}", Bytes(*bytes as u64), limit_remedy(source))]
    Register {
        /// Bytes of the region.
        bytes: usize,
        /// The device's answer.
        source: Errno,
    },
    /// Device: deregistration failed; the memory is leaked, since the device may still use it.
    #[error("cannot deregister {}; the memory is leaked, since the device may still use it", Bytes(*bytes as u64))]
    Deregister {
        /// Bytes of the region.
        bytes: usize,
        /// The device's answer.
        source: Errno,
    },
    /// Device: no protection domain to be had.
    #[error("cannot allocate a protection domain on {device}")]
    AllocPd {
        /// Name of the device.
        device: String,
        /// The device's answer.
        source: Errno,
    },
}

impl MemoryError {
    pub(crate) fn map(bytes: usize, pages: Pages, source: Errno) -> Self {
        Self::Map { bytes, pages, source }
    }
}

fn map_remedy(pages: Pages) -> &'static str {
    match pages {
        Pages::Normal => "",
        Pages::Huge => " of huge pages; raise /proc/sys/vm/nr_hugepages or use ordinary pages",
    }
}

/// The memory lock limit is the usual reason of ENOMEM: name it.
fn limit_remedy(source: &Errno) -> String {
    if *source != Errno::ENOMEM {
        return String::new();
    }
    match crate::limits::memlock() {
        Some(limit) => {
            format!(": the memory lock limit is {} (ulimit -l); raise it or register less", Bytes(limit))
        }
        None => ": the device or the host is out of memory".to_owned(),
    }
}
