//! Protection domains: which memory and which queue pairs belong together.
//!
//! Owns [`ProtectionDomain`], from which memory and queue pairs are made. See ibv_alloc_pd(3).
//!
//! # Safety
//! The `ibv_pd` is valid until the last clone is dropped; everything made in the domain holds a clone.
#![allow(unsafe_code)]

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use ibex_sys::{self as sys, convention};

use crate::context::Context;
use crate::cq::CompletionQueue;
use crate::mem::{MemoryError, PoolBuilder, Registered, SharedRegion, StableMem};
use crate::qp::RcBuilder;

struct Inner {
    raw: NonNull<sys::ibv_pd>,
    context: Context,
}

// SAFETY: libibverbs' objects may be used from any thread.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: nothing of the domain is left, since everything in it holds a clone.
        let code = unsafe { (self.context.verbs().dealloc_pd)(self.raw.as_ptr()) };
        if code != 0 {
            crate::stats::leaked_object();
        }
    }
}

/// A protection domain. Clones share it.
///
/// Memory registered in one domain cannot be used by queue pairs of another: the device refuses.
#[doc(alias = "ibv_pd")]
#[derive(Clone)]
pub struct ProtectionDomain {
    inner: Arc<Inner>,
}

impl ProtectionDomain {
    pub(crate) fn alloc(context: &Context) -> Result<Self, MemoryError> {
        // SAFETY: an open context.
        let raw = unsafe { (context.verbs().alloc_pd)(context.as_raw()) };
        match convention::pointer(raw) {
            Ok(raw) => Ok(Self { inner: Arc::new(Inner { raw, context: context.clone() }) }),
            Err(source) => Err(MemoryError::AllocPd { device: context.device().name().to_owned(), source }),
        }
    }

    /// The device.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.inner.context
    }

    /// The C object, valid while a clone of this exists.
    #[must_use]
    pub fn as_raw(&self) -> *mut sys::ibv_pd {
        self.inner.raw.as_ptr()
    }

    /// A pool of registered buffers; set its size and [`build`](PoolBuilder::build) it.
    #[must_use]
    pub fn pool(&self) -> PoolBuilder {
        PoolBuilder::new(self)
    }

    /// Registers memory the program owns, where it is.
    ///
    /// The memory is registered for local use only: no peer can reach it (invariant I1).
    ///
    /// # Errors
    /// [`MemoryError::Register`]; the owner is dropped.
    #[doc(alias = "ibv_reg_mr")]
    pub fn register<O: StableMem>(&self, owner: O) -> Result<Registered<O>, MemoryError> {
        Registered::new(self, owner)
    }

    /// Memory that peers may be given access to, of `len` bytes, zero-filled.
    ///
    /// # Errors
    /// [`MemoryError::Map`] or [`MemoryError::Register`].
    pub fn shared(&self, len: usize) -> Result<SharedRegion, MemoryError> {
        SharedRegion::new(self, len)
    }

    /// A queue pair of the reliable connected service whose operations complete on `cq`; set its sizes and
    /// [`build`](RcBuilder::build) it.
    #[doc(alias = "ibv_create_qp")]
    #[must_use]
    pub fn create_rc(&self, cq: &CompletionQueue) -> RcBuilder {
        RcBuilder::new(self, cq)
    }
}

impl fmt::Debug for ProtectionDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProtectionDomain")
            .field("device", &self.context().device().name())
            .finish_non_exhaustive()
    }
}
