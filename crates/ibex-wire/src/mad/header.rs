//! The header that every management datagram begins with (IBTA 13.4.2).

use core::fmt;

use crate::header::{field, header};

/// The common header.
///
/// ```text
/// 0 base version │ 1 class │ 2 class version │ 3 response bit, method │ 4–5 status │ 6–7 class specific
/// 8–15 transaction │ 16–17 attribute │ 18–19 reserved │ 20–23 attribute modifier
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MadHeader {
    /// 1.
    pub base_version: u8,
    /// 7 for connection management.
    pub class: u8,
    /// 2 for connection management.
    pub class_version: u8,
    /// 3 (send) for connection management.
    pub method: u8,
    /// 0 here.
    pub status: u16,
    /// 0 here.
    pub class_specific: u16,
    /// Chosen by whoever began; the other end repeats it in its answers.
    pub transaction: u64,
    /// Which message follows.
    pub attribute: AttrId,
    /// 0 here.
    pub modifier: u32,
}

impl MadHeader {
    /// Bytes on the wire.
    pub const LEN: usize = 24;
    /// Version of management datagrams.
    pub const BASE_VERSION: u8 = 1;
    /// Communication management.
    pub const CLASS_CM: u8 = 7;
    /// Version of communication management.
    pub const CM_VERSION: u8 = 2;
    /// The method of all its messages.
    pub const METHOD_SEND: u8 = 3;

    /// The header of a connection management message.
    pub const fn cm(attribute: AttrId, transaction: u64) -> MadHeader {
        MadHeader {
            base_version: MadHeader::BASE_VERSION,
            class: MadHeader::CLASS_CM,
            class_version: MadHeader::CM_VERSION,
            method: MadHeader::METHOD_SEND,
            status: 0,
            class_specific: 0,
            transaction,
            attribute,
            modifier: 0,
        }
    }

    /// Reads a header.
    #[inline]
    pub fn parse(bytes: &[u8; Self::LEN]) -> MadHeader {
        MadHeader {
            base_version: bytes[0],
            class: bytes[1],
            class_version: bytes[2],
            method: bytes[3],
            status: u16::from_be_bytes(field(bytes, 4)),
            class_specific: u16::from_be_bytes(field(bytes, 6)),
            transaction: u64::from_be_bytes(field(bytes, 8)),
            attribute: AttrId(u16::from_be_bytes(field(bytes, 16))),
            modifier: u32::from_be_bytes(field(bytes, 20)),
        }
    }

    /// Writes the header.
    #[inline]
    pub fn emit(&self, out: &mut [u8; Self::LEN]) {
        out[..4].copy_from_slice(&[self.base_version, self.class, self.class_version, self.method]);
        out[4..6].copy_from_slice(&self.status.to_be_bytes());
        out[6..8].copy_from_slice(&self.class_specific.to_be_bytes());
        out[8..16].copy_from_slice(&self.transaction.to_be_bytes());
        out[16..18].copy_from_slice(&self.attribute.0.to_be_bytes());
        out[18..20].fill(0);
        out[20..24].copy_from_slice(&self.modifier.to_be_bytes());
    }
}

header!(MadHeader);

/// Which message a management datagram of this class carries.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AttrId(pub u16);

impl AttrId {
    /// Request for communication.
    pub const REQ: AttrId = AttrId(0x10);
    /// Message receipt acknowledgement: "I have it, wait".
    pub const MRA: AttrId = AttrId(0x11);
    /// Reject.
    pub const REJ: AttrId = AttrId(0x12);
    /// Reply to a request.
    pub const REP: AttrId = AttrId(0x13);
    /// Ready to use.
    pub const RTU: AttrId = AttrId(0x14);
    /// Request for disconnection.
    pub const DREQ: AttrId = AttrId(0x15);
    /// Reply to it.
    pub const DREP: AttrId = AttrId(0x16);
    /// Service ID resolution request.
    pub const SIDR_REQ: AttrId = AttrId(0x17);
    /// Reply to it.
    pub const SIDR_REP: AttrId = AttrId(0x18);
    /// Load alternate path; not served.
    pub const LAP: AttrId = AttrId(0x19);
    /// Alternate path response; not served.
    pub const APR: AttrId = AttrId(0x1a);
}

impl fmt::Debug for AttrId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            AttrId::REQ => "REQ",
            AttrId::MRA => "MRA",
            AttrId::REJ => "REJ",
            AttrId::REP => "REP",
            AttrId::RTU => "RTU",
            AttrId::DREQ => "DREQ",
            AttrId::DREP => "DREP",
            AttrId::SIDR_REQ => "SIDR_REQ",
            AttrId::SIDR_REP => "SIDR_REP",
            AttrId::LAP => "LAP",
            AttrId::APR => "APR",
            AttrId(number) => return write!(f, "AttrId({number:#06x})"),
        };
        f.write_str(name)
    }
}
