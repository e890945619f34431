//! Devices before they are opened: finding them by name, GUID, network interface or NUMA node.
//!
//! Owns [`Device`] and [`DeviceError`]. Listing and looking at a device has no side effects; [`Device::open`] gives a
//! [`Context`]. See ibv_get_device_list(3).
//!
//! # Safety
//! A `Device` holds the list it came from, and so its `ibv_device` stays valid (ibv_get_device_list(3): until the list is
//! freed, and for as long as it is open).
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use ibex_sys::{self as sys, Errno, Verbs, convention};

use crate::attr::{Guid, Transport};
use crate::context::Context;
use crate::provider::{Choice, Origin, Provider};

/// An error about a device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// Host: no device, and no software device to take its place.
    #[error("no RDMA device: {found}; enable ibex's feature `soft` for the built-in one")]
    NoDevice {
        /// What was found where.
        found: String,
    },
    /// Misuse: no such device.
    #[error("no device with {wanted}; there are: {available}")]
    NotFound {
        /// What was asked for.
        wanted: String,
        /// Names of the devices there are.
        available: String,
    },
    /// Host: libibverbs cannot be loaded.
    #[error(transparent)]
    Library(#[from] sys::LoadError),
    /// Build: the software device was not compiled in.
    #[error("the built-in device is not in this program; enable ibex's feature `soft`")]
    NoSoft,
    /// Host: the library cannot list devices.
    #[error("cannot list RDMA devices")]
    List(#[source] Errno),
    /// Device: it cannot be opened.
    #[error("cannot open device {device}{}", open_remedy(source))]
    Open {
        /// Name of the device.
        device: String,
        /// The library's answer.
        source: Errno,
    },
    /// Device: a query failed.
    #[error("cannot query {what} of device {device}")]
    Query {
        /// Name of the device.
        device: String,
        /// What was asked.
        what: String,
        /// The device's answer.
        source: Errno,
    },
    /// Misuse or fabric: a port without a usable GID.
    #[error(
        "port {port} of device {device} has no usable GID; give its network interface an address (ip addr), or choose an entry of `ibex devinfo -v` with gid_index"
    )]
    NoGid {
        /// Name of the device.
        device: String,
        /// The port.
        port: crate::PortNum,
    },
    /// Device: closing failed; the context is leaked.
    #[error("cannot close device {device}; the context is leaked")]
    Close {
        /// Name of the device.
        device: String,
        /// The library's answer.
        source: Errno,
    },
}

/// What usually helps.
fn open_remedy(source: &Errno) -> &'static str {
    match *source {
        Errno::EACCES | Errno::EPERM => {
            "; allow this user to read and write /dev/infiniband/uverbs*, or use IBEX_DEVICE=soft"
        }
        Errno::ENOENT | Errno::ENODEV => "; load the kernel module ib_uverbs, or use IBEX_DEVICE=soft",
        _ => "",
    }
}

/// A list as the library returned it.
struct List {
    verbs: &'static Verbs,
    raw: NonNull<*mut sys::ibv_device>,
}

// SAFETY: the list and its devices are immutable and belong to no thread (ibv_get_device_list(3)).
unsafe impl Send for List {}
// SAFETY: as above.
unsafe impl Sync for List {}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: the list came from this library and every `Device` of it is gone.
        unsafe { (self.verbs.free_device_list)(self.raw.as_ptr()) };
    }
}

/// An RDMA device, not opened. Cheap to clone.
#[doc(alias = "ibv_device")]
#[derive(Clone)]
pub struct Device {
    list: Arc<List>,
    raw: NonNull<sys::ibv_device>,
    origin: Origin,
    name: Arc<str>,
    notice: Option<Arc<str>>,
}

// SAFETY: an `ibv_device` is immutable and belongs to no thread; the list is kept.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

impl Device {
    /// The device to use if it does not matter which: the one `IBEX_DEVICE` names, else the system's first one, else the
    /// built-in one. [`notice`](Self::notice) says why it came to the last.
    ///
    /// # Errors
    /// [`DeviceError::NotFound`] if `IBEX_DEVICE` names none, [`DeviceError::NoDevice`] if there is none at all.
    pub fn any() -> Result<Self, DeviceError> {
        // `Choice` never is empty.
        Choice::from_environment()?
            .devices
            .into_iter()
            .next()
            .ok_or_else(|| DeviceError::NoDevice { found: "an empty list".to_owned() })
    }

    /// The devices [`any`](Self::any) chooses from. `Provider::System.devices()` and its like list those of one provider.
    ///
    /// # Errors
    /// As [`any`](Self::any).
    #[doc(alias = "ibv_get_device_list")]
    pub fn list() -> Result<Vec<Self>, DeviceError> {
        Provider::Auto.devices()
    }

    /// Every device there is: the system's, then the built-in one. Ignores `IBEX_DEVICE`.
    #[must_use]
    pub fn all() -> Vec<Self> {
        [Provider::System, Provider::Soft].into_iter().filter_map(|p| p.devices().ok()).flatten().collect()
    }

    /// The device with this name, of any provider; or the first one of the provider `system` or `soft`.
    ///
    /// # Errors
    /// [`DeviceError::NotFound`], with the names there are.
    pub fn by_name(name: &str) -> Result<Self, DeviceError> {
        if matches!(name, "soft" | "system") {
            let first = Choice::named(name)?.devices.into_iter().next();
            return first.ok_or_else(|| DeviceError::NotFound {
                wanted: format!("provider {name}"),
                available: names(&Self::all()),
            });
        }
        Self::find(format!("name {name}"), |device| device.name() == name)
    }

    /// The device with this GUID, of any provider.
    ///
    /// # Errors
    /// [`DeviceError::NotFound`], with the names there are.
    pub fn by_guid(guid: Guid) -> Result<Self, DeviceError> {
        Self::find(format!("GUID {guid}"), |device| device.guid() == guid)
    }

    /// The device behind this network interface.
    ///
    /// # Errors
    /// [`DeviceError::NotFound`], with the names there are.
    pub fn by_netdev(netdev: &str) -> Result<Self, DeviceError> {
        Self::find(format!("network interface {netdev}"), |device| device.netdev().as_deref() == Some(netdev))
    }

    fn find(wanted: String, is_it: impl Fn(&Self) -> bool) -> Result<Self, DeviceError> {
        let all = Self::all();
        match all.iter().find(|device| is_it(device)) {
            Some(device) => Ok(device.clone()),
            None => Err(DeviceError::NotFound { wanted, available: names(&all) }),
        }
    }

    /// The devices of a table.
    pub(crate) fn enumerate(verbs: &'static Verbs, origin: Origin) -> Result<Vec<Self>, DeviceError> {
        let mut count = 0;
        // SAFETY: `count` is a valid place for the answer.
        let raw = unsafe { (verbs.get_device_list)(&raw mut count) };
        let raw = convention::pointer(raw).map_err(DeviceError::List)?;
        let list = Arc::new(List { verbs, raw });
        let device = |index: usize| {
            // SAFETY: the array has `count` entries.
            let entry = unsafe { raw.add(index) };
            // SAFETY: an entry of the array, initialised by the library.
            let raw = NonNull::new(unsafe { entry.read() })?;
            // SAFETY: a valid device of this library.
            let name = unsafe { (verbs.get_device_name)(raw.as_ptr()) };
            if name.is_null() {
                return None;
            }
            // SAFETY: a NUL-terminated string that lives as long as the device.
            let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into();
            Some(Self { list: Arc::clone(&list), raw, origin, name, notice: None })
        };
        Ok((0..usize::try_from(count).unwrap_or(0)).filter_map(device).collect())
    }

    pub(crate) fn set_notice(&mut self, notice: String) {
        self.notice = Some(notice.into());
    }

    pub(crate) fn verbs(&self) -> &'static Verbs {
        self.list.verbs
    }

    /// What a program should tell its user about the choice of this device, if anything: that there is no RDMA device and
    /// the built-in one is used.
    #[must_use]
    pub fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }

    /// The name, such as `mlx5_0` or `ibex0`.
    #[doc(alias = "ibv_get_device_name")]
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whose device it is.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// The GUID.
    #[doc(alias = "ibv_get_device_guid")]
    #[must_use]
    pub fn guid(&self) -> Guid {
        // SAFETY: a valid device of this library.
        Guid(u64::from_be(unsafe { (self.list.verbs.get_device_guid)(self.raw.as_ptr()) }))
    }

    /// What it speaks.
    #[must_use]
    pub fn transport(&self) -> Transport {
        // SAFETY: a valid device, immutable while its list lives.
        Transport::from_sys(unsafe { (*self.raw.as_ptr()).transport_type })
    }

    /// The network interface behind its first port, if the kernel tells. For the built-in device open it and look at
    /// [`Context::gid_table`].
    #[must_use]
    pub fn netdev(&self) -> Option<String> {
        self.sysfs("ports/1/gid_attrs/ndevs/0")
    }

    /// The NUMA node it is attached to, if the kernel tells.
    #[must_use]
    pub fn numa_node(&self) -> Option<u32> {
        // The kernel says −1 where there is no choice.
        self.sysfs("device/numa_node")?.parse().ok()
    }

    /// A line of the kernel about this device.
    pub(crate) fn sysfs(&self, file: &str) -> Option<String> {
        if self.origin != Origin::System {
            return None;
        }
        let text = std::fs::read_to_string(format!("/sys/class/infiniband/{}/{file}", self.name)).ok()?;
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// Opens it.
    ///
    /// # Errors
    /// [`DeviceError::Open`], with what usually helps.
    #[doc(alias = "ibv_open_device")]
    pub fn open(&self) -> Result<Context, DeviceError> {
        // SAFETY: a valid device of this library.
        let raw = unsafe { (self.list.verbs.open_device)(self.raw.as_ptr()) };
        match convention::pointer(raw) {
            // SAFETY: the context was just opened through this table and belongs to nobody else.
            Ok(raw) => Ok(unsafe { Context::from_open(self.clone(), raw) }),
            Err(source) => Err(DeviceError::Open { device: self.name.to_string(), source }),
        }
    }
}

/// Names, for messages.
fn names(devices: &[Device]) -> String {
    if devices.is_empty() {
        return "none".to_owned();
    }
    devices.iter().map(Device::name).collect::<Vec<_>>().join(", ")
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("name", &self.name)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name)
    }
}
