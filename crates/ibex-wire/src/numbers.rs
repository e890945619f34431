//! Newtypes of the numbers in headers, so that one kind cannot be used as another.
//!
//! Packet sequence numbers, which have arithmetic, are in `psn.rs`.

use core::fmt;

/// A queue pair number, 24 bits. 0 and 1 are the management queue pairs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Qpn(u32);

impl Qpn {
    /// The general services queue pair, which carries connection management.
    pub const GSI: Qpn = Qpn(1);

    /// The number's low 24 bits.
    pub const fn new(value: u32) -> Qpn {
        Qpn(value & 0xff_ffff)
    }

    /// The number, below 2^24.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Debug for Qpn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Qpn({:#08x})", self.0)
    }
}

impl fmt::Display for Qpn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#08x}", self.0)
    }
}

/// A remote key: names a memory region or window at the responder.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Rkey(pub u32);

impl fmt::Debug for Rkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rkey({:#010x})", self.0)
    }
}

/// A partition key: 15 bits of partition, and the membership bit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Pkey(pub u16);

impl Pkey {
    /// Full member of the default partition, the only partition of RoCE.
    pub const DEFAULT: Pkey = Pkey(0xffff);

    /// Whether both keys name one partition and at least one of them is a full member (IBTA 10.9.1).
    pub const fn matches(self, other: Pkey) -> bool {
        (self.0 ^ other.0) & 0x7fff == 0 && (self.0 | other.0) & 0x8000 != 0
    }
}

impl Default for Pkey {
    fn default() -> Pkey {
        Pkey::DEFAULT
    }
}

/// The key that lets a datagram into a queue pair.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Qkey(pub u32);

/// A path MTU: the most payload bytes in one packet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Mtu {
    /// 256 bytes.
    Mtu256 = 1,
    /// 512 bytes.
    Mtu512 = 2,
    /// 1024 bytes: the largest that fits an Ethernet frame of 1500 bytes.
    Mtu1024 = 3,
    /// 2048 bytes.
    Mtu2048 = 4,
    /// 4096 bytes.
    Mtu4096 = 5,
}

impl Mtu {
    /// All of them, ascending.
    pub const ALL: [Mtu; 5] = [Mtu::Mtu256, Mtu::Mtu512, Mtu::Mtu1024, Mtu::Mtu2048, Mtu::Mtu4096];

    /// The MTU with this number in the verbs' `enum ibv_mtu` (1–5).
    pub const fn from_code(code: u8) -> Option<Mtu> {
        match code {
            1 => Some(Mtu::Mtu256),
            2 => Some(Mtu::Mtu512),
            3 => Some(Mtu::Mtu1024),
            4 => Some(Mtu::Mtu2048),
            5 => Some(Mtu::Mtu4096),
            _ => None,
        }
    }

    /// The largest MTU whose packets fit `room` bytes of UDP payload (largest headers and ICRC included).
    pub fn fitting(room: usize) -> Option<Mtu> {
        let fits = |mtu: &&Mtu| crate::MAX_HEADERS + mtu.bytes() + crate::ICRC_LEN <= room;
        Mtu::ALL.iter().rev().find(fits).copied()
    }

    /// Its number in `enum ibv_mtu`.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Payload bytes per packet.
    pub const fn bytes(self) -> usize {
        1 << self.shift()
    }

    /// Binary logarithm of [`bytes`](Mtu::bytes).
    pub const fn shift(self) -> u32 {
        7 + self as u32
    }

    /// Packets of a message of `len` bytes: at least one.
    pub const fn packets(self, len: u32) -> u32 {
        if len == 0 { 1 } else { ((len as u64 + self.bytes() as u64 - 1) >> self.shift()) as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mtu_sizes_and_packet_counts() {
        assert_eq!(Mtu::ALL.map(Mtu::bytes), [256, 512, 1024, 2048, 4096]);
        assert_eq!(Mtu::ALL.map(|mtu| Mtu::from_code(mtu.code())), Mtu::ALL.map(Some));
        assert_eq!((Mtu::from_code(0), Mtu::from_code(6)), (None, None));
        let packets = |len| Mtu::Mtu1024.packets(len);
        assert_eq!([0, 1, 1024, 1025, 2048].map(packets), [1, 1, 1, 2, 2]);
        assert_eq!(Mtu::Mtu256.packets(1 << 31), 1 << 23);
        assert_eq!(Mtu::Mtu4096.packets(u32::MAX), 1 << 20);
    }

    #[test]
    fn largest_mtu_of_a_link() {
        assert_eq!(Mtu::fitting(1500 - 28), Some(Mtu::Mtu1024));
        assert_eq!(Mtu::fitting(65535 - 28), Some(Mtu::Mtu4096));
        assert_eq!(Mtu::fitting(9000 - 28), Some(Mtu::Mtu4096));
        assert_eq!(Mtu::fitting(299), None);
    }

    #[test]
    fn partition_keys_match_when_one_is_a_full_member() {
        assert!(Pkey(0xffff).matches(Pkey(0x7fff)));
        assert!(Pkey(0x8001).matches(Pkey(0x8001)));
        assert!(!Pkey(0x0001).matches(Pkey(0x0001)));
        assert!(!Pkey(0x8001).matches(Pkey(0x8002)));
    }
}
