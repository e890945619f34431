//! Who waits, for how long, and that a receiver which takes nothing holds up nobody.

use super::*;
use crate::cm::{GRACE, PACKET};
use crate::net::{Config, Datagram, RxRing, Scan, Wire};
use ibex_wire::Qpn;
use ibex_wire::mad::Gid;

/// A datagram with a number.
fn letter(number: u32) -> Letter {
    let own = Gid::from(std::net::IpAddr::from([127, 0, 0, 1]));
    let mut packet = Box::new([0; PACKET]);
    // Its destination is queue pair 1: without that no mailbox takes it.
    packet[7] = 1;
    packet[PACKET - 4..].copy_from_slice(&number.to_be_bytes());
    Letter { from: own, to: own, from_qpn: Qpn::new(1), packet }
}

fn number(packet: &[u8]) -> u32 {
    u32::from_be_bytes(*packet.last_chunk().unwrap())
}

const SERVICE: Receiver = Receiver::Service(ServiceId(7));

#[test]
fn what_is_repeated_is_kept_once() {
    let mut kept = Kept::default();
    for count in 0..10 {
        assert!(kept.keep(count, SERVICE, Tried::Full, letter(1)).is_ok());
        assert!(kept.keep(count, SERVICE, Tried::Full, letter(2)).is_ok());
    }
    let (_, turn) = kept.take(FULL).unwrap();
    assert_eq!(turn.letters.iter().map(|(_, letter)| number(letter.mad())).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(kept.next(), None);
}

#[test]
fn one_receiver_does_not_take_all_the_room() {
    let mut kept = Kept::default();
    let fitting = (0..2000).filter(|&n| kept.keep(0, SERVICE, Tried::Full, letter(n)).is_ok()).count();
    assert_eq!(fitting, MOST_EACH);
    let other = |n: u32| Receiver::Slot(n as u16 % 100);
    let fitting = (0..2000).filter(|&n| kept.keep(0, other(n), Tried::Nobody, letter(n)).is_ok()).count();
    assert_eq!(fitting, MOST - MOST_EACH);
}

#[test]
fn turns_of_a_stopped_receiver_become_rare() {
    let mut kept = Kept::default();
    kept.keep(0, SERVICE, Tried::Full, letter(1)).ok().unwrap();
    let mut turns = 0;
    while let Some(now) = kept.next().filter(|&now| now < GRACE) {
        assert!(kept.take(now - 1).is_none(), "not before its turn");
        let (receiver, turn) = kept.take(now).unwrap();
        kept.put_back(now, receiver, Tried::Full, turn);
        turns += 1;
    }
    assert!((50..150).contains(&turns), "{turns} tries in a second");
}

/// Once every request for a listener that took none was tried 64 times at every look, and was kept as often as repeated.
#[test]
fn a_flood_for_a_stopped_listener_costs_one_try_a_turn() {
    let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let config =
        Config { port: free.local_addr().unwrap().port(), ..Config::new("127.0.0.1".parse().unwrap()) };
    drop(free);
    let listener = Wire::open(&config).unwrap();
    let Receiver::Service(service) = SERVICE else { unreachable!() };
    let held = listener.hold(&super::super::ports::mailbox(service)).unwrap();
    held.listen().unwrap();
    let open = crate::nic::open(&config).unwrap();
    let nic = open.nic();
    let mut inner = nic.cm.lock();
    for round in 0..3 {
        for number in 0..1000 {
            inner.pass(nic, round, SERVICE, letter(number));
        }
    }
    let (_, turn) = inner.kept.take(FULL).unwrap();
    let waiting: Vec<u32> = turn.letters.iter().map(|(_, letter)| number(letter.mad())).collect();
    // The mailbox has the first of them; then come the next, each once, and no more than may be kept.
    let had = waiting[0];
    assert!(had > 0);
    assert_eq!(waiting, (had..had + MOST_EACH as u32).collect::<Vec<_>>());
    inner.kept.put_back(0, SERVICE, Tried::Full, turn);

    let mut ring = RxRing::new();
    let mut all = Vec::new();
    let mut read = |all: &mut Vec<u32>| {
        listener.recv(&mut ring, Scan::Full, 10_000, &mut |datagram: Datagram<'_>| {
            all.push(number(datagram.packet))
        });
    };
    read(&mut all);
    let mut now = FULL * 4;
    while inner.kept.waits(SERVICE) {
        inner.pass_kept(nic, now);
        now = inner.kept.next().unwrap_or(now);
        read(&mut all);
    }
    assert_eq!(all, (0..had + MOST_EACH as u32).collect::<Vec<_>>(), "in order, and none is lost");

    // What waited too long is given up, all of it in one turn.
    for number in 0..1000 {
        inner.pass(nic, now, SERVICE, letter(number));
    }
    inner.pass_kept(nic, now + GRACE);
    assert!(!inner.kept.waits(SERVICE));
}
