//! The device as programs see it: identity, limits, port, GIDs, asynchronous events.
//!
//! Owns every number that `ibv_query_device(3)`, `ibv_query_port(3)` and `ibv_query_gid(3)` report. Only what works is
//! reported: a capability that is not built is absent or zero.
//!
//! GIDs follow rxe's habits: index 0 is the link-local RoCEv2 one, index 1 the IPv4-mapped one. The link-local one is
//! `fe80::200:5efe:a.b.c.d` (the interface identifier of RFC 5214), from which the IPv4 address can be read back, so
//! that either index reaches the peer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ibex_sys::{
    IBV_ATOMIC_GLOB, IBV_DEVICE_CURR_QP_STATE_MOD, IBV_DEVICE_MEM_WINDOW, IBV_DEVICE_MEM_WINDOW_TYPE_2B,
    IBV_DEVICE_RC_RNR_NAK_GEN, IBV_DEVICE_SRQ_RESIZE, IBV_DEVICE_SYS_IMAGE_GUID, IBV_LINK_LAYER_ETHERNET,
    IBV_MTU_4096, IBV_PORT_ACTIVE, IBV_PORT_IP_BASED_GIDS, IBV_QPF_GRH_REQUIRED, ibv_device_attr,
    ibv_event_type, ibv_mtu, ibv_port_attr,
};

use crate::cq::{CqName, MAX_CQE};
use crate::event::EventQueue;
use crate::mr::{MAX_REGIONS, MAX_WINDOWS};
use crate::net::Wire;
use crate::qp::{MAX_SGE, MAX_WR};

/// The device's name.
pub(crate) const NAME: &str = "ibex0";
/// The name of the character device it would have.
pub(crate) const DEV_NAME: &str = "uverbs_ibex0";

/// Most READs and atomics outstanding, each way.
pub(crate) const MAX_RD_ATOMIC: u8 = 16;
/// Longest message, bytes: at the smallest MTU its packets take half of the sequence numbers' window.
pub(crate) const MAX_MESSAGE: u32 = 1 << 30;
/// Queue pairs: as many as a process can number with 63 slots of 2^14.
pub(crate) const MAX_QP: i32 = 63 << 14;
/// Objects limited by nothing but memory; a number that fits programs' arithmetic.
const MANY: i32 = 1 << 20;

/// An asynchronous event: what, and the address of the object it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AsyncEvent {
    /// About a completion queue.
    Cq(ibv_event_type, CqName),
    /// About a queue pair.
    Qp(ibv_event_type, usize),
    /// About a shared receive queue.
    Srq(ibv_event_type, usize),
    /// About the device.
    Device(ibv_event_type),
}

/// A context's asynchronous events.
pub(crate) type AsyncQueue = EventQueue<AsyncEvent>;

/// What requests are checked against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Active MTU.
    pub(crate) mtu: ibv_mtu,
    /// Entries of the GID table.
    pub(crate) gids: u8,
}

impl Limits {
    /// The limits of a device on this link.
    pub(crate) fn of(wire: &Wire) -> Limits {
        let gids = gids(wire.address()).len() as u8;
        Limits { mtu: mtu_code(wire.mtu()), gids }
    }

    /// What attribute values of a transition are checked against.
    pub(crate) fn transition(&self) -> crate::qp::TransitionLimits {
        crate::qp::TransitionLimits { mtu: self.mtu.0, rd_atomic: MAX_RD_ATOMIC, gids: self.gids }
    }
}

/// The largest MTU of the verbs that is not above `bytes`.
fn mtu_code(bytes: usize) -> ibv_mtu {
    // 256 is 1, and each doubling one more.
    let code = bytes.max(256).ilog2().min(12) - 7;
    ibv_mtu(code)
}

/// The 64-bit identifier that GUIDs and the link-local GID are made of.
fn interface_id(address: IpAddr) -> [u8; 8] {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            [0x02, 0x00, 0x5e, 0xfe, a, b, c, d]
        }
        IpAddr::V6(v6) => {
            let mut id = [0; 8];
            id.copy_from_slice(&v6.octets()[8..]);
            id
        }
    }
}

/// The node's GUID, in network order.
pub(crate) fn guid(address: IpAddr) -> u64 {
    u64::from_ne_bytes(interface_id(address))
}

/// The GID table.
pub(crate) fn gids(address: IpAddr) -> Vec<[u8; 16]> {
    match address {
        IpAddr::V4(v4) => {
            let mut local = [0; 16];
            local[..2].copy_from_slice(&[0xfe, 0x80]);
            local[8..].copy_from_slice(&interface_id(address));
            vec![local, v4.to_ipv6_mapped().octets()]
        }
        IpAddr::V6(v6) => vec![v6.octets()],
    }
}

/// The address a GID stands for, if a device at `own` can send there.
pub(crate) fn address_of(gid: [u8; 16], own: IpAddr) -> Option<IpAddr> {
    let v6 = Ipv6Addr::from(gid);
    let isatap = gid[..2] == [0xfe, 0x80] && gid[2..8] == [0; 6] && gid[8..12] == [0x02, 0x00, 0x5e, 0xfe];
    let address = match v6.to_ipv4_mapped() {
        Some(v4) => IpAddr::V4(v4),
        None if isatap => IpAddr::V4(Ipv4Addr::new(gid[12], gid[13], gid[14], gid[15])),
        None => IpAddr::V6(v6),
    };
    let usable = !address.is_unspecified() && address.is_ipv4() == own.is_ipv4();
    usable.then_some(address)
}

/// The attributes of a device at `address`.
pub(crate) fn attributes(address: IpAddr) -> ibv_device_attr {
    let mut attr = ibv_device_attr {
        node_guid: guid(address),
        sys_image_guid: guid(address),
        max_mr_size: i64::MAX as u64,
        // Any page size from 4 KiB: regions are not made of pages here.
        page_size_cap: 0xffff_f000,
        // No vendor: the number of an organisation would have to be ours.
        vendor_id: 0,
        vendor_part_id: 0,
        hw_ver: 0,
        max_qp: MAX_QP,
        max_qp_wr: MAX_WR as i32,
        device_cap_flags: (IBV_DEVICE_CURR_QP_STATE_MOD
            | IBV_DEVICE_SYS_IMAGE_GUID
            | IBV_DEVICE_SRQ_RESIZE
            | IBV_DEVICE_RC_RNR_NAK_GEN
            | IBV_DEVICE_MEM_WINDOW
            | IBV_DEVICE_MEM_WINDOW_TYPE_2B)
            .0,
        max_sge: MAX_SGE as i32,
        max_sge_rd: MAX_SGE as i32,
        max_cq: MANY,
        max_cqe: MAX_CQE as i32,
        max_mr: MAX_REGIONS as i32,
        max_mw: MAX_WINDOWS as i32,
        max_pd: MANY,
        max_qp_rd_atom: i32::from(MAX_RD_ATOMIC),
        max_res_rd_atom: i32::from(MAX_RD_ATOMIC) * MAX_QP,
        max_qp_init_rd_atom: i32::from(MAX_RD_ATOMIC),
        // Real atomic instructions on the host's memory: atomic with respect to the processors, too.
        atomic_cap: IBV_ATOMIC_GLOB,
        max_ah: MANY,
        max_srq: MANY,
        max_srq_wr: MAX_WR as i32,
        max_srq_sge: MAX_SGE as i32,
        max_pkeys: 1,
        // 4.096 µs · 2^15 = 134 ms: a process that is not scheduled answers no sooner.
        local_ca_ack_delay: 15,
        phys_port_cnt: 1,
        ..Default::default()
    };
    for (to, from) in attr.fw_ver.iter_mut().zip(env!("CARGO_PKG_VERSION").bytes()) {
        *to = from as std::ffi::c_char;
    }
    attr
}

/// The attributes of the one port.
pub(crate) fn port(wire: &Wire) -> ibv_port_attr {
    ibv_port_attr {
        state: IBV_PORT_ACTIVE,
        max_mtu: IBV_MTU_4096,
        active_mtu: mtu_code(wire.mtu()),
        gid_tbl_len: gids(wire.address()).len() as i32,
        port_cap_flags: IBV_PORT_IP_BASED_GIDS.0,
        max_msg_sz: MAX_MESSAGE,
        pkey_tbl_len: 1,
        max_vl_num: 1,
        // Width 1X and speed 2.5 Gb/s: what rxe says too, since there is no link to measure.
        active_width: 1,
        active_speed: 1,
        // LinkUp.
        phys_state: 5,
        link_layer: IBV_LINK_LAYER_ETHERNET,
        flags: IBV_QPF_GRH_REQUIRED,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_gid_leads_back_to_the_address() {
        let address: IpAddr = "192.0.2.7".parse().unwrap();
        let table = gids(address);
        assert_eq!(Ipv6Addr::from(table[0]).to_string(), "fe80::200:5efe:c000:207");
        assert_eq!(Ipv6Addr::from(table[1]).to_string(), "::ffff:192.0.2.7");
        for gid in table {
            assert_eq!(address_of(gid, "127.0.0.1".parse().unwrap()), Some(address));
            assert_eq!(address_of(gid, "::1".parse().unwrap()), None, "another family");
        }
        assert_eq!(address_of([0; 16], address), None);
    }

    #[test]
    fn mtus_have_the_numbers_of_the_verbs() {
        let codes: Vec<u32> = [256, 512, 1024, 2048, 4096].map(|bytes| mtu_code(bytes).0).to_vec();
        assert_eq!(codes, [1, 2, 3, 4, 5]);
    }
}
