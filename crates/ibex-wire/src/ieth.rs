//! Invalidate extended transport header: the key that SEND with invalidate revokes (IBTA 9.3.7).

use crate::Rkey;
use crate::header::header;

/// The remote key that the responder invalidates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ieth {
    /// The key.
    pub rkey: Rkey,
}

impl Ieth {
    /// Bytes on the wire.
    pub const LEN: usize = 4;

    /// Reads a header.
    #[inline]
    pub fn parse(bytes: &[u8; Self::LEN]) -> Ieth {
        Ieth { rkey: Rkey(u32::from_be_bytes(*bytes)) }
    }

    /// Writes the header.
    #[inline]
    pub fn emit(&self, out: &mut [u8; Self::LEN]) {
        *out = self.rkey.0.to_be_bytes();
    }
}

header!(Ieth);
