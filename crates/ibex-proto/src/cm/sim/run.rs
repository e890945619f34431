//! Random worlds: hosts that call, think, accept, refuse, end and let go; what must be true of it afterwards.

use std::collections::HashMap;

use ibex_wire::mad::{Private, SidrStatus};
use ibex_wire::{Mtu, Qkey, Qpn};

use super::ledger::{End, Phase};
use super::world::{Faults, SERVICE, World, psn_of};
use crate::Nanos;
use crate::cm::{
    Attributes, ConnId, Event, ListenParams, Path, RejectParams, ReplyParams, SidrId, SidrParams,
    SidrReplyParams,
};
use crate::sim::Rng;

/// What happened in a run.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Report {
    /// Connections asked for.
    pub calls: u64,
    /// Connections established at both ends.
    pub connected: u64,
    /// Calls refused.
    pub rejected: u64,
    /// Calls without any answer.
    pub unreachable: u64,
    /// Resolutions asked for.
    pub resolutions: u64,
    /// Resolutions answered.
    pub resolved: u64,
    /// Datagrams sent.
    pub sent: u64,
    /// How long it took in the world, in nanoseconds.
    pub time: Nanos,
}

/// What a host will do later.
#[derive(Clone, Copy, Debug)]
enum Plan {
    Answer(ConnId),
    Ready(ConnId),
    Agree(ConnId),
    End(ConnId),
    /// After a reply: think again.
    Regret(ConnId),
    Resolve(SidrId, u64),
}

struct Run {
    world: World,
    plans: Vec<(Nanos, usize, Plan)>,
    report: Report,
    /// Resolutions asked for and not yet answered, with what the answer carries.
    asking: HashMap<(usize, SidrId), u64>,
    token: u64,
    /// How rough hosts are, of a million.
    rough: u32,
    slow: Nanos,
    /// Nothing happens that could prevent a connection.
    gentle: bool,
}

/// Plays one world.
///
/// # Panics
///
/// Something happened that must not; the seed repeats it.
pub fn run(seed: u64) -> Report {
    let mut rng = Rng::new(seed);
    let loss = rng.pick(&[0, 0, 10_000, 100_000, 300_000]);
    let double = rng.pick(&[0, 10_000, 200_000]);
    let delay = rng.pick(&[10_000, 1_000_000, 200_000_000]);
    let sites = rng.range(1, 3) as usize;
    let fast = rng.pick(&[0, 1_000_000, 100_000_000]);
    let few = rng.one_in(4);
    let backlog = rng.pick(&[1, 4, 1000]);
    let rough = rng.pick(&[0, 50_000, 300_000]);
    let slow = rng.pick(&[1_000, 50_000_000, 10_000_000_000]);
    let calls = rng.range(1, 60);
    let mut world = World::new(sites, Faults { loss, double, delay }, rng, |config| {
        config.fast_retry = fast;
        if few {
            config.max_timewait = 2;
        }
    });
    for site in &mut world.sites {
        let local = Some(site.gid).filter(|_| backlog == 4);
        let params = ListenParams { service: SERVICE, local, backlog };
        site.cm.listen(&params).expect("nobody else does");
        assert!(site.cm.listen(&params).is_err());
    }
    let start = world.now;
    let mut run = Run {
        world,
        plans: Vec::new(),
        report: Report::default(),
        asking: HashMap::new(),
        token: 0,
        rough,
        slow,
        // A tenth lost: that sixteen exchanges in a row fail does not happen.
        gentle: loss <= 100_000 && rough == 0 && backlog == 1000,
    };
    for _ in 0..calls {
        run.call();
        let pause = run.world.rng.range(0, 20_000_000);
        run.advance(run.world.now + pause);
    }
    run.finish(start)
}

impl Run {
    /// Somebody asks somebody.
    fn call(&mut self) {
        let sites = self.world.sites.len() as u64;
        let (from, to) = (self.world.rng.below(sites) as usize, self.world.rng.below(sites) as usize);
        self.token += 1;
        let (now, token) = (self.world.now, self.token);
        if self.world.rng.one_in(5) {
            let path = Path::new(self.world.sites[from].gid, self.world.sites[to].gid, Mtu::Mtu4096);
            let mut params = SidrParams::new(path, SERVICE);
            params.cma =
                Some(ibex_wire::mad::CmaHeader { src_port: 1, src: path.local.ip(), dst: path.remote.ip() });
            params.private = token.to_be_bytes().to_vec();
            let sidr = self.world.sites[from].cm.sidr_request(now, &params).expect("there is room");
            self.asking.insert((from, sidr), token);
            self.report.resolutions += 1;
        } else {
            let params = self.world.connect(from, to, token);
            let conn = self.world.sites[from].cm.connect(now, &params).expect("there is room");
            self.world.sites[from].ledger.open(conn, Phase::Calling, token);
            self.report.calls += 1;
        }
        self.world.collect(from);
    }

    /// Moves time to `until`; hosts do what they planned at its time.
    fn advance(&mut self, until: Nanos) {
        loop {
            self.read_events();
            let planned = self.plans.iter().map(|plan| plan.0).min();
            let next = [planned, self.world.next()].into_iter().flatten().min();
            let Some(next) = next.filter(|&next| next <= until) else { break };
            self.world.advance(next.max(self.world.now));
            self.read_events();
            while let Some(index) = self.plans.iter().position(|plan| plan.0 <= self.world.now) {
                let (_, site, plan) = self.plans.swap_remove(index);
                self.carry_out(site, plan);
                self.world.collect(site);
                self.read_events();
            }
        }
        self.world.advance(until);
        self.read_events();
    }

    fn plan(&mut self, site: usize, plan: Plan) {
        let think = self.world.rng.range(0, self.slow);
        self.plans.push((self.world.now + think, site, plan));
    }

    fn read_events(&mut self) {
        for site in 0..self.world.sites.len() {
            for event in std::mem::take(&mut self.world.sites[site].inbox) {
                self.read(site, event);
            }
        }
    }

    fn read(&mut self, site: usize, event: Event) {
        match event {
            Event::Request { conn, request, .. } => {
                let token = self.world.sites[site].ledger.end(conn).token;
                assert_eq!(request.starting_psn, psn_of(token));
                assert_eq!(request.cma.map(|cma| cma.src_port), Some(token as u16));
                assert_eq!((request.private.len(), request.path.local), (56, self.world.sites[site].gid));
                if self.world.rng.one_in(2) {
                    let taken = self.world.sites[site].cm.taken(conn);
                    assert!(taken.is_ok() || self.is_over(site, conn), "{taken:?}");
                }
                self.plan(site, Plan::Answer(conn));
            }
            Event::Reply { conn, reply } => {
                let token = self.world.sites[site].ledger.end(conn).token;
                assert_eq!(reply.private[..8], (token + 1).to_be_bytes());
                assert_eq!(reply.starting_psn, psn_of(token + 1));
                if let Some(attributes) = self.attributes(site, conn) {
                    assert_eq!(attributes.sq_psn, psn_of(token + 1));
                    assert_eq!((attributes.rq_psn, attributes.remote_qpn), (psn_of(token), reply.remote_qpn));
                }
                self.plan(site, Plan::Ready(conn));
            }
            Event::Established { conn, private } => {
                let token = self.world.sites[site].ledger.end(conn).token;
                if let Some(private) = private {
                    assert_eq!(private[..8], (token + 2).to_be_bytes());
                }
                if let Some(attributes) = self.attributes(site, conn) {
                    assert_eq!((attributes.sq_psn, attributes.rq_psn), (psn_of(token), psn_of(token + 1)));
                }
                self.plan(site, Plan::End(conn));
            }
            Event::DisconnectRequested { conn, .. } => {
                self.plan(site, Plan::Agree(conn));
            }
            Event::SidrRequest { sidr, request, .. } => {
                let token = request.private.first_chunk().map_or(0, |token| u64::from_be_bytes(*token));
                self.plan(site, Plan::Resolve(sidr, token));
            }
            Event::SidrReply { sidr, reply } => {
                let token = self.asking.remove(&(site, sidr)).expect("asked, and answered once");
                if reply.status == SidrStatus::SUCCESS {
                    self.report.resolved += 1;
                    assert_eq!(reply.qkey, Qkey(7));
                    assert_eq!(reply.private[..8], token.to_be_bytes());
                }
            }
            Event::SidrUnreachable { sidr } => {
                self.asking.remove(&(site, sidr)).expect("asked, and answered once");
            }
            Event::Rejected { .. }
            | Event::Disconnected { .. }
            | Event::Delayed { .. }
            | Event::Unreachable { .. }
            | Event::TimewaitExit { .. } => {}
        }
    }

    /// What the queue pair of a connection of which an event is being read needs; `None` if it is over already.
    fn attributes(&self, site: usize, conn: ConnId) -> Option<Attributes> {
        let attributes = self.world.sites[site].cm.attributes(conn);
        assert!(attributes.is_ok() || self.is_over(site, conn), "{attributes:?}");
        attributes.ok()
    }

    /// Whether the last event of a connection waits behind the one being read: both came at the same instant.
    fn is_over(&self, site: usize, conn: ConnId) -> bool {
        self.phase(site, conn) == Phase::Gone
    }

    /// A host does what it planned, if it is still the thing to do.
    fn carry_out(&mut self, site: usize, plan: Plan) {
        let rough = self.world.rng.chance(self.rough);
        let now = self.world.now;
        match plan {
            Plan::Answer(conn) if self.phase(site, conn) == Phase::Asked => {
                if rough {
                    return self.be_rough(site, conn);
                }
                let qpn = self.world.new_qpn(site);
                let token = self.world.sites[site].ledger.end(conn).token;
                let mut params = ReplyParams::new(qpn, psn_of(token + 1));
                params.private = Private::new(&(token + 1).to_be_bytes()).expect("8 of 196");
                self.world.sites[site].cm.reply(now, conn, &params).expect("it was asked for");
                self.world.sites[site].ledger.end(conn).phase = Phase::Accepted;
                if rough || self.world.rng.chance(self.rough) {
                    self.plan(site, Plan::Regret(conn));
                }
            }
            Plan::Ready(conn) if self.phase(site, conn) == Phase::Replied => {
                if rough {
                    return self.be_rough(site, conn);
                }
                let end = self.world.sites[site].ledger.end(conn);
                (end.phase, end.established) = (Phase::Established, true);
                let private = (end.token + 2).to_be_bytes();
                self.world.sites[site].cm.ready(now, conn, &private).expect("it was replied");
                self.plan(site, Plan::End(conn));
            }
            Plan::Agree(conn) if self.phase(site, conn) == Phase::PeerEnding => {
                if rough {
                    return self.be_rough(site, conn);
                }
                self.world.sites[site].ledger.end(conn).phase = Phase::Ending;
                self.world.sites[site].cm.disconnect(now, conn, b"agreed").expect("the peer asks");
            }
            Plan::End(conn) if self.phase(site, conn) == Phase::Established => {
                if rough {
                    return self.be_rough(site, conn);
                }
                // Unless the engine is at it already.
                if self.world.sites[site].cm.disconnect(now, conn, b"end").is_ok() {
                    let end = self.world.sites[site].ledger.end(conn);
                    (end.phase, end.meddled) = (Phase::Ending, true);
                }
            }
            Plan::Regret(conn) if self.phase(site, conn) == Phase::Accepted => self.regret(site, conn),
            Plan::Resolve(sidr, token) => {
                let site = &mut self.world.sites[site];
                if rough {
                    return site.cm.sidr_release(now, sidr);
                }
                let params = SidrReplyParams {
                    status: SidrStatus::SUCCESS,
                    qpn: Qpn::new(9),
                    qkey: Qkey(7),
                    private: token.to_be_bytes().to_vec(),
                };
                site.cm.sidr_reply(now, sidr, &params).expect("it was asked");
            }
            _ => {}
        }
    }

    /// A host that refuses, ends too early, or lets go.
    fn be_rough(&mut self, site: usize, conn: ConnId) {
        let (now, phase) = (self.world.now, self.phase(site, conn));
        let choice = self.world.rng.below(4);
        let site_of = &mut self.world.sites[site];
        let end = site_of.ledger.end(conn);
        end.meddled = true;
        match (choice, phase) {
            (0, Phase::Asked | Phase::Replied) => {
                end.phase = Phase::Gone;
                let refusal = RejectParams::consumer(b"no");
                site_of.cm.reject(now, conn, &refusal).expect("it may be refused");
            }
            (1, Phase::Asked | Phase::Replied) => {
                site_of.cm.mra(now, conn, 20, b"wait").expect("the peer may be told to wait");
                let plan = if phase == Phase::Asked { Plan::Answer(conn) } else { Plan::Ready(conn) };
                self.plan(site, plan);
            }
            _ => self.world.release(site, conn),
        }
    }

    /// A host whose reply is out, and who does not wait for what comes of it.
    fn regret(&mut self, site: usize, conn: ConnId) {
        let now = self.world.now;
        let choice = self.world.rng.below(4);
        let token = self.world.sites[site].ledger.end(conn).token;
        let ends: Vec<&End> = self.world.sites.iter().flat_map(|site| site.ledger.ends.values()).collect();
        let of_it =
            |calls| ends.iter().any(|end| end.established && (end.calls, end.token) == (calls, token));
        // The caller's data, if it is not meant for an earlier answer to the same request.
        let data_may_come = of_it(true) && !of_it(false);
        let site_of = &mut self.world.sites[site];
        if data_may_come && choice < 2 {
            return site_of.cm.communication_established(now, conn).expect("the reply is out");
        }
        let end = site_of.ledger.end(conn);
        end.meddled = true;
        match choice {
            0 | 1 => {
                end.phase = Phase::Ending;
                site_of.cm.disconnect(now, conn, b"sorry").expect("the reply is out");
            }
            2 => {
                end.phase = Phase::Gone;
                site_of.cm.reject(now, conn, &RejectParams::consumer(b"sorry")).expect("the reply is out");
            }
            _ => self.world.release(site, conn),
        }
    }

    fn phase(&self, site: usize, conn: ConnId) -> Phase {
        self.world.sites[site].ledger.ends.get(&conn).map_or(Phase::Gone, |end| end.phase)
    }

    /// Lets everything come to its end, and looks back.
    fn finish(mut self, start: Nanos) -> Report {
        // Longer than all repetitions of everything: sixteen times the longest timeout, several times in a row.
        let end = self.world.now + 3_600_000_000_000;
        while !self.world.is_idle() || !self.plans.is_empty() {
            assert!(self.world.now < end, "it does not come to an end");
            let planned = self.plans.iter().map(|plan| plan.0).min();
            let next = [planned, self.world.next()].into_iter().flatten().min();
            self.advance(next.expect("who is not idle waits for something").max(self.world.now));
        }
        self.report.time = self.world.now - start;
        self.report.sent = self.world.sites.iter().map(|site| site.cm.counters().sent).sum();
        assert!(self.asking.is_empty(), "resolutions without an answer: {:?}", self.asking);
        self.look_back();
        self.report
    }

    /// Both ends of every connection, side by side.
    fn look_back(&mut self) {
        let mut asked: HashMap<u64, Vec<&End>> = HashMap::new();
        let mut calls = Vec::new();
        for site in &self.world.sites {
            for (conn, end) in &site.ledger.ends {
                assert_eq!(end.phase, Phase::Gone, "{conn:?} {end:?}");
                assert!(end.outcomes == 1 || end.meddled, "no outcome: {conn:?} {end:?}");
                if end.calls { calls.push(end) } else { asked.entry(end.token).or_default().push(end) }
            }
        }
        for call in calls {
            let asked = asked.remove(&call.token).unwrap_or_default();
            let established = asked.iter().filter(|end| end.established).count();
            assert!(established <= 1, "established twice: {asked:?}");
            assert!(established == 0 || call.established, "only one end: {call:?} {asked:?}");
            let excused = |end: &&End| end.established || end.meddled || end.unreachable;
            assert!(!call.established || asked.iter().any(excused), "only one end: {call:?} {asked:?}");
            self.report.connected += established as u64;
            self.report.rejected += u64::from(call.rejected);
            self.report.unreachable += u64::from(call.unreachable && !call.established);
        }
        assert!(asked.is_empty(), "nobody asked for {asked:?}");
        if self.gentle {
            assert_eq!(self.report.connected, self.report.calls, "nothing stood in the way");
            assert_eq!(self.report.resolved, self.report.resolutions, "nothing stood in the way");
        }
    }
}
