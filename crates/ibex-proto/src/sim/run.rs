//! One random run: draws a world and traffic from a seed, drives it, and checks everything that comes out.
//!
//! Every request completes exactly once and in order, every message arrives once, in order and intact, READs and
//! atomics return what the model says, memory ends as the model says, and nothing hangs.

use super::Rng;
use super::plan::{Limits, PairPlan, Plan};
use super::traffic::{Incoming, Sabotage, Traffic};
use super::world::World;
use crate::{Completion, LocalFault, Nanos, QpState, RecvCompletion, RemoteFault, SendCompletion, WcStatus};

/// Virtual time after which a run counts as stuck. Runs take milliseconds to seconds of it.
const DEADLINE: Nanos = 600_000_000_000;
/// Steps after which a run counts as stuck.
const MAX_STEPS: u64 = 3_000_000;

/// What a run amounted to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Requests completed.
    pub requests: u64,
    /// Messages that consumed a receive request.
    pub messages: u64,
    /// Packets handed to the network.
    pub packets: u64,
    /// Packets that it dropped or damaged.
    pub lost: u64,
    /// Times a requester went back.
    pub retransmissions: u64,
    /// Waits for receive requests.
    pub rnr: u64,
    /// Runs in which a request was made to fail.
    pub sabotaged: u64,
    /// Virtual time, in nanoseconds.
    pub time: Nanos,
}

impl std::ops::AddAssign for Report {
    fn add_assign(&mut self, other: Report) {
        self.requests += other.requests;
        self.messages += other.messages;
        self.packets += other.packets;
        self.lost += other.lost;
        self.retransmissions += other.retransmissions;
        self.rnr += other.rnr;
        self.sabotaged += other.sabotaged;
        self.time += other.time;
    }
}

/// Progress of one direction: requests of endpoint `from`, executed at its peer.
struct Course {
    traffic: Traffic,
    from: usize,
    /// Requests posted, by cookie in order.
    posted: Vec<u64>,
    completed: usize,
    /// Receive requests posted at the peer, by cookie in order.
    recvs_posted: Vec<u64>,
    received: usize,
    /// The most receive requests to keep posted.
    appetite: usize,
    /// The status that ended the direction.
    ended: Option<WcStatus>,
    sabotaged_at: Option<usize>,
    /// Something on this connection goes wrong, so anything may end early.
    fragile: bool,
    /// Completions of the sender and of the receiver looked at.
    seen: usize,
}

/// Runs one seed.
///
/// # Errors
/// What was wrong, in words.
///
/// # Panics
/// If the queue pairs break a contract of the simulator.
pub fn run(seed: u64, limits: &Limits) -> Result<Report, String> {
    let mut rng = Rng::new(seed);
    let plan = Plan::draw(&mut rng, limits);
    let pairs: Vec<_> = plan.pairs.iter().map(|pair| (pair.left, pair.right, pair.mtu)).collect();
    let mut world = World::new(&pairs, plan.faults, rng.bits());
    world.requests_first = rng.one_in(2);
    let mut courses = Vec::new();
    for (index, pair) in plan.pairs.iter().enumerate() {
        courses.extend(courses_of(&mut rng, pair, index * 2, &mut world));
    }
    for steps in 0.. {
        let mut busy = false;
        for course in &mut courses {
            busy |= course.feed(&mut rng, &mut world)?;
        }
        world.drain();
        check_all(&mut world, &mut courses)?;
        if courses.iter().all(|course| course.is_done(&world)) {
            break;
        }
        if !world.step() && !busy {
            return Err(describe(&courses, "nothing more will happen, but requests are outstanding"));
        }
        check_all(&mut world, &mut courses)?;
        if world.now > DEADLINE || steps > MAX_STEPS {
            return Err(describe(&courses, "no end in sight"));
        }
    }
    settle(&mut world)?;
    check_all(&mut world, &mut courses)?;
    let mut report =
        Report { time: world.now, packets: world.net.offered, lost: world.net.lost, ..Report::default() };
    for course in &courses {
        let peer = world.ends[course.from].peer;
        let complete = course.ended.is_none() && course.completed == course.traffic.requests.len();
        course.traffic.check_memory(&world.ends[peer].host, complete)?;
        report.requests += course.completed as u64;
        report.messages += course.received as u64;
        report.sabotaged += u64::from(course.sabotaged_at.is_some());
    }
    for end in &world.ends {
        report.retransmissions += end.qp.counters().retransmissions;
        report.rnr += end.qp.counters().rnr_naks_received;
    }
    check_economy(&plan, &world)?;
    Ok(report)
}

/// Over a network that loses and reorders nothing, only an impatient timer makes anything be sent again.
fn check_economy(plan: &Plan, world: &World) -> Result<(), String> {
    let faults = &plan.faults;
    let perfect = faults.loss + faults.duplicate + faults.reorder + faults.corrupt == 0 && faults.jitter == 0;
    for (index, end) in world.ends.iter().enumerate() {
        let counters = end.qp.counters();
        if perfect && world.net.lost == 0 && counters.retransmissions > counters.timeouts + counters.probes {
            return Err(format!("endpoint {index} went back without a reason: {counters:?}"));
        }
    }
    Ok(())
}

fn courses_of(rng: &mut Rng, pair: &PairPlan, first: usize, world: &mut World) -> [Course; 2] {
    let culprit = rng.below(2) as usize;
    [0, 1].map(|side| {
        let fault = pair.fault && side == culprit;
        let traffic = Traffic::draw(rng, pair.mtu, pair.requests[side], fault);
        traffic.prepare(&mut world.ends[first + 1 - side].host);
        let sabotaged_at = traffic.requests.iter().position(|request| request.sabotage.is_some());
        Course {
            traffic,
            from: first + side,
            posted: Vec::new(),
            completed: 0,
            recvs_posted: Vec::new(),
            received: 0,
            appetite: rng.range(1, 16) as usize,
            ended: None,
            sabotaged_at,
            fragile: pair.fault,
            seen: 0,
        }
    })
}

/// Lets what is still under way arrive: late duplicates must not do anything.
fn settle(world: &mut World) -> Result<(), String> {
    for _ in 0..MAX_STEPS {
        if !world.step() {
            return Ok(());
        }
    }
    Err("packets go on for ever after everything has completed".into())
}

fn describe(courses: &[Course], what: &str) -> String {
    let mut text = String::from(what);
    for course in courses {
        text += &format!(
            "; endpoint {}: {} of {} requests posted, {} completed, {} of {} messages received",
            course.from,
            course.posted.len(),
            course.traffic.requests.len(),
            course.completed,
            course.received,
            course.traffic.incoming.len()
        );
    }
    text
}

/// Looks at the completions that have come since the last time.
fn check_all(world: &mut World, courses: &mut [Course]) -> Result<(), String> {
    for from in 0..world.ends.len() {
        // Completions of endpoint `from`: sends of its own course, receives of its peer's.
        let peer = world.ends[from].peer;
        while courses[from].seen < world.ends[from].completions.len() {
            let completion = world.ends[from].completions[courses[from].seen];
            courses[from].seen += 1;
            match completion {
                Completion::Send(done) => courses[from].check_send(&done, world)?,
                Completion::Recv(done) => courses[peer].check_recv(&done, world)?,
            }
        }
    }
    Ok(())
}

impl Course {
    fn is_done(&self, world: &World) -> bool {
        // The peer's fault may end a connection while nothing is posted that could say so.
        let ended = self.ended.is_some() || self.fragile && world.ends[self.from].qp.state() == QpState::Err;
        self.completed == self.posted.len() && (ended || self.posted.len() == self.traffic.requests.len())
    }

    /// Posts what fits. `true` if anything was posted.
    fn feed(&mut self, rng: &mut Rng, world: &mut World) -> Result<bool, String> {
        let peer = world.ends[self.from].peer;
        let mut busy = false;
        // Sometimes late, so that senders meet "receiver not ready".
        let waiting = self.recvs_posted.len() - self.received;
        if waiting < self.appetite && self.recvs_posted.len() < self.traffic.incoming.len() && rng.one_in(4) {
            let incoming = &self.traffic.incoming[self.recvs_posted.len()];
            let cookie = world.recv(peer, incoming.room);
            if self.traffic.requests[incoming.request].sabotage == Some(Sabotage::Place) {
                world.ends[peer].host.place_fault = Some((cookie, LocalFault::Protection));
            }
            self.recvs_posted.push(cookie);
            busy = true;
        }
        while self.ended.is_none()
            && self.posted.len() < self.traffic.requests.len()
            && world.ends[self.from].qp.state() != QpState::Err
        {
            let request = &self.traffic.requests[self.posted.len()];
            let Ok(cookie) = world.try_post(self.from, request.wqe, request.buffer.clone()) else { break };
            busy = true;
            match request.sabotage {
                Some(Sabotage::Gather) => {
                    let last = request.buffer.len() as u32 - 1;
                    world.ends[self.from].host.gather_fault = Some((cookie, last, LocalFault::Protection));
                }
                Some(Sabotage::Scatter) => {
                    world.ends[self.from].host.scatter_fault = Some((cookie, LocalFault::Protection));
                }
                Some(Sabotage::ReadFails) => {
                    if let crate::SendOp::Read { va, .. } = request.wqe.op {
                        let last = va + request.buffer.len() as u64 - 1;
                        world.ends[peer].host.read_fault = Some((last, RemoteFault::Operation));
                    }
                }
                _ => {}
            }
            self.posted.push(cookie);
        }
        Ok(busy)
    }

    fn check_send(&mut self, done: &SendCompletion, world: &mut World) -> Result<(), String> {
        let index = self.completed;
        let whose = format!("endpoint {} request {index}", self.from);
        let expected = self.posted.get(index).ok_or_else(|| format!("{whose}: completed, never posted"))?;
        if done.cookie != *expected {
            return Err(format!("{whose}: completion of {} instead of {expected}", done.cookie));
        }
        self.completed += 1;
        let request = &self.traffic.requests[index];
        let wqe = &request.wqe;
        if done.opcode != wqe.op.wc_opcode() || done.signaled != wqe.signaled {
            return Err(format!("{whose}: completed as {done:?}"));
        }
        let buffer = world.ends[self.from].host.sends.remove(&done.cookie).unwrap_or_default();
        if self.ended.is_some() {
            let flushed = done.status == WcStatus::WR_FLUSH_ERR;
            return if flushed { Ok(()) } else { Err(format!("{whose}: {:?} after the end", done.status)) };
        }
        if done.status == WcStatus::SUCCESS {
            if request.sabotage.is_some_and(|sabotage| sabotage != Sabotage::ReadFails) {
                return Err(format!("{whose}: succeeded in spite of {:?}", request.sabotage));
            }
            if request.result.as_ref().is_some_and(|result| *result != buffer) {
                return Err(format!("{whose}: {:?} returned the wrong bytes", done.opcode));
            }
            let wanted = if request.result.is_some() { buffer.len() as u32 } else { wqe.len };
            return if done.byte_len == wanted { Ok(()) } else { Err(format!("{whose}: {done:?}")) };
        }
        self.check_failure(index, done.status, world).map_err(|what| format!("{whose}: {what}"))
    }

    /// Judges the status of a request that failed.
    fn check_failure(&mut self, index: usize, status: WcStatus, world: &World) -> Result<(), String> {
        if !self.fragile {
            return Err(format!("{status:?} without a reason"));
        }
        let awaits_data = self.traffic.requests[index].wqe.op.awaits_data();
        // The peer's own failure moves this end to ERR, or leaves it without answers.
        let local_error = world.ends[self.from].qp.state() == QpState::Err;
        let flushed = status == WcStatus::WR_FLUSH_ERR && local_error;
        if flushed && awaits_data && self.sabotaged_at.is_some_and(|at| index < at) {
            // Executed, its data lost, and then the peer stopped: the culprit's own status follows.
            return Ok(());
        }
        let sabotaged = self.sabotaged_at == Some(index) || self.reads_into_fault(index);
        let own = self.sabotaged_at.and_then(|at| self.traffic.requests[at].sabotage);
        let by_sabotage = sabotaged && own.is_some_and(|sabotage| sabotage.status() == status);
        if by_sabotage || flushed || status == WcStatus::RETRY_EXC_ERR {
            self.ended = Some(status);
            return Ok(());
        }
        Err(format!("{status:?} instead of what {own:?} at {:?} gives", self.sabotaged_at))
    }

    /// A READ other than the sabotaged one can meet memory that fails to be read, too.
    fn reads_into_fault(&self, index: usize) -> bool {
        let fails = |request: &super::traffic::Request| request.sabotage == Some(Sabotage::ReadFails);
        self.traffic.requests.iter().any(fails)
            && matches!(self.traffic.requests[index].wqe.op, crate::SendOp::Read { .. })
    }

    fn check_recv(&mut self, done: &RecvCompletion, world: &mut World) -> Result<(), String> {
        let index = self.received;
        let whose = format!("message {index} of endpoint {}", self.from);
        let expected =
            self.recvs_posted.get(index).ok_or_else(|| format!("{whose}: received, never asked for"))?;
        if done.cookie != *expected {
            return Err(format!("{whose}: completion of {} instead of {expected}", done.cookie));
        }
        self.received += 1;
        let peer = world.ends[self.from].peer;
        let buffer = world.ends[peer].host.recv_taken.remove(&done.cookie).unwrap_or_default();
        let incoming = &self.traffic.incoming[index];
        if done.status != WcStatus::SUCCESS {
            let sabotage = self.traffic.requests[incoming.request].sabotage;
            let fits = match sabotage {
                Some(Sabotage::ShortRecv) => done.status == WcStatus::LOC_LEN_ERR,
                Some(Sabotage::Place) => done.status == WcStatus::LOC_PROT_ERR,
                _ => false,
            };
            let flushed = self.fragile && done.status == WcStatus::WR_FLUSH_ERR;
            return if fits || flushed { Ok(()) } else { Err(format!("{whose}: {:?}", done.status)) };
        }
        check_message(incoming, done, &buffer).map_err(|what| format!("{whose}: {what}"))
    }
}

fn check_message(incoming: &Incoming, done: &RecvCompletion, buffer: &[u8]) -> Result<(), String> {
    let as_expected = done.opcode == incoming.opcode
        && done.byte_len == incoming.len
        && done.imm == incoming.imm
        && done.invalidated == incoming.invalidated
        && done.solicited == incoming.solicited;
    if !as_expected {
        return Err(format!("completed as {done:?}"));
    }
    let Some(payload) = &incoming.payload else { return Ok(()) };
    let (filled, rest) = buffer.split_at(payload.len());
    if filled != payload {
        return Err("the payload is not what was sent".into());
    }
    if rest.iter().any(|byte| *byte != 0xee) {
        return Err("bytes after the message were touched".into());
    }
    Ok(())
}
