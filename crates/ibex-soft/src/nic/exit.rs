//! The end of the process: acknowledgements that are still owed are sent, and connections ended.
//!
//! Owns the handler for exit(3). A caller that polls may leave an acknowledgement for a request it is about to post
//! ([`super::engine`]); if the process ends instead, its peer would send again to nobody and take a delivered message for
//! lost. Does not own other ends: after `_exit(2)` or a signal the peer's request fails as if the message had not arrived.

use std::panic::catch_unwind;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::registry;

/// How long the end waits for a thread in the middle of a round: one that was pushed from its processor gets it back within
/// a few of the scheduler's slices.
const PATIENCE: Duration = Duration::from_millis(20);

/// Between two tries.
const PAUSE: Duration = Duration::from_micros(50);

/// The handler. Other threads may hold any lock, and so may, if exit(3) was called in a signal handler, the calling one: so
/// it waits for none longer than [`PATIENCE`].
pub(super) extern "C" fn at_exit() {
    // A panic would abort a program that ends well.
    let _ = catch_unwind(|| {
        let deadline = Instant::now() + PATIENCE;
        for nic in registry::live() {
            nic.ending.store(true, Ordering::SeqCst);
            nic.cm.end(&nic);
            while !nic.try_pay() && Instant::now() < deadline {
                std::thread::sleep(PAUSE);
            }
            // Should this be the last that is known of it, the kernel closes it as well.
            std::mem::forget(nic);
        }
    });
}

#[cfg(test)]
#[path = "exit_tests.rs"]
mod tests;
