//! The threads that put received files into their places.
//!
//! Owns concurrency of the last step only: syncing a file waits for the disk, and many waiting at once share the disk's
//! work. What the step is, `part` knows.

use std::io;
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use super::part::Part;
use super::path::RelPath;
use super::record::Mtime;

/// Syncs in flight. A file system groups those that wait together; more than a few gain nothing.
const THREADS: usize = 8;
/// Files that may wait for a thread; bounds the open file descriptors.
const WAITING: usize = 64;
/// Between two looks whether there is room; a sync takes about as long.
const PAUSE: Duration = Duration::from_millis(2);

/// A file that has been received to its end.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) path: RelPath,
    pub(crate) part: Part,
    pub(crate) size: u64,
    pub(crate) hash: [u8; 32],
    pub(crate) mode: u32,
    pub(crate) mtime: Mtime,
    pub(crate) resumed: bool,
}

/// What became of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) path: RelPath,
    pub(crate) resumed: bool,
    pub(crate) result: io::Result<()>,
}

/// A few threads. Dropping it finishes what was submitted.
#[derive(Debug)]
pub(crate) struct Finisher {
    jobs: Option<SyncSender<Job>>,
    outcomes: Receiver<Outcome>,
    threads: Vec<JoinHandle<()>>,
}

impl Finisher {
    /// Starts the threads.
    pub(crate) fn start() -> Result<Self> {
        let (jobs, waiting) = mpsc::sync_channel::<Job>(WAITING);
        let (done, outcomes) = mpsc::channel();
        let waiting = Arc::new(Mutex::new(waiting));
        let mut threads = Vec::new();
        for _ in 0..THREADS {
            let waiting = Arc::clone(&waiting);
            let done = done.clone();
            let body = move || {
                loop {
                    // The lock is held while waiting: the others wait for the lock instead, which is the same.
                    let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(Job { path, part, size, hash, mode, mtime, resumed }) = job else { return };
                    let result = part.finish(size, &hash, mode, mtime);
                    if done.send(Outcome { path, resumed, result }).is_err() {
                        return;
                    }
                }
            };
            threads.push(
                std::thread::Builder::new()
                    .name("finish".to_owned())
                    .spawn(body)
                    .context("cannot start a thread")?,
            );
        }
        Ok(Self { jobs: Some(jobs), outcomes, threads })
    }

    /// Hands a file over; waits when many wait already. `tick` is called while waiting.
    pub(crate) fn submit(&self, mut job: Job, mut tick: impl FnMut()) -> Result<()> {
        let jobs = self.jobs.as_ref().ok_or_else(|| anyhow!("files are no longer accepted"))?;
        loop {
            job = match jobs.try_send(job) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(job)) => job,
                Err(TrySendError::Disconnected(_)) => bail!("the threads that finish files have ended"),
            };
            tick();
            std::thread::sleep(PAUSE);
        }
    }

    /// An outcome, if there is one.
    pub(crate) fn poll(&self) -> Option<Outcome> {
        self.outcomes.try_recv().ok()
    }

    /// After the last submission: the remaining outcomes one by one; `None` at the end. `tick` is called while waiting.
    pub(crate) fn wait(&mut self, mut tick: impl FnMut()) -> Option<Outcome> {
        self.jobs = None;
        loop {
            match self.outcomes.try_recv() {
                Ok(outcome) => return Some(outcome),
                // The threads' senders are gone; so are the threads.
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) => {
                    tick();
                    if let Ok(outcome) = self.outcomes.recv_timeout(Duration::from_millis(100)) {
                        return Some(outcome);
                    }
                }
            }
        }
    }
}

impl Drop for Finisher {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
