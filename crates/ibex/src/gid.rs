//! The automatic choice of a GID.
//!
//! On RoCE the GID decides the source address of packets. The order: RoCEv2 with a global IPv6 address, RoCEv2 with an
//! IPv4 address, RoCEv2 link-local, RoCEv1, and on InfiniBand the first entry; empty entries never. The table is read
//! anew for every choice, since addresses come and go.

use crate::attr::{GidEntry, GidType};

/// The best entry, or `None` if there is none to use.
pub(crate) fn choose(table: &[GidEntry]) -> Option<&GidEntry> {
    table.iter().filter(|entry| !entry.gid.is_zero()).min_by_key(|entry| (rank(entry), entry.index))
}

/// How little an entry is wanted.
fn rank(entry: &GidEntry) -> u8 {
    let gid = &entry.gid;
    match entry.kind {
        GidType::Ib => 0,
        GidType::RoceV2 if gid.to_ipv4().is_some() => 1,
        GidType::RoceV2 if gid.is_link_local() => 2,
        GidType::RoceV2 => 0,
        GidType::RoceV1 => 4,
        GidType::Unknown => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{GidIndex, PortNum};

    fn entry(index: u8, gid: &str, kind: GidType) -> GidEntry {
        GidEntry {
            gid: gid.parse().unwrap(),
            index: GidIndex(index),
            port: PortNum::FIRST,
            kind,
            ifindex: None,
            netdev: None,
        }
    }

    fn chosen(table: &[GidEntry]) -> Option<u8> {
        choose(table).map(|entry| entry.index.0)
    }

    #[test]
    fn order_of_preference() {
        let mut table = vec![
            entry(0, "fe80::1", GidType::RoceV1),
            entry(1, "fe80::1", GidType::RoceV2),
            entry(2, "10.0.0.1", GidType::RoceV1),
            entry(3, "10.0.0.1", GidType::RoceV2),
            entry(4, "2001:db8::1", GidType::RoceV2),
            entry(5, "2001:db8::2", GidType::RoceV2),
            entry(6, "::", GidType::RoceV2),
        ];
        for expected in [4, 5, 3, 1, 0, 2] {
            assert_eq!(chosen(&table), Some(expected));
            table.retain(|entry| entry.index.0 != expected);
        }
        assert_eq!(chosen(&table), None);
    }

    #[test]
    fn infiniband_has_its_first_entry() {
        let table = [entry(0, "fe80::2", GidType::Ib), entry(1, "fec0::2", GidType::Ib)];
        assert_eq!(chosen(&table), Some(0));
    }
}
