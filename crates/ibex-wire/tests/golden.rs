//! Golden bytes: every header, and whole packets with their ICRC, as they are on the wire.

use std::net::Ipv4Addr;

use ibex_wire::icrc::Flow;
use ibex_wire::{
    Aeth, AtomicAckEth, AtomicEth, Bth, Deth, Grh, Header, Ieth, ImmDt, NakCode, Opcode, Packet, Pkey, Psn,
    Qkey, Qpn, Reth, Rkey, Syndrome,
};

/// Bytes from hexadecimal digits; spaces are for the reader.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let byte =
        |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hexadecimal");
    digits.chunks(2).map(byte).collect()
}

/// A header is emitted as `bytes`, and `bytes` are read as the header.
fn golden<T: Header + PartialEq + std::fmt::Debug>(header: T, bytes: &str) {
    let bytes = hex(bytes);
    let mut out = vec![0xa5; T::LEN + 1];
    assert_eq!(header.put(&mut out).map(|rest| rest.len()), Some(1));
    assert_eq!(out[..T::LEN], bytes);
    assert_eq!(out[T::LEN], 0xa5, "nothing is written behind the header");
    let (parsed, rest) = T::split(&out).expect("long enough");
    assert_eq!((parsed, rest), (header, &[0xa5][..]));
    assert!(T::split(&out[..T::LEN - 1]).is_none());
}

#[test]
fn headers() {
    let bth = Bth::new(Opcode::RC_WRITE_ONLY_IMM, Qpn::new(0x12_3456), Psn::new(0xab_cdef));
    golden(bth, "0b 40 ffff 00 123456 00 abcdef");
    let all = Bth {
        solicited: true,
        pad: 3,
        version: 0,
        pkey: Pkey(0x8001),
        fecn: true,
        becn: true,
        ack_req: true,
        migrated: false,
        ..bth
    };
    golden(all, "0b b0 8001 c0 123456 80 abcdef");
    golden(Bth { version: 0xf, ..bth }, "0b 4f ffff 00 123456 00 abcdef");
    let reth = Reth { va: 0x0102_0304_0506_0708, rkey: Rkey(0xdead_beef), len: 0x8000_0000 };
    golden(reth, "0102030405060708 deadbeef 80000000");
    let atomic = AtomicEth { va: 8, rkey: Rkey(1), swap_add: 0x1122_3344_5566_7788, compare: u64::MAX };
    golden(atomic, "0000000000000008 00000001 1122334455667788 ffffffffffffffff");
    golden(AtomicAckEth { original: 0x0102_0304_0506_0708 }, "0102030405060708");
    golden(ImmDt([1, 2, 3, 4]), "01020304");
    golden(Ieth { rkey: Rkey(0x0102_0304) }, "01020304");
    golden(Deth { qkey: Qkey(0x8001_0000), src_qpn: Qpn::GSI }, "80010000 00000001");
    let grh = Grh {
        class: 0xab,
        flow: 0xc_def0,
        payload_len: 0x0102,
        next_header: 0x1b,
        hop_limit: 64,
        src: [0x11; 16],
        dst: [0x22; 16],
    };
    let gids = ["11".repeat(16), "22".repeat(16)].concat();
    golden(grh, &format!("6abcdef0 0102 1b 40 {gids}"));
}

#[test]
fn acknowledgements() {
    let ack = |syndrome| Aeth { syndrome, msn: 0x00_0102 };
    golden(ack(Syndrome::ACK), "1f 000102");
    golden(ack(Syndrome::Ack { credits: 0 }), "00 000102");
    golden(ack(Syndrome::RnrNak { timer: 12 }), "2c 000102");
    golden(ack(Syndrome::Reserved(1)), "41 000102");
    golden(ack(Syndrome::Nak(NakCode::PSN_SEQUENCE)), "60 000102");
    golden(ack(Syndrome::Nak(NakCode::INVALID_REQUEST)), "61 000102");
    golden(ack(Syndrome::Nak(NakCode::REMOTE_ACCESS)), "62 000102");
    golden(ack(Syndrome::Nak(NakCode::REMOTE_OPERATIONAL)), "63 000102");
    for byte in 0..0x80 {
        assert_eq!(Syndrome::from_byte(byte).to_byte(), byte);
        assert_eq!(Syndrome::from_byte(byte | 0x80).to_byte(), byte, "bit 7 is reserved");
    }
}

#[test]
fn receiver_not_ready_timers() {
    use ibex_wire::{RNR_TIMER_NS, rnr_timer_code, rnr_timer_ns};
    assert_eq!(rnr_timer_ns(0), 655_360_000);
    assert_eq!(rnr_timer_ns(1), 10_000);
    assert_eq!(rnr_timer_ns(12), 640_000);
    assert_eq!(rnr_timer_ns(31), 491_520_000);
    assert_eq!(rnr_timer_ns(32), rnr_timer_ns(0), "five bits");
    assert!(RNR_TIMER_NS[1..].is_sorted());
    for code in 0..32 {
        assert_eq!(rnr_timer_code(rnr_timer_ns(code)), code);
    }
    assert_eq!([rnr_timer_code(0), rnr_timer_code(10_001), rnr_timer_code(u64::MAX)], [1, 2, 0]);
}

/// A packet sent by a ConnectX device and published with the tests of scapy: unreliable SEND ONLY over IPv4 with
/// identification 1144, 18 bytes and 2 of padding.
#[test]
fn a_packet_of_real_hardware() {
    let host = Ipv4Addr::new(192, 168, 0, 7);
    let flow = Flow::v4(host, 49152, host, 4791);
    let sealed = hex("24 60 ffff 00 0000d3 00 cf1710
                      4630 818b e289 35d9 0e9a 9550 5401 be88 5e50 0000
                      78f353f3");
    let bytes = flow.verify(1144, &sealed).expect("the ICRC of the device");
    assert_eq!(flow.verify_any_identification(0, &sealed), Some((bytes, 1144)));
    let packet = Packet::parse(bytes).expect("a valid packet");
    assert_eq!(packet.opcode(), Opcode::UC_SEND_ONLY);
    assert_eq!(packet.bth().dest_qpn, Qpn::new(211));
    assert_eq!(packet.bth().psn, Psn::new(13_571_856));
    assert_eq!(packet.bth().pad, 2);
    assert_eq!(packet.payload().len(), 18);
    assert_eq!(packet.payload()[..2], *b"F0");
}

/// A congestion notification captured from a ConnectX-4 Lx, published there too. BECN is set, and masked.
#[test]
fn a_congestion_notification_of_real_hardware() {
    let flow = Flow::v4(Ipv4Addr::new(10, 0, 17, 1), 0, Ipv4Addr::new(10, 0, 18, 1), 4791);
    let sealed = hex("81 00 ffff 40 000118 00 000000 00000000000000000000000000000000 82fd002a");
    assert!(flow.verify(0x718c, &sealed).is_some());
    assert_eq!(flow.verify_any_identification(0, &sealed).map(|found| found.1), Some(0x718c));
    assert!(Bth::parse(sealed.first_chunk().expect("12 bytes")).becn);
}

/// Whole RC packets between 10.0.0.1 and 10.0.0.2, put together by hand from the specification.
#[test]
fn packets() {
    let packet = |bytes: &str| hex(bytes);
    // SEND ONLY with immediate, "hello" and three bytes of padding.
    let bytes = packet("05 f0 ffff 00 000011 80 000001 cafef00d 68656c6c6f 000000");
    let send = Packet::parse(&bytes).expect("valid");
    assert_eq!(send.opcode(), Opcode::RC_SEND_ONLY_IMM);
    assert_eq!((send.imm(), send.payload()), (Some(ImmDt([0xca, 0xfe, 0xf0, 0x0d])), &b"hello"[..]));
    assert!(send.bth().solicited && send.bth().ack_req);
    assert_eq!((send.reth(), send.aeth(), send.ieth(), send.deth()), (None, None, None, None));
    assert_eq!((send.atomic_eth(), send.atomic_ack_eth()), (None, None));

    // WRITE ONLY with immediate: RETH comes before the immediate data.
    let bytes = packet("0b 40 ffff 00 000011 80 000002 0000000000001000 00000007 00000004 01020304 aabbccdd");
    let write = Packet::parse(&bytes).expect("valid");
    assert_eq!(write.reth(), Some(Reth { va: 0x1000, rkey: Rkey(7), len: 4 }));
    assert_eq!((write.imm(), write.payload()), (Some(ImmDt([1, 2, 3, 4])), &[0xaa, 0xbb, 0xcc, 0xdd][..]));

    // READ response FIRST: AETH, then data.
    let bytes = packet("0d 40 ffff 00 000011 00 000003 1f000005 11223344");
    let response = Packet::parse(&bytes).expect("valid");
    assert_eq!(response.aeth(), Some(Aeth { syndrome: Syndrome::ACK, msn: 5 }));
    assert_eq!(response.payload(), [0x11, 0x22, 0x33, 0x44]);

    // Atomic acknowledge: AETH, then the original value.
    let bytes = packet("12 40 ffff 00 000011 00 000004 1f000006 000000000000002a");
    let atomic = Packet::parse(&bytes).expect("valid");
    assert_eq!(atomic.atomic_ack_eth(), Some(AtomicAckEth { original: 42 }));

    // SEND LAST with invalidate.
    let bytes = packet("16 40 ffff 00 000011 80 000005 00000099 01020304");
    let inv = Packet::parse(&bytes).expect("valid");
    assert_eq!((inv.ieth(), inv.imm()), (Some(Ieth { rkey: Rkey(0x99) }), None));

    // UD SEND ONLY with immediate: DETH comes before the immediate data.
    let bytes = packet("65 40 ffff 00 000001 00 000006 80010000 00000001 0a0b0c0d");
    let ud = Packet::parse(&bytes).expect("valid");
    assert_eq!(ud.deth(), Some(Deth { qkey: Qkey(0x8001_0000), src_qpn: Qpn::GSI }));
    assert_eq!((ud.imm(), ud.payload()), (Some(ImmDt([10, 11, 12, 13])), &[][..]));
}

#[test]
fn what_is_not_a_packet() {
    use ibex_wire::ParseError::*;
    let error = |bytes: &str| Packet::parse(&hex(bytes)).err();
    assert_eq!(error(""), Some(Truncated));
    assert_eq!(error("04 40 ffff 00 000011 00 0000"), Some(Truncated));
    assert_eq!(error("15 40 ffff 00 000011 00 000001"), Some(UnknownOpcode(0x15)));
    assert_eq!(error("81 40 ffff 00 000011 00 000001"), Some(UnknownOpcode(0x81)));
    assert_eq!(error("04 41 ffff 00 000011 00 000001"), Some(Version(1)));
    assert_eq!(error("0c 40 ffff 00 000011 00 000001 00000000"), Some(Truncated));
    assert_eq!(error("04 40 ffff 00 000011 00 000001 01"), Some(Unaligned));
    assert_eq!(error("04 70 ffff 00 000011 00 000001"), Some(Truncated), "padding that is not there");
    assert_eq!(
        error("00 50 ffff 00 000011 00 000001 00000000"),
        Some(Unexpected),
        "padding in a first packet"
    );
    assert_eq!(error("11 40 ffff 00 000011 00 000001 1f000001 00000000"), Some(Unexpected));
    assert_eq!(
        Packet::parse(&hex("04 70 ffff 00 000011 00 000001 01000000")).map(|p| p.payload().len()),
        Ok(1)
    );
}

#[test]
fn opcode_table() {
    let mut text = String::new();
    for (opcode, name) in Opcode::ALL {
        let headers = [
            (opcode.has_deth(), "DETH"),
            (opcode.has_reth(), "RETH"),
            (opcode.has_atomic_eth(), "AtomicETH"),
            (opcode.has_aeth(), "AETH"),
            (opcode.has_atomic_ack_eth(), "AtomicAckETH"),
            (opcode.has_imm(), "ImmDt"),
            (opcode.has_ieth(), "IETH"),
            (opcode.has_payload(), "payload"),
        ];
        let headers: Vec<&str> = headers.iter().filter(|(has, _)| *has).map(|(_, name)| *name).collect();
        let kind = if opcode.is_request() { "request" } else { "response" };
        let position = format!("{:?}", opcode.position()).to_lowercase();
        let row = format!(
            "{:#04x} {name:<23} {:<8} {position:<6} {:>2} {}",
            opcode.0,
            kind,
            opcode.header_len(),
            headers.join(" ")
        );
        text += row.trim_end();
        text.push('\n');
    }
    assert_eq!(text, include_str!("../src/opcodes.txt"), "\n{text}");
    let known = (0..=255).filter(|value| Opcode(*value).is_known()).count();
    assert_eq!(known, Opcode::ALL.len());
}
