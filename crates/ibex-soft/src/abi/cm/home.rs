//! The one context that connection management opens, and its protection domain: `rdma_get_devices(3)`.
//!
//! Owns both until the process ends, as librdmacm does: identifiers name them, and programs go on using them.
//!
//! # Safety
//! Context and domain are made once per generation of processes (fork) and never given back.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::sync::{Arc, Mutex, PoisonError};

use ibex_sys::{ibv_context, ibv_pd};

use crate::abi::context::{self, Shared};
use crate::abi::object::pointer;
use crate::abi::{ibv_alloc_pd, ibv_open_device};
use crate::nic::{GENERATIONS, Nic, generation};

/// The context of connection management.
pub(super) struct Home {
    pub(super) context: *mut ibv_context,
    /// The domain of queue pairs whose program names none.
    pub(super) pd: *mut ibv_pd,
    shared: Arc<Shared>,
}

// SAFETY: the two objects are used through the verbs, which may be called from any thread.
unsafe impl Send for Home {}
// SAFETY: as above.
unsafe impl Sync for Home {}

impl Home {
    /// The NIC, if it still works.
    ///
    /// # Errors
    /// `EIO` in the child of a fork, and after a failure of the device.
    pub(super) fn nic(&self) -> Result<&Nic, i32> {
        self.shared.nic()
    }

    /// What attribute values are bounded by.
    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }
}

/// The calling process's, opened when first asked for.
///
/// # Errors
/// Those of `ibv_open_device(3)`.
pub(super) fn home() -> Result<&'static Home, i32> {
    static HOMES: [Mutex<Option<&'static Home>>; GENERATIONS] = [const { Mutex::new(None) }; GENERATIONS];
    let mut home =
        HOMES.get(generation() as usize).ok_or(libc::EIO)?.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(home) = *home {
        return Ok(home);
    }
    let failed = || std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::ENODEV);
    // SAFETY: the device is one of the list's.
    let context = unsafe { ibv_open_device(context::the_device()) };
    if context.is_null() {
        return Err(failed());
    }
    // SAFETY: the context is open.
    let pd = unsafe { ibv_alloc_pd(context) };
    if pd.is_null() {
        return Err(failed());
    }
    // SAFETY: the context is open.
    let shared = unsafe { context::shared(context) }?.clone();
    Ok(home.insert(Box::leak(Box::new(Home { context, pd, shared }))))
}

/// `rdma_get_devices(3)`: the one device.
///
/// # Safety
/// `count` is null or writable.
pub unsafe extern "C" fn rdma_get_devices(count: *mut c_int) -> *mut *mut ibv_context {
    pointer(|| {
        let home = home()?;
        if !count.is_null() {
            // SAFETY: the caller's promise.
            unsafe { *count = 1 }
        }
        Ok(Box::into_raw(Box::new([home.context, std::ptr::null_mut()])).cast())
    })
}

/// `rdma_free_devices(3)`; the device stays open.
///
/// # Safety
/// `list` is null or came from [`rdma_get_devices`], and is not used any more.
pub unsafe extern "C" fn rdma_free_devices(list: *mut *mut ibv_context) {
    if !list.is_null() {
        // SAFETY: the caller's promise; lists are boxes of two pointers.
        drop(unsafe { Box::from_raw(list.cast::<[*mut ibv_context; 2]>()) });
    }
}
