//! Flow steering: rules that direct Ethernet packets to a queue pair.
//!
//! Man page: `ibv_create_flow(3)`. Actions with cryptography are in `flow_action.rs`. Addresses and ports in filters are
//! big-endian.
#![allow(missing_docs, reason = "members and constants carry their C names; the man page documents them")]

use super::{ETHERNET_LL_SIZE, ibv_context, ibv_counters, ibv_flow_action};
use crate::macros::{c_data, c_enum, c_flags, c_object, c_union};

c_enum! {
    /// Kind of rule.
    pub enum ibv_flow_attr_type: u32, "IBV_FLOW_ATTR_" {
        IBV_FLOW_ATTR_NORMAL = 0,
        IBV_FLOW_ATTR_ALL_DEFAULT = 1,
        IBV_FLOW_ATTR_MC_DEFAULT = 2,
        IBV_FLOW_ATTR_SNIFFER = 3,
    }

    /// Kind of specification; `IBV_FLOW_SPEC_INNER` is or-ed to it for inner headers.
    pub enum ibv_flow_spec_type: u32, "IBV_FLOW_SPEC_" {
        IBV_FLOW_SPEC_ETH = 0x20,
        IBV_FLOW_SPEC_IPV4 = 0x30,
        IBV_FLOW_SPEC_IPV6 = 0x31,
        IBV_FLOW_SPEC_IPV4_EXT = 0x32,
        IBV_FLOW_SPEC_ESP = 0x34,
        IBV_FLOW_SPEC_TCP = 0x40,
        IBV_FLOW_SPEC_UDP = 0x41,
        IBV_FLOW_SPEC_VXLAN_TUNNEL = 0x50,
        IBV_FLOW_SPEC_GRE = 0x51,
        IBV_FLOW_SPEC_MPLS = 0x60,
        IBV_FLOW_SPEC_INNER = 0x100,
        IBV_FLOW_SPEC_ACTION_TAG = 0x1000,
        IBV_FLOW_SPEC_ACTION_DROP = 0x1001,
        IBV_FLOW_SPEC_ACTION_HANDLE = 0x1002,
        IBV_FLOW_SPEC_ACTION_COUNT = 0x1003,
    }
}

c_flags! {
    /// Bits of [`ibv_flow_attr::flags`].
    pub flags ibv_flow_flags: u32, "IBV_FLOW_ATTR_FLAGS_" {
        IBV_FLOW_ATTR_FLAGS_DONT_TRAP = 1 << 1,
        IBV_FLOW_ATTR_FLAGS_EGRESS = 1 << 2,
    }
}

c_data! {
    /// Ethernet header.
    pub struct ibv_flow_eth_filter {
        pub dst_mac: [u8; ETHERNET_LL_SIZE],
        pub src_mac: [u8; ETHERNET_LL_SIZE],
        pub ether_type: u16,
        pub vlan_tag: u16,
    }

    /// IPv4 addresses.
    pub struct ibv_flow_ipv4_filter {
        pub src_ip: u32,
        pub dst_ip: u32,
    }

    /// IPv4 header.
    pub struct ibv_flow_ipv4_ext_filter {
        pub src_ip: u32,
        pub dst_ip: u32,
        pub proto: u8,
        pub tos: u8,
        pub ttl: u8,
        pub flags: u8,
    }

    /// IPv6 header.
    pub struct ibv_flow_ipv6_filter {
        pub src_ip: [u8; 16],
        pub dst_ip: [u8; 16],
        pub flow_label: u32,
        pub next_hdr: u8,
        pub traffic_class: u8,
        pub hop_limit: u8,
    }

    /// ESP header.
    pub struct ibv_flow_esp_filter {
        pub spi: u32,
        pub seq: u32,
    }

    /// TCP or UDP ports.
    pub struct ibv_flow_tcp_udp_filter {
        pub dst_port: u16,
        pub src_port: u16,
    }

    /// GRE header.
    pub struct ibv_flow_gre_filter {
        pub c_ks_res0_ver: u16,
        pub protocol: u16,
        pub key: u32,
    }

    /// An MPLS label entry.
    pub struct ibv_flow_mpls_filter {
        pub label: u32,
    }

    /// A VXLAN tunnel.
    pub struct ibv_flow_tunnel_filter {
        pub tunnel_id: u32,
    }

    /// Matches an Ethernet header.
    pub struct ibv_flow_spec_eth {
        pub r#type: ibv_flow_spec_type,
        pub size: u16,
        pub val: ibv_flow_eth_filter,
        pub mask: ibv_flow_eth_filter,
    }

    /// Matches IPv4 addresses.
    pub struct ibv_flow_spec_ipv4 {
        pub r#type: ibv_flow_spec_type,
        pub size: u16,
        pub val: ibv_flow_ipv4_filter,
        pub mask: ibv_flow_ipv4_filter,
    }

    /// Matches an IPv4 header.
    pub struct ibv_flow_spec_ipv4_ext {
        pub r#type: ibv_flow_spec_type,
        pub size: u16,
        pub val: ibv_flow_ipv4_ext_filter,
        pub mask: ibv_flow_ipv4_ext_filter,
    }

    /// Matches an IPv6 header.
    pub struct ibv_flow_spec_ipv6 {
        pub r#type: ibv_flow_spec_type,
        pub size: u16,
        pub val: ibv_flow_ipv6_filter,
        pub mask: ibv_flow_ipv6_filter,
    }

    /// Matches an ESP header.
    pub struct ibv_flow_spec_esp {
        pub r#type: ibv_flow_spec_type,
        pub size: u16,
        pub val: ibv_flow_esp_filter,
        pub mask: ibv_flow_esp_filter,
    }

    /// Matches ports.
    pub struct ibv_flow_spec_tcp_udp {
        pub r#type: ibv_flow_spec_type,
        pub size: u16,
        pub val: ibv_flow_tcp_udp_filter,
        pub mask: ibv_flow_tcp_udp_filter,
    }

    /// Matches a GRE header.
    pub struct ibv_flow_spec_gre {
        pub r#type: ibv_flow_spec_type,
        pub size: u16,
        pub val: ibv_flow_gre_filter,
        pub mask: ibv_flow_gre_filter,
    }

    /// Matches an MPLS label.
    pub struct ibv_flow_spec_mpls {
        pub r#type: ibv_flow_spec_type,
        pub size: u16,
        pub val: ibv_flow_mpls_filter,
        pub mask: ibv_flow_mpls_filter,
    }

    /// Matches a tunnel.
    pub struct ibv_flow_spec_tunnel {
        pub r#type: ibv_flow_spec_type,
        pub size: u16,
        pub val: ibv_flow_tunnel_filter,
        pub mask: ibv_flow_tunnel_filter,
    }

    /// Tags packets.
    pub struct ibv_flow_spec_action_tag {
        pub r#type: ibv_flow_spec_type,
        pub size: u16,
        pub tag_id: u32,
    }

    /// Drops packets.
    pub struct ibv_flow_spec_action_drop {
        pub r#type: ibv_flow_spec_type,
        pub size: u16,
    }

    /// Applies an action object.
    pub struct ibv_flow_spec_action_handle {
        pub r#type: ibv_flow_spec_type,
        pub size: u16,
        pub action: *const ibv_flow_action,
    }

    /// Counts packets.
    pub struct ibv_flow_spec_counter_action {
        pub r#type: ibv_flow_spec_type,
        pub size: u16,
        pub counters: *mut ibv_counters,
    }

    /// What all specifications start with; unnamed in C.
    pub struct ibv_flow_spec_hdr {
        pub r#type: ibv_flow_spec_type,
        pub size: u16,
    }

    /// Any specification.
    pub struct ibv_flow_spec {
        pub spec: ibv_flow_spec_any,
    }

    /// A rule; the specifications follow it in memory.
    pub struct ibv_flow_attr {
        pub comp_mask: u32,
        pub r#type: ibv_flow_attr_type,
        pub size: u16,
        pub priority: u16,
        pub num_of_specs: u8,
        pub port: u8,
        pub flags: u32,
    }
}

c_union! {
    /// The unnamed member of [`ibv_flow_spec`].
    pub union ibv_flow_spec_any {
        pub hdr: ibv_flow_spec_hdr,
        pub eth: ibv_flow_spec_eth,
        pub ipv4: ibv_flow_spec_ipv4,
        pub tcp_udp: ibv_flow_spec_tcp_udp,
        pub ipv4_ext: ibv_flow_spec_ipv4_ext,
        pub ipv6: ibv_flow_spec_ipv6,
        pub esp: ibv_flow_spec_esp,
        pub tunnel: ibv_flow_spec_tunnel,
        pub gre: ibv_flow_spec_gre,
        pub mpls: ibv_flow_spec_mpls,
        pub flow_tag: ibv_flow_spec_action_tag,
        pub drop: ibv_flow_spec_action_drop,
        pub handle: ibv_flow_spec_action_handle,
        pub flow_count: ibv_flow_spec_counter_action,
    }
}

c_object! {
    /// A rule in force.
    pub struct ibv_flow {
        pub comp_mask: u32,
        pub context: *mut ibv_context,
        pub handle: u32,
    }
}
