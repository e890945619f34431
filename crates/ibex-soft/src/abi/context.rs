//! Devices and contexts: `ibv_get_device_list(3)`, `ibv_open_device(3)`, `ibv_query_device(3)`, `ibv_query_port(3)`.
//!
//! Owns the one `ibv_device`, the `verbs_context` with its tables of operations, and what a context holds together. The
//! numbers reported are [`crate::device`]'s.
//!
//! # Safety
//! As `object`. The device is made once and never freed. A context's pointer points at the last member of the
//! `verbs_context` in its [`Object`]; contexts that still have objects when closed are emptied but not freed.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int};
use std::mem::{offset_of, size_of};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ibex_sys::{
    __VERBS_ABI_IS_EXTENDED, _compat_ibv_port_attr, IBV_NODE_CA, IBV_SYSFS_NAME_MAX, IBV_TRANSPORT_IB,
    ibv_context, ibv_context_ops, ibv_device, ibv_device_attr, ibv_port_attr, verbs_context, verbs_device,
};

use super::object::{Object, code, given, minus_one, panicked, pointer};
use super::{cq, cq_ex, device_ex, mw, post, qp_ex, srq};
use crate::device::{self, AsyncQueue, Limits};
use crate::event::EventQueue;
use crate::mr::PdNumber;
use crate::net::Config;
use crate::nic::{self, Nic, OpenNic};

/// What all objects of one context share.
pub(super) struct Shared {
    open: Arc<OpenNic>,
    pub(super) events: Arc<AsyncQueue>,
    pub(super) limits: Limits,
    /// Protection domains and queue pairs alive, for closing without them having been destroyed.
    pub(super) domains: Mutex<Vec<PdNumber>>,
    pub(super) qps: Mutex<Vec<u32>>,
}

type ContextObject = Object<verbs_context, Arc<Shared>>;

impl Shared {
    /// Whether this process opened the context, and not one it was forked from.
    pub(super) fn is_ours(&self) -> bool {
        self.open.is_ours()
    }

    /// The NIC, to be held on to.
    pub(super) fn open_nic(&self) -> &Arc<Nic> {
        self.open.nic()
    }

    /// The NIC, if it still works.
    ///
    /// # Errors
    /// `EIO` in the child of a fork, and after a failure of the device.
    #[inline]
    pub(super) fn nic(&self) -> Result<&Nic, i32> {
        if !self.open.is_ours() {
            return Err(libc::EIO);
        }
        let nic = self.open.nic();
        if panicked() {
            nic.fail();
        }
        if nic.has_failed() { Err(libc::EIO) } else { Ok(nic) }
    }
}

/// The inside of a program's context.
///
/// # Safety
/// `context` is null or came from [`ibv_open_device`] and was not closed.
pub(super) unsafe fn shared<'a>(context: *mut ibv_context) -> Result<&'a Arc<Shared>, i32> {
    let whole = whole(given(context)?);
    // SAFETY: the caller's promise; `whole` inverts what `ibv_open_device` did.
    Ok(unsafe { ContextObject::soft(whole) })
}

/// From a context to the structure around it.
fn whole(context: *mut ibv_context) -> *mut verbs_context {
    context.wrapping_byte_sub(offset_of!(verbs_context, context)).cast()
}

struct DevicePointer(*mut verbs_device);
// SAFETY: the device is written before it is shared and never after.
unsafe impl Send for DevicePointer {}
// SAFETY: as above.
unsafe impl Sync for DevicePointer {}

/// The device, made when first asked for.
pub(super) fn the_device() -> *mut ibv_device {
    static DEVICE: OnceLock<DevicePointer> = OnceLock::new();
    let pointer = DEVICE.get_or_init(|| {
        let mut device = verbs_device { refcount: 1, ..Default::default() };
        // Any address that is no vendor's will do; this one lives as long as the program.
        device.ops = (&raw const DEVICE).cast();
        let public = &mut device.device;
        public.node_type = IBV_NODE_CA;
        public.transport_type = IBV_TRANSPORT_IB;
        fill(&mut public.name, device::NAME);
        fill(&mut public.dev_name, device::DEV_NAME);
        fill(&mut public.dev_path, &format!("/sys/class/infiniband_verbs/{}", device::DEV_NAME));
        fill(&mut public.ibdev_path, &format!("/sys/class/infiniband/{}", device::NAME));
        DevicePointer(Box::into_raw(Box::new(device)))
    });
    pointer.0.cast()
}

/// Copies text into a zeroed array of C characters, leaving at least one zero.
fn fill(to: &mut [c_char], text: &str) {
    let room = to.len() - 1;
    for (to, from) in to[..room].iter_mut().zip(text.bytes()) {
        *to = from as c_char;
    }
}

/// `ibv_get_device_list(3)`.
///
/// # Safety
/// `count` is null or writable.
pub unsafe extern "C" fn ibv_get_device_list(count: *mut c_int) -> *mut *mut ibv_device {
    pointer(|| {
        if !count.is_null() {
            // SAFETY: the caller's promise.
            unsafe { *count = 1 }
        }
        let list = Box::new([the_device(), std::ptr::null_mut()]);
        Ok(Box::into_raw(list).cast())
    })
}

/// `ibv_free_device_list(3)`.
///
/// # Safety
/// `list` came from [`ibv_get_device_list`] and is not used any more.
pub unsafe extern "C" fn ibv_free_device_list(list: *mut *mut ibv_device) {
    if !list.is_null() {
        // SAFETY: the caller's promise; lists are boxes of two pointers.
        drop(unsafe { Box::from_raw(list.cast::<[*mut ibv_device; 2]>()) });
    }
}

/// `ibv_get_device_name(3)`.
///
/// # Safety
/// `device` came from [`ibv_get_device_list`].
pub unsafe extern "C" fn ibv_get_device_name(device: *mut ibv_device) -> *const c_char {
    if device.is_null() {
        return std::ptr::null();
    }
    // SAFETY: the caller's promise; the name is zero-terminated and never changes.
    let name: &[c_char; IBV_SYSFS_NAME_MAX] = unsafe { &(*device).name };
    name.as_ptr()
}

/// `ibv_get_device_guid(3)`: 0 if the environment names no usable address.
///
/// # Safety
/// `device` came from [`ibv_get_device_list`].
pub unsafe extern "C" fn ibv_get_device_guid(_device: *mut ibv_device) -> u64 {
    super::object::caught(|| Ok(Config::from_env().map_or(0, |config| device::guid(config.address))))
        .unwrap_or(0)
}

/// `ibv_get_device_index(3)`: the kernel has no number for this device.
///
/// # Safety
/// None; the argument is not looked at.
pub unsafe extern "C" fn ibv_get_device_index(_device: *mut ibv_device) -> c_int {
    -1
}

/// `ibv_open_device(3)`. Why it failed goes to stderr, since an errno cannot say it.
///
/// # Safety
/// `device` came from [`ibv_get_device_list`].
pub unsafe extern "C" fn ibv_open_device(device: *mut ibv_device) -> *mut ibv_context {
    pointer(|| {
        given(device)?;
        let open = Config::from_env().map_err(nic::OpenError::from).and_then(|config| nic::open(&config));
        let open = open.map_err(|error| {
            eprintln!("ibex-soft: cannot open {}: {error}", device::NAME);
            errno_of(&error)
        })?;
        let events =
            Arc::new(EventQueue::new().map_err(|error| error.raw_os_error().unwrap_or(libc::EMFILE))?);
        open.nic().subscribe(&events);
        let limits = Limits::of(&open.nic().wire);
        let async_fd = events.fd();
        let (domains, qps) = (Mutex::default(), Mutex::default());
        let shared = Arc::new(Shared { open, events, limits, domains, qps });
        let whole = ContextObject::publish(extended(device, async_fd), shared);
        Ok(whole.wrapping_byte_add(offset_of!(verbs_context, context)).cast())
    })
}

fn errno_of(error: &nic::OpenError) -> i32 {
    match error {
        nic::OpenError::Os(error) => error.raw_os_error().unwrap_or(libc::ENOMEM),
        nic::OpenError::Net(error) => error.errno(),
        nic::OpenError::Forked => libc::EIO,
    }
}

/// The structure around a context. Pointers that are absent make verbs.h say `EOPNOTSUPP`.
fn extended(device: *mut ibv_device, async_fd: c_int) -> verbs_context {
    let ops = ibv_context_ops {
        _compat_query_device: Some(ibv_query_device),
        _compat_query_port: Some(ibv_query_port),
        alloc_mw: Some(mw::alloc_mw),
        // verbs.h calls these two without looking.
        bind_mw: Some(mw::bind_mw),
        dealloc_mw: Some(mw::dealloc_mw),
        poll_cq: Some(cq::poll_cq),
        req_notify_cq: Some(cq::req_notify_cq),
        post_srq_recv: Some(srq::post_srq_recv),
        post_send: Some(post::post_send),
        post_recv: Some(post::post_recv),
        ..Default::default()
    };
    verbs_context {
        query_port: Some(query_port),
        query_device_ex: Some(device_ex::query_device_ex),
        query_rt_values: Some(device_ex::query_rt_values),
        create_qp_ex: Some(qp_ex::create_qp_ex),
        create_cq_ex: Some(cq_ex::create_cq_ex),
        modify_cq: Some(cq::modify_cq),
        sz: size_of::<verbs_context>(),
        context: ibv_context {
            device,
            ops,
            cmd_fd: -1,
            async_fd,
            num_comp_vectors: 1,
            abi_compat: __VERBS_ABI_IS_EXTENDED,
            ..Default::default()
        },
        ..Default::default()
    }
}

/// `ibv_close_device(3)`. Objects that were not destroyed stop working: their memory is no longer reachable by peers.
///
/// # Safety
/// `context` came from [`ibv_open_device`]; it is not used any more, except by objects that were not destroyed.
pub unsafe extern "C" fn ibv_close_device(context: *mut ibv_context) -> c_int {
    minus_one(|| {
        // SAFETY: the caller's promise.
        let inside = unsafe { shared(context) }?;
        if !inside.open.is_ours() {
            // In the child of a fork: nothing here may be locked or freed.
            return Ok(0);
        }
        let nic = inside.open.nic();
        let qps = std::mem::take(&mut *inside.qps.lock().unwrap_or_else(PoisonError::into_inner));
        for num in qps {
            nic.detach(num);
        }
        let mut domains = inside.domains.lock().unwrap_or_else(PoisonError::into_inner);
        nic.deregister_domains(&domains)?;
        domains.clear();
        drop(domains);
        if Arc::strong_count(inside) == 1 {
            // SAFETY: no object refers to the context, and the caller gives it up.
            drop(unsafe { ContextObject::reclaim(whole(context)) });
        }
        Ok(0)
    })
}

/// `ibv_query_device(3)`.
///
/// # Safety
/// `context` is open; `attr` is writable.
pub unsafe extern "C" fn ibv_query_device(context: *mut ibv_context, attr: *mut ibv_device_attr) -> c_int {
    code(|| {
        // SAFETY: the caller's promise.
        let nic = unsafe { shared(context) }?.nic()?;
        let answer = device::attributes(nic.wire.address());
        // SAFETY: the caller's promise.
        unsafe { given(attr)?.write(answer) }
        Ok(())
    })
}

/// The exported `ibv_query_port(3)`, which knows only the shorter structure of old programs.
///
/// # Safety
/// `context` is open; `attr` is writable.
pub unsafe extern "C" fn ibv_query_port(
    context: *mut ibv_context,
    port: u8,
    attr: *mut _compat_ibv_port_attr,
) -> c_int {
    // SAFETY: the caller's promise; only the size given is written.
    unsafe { query_port(context, port, attr.cast(), size_of::<_compat_ibv_port_attr>()) }
}

/// `ibv_query_port(3)` as verbs.h calls it, with the size the program knows.
unsafe extern "C" fn query_port(
    context: *mut ibv_context,
    port: u8,
    attr: *mut ibv_port_attr,
    size: usize,
) -> c_int {
    code(|| {
        // SAFETY: the context is open (manual).
        let nic = unsafe { shared(context) }?.nic()?;
        if port != 1 {
            return Err(libc::EINVAL);
        }
        let answer = device::port(&nic.wire);
        // SAFETY: `size` bytes are writable (manual).
        unsafe { copy_prefix(&answer, given(attr)?, size) };
        Ok(())
    })
}

/// Writes the first `size` bytes of a structure, as much of it as an older program knows, and zeroes beyond its end for
/// a newer one.
///
/// # Safety
/// `size` bytes at `to` are writable; `T` is plain C data.
pub(super) unsafe fn copy_prefix<T: Copy>(from: &T, to: *mut T, size: usize) {
    let known = size.min(size_of::<T>());
    let from = std::ptr::from_ref(from).cast::<u8>();
    // SAFETY: `known` bytes are inside `from`, and writable by the caller's promise.
    unsafe { std::ptr::copy_nonoverlapping(from, to.cast::<u8>(), known) }
    let rest = to.cast::<u8>().wrapping_add(known);
    // SAFETY: the caller's promise.
    unsafe { std::ptr::write_bytes(rest, 0, size - known) }
}
