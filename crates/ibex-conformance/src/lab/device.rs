//! The device under test and its protection domains.
//!
//! # Safety
//! The function table is complete and lives for ever. The context is closed when the last object made from it is gone:
//! each object holds an `Arc` of what it was made from.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_int, c_void};
use std::sync::Arc;

use ibex_sys::{
    Verbs, dispatch, ibv_access_flags, ibv_context, ibv_device_attr, ibv_gid, ibv_mr, ibv_pd, ibv_port_attr,
};

use super::NodeOptions;

/// The device under test, opened.
#[derive(Debug, Clone)]
pub struct Lab {
    pub(super) device: Arc<Device>,
}

/// The open context and what it says of itself.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) verbs: &'static Verbs,
    pub(super) context: *mut ibv_context,
    name: String,
    attr: ibv_device_attr,
    port: ibv_port_attr,
    gid: ibv_gid,
    gid_index: u8,
}

// SAFETY: libibverbs' objects may be used from any thread (verbs are thread safe).
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

/// The errno of the call that just failed.
pub(super) fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// The port that the suite uses.
pub(super) const PORT: u8 = 1;

/// The name of the device that the environment asks for, if it asks for one.
pub(super) fn wanted_device() -> Option<String> {
    std::env::var("IBEX_DEVICE").ok().filter(|name| name != "soft" && name != "system")
}

impl Lab {
    /// Opens the device that the environment names.
    ///
    /// # Panics
    /// When there is none, or when it has no usable port: the suite never passes for want of a device.
    pub fn open() -> Self {
        let verbs = match std::env::var("IBEX_CONFORMANCE_PROVIDER").as_deref() {
            Err(_) | Ok("soft") => ibex_soft::verbs(),
            Ok("system") => Verbs::load().unwrap_or_else(|error| panic!("{error}")),
            Ok(other) => panic!("IBEX_CONFORMANCE_PROVIDER is {other}: soft or system"),
        };
        let wanted = wanted_device();
        let mut count: c_int = 0;
        // SAFETY: ibv_get_device_list(3).
        let list = unsafe { (verbs.get_device_list)(&raw mut count) };
        assert!(!list.is_null(), "no list of devices: errno {}", errno());
        let mut names = Vec::new();
        let mut found = None;
        for index in 0..usize::try_from(count).expect("a count") {
            // SAFETY: ibv_get_device_list(3): `count` entries.
            let entry = unsafe { list.add(index) };
            // SAFETY: as above.
            let device = unsafe { *entry };
            // SAFETY: ibv_get_device_name(3) gives a string that lives as long as the list.
            let name = unsafe { (verbs.get_device_name)(device) };
            // SAFETY: as above.
            let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
            if found.is_none() && wanted.as_ref().is_none_or(|wanted| *wanted == name) {
                found = Some((device, name.clone()));
            }
            names.push(name);
        }
        let (device, name) = found.unwrap_or_else(|| panic!("no device {wanted:?} among {names:?}"));
        // SAFETY: ibv_open_device(3), with a device of the list.
        let context = unsafe { (verbs.open_device)(device) };
        let open_errno = errno();
        // SAFETY: ibv_free_device_list(3), once, after opening.
        unsafe { (verbs.free_device_list)(list) };
        assert!(!context.is_null(), "cannot open {name}: errno {open_errno}");
        let mut attr = ibv_device_attr::default();
        // SAFETY: an open context and a structure to fill.
        let ret = unsafe { (verbs.query_device)(context, &raw mut attr) };
        assert_eq!(ret, 0, "ibv_query_device");
        let mut port = ibv_port_attr::default();
        // SAFETY: an open context and a structure to fill.
        let ret = unsafe { dispatch::ibv_query_port(verbs, context, PORT, &raw mut port) };
        assert_eq!(ret, 0, "ibv_query_port");
        let (gid_index, gid) = choose_gid(verbs, context, &port);
        Self { device: Arc::new(Device { verbs, context, name, attr, port, gid, gid_index }) }
    }

    /// The name of the device.
    pub fn name(&self) -> &str {
        &self.device.name
    }

    /// The function table.
    pub fn verbs(&self) -> &'static Verbs {
        self.device.verbs
    }

    /// The open context.
    pub fn context(&self) -> *mut ibv_context {
        self.device.context
    }

    /// The device's attributes.
    pub fn attr(&self) -> &ibv_device_attr {
        &self.device.attr
    }

    /// The port's attributes.
    pub fn port(&self) -> &ibv_port_attr {
        &self.device.port
    }

    /// The GID that the suite connects with, and its index.
    pub fn gid(&self) -> (u8, ibv_gid) {
        (self.device.gid_index, self.device.gid)
    }

    /// Bytes in a packet at the path MTU.
    pub fn mtu(&self) -> usize {
        128 << self.device.port.active_mtu.0
    }

    /// A new protection domain.
    ///
    /// # Panics
    /// When the device refuses.
    pub fn pd(&self) -> Pd {
        // SAFETY: ibv_alloc_pd(3), with an open context.
        let pd = unsafe { (self.device.verbs.alloc_pd)(self.device.context) };
        assert!(!pd.is_null(), "cannot allocate a protection domain: errno {}", errno());
        Pd { inner: Arc::new(PdInner { pd, lab: self.clone() }) }
    }

    /// A node with its own protection domain, completion queue and queue pair.
    pub fn node(&self, options: &NodeOptions) -> super::Node {
        super::Node::new(self, options)
    }
}

/// The GID to connect with: an IPv4-mapped one if there is one, else the last that is not empty.
fn choose_gid(verbs: &Verbs, context: *mut ibv_context, port: &ibv_port_attr) -> (u8, ibv_gid) {
    let mut chosen = None;
    for index in 0..port.gid_tbl_len.min(16) {
        let mut gid = ibv_gid::default();
        // SAFETY: ibv_query_gid(3), with an open context and a structure to fill.
        let ret = unsafe { (verbs.query_gid)(context, PORT, index, &raw mut gid) };
        // SAFETY: every bit pattern is a raw GID.
        let raw = unsafe { gid.raw };
        if ret != 0 || raw == [0; 16] {
            continue;
        }
        let index = u8::try_from(index).expect("below 16");
        if raw[..12] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff] {
            return (index, gid);
        }
        chosen = Some((index, gid));
    }
    chosen.expect("the port has a GID")
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: ibv_close_device(3): every object made from it is gone, each held an `Arc` of this.
        let ret = unsafe { (self.verbs.close_device)(self.context) };
        assert!(ret == 0 || std::thread::panicking(), "ibv_close_device: {ret}");
    }
}

/// A protection domain.
#[derive(Debug, Clone)]
pub struct Pd {
    inner: Arc<PdInner>,
}

#[derive(Debug)]
struct PdInner {
    pd: *mut ibv_pd,
    lab: Lab,
}

// SAFETY: libibverbs' objects may be used from any thread.
unsafe impl Send for PdInner {}
// SAFETY: as above.
unsafe impl Sync for PdInner {}

impl Pd {
    /// The C object.
    pub fn as_ptr(&self) -> *mut ibv_pd {
        self.inner.pd
    }

    /// The device it belongs to.
    pub fn lab(&self) -> &Lab {
        &self.inner.lab
    }

    /// `ibv_reg_mr`.
    ///
    /// # Safety
    /// The range stays mapped until the region has been deregistered (I4).
    pub(super) unsafe fn reg_mr(
        &self,
        addr: *mut c_void,
        len: usize,
        access: ibv_access_flags,
    ) -> Result<*mut ibv_mr, i32> {
        let access = c_int::try_from(access.0).expect("access flags are small");
        // SAFETY: ibv_reg_mr(3); the caller keeps the range mapped.
        let mr = unsafe { (self.lab().device.verbs.reg_mr)(self.inner.pd, addr, len, access) };
        if mr.is_null() { Err(errno()) } else { Ok(mr) }
    }

    /// `ibv_dereg_mr`.
    ///
    /// # Safety
    /// `mr` came from [`Pd::reg_mr`] and has not been deregistered.
    pub(super) unsafe fn dereg_mr(&self, mr: *mut ibv_mr) -> Result<(), i32> {
        // SAFETY: as the caller promises.
        let ret = unsafe { (self.lab().device.verbs.dereg_mr)(mr) };
        if ret == 0 { Ok(()) } else { Err(ret) }
    }

    /// Tries to deallocate the domain while others still use it; gives the refusal's errno.
    ///
    /// # Panics
    /// When the device agrees.
    pub fn dealloc_must_fail(&self) -> i32 {
        // SAFETY: ibv_dealloc_pd(3); used by objects of the caller, so that the device has to refuse.
        let ret = unsafe { (self.lab().device.verbs.dealloc_pd)(self.inner.pd) };
        assert_ne!(ret, 0, "a protection domain in use was deallocated");
        ret
    }
}

impl Drop for PdInner {
    fn drop(&mut self) {
        // SAFETY: ibv_dealloc_pd(3): every object of the domain is gone, each held an `Arc` of this.
        let ret = unsafe { (self.lab.device.verbs.dealloc_pd)(self.pd) };
        assert!(ret == 0 || std::thread::panicking(), "ibv_dealloc_pd: {ret}");
    }
}

impl Lab {
    /// `ibv_query_port`.
    ///
    /// # Errors
    /// What the call returned.
    pub fn query_port(&self, port: u8) -> Result<ibv_port_attr, i32> {
        let mut attr = ibv_port_attr::default();
        // SAFETY: an open context and a structure to fill.
        let ret =
            unsafe { dispatch::ibv_query_port(self.device.verbs, self.device.context, port, &raw mut attr) };
        if ret == 0 { Ok(attr) } else { Err(ret) }
    }

    /// `ibv_query_gid`.
    ///
    /// # Errors
    /// What the call returned.
    pub fn query_gid(&self, port: u8, index: i32) -> Result<ibv_gid, i32> {
        let mut gid = ibv_gid::default();
        // SAFETY: an open context and a structure to fill.
        let ret = unsafe { (self.device.verbs.query_gid)(self.device.context, port, index, &raw mut gid) };
        if ret == 0 { Ok(gid) } else { Err(ret) }
    }

    /// `ibv_query_pkey`; the key is big-endian.
    ///
    /// # Errors
    /// What the call returned.
    pub fn query_pkey(&self, port: u8, index: i32) -> Result<u16, i32> {
        let mut pkey = 0;
        // SAFETY: an open context and a number to fill.
        let ret = unsafe { (self.device.verbs.query_pkey)(self.device.context, port, index, &raw mut pkey) };
        if ret == 0 { Ok(pkey) } else { Err(ret) }
    }
}
