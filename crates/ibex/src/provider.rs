//! The choice between the system's RDMA stack and the built-in software device.
//!
//! Owns [`Provider`] and the meaning of the environment variable `IBEX_DEVICE`. Both providers are reached through the
//! same table of C functions, so nothing above this module knows which one is in use.
//!
//! # Safety
//! A table comes from the system's library, from the built-in device, or from a caller of [`Provider::custom`] who
//! promised that it keeps the contracts of the man pages.
#![allow(unsafe_code)]

use std::fmt;

use ibex_sys::Verbs;

use crate::device::{Device, DeviceError};

/// Environment variable that chooses the device: its name, or `system` or `soft` for the first one of a provider.
pub const DEVICE_VARIABLE: &str = "IBEX_DEVICE";

/// Where the kernel lists RDMA devices.
const SYSFS: &str = "/sys/class/infiniband";

/// Who provides devices.
///
/// | | devices | needs |
/// |---|---|---|
/// | [`Auto`](Self::Auto) | the system's if there is one, else the built-in one | nothing |
/// | [`System`](Self::System) | those of libibverbs | rdma-core's libraries, a kernel driver, a device |
/// | [`Soft`](Self::Soft) | the built-in software device `ibex0` | nothing; cargo feature `soft`, on by default |
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub enum Provider {
    /// The system's devices if there are any, else the built-in one; `IBEX_DEVICE` overrides.
    #[default]
    Auto,
    /// The system's libibverbs, loaded at run time.
    System,
    /// The software device inside this library.
    Soft,
    /// A table supplied by the program. Made by [`Provider::custom`].
    Custom(Table),
}

/// A table of verbs supplied by the program.
#[derive(Clone, Copy)]
pub struct Table(&'static Verbs);

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Table")
    }
}

impl Provider {
    /// A provider made of C functions that the program brings along: a simulator, an instrumented library.
    ///
    /// # Safety
    /// Every function of the table must keep the contract of its man page for the rest of the process's life: above all,
    /// memory of a work request is touched only between its post and its completion (or the destruction of its queue
    /// pair), and only if its key allows it.
    #[must_use]
    pub const unsafe fn custom(verbs: &'static Verbs) -> Self {
        Self::Custom(Table(verbs))
    }

    /// The devices of this provider. Listing opens none of them and changes nothing.
    ///
    /// # Errors
    /// [`DeviceError::Library`] if libibverbs cannot be loaded, [`DeviceError::NoSoft`] if the software device was not
    /// compiled in, [`DeviceError::List`] if the library cannot list.
    pub fn devices(self) -> Result<Vec<Device>, DeviceError> {
        match self {
            Self::Auto => Ok(Choice::from_environment()?.devices),
            Self::System => Device::enumerate(Verbs::load()?, Origin::System),
            Self::Soft => Device::enumerate(soft()?, Origin::Soft),
            Self::Custom(Table(verbs)) => Device::enumerate(verbs, Origin::Custom),
        }
    }
}

/// Whose device it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Origin {
    /// The system's libibverbs.
    System,
    /// The software device inside this library.
    Soft,
    /// A table supplied by the program.
    Custom,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::System => "system",
            Self::Soft => "built-in",
            Self::Custom => "custom",
        })
    }
}

/// What [`Provider::Auto`] comes to, and why.
#[derive(Debug)]
pub(crate) struct Choice {
    /// Candidates, the preferred one first; never empty.
    pub(crate) devices: Vec<Device>,
}

impl Choice {
    /// Chooses by `IBEX_DEVICE`, or by what there is.
    pub(crate) fn from_environment() -> Result<Self, DeviceError> {
        match std::env::var(DEVICE_VARIABLE) {
            Ok(wanted) if !wanted.is_empty() => Self::named(&wanted),
            _ => Self::by_presence(),
        }
    }

    /// Devices of the provider so named, or the device so named.
    pub(crate) fn named(wanted: &str) -> Result<Self, DeviceError> {
        let devices = match wanted {
            "soft" => Provider::Soft.devices()?,
            "system" => Provider::System.devices()?,
            name => vec![Device::by_name(name)?],
        };
        if devices.is_empty() {
            return Err(DeviceError::NoDevice { found: describe_system() });
        }
        Ok(Self { devices })
    }

    /// The system's devices, else the built-in one with a note that says why.
    fn by_presence() -> Result<Self, DeviceError> {
        let found = match Provider::System.devices() {
            Ok(devices) if !devices.is_empty() => return Ok(Self { devices }),
            Ok(_) => describe_system(),
            Err(DeviceError::Library { .. }) => "libibverbs.so.1 not found".to_owned(),
            Err(error) => error.to_string(),
        };
        let mut devices = match Provider::Soft.devices() {
            Ok(devices) if !devices.is_empty() => devices,
            Ok(_) | Err(DeviceError::NoSoft) => return Err(DeviceError::NoDevice { found }),
            Err(error) => return Err(error),
        };
        for device in &mut devices {
            let note = format!(
                "no RDMA device: {found}; using the built-in device {} (set {DEVICE_VARIABLE} to choose)",
                device.name()
            );
            device.set_notice(note);
        }
        Ok(Self { devices })
    }
}

/// Why the system's library lists no device.
fn describe_system() -> String {
    let kernel = match std::fs::read_dir(SYSFS).map(Iterator::count) {
        Err(_) => format!("{SYSFS} missing (no RDMA driver loaded)"),
        Ok(0) => format!("{SYSFS} empty"),
        Ok(n) => format!("{SYSFS} has {n} entries, but no user space driver or no permission for them"),
    };
    format!("libibverbs.so.1 found, {kernel}")
}

/// The table of the built-in device.
#[cfg(feature = "soft")]
#[expect(clippy::unnecessary_wraps, reason = "without the feature it fails")]
fn soft() -> Result<&'static Verbs, DeviceError> {
    Ok(ibex_soft::verbs())
}

/// The table of the built-in device, which was not compiled in.
#[cfg(not(feature = "soft"))]
fn soft() -> Result<&'static Verbs, DeviceError> {
    Err(DeviceError::NoSoft)
}
