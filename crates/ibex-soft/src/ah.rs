//! Address handles: where a datagram goes, and the address of whom one came from.
//!
//! Owns the check of an address, and reading the header that stands before a received datagram. The header is written by
//! the queue pair that receives ([`crate::qp`]). See `ibv_create_ah(3)`, `ibv_create_ah_from_wc(3)`; the RoCEv2 annex
//! (A17.4.5.1, reported network headers).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ibex_sys::ibv_ah_attr;
use ibex_wire::Grh;

use crate::device::{self, Limits};

/// Bytes that stand before a datagram in its receive's buffer.
pub(crate) const GRH_LEN: usize = Grh::LEN;

/// Where the IPv4 header stands in them; what is before it means nothing.
const IPV4_AT: usize = 20;
const IPV4_LEN: u16 = 20;

/// The protocol number of UDP.
const UDP: u8 = 17;

/// The hop limit the link's sockets send with, the default of the kernel.
const HOPS: u8 = 64;

/// The address that a handle made from `attr` would send to.
///
/// # Errors
/// `EINVAL`: RoCE needs a GID, the only port is 1, and the destination must be of the device's family.
pub(crate) fn destination(
    attr: &ibv_ah_attr,
    dgid: [u8; 16],
    own: IpAddr,
    limits: &Limits,
) -> Result<IpAddr, i32> {
    let sound = attr.is_global != 0 && attr.port_num == 1 && attr.grh.sgid_index < limits.gids;
    device::address_of(dgid, own).filter(|_| sound).ok_or(libc::EINVAL)
}

/// What the header before a datagram says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reported {
    /// GID of the sender.
    pub(crate) sgid: [u8; 16],
    /// GID it was sent to.
    pub(crate) dgid: [u8; 16],
    pub(crate) flow_label: u32,
    pub(crate) traffic_class: u8,
}

/// Reads the header before a datagram, which is IPv6's, or IPv4's in its second half. The two are told apart by the
/// checksum: 20 bytes of an IPv6 header have none, or not a right one.
///
/// # Errors
/// `EINVAL` if it is neither.
pub(crate) fn read_header(grh: &[u8; GRH_LEN]) -> Result<Reported, i32> {
    let ipv4: &[u8; 20] = grh.last_chunk().ok_or(libc::EINVAL)?;
    if ipv4[0] == 0x45 && checksum(ipv4) == 0 {
        let gid = |at: usize| {
            let octets: [u8; 4] = [ipv4[at], ipv4[at + 1], ipv4[at + 2], ipv4[at + 3]];
            Ipv4Addr::from(octets).to_ipv6_mapped().octets()
        };
        return Ok(Reported { sgid: gid(12), dgid: gid(16), flow_label: 0, traffic_class: ipv4[1] });
    }
    if grh[0] >> 4 != 6 {
        return Err(libc::EINVAL);
    }
    let ipv6 = Grh::parse(grh);
    Ok(Reported { sgid: ipv6.src, dgid: ipv6.dst, flow_label: ipv6.flow, traffic_class: ipv6.class })
}

/// The header to put before a datagram from `source` to `own` that came in an IP packet with `len` bytes behind the IP
/// header. What a socket does not tell (hop limit, traffic class, identification) has the values our own sender uses.
pub(crate) fn write_header(source: IpAddr, own: IpAddr, len: u16) -> [u8; GRH_LEN] {
    let mut grh = [0; GRH_LEN];
    match (source, own) {
        (IpAddr::V4(source), IpAddr::V4(own)) => {
            let ipv4 = &mut grh[IPV4_AT..];
            ipv4[0] = 0x45;
            ipv4[2..4].copy_from_slice(&len.saturating_add(IPV4_LEN).to_be_bytes());
            // Don't fragment.
            ipv4[6] = 0x40;
            ipv4[8] = HOPS;
            ipv4[9] = UDP;
            ipv4[12..16].copy_from_slice(&source.octets());
            ipv4[16..20].copy_from_slice(&own.octets());
            let sum = checksum(ipv4);
            ipv4[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        (source, own) => {
            let ipv6 = Grh {
                class: 0,
                flow: 0,
                payload_len: len,
                next_header: UDP,
                hop_limit: HOPS,
                src: v6(source).octets(),
                dst: v6(own).octets(),
            };
            ipv6.emit(&mut grh);
        }
    }
    grh
}

fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

/// The internet checksum (RFC 1071); 0 over a header that carries a right one.
fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_written_can_be_read() {
        let cases = [("192.0.2.1", "198.51.100.7"), ("2001:db8::1", "2001:db8::2")];
        for (source, own) in cases {
            let (source, own): (IpAddr, IpAddr) = (source.parse().unwrap(), own.parse().unwrap());
            let grh = write_header(source, own, 100);
            let read = read_header(&grh).unwrap();
            assert_eq!(device::address_of(read.sgid, own), Some(source));
            assert_eq!(device::address_of(read.dgid, own), Some(own));
        }
        assert_eq!(read_header(&[0; GRH_LEN]), Err(libc::EINVAL));
    }

    #[test]
    fn an_ipv4_header_is_that_of_rfc_1071() {
        // A header whose checksum is known to be 0xb861.
        let header =
            [0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7];
        assert_eq!(checksum(&header), 0xb861);
        let mut grh = [0xee; GRH_LEN];
        grh[20..].copy_from_slice(&header);
        grh[30..32].copy_from_slice(&0xb861u16.to_be_bytes());
        let read = read_header(&grh).unwrap();
        assert_eq!(Ipv6Addr::from(read.sgid).to_string(), "::ffff:192.168.0.1");
        assert_eq!(Ipv6Addr::from(read.dgid).to_string(), "::ffff:192.168.0.199");
        grh[31] ^= 1;
        assert_eq!(read_header(&grh), Err(libc::EINVAL), "neither checksum nor version 6");
    }
}
