//! Immediate data header: four bytes handed to the receiver's completion (IBTA 9.3.6).

use crate::header::header;

/// Immediate data, in wire order: the bytes are the user's, no byte order is implied.
///
/// The verbs' `imm_data` has the same bytes in the same order (`u32::from_ne_bytes`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ImmDt(pub [u8; 4]);

impl ImmDt {
    /// Bytes on the wire.
    pub const LEN: usize = 4;

    /// Reads a header.
    #[inline]
    pub fn parse(bytes: &[u8; Self::LEN]) -> ImmDt {
        ImmDt(*bytes)
    }

    /// Writes the header.
    #[inline]
    pub fn emit(&self, out: &mut [u8; Self::LEN]) {
        *out = self.0;
    }
}

header!(ImmDt);
