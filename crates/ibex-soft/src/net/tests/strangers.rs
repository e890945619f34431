//! Processes that take a slot's name and say what they like.

use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};

use super::super::forward::{Header, Kind};
use super::super::mailbox;
use super::*;
use crate::host::{Host, Letter};

/// A socket with the name of a slot that nobody owns, and its number.
fn stranger(wire: &Wire) -> (UnixDatagram, u16) {
    let named = |slot| UnixAddr::from_abstract_name(wire.names().slot(slot)).unwrap();
    let mut bound =
        (1..qpn::SLOTS).filter_map(|slot| Some((UnixDatagram::bind_addr(&named(slot)).ok()?, slot)));
    let (socket, slot) = bound.next().unwrap();
    let to = wire.slots().first().unwrap().number;
    socket.connect_addr(&named(to)).unwrap();
    socket.set_nonblocking(true).unwrap();
    (socket, slot)
}

fn header(kind: Kind, segment: usize, port: u16, source: &str) -> [u8; 32] {
    let source = source.parse().unwrap();
    Header { kind, ask: false, segment: segment as u16, first: 0, port, source }.emit()
}

/// Once such packets were taken for those of any host the header named.
#[test]
fn who_is_on_this_address_speaks_for_no_other() {
    let mut end = End::open(&private(LOOPBACK));
    let (socket, _) = stranger(&end.wire);
    let mut bytes = [0; 64];
    for (qpn, source, heard) in
        [(end.peer().qpn, "192.0.2.1", 0), (end.peer().qpn, "127.0.0.1", 1), (1, "192.0.2.1", 1)]
    {
        let length = packet(&mut bytes, qpn, 5, 16);
        let header = header(Kind::Local, length, 1, source);
        socket.send(&[&header[..], &bytes[..length]].concat()).unwrap();
        assert_eq!(end.receive().len(), heard, "from {source} to {qpn:#x}");
    }
    assert_eq!(end.wire.snapshot().rx_malformed, 1);
    // What the holder passes on comes from a slot's name, too.
    let nameless = UnixDatagram::unbound().unwrap();
    let name = end.wire.names().slot(end.wire.slots().first().unwrap().number);
    nameless.connect_addr(&UnixAddr::from_abstract_name(name).unwrap()).unwrap();
    nameless.send(&header(Kind::Foreign, 64, 1, "192.0.2.1")).unwrap();
    assert_eq!(end.receive(), []);
    assert_eq!(end.wire.snapshot().rx_malformed, 2);
}

/// Once each hello was answered by an invitation, with two descriptors that nobody took back.
#[test]
fn hellos_take_no_more_than_some_descriptors() {
    let mut end = End::open(&Config { link: LinkChoice::Host, ..private(LOOPBACK) });
    let (socket, slot) = stranger(&end.wire);
    let port = end.wire.own().port();
    let connections = |end: &End| end.wire.host().map_or(0, |host| Host::fds(host).count() - 1);
    // As a process of another user, whose credentials are not ours.
    for offset in 1..100 {
        end.wire.learn(slot, port + offset, &Letter::default());
    }
    assert_eq!(connections(&end), 0);
    assert_eq!(end.wire.port_of(slot), Some(port + 99), "it is met on the wire");
    for offset in 1..200 {
        socket.send(&header(Kind::Hello, 0, port + offset, "127.0.0.1")).unwrap();
        end.receive();
        // Invitations are not taken; the queue they come to is short.
        while socket.recv(&mut [0; 64]).is_ok_and(|_| offset % 2 == 0) {}
    }
    assert!((1..=32).contains(&connections(&end)), "{} attempts", connections(&end));
    // A peer that is there is met after a while although the others never answer.
    std::thread::sleep(Duration::from_secs(2));
    let before = end.wire.snapshot().attached;
    let mut peer =
        End::open(&Config { link: LinkChoice::Host, port: end.wire.roce_port(), ..Config::new(LOOPBACK) });
    let to = peer.peer();
    let deadline = Instant::now() + Duration::from_secs(5);
    while end.wire.snapshot().attached == before {
        end.wire.hello(to);
        peer.receive();
        end.receive();
        assert!(Instant::now() < deadline);
        pause();
    }
}

/// Once only what was a good datagram counted.
#[test]
fn garbage_for_a_mailbox_ends_a_round_as_letters_do() {
    let end = End::open(&private(LOOPBACK));
    let held = end.wire.hold("service/test").unwrap();
    held.listen().unwrap();
    let (socket, _) = stranger(&end.wire);
    let name = UnixAddr::from_abstract_name(end.wire.names().other("service/test")).unwrap();
    for _ in 0..5 {
        socket.send_to_addr(b"garbage", &name).unwrap();
    }
    let more: Vec<bool> =
        (0..3).map(|_| mailbox::receive(&end.wire, 2, &mut |_: Datagram<'_>| {}).more).collect();
    assert_eq!(more, [true, true, false]);
    assert_eq!(end.wire.snapshot().rx_malformed, 5);
}

/// Once a datagram with a header and nothing else ended the device.
#[test]
fn whatever_comes_to_a_slot_is_survived() {
    let mut end = End::open(&Config { link: LinkChoice::Host, ..private(LOOPBACK) });
    let (socket, _) = stranger(&end.wire);
    let mut state = 1u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    };
    for _ in 0..5000 {
        let length = random() as usize % 200;
        let mut bytes: Vec<u8> = (0..length).map(|_| random() as u8).collect();
        if random() % 8 != 0 && length >= 32 {
            bytes[..4].copy_from_slice(b"ibx\x01");
            bytes[4] = (random() % 5) as u8;
            let segment = if random() % 2 == 0 { random() % 4 } else { random() };
            bytes[6..8].copy_from_slice(&(segment as u16).to_ne_bytes());
        }
        let _ = socket.send(&bytes);
        end.wire.recv(&mut end.ring, Scan::Full, 1000, &mut |_: Datagram<'_>| {});
        let _ = socket.recv(&mut [0; 64]);
    }
    let to = end.peer();
    end.send(to, 1, 64);
    assert_eq!(end.expect(1), [1]);
}
