//! Hazards: what peers work on just now, said in memory that the owner of the keys waits on.
//!
//! Owns the file with a line of words for each peer, claiming a word, and waiting until none names a key. A peer stores what
//! it is going to touch, then looks whether it is still published; the owner withdraws it, then looks at the words. With a
//! sequentially consistent fence between store and look on both sides, one of the two sees the other.
//!
//! ```text
//! line of a peer   8 words, one for each thread of it that copies at the same time
//! word             0: free; else region index + 1 in the upper half, queue pair index + 1 in the lower
//! ```

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::GREETING;
use crate::host::segment::{self, Mapping};

/// Peers that can be attached: one for each slot of an address.
const LINES: usize = 1024;
/// Copies of one peer at the same time; a thread that finds no free word sends packets instead.
const WORDS: usize = 8;
const WORD: usize = 8;
/// Bytes of the file.
pub(super) const SIZE: usize = LINES * WORDS * WORD;

/// How long a peer may take for a copy before it counts as stopped. The longest message, 2^30 bytes, takes a fifth of a second.
pub(super) const PATIENCE: Duration = Duration::from_millis(if cfg!(test) { 100 } else { 3000 });

/// Looks at the words before the first pause: most copies take less than a microsecond.
const LOOKS: u32 = 200;

/// The lines, as their owner has them.
#[derive(Debug)]
pub(super) struct Hazards {
    file: OwnedFd,
    memory: Mapping,
    /// Which lines are given out.
    taken: Mutex<Vec<bool>>,
}

/// A peer's line. Dropped when the peer is gone: what it said it was doing does not count any more.
#[derive(Debug)]
pub(crate) struct Line {
    hazards: Arc<Hazards>,
    number: usize,
}

fn at(line: usize, word: usize) -> usize {
    (line * WORDS + word) * WORD
}

impl Hazards {
    pub(super) fn new() -> io::Result<Hazards> {
        let (file, memory) = segment::create(SIZE, false)?;
        Ok(Hazards { file, memory, taken: Mutex::default() })
    }

    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Waits until no peer works on a region; false if one does for longer than it can take.
    pub(super) fn wait_for_region(&self, index: u32) -> bool {
        self.wait(|word| word >> 32 == u64::from(index) + 1)
    }

    /// Waits until no peer works through a queue pair; false if one does for longer than it can take.
    pub(super) fn wait_for_queue_pair(&self, index: u32) -> bool {
        self.wait(|word| word & 0xffff_ffff == u64::from(index) + 1)
    }

    fn wait(&self, names: impl Fn(u64) -> bool) -> bool {
        let mut looks = 0;
        let mut since = None;
        while self.any(&names) {
            looks += 1;
            if looks < LOOKS {
                std::hint::spin_loop();
                continue;
            }
            if since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                return false;
            }
            // Half of the time a page takes to copy when the processor is shared.
            std::thread::sleep(Duration::from_micros(20));
        }
        // What the peer stored happened before what this process does with the memory now.
        fence(Ordering::SeqCst);
        true
    }

    fn any(&self, names: impl Fn(u64) -> bool) -> bool {
        let lines = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().enumerate().filter(|&(_, &taken)| taken).any(|(line, _)| {
            (0..WORDS).any(|word| names(self.memory.word(at(line, word)).load(Ordering::SeqCst)))
        })
    }
}

impl Line {
    pub(super) fn new(hazards: &Arc<Hazards>) -> Option<Line> {
        let mut taken = hazards.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let number = match taken.iter().position(|taken| !taken) {
            Some(number) => number,
            None if taken.len() < LINES => {
                taken.push(false);
                taken.len() - 1
            }
            None => return None,
        };
        taken[number] = true;
        Some(Line { hazards: hazards.clone(), number })
    }

    /// What the peer has to be told, beside [`super::OneSide::files`].
    pub(crate) fn greeting(&self) -> [u8; GREETING] {
        super::view::Introduction::of(self.number as u32).emit()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        for word in 0..WORDS {
            self.hazards.memory.word(at(self.number, word)).store(0, Ordering::SeqCst);
        }
        let mut taken = self.hazards.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken[self.number] = false;
    }
}

/// The words of one line, as the peer has them that was given it.
#[derive(Debug)]
pub(super) struct Claims {
    memory: Mapping,
    line: usize,
}

/// A word that says what is worked on; it is freed when this is dropped.
pub(super) struct Claim<'a>(&'a AtomicU64);

impl Claims {
    /// The line of that number; `None` if there is no such line.
    pub(super) fn new(memory: Mapping, line: u32) -> Option<Claims> {
        let line = line as usize;
        (line < LINES).then_some(Claims { memory, line })
    }

    /// Waits until none of this process's threads works on the peer's memory.
    pub(super) fn wait_until_free(&self) {
        fence(Ordering::SeqCst);
        while (0..WORDS).any(|word| self.memory.word(at(self.line, word)).load(Ordering::SeqCst) != 0) {
            std::thread::yield_now();
        }
    }

    /// Says that a region is worked on through a queue pair. The caller then looks whether both are still published.
    /// `None` if as many threads as there are words work just now.
    #[inline]
    pub(super) fn claim(&self, region: u32, queue_pair: u32) -> Option<Claim<'_>> {
        let value = (u64::from(region) + 1) << 32 | (u64::from(queue_pair) + 1);
        let claimed = (0..WORDS).map(|word| self.memory.word(at(self.line, word))).find(|word| {
            word.load(Ordering::Relaxed) == 0
                && word.compare_exchange(0, value, Ordering::SeqCst, Ordering::Relaxed).is_ok()
        })?;
        fence(Ordering::SeqCst);
        Some(Claim(claimed))
    }
}

impl Drop for Claim<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.store(0, Ordering::Release);
    }
}
