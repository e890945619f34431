//! The link over loopback: several links in one test stand for several processes.

mod abroad;
mod processes;
mod strangers;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::time::{Duration, Instant};

use ibex_wire::icrc::Flow;
use ibex_wire::{Bth, ICRC_LEN, Opcode, Psn, Qpn};

use super::fault::Faults;
use super::rx::Datagram;
use super::*;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A configuration on a port of its own: tests run side by side.
fn private(address: IpAddr) -> Config {
    // Below the ephemeral ports, so that nobody's own socket is given it; a name in the abstract
    // namespace, kept until the test process ends, sees to it that no two tests choose the same.
    let start = (std::process::id() as u16).wrapping_mul(67);
    let port = (0..10_000).map(|offset| 20_000 + start.wrapping_add(offset) % 10_000).find(|port| {
        let name = format!("ibex-soft-test-port/{port}");
        let name = std::os::unix::net::SocketAddr::from_abstract_name(name).unwrap();
        let lock = std::os::unix::net::UnixDatagram::bind_addr(&name);
        lock.map(std::mem::forget).is_ok() && UdpSocket::bind((address, *port)).is_ok()
    });
    Config { port: port.unwrap(), link: LinkChoice::Wire, ..Config::new(address) }
}

/// A packet for `qpn` with `payload` bytes that tell its number.
fn packet(buffer: &mut [u8], qpn: u32, number: u32, payload: usize) -> usize {
    let (bth, rest) = buffer.split_first_chunk_mut::<{ Bth::LEN }>().unwrap();
    Bth::new(Opcode::RC_SEND_ONLY, Qpn::new(qpn), Psn::new(number)).emit(bth);
    for (at, byte) in rest[..payload].iter_mut().enumerate() {
        *byte = filler(number, at);
    }
    Bth::LEN + payload
}

fn filler(number: u32, at: usize) -> u8 {
    (number.wrapping_mul(31) as usize + at * 7) as u8
}

/// The number of a packet of [`packet`], its payload checked.
fn number(datagram: Datagram<'_>) -> u32 {
    let (bth, payload) = datagram.packet.split_first_chunk::<{ Bth::LEN }>().unwrap();
    let number = Bth::parse(bth).psn.get();
    for (at, byte) in payload.iter().enumerate() {
        assert_eq!(*byte, filler(number, at), "payload of packet {number} at {at}");
    }
    number
}

/// A link with what its owner has.
struct End {
    wire: Wire,
    ring: RxRing,
    batch: TxBatch,
}

impl End {
    fn open(config: &Config) -> Self {
        Self { wire: Wire::open(config).unwrap(), ring: RxRing::new(), batch: TxBatch::new() }
    }

    fn send(&mut self, to: Peer, number: u32, payload: usize) {
        assert!(self.batch.push(&self.wire, to, |buffer| packet(buffer, to.qpn, number, payload)));
        self.batch.flush(&self.wire);
    }

    /// Everything that has come.
    fn receive(&mut self) -> Vec<(IpAddr, u32)> {
        let mut got = Vec::new();
        self.wire
            .recv(&mut self.ring, Scan::Full, 10_000, &mut |d: Datagram<'_>| got.push((d.source, number(d))));
        got
    }

    /// Receives until there are `count` packets; loopback delivers within microseconds.
    fn expect(&mut self, count: usize) -> Vec<u32> {
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut got = Vec::new();
        while got.len() < count {
            got.extend(self.receive().into_iter().map(|(_, number)| number));
            assert!(Instant::now() < deadline, "{} of {count} packets came: {:?}", got.len(), self.wire);
        }
        got
    }

    fn peer(&self) -> Peer {
        Peer { address: self.wire.address(), qpn: self.wire.alloc_qpn().unwrap() }
    }
}

/// Hellos are rate-limited by the millisecond.
fn pause() {
    std::thread::sleep(Duration::from_millis(3));
}

#[test]
fn queue_pair_numbers_are_unique_and_not_reused_at_once() {
    let end = End::open(&private(LOOPBACK));
    let first = end.wire.alloc_qpn().unwrap();
    end.wire.free_qpn(first);
    let mut seen = HashSet::from([first]);
    // More than one slot holds, so that a second one is taken.
    for _ in 0..qpn::INDICES + 100 {
        let number = end.wire.alloc_qpn().unwrap();
        assert!(number > qpn::INDICES - 1 && number < qpn::MULTICAST);
        // The freed number comes again once at most: after all the others of its slot.
        let fresh = seen.insert(number);
        assert!(
            fresh || (number == first && seen.len() >= qpn::INDICES as usize),
            "{number:#x} given out twice"
        );
    }
    assert_eq!(end.wire.slots().iter().count(), 2);
    end.wire.free_qpn(0);
    end.wire.free_qpn(qpn::MULTICAST);
}

#[test]
fn slots_are_exclusive_and_freed_with_their_owner() {
    let config = private(LOOPBACK);
    let mut ends: Vec<_> = (0..8).map(|_| End::open(&config)).collect();
    let slots: HashSet<_> = ends.iter().map(|end| end.wire.slots().first().unwrap().number).collect();
    assert_eq!(slots.len(), ends.len());
    let gone = ends.pop().unwrap();
    let number = gone.wire.slots().first().unwrap().number;
    let name = std::os::unix::net::SocketAddr::from_abstract_name(gone.wire.names().slot(number)).unwrap();
    assert!(std::os::unix::net::UnixDatagram::bind_addr(&name).is_err());
    drop(gone);
    assert!(std::os::unix::net::UnixDatagram::bind_addr(&name).is_ok());
}

#[test]
fn one_holder_per_address() {
    let config = private(LOOPBACK);
    let ends: Vec<_> = (0..4).map(|_| End::open(&config)).collect();
    assert_eq!(ends.iter().filter(|end| end.wire.is_holder()).count(), 1);
}

#[test]
fn first_packets_go_by_slot_and_teach_both_sides() {
    let config = private(LOOPBACK);
    let (mut a, mut b) = (End::open(&config), End::open(&config));
    let (to_a, to_b) = (a.peer(), b.peer());
    a.send(to_b, 1, 64);
    assert_eq!(a.wire.snapshot().tx_via_slot, 1);
    assert_eq!(b.receive(), [(LOOPBACK, 1)]);
    assert_eq!(b.wire.port_of(qpn::slot(to_a.qpn)), Some(a.wire.own().port()));
    assert_eq!(a.receive(), []); // only the answer to the question
    assert_eq!(a.wire.port_of(qpn::slot(to_b.qpn)), Some(b.wire.own().port()));
    a.send(to_b, 2, 64);
    b.send(to_a, 3, 64);
    assert_eq!((b.expect(1), a.expect(1)), (vec![2], vec![3]));
    assert_eq!((a.wire.snapshot().tx_via_slot, b.wire.snapshot().tx_via_slot), (1, 0));
    assert_eq!(a.wire.snapshot().rx_bad_icrc + b.wire.snapshot().rx_bad_icrc, 0);
}

/// Once only the queue pair that opened the line was told of it.
#[test]
fn a_second_queue_pair_to_a_process_has_its_line_too() {
    let config = private(LOOPBACK);
    let (mut a, mut b) = (End::open(&config), End::open(&config));
    let (first, second) = (b.peer(), b.peer());
    a.wire.hello(first);
    assert_eq!((b.receive(), a.receive()), (vec![], vec![]));
    let mut lines = Vec::new();
    for (number, peer) in [first, second].into_iter().enumerate() {
        a.send(peer, number as u32, 64);
        assert!(a.batch.is_lined());
        lines.push(a.wire.line(peer).unwrap());
    }
    assert!(std::sync::Arc::ptr_eq(&lines[0], &lines[1]));
    assert_eq!(b.expect(2), [0, 1]);
    let abroad = Peer { address: "127.0.0.9".parse().unwrap(), ..first };
    a.send(abroad, 3, 64);
    assert!(!a.batch.is_lined());
}

/// Once all went to the slot's socket, which holds ten, and the rest of what a datagram service had sent at once was lost.
#[test]
fn many_first_packets_wait_for_the_answer() {
    let config = private(LOOPBACK);
    let (mut a, mut b) = (End::open(&config), End::open(&config));
    let to_b = b.peer();
    let (mut sent, mut got) = (0, Vec::new());
    let deadline = Instant::now() + Duration::from_secs(5);
    while got.len() < 40 {
        assert!(Instant::now() < deadline, "{got:?}");
        while sent < 40 && a.batch.push(&a.wire, to_b, |buffer| packet(buffer, to_b.qpn, sent, 64)) {
            sent += 1;
            a.batch.flush(&a.wire);
        }
        assert_eq!(a.batch.take_stalled(), sent < 40, "what did not go is to be tried again");
        got.extend(b.receive().into_iter().map(|(_, number)| number));
        // The answer.
        a.receive();
    }
    assert_eq!(got, (0..40).collect::<Vec<_>>());
    assert!(a.wire.snapshot().tx_via_slot < 10, "{:?}", a.wire.snapshot());
    assert_eq!(a.wire.snapshot().tx_dropped, 0);
}

#[test]
fn packets_do_not_wait_for_ever_for_an_answer() {
    let config = private(LOOPBACK);
    let (mut a, b) = (End::open(&config), End::open(&config));
    let to_b = b.peer();
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut sent = 0;
    // `b` does not look: some go to its slot, the rest is lost in the end, each after it has given way to others many times.
    while sent < 40 {
        assert!(Instant::now() < deadline, "{sent} sent");
        if a.batch.push(&a.wire, to_b, |buffer| packet(buffer, to_b.qpn, sent, 64)) {
            sent += 1;
            a.batch.flush(&a.wire);
        }
    }
    assert!(a.wire.snapshot().tx_dropped > 0);
}

#[test]
fn a_hello_teaches_before_the_first_packet() {
    let config = private(LOOPBACK);
    let (mut a, mut b) = (End::open(&config), End::open(&config));
    let to_b = b.peer();
    a.wire.hello(to_b);
    assert_eq!((b.receive(), a.receive()), (vec![], vec![]));
    a.send(to_b, 1, 64);
    assert_eq!(a.wire.snapshot().tx_via_slot, 0);
    assert_eq!(b.expect(1), [1]);
}

#[test]
fn a_peer_that_is_gone_is_unlearned_and_its_successor_found() {
    let config = private(LOOPBACK);
    let (mut a, mut b) = (End::open(&config), End::open(&config));
    let to_b = b.peer();
    a.wire.hello(to_b);
    b.receive();
    a.receive();
    drop(b);
    pause();
    a.wire.hello(to_b);
    assert_eq!(a.wire.port_of(qpn::slot(to_b.qpn)), None);
    a.send(to_b, 1, 64);
    let counters = a.wire.snapshot();
    assert_eq!((counters.tx_dropped, counters.forgotten), (1, 1));
}

#[test]
fn both_queue_pairs_in_one_process() {
    let mut end = End::open(&private(LOOPBACK));
    let to = end.peer();
    for number in 0..100 {
        end.send(to, number, 256);
    }
    assert_eq!(end.expect(100), (0..100).collect::<Vec<_>>());
    assert_eq!(end.wire.snapshot().tx_via_slot, 0);
}

#[test]
fn batches_arrive_whole_and_in_order() {
    let config = private(LOOPBACK);
    let (mut a, mut b) = (End::open(&config), End::open(&config));
    let to = b.peer();
    a.wire.hello(to);
    b.receive();
    a.receive();
    // First packets of a message are longer than the middle ones, the last is shorter.
    let sizes = [4112, 4096, 4096, 4096, 4096, 4096, 100, 100, 4, 0, 0, 64, 60, 4096];
    let mut next = 0;
    for round in 0..200u32 {
        for size in sizes.iter().cycle().skip(round as usize % 5).take(40) {
            assert!(a.batch.push(&a.wire, to, |buffer| packet(buffer, to.qpn, next, *size)));
            next += 1;
        }
        a.batch.flush(&a.wire);
        assert_eq!(b.expect(40), (next - 40..next).collect::<Vec<_>>());
    }
    let (sent, got) = (a.wire.snapshot(), b.wire.snapshot());
    assert!(sent.tx_gso_batches > 200, "{sent:?}");
    assert_eq!((sent.tx_packets, got.rx_packets), (next.into(), next.into()));
    assert_eq!(sent.tx_bytes, got.rx_bytes);
    assert_eq!((got.rx_bad_icrc, got.rx_guessed_ident, got.rx_malformed), (0, 0, 0), "{got:?}");
}

#[test]
fn batches_are_bounded_in_segments_and_bytes() {
    let config = private(LOOPBACK);
    let (mut a, mut b) = (End::open(&config), End::open(&config));
    let to = b.peer();
    a.wire.hello(to);
    b.receive();
    a.receive();
    for (count, size) in [(200, 4), (40, MAX_PAYLOAD_OF_A_PACKET)] {
        for number in 0..count {
            a.batch.push(&a.wire, to, |buffer| packet(buffer, to.qpn, number, size));
        }
        a.batch.flush(&a.wire);
        assert_eq!(b.expect(count as usize), (0..count).collect::<Vec<_>>());
    }
    assert_eq!(a.wire.snapshot().tx_dropped, 0);
    assert!(!a.batch.push(&a.wire, to, |_| 0));
}

/// What a batch takes in one packet besides its BTH.
const MAX_PAYLOAD_OF_A_PACKET: usize = tx::MAX_PACKET - Bth::LEN;

/// Sends one packet for `qpn` to `wire`'s RoCE port as a stranger at `from` would.
fn stranger(wire: &Wire, from: &UdpSocket, qpn: u32, number: u32, spoil: impl FnOnce(&mut [u8])) {
    let to = SocketAddr::new(wire.address(), wire.roce_port());
    let mut sealed = [0; 512];
    let length = packet(&mut sealed, qpn, number, 64) + ICRC_LEN;
    let flow = Flow::new(from.local_addr().unwrap(), to).unwrap();
    flow.seal(0, &mut sealed[..length]);
    spoil(&mut sealed[..length]);
    from.send_to(&sealed[..length], to).unwrap();
}

/// A socket as a RoCE device has it: "don't fragment", so that the identification is 0.
fn foreign_socket(address: &str) -> UdpSocket {
    let address: IpAddr = address.parse().unwrap();
    udp::Udp::bind(SocketAddr::new(address, 0), 1 << 16).unwrap().into_std()
}

#[test]
fn foreign_packets_reach_their_slot_through_the_holder() {
    let config = private(LOOPBACK);
    let mut ends: Vec<_> = (0..3).map(|_| End::open(&config)).collect();
    let numbers: Vec<_> = ends.iter().map(|end| end.wire.alloc_qpn().unwrap()).collect();
    let socket = foreign_socket("127.0.0.2");
    for (number, qpn) in numbers.iter().enumerate() {
        stranger(&ends[0].wire, &socket, *qpn, number as u32, |_| ());
    }
    let holder = ends.iter().position(|end| end.wire.is_holder()).unwrap();
    let source: IpAddr = "127.0.0.2".parse().unwrap();
    assert_eq!(ends[holder].receive(), [(source, holder as u32)]);
    for (number, end) in ends.iter_mut().enumerate().filter(|&(number, _)| number != holder) {
        assert_eq!(end.receive(), [(source, number as u32)]);
        assert_eq!(end.wire.snapshot().rx_guessed_ident, 0);
    }
    assert_eq!(ends[holder].wire.snapshot().forwarded, 2);
    // A slot that nobody owns.
    let taken: HashSet<_> = numbers.iter().map(|&number| qpn::slot(number)).collect();
    let free = (1..qpn::SLOTS).find(|slot| !taken.contains(slot)).unwrap();
    stranger(&ends[0].wire, &socket, qpn::join(free, 7), 0, |_| ());
    assert_eq!(ends[holder].receive(), []);
    assert_eq!(ends[holder].wire.snapshot().rx_stray, 1);
}

#[test]
fn devices_on_two_addresses_meet_at_the_roce_port() {
    let config = private(LOOPBACK);
    let other =
        Config { port: config.port, link: LinkChoice::Wire, ..Config::new("127.0.0.3".parse().unwrap()) };
    // The second of each is not the holder, so that both directions are forwarded in bursts.
    let (mut first_a, mut a) = (End::open(&config), End::open(&config));
    let (mut first_b, mut b) = (End::open(&other), End::open(&other));
    let (to_a, to_b) = (a.peer(), b.peer());
    for number in 0..30 {
        a.batch.push(&a.wire, to_b, |buffer| packet(buffer, to_b.qpn, number, 1024));
        b.batch.push(&b.wire, to_a, |buffer| packet(buffer, to_a.qpn, number, 1024));
    }
    a.batch.flush(&a.wire);
    b.batch.flush(&b.wire);
    assert_eq!((first_a.receive(), first_b.receive()), (vec![], vec![]));
    let all: Vec<_> = (0..30).collect();
    assert_eq!((a.expect(30), b.expect(30)), (all.clone(), all));
    assert_eq!(first_a.wire.snapshot().forwarded, 30);
    assert_eq!(a.wire.snapshot().rx_guessed_ident, 0);
}

#[test]
fn one_burst_for_several_slots_is_split() {
    let config = private(LOOPBACK);
    let other =
        Config { port: config.port, link: LinkChoice::Wire, ..Config::new("127.0.0.3".parse().unwrap()) };
    let mut ends: Vec<_> = (0..3).map(|_| End::open(&config)).collect();
    let mut sender = End::open(&other);
    let peers: Vec<_> = ends.iter().map(End::peer).collect();
    let order = [0, 1, 1, 2, 0, 0, 2, 2, 2, 1];
    for (number, &end) in order.iter().enumerate() {
        sender
            .batch
            .push(&sender.wire, peers[end], |buffer| packet(buffer, peers[end].qpn, number as u32, 64));
    }
    sender.batch.flush(&sender.wire);
    assert_eq!(sender.wire.snapshot().tx_gso_batches, 1);
    let holder = ends.iter().position(|end| end.wire.is_holder()).unwrap();
    let mut turns = vec![holder];
    turns.extend((0..3).filter(|&end| end != holder));
    for turn in turns {
        let wanted: Vec<_> = (0..10u32).filter(|&number| order[number as usize] == turn).collect();
        assert_eq!(ends[turn].expect(wanted.len()), wanted);
        assert_eq!(ends[turn].wire.snapshot().rx_guessed_ident, 0);
    }
}

#[test]
fn the_icrc_is_checked_and_the_identification_may_be_any() {
    let mut end = End::open(&private(LOOPBACK));
    let qpn = end.wire.alloc_qpn().unwrap();
    let socket = foreign_socket("127.0.0.2");
    stranger(&end.wire, &socket, qpn, 1, |sealed| sealed[40] ^= 1);
    stranger(&end.wire, &socket, qpn, 2, |sealed| *sealed.last_mut().unwrap() ^= 0x80);
    assert_eq!(end.receive(), []);
    assert_eq!(end.wire.snapshot().rx_bad_icrc, 2);
    let flow = Flow::new(socket.local_addr().unwrap(), end.wire.roce_address(LOOPBACK)).unwrap();
    stranger(&end.wire, &socket, qpn, 3, |sealed| flow.seal(0xbeef, sealed));
    assert_eq!(end.expect(1), [3]);
    let counters = end.wire.snapshot();
    assert_eq!((counters.rx_bad_icrc, counters.rx_guessed_ident), (2, 1));
}

#[test]
fn malformed_datagrams_are_counted() {
    let mut end = End::open(&private(LOOPBACK));
    let qpn = end.wire.alloc_qpn().unwrap();
    let socket = foreign_socket("127.0.0.2");
    let roce = end.wire.roce_address(LOOPBACK);
    for length in [0, 1, 7, 12, 15] {
        socket.send_to(&[0; 16][..length], roce).unwrap();
    }
    let flow = Flow::new(socket.local_addr().unwrap(), roce).unwrap();
    let mut odd = [0; 64];
    packet(&mut odd, qpn, 0, 5);
    flow.seal(0, &mut odd[..21]);
    socket.send_to(&odd[..21], roce).unwrap();
    let slot = end.wire.slots().first().unwrap().number;
    let nobody = std::os::unix::net::UnixDatagram::unbound().unwrap();
    let name = std::os::unix::net::SocketAddr::from_abstract_name(end.wire.names().slot(slot)).unwrap();
    nobody.send_to_addr(b"ibx", &name).unwrap();
    nobody.send_to_addr(&[0; 100], &name).unwrap();
    let header = forward::Header {
        kind: forward::Kind::Hello,
        ask: true,
        segment: 0,
        first: 0,
        port: 9,
        source: LOOPBACK,
    };
    // A hello from a socket that is nobody's slot teaches nothing.
    nobody.send_to_addr(&header.emit(), &name).unwrap();
    assert_eq!(end.receive(), []);
    let counters = end.wire.snapshot();
    // The empty datagram has no packet in it at all.
    assert_eq!((counters.rx_malformed, counters.learned, counters.rx_bad_icrc), (8, 0, 0), "{counters:?}");
}

#[test]
fn when_the_holder_goes_another_takes_over() {
    let config = private(LOOPBACK);
    let mut ends: Vec<_> = (0..3).map(|_| End::open(&config)).collect();
    let holder = ends.iter().position(|end| end.wire.is_holder()).unwrap();
    let numbers: Vec<_> = ends.iter().map(|end| end.wire.alloc_qpn().unwrap()).collect();
    assert!(ends.iter().all(|end| end.wire.housekeeping(Instant::now()).is_none()));
    drop(ends.remove(holder));
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let waits: Vec<_> = ends.iter().map(|end| end.wire.housekeeping(Instant::now())).collect();
        if waits.iter().all(Option::is_none) {
            break;
        }
        assert!(Instant::now() < deadline, "no holder: {ends:?}", ends = ends.len());
    }
    assert_eq!(ends.iter().filter(|end| end.wire.is_holder()).count(), 1);
    assert_eq!(ends.iter().map(|end| end.wire.snapshot().takeovers).sum::<u64>(), 1);
    let socket = foreign_socket("127.0.0.2");
    let heirs: Vec<_> = numbers.iter().enumerate().filter(|&(n, _)| n != holder).map(|(_, q)| *q).collect();
    for (number, qpn) in heirs.iter().enumerate() {
        stranger(&ends[0].wire, &socket, *qpn, number as u32, |_| ());
    }
    let mut got: Vec<_> =
        (0..4).flat_map(|turn| ends[turn % 2].receive()).map(|(_, number)| number).collect();
    got.sort_unstable();
    assert_eq!(got, [0, 1]);
}

#[test]
fn a_stranger_on_the_port_is_named_as_the_reason() {
    let config = private(LOOPBACK);
    let _rxe = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, config.port)).unwrap();
    let error = Wire::open(&config).unwrap_err();
    assert!(matches!(error, NetError::PortTaken { port, .. } if port == config.port), "{error}");
    assert_eq!(error.errno(), libc::EADDRINUSE);
    assert!(error.to_string().contains("rdma_rxe"));
}

#[test]
fn an_address_of_another_host_is_refused() {
    // TEST-NET-3 of RFC 5737: nobody's.
    let error = Wire::open(&Config::new("203.0.113.9".parse().unwrap())).unwrap_err();
    assert!(matches!(error, NetError::NotLocal { .. }), "{error}");
    let error = Wire::open(&Config::new(Ipv4Addr::UNSPECIFIED.into())).unwrap_err();
    assert!(matches!(error, NetError::NotLocal { .. }), "{error}");
    assert!(matches!(Config::on_interface("no-such-one0"), Err(NetError::NoInterface { .. })));
}

#[test]
fn over_ipv6() {
    let address: IpAddr = Ipv6Addr::LOCALHOST.into();
    let config = private(address);
    let (mut a, mut b) = (End::open(&config), End::open(&config));
    assert_eq!(a.wire.mtu(), 4096);
    let (to_a, to_b) = (a.peer(), b.peer());
    b.wire.hello(to_a);
    a.receive();
    b.receive();
    for number in 0..20 {
        a.batch.push(&a.wire, to_b, |buffer| packet(buffer, to_b.qpn, number, 2048));
    }
    a.batch.flush(&a.wire);
    assert_eq!(b.expect(20), (0..20).collect::<Vec<_>>());
    b.send(to_a, 7, 64);
    assert_eq!(a.receive(), [(address, 7)]);
    let counters = b.wire.snapshot();
    assert_eq!((counters.rx_bad_icrc, counters.rx_guessed_ident), (0, 0));
    assert!(a.wire.snapshot().tx_gso_batches > 0);
    // The other family cannot be reached, and says so.
    a.send(Peer { address: LOOPBACK, ..to_b }, 0, 64);
    assert_eq!(a.wire.snapshot().tx_dropped, 1);
}

#[test]
fn faults_happen_at_their_rates() {
    let mut config = private(LOOPBACK);
    let mut b = End::open(&config);
    config.faults = Faults { loss: 10.0, duplicate: 5.0, reorder: 5.0, corrupt: 1.0, delay: 0, seed: 7 };
    let mut a = End::open(&config);
    let to = b.peer();
    a.wire.hello(to);
    b.receive();
    a.receive();
    let mut got = Vec::new();
    for number in 0..10_000 {
        a.batch.push(&a.wire, to, |buffer| packet(buffer, to.qpn, number, 64));
        if number % 50 == 0 {
            a.batch.flush(&a.wire);
            got.extend(b.receive().into_iter().map(|(_, number)| number));
        }
    }
    a.batch.flush(&a.wire);
    got.extend(b.receive().into_iter().map(|(_, number)| number));
    let unique: HashSet<_> = got.iter().collect();
    let lost = 10_000 - unique.len();
    let doubled = got.len() - unique.len();
    let reordered = got.windows(2).filter(|pair| pair[1] < pair[0]).count();
    // The damaged ones are lost, too.
    assert!((1000..1200).contains(&lost), "{lost} lost");
    assert!((400..600).contains(&doubled), "{doubled} doubled");
    assert!((400..600).contains(&reordered), "{reordered} reordered");
    assert_eq!(a.wire.snapshot().tx_dropped, 0);
    let damaged = b.wire.snapshot().rx_bad_icrc;
    assert!((50..150).contains(&damaged), "{damaged} damaged");
}

#[test]
fn quick_scans_see_every_socket_in_the_end() {
    let config = private(LOOPBACK);
    let (mut a, mut b) = (End::open(&config), End::open(&config));
    let to = b.peer();
    a.send(to, 5, 64);
    let mut got = Vec::new();
    for _ in 0..16 {
        b.wire.recv(&mut b.ring, Scan::Quick, 1, &mut |datagram: Datagram<'_>| got.push(number(datagram)));
    }
    assert_eq!(got, [5]);
}

#[test]
fn the_budget_bounds_a_call() {
    let config = private(LOOPBACK);
    let mut end = End::open(&config);
    let to = end.peer();
    for number in 0..100 {
        end.send(to, number, 64);
    }
    let mut count = 0;
    while count < 100 {
        let before = count;
        let received = end.wire.recv(&mut end.ring, Scan::Quick, 4, &mut |_: Datagram<'_>| count += 1);
        assert_eq!(received.packets, count - before);
        assert!((1..=4).contains(&received.packets) && (received.more || count == 100));
    }
    assert_eq!(
        end.wire.recv(&mut end.ring, Scan::Quick, 4, &mut |_: Datagram<'_>| count += 1),
        Received { sockets: true, ..Received::default() }
    );
}

#[test]
fn the_descriptor_is_readable_while_there_is_something() {
    let config = private(LOOPBACK);
    let (mut a, mut b) = (End::open(&config), End::open(&config));
    assert!(!a.wire.sleep(0) && !b.wire.sleep(0));
    let to = b.peer();
    a.send(to, 1, 64);
    assert!(b.wire.sleep(1000));
    assert_eq!(b.expect(1), [1]);
    assert!(!b.wire.sleep(0));
    a.receive();
    a.send(to, 2, 64);
    a.send(to, 3, 64);
    assert_eq!(a.wire.snapshot().tx_via_slot, 1);
    let mut got = Vec::new();
    while b.wire.sleep(100) && got.len() < 2 {
        b.wire.recv(&mut b.ring, Scan::Full, 64, &mut |datagram: Datagram<'_>| got.push(number(datagram)));
    }
    assert_eq!(got, [2, 3]);
    assert!(!b.wire.sleep(0));
}

#[test]
fn whoever_sleeps_on_the_descriptor_takes_over() {
    let config = private(LOOPBACK);
    let (first, mut heir) = (End::open(&config), End::open(&config));
    assert!(first.wire.is_holder());
    // Somebody else gets the port in between, so that it takes several tries.
    drop(first);
    let stranger = UdpSocket::bind((LOOPBACK, config.port)).unwrap();
    for _ in 0..5 {
        assert!(heir.wire.sleep(1000));
        heir.receive();
        assert!(!heir.wire.is_holder());
    }
    drop(stranger);
    while !heir.wire.is_holder() {
        assert!(heir.wire.sleep(1000));
        heir.receive();
    }
    assert!(!heir.wire.sleep(0));
    stranger_reaches(&mut heir);
}

fn stranger_reaches(end: &mut End) {
    let qpn = end.wire.alloc_qpn().unwrap();
    stranger(&end.wire, &foreign_socket("127.0.0.2"), qpn, 99, |_| ());
    assert!(end.wire.sleep(1000));
    assert_eq!(end.receive().iter().map(|(_, number)| *number).collect::<Vec<_>>(), [99]);
}
