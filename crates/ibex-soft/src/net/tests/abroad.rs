//! Devices at two addresses that get to know each other, and others that pretend.

use ibex_proto::Ack;
use ibex_wire::mad::Likeness;
use ibex_wire::{Aeth, Packet, Syndrome};

use super::express::{Datagram as Short, Express, Room as _};
use super::*;

const THERE: &str = "127.0.0.3";

fn two() -> (End, End, Peer) {
    let config = private(LOOPBACK);
    let other = Config { address: THERE.parse().unwrap(), ..config.clone() };
    let (here, there) = (End::open(&config), End::open(&other));
    let peer = there.peer();
    (here, there, peer)
}

/// Lets the question that `here` asked be answered.
fn answered(here: &mut End, there: &mut End) {
    assert_eq!((there.receive(), here.receive()), (vec![], vec![]), "nobody above is told");
}

/// Until the next question may be asked.
fn pause() {
    std::thread::sleep(Duration::from_millis(12));
}

#[test]
fn devices_at_two_addresses_know_each_other_after_a_question() {
    let (mut here, mut there, peer) = two();
    assert!(here.wire.line(peer).is_none());
    here.wire.hello(peer);
    assert!(here.wire.line(peer).is_none(), "not before the answer");
    let changes = here.wire.line_changes();
    answered(&mut here, &mut there);
    assert_ne!(changes, here.wire.line_changes());
    let line = here.wire.line(peer).unwrap();
    assert!(here.wire.goes_by(&line, peer));
    assert_eq!(here.wire.snapshot().acquainted, 1);
    // Only who asks knows.
    let back = here.peer();
    assert!(there.wire.line(back).is_none());
    there.wire.hello(back);
    answered(&mut there, &mut here);
    assert!(there.wire.line(back).is_some());
}

#[test]
fn a_silent_peer_is_in_doubt_until_it_answers_again() {
    let (mut here, mut there, peer) = two();
    here.wire.hello(peer);
    answered(&mut here, &mut there);
    let line = here.wire.line(peer).unwrap();
    pause();
    here.wire.doubt(peer);
    assert!(!here.wire.goes_by(&line, peer) && here.wire.line(peer).is_none());
    // What is sent meanwhile goes as before.
    here.send(peer, 1, 64);
    assert_eq!(there.expect(1), [1]);
    answered(&mut here, &mut there);
    let again = here.wire.line(peer).unwrap();
    assert!(here.wire.goes_by(&again, peer) && !here.wire.goes_by(&line, peer));
    here.send(peer, 2, 64);
    assert_eq!(there.expect(1), [2]);
}

/// What a device that is none of ours, at another address, makes of the question that it is asked.
fn stranger(answer: impl FnOnce(&mut [u8; 256])) -> bool {
    let config = private(LOOPBACK);
    let there = foreign_socket_at(THERE, config.port);
    let mut here = End::open(&config);
    let peer = Peer { address: THERE.parse().unwrap(), qpn: qpn::join(9, 9) };
    here.wire.hello(peer);
    let mut sealed = [0; 512];
    let (length, from) = there.recv_from(&mut sealed).unwrap();
    let flow = Flow::new(from, there.local_addr().unwrap()).unwrap();
    let packet = Packet::parse(flow.verify(0, &sealed[..length]).unwrap()).unwrap();
    let mut mad = *management::open(&packet).unwrap().0;
    assert!(Likeness::parse(&mad).is_some_and(|likeness| !likeness.answers));
    answer(&mut mad);
    let mut sealed = [&management::packet(0, &mad)[..], &[0; ICRC_LEN]].concat();
    Flow::new(there.local_addr().unwrap(), from).unwrap().seal(0, &mut sealed);
    there.send_to(&sealed, from).unwrap();
    // What is no answer is for connection management to drop.
    here.wire.recv(&mut here.ring, Scan::Full, 10, &mut |_: Datagram<'_>| ());
    here.wire.line(peer).is_some()
}

/// A socket at a port, as the device that holds it would have.
fn foreign_socket_at(address: &str, port: u16) -> UdpSocket {
    let address: IpAddr = address.parse().unwrap();
    let socket = udp::Udp::bind(SocketAddr::new(address, port), 1 << 16).unwrap().into_std();
    socket.set_nonblocking(false).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

#[test]
fn an_answer_is_believed_if_it_is_one_and_has_the_questions_number() {
    assert!(stranger(|mad| mad[3] |= 0x80), "as a device like this one answers");
    assert!(!stranger(|_| ()), "a question back");
    assert!(!stranger(|mad| (mad[3], mad[5]) = (0x81, 0x0c)), "refused");
    assert!(!stranger(|mad| (mad[3], mad[15]) = (0x81, mad[15] ^ 1)), "foreseen");
    assert!(!stranger(|mad| (mad[3], mad[44]) = (0x81, 0xfe)), "none of our forms");
}

#[test]
fn a_device_that_captures_asks_nobody_and_writes_what_comes_in_known_forms() {
    let config = private(LOOPBACK);
    let path = std::env::temp_dir().join(format!("ibex-abroad-{}-{}.pcap", std::process::id(), config.port));
    let other = Config { address: THERE.parse().unwrap(), capture: Some(path.clone()), ..config.clone() };
    let (mut here, mut there) = (End::open(&config), End::open(&other));
    let (peer, back) = (there.peer(), here.peer());
    there.wire.hello(back);
    assert!(here.receive().is_empty());
    assert!(there.receive().is_empty() && there.wire.line(back).is_none());
    here.wire.hello(peer);
    answered(&mut here, &mut there);

    let mut short = Short::new();
    short.write(0, b"a payload that can be found again");
    let ack = Ack { psn: Psn::new(3), aeth: Aeth { syndrome: Syndrome::ACK, msn: 4 } };
    let bth = Bth { pad: 3, ..Bth::new(Opcode::RC_SEND_ONLY, Qpn::new(peer.qpn), Psn::new(5)) };
    let line = here.wire.line(peer).unwrap();
    here.wire.send_express(&line, short, 36, (&bth, Some(ack)));
    let mut got = 0;
    there.wire.recv(&mut there.ring, Scan::Full, 10, &mut |datagram: Datagram<'_>| {
        let express = Express::of_packet(datagram.packet).unwrap();
        assert_eq!((express.ack(), express.bth, express.len()), (Some(ack), bth, 36));
        got += 1;
    });
    assert_eq!(got, 1);

    let capture = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    // Behind the headers of capture, Ethernet-less IPv4 and UDP, each packet begins with its opcode.
    let opcodes: Vec<u8> = records(&capture).map(|record| record[28]).collect();
    let management = Opcode::UD_SEND_ONLY.0;
    assert_eq!(opcodes, [management, management, Opcode::RC_ACK.0, Opcode::RC_SEND_ONLY.0]);
}

/// The packets of a capture, from their IP headers on.
fn records(capture: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = &capture[24..];
    std::iter::from_fn(move || {
        let (head, behind) = rest.split_at_checked(16)?;
        let length = u32::from_ne_bytes(head[8..12].try_into().unwrap()) as usize;
        let (record, behind) = behind.split_at(length);
        rest = behind;
        Some(record)
    })
}
