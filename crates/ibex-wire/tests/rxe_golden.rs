//! Frames of the kernel's rxe, captured on a wire (`golden/README.md`): every one parses, its ICRC verifies and is
//! reproduced, and its headers are written back as they were read.
//!
//! Ethernet, IP and UDP are taken apart here by hand: the crate begins behind them.

#![allow(clippy::unwrap_used, reason = "the helpers are part of the tests")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ibex_wire::icrc::Flow;
use ibex_wire::{
    Aeth, AtomicAckEth, AtomicEth, Deth, Header, Ieth, ImmDt, NakCode, Opcode, Packet, Psn, Reth, Rkey,
    Syndrome, UDP_PORT, padding,
};

const CAPTURES: [(&str, &str); 2] = [
    ("6.1", include_str!("golden/rxe-6.1/frames.txt")),
    ("6.12", include_str!("golden/rxe-6.12/frames.txt")),
];

/// One captured frame behind its UDP header.
struct Frame {
    name: String,
    flow: Flow,
    identification: u16,
    sealed: Vec<u8>,
}

impl Frame {
    /// Takes a frame apart: Ethernet, IPv4 without options or IPv6 without extensions, UDP.
    fn new(name: String, frame: &[u8]) -> Frame {
        let word = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
        let (source, destination, udp, identification): (IpAddr, IpAddr, usize, u16) = match word(12) {
            0x0800 => {
                let address = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&frame[at..at + 4]).unwrap());
                assert_eq!(usize::from(word(16)), frame.len() - 14, "{name}: total length");
                (address(26).into(), address(30).into(), 34, word(18))
            }
            0x86dd => {
                let address = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&frame[at..at + 16]).unwrap());
                (address(22).into(), address(38).into(), 54, 0)
            }
            other => panic!("{name}: ethertype {other:#06x}"),
        };
        assert_eq!(word(udp + 2), UDP_PORT, "{name}");
        assert_eq!(usize::from(word(udp + 4)), frame.len() - udp, "{name}: UDP length");
        let flow =
            Flow::new(SocketAddr::new(source, word(udp)), SocketAddr::new(destination, UDP_PORT)).unwrap();
        Frame { name, flow, identification, sealed: frame[udp + 8..].to_vec() }
    }

    fn packet(&self) -> Packet<'_> {
        let bytes = self.flow.verify(self.identification, &self.sealed);
        let bytes = bytes.unwrap_or_else(|| panic!("{}: ICRC", self.name));
        Packet::parse(bytes).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }
}

fn frames(capture: &str) -> Vec<Frame> {
    let frames: Vec<Frame> = capture
        .lines()
        .map(|line| {
            let (name, hex) = line.split_once(' ').unwrap();
            let bytes: Vec<u8> = (0..hex.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
                .collect();
            Frame::new(name.to_owned(), &bytes)
        })
        .collect();
    assert!(frames.len() > 50, "the capture is not whole");
    frames
}

/// Runs a check on every frame of every kernel.
fn each(check: impl Fn(&str, &Frame)) {
    for (kernel, capture) in CAPTURES {
        for frame in frames(capture) {
            check(kernel, &frame);
        }
    }
}

/// The frames of one scenario, in order.
fn scenario<'a>(frames: &'a [Frame], name: &str) -> Vec<Packet<'a>> {
    let of_it = |frame: &&Frame| frame.name.rsplit_once('-').is_some_and(|(scenario, _)| scenario == name);
    let packets: Vec<Packet<'_>> = frames.iter().filter(of_it).map(Frame::packet).collect();
    assert!(!packets.is_empty(), "no scenario {name}");
    packets
}

#[test]
fn every_icrc_verifies_and_is_reproduced() {
    each(|kernel, frame| {
        frame.packet();
        let mut ours = frame.sealed.clone();
        let icrc = ours.len() - ibex_wire::ICRC_LEN;
        ours[icrc..].fill(0);
        frame.flow.seal(frame.identification, &mut ours);
        assert_eq!(ours, frame.sealed, "{kernel}: {}", frame.name);
    });
}

#[test]
fn an_unknown_identification_is_recovered() {
    each(|kernel, frame| {
        let found =
            frame.flow.verify_any_identification(0, &frame.sealed).map(|(_, identification)| identification);
        assert_eq!(found, Some(frame.identification), "{kernel}: {}", frame.name);
    });
}

#[test]
fn a_flipped_bit_is_noticed() {
    each(|kernel, frame| {
        // One bit in each byte; the byte with FECN and BECN (4) is not covered.
        for at in (0..frame.sealed.len()).filter(|at| *at != 4) {
            let mut bad = frame.sealed.clone();
            bad[at] ^= 1 << (at % 8);
            assert!(
                frame.flow.verify(frame.identification, &bad).is_none(),
                "{kernel}: {} at {at}",
                frame.name
            );
        }
    });
}

#[test]
fn headers_are_written_back_as_they_were_read() {
    each(|kernel, frame| {
        let packet = frame.packet();
        let mut out = Vec::new();
        write(&mut out, packet.bth());
        packet.deth().inspect(|header: &Deth| write(&mut out, header));
        packet.reth().inspect(|header: &Reth| write(&mut out, header));
        packet.atomic_eth().inspect(|header: &AtomicEth| write(&mut out, header));
        packet.aeth().inspect(|header: &Aeth| write(&mut out, header));
        packet.atomic_ack_eth().inspect(|header: &AtomicAckEth| write(&mut out, header));
        packet.imm().inspect(|header: &ImmDt| write(&mut out, header));
        packet.ieth().inspect(|header: &Ieth| write(&mut out, header));
        assert_eq!(
            usize::from(packet.bth().pad),
            padding(packet.payload().len()),
            "{kernel}: {}",
            frame.name
        );
        out.extend_from_slice(packet.payload());
        out.resize(out.len().next_multiple_of(4), 0);
        assert_eq!(out, frame.sealed[..frame.sealed.len() - ibex_wire::ICRC_LEN], "{kernel}: {}", frame.name);
    });
}

fn write<H: Header>(out: &mut Vec<u8>, header: &H) {
    let at = out.len();
    out.resize(at + H::LEN, 0);
    assert!(header.put(&mut out[at..]).is_some_and(|rest| rest.is_empty()));
}

/// Byte `i` of a region before anything was written to it.
fn pattern(range: std::ops::Range<usize>) -> Vec<u8> {
    range.map(|i| ((i * 7 + (i >> 8)) & 0xff) as u8).collect()
}

const FIRST_PSN: u32 = 0x100;

#[test]
fn messages_have_the_packets_and_numbers_they_should() {
    type O = Opcode;
    let (ack, wrap) = (O::RC_ACK, 0xff_fffe);
    // Scenario, first PSN, opcodes of the requests, opcodes of the answers.
    let table: &[(&str, u32, &[O], &[O])] = &[
        ("send_only", FIRST_PSN, &[O::RC_SEND_ONLY], &[ack]),
        ("send_empty", FIRST_PSN, &[O::RC_SEND_ONLY], &[ack]),
        ("send_solicited", FIRST_PSN, &[O::RC_SEND_ONLY], &[ack]),
        ("send_long", wrap, &[O::RC_SEND_FIRST, O::RC_SEND_MIDDLE, O::RC_SEND_LAST], &[ack]),
        ("send_imm", FIRST_PSN, &[O::RC_SEND_ONLY_IMM], &[ack]),
        ("send_imm_long", FIRST_PSN, &[O::RC_SEND_FIRST, O::RC_SEND_LAST_IMM], &[ack]),
        ("write_only", FIRST_PSN, &[O::RC_WRITE_ONLY], &[ack]),
        ("write_long", FIRST_PSN, &[O::RC_WRITE_FIRST, O::RC_WRITE_MIDDLE, O::RC_WRITE_LAST], &[ack]),
        ("write_imm", FIRST_PSN, &[O::RC_WRITE_ONLY_IMM], &[ack]),
        ("write_imm_long", FIRST_PSN, &[O::RC_WRITE_FIRST, O::RC_WRITE_LAST_IMM], &[ack]),
        ("read_only", FIRST_PSN, &[O::RC_READ_REQUEST], &[O::RC_READ_RESPONSE_ONLY]),
        (
            "read_long",
            FIRST_PSN,
            &[O::RC_READ_REQUEST],
            &[O::RC_READ_RESPONSE_FIRST, O::RC_READ_RESPONSE_MIDDLE, O::RC_READ_RESPONSE_LAST],
        ),
        ("compare_swap", FIRST_PSN, &[O::RC_COMPARE_SWAP], &[O::RC_ATOMIC_ACK]),
        ("fetch_add", FIRST_PSN, &[O::RC_FETCH_ADD], &[O::RC_ATOMIC_ACK]),
        ("send_invalidate", FIRST_PSN, &[O::RC_SEND_ONLY_INV], &[ack]),
        ("v6_send_only", FIRST_PSN, &[O::RC_SEND_ONLY], &[ack]),
        ("v6_write_long", FIRST_PSN, &[O::RC_WRITE_FIRST, O::RC_WRITE_MIDDLE, O::RC_WRITE_LAST], &[ack]),
        ("v6_read_only", FIRST_PSN, &[O::RC_READ_REQUEST], &[O::RC_READ_RESPONSE_ONLY]),
        ("ud_send_only", FIRST_PSN, &[O::UD_SEND_ONLY], &[]),
        ("ud_send_imm", FIRST_PSN, &[O::UD_SEND_ONLY_IMM], &[]),
        ("uc_send_long", FIRST_PSN, &[O::UC_SEND_FIRST, O::UC_SEND_LAST], &[]),
    ];
    for (kernel, capture) in CAPTURES {
        let frames = frames(capture);
        for (name, first, requests, answers) in table {
            let packets = scenario(&frames, name);
            let (sent, answered): (Vec<_>, Vec<_>) =
                packets.iter().partition(|packet| packet.opcode().is_request());
            let opcodes =
                |packets: &[&Packet<'_>]| packets.iter().map(|packet| packet.opcode()).collect::<Vec<_>>();
            assert_eq!(
                (opcodes(&sent), opcodes(&answered)),
                (requests.to_vec(), answers.to_vec()),
                "{kernel}: {name}"
            );
            let mut psn = Psn::new(*first);
            for (index, packet) in sent.iter().enumerate() {
                assert_eq!(packet.bth().psn, psn, "{kernel}: {name}");
                let last = index + 1 == sent.len();
                assert_eq!(packet.bth().ack_req, last && !answers.is_empty(), "{kernel}: {name}");
                if !last {
                    assert_eq!(packet.payload().len(), 1024, "{kernel}: {name}");
                    psn = psn.next();
                }
            }
            // An ACK names the last request; the responses to a READ count on from it.
            for packet in answered {
                assert_eq!(packet.bth().psn, psn, "{kernel}: {name}");
                psn = psn.next();
                if *name != "send_invalidate"
                    && let Some(aeth) = packet.aeth()
                {
                    assert_eq!((aeth.syndrome, aeth.msn), (Syndrome::ACK, 1), "{kernel}: {name}");
                }
            }
        }
    }
}

#[test]
fn fields_have_the_values_that_were_sent() {
    for (_, capture) in CAPTURES {
        let frames = frames(capture);
        let first = |name: &str| scenario(&frames, name)[0];

        assert_eq!(first("send_only").payload(), pattern(0..5));
        assert!(first("send_solicited").bth().solicited);
        assert!(!first("send_only").bth().solicited);
        let whole: Vec<u8> =
            scenario(&frames, "send_long").iter().flat_map(|packet| packet.payload().to_vec()).collect();
        assert_eq!(whole, pattern(0..2501));

        for name in ["send_imm", "write_imm"] {
            assert_eq!(first(name).imm(), Some(ImmDt([1, 2, 3, 4])), "{name}");
        }
        assert_eq!(first("send_invalidate").ieth(), Some(Ieth { rkey: Rkey(0x0102_0304) }));

        let write = first("write_long").reth().unwrap();
        assert_eq!(write.len, 2050);
        let read = first("read_long").reth().unwrap();
        assert_eq!((read.va, read.rkey, read.len), (write.va, write.rkey, 2053));

        let swap = first("compare_swap").atomic_eth().unwrap();
        assert_eq!((swap.compare, swap.swap_add), (0x1122_3344_5566_7788, 0x99aa_bbcc_ddee_ff00));
        assert_eq!((swap.rkey, swap.va % 4096), (write.rkey, 8));
        assert_eq!(first("fetch_add").atomic_eth().unwrap().swap_add, 0x0102_0304_0506_0708);
        // The comparison failed, so both return the eight bytes at 8, as an integer of the host.
        let there = u64::from_le_bytes(pattern(8..16).try_into().unwrap());
        for name in ["compare_swap", "fetch_add"] {
            assert_eq!(
                scenario(&frames, name)[1].atomic_ack_eth(),
                Some(AtomicAckEth { original: there }),
                "{name}"
            );
        }

        let datagram = first("ud_send_imm");
        assert_eq!(datagram.deth().unwrap().qkey.0, 0x1111_1111);
        assert_eq!((datagram.imm(), datagram.payload().len()), (Some(ImmDt([1, 2, 3, 4])), 11));
    }
}

#[test]
fn refusals_are_read_with_their_reasons() {
    let naks = [
        ("nak_sequence", Syndrome::Nak(NakCode::PSN_SEQUENCE)),
        ("nak_access", Syndrome::Nak(NakCode::REMOTE_ACCESS)),
        ("nak_invalid", Syndrome::Nak(NakCode::INVALID_REQUEST)),
        ("nak_operational", Syndrome::Nak(NakCode::REMOTE_OPERATIONAL)),
        ("nak_rnr", Syndrome::RnrNak { timer: 12 }),
    ];
    for (kernel, capture) in CAPTURES {
        let frames = frames(capture);
        for (name, syndrome) in naks {
            let packets = scenario(&frames, name);
            assert_eq!(packets[1].opcode(), Opcode::RC_ACK, "{kernel}: {name}");
            assert_eq!(packets[1].aeth(), Some(Aeth { syndrome, msn: 0 }), "{kernel}: {name}");
            // Also after a gap, what is named is the packet expected.
            assert_eq!(packets[1].bth().psn, Psn::new(FIRST_PSN), "{kernel}: {name}");
        }
    }
}
