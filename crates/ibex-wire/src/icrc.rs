//! The invariant CRC of RoCEv2 over UDP on IPv4 and IPv6.
//!
//! Owns which bytes count and how: CRC-32 (the polynomial and reflection of zlib and Ethernet) over eight bytes of
//! ones, the IP header, the UDP header and everything from BTH to the padding; fields that routers may change are
//! replaced by ones: IPv4 type of service, time to live and checksum; IPv6 class, flow label and hop limit; the UDP
//! checksum; BTH's byte 4 (FECN, BECN). The result is stored least significant byte first (IBTA 7.8.1, A17.3.3).
//! The arithmetic is in `icrc/crc.rs`.
//!
//! # The identification of IPv4
//! It is *not* masked, and a UDP socket neither sets it nor shows it to the receiver. A sender with an unconnected
//! socket and "don't fragment" set knows what the kernel writes: 0, and 0, 1, 2, … for the segments of a GSO batch.
//! A receiver of other senders' packets knows nothing, but CRC is linear: [`Flow::verify_any_identification`] finds
//! the one identification that would make the packet right, if there is one. Of the 2^32 possible differences
//! 2^16 are explained by some identification, so a corrupted packet passes with probability 2^-16 instead of 2^-32;
//! the UDP checksum and the link's own CRC stand beside it.

mod crc;
#[cfg(test)]
mod tests;

use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::{Bth, ICRC_LEN};

/// Bytes hashed before BTH over IPv4: ones, IP header, UDP header.
const V4_PREFIX: usize = 8 + 20 + 8;
/// The same over IPv6.
const V6_PREFIX: usize = 8 + 40 + 8;
/// Bytes of the prefix that follow the IPv4 identification.
const V4_AFTER_ID: usize = V4_PREFIX - (8 + 6);

/// What the identification, the lengths and their copies contribute to the CRC register after the prefix.
static V4_TOTAL_LEN: [[u32; 256]; 2] = crc::contribution(V4_PREFIX - (8 + 4));
static V4_ID: [[u32; 256]; 2] = crc::contribution(V4_AFTER_ID);
static V6_PAYLOAD_LEN: [[u32; 256]; 2] = crc::contribution(V6_PREFIX - (8 + 6));
static UDP_LEN: [[u32; 256]; 2] = crc::contribution(2);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Family {
    V4,
    V6,
}

/// Everything about one direction between two sockets that the CRC covers and that does not change from packet to
/// packet. Making one costs about as much as the CRC of a small packet; keep one per destination and per source.
///
/// "Packet" below is BTH to the end of the padding, "sealed" a packet followed by its ICRC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flow {
    /// CRC register after the prefix with lengths and identification zero.
    base: u32,
    family: Family,
}

impl Flow {
    /// UDP over IPv4, "don't fragment" set, no IP options.
    pub fn v4(src: Ipv4Addr, src_port: u16, dst: Ipv4Addr, dst_port: u16) -> Flow {
        let mut prefix = [0xff; V4_PREFIX];
        let (ip, udp) = prefix[8..].split_at_mut(20);
        ip[0] = 0x45; // version 4, five words of header
        ip[2..6].fill(0); // total length and identification are added per packet
        ip[6..8].copy_from_slice(&[0x40, 0]); // don't fragment, offset 0
        ip[9] = 17; // UDP
        ip[12..16].copy_from_slice(&src.octets());
        ip[16..20].copy_from_slice(&dst.octets());
        put_udp(udp, src_port, dst_port);
        Flow { base: crc::register(&prefix), family: Family::V4 }
    }

    /// UDP over IPv6 without extension headers.
    pub fn v6(src: Ipv6Addr, src_port: u16, dst: Ipv6Addr, dst_port: u16) -> Flow {
        let mut prefix = [0xff; V6_PREFIX];
        let (ip, udp) = prefix[8..].split_at_mut(40);
        ip[0] = 0x6f; // version 6; class and flow label are masked
        ip[4..6].fill(0); // payload length is added per packet
        ip[6] = 17; // UDP
        ip[8..24].copy_from_slice(&src.octets());
        ip[24..40].copy_from_slice(&dst.octets());
        put_udp(udp, src_port, dst_port);
        Flow { base: crc::register(&prefix), family: Family::V6 }
    }

    /// The flow from one socket to another; `None` if their address families differ. An IPv6 address that maps an
    /// IPv4 one stands for the latter, as on a dual-stack socket.
    pub fn new(src: SocketAddr, dst: SocketAddr) -> Option<Flow> {
        use core::net::IpAddr::{V4, V6};
        match (src.ip().to_canonical(), dst.ip().to_canonical()) {
            (V4(from), V4(to)) => Some(Flow::v4(from, src.port(), to, dst.port())),
            (V6(from), V6(to)) => Some(Flow::v6(from, src.port(), to, dst.port())),
            _ => None,
        }
    }

    /// The ICRC of `packet`. `identification` is the IPv4 header's; IPv6 has none and ignores it.
    ///
    /// # Panics
    /// If `packet` is shorter than a BTH or too long for UDP (65535 bytes with headers and ICRC).
    #[inline]
    pub fn compute(&self, identification: u16, packet: &[u8]) -> u32 {
        let (bth, rest) = packet.split_first_chunk::<{ Bth::LEN }>().expect("a packet starts with a BTH");
        let mut bth = *bth;
        bth[4] = 0xff;
        crc::finish(self.after_prefix(identification, packet.len()), &bth, rest)
    }

    /// Writes the ICRC of `sealed`'s packet into its last four bytes.
    ///
    /// # Panics
    /// If `sealed` is shorter than a BTH and an ICRC, or too long for UDP.
    #[inline]
    pub fn seal(&self, identification: u16, sealed: &mut [u8]) {
        let (packet, icrc) = sealed.split_last_chunk_mut::<ICRC_LEN>().expect("room for the ICRC");
        *icrc = self.compute(identification, packet).to_le_bytes();
    }

    /// The packet inside `sealed`, if its ICRC is right for this identification.
    #[inline]
    pub fn verify<'a>(&self, identification: u16, sealed: &'a [u8]) -> Option<&'a [u8]> {
        let (packet, difference) = self.difference(identification, sealed)?;
        (difference == 0).then_some(packet)
    }

    /// The packet inside `sealed` and the IPv4 identification with which its ICRC is right, if there is one.
    ///
    /// `expected` is tried first, at the cost of [`verify`](Flow::verify); use the last packet's identification plus
    /// one for senders with GSO, else 0. See the module's documentation for how much checking is left. Over IPv6
    /// this is `verify`, and the identification 0.
    #[inline]
    pub fn verify_any_identification<'a>(&self, expected: u16, sealed: &'a [u8]) -> Option<(&'a [u8], u16)> {
        let (packet, difference) = self.difference(expected, sealed)?;
        match (difference, self.family) {
            (0, Family::V4) => Some((packet, expected)),
            (0, Family::V6) => Some((packet, 0)),
            (_, Family::V6) => None,
            (difference, Family::V4) => {
                // Rolled back to before the identification, a difference made by those two bytes alone is the two
                // bytes, first one lowest.
                let rolled_back = crc::roll_back(difference, packet.len() + V4_AFTER_ID + 2);
                let wrong = u16::try_from(rolled_back).ok()?;
                Some((packet, expected ^ wrong.swap_bytes()))
            }
        }
    }

    /// The packet, and its computed ICRC xor the stored one; `None` if `sealed` cannot be a packet over UDP.
    #[inline]
    fn difference<'a>(&self, identification: u16, sealed: &'a [u8]) -> Option<(&'a [u8], u32)> {
        let (packet, icrc) = sealed.split_last_chunk::<ICRC_LEN>()?;
        if packet.len() < Bth::LEN || sealed.len() > usize::from(u16::MAX) - 28 {
            return None;
        }
        Some((packet, self.compute(identification, packet) ^ u32::from_le_bytes(*icrc)))
    }

    /// The CRC register after the prefix of a packet of `len` bytes.
    #[inline]
    fn after_prefix(&self, identification: u16, len: usize) -> u32 {
        let udp_len = u16::try_from(8 + len + ICRC_LEN).expect("a packet fits UDP");
        let common = self.base ^ crc::lookup(&UDP_LEN, udp_len);
        match self.family {
            Family::V4 => {
                let total_len = u16::try_from(28 + len + ICRC_LEN).expect("a packet fits IPv4");
                common ^ crc::lookup(&V4_TOTAL_LEN, total_len) ^ crc::lookup(&V4_ID, identification)
            }
            Family::V6 => common ^ crc::lookup(&V6_PAYLOAD_LEN, udp_len),
        }
    }
}

/// The UDP header with its length zero; the checksum stays masked.
fn put_udp(udp: &mut [u8], src_port: u16, dst_port: u16) {
    udp[0..2].copy_from_slice(&src_port.to_be_bytes());
    udp[2..4].copy_from_slice(&dst_port.to_be_bytes());
    udp[4..6].fill(0);
}
