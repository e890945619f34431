//! Whether direct traffic comes one packet at a time, as in a conversation, or crowded.
//!
//! Owns the decision whether the kernel is to coalesce it, which costs a lone packet more and saves a crowd much
//! ([`super::udp`] says why), and what has to be known to take in packets when that has just changed.
//!
//! Read first: udp(7) (`UDP_GRO`).

use ibex_wire::icrc::Flow;
use ibex_wire::{Bth, ICRC_LEN};

use super::tx::MAX_PACKET;
use super::udp::Udp;

/// The score of packets that come together, that of one alone being one: a pair that the kernel takes apart because it is not to
/// coalesce costs a few times what coalescing costs one.
const TOGETHER: u32 = 4;

/// The score at which direct traffic is a crowd: eight packets right behind others. Four times as many that come alone make it
/// none.
const CROWDED: u32 = 8 * TOGETHER;

/// How direct traffic came lately.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    /// Whether the look before this one found something.
    hit: bool,
    /// Grows with what comes together, and falls with what comes alone.
    score: u32,
    /// Whether the socket may still hold what was coalesced before that was switched off.
    pub(super) doubt: bool,
    /// The identification of the next packet, if the last one's batch goes on: the kernel takes it apart unless it coalesces.
    pub(super) next: u16,
}

impl Crowd {
    /// A look found a burst of so many packets.
    #[inline]
    pub(super) fn found(&mut self, udp: &Udp, packets: usize) {
        let behind = std::mem::replace(&mut self.hit, true);
        if !behind && packets == 1 {
            self.score = self.score.saturating_sub(1);
            return;
        }
        self.score = (self.score + TOGETHER).min(CROWDED);
        if self.score == CROWDED && !udp.coalesces() {
            udp.coalesce(true);
        }
    }

    /// A look found nothing.
    #[inline]
    pub(super) fn missed(&mut self, udp: &Udp) {
        self.hit = false;
        self.doubt = false;
        if self.score == 0 && udp.coalesces() {
            udp.coalesce(false);
            // Something may have come since the look.
            self.doubt = true;
        }
    }
}

impl Crowd {
    /// Bytes of each packet but the last in a burst that came without that number: as many as make the first one's ICRC right.
    #[cold]
    pub(super) fn segment(&self, flow: &Flow, burst: &[u8]) -> usize {
        segment(self.next, burst, |identification, bytes| flow.verify(identification, bytes).is_some())
    }
}

/// The same with any check of a packet. The packet is mostly one of a batch that the kernel has taken apart, of which `next` is
/// the next identification: to look for another length first would take milliseconds each.
fn segment(next: u16, burst: &[u8], mut fits: impl FnMut(u16, &[u8]) -> bool) -> usize {
    let whole = burst.len().max(1);
    if fits(0, burst) || fits(next, burst) {
        return whole;
    }
    // Packets and ICRC are whole words.
    let most = burst.len().min(MAX_PACKET + ICRC_LEN + 1);
    let mut lengths = (Bth::LEN + ICRC_LEN..most).step_by(4);
    lengths.find(|&bytes| fits(0, &burst[..bytes])).unwrap_or(whole)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

    use super::*;

    fn socket() -> Udp {
        Udp::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), 1 << 16).unwrap()
    }

    /// A look at a socket that was given datagrams of these sizes one by one before; how many it found.
    fn look(crowd: &mut Crowd, udp: &Udp, from: &UdpSocket, sizes: &[usize]) -> usize {
        let to = (Ipv4Addr::LOCALHOST, udp.port());
        for size in sizes {
            from.send_to(&vec![7; *size], to).unwrap();
        }
        let mut buffer = vec![0; 1 << 16];
        let mut found = 0;
        while let Some(burst) = udp.recv(&mut buffer).unwrap() {
            found += burst.length.div_ceil(burst.segment);
            crowd.found(udp, burst.length.div_ceil(burst.segment));
        }
        crowd.missed(udp);
        found
    }

    #[test]
    fn lone_packets_are_not_coalesced_and_crowds_are() {
        let (udp, from) = (socket(), UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let mut crowd = Crowd::default();
        for _ in 0..40 {
            assert_eq!(look(&mut crowd, &udp, &from, &[80]), 1);
        }
        assert!(!udp.coalesces());
        // A pair now and then changes nothing.
        for _ in 0..20 {
            look(&mut crowd, &udp, &from, &[80, 20]);
            for _ in 0..15 {
                look(&mut crowd, &udp, &from, &[80]);
            }
            assert!(!udp.coalesces());
        }
        assert_eq!(look(&mut crowd, &udp, &from, &[80; 9]), 9);
        assert!(udp.coalesces());
        for round in 0..CROWDED {
            assert!(udp.coalesces(), "after {round} lone packets");
            look(&mut crowd, &udp, &from, &[80]);
        }
        assert!(!udp.coalesces());
    }

    #[test]
    fn what_was_coalesced_before_is_told_apart_by_its_checks() {
        let (udp, from) = (socket(), socket());
        let here = |udp: &Udp| SocketAddr::from((Ipv4Addr::LOCALHOST, udp.port()));
        let flow = Flow::new(here(&from), here(&udp)).unwrap();
        for (sizes, segment) in [(&[80, 80, 20][..], 80), (&[20, 20][..], 20), (&[4164, 4164, 48], 4164)] {
            let mut bytes = Vec::new();
            for (index, size) in sizes.iter().enumerate() {
                let mut packet: Vec<u8> = (0..*size).map(|at| (at * 7 + index) as u8).collect();
                flow.seal(index as u16, &mut packet);
                bytes.extend(packet);
            }
            udp.coalesce(true);
            from.send(&super::super::udp::Target::new(here(&udp)), &bytes, segment).unwrap();
            udp.coalesce(false);
            let mut buffer = vec![0; 1 << 16];
            let burst = udp.recv(&mut buffer).unwrap().unwrap();
            assert_eq!(burst.length, bytes.len(), "it came as one, or there is nothing to tell apart");
            assert_eq!(Crowd::default().segment(&flow, &buffer[..burst.length]), segment);
        }
        let crowd = Crowd::default();
        let mut damaged = vec![1; 100];
        assert_eq!(crowd.segment(&flow, &damaged), 100);
        flow.seal(0, &mut damaged);
        assert_eq!(crowd.segment(&flow, &damaged), 100);
        assert_eq!(crowd.segment(&flow, &[]), 1);
    }

    #[test]
    fn a_batch_that_was_taken_apart_is_not_searched_for_lengths() {
        let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 4791));
        let flow = Flow::new(here, here).unwrap();
        for identification in [0, 1, 15, 700] {
            let mut packet = vec![3; 4140];
            flow.seal(identification, &mut packet);
            let mut tries = 0;
            let length = super::segment(identification, &packet, |identification, bytes| {
                tries += 1;
                flow.verify(identification, bytes).is_some()
            });
            assert_eq!((length, tries), (4140, if identification == 0 { 1 } else { 2 }));
        }
    }
}
