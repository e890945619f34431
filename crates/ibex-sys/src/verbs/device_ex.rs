//! Extended device attributes: `ibv_device_attr_ex` and the capability structures inside it.
//!
//! Man page: `ibv_query_device_ex(3)`.
#![allow(missing_docs, reason = "members and constants carry their C names; the man page documents them")]

use super::ibv_device_attr;
use crate::macros::{c_data, c_flags};

/// Capability above the 32 bits of `ibv_device_cap_flags`; see [`ibv_device_attr_ex::device_cap_flags_ex`].
pub const IBV_DEVICE_RAW_SCATTER_FCS: u64 = 1 << 34;
/// Capability above the 32 bits of `ibv_device_cap_flags`; see [`ibv_device_attr_ex::device_cap_flags_ex`].
pub const IBV_DEVICE_PCI_WRITE_END_PADDING: u64 = 1 << 36;
/// Capability above the 32 bits of `ibv_device_cap_flags`; see [`ibv_device_attr_ex::device_cap_flags_ex`].
pub const IBV_DEVICE_CC_DMA_BOUNCE: u64 = 1 << 41;

c_flags! {
    /// Bits of [`ibv_odp_caps::general_caps`].
    pub flags ibv_odp_general_caps: u32, "IBV_ODP_" {
        IBV_ODP_SUPPORT = 1 << 0,
        IBV_ODP_SUPPORT_IMPLICIT = 1 << 1,
    }

    /// Bits of the members of [`ibv_odp_per_transport_caps`].
    pub flags ibv_odp_transport_cap_bits: u32, "IBV_ODP_SUPPORT_" {
        IBV_ODP_SUPPORT_SEND = 1 << 0,
        IBV_ODP_SUPPORT_RECV = 1 << 1,
        IBV_ODP_SUPPORT_WRITE = 1 << 2,
        IBV_ODP_SUPPORT_READ = 1 << 3,
        IBV_ODP_SUPPORT_ATOMIC = 1 << 4,
        IBV_ODP_SUPPORT_SRQ_RECV = 1 << 5,
        IBV_ODP_SUPPORT_FLUSH = 1 << 6,
        IBV_ODP_SUPPORT_ATOMIC_WRITE = 1 << 7,
    }

    /// Bits of [`ibv_rss_caps::rx_hash_function`] and of `ibv_rx_hash_conf`.
    pub flags ibv_rx_hash_function_flags: u32, "IBV_RX_HASH_FUNC_" {
        IBV_RX_HASH_FUNC_TOEPLITZ = 1 << 0,
    }

    /// Bits of [`ibv_rss_caps::rx_hash_fields_mask`] and of `ibv_rx_hash_conf`.
    pub flags ibv_rx_hash_fields: u32, "IBV_RX_HASH_" {
        IBV_RX_HASH_SRC_IPV4 = 1 << 0,
        IBV_RX_HASH_DST_IPV4 = 1 << 1,
        IBV_RX_HASH_SRC_IPV6 = 1 << 2,
        IBV_RX_HASH_DST_IPV6 = 1 << 3,
        IBV_RX_HASH_SRC_PORT_TCP = 1 << 4,
        IBV_RX_HASH_DST_PORT_TCP = 1 << 5,
        IBV_RX_HASH_SRC_PORT_UDP = 1 << 6,
        IBV_RX_HASH_DST_PORT_UDP = 1 << 7,
        IBV_RX_HASH_IPSEC_SPI = 1 << 8,
        IBV_RX_HASH_INNER = 1 << 31,
    }

    /// Bits of [`ibv_device_attr_ex::raw_packet_caps`].
    pub flags ibv_raw_packet_caps: u32, "IBV_RAW_PACKET_CAP_" {
        IBV_RAW_PACKET_CAP_CVLAN_STRIPPING = 1 << 0,
        IBV_RAW_PACKET_CAP_SCATTER_FCS = 1 << 1,
        IBV_RAW_PACKET_CAP_IP_CSUM = 1 << 2,
        IBV_RAW_PACKET_CAP_DELAY_DROP = 1 << 3,
    }

    /// Bits of [`ibv_tm_caps::flags`].
    pub flags ibv_tm_cap_flags: u32, "IBV_TM_CAP_" {
        IBV_TM_CAP_RC = 1 << 0,
    }

    /// Bits of the members of [`ibv_pci_atomic_caps`].
    pub flags ibv_pci_atomic_op_size: u32, "IBV_PCI_ATOMIC_OPERATION_" {
        IBV_PCI_ATOMIC_OPERATION_4_BYTE_SIZE_SUP = 1 << 0,
        IBV_PCI_ATOMIC_OPERATION_8_BYTE_SIZE_SUP = 1 << 1,
        IBV_PCI_ATOMIC_OPERATION_16_BYTE_SIZE_SUP = 1 << 2,
    }
}

c_data! {
    /// Input of `ibv_query_device_ex`; `comp_mask` must be 0.
    pub struct ibv_query_device_ex_input {
        pub comp_mask: u32,
    }

    /// On-demand paging by transport; unnamed in C, inside [`ibv_odp_caps`].
    pub struct ibv_odp_per_transport_caps {
        pub rc_odp_caps: u32,
        pub uc_odp_caps: u32,
        pub ud_odp_caps: u32,
    }

    /// On-demand paging.
    pub struct ibv_odp_caps {
        pub general_caps: u64,
        pub per_transport_caps: ibv_odp_per_transport_caps,
    }

    /// Segmentation offload; sizes in bytes.
    pub struct ibv_tso_caps {
        pub max_tso: u32,
        pub supported_qpts: u32,
    }

    /// Receive-side scaling.
    pub struct ibv_rss_caps {
        pub supported_qpts: u32,
        pub max_rwq_indirection_tables: u32,
        pub max_rwq_indirection_table_size: u32,
        pub rx_hash_fields_mask: u64,
        pub rx_hash_function: u8,
    }

    /// Packet pacing; rates in kbit/s.
    pub struct ibv_packet_pacing_caps {
        pub qp_rate_limit_min: u32,
        pub qp_rate_limit_max: u32,
        pub supported_qpts: u32,
    }

    /// Tag matching.
    pub struct ibv_tm_caps {
        pub max_rndv_hdr_size: u32,
        pub max_num_tags: u32,
        pub flags: u32,
        pub max_ops: u32,
        pub max_sge: u32,
    }

    /// Completion moderation; the period in microseconds.
    pub struct ibv_cq_moderation_caps {
        pub max_cq_count: u16,
        pub max_cq_period: u16,
    }

    /// PCI atomics, each a set of [`ibv_pci_atomic_op_size`].
    pub struct ibv_pci_atomic_caps {
        pub fetch_add: u16,
        pub swap: u16,
        pub compare_swap: u16,
    }

    /// Everything a device tells about itself.
    pub struct ibv_device_attr_ex {
        pub orig_attr: ibv_device_attr,
        pub comp_mask: u32,
        pub odp_caps: ibv_odp_caps,
        pub completion_timestamp_mask: u64,
        /// In kHz.
        pub hca_core_clock: u64,
        pub device_cap_flags_ex: u64,
        pub tso_caps: ibv_tso_caps,
        pub rss_caps: ibv_rss_caps,
        pub max_wq_type_rq: u32,
        pub packet_pacing_caps: ibv_packet_pacing_caps,
        pub raw_packet_caps: u32,
        pub tm_caps: ibv_tm_caps,
        pub cq_mod_caps: ibv_cq_moderation_caps,
        pub max_dm_size: u64,
        pub pci_atomic_caps: ibv_pci_atomic_caps,
        pub xrc_odp_caps: u32,
        pub phys_port_cnt_ex: u32,
    }
}
