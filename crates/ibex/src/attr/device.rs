//! Attributes of a device. See ibv_query_device(3).

use std::fmt;
use std::str::FromStr;

use ibex_sys as sys;
use serde::{Deserialize, Serialize};

use super::row;

/// A 64-bit identifier of a device or port, unique in the world.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Guid(pub u64);

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d] = [self.0 >> 48, self.0 >> 32, self.0 >> 16, self.0].map(|part| part & 0xffff);
        write!(f, "{a:04x}:{b:04x}:{c:04x}:{d:04x}")
    }
}

impl FromStr for Guid {
    type Err = std::num::ParseIntError;

    /// Reads sixteen hexadecimal digits, with or without colons.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(&text.replace(':', ""), 16).map(Self)
    }
}

impl Serialize for Guid {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What a device speaks.
#[doc(alias = "ibv_transport_type")]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Transport {
    /// InfiniBand's transport, on InfiniBand or, as RoCE, on Ethernet.
    Ib,
    /// iWARP.
    Iwarp,
    /// Something else.
    Other,
}

impl Transport {
    pub(crate) fn from_sys(value: sys::ibv_transport_type) -> Self {
        match value {
            sys::IBV_TRANSPORT_IB => Self::Ib,
            sys::IBV_TRANSPORT_IWARP => Self::Iwarp,
            _ => Self::Other,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ib => "InfiniBand",
            Self::Iwarp => "iWARP",
            Self::Other => "other",
        })
    }
}

/// How far atomics are atomic.
#[doc(alias = "ibv_atomic_cap")]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AtomicCap {
    /// There are none.
    None,
    /// Among operations of this device.
    Hca,
    /// Also with the processor's atomics.
    Glob,
}

impl AtomicCap {
    fn from_sys(value: sys::ibv_atomic_cap) -> Self {
        match value {
            sys::IBV_ATOMIC_HCA => Self::Hca,
            sys::IBV_ATOMIC_GLOB => Self::Glob,
            _ => Self::None,
        }
    }
}

impl fmt::Display for AtomicCap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "ATOMIC_NONE (0)",
            Self::Hca => "ATOMIC_HCA (1)",
            Self::Glob => "ATOMIC_GLOB (2)",
        })
    }
}

/// Limits and capabilities of a device.
#[doc(alias = "ibv_device_attr")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DeviceAttr {
    /// Firmware version, in the vendor's notation.
    pub fw_ver: String,
    /// Identifier of the device.
    pub node_guid: Guid,
    /// Identifier of the system the device belongs to.
    pub sys_image_guid: Guid,
    /// Longest region in bytes.
    pub max_mr_size: u64,
    /// Page sizes, one bit each.
    pub page_size_cap: u64,
    /// Vendor.
    pub vendor_id: u32,
    /// Part, in the vendor's numbering.
    pub vendor_part_id: u32,
    /// Hardware version.
    pub hw_ver: u32,
    /// Queue pairs.
    pub max_qp: u32,
    /// Work requests of a queue.
    pub max_qp_wr: u32,
    /// Bits of `ibv_device_cap_flags`.
    pub device_cap_flags: u32,
    /// Pieces of memory in a work request.
    pub max_sge: u32,
    /// Pieces of memory in a READ.
    pub max_sge_rd: u32,
    /// Completion queues.
    pub max_cq: u32,
    /// Entries of a completion queue.
    pub max_cqe: u32,
    /// Memory regions.
    pub max_mr: u32,
    /// Protection domains.
    pub max_pd: u32,
    /// READs and atomics a queue pair can serve at once.
    pub max_qp_rd_atom: u32,
    /// READs and atomics all queue pairs together can serve at once.
    pub max_res_rd_atom: u32,
    /// READs and atomics a queue pair can have in flight.
    pub max_qp_init_rd_atom: u32,
    /// How far atomics are atomic.
    pub atomic_cap: AtomicCap,
    /// Memory windows.
    pub max_mw: u32,
    /// Multicast groups.
    pub max_mcast_grp: u32,
    /// Address handles.
    pub max_ah: u32,
    /// Shared receive queues.
    pub max_srq: u32,
    /// Work requests of a shared receive queue.
    pub max_srq_wr: u32,
    /// Pieces of memory in a work request of a shared receive queue.
    pub max_srq_sge: u32,
    /// Partitions.
    pub max_pkeys: u16,
    /// Delay of an acknowledgement, 4.096 µs × 2^n.
    pub local_ca_ack_delay: u8,
    /// Ports.
    pub phys_port_cnt: u8,
}

impl DeviceAttr {
    pub(crate) fn from_sys(raw: &sys::ibv_device_attr) -> Self {
        // The limits are `int` in C; a negative one means none.
        let count = |limit: i32| u32::try_from(limit).unwrap_or(0);
        Self {
            fw_ver: raw.fw_ver.iter().map_while(|&c| (c != 0).then_some(char::from(c as u8))).collect(),
            node_guid: Guid(u64::from_be(raw.node_guid)),
            sys_image_guid: Guid(u64::from_be(raw.sys_image_guid)),
            max_mr_size: raw.max_mr_size,
            page_size_cap: raw.page_size_cap,
            vendor_id: raw.vendor_id,
            vendor_part_id: raw.vendor_part_id,
            hw_ver: raw.hw_ver,
            max_qp: count(raw.max_qp),
            max_qp_wr: count(raw.max_qp_wr),
            device_cap_flags: raw.device_cap_flags,
            max_sge: count(raw.max_sge),
            max_sge_rd: count(raw.max_sge_rd),
            max_cq: count(raw.max_cq),
            max_cqe: count(raw.max_cqe),
            max_mr: count(raw.max_mr),
            max_pd: count(raw.max_pd),
            max_qp_rd_atom: count(raw.max_qp_rd_atom),
            max_res_rd_atom: count(raw.max_res_rd_atom),
            max_qp_init_rd_atom: count(raw.max_qp_init_rd_atom),
            atomic_cap: AtomicCap::from_sys(raw.atomic_cap),
            max_mw: count(raw.max_mw),
            max_mcast_grp: count(raw.max_mcast_grp),
            max_ah: count(raw.max_ah),
            max_srq: count(raw.max_srq),
            max_srq_wr: count(raw.max_srq_wr),
            max_srq_sge: count(raw.max_srq_sge),
            max_pkeys: raw.max_pkeys,
            local_ca_ack_delay: raw.local_ca_ack_delay,
            phys_port_cnt: raw.phys_port_cnt,
        }
    }
}

impl fmt::Display for DeviceAttr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        row(f, 1, "fw_ver", &self.fw_ver)?;
        row(f, 1, "node_guid", self.node_guid)?;
        row(f, 1, "sys_image_guid", self.sys_image_guid)?;
        row(f, 1, "vendor_id", format_args!("{:#06x}", self.vendor_id))?;
        row(f, 1, "vendor_part_id", self.vendor_part_id)?;
        row(f, 1, "hw_ver", format_args!("{:#X}", self.hw_ver))?;
        row(f, 1, "phys_port_cnt", self.phys_port_cnt)?;
        row(f, 1, "max_mr_size", format_args!("{:#x}", self.max_mr_size))?;
        row(f, 1, "page_size_cap", format_args!("{:#x}", self.page_size_cap))?;
        row(f, 1, "max_qp", self.max_qp)?;
        row(f, 1, "max_qp_wr", self.max_qp_wr)?;
        row(f, 1, "device_cap_flags", format_args!("{:#010x}", self.device_cap_flags))?;
        row(f, 1, "max_sge", self.max_sge)?;
        row(f, 1, "max_sge_rd", self.max_sge_rd)?;
        row(f, 1, "max_cq", self.max_cq)?;
        row(f, 1, "max_cqe", self.max_cqe)?;
        row(f, 1, "max_mr", self.max_mr)?;
        row(f, 1, "max_pd", self.max_pd)?;
        row(f, 1, "max_qp_rd_atom", self.max_qp_rd_atom)?;
        row(f, 1, "max_res_rd_atom", self.max_res_rd_atom)?;
        row(f, 1, "max_qp_init_rd_atom", self.max_qp_init_rd_atom)?;
        row(f, 1, "atomic_cap", self.atomic_cap)?;
        row(f, 1, "max_mw", self.max_mw)?;
        row(f, 1, "max_mcast_grp", self.max_mcast_grp)?;
        row(f, 1, "max_ah", self.max_ah)?;
        row(f, 1, "max_srq", self.max_srq)?;
        row(f, 1, "max_srq_wr", self.max_srq_wr)?;
        row(f, 1, "max_srq_sge", self.max_srq_sge)?;
        row(f, 1, "max_pkeys", self.max_pkeys)?;
        row(f, 1, "local_ca_ack_delay", self.local_ca_ack_delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guids_print_and_parse() {
        let guid = Guid(0x0200_5eff_fe00_0001);
        assert_eq!(guid.to_string(), "0200:5eff:fe00:0001");
        assert_eq!("0200:5eff:fe00:0001".parse::<Guid>().unwrap(), guid);
        assert_eq!("02005efffe000001".parse::<Guid>().unwrap(), guid);
    }

    #[test]
    fn negative_limits_mean_none() {
        let raw = sys::ibv_device_attr { max_srq: -1, ..sys::zeroed() };
        assert_eq!(DeviceAttr::from_sys(&raw).max_srq, 0);
    }
}
