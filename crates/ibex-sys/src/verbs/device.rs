//! Devices and their attributes: `ibv_device`, `ibv_device_attr`, node and transport types, capability flags.
//!
//! Man pages: `ibv_get_device_list(3)`, `ibv_query_device(3)`. Extended attributes are in `device_ex.rs`.
#![allow(missing_docs, reason = "members and constants carry their C names; the man page documents them")]

use core::ffi::{c_char, c_int};

use super::ibv_context;
use crate::macros::{c_data, c_enum, c_flags, c_object};

/// Size of [`ibv_device::name`] and `dev_name`, terminator included.
pub const IBV_SYSFS_NAME_MAX: usize = 64;
/// Size of [`ibv_device::dev_path`] and `ibdev_path`, terminator included.
pub const IBV_SYSFS_PATH_MAX: usize = 256;

c_enum! {
    /// Kind of node a device is.
    pub enum ibv_node_type: i32, "IBV_NODE_" {
        IBV_NODE_UNKNOWN = -1,
        IBV_NODE_CA = 1,
        IBV_NODE_SWITCH = 2,
        IBV_NODE_ROUTER = 3,
        IBV_NODE_RNIC = 4,
        IBV_NODE_USNIC = 5,
        IBV_NODE_USNIC_UDP = 6,
        IBV_NODE_UNSPECIFIED = 7,
    }

    /// Transport a device speaks; RoCE counts as `IBV_TRANSPORT_IB`.
    pub enum ibv_transport_type: i32, "IBV_TRANSPORT_" {
        IBV_TRANSPORT_UNKNOWN = -1,
        IBV_TRANSPORT_IB = 0,
        IBV_TRANSPORT_IWARP = 1,
        IBV_TRANSPORT_USNIC = 2,
        IBV_TRANSPORT_USNIC_UDP = 3,
        IBV_TRANSPORT_UNSPECIFIED = 4,
    }

    /// How far a device's atomics are atomic: not at all, among its own queue pairs, or for the whole host.
    pub enum ibv_atomic_cap: u32, "IBV_ATOMIC_" {
        IBV_ATOMIC_NONE = 0,
        IBV_ATOMIC_HCA = 1,
        IBV_ATOMIC_GLOB = 2,
    }

    /// Whether `fork(2)` is safe with registered memory, from `ibv_is_fork_initialized(3)`.
    pub enum ibv_fork_status: u32, "IBV_FORK_" {
        IBV_FORK_DISABLED = 0,
        IBV_FORK_ENABLED = 1,
        IBV_FORK_UNNEEDED = 2,
    }
}

c_flags! {
    /// Bits of [`ibv_device_attr::device_cap_flags`].
    pub flags ibv_device_cap_flags: u32, "IBV_DEVICE_" {
        IBV_DEVICE_RESIZE_MAX_WR = 1,
        IBV_DEVICE_BAD_PKEY_CNTR = 1 << 1,
        IBV_DEVICE_BAD_QKEY_CNTR = 1 << 2,
        IBV_DEVICE_RAW_MULTI = 1 << 3,
        IBV_DEVICE_AUTO_PATH_MIG = 1 << 4,
        IBV_DEVICE_CHANGE_PHY_PORT = 1 << 5,
        IBV_DEVICE_UD_AV_PORT_ENFORCE = 1 << 6,
        IBV_DEVICE_CURR_QP_STATE_MOD = 1 << 7,
        IBV_DEVICE_SHUTDOWN_PORT = 1 << 8,
        IBV_DEVICE_INIT_TYPE = 1 << 9,
        IBV_DEVICE_PORT_ACTIVE_EVENT = 1 << 10,
        IBV_DEVICE_SYS_IMAGE_GUID = 1 << 11,
        IBV_DEVICE_RC_RNR_NAK_GEN = 1 << 12,
        IBV_DEVICE_SRQ_RESIZE = 1 << 13,
        IBV_DEVICE_N_NOTIFY_CQ = 1 << 14,
        IBV_DEVICE_MEM_WINDOW = 1 << 17,
        IBV_DEVICE_UD_IP_CSUM = 1 << 18,
        IBV_DEVICE_XRC = 1 << 20,
        IBV_DEVICE_MEM_MGT_EXTENSIONS = 1 << 21,
        IBV_DEVICE_MEM_WINDOW_TYPE_2A = 1 << 23,
        IBV_DEVICE_MEM_WINDOW_TYPE_2B = 1 << 24,
        IBV_DEVICE_RC_IP_CSUM = 1 << 25,
        IBV_DEVICE_RAW_IP_CSUM = 1 << 26,
        IBV_DEVICE_MANAGED_FLOW_STEERING = 1 << 29,
    }
}

c_data! {
    /// Two obsolete function pointers at the start of [`ibv_device`]; never called.
    pub struct _ibv_device_ops {
        pub _dummy1: Option<unsafe extern "C" fn(*mut ibv_device, c_int) -> *mut ibv_context>,
        pub _dummy2: Option<unsafe extern "C" fn(*mut ibv_context)>,
    }
}

c_object! {
    /// A device on the list; owned by the library.
    pub struct ibv_device {
        pub _ops: _ibv_device_ops,
        pub node_type: ibv_node_type,
        pub transport_type: ibv_transport_type,
        /// NUL-terminated name, such as `mlx5_0`.
        pub name: [c_char; IBV_SYSFS_NAME_MAX],
        /// NUL-terminated name of the character device, such as `uverbs0`.
        pub dev_name: [c_char; IBV_SYSFS_NAME_MAX],
        pub dev_path: [c_char; IBV_SYSFS_PATH_MAX],
        pub ibdev_path: [c_char; IBV_SYSFS_PATH_MAX],
    }
}

c_data! {
    /// Limits and properties of a device, as `ibv_query_device(3)` fills them in.
    pub struct ibv_device_attr {
        pub fw_ver: [c_char; 64],
        /// Big-endian.
        pub node_guid: u64,
        /// Big-endian.
        pub sys_image_guid: u64,
        pub max_mr_size: u64,
        pub page_size_cap: u64,
        pub vendor_id: u32,
        pub vendor_part_id: u32,
        pub hw_ver: u32,
        pub max_qp: c_int,
        pub max_qp_wr: c_int,
        /// Bits of [`ibv_device_cap_flags`].
        pub device_cap_flags: u32,
        pub max_sge: c_int,
        pub max_sge_rd: c_int,
        pub max_cq: c_int,
        pub max_cqe: c_int,
        pub max_mr: c_int,
        pub max_pd: c_int,
        pub max_qp_rd_atom: c_int,
        pub max_ee_rd_atom: c_int,
        pub max_res_rd_atom: c_int,
        pub max_qp_init_rd_atom: c_int,
        pub max_ee_init_rd_atom: c_int,
        pub atomic_cap: ibv_atomic_cap,
        pub max_ee: c_int,
        pub max_rdd: c_int,
        pub max_mw: c_int,
        pub max_raw_ipv6_qp: c_int,
        pub max_raw_ethy_qp: c_int,
        pub max_mcast_grp: c_int,
        pub max_mcast_qp_attach: c_int,
        pub max_total_mcast_qp_attach: c_int,
        pub max_ah: c_int,
        pub max_fmr: c_int,
        pub max_map_per_fmr: c_int,
        pub max_srq: c_int,
        pub max_srq_wr: c_int,
        pub max_srq_sge: c_int,
        pub max_pkeys: u16,
        pub local_ca_ack_delay: u8,
        pub phys_port_cnt: u8,
    }
}
