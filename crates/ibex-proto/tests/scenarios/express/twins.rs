//! The same requests both ways, side by side: as packets, and by express wherever that is open.
//!
//! Without loss and with a clock that is always read, every packet and every timer must be the same, hence all else. With
//! loss, or timers that begin late, the outcome must be.

use std::collections::VecDeque;

use ibex_proto::sim::{EndConfig, Rng, World, rts};
use ibex_proto::{Clock, Nanos, QpState, SendOp, SendWqe, Tuning};
use ibex_wire::{MAX_PACKET, Packet, Psn};

use super::{Record, acknowledged, deliver_leaving, express_as};
use crate::util::*;

/// What differs between seeds besides what is posted.
#[derive(Clone, Copy, Debug)]
struct Terms {
    config: EndConfig,
    /// Acknowledgements wait for the next message of their end's.
    lazy: bool,
    /// On the express way they are the host's then, which sends them.
    leaves: bool,
    /// Timers are looked at as often, whether or not something is due.
    looks: Option<Nanos>,
    /// Packets lost, in a million, and records.
    loss: u32,
}

/// What leaves one end at once.
enum Batch {
    Packets(Vec<Vec<u8>>),
    Express(Record),
}

/// One of the two worlds.
struct Twin {
    world: World,
    terms: Terms,
    express: bool,
    loss: Rng,
    next_cookie: u64,
    under_way: VecDeque<(usize, Batch)>,
    /// Every packet that was sent, or that a record stands for.
    log: Vec<(usize, Vec<u8>)>,
    /// The acknowledgement that each end's host has to send.
    left: [Option<Vec<u8>>; 2],
    /// Records sent, and of them taken in directly; acknowledgements taken in directly; and left.
    records: u32,
    taken: u32,
    acks: u32,
    lefts: u32,
}

/// The time and the next look in a twin.
struct Now(Nanos, Option<Nanos>);

impl Clock for Now {
    fn now(&self) -> Nanos {
        self.0
    }

    fn next_look(&self) -> Option<Nanos> {
        self.1
    }
}

impl Twin {
    fn new(terms: Terms, express: bool, seed: u64) -> Twin {
        Twin {
            world: pair(terms.config),
            terms,
            express,
            loss: Rng::new(seed ^ u64::from(express)),
            next_cookie: 1,
            under_way: VecDeque::new(),
            log: Vec::new(),
            left: [None, None],
            records: 0,
            taken: 0,
            acks: 0,
            lefts: 0,
        }
    }

    fn clock(&self) -> Now {
        let now = self.world.now;
        Now(now, self.terms.looks.map(|span| (now / span + 1) * span))
    }

    fn post(&mut self, from: usize, wqe: SendWqe, payload: &[u8]) {
        self.next_cookie += 1;
        let wqe = SendWqe { cookie: self.next_cookie, len: payload.len() as u32, ..wqe };
        let clock = self.clock();
        self.send_left(from);
        if self.express
            && let Some(record) = express_as(&mut self.world, from, wqe, payload, &clock)
        {
            self.records += 1;
            self.log.extend(record.unpack().into_iter().map(|bytes| (from, bytes)));
            self.under_way.push_back((1 - from, Batch::Express(record)));
        } else {
            let end = &mut self.world.ends[from];
            if end.qp.post_send(wqe).is_ok() {
                end.host.sends.insert(wqe.cookie, payload.to_vec());
            }
            self.drive(from, false);
        }
        self.carry();
    }

    fn recv(&mut self, end: usize, len: usize) {
        self.next_cookie += 1;
        self.world.ends[end].host.recv_queue.push_back((self.next_cookie, vec![0xee; len]));
    }

    /// Sends what an end's host has to send.
    fn send_left(&mut self, index: usize) {
        if let Some(packet) = self.left[index].take() {
            self.log.push((index, packet.clone()));
            self.under_way.push_back((1 - index, Batch::Packets(vec![packet])));
        }
    }

    /// Takes out of `index` what it has, an acknowledgement excepted that may wait.
    fn drive(&mut self, index: usize, lazily: bool) {
        let now = self.world.now;
        if !lazily || self.world.ends[index].qp.wants_transmit() {
            self.send_left(index);
        }
        let end = &mut self.world.ends[index];
        let mut packets = Vec::new();
        let mut buf = [0; MAX_PACKET];
        while !(lazily && end.qp.owes_only_ack() && !end.qp.wants_request())
            && let Some(sent) = end.qp.poll_transmit(now, &mut end.host, &mut buf)
        {
            packets.push(buf[..sent.len].to_vec());
        }
        while let Some(completion) = end.qp.poll_completion() {
            end.completions.push(completion);
        }
        while let Some(event) = end.qp.poll_event() {
            end.events.push(event);
        }
        if !packets.is_empty() {
            self.log.extend(packets.iter().map(|bytes| (index, bytes.clone())));
            self.under_way.push_back((1 - index, Batch::Packets(packets)));
        }
    }

    /// Delivers what is under way, and what that brings about.
    fn carry(&mut self) {
        while let Some((to, batch)) = self.under_way.pop_front() {
            let clock = self.clock();
            let direct = match batch {
                Batch::Express(_) if self.loss.chance(self.terms.loss) => true,
                Batch::Express(record) => {
                    let place = &mut self.left[to];
                    let was = place.is_some();
                    let left = self.terms.leaves.then_some(&mut *place);
                    let direct = deliver_leaving(&mut self.world, to, &record, &clock, left);
                    self.lefts += u32::from(place.is_some() && !was);
                    direct
                }
                Batch::Packets(packets) => {
                    for bytes in packets.iter().filter(|_| !self.loss.chance(self.terms.loss)) {
                        let packet = Packet::parse(bytes).expect("sound");
                        if self.express && acknowledged(&mut self.world, to, &packet, &clock) {
                            self.acks += 1;
                            continue;
                        }
                        let end = &mut self.world.ends[to];
                        end.qp.handle_packet(self.world.now, &packet, &mut end.host);
                    }
                    false
                }
            };
            self.taken += u32::from(direct);
            // What was taken in directly leaves nothing but an acknowledgement.
            let leaves = self.world.ends[to].completions.len();
            self.drive(to, self.terms.lazy);
            assert!(!direct || self.world.ends[to].completions.len() == leaves, "a completion came late");
        }
    }

    /// Has everything sent, and all that follows from it.
    fn settle(&mut self) {
        loop {
            for end in [A, B] {
                self.drive(end, false);
            }
            if self.under_way.is_empty() {
                return;
            }
            self.carry();
        }
    }

    /// Lets time pass up to `to`, and happen what is due.
    fn advance(&mut self, to: Nanos) {
        loop {
            let due = self.world.ends.iter().filter_map(|end| end.qp.poll_timeout()).min();
            let look = self.clock().1;
            let Some(next) = due.into_iter().chain(look).min().filter(|next| *next <= to) else { break };
            self.world.now = next.max(self.world.now);
            for end in [A, B] {
                let qp = &mut self.world.ends[end].qp;
                if look.is_some_and(|look| look <= next) || qp.poll_timeout().is_some_and(|due| due <= next) {
                    qp.handle_timeout(self.world.now);
                    self.drive(end, self.terms.lazy);
                }
            }
            self.carry();
        }
        self.world.now = to;
    }

    /// Lets happen whatever is to happen.
    fn finish(&mut self) {
        self.settle();
        for _ in 0..100_000 {
            let Some(due) = self.world.ends.iter().filter_map(|end| end.qp.poll_timeout()).min() else {
                return;
            };
            self.advance(due.max(self.world.now));
            self.settle();
        }
        panic!("still busy after so many steps");
    }
}

/// One thing that happens in both worlds. With `exact`, no READs and atomics: when their data take turns with requests
/// depends on how many packets there were. And time passes in small steps, for measured round trips to be too short
/// to matter: which packets are measured differs.
fn step(rng: &mut Rng, twins: &mut [Twin; 2], exact: bool) {
    let from = rng.below(2) as usize;
    match rng.below(20) {
        0..=9 => {
            let op = match rng.below(if exact { 14 } else { 16 }) {
                0 => SendOp::Send { imm: Some([7; 4]), inv: None },
                1 => write(rng.below(64) * 8),
                2 => SendOp::Write { rkey: KEY, va: va(8), imm: Some([9; 4]) },
                14 => read(rng.below(64) * 8),
                15 => add(rng.below(64) * 8, 3),
                _ => SendOp::Send { imm: None, inv: None },
            };
            let len = match rng.below(8) {
                0 if !matches!(op, SendOp::FetchAdd { .. }) => rng.below(900),
                1 => 256,
                2 => rng.below(5),
                _ => rng.below(257),
            };
            let len = if matches!(op, SendOp::FetchAdd { .. }) { 8 } else { len };
            let payload = rng.bytes(len as usize);
            let (signaled, fence, solicited) = (rng.one_in(2), rng.one_in(8), rng.one_in(2));
            let wqe = SendWqe { cookie: 0, op, len: 0, signaled, fence, solicited };
            twins.iter_mut().for_each(|twin| twin.post(from, wqe, &payload));
        }
        10..=15 => {
            let many = 1 + rng.below(3);
            twins.iter_mut().for_each(|twin| (0..many).for_each(|_| twin.recv(from, 1024)));
        }
        16 | 17 => {
            let span = if exact { rng.below(20_000) } else { rng.below(3_000_000) };
            twins.iter_mut().for_each(|twin| twin.advance(twin.world.now + span));
        }
        18 => {
            twins.iter_mut().for_each(Twin::settle);
        }
        // Drained and begun again.
        _ if rng.one_in(20) => {
            for twin in &mut *twins {
                if twin.world.ends[from].qp.to_sqd(true).is_ok() {
                    twin.settle();
                }
            }
            for twin in &mut *twins {
                if twin.world.ends[from].qp.resume().is_ok() {
                    twin.settle();
                }
            }
        }
        _ => {}
    }
}

fn same_packets(seed: u64, [usual, express]: &[Twin; 2]) {
    for (number, (one, other)) in usual.log.iter().zip(&express.log).enumerate() {
        assert_eq!(one, other, "packet {number} of seed {seed}, {:?}", usual.terms);
    }
    assert_eq!(usual.log.len(), express.log.len(), "seed {seed}");
}

/// What must be the same whatever happened to single packets.
fn same_outcome(seed: u64, [usual, express]: &[Twin; 2]) {
    for (index, (one, other)) in usual.world.ends.iter().zip(&express.world.ends).enumerate() {
        let what = format!("end {index} of seed {seed}, {:?}", usual.terms);
        assert_eq!(one.sends(), other.sends(), "{what}");
        assert_eq!(one.recvs(), other.recvs(), "{what}");
        // When a queue is drained depends on what was lost, and on when probes are sent.
        assert!(usual.terms.loss > 0 || usual.terms.looks.is_some() || one.events == other.events, "{what}");
        assert_eq!(one.qp.state(), other.qp.state(), "{what}");
        let numbers = |qp: &ibex_proto::Qp| [qp.sq_psn(), qp.rq_psn()];
        assert_eq!(numbers(&one.qp), numbers(&other.qp), "{what}");
        assert!(one.host.recv_taken == other.host.recv_taken, "received bytes: {what}");
        assert!(one.host.recv_queue == other.host.recv_queue, "receive queues: {what}");
        // A READ whose answer is lost may find what came behind it.
        assert!(usual.terms.loss > 0 || one.host.sends == other.host.sends, "bytes read: {what}");
        assert!(one.host.memory == other.host.memory, "bytes written: {what}");
        assert_eq!(one.host.placed, other.host.placed, "{what}");
        for qp in [&one.qp, &other.qp] {
            assert_eq!((qp.is_idle(), qp.wants_transmit(), qp.poll_timeout()), (true, false, None), "{what}");
        }
    }
}

fn terms(rng: &mut Rng) -> Terms {
    let tuning = Tuning {
        max_window: rng.pick(&[2, 4, 16, 64]),
        sparse_acks: rng.pick(&[0, 2, 8, 32]),
        ack_every: rng.pick(&[1, 4, 32]),
        ..Tuning::default()
    };
    let config = EndConfig {
        tuning,
        sq_depth: rng.pick(&[2, 8, 64]),
        timeout: Some(50_000_000),
        retry: None,
        rnr_retry: None,
        // The numbers come round.
        psn: Psn::new(rng.pick(&[100, 0xff_fff0])),
        ..EndConfig::default()
    };
    Terms { config, lazy: rng.one_in(2), leaves: false, looks: None, loss: 0 }
}

/// Enough receive requests for all that may still be under way.
fn end(twins: &mut [Twin; 2]) {
    for twin in &mut *twins {
        for end in [A, B] {
            (0..400).for_each(|_| twin.recv(end, 1024));
        }
        twin.finish();
    }
}

#[test]
fn every_packet_and_every_timer_is_that_of_the_usual_way() {
    let (mut records, mut taken, mut acks, mut beside, mut failed) = (0, 0, 0, 0, 0);
    for seed in 0..400 {
        let mut rng = Rng::new(seed);
        let terms = terms(&mut rng);
        let mut twins = [false, true].map(|express| Twin::new(terms, express, seed));
        for _ in 0..200 {
            step(&mut rng, &mut twins, true);
            if rng.one_in(150) {
                // For most messages too short, which ends the connection.
                let end = rng.below(2) as usize;
                twins.iter_mut().for_each(|twin| twin.recv(end, 5));
            }
            let due = |twin: &Twin| [A, B].map(|end| twin.world.ends[end].qp.poll_timeout());
            assert_eq!(due(&twins[0]), due(&twins[1]), "timers of seed {seed}");
            same_packets(seed, &twins);
        }
        end(&mut twins);
        same_packets(seed, &twins);
        same_outcome(seed, &twins);
        for (one, other) in twins[0].world.ends.iter().zip(&twins[1].world.ends) {
            assert_eq!(one.completions, other.completions, "order between the queues, seed {seed}");
            assert_eq!(one.qp.counters(), other.qp.counters(), "seed {seed}");
        }
        records += twins[1].records;
        taken += twins[1].taken;
        acks += twins[1].acks;
        beside += u32::from(terms.lazy) * twins[1].taken;
        failed += u32::from(twins[0].world.ends.iter().any(|end| end.qp.state() == QpState::Err));
    }
    // Neither way may be a rare one.
    assert!(records > 10_000 && taken > records / 4 && taken < records && beside > 1_000);
    assert!(acks > 5_000, "{acks}");
    assert!((20..380).contains(&failed), "{failed} of 400 ended early");
}

#[test]
fn timers_that_begin_late_change_no_outcome() {
    let mut lefts = 0;
    for seed in 1000..1300 {
        let mut rng = Rng::new(seed);
        let mut terms = Terms { looks: Some(rng.pick(&[100_000, 1_000_000, 20_000_000])), ..terms(&mut rng) };
        terms.leaves = terms.lazy && rng.one_in(2);
        // What does not fit is refused, and when depends on when probes are sent.
        terms.config.sq_depth = 512;
        let mut twins = [false, true].map(|express| Twin::new(terms, express, seed));
        (0..200).for_each(|_| step(&mut rng, &mut twins, false));
        end(&mut twins);
        same_outcome(seed, &twins);
        for twin in &twins {
            for end in &twin.world.ends {
                assert_eq!(end.qp.counters().timeouts, 0, "seed {seed}");
            }
        }
        assert!(twins[1].records > 0);
        lefts += twins[1].lefts;
    }
    assert!(lefts > 1_000, "{lefts}");
}

#[test]
fn loss_changes_no_outcome() {
    let mut lefts = 0;
    for seed in 2000..2400 {
        let mut rng = Rng::new(seed);
        let looks = rng.pick(&[None, Some(100_000), Some(1_000_000), Some(20_000_000)]);
        let loss = rng.pick(&[10_000, 100_000, 300_000]);
        let mut terms = Terms { looks, loss, ..terms(&mut rng) };
        terms.leaves = terms.lazy && rng.one_in(2);
        // What does not fit is refused, and when depends on what was lost.
        terms.config.sq_depth = 512;
        let mut twins = [false, true].map(|express| Twin::new(terms, express, seed));
        for _ in 0..100 {
            step(&mut rng, &mut twins, false);
        }
        end(&mut twins);
        same_outcome(seed, &twins);
        lefts += twins[1].lefts;
    }
    assert!(lefts > 100, "{lefts}");
}

/// A queue pair that has begun anew knows nothing of before.
#[test]
fn after_a_reset_it_begins_again() {
    let terms = Terms { config: super::roomy(), lazy: false, leaves: false, looks: Some(1_000_000), loss: 0 };
    let mut twin = Twin::new(terms, true, 1);
    let wqe = SendWqe { signaled: false, ..super::SEND };
    for _ in 0..3 {
        // Nobody has it: the timer is to begin at the look.
        let clock = twin.clock();
        express_as(&mut twin.world, A, wqe, &pattern(10), &clock).expect("free");
        let config = terms.config;
        twin.world.reconnect(
            A,
            &config,
            &EndConfig { psn: Psn::new(0x80_0000), ..config },
            ibex_wire::Mtu::Mtu256,
        );
        assert_eq!(twin.world.ends[A].qp.poll_timeout(), None);
        assert_eq!(twin.world.ends[A].qp.sq_psn(), rts(&config).sq_psn);
        twin.recv(B, 16);
        twin.post(A, wqe, &pattern(10));
        assert_eq!((twin.records, twin.taken), (1, 1));
        (twin.records, twin.taken) = (0, 0);
        twin.finish();
    }
    assert_eq!(twin.world.ends[B].recvs().len(), 3);
}
