//! Memory whose end is seen: it is filled with a mark when it is freed, and tells.
//!
//! Owns [`Tracked`], which a case registers instead of a pool's buffer where *freeing* is what must not happen early.
//!
//! # Safety
//! The bytes are a boxed slice, owned alone and never replaced: as stable as `Box<[u8]>`, which `ibex` takes itself.

#![allow(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ibex::mem::{StableMem, StableMemMut};

/// Whether a [`Tracked`] memory has been freed.
#[derive(Debug, Clone, Default)]
pub struct Freed(Arc<AtomicBool>);

impl Freed {
    /// True once it has.
    pub fn get(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Bytes on the heap that note their end.
pub struct Tracked {
    bytes: Box<[u8]>,
    freed: Freed,
    last: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Tracked {
    /// Bytes, and the flag that tells their end.
    pub fn new(bytes: Vec<u8>) -> (Self, Freed) {
        let freed = Freed::default();
        (Self { bytes: bytes.into_boxed_slice(), freed: freed.clone(), last: None }, freed)
    }

    /// Runs `last` when it is freed.
    pub fn and_then(mut self, last: impl FnOnce() + Send + Sync + 'static) -> Self {
        self.last = Some(Box::new(last));
        self
    }
}

impl std::fmt::Debug for Tracked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tracked({} bytes)", self.bytes.len())
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        // A device that still reads sends this instead of what was meant.
        self.bytes.fill(0xdd);
        self.freed.0.store(true, Ordering::SeqCst);
        if let Some(last) = self.last.take() {
            last();
        }
    }
}

// SAFETY: moving the box does not move what it points at.
unsafe impl StableMem for Tracked {
    const WRITABLE: bool = true;

    fn region(&self) -> (*const u8, usize) {
        (self.bytes.as_ptr(), self.bytes.len())
    }
}

// SAFETY: a box owns what it points at alone.
unsafe impl StableMemMut for Tracked {
    fn region_mut(&mut self) -> *mut u8 {
        self.bytes.as_mut_ptr()
    }
}
