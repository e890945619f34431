//! Process-wide counts of what could not be given back.
//!
//! When a device refuses to destroy a queue pair or to deregister memory, nobody can tell whether it still uses the
//! memory. Such memory is kept for ever and counted here, never freed (DESIGN: the fences F1 to F4).

use std::sync::atomic::{AtomicU64, Ordering};

static BUFFERS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);
static OBJECTS: AtomicU64 = AtomicU64::new(0);

/// What has been leaked since the start of the process, because a device refused to let go of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Leaks {
    /// Buffers of operations whose end could not be established.
    pub buffers: u64,
    /// Bytes of registrations that could not be undone.
    pub bytes: u64,
    /// Device objects (contexts, domains, queues) that could not be destroyed.
    pub objects: u64,
}

/// The counts now. All zero in a healthy process.
#[must_use]
pub fn leaks() -> Leaks {
    Leaks {
        buffers: BUFFERS.load(Ordering::Relaxed),
        bytes: BYTES.load(Ordering::Relaxed),
        objects: OBJECTS.load(Ordering::Relaxed),
    }
}

pub(crate) fn leaked_buffers(count: u64) {
    BUFFERS.fetch_add(count, Ordering::Relaxed);
}

pub(crate) fn leaked_bytes(bytes: usize) {
    BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
}

pub(crate) fn leaked_object() {
    OBJECTS.fetch_add(1, Ordering::Relaxed);
}
