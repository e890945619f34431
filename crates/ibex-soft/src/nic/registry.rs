//! Which NICs the process has, and what becomes of them in the child of a fork.
//!
//! Owns opening and closing: a process has one NIC per configuration, opened with its first context and closed with its
//! last. In the child of fork(2) there is no thread and locks may be held for ever by threads that do not exist there:
//! the child counts a new *generation*, every object of an earlier one fails with `EIO` before it takes a lock, and
//! the link's descriptors are replaced so that the parent's port and slots are not kept alive. The child can open the
//! device anew.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError, Weak};
use std::thread::JoinHandle;

use super::{Nic, OpenError, exit};
use crate::net::Config;
use crate::os;

/// Counts forks on the way from the first process to this one.
pub(crate) type Generation = u32;

/// Forks of forks that each have opened the device. One registry each, since the parent's may be locked.
pub(crate) const GENERATIONS: usize = 16;

static GENERATION: AtomicU32 = AtomicU32::new(0);
static REGISTRIES: [Mutex<Vec<Entry>>; GENERATIONS] = [const { Mutex::new(Vec::new()) }; GENERATIONS];
static LIVE: [Mutex<Vec<Weak<Nic>>>; GENERATIONS] = [const { Mutex::new(Vec::new()) }; GENERATIONS];

/// A NIC and what it was opened for.
type Entry = (Config, Weak<OpenNic>);

/// A NIC held open.
pub(crate) struct OpenNic {
    nic: Option<Arc<Nic>>,
    thread: Option<JoinHandle<()>>,
    generation: Generation,
}

/// The generation of the calling process.
pub(crate) fn generation() -> Generation {
    GENERATION.load(Ordering::Relaxed)
}

/// The calling process's NICs, unless one is just being opened or closed. Waits for no lock.
pub(super) fn live() -> Vec<Arc<Nic>> {
    let live = LIVE.get(generation() as usize).and_then(|live| live.try_lock().ok());
    live.map_or_else(Vec::new, |live| live.iter().filter_map(Weak::upgrade).collect())
}

/// Opens the NIC of this configuration, or shares the one that is open.
///
/// # Errors
/// [`OpenError`].
pub(crate) fn open(config: &Config) -> Result<Arc<OpenNic>, OpenError> {
    static FORK_HANDLER: Once = Once::new();
    FORK_HANDLER.call_once(|| {
        // Without memory for the handler a child would only keep the parent's sockets open longer.
        let _ = os::at_fork(in_child);
        // Nor can a process end with what it owes to its peers: they notice late.
        let _ = os::at_exit(exit::at_exit);
    });
    let generation = generation();
    let index = generation as usize;
    let registry = REGISTRIES.get(index).ok_or(OpenError::Forked)?;
    let mut registry = registry.lock().unwrap_or_else(PoisonError::into_inner);
    registry.retain(|(_, nic)| nic.strong_count() > 0);
    if let Some(open) = registry.iter().find(|(known, _)| known == config).and_then(|(_, nic)| nic.upgrade())
    {
        return Ok(open);
    }
    let (nic, thread) = Nic::start(config)?;
    let mut live = LIVE[index].lock().unwrap_or_else(PoisonError::into_inner);
    live.retain(|nic| nic.strong_count() > 0);
    live.push(Arc::downgrade(&nic));
    drop(live);
    let open = Arc::new(OpenNic { nic: Some(nic), thread: Some(thread), generation });
    registry.push((config.clone(), Arc::downgrade(&open)));
    Ok(open)
}

impl OpenNic {
    /// The NIC.
    pub(crate) fn nic(&self) -> &Arc<Nic> {
        match &self.nic {
            Some(nic) => nic,
            // Only `drop` takes it.
            None => unreachable!("a NIC that is held open"),
        }
    }

    /// Whether this process opened it, and not one it was forked from.
    pub(crate) fn is_ours(&self) -> bool {
        self.generation == generation()
    }
}

impl Drop for OpenNic {
    fn drop(&mut self) {
        let (nic, thread) = (self.nic.take(), self.thread.take());
        if self.generation != generation() {
            // The parent's: its locks may never be released here.
            std::mem::forget((nic, thread));
            return;
        }
        if let Some(nic) = &nic {
            nic.stop.store(true, Ordering::SeqCst);
            nic.kick.add();
        }
        if let Some(thread) = thread {
            // It sleeps on the kick; a panic in it has been dealt with there.
            let _ = thread.join();
        }
        if let (Some(nic), true) = (&nic, std::env::var_os("IBEX_SOFT_STATS").is_some()) {
            eprintln!("ibex-soft: {:?}", nic.wire.snapshot());
        }
    }
}

/// Runs in the child of a fork: no allocation, no lock waited for.
extern "C" fn in_child() {
    let parent = GENERATION.fetch_add(1, Ordering::Relaxed);
    let Some(live) = LIVE.get(parent as usize) else { return };
    // Locked only if another thread was just opening or closing; then the sockets stay until exec or exit.
    let Ok(live) = live.try_lock() else { return };
    for nic in live.iter().filter_map(Weak::upgrade) {
        nic.wire.disarm_in_child();
        // Counted down without being dropped: this may be the last that the child knows of.
        std::mem::forget(nic);
    }
}
