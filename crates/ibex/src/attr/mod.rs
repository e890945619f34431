//! Attributes of devices and ports, as the device reports them.
//!
//! Owns [`DeviceAttr`], [`PortAttr`], [`GidEntry`] and the enumerations inside them; all are plain data, `Display` prints
//! them as `ibv_devinfo -v` does, and `serde` serialises them. Asking the device for them is `context`'s job.

mod device;
mod gid;
mod port;

pub use device::{AtomicCap, DeviceAttr, Guid, Transport};
pub use gid::{Gid, GidEntry, GidType};
pub use port::{LinkLayer, Mtu, PortAttr, PortState};

/// Writes `key:` and a value in the columns of `ibv_devinfo`, indented by `depth`.
pub(crate) fn row(
    f: &mut std::fmt::Formatter<'_>,
    depth: usize,
    key: &str,
    value: impl std::fmt::Display,
) -> std::fmt::Result {
    writeln!(f, "{:depth$}{:28}{value}", "", format_args!("{key}:").to_string(), depth = depth * 4)
}
