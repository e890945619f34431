//! Any bytes as a script: commands in any state, forged and mutilated datagrams, accidents, time.
//!
//! The books are kept as in a run: events come in order, commands that the books allow succeed, and when every host lets go
//! the engines forget everything.

use ibex_wire::mad::{MAD_LEN, Private};
use ibex_wire::{Psn, Qkey, Qpn};

use super::ledger::Phase;
use super::world::{Faults, SERVICE, World};
use crate::cm::{
    CmError, ConnId, Event, ListenParams, Path, RejectParams, ReplyParams, SidrId, SidrParams,
    SidrReplyParams,
};
use crate::sim::Rng;

/// Bytes, taken from the front; zeros when there are none left.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((byte, rest)) => {
                self.0 = rest;
                *byte
            }
            None => 0,
        }
    }

    fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n
    }

    fn take(&mut self, len: usize) -> &[u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// Plays a script with two engines.
///
/// # Panics
///
/// Something happened that must not, whatever the script.
pub fn play(script: &[u8]) {
    let mut script = Script(script);
    let faults = Faults { loss: 0, double: 0, delay: 1_000_000 };
    let mut world = World::new(2, faults, Rng::new(1), |config| {
        config.max_connections = 16;
        config.max_timewait = 3;
    });
    for site in &mut world.sites {
        site.ledger.forgers = true;
        site.cm
            .listen(&ListenParams { service: SERVICE, local: None, backlog: 4 })
            .expect("nobody else does");
    }
    let mut conns: Vec<(usize, ConnId)> = Vec::new();
    let mut sidrs: Vec<(usize, SidrId)> = Vec::new();
    let mut token = 0;
    while !script.0.is_empty() {
        match script.byte() % 8 {
            0 => {
                token += 1;
                call(&mut world, &mut script, token, &mut conns, &mut sidrs);
            }
            1..=3 => command(&mut world, &mut script, &conns),
            4 => resolve(&mut world, &mut script, &sidrs),
            5 => forge(&mut world, &mut script),
            6 => match script.byte() % 4 {
                0 => world.lose(),
                // The next datagram once more.
                _ => {
                    if let Some((from, to, mad)) = world.pick_flight() {
                        world.fly(from, to, mad);
                    }
                }
            },
            // Up to 2^36 ns, a minute.
            _ => world.advance(world.now + (1 << (script.byte() % 37))),
        }
        for site in 0..world.sites.len() {
            for event in std::mem::take(&mut world.sites[site].inbox) {
                match event {
                    Event::Request { conn, .. } => conns.push((site, conn)),
                    Event::SidrRequest { sidr, .. } => sidrs.push((site, sidr)),
                    _ => {}
                }
            }
            let held = world.sites[site].ledger.ends.values().filter(|end| end.phase != Phase::Gone).count();
            assert!(held <= 16, "more connections than there may be");
        }
    }
    let end = world.now + 3_600_000_000_000;
    loop {
        // Also requests that were still under way.
        world.release_all();
        for site in 0..world.sites.len() {
            for event in std::mem::take(&mut world.sites[site].inbox) {
                if let Event::SidrRequest { sidr, .. } = event {
                    sidrs.push((site, sidr));
                }
            }
        }
        for (site, sidr) in sidrs.drain(..) {
            let now = world.now;
            world.sites[site].cm.sidr_release(now, sidr);
            world.collect(site);
        }
        match world.next() {
            Some(next) if next < end => world.advance(next),
            _ => break,
        }
    }
    assert!(world.is_idle(), "something is left");
}

fn call(
    world: &mut World,
    script: &mut Script<'_>,
    token: u64,
    conns: &mut Vec<(usize, ConnId)>,
    sidrs: &mut Vec<(usize, SidrId)>,
) {
    let (from, to, kind) = (script.below(2), script.below(2), script.byte());
    let mut params = world.connect(from, to, token);
    if kind & 1 != 0 {
        // A queue pair that may be in use already.
        params.qpn = Qpn::new(u32::from(kind >> 4));
    }
    if kind & 2 != 0 {
        params.max_cm_retries = kind >> 6;
        params.remote_response_timeout = kind >> 3;
        params.local_response_timeout = kind >> 3;
    }
    let now = world.now;
    let Path { .. } = params.path;
    if kind & 4 != 0 {
        let mut asked = SidrParams::new(params.path, SERVICE);
        asked.cma = params.cma;
        if let Ok(sidr) = world.sites[from].cm.sidr_request(now, &asked) {
            sidrs.push((from, sidr));
        }
    } else {
        match world.sites[from].cm.connect(now, &params) {
            Ok(conn) => {
                world.sites[from].ledger.open(conn, Phase::Calling, token);
                conns.push((from, conn));
            }
            Err(error) => assert_eq!(error, CmError::TooMany(16)),
        }
    }
    world.collect(from);
}

/// Any command on any connection there ever was. It succeeds exactly if the books allow it.
fn command(world: &mut World, script: &mut Script<'_>, conns: &[(usize, ConnId)]) {
    use Phase::{Accepted, Asked, Ending, Established, Gone, Over, PeerEnding, Replied};
    if conns.is_empty() {
        return;
    }
    let (site, conn) = conns[script.below(conns.len())];
    let now = world.now;
    let Some(end) = world.sites[site].ledger.ends.get(&conn) else { return };
    let phase = end.phase;
    let qpn = Qpn::new(u32::from(script.byte()));
    let cm = &mut world.sites[site].cm;
    let (done, allowed, next) = match script.byte() % 9 {
        0 => (cm.taken(conn), phase != Gone, phase),
        1 => (cm.mra(now, conn, 3, b"wait"), matches!(phase, Asked | Replied), phase),
        2 => {
            let mut params = ReplyParams::new(qpn, Psn::new(5));
            params.private = Private::new(b"yes").expect("3 of 196");
            (cm.reply(now, conn, &params), phase == Asked, Accepted)
        }
        3 => {
            let allowed = matches!(phase, Asked | Replied | Accepted);
            (cm.reject(now, conn, &RejectParams::consumer(b"no")), allowed, Gone)
        }
        4 => (cm.ready(now, conn, b"go"), phase == Replied, Established),
        5 => (cm.communication_established(now, conn), matches!(phase, Accepted | Established), phase),
        6 => {
            // A stale connection is being ended already.
            let stale = phase == Established && cm.state(conn) != Some(crate::cm::ConnState::Established);
            let allowed = matches!(phase, Accepted | Established | PeerEnding) && !stale;
            (cm.disconnect(now, conn, b"end"), allowed, Ending)
        }
        7 => {
            cm.release(now, conn);
            (Ok(()), true, Gone)
        }
        _ => {
            let done = cm.attributes(conn).map(|_| ());
            (done, !matches!(phase, Gone | Phase::Calling), phase)
        }
    };
    let stale = phase == Established && matches!(done, Err(CmError::State { .. }));
    assert!(done.is_ok() == allowed || stale, "{done:?} in {phase:?}");
    if done.is_ok() && phase != Over || next == Gone && done.is_ok() {
        world.sites[site].ledger.end(conn).phase = next;
    }
    world.collect(site);
}

fn resolve(world: &mut World, script: &mut Script<'_>, sidrs: &[(usize, SidrId)]) {
    if sidrs.is_empty() {
        return;
    }
    let (site, sidr) = sidrs[script.below(sidrs.len())];
    let (now, kind) = (world.now, script.byte());
    let cm = &mut world.sites[site].cm;
    let params = SidrReplyParams {
        status: ibex_wire::mad::SidrStatus(kind),
        qpn: Qpn::new(1),
        qkey: Qkey(2),
        private: vec![3; usize::from(kind)],
    };
    // Of those asked, of those to be answered, of those long gone: all are taken.
    let _ = match kind % 3 {
        0 => cm.sidr_reply(now, sidr, &params),
        1 => cm.sidr_taken(sidr),
        _ => {
            cm.sidr_release(now, sidr);
            Ok(())
        }
    };
    world.collect(site);
}

/// The next datagram with some bytes changed, sent in addition to it; or bytes from nowhere.
fn forge(world: &mut World, script: &mut Script<'_>) {
    let kind = script.byte();
    let (from, to, mut mad) = match world.pick_flight() {
        Some(flight) if kind & 1 == 0 => flight,
        _ => {
            let mut mad = [0; MAD_LEN];
            let taken = script.take(usize::from(kind));
            mad[..taken.len()].copy_from_slice(taken);
            if kind & 2 == 0 {
                // Not to stop at the header every time.
                mad[..4].copy_from_slice(&[1, 7, 2, 3]);
                mad[17] = 0x10 + mad[17] % 11;
            }
            (script.below(2), script.below(2), mad)
        }
    };
    for _ in 0..kind >> 5 {
        mad[script.below(MAD_LEN)] = script.byte();
    }
    world.fly(from, to, mad);
}
