//! Base transport header: 12 bytes at the front of every packet (IBTA 9.2).

use crate::header::{field, header};
use crate::{Opcode, Pkey, Psn, Qpn};

/// The base transport header.
///
/// ```text
/// 0 opcode │ 1 SE, M, pad (2 bits), version (4 bits) │ 2–3 P_Key
/// 4 FECN, BECN, reserved │ 5–7 destination QP │ 8 AckReq, reserved │ 9–11 PSN
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bth {
    /// What the packet is.
    pub opcode: Opcode,
    /// SE: the receiver's completion raises a solicited event.
    pub solicited: bool,
    /// M: the path migration state is "migrated". RoCE devices set it and ignore it.
    pub migrated: bool,
    /// Bytes of padding between payload and ICRC, 0 to 3.
    pub pad: u8,
    /// Transport header version, 4 bits; 0 is the only one defined.
    pub version: u8,
    /// The partition.
    pub pkey: Pkey,
    /// FECN: a switch on the way was congested.
    pub fecn: bool,
    /// BECN: the other direction was congested.
    pub becn: bool,
    /// The destination queue pair.
    pub dest_qpn: Qpn,
    /// The requester wants an acknowledgement of this packet.
    pub ack_req: bool,
    /// The packet's sequence number.
    pub psn: Psn,
}

impl Bth {
    /// Bytes on the wire.
    pub const LEN: usize = 12;

    /// A header with flags clear and the default partition.
    pub const fn new(opcode: Opcode, dest_qpn: Qpn, psn: Psn) -> Bth {
        Bth {
            opcode,
            solicited: false,
            migrated: true,
            pad: 0,
            version: 0,
            pkey: Pkey::DEFAULT,
            fecn: false,
            becn: false,
            dest_qpn,
            ack_req: false,
            psn,
        }
    }

    /// Reads a header. Every value of every field is representable; reserved bits are ignored.
    #[inline]
    pub fn parse(bytes: &[u8; Self::LEN]) -> Bth {
        let qpn_word = u32::from_be_bytes(field(bytes, 4));
        let psn_word = u32::from_be_bytes(field(bytes, 8));
        Bth {
            opcode: Opcode(bytes[0]),
            solicited: bytes[1] & 0x80 != 0,
            migrated: bytes[1] & 0x40 != 0,
            pad: bytes[1] >> 4 & 3,
            version: bytes[1] & 0xf,
            pkey: Pkey(u16::from_be_bytes(field(bytes, 2))),
            fecn: qpn_word & 1 << 31 != 0,
            becn: qpn_word & 1 << 30 != 0,
            dest_qpn: Qpn::new(qpn_word),
            ack_req: psn_word & 1 << 31 != 0,
            psn: Psn::new(psn_word),
        }
    }

    /// Writes the header, reserved bits zero.
    #[inline(always)]
    pub fn emit(&self, out: &mut [u8; Self::LEN]) {
        let flags = u8::from(self.solicited) << 7
            | u8::from(self.migrated) << 6
            | (self.pad & 3) << 4
            | self.version & 0xf;
        let qpn_word = u32::from(self.fecn) << 31 | u32::from(self.becn) << 30 | self.dest_qpn.get();
        let psn_word = u32::from(self.ack_req) << 31 | self.psn.get();
        out[0] = self.opcode.0;
        out[1] = flags;
        out[2..4].copy_from_slice(&self.pkey.0.to_be_bytes());
        out[4..8].copy_from_slice(&qpn_word.to_be_bytes());
        out[8..12].copy_from_slice(&psn_word.to_be_bytes());
    }
}

header!(Bth);

/// Bytes that pad a payload of `len` bytes to a multiple of four.
#[inline]
pub const fn padding(len: usize) -> usize {
    len.wrapping_neg() & 3
}
