//! Global identifiers and entries of a port's GID table. See ibv_query_gid_ex(3); RoCEv2 annex A17.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ibex_sys as sys;
use serde::{Deserialize, Serialize};

use crate::addr::{GidIndex, PortNum};

/// A global identifier: 128 bits; on RoCEv2 an IPv6 address, or an IPv4 address mapped into one.
///
/// Serialised as text in human-readable formats and as 16 bytes in others.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Gid(pub [u8; 16]);

impl Gid {
    /// The identifier of an empty table entry.
    pub const ZERO: Self = Self([0; 16]);

    /// True for empty table entries.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0 == [0; 16]
    }

    /// The IPv6 address with the same bits.
    #[must_use]
    pub fn to_ipv6(&self) -> Ipv6Addr {
        Ipv6Addr::from(self.0)
    }

    /// The IPv4 address mapped into this one, if it is.
    #[must_use]
    pub fn to_ipv4(&self) -> Option<Ipv4Addr> {
        self.to_ipv6().to_ipv4_mapped()
    }

    /// True within `fe80::/10`.
    #[must_use]
    pub fn is_link_local(&self) -> bool {
        self.to_ipv6().is_unicast_link_local()
    }

    pub(crate) fn to_sys(self) -> sys::ibv_gid {
        sys::ibv_gid { raw: self.0 }
    }
}

impl From<IpAddr> for Gid {
    fn from(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(v4) => Self(v4.to_ipv6_mapped().octets()),
            IpAddr::V6(v6) => Self(v6.octets()),
        }
    }
}

impl FromStr for Gid {
    type Err = std::net::AddrParseError;

    /// Reads an IPv4 or IPv6 address.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<IpAddr>().map(Self::from)
    }
}

impl fmt::Display for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_ipv6().fmt(f)
    }
}

impl fmt::Debug for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gid({self})")
    }
}

impl Serialize for Gid {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Gid {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
            text.parse().map_err(serde::de::Error::custom)
        } else {
            <[u8; 16]>::deserialize(deserializer).map(Self)
        }
    }
}

/// What a GID stands for.
#[doc(alias = "ibv_gid_type")]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GidType {
    /// A port of an InfiniBand fabric.
    Ib,
    /// RoCE version 1: Ethernet, not routable.
    RoceV1,
    /// RoCE version 2: UDP over IP.
    RoceV2,
    /// Something newer than this library, or unknown to an old one.
    Unknown,
}

impl GidType {
    pub(crate) fn from_sys(value: u32) -> Self {
        match sys::ibv_gid_type(value) {
            sys::IBV_GID_TYPE_IB => Self::Ib,
            sys::IBV_GID_TYPE_ROCE_V1 => Self::RoceV1,
            sys::IBV_GID_TYPE_ROCE_V2 => Self::RoceV2,
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for GidType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ib => "IB",
            Self::RoceV1 => "RoCE v1",
            Self::RoceV2 => "RoCE v2",
            Self::Unknown => "unknown",
        })
    }
}

/// An entry of a port's GID table.
#[doc(alias = "ibv_gid_entry")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct GidEntry {
    /// The identifier; zero if the entry is empty.
    pub gid: Gid,
    /// Its place in the table.
    pub index: GidIndex,
    /// The port.
    pub port: PortNum,
    /// What it stands for.
    pub kind: GidType,
    /// Index of the network interface behind it, if there is one.
    pub ifindex: Option<u32>,
    /// Name of that interface, as this process sees it.
    pub netdev: Option<String>,
}

impl fmt::Display for GidEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.gid, self.kind)?;
        match &self.netdev {
            Some(netdev) => write!(f, ", {netdev}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gids_print_as_addresses() {
        let gid: Gid = "10.0.0.1".parse().unwrap();
        assert_eq!(gid.to_string(), "::ffff:10.0.0.1");
        assert_eq!(gid.to_ipv4(), Some(Ipv4Addr::new(10, 0, 0, 1)));
        assert_eq!(serde_json::to_string(&gid).unwrap(), r#""::ffff:10.0.0.1""#);
        assert_eq!(serde_json::from_str::<Gid>(r#""::ffff:10.0.0.1""#).unwrap(), gid);
        assert!("fe80::1".parse::<Gid>().unwrap().is_link_local());
        assert!(Gid::ZERO.is_zero());
    }
}
