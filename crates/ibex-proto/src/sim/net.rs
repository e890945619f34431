//! The network between simulated queue pairs: delay, loss, duplication, reordering, corruption, finite queues.
//!
//! Owns packets under way and what befalls them. Corruption is real: the packet is sealed with an ICRC, bits are
//! flipped, and the receiver's check must find it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::Ipv4Addr;

use ibex_wire::icrc::Flow;
use ibex_wire::{ICRC_LEN, Packet, UDP_PORT};

use super::Rng;
use crate::Nanos;

/// What the network does to packets. Chances are in parts per million.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// Dropped.
    pub loss: u32,
    /// Delivered twice, the second time later.
    pub duplicate: u32,
    /// Held back so long that later packets overtake it.
    pub reorder: u32,
    /// Bits flipped, or replaced by garbage.
    pub corrupt: u32,
    /// Every packet's way, in nanoseconds.
    pub latency: Nanos,
    /// Added at random, up to this.
    pub jitter: Nanos,
    /// The time a packet occupies the line.
    pub spacing: Nanos,
    /// Packets that may wait for the line in one direction; more are dropped. 0 is unlimited.
    pub queue: u32,
}

impl Faults {
    /// A perfect network with one microsecond each way.
    pub const NONE: Faults = Faults {
        loss: 0,
        duplicate: 0,
        reorder: 0,
        corrupt: 0,
        latency: 1000,
        jitter: 0,
        spacing: 0,
        queue: 0,
    };
}

/// A packet under way, ordered by arrival, then by dispatch.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Flight {
    at: Nanos,
    serial: u64,
    to: usize,
    bytes: Vec<u8>,
}

/// Packets under way.
pub struct Network {
    /// What befalls packets.
    pub faults: Faults,
    rng: Rng,
    flights: BinaryHeap<Reverse<Flight>>,
    serial: u64,
    /// When the line to each endpoint is free.
    free_at: Vec<Nanos>,
    /// Buffers of packets that arrived, to be used again.
    spare: Vec<Vec<u8>>,
    /// Packets handed in.
    pub offered: u64,
    /// Packets dropped for any reason.
    pub lost: u64,
}

impl Network {
    /// A network to `endpoints` endpoints.
    pub fn new(faults: Faults, seed: u64, endpoints: usize) -> Network {
        Network {
            faults,
            rng: Rng::new(seed),
            flights: BinaryHeap::new(),
            serial: 0,
            free_at: vec![0; endpoints],
            spare: Vec::new(),
            offered: 0,
            lost: 0,
        }
    }

    /// Takes a packet to endpoint `to`.
    pub fn send(&mut self, now: Nanos, to: usize, packet: &[u8]) {
        self.offered += 1;
        let faults = self.faults;
        let free_at = self.free_at[to].max(now);
        let waiting = (free_at - now).checked_div(faults.spacing).unwrap_or(0);
        if faults.queue > 0 && waiting >= u64::from(faults.queue) {
            self.lost += 1;
            return;
        }
        let departure = free_at + faults.spacing;
        self.free_at[to] = departure;
        if self.rng.chance(faults.corrupt) {
            self.lost += 1;
            self.corrupt(packet);
            return;
        }
        if self.rng.chance(faults.loss) {
            self.lost += 1;
            return;
        }
        let copies = if self.rng.chance(faults.duplicate) { 2 } else { 1 };
        for _ in 0..copies {
            let mut at = departure + faults.latency;
            if faults.jitter > 0 {
                at += self.rng.below(faults.jitter);
            }
            if self.rng.chance(faults.reorder) {
                at += self.rng.range(1, 8 * (faults.latency + faults.spacing).max(1));
            }
            self.deliver_at(at, to, packet);
        }
    }

    /// Delivers a packet at a given time, whatever the faults.
    pub fn deliver_at(&mut self, at: Nanos, to: usize, packet: &[u8]) {
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.clear();
        bytes.extend_from_slice(packet);
        self.serial += 1;
        self.flights.push(Reverse(Flight { at, serial: self.serial, to, bytes }));
    }

    /// When the next packet arrives.
    pub fn next(&self) -> Option<Nanos> {
        self.flights.peek().map(|Reverse(flight)| flight.at)
    }

    /// The next packet that has arrived by `now`, and where.
    pub fn receive(&mut self, now: Nanos) -> Option<(usize, Vec<u8>)> {
        if self.next()? > now {
            return None;
        }
        self.flights.pop().map(|Reverse(flight)| (flight.to, flight.bytes))
    }

    /// Takes a buffer back.
    pub fn recycle(&mut self, bytes: Vec<u8>) {
        self.spare.push(bytes);
    }

    /// What a receiver makes of a damaged packet: nothing. Parsing must survive it, and the ICRC must find it.
    fn corrupt(&mut self, packet: &[u8]) {
        if self.rng.one_in(2) {
            let len = self.rng.below(packet.len() as u64 + 8) as usize;
            let mut garbage = self.rng.bytes(len);
            // Half of the garbage keeps a valid beginning, so that parsing goes deeper.
            if self.rng.one_in(2) {
                let keep = len.min(packet.len()).min(12);
                garbage[..keep].copy_from_slice(&packet[..keep]);
            }
            let parsed = Packet::parse(&garbage);
            std::hint::black_box(parsed.map(|packet| packet.payload().len()).ok());
            return;
        }
        let flow = Flow::v4(Ipv4Addr::LOCALHOST, UDP_PORT, Ipv4Addr::LOCALHOST, UDP_PORT);
        let mut sealed = packet.to_vec();
        sealed.extend([0; ICRC_LEN]);
        flow.seal(0, &mut sealed);
        let bit = self.rng.below(sealed.len() as u64 * 8) as usize;
        sealed[bit / 8] ^= 1 << (bit % 8);
        // Byte 4 carries the congestion bits, which the ICRC leaves out.
        let found = flow.verify(0, &sealed).is_none();
        assert!(found || bit / 8 == 4, "the ICRC missed a flipped bit");
    }
}
