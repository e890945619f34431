//! A validated view over one received packet, from BTH to the end of its padding.
//!
//! Owns the checks that need no state: lengths, padding, opcode, version. Sequence and message rules are
//! `ibex-proto`'s; the ICRC, which comes after, is [`crate::icrc`]'s.

use core::fmt;

use crate::header::field;
use crate::{Aeth, AtomicAckEth, AtomicEth, Bth, Deth, Ieth, ImmDt, Opcode, Reth};

/// One packet whose lengths, padding and opcode have been checked.
#[derive(Clone, Copy)]
pub struct Packet<'a> {
    bth: Bth,
    /// From BTH to the end of the payload, padding cut off.
    bytes: &'a [u8],
    payload_at: usize,
}

/// Why bytes are not a packet. Receivers drop and count such bytes; nothing is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ParseError {
    /// Shorter than its headers and padding.
    Truncated,
    /// An opcode outside RC, UC and UD as this crate knows them.
    UnknownOpcode(u8),
    /// A transport header version other than 0.
    Version(u8),
    /// Payload and padding together are not a multiple of four.
    Unaligned,
    /// Padding or payload where the opcode allows none.
    Unexpected,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParseError::Truncated => f.write_str("packet shorter than its headers"),
            ParseError::UnknownOpcode(value) => write!(f, "unknown opcode {value:#04x}"),
            ParseError::Version(version) => write!(f, "transport header version {version} instead of 0"),
            ParseError::Unaligned => f.write_str("payload and padding are not a multiple of four"),
            ParseError::Unexpected => f.write_str("payload or padding where the opcode allows none"),
        }
    }
}

impl core::error::Error for ParseError {}

impl<'a> Packet<'a> {
    /// Checks and takes apart `bytes`: BTH, extended headers, payload, padding, and nothing after (no ICRC).
    ///
    /// # Errors
    /// Says what is wrong; never panics, whatever the bytes.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Packet<'a>, ParseError> {
        let head = bytes.first_chunk::<{ Bth::LEN }>().ok_or(ParseError::Truncated)?;
        let bth = Bth::parse(head);
        let opcode = bth.opcode;
        if !opcode.is_known() {
            return Err(ParseError::UnknownOpcode(opcode.0));
        }
        if bth.version != 0 {
            return Err(ParseError::Version(bth.version));
        }
        let payload_at = opcode.header_len();
        let pad = usize::from(bth.pad);
        if bytes.len() < payload_at + pad {
            return Err(ParseError::Truncated);
        }
        let padded = bytes.len() - payload_at;
        if !padded.is_multiple_of(4) {
            return Err(ParseError::Unaligned);
        }
        // Only the packet that ends a message may end anywhere; the others carry a whole MTU.
        if (!opcode.has_payload() && padded != 0) || (pad != 0 && !opcode.ends_message()) {
            return Err(ParseError::Unexpected);
        }
        Ok(Packet { bth, bytes: &bytes[..bytes.len() - pad], payload_at })
    }

    /// The base transport header.
    #[inline]
    pub fn bth(&self) -> &Bth {
        &self.bth
    }

    /// The opcode.
    #[inline]
    pub fn opcode(&self) -> Opcode {
        self.bth.opcode
    }

    /// Everything from the base transport header to the end of the payload, without padding.
    #[inline]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The payload, without padding.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[self.payload_at..]
    }

    /// The datagram header of UD packets.
    #[inline]
    pub fn deth(&self) -> Option<Deth> {
        self.opcode().has_deth().then(|| Deth::parse(&field(self.bytes, Bth::LEN)))
    }

    /// The remote memory of a READ request or of a WRITE's first packet.
    #[inline]
    pub fn reth(&self) -> Option<Reth> {
        self.opcode().has_reth().then(|| Reth::parse(&field(self.bytes, Bth::LEN)))
    }

    /// The target and operands of an atomic request.
    #[inline]
    pub fn atomic_eth(&self) -> Option<AtomicEth> {
        self.opcode().has_atomic_eth().then(|| AtomicEth::parse(&field(self.bytes, Bth::LEN)))
    }

    /// The acknowledgement in ACKs, atomic results and READ responses (not the middle ones).
    #[inline]
    pub fn aeth(&self) -> Option<Aeth> {
        self.opcode().has_aeth().then(|| Aeth::parse(&field(self.bytes, Bth::LEN)))
    }

    /// The result of an atomic request.
    #[inline]
    pub fn atomic_ack_eth(&self) -> Option<AtomicAckEth> {
        let at = Bth::LEN + Aeth::LEN;
        self.opcode().has_atomic_ack_eth().then(|| AtomicAckEth::parse(&field(self.bytes, at)))
    }

    /// Immediate data. It is the last of the headers.
    #[inline]
    pub fn imm(&self) -> Option<ImmDt> {
        let at = self.payload_at.wrapping_sub(ImmDt::LEN);
        self.opcode().has_imm().then(|| ImmDt::parse(&field(self.bytes, at)))
    }

    /// The key to invalidate. It is the last of the headers.
    #[inline]
    pub fn ieth(&self) -> Option<Ieth> {
        let at = self.payload_at.wrapping_sub(Ieth::LEN);
        self.opcode().has_ieth().then(|| Ieth::parse(&field(self.bytes, at)))
    }
}

impl fmt::Debug for Packet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {} {}", self.bth.opcode, self.bth.dest_qpn, self.bth.psn)?;
        if self.bth.ack_req {
            f.write_str(" ack-req")?;
        }
        if let Some(aeth) = self.aeth() {
            write!(f, " {:?}", aeth.syndrome)?;
        }
        if let Some(reth) = self.reth() {
            write!(f, " {:#x}+{}", reth.va, reth.len)?;
        }
        write!(f, " {} bytes", self.payload().len())
    }
}
