//! Connection messages of the kernel's rdma_cm, captured on a wire (`golden/README.md`): every frame is a datagram of
//! queue pair 1 with a valid ICRC, and the messages of each exchange come in the order of IBTA volume 1, 12.9.
//!
//! Only frames and the order are checked here; what stands in a message is for the tests of the message formats.

#![allow(clippy::unwrap_used, reason = "the helpers are part of the tests")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ibex_wire::icrc::Flow;
use ibex_wire::{Packet, UDP_PORT};

const CAPTURES: [(&str, &str); 2] =
    [("6.1", include_str!("golden/cm-6.1/frames.txt")), ("6.12", include_str!("golden/cm-6.12/frames.txt"))];

/// Attribute ids: REQ, REJ, REP, RTU, DREQ, DREP, SIDR_REQ, SIDR_REP.
const EXCHANGES: [(&str, &[u16]); 7] = [
    ("connect", &[0x10, 0x13, 0x14, 0x15, 0x16]),
    ("reject", &[0x10, 0x12]),
    ("no_listener", &[0x10, 0x12]),
    ("v6_connect", &[0x10, 0x13, 0x14, 0x15, 0x16]),
    ("sidr", &[0x17, 0x18]),
    ("sidr_no_listener", &[0x17, 0x18]),
    ("v6_sidr", &[0x17, 0x18]),
];

/// Scenario and the bytes of a management datagram, taken out of an Ethernet frame.
fn message(line: &str) -> (&str, Vec<u8>) {
    let (name, hex) = line.split_once(' ').unwrap();
    let frame: Vec<u8> =
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    let word = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    let (source, destination, udp, identification): (IpAddr, IpAddr, usize, u16) = if word(12) == 0x0800 {
        let address = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&frame[at..at + 4]).unwrap());
        (address(26).into(), address(30).into(), 34, word(18))
    } else {
        let address = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&frame[at..at + 16]).unwrap());
        (address(22).into(), address(38).into(), 54, 0)
    };
    assert_eq!(word(udp + 2), UDP_PORT, "{name}");
    let flow = Flow::new(SocketAddr::new(source, word(udp)), SocketAddr::new(destination, UDP_PORT)).unwrap();
    let bytes = flow.verify(identification, &frame[udp + 8..]).unwrap_or_else(|| panic!("{name}: ICRC"));
    let packet = Packet::parse(bytes).unwrap();
    assert_eq!(packet.bth().dest_qpn.get(), 1, "{name}");
    assert!(packet.deth().is_some(), "{name}");
    (name.rsplit_once('-').unwrap().0, packet.payload().to_vec())
}

#[test]
fn every_exchange_is_whole_and_in_order() {
    for (kernel, capture) in CAPTURES {
        let messages: Vec<_> = capture.lines().map(message).collect();
        for (name, expected) in EXCHANGES {
            let seen: Vec<u16> = messages
                .iter()
                .filter(|(scenario, _)| *scenario == name)
                .map(|(_, mad)| {
                    assert_eq!(mad.len(), 256, "{kernel}: {name}");
                    // Base version 1, class 7 (communication management) of version 2, method Send.
                    assert_eq!(mad[..4], [1, 7, 2, 3], "{kernel}: {name}");
                    u16::from_be_bytes([mad[16], mad[17]])
                })
                .collect();
            assert_eq!(seen, expected, "{kernel}: {name}");
        }
    }
}
