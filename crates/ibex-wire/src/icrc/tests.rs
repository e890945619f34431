//! Tests of the invariant CRC: against a plain reading of its definition.

use super::*;

extern crate std;
use std::vec::Vec;

/// The definition, byte by byte: builds the whole masked pseudo packet and hashes it.
fn reference_v4(src: [u8; 4], sport: u16, dst: [u8; 4], dport: u16, id: u16, packet: &[u8]) -> u32 {
    let mut bytes = std::vec![0xff; 8];
    let udp_len = (8 + packet.len() + 4) as u16;
    bytes.extend([0x45, 0xff]);
    bytes.extend((udp_len + 20).to_be_bytes());
    bytes.extend(id.to_be_bytes());
    bytes.extend([0x40, 0, 0xff, 17, 0xff, 0xff]);
    bytes.extend(src);
    bytes.extend(dst);
    bytes.extend(sport.to_be_bytes());
    bytes.extend(dport.to_be_bytes());
    bytes.extend(udp_len.to_be_bytes());
    bytes.extend([0xff, 0xff]);
    bytes.extend(&packet[..4]);
    bytes.push(0xff);
    bytes.extend(&packet[5..]);
    crc32fast::hash(&bytes)
}

/// A small generator: tests must not depend on anything random they cannot repeat.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn packet(&mut self) -> Vec<u8> {
        let words = 3 + self.next() as usize % 1040;
        (0..words * 4).map(|_| self.next() as u8).collect()
    }
}

const SRC: [u8; 4] = [10, 1, 2, 3];
const DST: [u8; 4] = [10, 99, 0, 254];

fn flow() -> Flow {
    Flow::v4(SRC.into(), 0xc0de, DST.into(), 4791)
}

fn sealed(id: u16, packet: &[u8]) -> Vec<u8> {
    let mut bytes = packet.to_vec();
    bytes.extend([0; 4]);
    flow().seal(id, &mut bytes);
    bytes
}

#[test]
fn v4_agrees_with_the_definition() {
    let mut noise = Noise(1);
    for _ in 0..500 {
        let (packet, id) = (noise.packet(), noise.next() as u16);
        assert_eq!(flow().compute(id, &packet), reference_v4(SRC, 0xc0de, DST, 4791, id, &packet));
    }
}

#[test]
fn v6_agrees_with_the_definition() {
    let (src, dst) = (Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1), Ipv6Addr::LOCALHOST);
    let mut noise = Noise(2);
    for _ in 0..100 {
        let packet = noise.packet();
        let udp_len = (8 + packet.len() + 4) as u16;
        let mut bytes = std::vec![0xff; 8];
        bytes.extend([0x6f, 0xff, 0xff, 0xff]);
        bytes.extend(udp_len.to_be_bytes());
        bytes.extend([17, 0xff]);
        bytes.extend(src.octets());
        bytes.extend(dst.octets());
        bytes.extend(1234u16.to_be_bytes());
        bytes.extend(4791u16.to_be_bytes());
        bytes.extend(udp_len.to_be_bytes());
        bytes.extend([0xff, 0xff]);
        bytes.extend(&packet[..4]);
        bytes.push(0xff);
        bytes.extend(&packet[5..]);
        let flow = Flow::v6(src, 1234, dst, 4791);
        assert_eq!(flow.compute(77, &packet), crc32fast::hash(&bytes));
        let mut sealed = packet.clone();
        sealed.extend([0; 4]);
        flow.seal(0, &mut sealed);
        assert_eq!(flow.verify_any_identification(5, &sealed), Some((&packet[..], 0)));
        sealed[20 % packet.len()] ^= 1;
        assert_eq!(flow.verify_any_identification(0, &sealed), None);
    }
}

#[test]
fn congestion_marks_do_not_matter() {
    let mut noise = Noise(3);
    let packet = noise.packet();
    let mut bytes = sealed(0, &packet);
    bytes[4] ^= 0xc0;
    assert!(flow().verify(0, &bytes).is_some());
}

#[test]
fn any_identification_is_recovered() {
    let mut noise = Noise(4);
    for round in 0..2000 {
        let (packet, id) = (noise.packet(), noise.next() as u16);
        let expected = if round % 2 == 0 { 0 } else { noise.next() as u16 };
        let bytes = sealed(id, &packet);
        assert_eq!(flow().verify_any_identification(expected, &bytes), Some((&packet[..], id)));
        assert_eq!(flow().verify(id, &bytes), Some(&packet[..]));
        assert_eq!(flow().verify(id ^ 1, &bytes), None);
    }
}

#[test]
fn every_identification_of_one_packet() {
    let packet = Noise(5).packet();
    for id in 0..=u16::MAX {
        let bytes = sealed(id, &packet[..32]);
        assert_eq!(flow().verify_any_identification(0, &bytes).map(|found| found.1), Some(id));
    }
}

#[test]
fn corruption_passes_once_in_65536() {
    let mut noise = Noise(6);
    let packet = &noise.packet()[..12];
    let rounds = 1 << 20;
    let mut accepted = 0;
    for _ in 0..rounds {
        let mut bytes = sealed(noise.next() as u16, packet);
        // Garble several bytes: short bursts inside 16 bits are always found, so they would flatter the figure.
        for _ in 0..6 {
            let at = noise.next() as usize % bytes.len();
            if at != 4 {
                bytes[at] ^= noise.next() as u8;
            }
        }
        let intact = bytes[..4] == packet[..4] && bytes[5..12] == packet[5..12];
        if !intact && flow().verify_any_identification(0, &bytes).is_some() {
            accepted += 1;
        }
    }
    // 16 are expected of 2^20; far more or none would mean the check is weaker or stronger than claimed.
    assert!((2..=45).contains(&accepted), "{accepted} of {rounds} corrupted packets accepted");
}

#[test]
fn single_bit_flips_are_always_found() {
    let mut noise = Noise(7);
    let packet = &noise.packet()[..12];
    for id in [0, 1, 0xabcd] {
        let good = sealed(id, packet);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let found = flow().verify_any_identification(0, &bad).is_some();
            assert_eq!(found, bit / 8 == 4, "bit {bit} of {}", good.len() * 8);
        }
    }
}

#[test]
fn too_short_and_too_long_are_refused() {
    for len in 0..16 {
        assert_eq!(flow().verify_any_identification(0, &std::vec![0; len]), None);
    }
    assert_eq!(flow().verify(0, &std::vec![0; 65535]), None);
}

#[test]
fn mapped_addresses_are_ipv4() {
    let v4 = Flow::new("1.2.3.4:1".parse().expect("v4"), "5.6.7.8:4791".parse().expect("v4"));
    let v6 = Flow::new("[::ffff:1.2.3.4]:1".parse().expect("v6"), "5.6.7.8:4791".parse().expect("v4"));
    assert!(v4.is_some());
    assert_eq!(v4, v6);
    assert_eq!(Flow::new("1.2.3.4:1".parse().expect("v4"), "[::1]:1".parse().expect("v6")), None);
}
