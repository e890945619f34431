//! Global route header: 40 bytes in front of a datagram in the receiver's memory (IBTA 8.3).
//!
//! On RoCEv2 it is not on the wire: the receiver makes it from the IP header. A packet that came over IPv4 leaves
//! the first 20 bytes undefined and has its IPv4 header in the last 20 (annex A17.4.5.2).

use crate::header::{field, header};

/// The global route header.
///
/// ```text
/// 0–3 version (4 bits), class (8), flow label (20) │ 4–5 payload length │ 6 next header │ 7 hop limit
/// 8–23 source GID │ 24–39 destination GID
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grh {
    /// Traffic class.
    pub class: u8,
    /// Flow label, 20 bits.
    pub flow: u32,
    /// Bytes that follow the header, ICRC included.
    pub payload_len: u16,
    /// 0x1b for InfiniBand transport, 17 for UDP on RoCEv2.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source GID.
    pub src: [u8; 16],
    /// Destination GID.
    pub dst: [u8; 16],
}

impl Grh {
    /// Bytes in memory.
    pub const LEN: usize = 40;

    /// Reads a header; the version (6) is not checked.
    pub fn parse(bytes: &[u8; Self::LEN]) -> Grh {
        let word = u32::from_be_bytes(field(bytes, 0));
        Grh {
            class: (word >> 20) as u8,
            flow: word & 0xf_ffff,
            payload_len: u16::from_be_bytes(field(bytes, 4)),
            next_header: bytes[6],
            hop_limit: bytes[7],
            src: field(bytes, 8),
            dst: field(bytes, 24),
        }
    }

    /// Writes the header with version 6.
    pub fn emit(&self, out: &mut [u8; Self::LEN]) {
        let word = 6 << 28 | u32::from(self.class) << 20 | self.flow & 0xf_ffff;
        out[0..4].copy_from_slice(&word.to_be_bytes());
        out[4..6].copy_from_slice(&self.payload_len.to_be_bytes());
        out[6] = self.next_header;
        out[7] = self.hop_limit;
        out[8..24].copy_from_slice(&self.src);
        out[24..40].copy_from_slice(&self.dst);
    }
}

header!(Grh);
