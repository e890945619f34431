//! Datagrams that wait for their receiver: a process whose queue is full, or a service that nobody listens to just now.
//!
//! Owns in which order they are tried again, and when, and how many there may be. Each receiver has a queue; a try that
//! finds no room ends its turn, so that a receiver which is stopped costs one system call a turn whatever was sent to it,
//! and its turns become rarer. A datagram that is repeated while it waits is kept once. Does not own what is sent how.

use std::collections::{BTreeSet, HashMap, VecDeque};

use ibex_proto::Nanos;
use ibex_wire::mad::ServiceId;

use super::Letter;

/// Datagrams that may wait.
const MOST: usize = 1024;

/// Those that may wait for one receiver: a stopped one is not to take the others' room.
const MOST_EACH: usize = 256;

/// How long a datagram waits for room in its receiver's queue, which holds ten by default (`net.unix.max_dgram_qlen`): a
/// thread takes some 50 µs to wake, and longer on a crowded machine. Twice as long each time that it proved in vain.
const FULL: Nanos = 300_000;

/// How often it is looked whether somebody listens, and the longest wait for room.
const LOOK: Nanos = 10_000_000;

/// Whom a datagram waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Receiver {
    /// Whoever listens to this service.
    Service(ServiceId),
    /// The process that owns this slot.
    Slot(u16),
}

/// What came of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tried {
    /// There is no room.
    Full,
    /// There is nobody.
    Nobody,
}

/// All that wait.
#[derive(Default)]
pub(super) struct Kept {
    queues: HashMap<Receiver, Queue>,
    turns: BTreeSet<(Nanos, Receiver)>,
    count: usize,
}

struct Queue {
    /// How long it waits once more when there is no room.
    wait: Nanos,
    /// In the order they came, and when they did.
    letters: VecDeque<(Nanos, Letter)>,
}

impl Kept {
    /// Whether datagrams wait for this receiver: later ones come after them.
    pub(super) fn waits(&self, receiver: Receiver) -> bool {
        self.queues.contains_key(&receiver)
    }

    /// Keeps a datagram that was tried, or that comes after others. Gives it back if there are too many.
    pub(super) fn keep(
        &mut self,
        now: Nanos,
        receiver: Receiver,
        tried: Tried,
        letter: Letter,
    ) -> Result<(), Letter> {
        let queue = self.queues.get(&receiver);
        let repeated =
            |(_, known): &(Nanos, Letter)| known.from == letter.from && known.mad() == letter.mad();
        if queue.is_some_and(|queue| queue.letters.iter().any(repeated)) {
            return Ok(());
        }
        if self.count >= MOST || queue.is_some_and(|queue| queue.letters.len() >= MOST_EACH) {
            return Err(letter);
        }
        let turns = &mut self.turns;
        let queue = self.queues.entry(receiver).or_insert_with(|| {
            let mut again = FULL;
            let turn = now.saturating_add(wait(&mut again, tried));
            turns.insert((turn, receiver));
            Queue { wait: again, letters: VecDeque::new() }
        });
        queue.letters.push_back((now, letter));
        self.count += 1;
        Ok(())
    }

    /// When the next turn is.
    pub(super) fn next(&self) -> Option<Nanos> {
        self.turns.first().map(|&(turn, _)| turn)
    }

    /// Takes out all that waits for a receiver whose turn has come. What is left of it goes to [`Kept::put_back`].
    pub(super) fn take(&mut self, now: Nanos) -> Option<(Receiver, Turn)> {
        let (_, receiver) = self.turns.first().copied().filter(|&(turn, _)| turn <= now)?;
        self.turns.pop_first();
        let queue = self.queues.remove(&receiver)?;
        self.count -= queue.letters.len();
        Some((receiver, Turn { letters: queue.letters, wait: queue.wait }))
    }

    /// Has the rest of a turn wait for another one; `tried` is what its first datagram met.
    pub(super) fn put_back(&mut self, now: Nanos, receiver: Receiver, tried: Tried, mut rest: Turn) {
        if rest.letters.is_empty() {
            return;
        }
        self.count += rest.letters.len();
        let turn = now.saturating_add(wait(&mut rest.wait, tried));
        self.turns.insert((turn, receiver));
        self.queues.insert(receiver, Queue { wait: rest.wait, letters: rest.letters });
    }
}

/// A receiver's datagrams, in its turn.
pub(super) struct Turn {
    /// In the order they came, and when they did.
    pub(super) letters: VecDeque<(Nanos, Letter)>,
    wait: Nanos,
}

impl Turn {
    /// There was room: the next wait is a short one.
    pub(super) fn went_on(&mut self) {
        self.wait = FULL;
    }
}

/// How long to wait now; `wait` is how long it would be for room, and is doubled if it is for that.
fn wait(wait: &mut Nanos, tried: Tried) -> Nanos {
    match tried {
        Tried::Nobody => LOOK,
        Tried::Full => std::mem::replace(wait, (*wait * 2).min(LOOK)),
    }
}

#[cfg(test)]
#[path = "kept_tests.rs"]
mod tests;
