//! Datagram extended transport header: who sent a datagram, and the key it carries (IBTA 9.3.1).

use crate::header::{field, header};
use crate::{Qkey, Qpn};

/// The sender of a datagram.
///
/// ```text
/// 0–3 Q_Key │ 4 reserved │ 5–7 source QP
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deth {
    /// Must equal the receiving queue pair's key.
    pub qkey: Qkey,
    /// The sending queue pair.
    pub src_qpn: Qpn,
}

impl Deth {
    /// Bytes on the wire.
    pub const LEN: usize = 8;

    /// Reads a header.
    #[inline]
    pub fn parse(bytes: &[u8; Self::LEN]) -> Deth {
        Deth {
            qkey: Qkey(u32::from_be_bytes(field(bytes, 0))),
            src_qpn: Qpn::new(u32::from_be_bytes(field(bytes, 4))),
        }
    }

    /// Writes the header.
    #[inline]
    pub fn emit(&self, out: &mut [u8; Self::LEN]) {
        out[0..4].copy_from_slice(&self.qkey.0.to_be_bytes());
        out[4..8].copy_from_slice(&self.src_qpn.get().to_be_bytes());
    }
}

header!(Deth);
