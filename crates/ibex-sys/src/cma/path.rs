//! Path records, from `infiniband/sa.h`.
//!
//! IBTA volume 1, 15.2.5.16 (PathRecord).
#![allow(missing_docs, reason = "members and constants carry their C names; the man page documents them")]

use core::ffi::c_int;

use crate::macros::c_data;
use crate::verbs::ibv_gid;

/// Bit of [`ibv_path_record::reversible_numpath`].
pub const IBV_PATH_RECORD_REVERSIBLE: u8 = 0x80;
/// Flag of [`ibv_path_data`]: for management datagrams.
pub const IBV_PATH_FLAG_GMP: u32 = 1 << 0;
/// Flag of [`ibv_path_data`]: the primary path.
pub const IBV_PATH_FLAG_PRIMARY: u32 = 1 << 1;
/// Flag of [`ibv_path_data`]: the alternate path.
pub const IBV_PATH_FLAG_ALTERNATE: u32 = 1 << 2;
/// Flag of [`ibv_path_data`]: from here to there.
pub const IBV_PATH_FLAG_OUTBOUND: u32 = 1 << 3;
/// Flag of [`ibv_path_data`]: from there to here.
pub const IBV_PATH_FLAG_INBOUND: u32 = 1 << 4;
/// Flag of [`ibv_path_data`]: the reverse of the inbound path.
pub const IBV_PATH_FLAG_INBOUND_REVERSE: u32 = 1 << 5;
/// Flags of [`ibv_path_data`]: one path for both directions.
pub const IBV_PATH_FLAG_BIDIRECTIONAL: u32 = IBV_PATH_FLAG_OUTBOUND | IBV_PATH_FLAG_INBOUND_REVERSE;

c_data! {
    /// A path as a route holds it. Members of type `u16` and `flow_label` are big-endian.
    pub struct ibv_sa_path_rec {
        pub dgid: ibv_gid,
        pub sgid: ibv_gid,
        pub dlid: u16,
        pub slid: u16,
        pub raw_traffic: c_int,
        pub flow_label: u32,
        pub hop_limit: u8,
        pub traffic_class: u8,
        pub reversible: c_int,
        pub numb_path: u8,
        pub pkey: u16,
        pub sl: u8,
        pub mtu_selector: u8,
        pub mtu: u8,
        pub rate_selector: u8,
        pub rate: u8,
        pub packet_life_time_selector: u8,
        pub packet_life_time: u8,
        pub preference: u8,
    }

    /// A multicast member record.
    pub struct ibv_sa_mcmember_rec {
        pub mgid: ibv_gid,
        pub port_gid: ibv_gid,
        pub qkey: u32,
        pub mlid: u16,
        pub mtu_selector: u8,
        pub mtu: u8,
        pub traffic_class: u8,
        pub pkey: u16,
        pub rate_selector: u8,
        pub rate: u8,
        pub packet_life_time_selector: u8,
        pub packet_life_time: u8,
        pub sl: u8,
        pub flow_label: u32,
        pub hop_limit: u8,
        pub scope: u8,
        pub join_state: u8,
        pub proxy_join: c_int,
    }

    /// A service record.
    pub struct ibv_sa_service_rec {
        pub id: u64,
        pub gid: ibv_gid,
        pub pkey: u16,
        pub lease: u32,
        pub key: [u8; 16],
        pub name: [u8; 64],
        pub data8: [u8; 16],
        pub data16: [u16; 8],
        pub data32: [u32; 4],
        pub data64: [u64; 2],
    }

    /// A path record in its format on the wire; multi-byte members are big-endian.
    pub struct ibv_path_record {
        pub service_id: u64,
        pub dgid: ibv_gid,
        pub sgid: ibv_gid,
        pub dlid: u16,
        pub slid: u16,
        pub flowlabel_hoplimit: u32,
        pub tclass: u8,
        pub reversible_numpath: u8,
        pub pkey: u16,
        pub qosclass_sl: u16,
        pub mtu: u8,
        pub rate: u8,
        pub packetlifetime: u8,
        pub preference: u8,
        pub reserved: [u8; 6],
    }

    /// A path with its flags, for the option `RDMA_OPTION_IB_PATH`.
    pub struct ibv_path_data {
        pub flags: u32,
        pub reserved: u32,
        pub path: ibv_path_record,
    }
}
