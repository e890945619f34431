//! RDMA extended transport header: the remote memory of a READ or WRITE (IBTA 9.3.3).

use crate::Rkey;
use crate::header::{field, header};

/// The remote memory of a READ request or of the first packet of a WRITE.
///
/// ```text
/// 0–7 virtual address │ 8–11 R_Key │ 12–15 length of the whole message
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reth {
    /// Where in the peer's address space.
    pub va: u64,
    /// The key that covers it.
    pub rkey: Rkey,
    /// Bytes of the whole message, at most 2^31.
    pub len: u32,
}

impl Reth {
    /// Bytes on the wire.
    pub const LEN: usize = 16;

    /// Reads a header.
    #[inline]
    pub fn parse(bytes: &[u8; Self::LEN]) -> Reth {
        Reth {
            va: u64::from_be_bytes(field(bytes, 0)),
            rkey: Rkey(u32::from_be_bytes(field(bytes, 8))),
            len: u32::from_be_bytes(field(bytes, 12)),
        }
    }

    /// Writes the header.
    #[inline]
    pub fn emit(&self, out: &mut [u8; Self::LEN]) {
        out[0..8].copy_from_slice(&self.va.to_be_bytes());
        out[8..12].copy_from_slice(&self.rkey.0.to_be_bytes());
        out[12..16].copy_from_slice(&self.len.to_be_bytes());
    }
}

header!(Reth);
