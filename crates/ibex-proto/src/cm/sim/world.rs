//! Engines on a network that loses, doubles, delays and so reorders datagrams, in virtual time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use ibex_wire::mad::{Gid, Guid, MAD_LEN, PortSpace, ServiceId};
use ibex_wire::{Mtu, Psn, Qpn};

use super::ledger::{Ledger, Phase};
use crate::Nanos;
use crate::cm::{Cm, CmConfig, ConnId, ConnectParams, Event, Path, Transmit};
use crate::sim::Rng;

/// What the network does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Faults {
    /// Datagrams lost, doubled, of a million.
    pub(super) loss: u32,
    pub(super) double: u32,
    /// The longest a datagram is under way. Below the lifetime that paths promise (0.27 s), on which TIMEWAIT relies.
    pub(super) delay: Nanos,
}

/// A datagram under way, ordered by arrival.
type Flight = Reverse<(Nanos, u64, usize, usize, Box<[u8; MAD_LEN]>)>;

/// One engine and its books.
pub(super) struct Site {
    pub(super) cm: Cm,
    pub(super) gid: Gid,
    pub(super) ledger: Ledger,
    /// Events not yet looked at by the host.
    pub(super) inbox: Vec<Event>,
    next_qpn: u32,
}

pub(super) struct World {
    pub(super) sites: Vec<Site>,
    pub(super) now: Nanos,
    pub(super) faults: Faults,
    pub(super) rng: Rng,
    flights: BinaryHeap<Flight>,
    sent: u64,
}

/// The service everybody offers.
pub(super) const SERVICE: ServiceId = ServiceId::ip(PortSpace::IB, 7);

/// The address of a site.
fn address(site: usize) -> Gid {
    Gid::from(std::net::IpAddr::from([10, 0, 0, site as u8 + 1]))
}

impl World {
    pub(super) fn new(sites: usize, faults: Faults, rng: Rng, tune: impl Fn(&mut CmConfig)) -> World {
        let site = |index: usize| {
            let mut config = CmConfig::new(index as u16, [index as u64, 7], Guid(index as u64 + 1));
            tune(&mut config);
            Site {
                cm: Cm::new(config),
                gid: address(index),
                ledger: Ledger::default(),
                inbox: Vec::new(),
                next_qpn: 0x100,
            }
        };
        World {
            sites: (0..sites).map(site).collect(),
            now: 1_000_000_000,
            faults,
            rng,
            flights: BinaryHeap::new(),
            sent: 0,
        }
    }

    /// A request from one site to another that carries `token` wherever it can.
    pub(super) fn connect(&mut self, from: usize, to: usize, token: u64) -> ConnectParams {
        let path = Path::new(self.sites[from].gid, self.sites[to].gid, Mtu::Mtu1024);
        let mut params = ConnectParams::new(path, SERVICE, self.new_qpn(from), psn_of(token));
        params.private = token.to_be_bytes().to_vec();
        // IB services of IP ports have a header too.
        params.cma = Some(ibex_wire::mad::CmaHeader {
            src_port: token as u16,
            src: path.local.ip(),
            dst: path.remote.ip(),
        });
        params
    }

    /// A queue pair number that was not used before at this site.
    pub(super) fn new_qpn(&mut self, site: usize) -> Qpn {
        let next = &mut self.sites[site].next_qpn;
        *next += 1;
        Qpn::new(*next)
    }

    /// Takes what an engine has to say: datagrams go under way, events into the books and the inbox. Call it after
    /// each command.
    pub(super) fn collect(&mut self, site: usize) {
        while let Some(Transmit { local, remote, mad }) = self.sites[site].cm.poll_transmit() {
            assert_eq!(local, self.sites[site].gid, "an engine speaks for itself only");
            let Some(to) = self.sites.iter().position(|site| site.gid == remote) else { continue };
            self.fly(site, to, mad);
        }
        while let Some(event) = self.sites[site].cm.poll_event() {
            let site = &mut self.sites[site];
            match &event {
                Event::Request { conn, request, .. } => {
                    let token = request.private.first_chunk().map_or(0, |token| u64::from_be_bytes(*token));
                    site.ledger.open(*conn, Phase::Asked, token);
                }
                Event::Reply { conn, .. }
                | Event::Established { conn, .. }
                | Event::Delayed { conn, .. }
                | Event::Rejected { conn, .. }
                | Event::Unreachable { conn, .. }
                | Event::DisconnectRequested { conn, .. }
                | Event::Disconnected { conn, .. }
                | Event::TimewaitExit { conn } => site.ledger.enter(*conn, &event),
                Event::SidrRequest { .. } | Event::SidrReply { .. } | Event::SidrUnreachable { .. } => {}
            }
            site.inbox.push(event);
        }
        let site = &self.sites[site];
        for &conn in site.ledger.ends.keys() {
            let state = site.cm.state(conn);
            assert!(site.ledger.agrees(conn, state), "{:?} and {state:?}", site.ledger.ends[&conn]);
        }
    }

    /// Gives a datagram to the network.
    pub(super) fn fly(&mut self, from: usize, to: usize, mad: [u8; MAD_LEN]) {
        let Faults { loss, double, delay } = self.faults;
        if self.rng.chance(loss) {
            return;
        }
        let copies = if self.rng.chance(double) { 2 } else { 1 };
        for _ in 0..copies {
            let at = self.now + self.rng.range(1_000, delay.max(1_000));
            self.sent += 1;
            self.flights.push(Reverse((at, self.sent, from, to, Box::new(mad))));
        }
    }

    /// The time of the next arrival or timer.
    pub(super) fn next(&self) -> Option<Nanos> {
        let arrival = self.flights.peek().map(|Reverse(flight)| flight.0);
        let timer = self.sites.iter().filter_map(|site| site.cm.poll_timeout()).min();
        [arrival, timer].into_iter().flatten().min()
    }

    /// Moves time to `until`, handling everything on the way.
    pub(super) fn advance(&mut self, until: Nanos) {
        while let Some(at) = self.next().filter(|&at| at <= until) {
            self.now = self.now.max(at);
            while let Some(Reverse((_, _, from, to, mad))) = self.arrived() {
                let (now, from) = (self.now, self.sites[from].gid);
                let site = &mut self.sites[to];
                site.cm.handle_mad(now, from, site.gid, Qpn::GSI, &mad[..]);
                self.collect(to);
            }
            for site in 0..self.sites.len() {
                if self.sites[site].cm.poll_timeout().is_some_and(|at| at <= self.now) {
                    self.sites[site].cm.handle_timeout(self.now);
                    let next = self.sites[site].cm.poll_timeout();
                    assert!(next.is_none_or(|at| at > self.now), "a timer that does not run out");
                    self.collect(site);
                }
            }
        }
        self.now = self.now.max(until);
    }

    /// A datagram whose time has come.
    fn arrived(&mut self) -> Option<Flight> {
        let due = self.flights.peek().is_some_and(|Reverse(flight)| flight.0 <= self.now);
        if due { self.flights.pop() } else { None }
    }

    /// A datagram under way, as it is; for forgers.
    pub(super) fn pick_flight(&mut self) -> Option<(usize, usize, [u8; MAD_LEN])> {
        self.flights.peek().map(|Reverse((_, _, from, to, mad))| (*from, *to, **mad))
    }

    /// Loses the next datagram.
    pub(super) fn lose(&mut self) {
        self.flights.pop();
    }

    /// Whether nothing is left anywhere.
    pub(super) fn is_idle(&self) -> bool {
        self.flights.is_empty() && self.sites.iter().all(|site| site.cm.is_idle() && site.inbox.is_empty())
    }

    /// The host lets go of every connection it still has.
    pub(super) fn release_all(&mut self) {
        for site in 0..self.sites.len() {
            let mut held: Vec<ConnId> = self.sites[site]
                .ledger
                .ends
                .iter()
                .filter(|(_, end)| end.phase != Phase::Gone)
                .map(|(&conn, _)| conn)
                .collect();
            held.sort();
            for conn in held {
                self.release(site, conn);
            }
        }
    }

    pub(super) fn release(&mut self, site: usize, conn: ConnId) {
        let end = self.sites[site].ledger.end(conn);
        end.phase = Phase::Gone;
        end.meddled = true;
        let now = self.now;
        self.sites[site].cm.release(now, conn);
        self.collect(site);
    }
}

/// The first sequence number that an end with this token expects.
pub(super) fn psn_of(token: u64) -> Psn {
    Psn::new(token.wrapping_mul(0x9e37_79b9) as u32)
}
