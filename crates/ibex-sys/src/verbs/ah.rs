//! Addresses: `ibv_ah`, `ibv_ah_attr`, global routes, the GRH as it arrives in a UD buffer.
//!
//! Man pages: `ibv_create_ah(3)`, `ibv_create_ah_from_wc(3)`.
#![allow(missing_docs, reason = "members and constants carry their C names; the man page documents them")]

use super::{ibv_context, ibv_gid, ibv_pd};
use crate::macros::{c_data, c_object};

c_object! {
    /// An address handle; must outlive the work requests that name it.
    pub struct ibv_ah {
        pub context: *mut ibv_context,
        pub pd: *mut ibv_pd,
        pub handle: u32,
    }
}

c_data! {
    /// The global part of an address.
    pub struct ibv_global_route {
        pub dgid: ibv_gid,
        pub flow_label: u32,
        pub sgid_index: u8,
        pub hop_limit: u8,
        pub traffic_class: u8,
    }

    /// An address.
    pub struct ibv_ah_attr {
        pub grh: ibv_global_route,
        pub dlid: u16,
        pub sl: u8,
        pub src_path_bits: u8,
        pub static_rate: u8,
        pub is_global: u8,
        /// From 1.
        pub port_num: u8,
    }

    /// The 40 bytes before a received datagram.
    pub struct ibv_grh {
        /// Big-endian.
        pub version_tclass_flow: u32,
        /// Big-endian.
        pub paylen: u16,
        pub next_hdr: u8,
        pub hop_limit: u8,
        pub sgid: ibv_gid,
        pub dgid: ibv_gid,
    }
}

/// The lowest UDP source port a RoCEv2 flow label maps to.
pub const IB_ROCE_UDP_ENCAP_VALID_PORT_MIN: u32 = 0xC000;
/// The highest UDP source port a RoCEv2 flow label maps to.
pub const IB_ROCE_UDP_ENCAP_VALID_PORT_MAX: u32 = 0xFFFF;
/// The 20 bits of a flow label.
pub const IB_GRH_FLOWLABEL_MASK: u32 = 0x000F_FFFF;
/// Bytes of an Ethernet address.
pub const ETHERNET_LL_SIZE: usize = 6;
