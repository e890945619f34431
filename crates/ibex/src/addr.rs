//! Numbers that name things on a fabric: queue pairs, packets, keys, ports, addresses.
//!
//! Each has its own type, because all of them are small integers in C and swapping two of them (an lkey for an
//! rkey, a GID index for a port) is a mistake that C compiles. [`Gid`](crate::Gid) lives in `attr::gid`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The 24 bits that queue pair numbers and packet sequence numbers have in the base transport header (IBTA 9.2).
const BITS_24: u32 = 0x00ff_ffff;

/// Number of a queue pair, 24 bits; 0 and 1 are the management queue pairs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Qpn(#[serde(deserialize_with = "within_24_bits")] u32);

/// Packet sequence number, 24 bits, counting modulo 2^24.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Psn(#[serde(deserialize_with = "within_24_bits")] u32);

/// Reads a number of 24 bits: what a peer sends is not to be believed.
fn within_24_bits<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let number = u32::deserialize(deserializer)?;
    if number <= BITS_24 {
        return Ok(number);
    }
    Err(serde::de::Error::custom(format_args!("{number:#x} has more than 24 bits")))
}

impl Qpn {
    /// The queue pair numbered by the low 24 bits of `number`.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number & BITS_24)
    }

    /// The number, `0..=0xff_ffff`.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl Psn {
    /// The sequence number in the low 24 bits of `number`.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number & BITS_24)
    }

    /// The number, `0..=0xff_ffff`.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// A sequence number nobody can guess from the last one.
    ///
    /// A fresh start keeps packets of an earlier connection between the same queue pair numbers out of this one.
    #[must_use]
    pub fn random() -> Self {
        Self::new(crate::rng::next_u32())
    }
}

impl fmt::Debug for Qpn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Qpn({:#08x})", self.0)
    }
}

impl fmt::Debug for Psn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Psn({:#08x})", self.0)
    }
}

impl fmt::Display for Qpn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#08x}", self.0)
    }
}

impl fmt::Display for Psn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#08x}", self.0)
    }
}

/// Declares newtypes whose whole range is valid.
macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident($int:ty), $format:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $int);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "(", $format, ")"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }
    )*};
}

numbers! {
    /// Local key of a memory region: lets work requests of the same protection domain name the region's memory.
    Lkey(u32), "{:#010x}";
    /// Remote key of a memory region: lets a *peer* name the region's memory. Not interchangeable with [`Lkey`].
    Rkey(u32), "{:#010x}";
    /// Queue key, which guards unconnected queue pairs.
    Qkey(u32), "{:#010x}";
    /// Partition key; bit 15 set means full membership. RoCE has the default partition, `0xffff`.
    Pkey(u16), "{:#06x}";
    /// Local identifier of an InfiniBand port; 0 on RoCE.
    Lid(u16), "{:#x}";
    /// Index into a port's GID table. (C declares both `int` and `uint8_t`; the address vector has 8 bits.)
    GidIndex(u8), "{}";
    /// Number of a port; the first port is 1.
    PortNum(u8), "{}";
}

impl PortNum {
    /// The port every device has.
    pub const FIRST: Self = Self(1);
}

impl Pkey {
    /// The partition that exists everywhere and the only one of RoCE.
    pub const DEFAULT: Self = Self(0xffff);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_24_bits_stay_within_24_bits() {
        assert_eq!(Qpn::new(0xff12_3456).get(), 0x12_3456);
        assert_eq!(Psn::new(u32::MAX).get(), 0xff_ffff);
    }

    #[test]
    fn numbers_print_as_the_field_writes_them() {
        assert_eq!(Qpn::new(0x11).to_string(), "0x000011");
        assert_eq!(format!("{:?}", Rkey(0x1a2b)), "Rkey(0x00001a2b)");
        assert_eq!(PortNum::FIRST.to_string(), "1");
    }

    #[test]
    fn random_sequence_numbers_differ() {
        assert!((0..8).map(|_| Psn::random().get()).collect::<std::collections::HashSet<_>>().len() > 1);
    }
}
