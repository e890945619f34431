//! Attributes of a port. See ibv_query_port(3).

use std::fmt;

use ibex_sys as sys;
use serde::{Deserialize, Serialize};

use super::row;
use crate::addr::{Lid, PortNum};

/// Declares a newtype over a C enumeration, serialised by name.
macro_rules! named {
    ($(#[$doc:meta])* $name:ident, $c:literal: $($(#[$vdoc:meta])* $variant:ident = $value:expr, $text:literal;)*) => {
        $(#[$doc])*
        #[doc(alias = $c)]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u32);

        impl $name {
            $($(#[$vdoc])* pub const $variant: Self = Self($value);)*

            /// The name of the value, if this library knows it.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$variant => Some($text),)*
                    _ => None,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.pad(name),
                    None => write!(f, "unknown ({})", self.0),
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

named! {
    /// Logical state of a port; data moves only while it is [`ACTIVE`](Self::ACTIVE).
    PortState, "ibv_port_state":
    /// Not reported.
    NOP = sys::IBV_PORT_NOP.0, "NOP";
    /// No link.
    DOWN = sys::IBV_PORT_DOWN.0, "DOWN";
    /// Link, but no address yet.
    INIT = sys::IBV_PORT_INIT.0, "INIT";
    /// Addressed, not yet activated by the subnet manager.
    ARMED = sys::IBV_PORT_ARMED.0, "ARMED";
    /// Ready.
    ACTIVE = sys::IBV_PORT_ACTIVE.0, "ACTIVE";
    /// Ready, with a short loss of link behind it.
    ACTIVE_DEFER = sys::IBV_PORT_ACTIVE_DEFER.0, "ACTIVE_DEFER";
}

named! {
    /// What is below the transport.
    LinkLayer, "IBV_LINK_LAYER_*":
    /// Not reported: InfiniBand, from before there was a choice.
    UNSPECIFIED = sys::IBV_LINK_LAYER_UNSPECIFIED as u32, "Unspecified";
    /// InfiniBand.
    INFINIBAND = sys::IBV_LINK_LAYER_INFINIBAND as u32, "InfiniBand";
    /// Ethernet: RoCE or iWARP.
    ETHERNET = sys::IBV_LINK_LAYER_ETHERNET as u32, "Ethernet";
}

/// Largest payload of a packet.
#[doc(alias = "ibv_mtu")]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(into = "u32", try_from = "u32")]
pub enum Mtu {
    /// 256 bytes.
    B256 = 1,
    /// 512 bytes.
    B512 = 2,
    /// 1024 bytes.
    B1024 = 3,
    /// 2048 bytes.
    B2048 = 4,
    /// 4096 bytes.
    B4096 = 5,
}

impl Mtu {
    /// All of them, smallest first.
    pub const ALL: [Self; 5] = [Self::B256, Self::B512, Self::B1024, Self::B2048, Self::B4096];

    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        128 << self as u32
    }

    /// The MTU of exactly so many bytes.
    #[must_use]
    pub fn from_bytes(bytes: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|mtu| mtu.bytes() == bytes)
    }

    pub(crate) fn from_sys(value: sys::ibv_mtu) -> Option<Self> {
        Self::ALL.into_iter().find(|mtu| *mtu as u32 == value.0)
    }

    pub(crate) const fn to_sys(self) -> sys::ibv_mtu {
        sys::ibv_mtu(self as u32)
    }
}

impl From<Mtu> for u32 {
    fn from(mtu: Mtu) -> Self {
        mtu.bytes()
    }
}

impl TryFrom<u32> for Mtu {
    type Error = String;

    fn try_from(bytes: u32) -> Result<Self, String> {
        Self::from_bytes(bytes).ok_or_else(|| format!("{bytes} is not an MTU: 256, 512, 1024, 2048 or 4096"))
    }
}

impl fmt::Display for Mtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes().fmt(f)
    }
}

/// Attributes of a port.
#[doc(alias = "ibv_port_attr")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PortAttr {
    /// Its number, from 1.
    pub port: PortNum,
    /// Logical state.
    pub state: PortState,
    /// Largest MTU the port can do; `None` for a value unknown to this library.
    pub max_mtu: Option<Mtu>,
    /// MTU in force.
    pub active_mtu: Option<Mtu>,
    /// Entries of the GID table.
    pub gid_tbl_len: u32,
    /// Entries of the partition key table.
    pub pkey_tbl_len: u16,
    /// Longest message in bytes.
    pub max_msg_sz: u32,
    /// Bits of `ibv_port_cap_flags`.
    pub port_cap_flags: u32,
    /// Packets with a bad partition key.
    pub bad_pkey_cntr: u32,
    /// Packets with a bad queue key.
    pub qkey_viol_cntr: u32,
    /// Local identifier; 0 on RoCE.
    pub lid: Lid,
    /// Local identifier of the subnet manager.
    pub sm_lid: Lid,
    /// Low bits of the local identifier that select a path.
    pub lmc: u8,
    /// Lanes, as an index: 1, 2, 4, 8 are 1, 4, 8, 12 lanes and 16 is two.
    pub active_width: u8,
    /// Speed of a lane, as an index.
    pub active_speed: u8,
    /// Physical state, as an index; 5 is "link up".
    pub phys_state: u8,
    /// What is below the transport.
    pub link_layer: LinkLayer,
}

impl PortAttr {
    pub(crate) fn from_sys(port: PortNum, raw: &sys::ibv_port_attr) -> Self {
        Self {
            port,
            state: PortState(raw.state.0),
            max_mtu: Mtu::from_sys(raw.max_mtu),
            active_mtu: Mtu::from_sys(raw.active_mtu),
            gid_tbl_len: u32::try_from(raw.gid_tbl_len).unwrap_or(0),
            pkey_tbl_len: raw.pkey_tbl_len,
            max_msg_sz: raw.max_msg_sz,
            port_cap_flags: raw.port_cap_flags,
            bad_pkey_cntr: raw.bad_pkey_cntr,
            qkey_viol_cntr: raw.qkey_viol_cntr,
            lid: Lid(raw.lid),
            sm_lid: Lid(raw.sm_lid),
            lmc: raw.lmc,
            active_width: raw.active_width,
            active_speed: raw.active_speed,
            phys_state: raw.phys_state,
            link_layer: LinkLayer(u32::from(raw.link_layer)),
        }
    }

    /// True on Ethernet, where every address needs a global route.
    #[must_use]
    pub fn is_ethernet(&self) -> bool {
        self.link_layer == LinkLayer::ETHERNET
    }
}

/// An MTU with its index, as `ibv_devinfo` prints it.
fn mtu(mtu: Option<Mtu>) -> String {
    mtu.map_or_else(|| "unknown".to_owned(), |mtu| format!("{mtu} ({})", mtu as u32))
}

impl fmt::Display for PortAttr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        row(f, 1, "port", self.port)?;
        row(f, 2, "state", format_args!("PORT_{} ({})", self.state, self.state.0))?;
        row(f, 2, "max_mtu", mtu(self.max_mtu))?;
        row(f, 2, "active_mtu", mtu(self.active_mtu))?;
        row(f, 2, "sm_lid", self.sm_lid.0)?;
        row(f, 2, "port_lid", self.lid.0)?;
        row(f, 2, "port_lmc", format_args!("{:#04x}", self.lmc))?;
        row(f, 2, "link_layer", self.link_layer)?;
        row(f, 2, "max_msg_sz", format_args!("{:#x}", self.max_msg_sz))?;
        row(f, 2, "port_cap_flags", format_args!("{:#010x}", self.port_cap_flags))?;
        row(f, 2, "bad_pkey_cntr", self.bad_pkey_cntr)?;
        row(f, 2, "qkey_viol_cntr", self.qkey_viol_cntr)?;
        row(f, 2, "pkey_tbl_len", self.pkey_tbl_len)?;
        row(f, 2, "gid_tbl_len", self.gid_tbl_len)?;
        row(f, 2, "active_width", self.active_width)?;
        row(f, 2, "active_speed", self.active_speed)?;
        row(f, 2, "phys_state", self.phys_state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mtu_in_bytes() {
        assert_eq!(Mtu::ALL.map(Mtu::bytes), [256, 512, 1024, 2048, 4096]);
        assert_eq!(Mtu::from_bytes(1024), Some(Mtu::B1024));
        assert_eq!(Mtu::from_bytes(1500), None);
        assert_eq!(serde_json::to_string(&Mtu::B4096).unwrap(), "4096");
        assert_eq!(serde_json::from_str::<Mtu>("256").unwrap(), Mtu::B256);
        assert!(serde_json::from_str::<Mtu>("9000").is_err());
    }

    #[test]
    fn unknown_values_print_as_numbers() {
        assert_eq!(PortState(4).to_string(), "ACTIVE");
        assert_eq!(PortState(9).to_string(), "unknown (9)");
    }
}
