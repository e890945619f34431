//! Hazards: what peers work on just now, said in memory that the owner of the keys waits on.
//!
//! Owns a file of words for each peer, claiming a word, and waiting until none names a key. A peer stores what it is going to
//! touch, then looks whether it is still published; the owner withdraws it, then looks at the words. With a sequentially
//! consistent fence between store and look on both sides, one of the two sees the other. A peer that is parted with while it
//! lives may not know yet: its words count until they are zero, and it finds its line closed when it claims the next.
//!
//! ```text
//! words 0..8   one for each thread of the peer that copies at the same time. 0: free; else region index + 1 in the
//!              upper half, queue pair index + 1 in the lower
//! word 8       not 0: the owner has closed the line
//! ```

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::{GREETING, View};
use crate::host::segment::{self, Mapping};

/// Peers that can be attached: one for each slot of an address.
const LINES: usize = 1024;
/// Copies of one peer at the same time; a thread that finds no free word sends packets instead.
const WORDS: usize = 8;
const WORD: usize = 8;
/// Behind the words, in a cache line that nobody writes while the line is in use.
const CLOSED_AT: usize = WORDS * WORD;
/// Bytes of the file: a page.
pub(super) const SIZE: usize = 4096;

/// How long a peer may take for a copy before it counts as stopped. The longest message, 2^30 bytes, takes a fifth of a second.
pub(super) const PATIENCE: Duration = Duration::from_millis(if cfg!(test) { 100 } else { 3000 });

/// How long the threads of a process that was killed may go on after the first has ended: none begins anything, and the
/// kernel leaves a copy of its own at the next few megabytes.
pub(super) const GRACE: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 500 });

/// Looks at the words before the first pause: most copies take less than a microsecond.
const LOOKS: u32 = 200;

/// The lines of all peers, as the owner of the memory has them.
#[derive(Debug, Default)]
pub(super) struct Hazards(Mutex<Vec<Arc<Words>>>);

/// What one peer says.
#[derive(Debug)]
struct Words {
    memory: Mapping,
    closed: AtomicBool,
    /// By which it is told whether the peer lives.
    view: OnceLock<Arc<View>>,
    /// Since when it is known not to.
    dead: OnceLock<Instant>,
}

/// A peer's line. Dropped when the connection to the peer is at its end, which need not be the peer's.
#[derive(Debug)]
pub(crate) struct Line {
    hazards: Arc<Hazards>,
    words: Arc<Words>,
    /// Until the peer has it.
    file: Option<OwnedFd>,
}

impl Hazards {
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
        while self.lock().iter().any(|line| line.says(&names) && !line.is_dead()) {
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

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Words>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Words {
    fn says(&self, names: impl Fn(u64) -> bool) -> bool {
        (0..WORDS).any(|word| names(self.memory.word(word * WORD).load(Ordering::SeqCst)))
    }

    /// Whether the peer has ended, so long ago that nothing of it is left. A peer is told by the end of its connection as a
    /// rule; but a child of its own may hold that.
    fn is_dead(&self) -> bool {
        if self.dead.get().is_none() && self.view.get().is_none_or(|view| view.is_alive()) {
            return false;
        }
        self.dead.get_or_init(Instant::now).elapsed() > GRACE
    }

    /// Whether nothing that the peer does counts any more.
    fn is_over(&self) -> bool {
        self.closed.load(Ordering::Relaxed) && (!self.says(|word| word != 0) || self.is_dead())
    }
}

impl Line {
    /// `None` if there are too many peers, or the system has no memory for one more.
    pub(super) fn new(hazards: &Arc<Hazards>) -> Option<Line> {
        let mut lines = hazards.lock();
        lines.retain(|line| !line.is_over());
        if lines.len() >= LINES {
            return None;
        }
        let (file, memory) = segment::create(SIZE, false).ok()?;
        let closed = AtomicBool::new(false);
        let words = Arc::new(Words { memory, closed, view: OnceLock::new(), dead: OnceLock::new() });
        lines.push(words.clone());
        Some(Line { hazards: hazards.clone(), words, file: Some(file) })
    }

    /// The file that the peer writes; `None` once it is attached.
    pub(super) fn file(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(|file| file.as_fd())
    }

    /// What the peer has to be told, beside [`super::OneSide::files`].
    pub(crate) fn greeting(&self) -> [u8; GREETING] {
        super::view::Introduction::of_this_process().emit()
    }

    /// The peer has the line, and has told of its own memory, by which it is also told whether it lives.
    pub(crate) fn attached(&mut self, view: Option<&Arc<View>>) {
        self.file = None;
        if let Some(view) = view {
            // Attached once only; a second view would be of the same process.
            let _ = self.words.view.set(view.clone());
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.words.closed.store(true, Ordering::Relaxed);
        self.words.memory.word(CLOSED_AT).store(1, Ordering::SeqCst);
        // Either the peer finds it closed, or its claim is seen here.
        fence(Ordering::SeqCst);
        self.hazards.lock().retain(|line| !line.is_over());
    }
}

/// The words of one line, as the peer has them that was given it.
#[derive(Debug)]
pub(super) struct Claims(Mapping);

/// A word that says what is worked on; it is freed when this is dropped.
pub(super) struct Claim<'a>(&'a AtomicU64);

impl Claims {
    pub(super) fn new(memory: Mapping) -> Claims {
        Claims(memory)
    }

    /// Whether the peer does not heed claims any more. To be asked after [`Claims::claim`].
    #[inline]
    pub(super) fn are_closed(&self) -> bool {
        self.0.word(CLOSED_AT).load(Ordering::SeqCst) != 0
    }

    /// Says that a region is worked on through a queue pair. The caller then looks whether both are still published.
    /// `None` if as many threads as there are words work just now.
    #[inline]
    pub(super) fn claim(&self, region: u32, queue_pair: u32) -> Option<Claim<'_>> {
        let value = (u64::from(region) + 1) << 32 | (u64::from(queue_pair) + 1);
        let claimed = (0..WORDS).map(|word| self.0.word(word * WORD)).find(|word| {
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
