//! The parent of a round: starts the processes, introduces ends to each other, kills and stops, and looks for what is left.
//!
//! The processes speak lines. A process says `end C S rest…` for each end it made; the other side's process hears
//! `peer C S rest…`. All connected (`ready`) → `go`. Then `broken C why`, passed on to the other side, and `done N`; when all
//! that live are done → `end`, `bye`. Anything else, silence, or an exit with a failure fails the round.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use super::plan::{Blow, Plan};
use super::{WORKER, leaks};

/// How long a round may take: hundreds of times what it takes on an idle machine.
const LIMIT: Duration = Duration::from_secs(120);

/// How long names of sockets may outlive the processes: the kernel closes a killed process's files after it can be waited for.
const LINGER: Duration = Duration::from_secs(2);

/// What a round came to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Round {
    /// Operations whose outcome was checked.
    pub(super) operations: u64,
    /// Connections that broke.
    pub(super) broken: u64,
}

/// A line of a process's, or its end.
struct Heard {
    worker: usize,
    line: Option<String>,
}

struct Process {
    child: Child,
    input: Option<ChildStdin>,
    ready: bool,
    done: bool,
    gone: bool,
}

impl Drop for Process {
    fn drop(&mut self) {
        // Either fails only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    fn say(&mut self, line: &str) {
        if let Some(input) = &mut self.input {
            // One that was killed does not listen; one that failed will be noticed by its exit.
            let _ = writeln!(input, "{line}").and_then(|()| input.flush());
        }
    }
}

/// Runs a round.
///
/// # Errors
/// What went wrong, for a person to read.
pub(super) fn round(plan: &Plan) -> Result<Round, String> {
    let (sender, receiver) = channel();
    let mut processes = Vec::new();
    for worker in 0..plan.workers {
        processes.push(start(plan, worker, sender.clone())?);
    }
    drop(sender);
    let mut state =
        State { plan, processes, round: Round::default(), broken: vec![false; plan.connections.len()] };
    let outcome = state.run(&receiver);
    if let Err(failure) = &outcome {
        let states: Vec<_> = state.processes.iter().map(|it| (it.ready, it.done, it.gone)).collect();
        return Err(format!("{failure}\n(ready, done, gone) of the processes: {states:?}"));
    }
    let round = state.round;
    drop(state);
    let name = plan.address.to_string();
    let end = Instant::now() + LINGER;
    loop {
        let left = leaks::sockets_named(&name);
        if left.is_empty() {
            return Ok(round);
        }
        if Instant::now() > end {
            return Err(format!("sockets left behind: {left:?}"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn start(plan: &Plan, worker: usize, sender: Sender<Heard>) -> Result<Process, String> {
    let program = std::env::current_exe().map_err(|error| format!("this program has no path: {error}"))?;
    let mut child = Command::new(program)
        .env(WORKER, format!("{} {worker}", plan.seed))
        .env("IBEX_CONFORMANCE_PROVIDER", "soft")
        .env("IBEX_SOFT_ADDR", plan.address.to_string())
        .env("IBEX_SOFT_LINK", plan.link.name())
        .envs(plan.faults.iter().map(|(name, value)| (*name, value.as_str())))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start a process: {error}"))?;
    let input = child.stdin.take();
    let output = child.stdout.take();
    std::thread::spawn(move || {
        for line in output.into_iter().flat_map(|output| BufReader::new(output).lines()) {
            let Ok(line) = line else { break };
            if sender.send(Heard { worker, line: Some(line) }).is_err() {
                return;
            }
        }
        let _ = sender.send(Heard { worker, line: None });
    });
    Ok(Process { child, input, ready: false, done: false, gone: false })
}

struct State<'a> {
    plan: &'a Plan,
    processes: Vec<Process>,
    round: Round,
    broken: Vec<bool>,
}

impl State<'_> {
    fn run(&mut self, receiver: &Receiver<Heard>) -> Result<(), String> {
        let limit = Instant::now() + LIMIT;
        let mut blow: Option<Instant> = None;
        let mut resume: Option<Instant> = None;
        let mut struck = self.plan.blow.is_none();
        let mut ending = false;
        loop {
            let now = Instant::now();
            if now > limit {
                return Err(format!("not finished after {LIMIT:?}"));
            }
            if let (false, Some((victim, what, _)), Some(at)) = (struck, self.plan.blow, blow)
                && now >= at
            {
                struck = true;
                resume = self.strike(victim, what).map(|length| now + length);
            }
            if resume.is_some_and(|at| now >= at) {
                resume = None;
                self.signal(self.plan.blow.map_or(0, |(victim, ..)| victim), "CONT");
            }
            // A process that finishes before its blow is struck all the same, while it waits for the end.
            if !ending && struck && resume.is_none() && self.processes.iter().all(|it| it.done || it.gone) {
                ending = true;
                self.processes.iter_mut().for_each(|process| process.say("end"));
            }
            let next =
                [Some(limit), blow.filter(|_| !struck), resume].into_iter().flatten().min().unwrap_or(limit);
            let heard = match receiver.recv_timeout(next.saturating_duration_since(now)) {
                Ok(heard) => heard,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            match heard.line {
                Some(line) => self.hear(heard.worker, &line)?,
                None => self.gone(heard.worker)?,
            }
            if blow.is_none() && self.processes.iter().all(|process| process.ready) {
                self.processes.iter_mut().for_each(|process| process.say("go"));
                blow = Some(Instant::now() + self.plan.blow.map_or(Duration::ZERO, |(.., after)| after));
            }
        }
    }

    /// Does it; how long the process is to stay stopped.
    fn strike(&mut self, victim: usize, what: Blow) -> Option<Duration> {
        match what {
            Blow::Kill => {
                // Fails only if it has ended, which is noticed elsewhere.
                let _ = self.processes[victim].child.kill();
                None
            }
            Blow::Stop(length) => {
                self.signal(victim, "STOP");
                Some(length)
            }
        }
    }

    fn signal(&self, worker: usize, name: &str) {
        // The shell's own kill: no signal function is in the standard library. One that has ended is not there any more.
        let order = format!("kill -{name} {} 2>/dev/null", self.processes[worker].child.id());
        let _ = Command::new("sh").args(["-c", &order]).status();
    }

    fn hear(&mut self, worker: usize, line: &str) -> Result<(), String> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "end" => {
                let mut words = rest.splitn(3, ' ');
                let id: usize = words.next().and_then(|text| text.parse().ok()).ok_or(line)?;
                let side: usize = words.next().and_then(|text| text.parse().ok()).ok_or(line)?;
                let about = words.next().ok_or(line)?;
                let other = self.plan.connections[id].ends[1 - side];
                self.processes[other].say(&format!("peer {id} {} {about}", 1 - side));
            }
            "ready" => self.processes[worker].ready = true,
            "done" => {
                self.processes[worker].done = true;
                self.round.operations += rest.parse::<u64>().map_err(|_| line.to_owned())?;
            }
            "broken" => {
                let id: usize = rest.split(' ').next().and_then(|text| text.parse().ok()).ok_or(line)?;
                let connection = self.plan.connections[id];
                if !self.plan.may_break(&connection) {
                    return Err(format!("process {worker}: connection {rest}, which nothing was done to"));
                }
                if !std::mem::replace(&mut self.broken[id], true) {
                    self.round.broken += 1;
                    for end in connection.ends {
                        self.processes[end].say(&format!("broken {id}"));
                    }
                }
            }
            "bye" => {}
            _ => return Err(format!("process {worker}: {line}")),
        }
        Ok(())
    }

    /// A process has closed its output.
    fn gone(&mut self, worker: usize) -> Result<(), String> {
        let process = &mut self.processes[worker];
        process.gone = true;
        let status = process.child.wait().map_err(|error| error.to_string())?;
        let killed = matches!(self.plan.blow, Some((victim, Blow::Kill, _)) if victim == worker);
        if !status.success() && !killed {
            return Err(format!("process {worker} ended with {status}; its message is above"));
        }
        if killed {
            // A process that is killed early has not been introduced to everybody.
            process.ready = true;
            for connection in self.plan.connections.iter().filter(|it| it.ends.contains(&worker)) {
                for end in connection.ends {
                    self.processes[end].say(&format!("killed {}", connection.id));
                }
            }
        }
        Ok(())
    }
}
