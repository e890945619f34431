//! Properties over random values: arithmetic of sequence numbers, round trips, and that no bytes make a parser panic.
//! The fuzz target `packet` runs the same function over bytes that a fuzzer chooses.

use std::net::{Ipv4Addr, Ipv6Addr};

use ibex_wire::icrc::Flow;
use ibex_wire::{
    Aeth, AtomicAckEth, AtomicEth, Bth, Deth, Grh, Header, Ieth, ImmDt, Opcode, Packet, Pkey, Psn, Qpn, Reth,
    padding,
};
use proptest::prelude::*;

mod parse;
use parse::parse_anything;

/// Reading any bytes as a header and writing it again gives those bytes, but for reserved bits.
fn round_trip<T: Header>(bytes: &[u8], reserved: &[(usize, u8)]) {
    let (header, _) = T::split(bytes).expect("long enough");
    let mut out = vec![0; T::LEN];
    header.put(&mut out).expect("room");
    let mut expected = bytes[..T::LEN].to_vec();
    for (at, mask) in reserved {
        expected[*at] &= !mask;
    }
    assert_eq!(out, expected);
}

fn psn() -> impl Strategy<Value = Psn> {
    any::<u32>().prop_map(Psn::new)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn psn_steps_forward_and_back(start in psn(), steps in 0..Psn::MODULUS) {
        prop_assert_eq!((start + steps) - steps, start);
        prop_assert_eq!((start + steps).forward_from(start), steps);
        prop_assert_eq!(start.next().prev(), start);
        prop_assert_eq!(start.next(), start + 1);
    }

    #[test]
    fn psn_order_is_decided_by_the_shorter_way(start in psn(), steps in 1..Psn::HALF) {
        let later = start + steps;
        prop_assert_eq!(later.distance_from(start), steps as i32);
        prop_assert_eq!(start.distance_from(later), -(steps as i32));
        prop_assert!(start.precedes(later) && !later.precedes(start));
        prop_assert!(!start.precedes(start));
    }

    #[test]
    fn half_the_circle_is_behind(start in psn()) {
        prop_assert_eq!((start + Psn::HALF).distance_from(start), -(Psn::HALF as i32));
        prop_assert!((start + Psn::HALF).precedes(start));
    }

    #[test]
    fn psn_keeps_24_bits(value: u32) {
        prop_assert_eq!(Psn::new(value).get(), value % Psn::MODULUS);
        prop_assert_eq!(Qpn::new(value).get(), value % Psn::MODULUS);
    }

    #[test]
    fn headers_round_trip(bytes: [u8; 40]) {
        // Reserved: BTH byte 4 below FECN and BECN, byte 8 below AckReq; DETH byte 4; AETH bit 7; GRH's version is 6.
        round_trip::<Bth>(&bytes, &[(4, 0x3f), (8, 0x7f)]);
        round_trip::<Reth>(&bytes, &[]);
        round_trip::<AtomicEth>(&bytes, &[]);
        round_trip::<AtomicAckEth>(&bytes, &[]);
        round_trip::<Aeth>(&bytes, &[(0, 0x80)]);
        round_trip::<ImmDt>(&bytes, &[]);
        round_trip::<Ieth>(&bytes, &[]);
        round_trip::<Deth>(&bytes, &[(4, 0xff)]);
        let mut grh = bytes;
        grh[0] = 0x60 | grh[0] & 0xf;
        round_trip::<Grh>(&grh, &[]);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
        parse_anything(&bytes);
    }

    #[test]
    fn no_bytes_behind_a_valid_beginning_make_it_panic(
        index in 0..Opcode::ALL.len(),
        flags: u8,
        tail in proptest::collection::vec(any::<u8>(), 0..128),
    ) {
        let mut bytes = vec![Opcode::ALL[index].0.0, flags & 0xf0];
        bytes.extend(tail);
        parse_anything(&bytes);
    }

    #[test]
    fn packets_round_trip(
        index in 0..Opcode::ALL.len(),
        headers: [u8; 40],
        payload in proptest::collection::vec(any::<u8>(), 0..300),
        dest: u32,
        psn in psn(),
        pkey: u16,
        solicited: bool,
        ack_req: bool,
    ) {
        let opcode = Opcode::ALL[index].0;
        let len = match (opcode.has_payload(), opcode.ends_message()) {
            (false, _) => 0,
            (true, true) => payload.len(),
            (true, false) => payload.len() & !3,
        };
        let pad = padding(len);
        let bth = Bth {
            solicited,
            ack_req,
            pad: pad as u8,
            pkey: Pkey(pkey),
            ..Bth::new(opcode, Qpn::new(dest), psn)
        };
        let mut bytes = vec![0; Bth::LEN];
        bth.put(&mut bytes).expect("room");
        bytes.extend(&headers[..opcode.header_len() - Bth::LEN]);
        bytes.extend(&payload[..len]);
        bytes.extend(vec![0; pad]);
        let packet = Packet::parse(&bytes).expect("valid");
        prop_assert_eq!(packet.bth(), &bth);
        prop_assert_eq!(packet.payload(), &payload[..len]);
        parse_anything(&bytes);
    }

    #[test]
    fn sealed_packets_verify_and_changed_ones_do_not(
        src: [u8; 4],
        dst: [u8; 4],
        ports: (u16, u16),
        identification: u16,
        expected: u16,
        words in proptest::collection::vec(any::<u32>(), 4..300),
        bit: usize,
    ) {
        let mut sealed: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        let v4 = Flow::v4(Ipv4Addr::from(src), ports.0, Ipv4Addr::from(dst), ports.1);
        v4.seal(identification, &mut sealed);
        let found = v4.verify_any_identification(expected, &sealed);
        prop_assert_eq!(found, Some((&sealed[..sealed.len() - 4], identification)));
        let at = bit % (sealed.len() * 8);
        let mut changed = sealed.clone();
        changed[at / 8] ^= 1 << (at % 8);
        let masked = at / 8 == 4;
        prop_assert_eq!(v4.verify(identification, &changed).is_some(), masked);
        prop_assert_eq!(v4.verify_any_identification(expected, &changed).is_some(), masked);
        let v6 = Flow::v6(
            Ipv4Addr::from(src).to_ipv6_mapped(), ports.0, Ipv6Addr::LOCALHOST, ports.1,
        );
        v6.seal(identification, &mut sealed);
        prop_assert!(v6.verify(0, &sealed).is_some());
        prop_assert!(v4.verify(identification, &sealed).is_none());
    }

    #[test]
    fn no_bytes_make_the_icrc_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), id: u16) {
        let flow = Flow::v4(Ipv4Addr::LOCALHOST, 1, Ipv4Addr::LOCALHOST, 2);
        let _ = flow.verify(id, &bytes);
        let _ = flow.verify_any_identification(id, &bytes);
    }
}
