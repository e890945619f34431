//! A process of a round: makes its ends, has them introduced, drives them to their end, and looks for what it still holds.
//!
//! A panic is the way in which it fails: the parent sees the exit status, the message is on the standard error.

use std::io::BufRead as _;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use super::end::{End, Introduction};
use super::leaks;
use super::plan::{Plan, rng};
use crate::child::say;
use crate::lab::Lab;

/// How long an end may stand still while its peer lives. Far above every retry time; a machine that is this slow is stuck.
const STILL: Duration = Duration::from_secs(40);

/// The parent's lines, read by a thread of their own so that they can be waited for without blocking.
struct Parent(Receiver<String>);

impl Parent {
    fn listen() -> Self {
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self(receiver)
    }

    fn next(&self) -> String {
        self.0.recv().unwrap_or_else(|_| std::process::exit(0))
    }

    fn try_next(&self) -> Option<String> {
        match self.0.try_recv() {
            Ok(line) => Some(line),
            Err(TryRecvError::Empty) => None,
            // The parent has ended; nobody is interested any more.
            Err(TryRecvError::Disconnected) => std::process::exit(0),
        }
    }
}

/// Plays the part of process `words` (seed and number).
///
/// # Panics
/// When something is wrong.
pub(super) fn run(words: &str) {
    let (seed, worker) = words.split_once(' ').expect("seed and number");
    let plan = Plan::new(seed.parse().expect("a seed"));
    let worker: usize = worker.parse().expect("a number");
    let parent = Parent::listen();

    // What the first use of the device leaves (a thread's stack, the allocator's arenas) is not a leak.
    drop(Lab::open());
    let (files, mappings) = (leaks::descriptors(), leaks::shared_mappings());
    let mut operations = 0;
    {
        let lab = Lab::open();
        let mut ends = Vec::new();
        for connection in &plan.connections {
            for side in 0..2 {
                if connection.ends[side] == worker {
                    ends.push(End::new(&lab, seed.parse().expect("a seed"), *connection, side));
                }
            }
        }
        introduce(&parent, &mut ends);
        drive(&plan, worker, &parent, &mut ends);
        operations += ends.iter().map(End::operations).sum::<u64>();
        say(&format!("done {operations}"));
        // Peers may still ask for what is in this process's memory.
        while parent.next() != "end" {}
    }
    settle("descriptors", &files, leaks::descriptors);
    settle("shared mappings", &mappings, leaks::shared_mappings);
    say("bye");
}

/// Exchanges endpoints through the parent and connects.
fn introduce(parent: &Parent, ends: &mut [End]) {
    for end in ends.iter() {
        let about = end.introduction();
        say(&format!("end {} {} {about}", end.connection(), end.side()));
    }
    while ends.iter().any(|end| !end.is_introduced()) {
        let line = parent.next();
        let mut words = line.splitn(4, ' ');
        let (word, id) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let id: usize = id.parse().expect("a connection");
        if word == "killed" {
            ends.iter_mut()
                .filter(|end| end.connection() == id && !end.is_introduced())
                .for_each(End::forsake);
            continue;
        }
        assert_eq!(word, "peer", "{line}");
        let side: usize = words.next().expect("a side").parse().expect("a side");
        let about: Introduction = words.next().expect("an introduction").parse().expect("an introduction");
        let end = ends
            .iter_mut()
            .find(|end| (end.connection(), end.side()) == (id, side))
            .expect("an end of this process");
        end.connect(&about);
    }
    say("ready");
}

/// Works on all ends until each has finished or is broken.
fn drive(plan: &Plan, worker: usize, parent: &Parent, ends: &mut [End]) {
    let mut rng = rng(plan.seed, 1000 + worker as u64);
    while parent.next() != "go" {}
    let mut moved = Instant::now();
    let mut told = vec![false; ends.len()];
    loop {
        while let Some(line) = parent.try_next() {
            let (word, id) = line.split_once(' ').expect("a word and a connection");
            let id: usize = id.parse().expect("a connection");
            for end in ends.iter_mut().filter(|end| end.connection() == id) {
                match word {
                    "killed" => end.peer_killed(),
                    "broken" => end.give_up(),
                    _ => panic!("{line}"),
                }
            }
            moved = Instant::now();
        }
        let mut progress = false;
        for (end, told) in ends.iter_mut().zip(&mut told) {
            progress |= end.step(&mut rng);
            if let (Some(why), false) = (end.broken(), *told) {
                *told = true;
                say(&format!("broken {} {why}", end.connection()));
            }
        }
        if ends.iter().all(End::is_finished) {
            return;
        }
        if progress {
            moved = Instant::now();
        } else if moved.elapsed() > STILL {
            let stuck: Vec<_> = ends.iter().filter(|end| !end.is_finished()).map(End::describe).collect();
            panic!("process {worker}: nothing has moved for {STILL:?}: {stuck:?}");
        } else {
            // Now and then sleep until something comes, as most programs do.
            let waiting = ends.iter().filter(|end| !end.is_finished()).count();
            match rng.u8(0..8) {
                0 if waiting == 1 => ends.iter_mut().filter(|end| !end.is_finished()).for_each(End::sleep),
                1 => std::thread::sleep(Duration::from_micros(rng.u64(1..300))),
                _ => std::thread::yield_now(),
            }
        }
    }
}

/// Waits a little until `now` shows what `before` did.
fn settle<T: PartialEq + std::fmt::Debug>(what: &str, before: &T, now: impl Fn() -> T) {
    let end = Instant::now() + Duration::from_secs(2);
    while now() != *before {
        assert!(Instant::now() < end, "{what} are left: {before:?} before, {:?} now", now());
        std::thread::sleep(Duration::from_millis(5));
    }
}
