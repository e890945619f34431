//! Registrations: memory bound to the keys under which the device may use it.
//!
//! Owns [`Registration`], which keeps memory and registration together: the memory is dropped only after the device has
//! confirmed the deregistration (fence F3), and leaked if it refuses. See ibv_reg_mr(3).
//!
//! # Safety
//! `raw` is a live region over `memory` from `new` to `drop`; the protection domain is kept alive (I4).
#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use ibex_sys::{self as sys, convention};

use super::MemoryError;
use crate::addr::{Lkey, Rkey};
use crate::pd::ProtectionDomain;

/// Memory and its registration.
pub(crate) struct Registration<M> {
    raw: NonNull<sys::ibv_mr>,
    memory: ManuallyDrop<M>,
    lkey: Lkey,
    len: usize,
    pd: ProtectionDomain,
}

// SAFETY: libibverbs' objects may be used from any thread; the memory must allow it itself.
unsafe impl<M: Send> Send for Registration<M> {}
// SAFETY: as above.
unsafe impl<M: Sync> Sync for Registration<M> {}

impl<M> Registration<M> {
    /// Registers `len` bytes at `addr`, which belong to `memory`.
    ///
    /// # Safety
    /// The range must stay mapped and in place for as long as `memory` is not dropped, however it is moved. With remote
    /// rights in `access`, no reference to any byte of it may exist until the registration is gone (I2).
    pub(crate) unsafe fn new(
        pd: &ProtectionDomain,
        memory: M,
        addr: *mut u8,
        len: usize,
        access: sys::ibv_access_flags,
    ) -> Result<Self, MemoryError> {
        let reg_mr = pd.context().verbs().reg_mr;
        // The flags are a small bit set; `int` is what C declares.
        let flags = access.0.cast_signed();
        // SAFETY: a live domain; the caller promises the rest of ibv_reg_mr(3).
        let raw = unsafe { reg_mr(pd.as_raw(), addr.cast(), len, flags) };
        let raw = convention::pointer(raw).map_err(|source| MemoryError::Register { bytes: len, source })?;
        // SAFETY: a region just created; its keys do not change.
        let lkey = Lkey(unsafe { (*raw.as_ptr()).lkey });
        Ok(Self { raw, memory: ManuallyDrop::new(memory), lkey, len, pd: pd.clone() })
    }

    #[inline]
    pub(crate) fn lkey(&self) -> Lkey {
        self.lkey
    }

    pub(crate) fn rkey(&self) -> Rkey {
        // SAFETY: a live region; its keys do not change.
        Rkey(unsafe { (*self.raw.as_ptr()).rkey })
    }

    #[inline]
    pub(crate) fn memory(&self) -> &M {
        &self.memory
    }

    #[inline]
    pub(crate) fn memory_mut(&mut self) -> &mut M {
        &mut self.memory
    }

    /// Deregisters and gives the memory back.
    pub(crate) fn into_memory(self) -> Result<M, MemoryError> {
        let mut this = ManuallyDrop::new(self);
        let deregistered = this.deregister();
        // SAFETY: `this` is never dropped, so its domain is taken once.
        drop(unsafe { std::ptr::read(&raw const this.pd) });
        deregistered?;
        // SAFETY: `this` is never dropped, so its memory is taken once; the device has let go of it (F3).
        Ok(unsafe { ManuallyDrop::take(&mut this.memory) })
    }

    /// Fence F3. To be called once.
    fn deregister(&mut self) -> Result<(), MemoryError> {
        // SAFETY: a live region, deregistered once. Guards of work in flight keep it alive (I4), so there is none.
        let code = unsafe { (self.pd.context().verbs().dereg_mr)(self.raw.as_ptr()) };
        convention::status(code).map_err(|source| {
            crate::stats::leaked_bytes(self.len);
            MemoryError::Deregister { bytes: self.len, source }
        })
    }
}

impl<M> Drop for Registration<M> {
    fn drop(&mut self) {
        if self.deregister().is_ok() {
            // SAFETY: dropped once, here; the device has let go of it (F3). On failure it is leaked.
            unsafe { ManuallyDrop::drop(&mut self.memory) };
        }
    }
}
