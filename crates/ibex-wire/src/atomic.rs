//! Atomic extended transport header: the target and operands of an atomic request (IBTA 9.3.4).

use crate::Rkey;
use crate::header::{field, header};

/// The target and the operands of a compare-and-swap or a fetch-and-add.
///
/// ```text
/// 0–7 virtual address │ 8–11 R_Key │ 12–19 swap or add │ 20–27 compare
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AtomicEth {
    /// Address of eight bytes, a multiple of eight.
    pub va: u64,
    /// The key that covers them.
    pub rkey: Rkey,
    /// The value to store (compare-and-swap) or to add (fetch-and-add).
    pub swap_add: u64,
    /// The value to compare with; unused by fetch-and-add.
    pub compare: u64,
}

impl AtomicEth {
    /// Bytes on the wire.
    pub const LEN: usize = 28;

    /// Reads a header.
    #[inline]
    pub fn parse(bytes: &[u8; Self::LEN]) -> AtomicEth {
        AtomicEth {
            va: u64::from_be_bytes(field(bytes, 0)),
            rkey: Rkey(u32::from_be_bytes(field(bytes, 8))),
            swap_add: u64::from_be_bytes(field(bytes, 12)),
            compare: u64::from_be_bytes(field(bytes, 20)),
        }
    }

    /// Writes the header.
    #[inline]
    pub fn emit(&self, out: &mut [u8; Self::LEN]) {
        out[0..8].copy_from_slice(&self.va.to_be_bytes());
        out[8..12].copy_from_slice(&self.rkey.0.to_be_bytes());
        out[12..20].copy_from_slice(&self.swap_add.to_be_bytes());
        out[20..28].copy_from_slice(&self.compare.to_be_bytes());
    }
}

header!(AtomicEth);
