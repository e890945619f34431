//! Any bytes as a sequence of calls of the C interface, sensible and absurd: wrong states, keys, sizes, rights, and keys and
//! numbers of what has been destroyed.
//!
//! Owns the meaning of the bytes and what must hold whatever they say: every call returns and refuses with an errno that
//! says something about the request, each completion is of a request that is outstanding, none comes twice or after its queue
//! pair is gone, and no byte beside registered memory changes. Pointers are the caller's part of the contract: only living objects
//! are passed. Used by a fuzz target and by a test with random bytes.
//!
//! | file | owns |
//! |---|---|
//! | `input` | numbers from bytes |
//! | `arena` | the memory, registered in parts, with margins that nobody may touch |
//! | `world` | the objects, and the calls that make and destroy them |
//! | `work` | posting, polling, and the account of both |

mod arena;
mod input;
mod work;
mod world;

use crate::lab::Lab;

/// What a sequence came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests that completed with success.
    pub succeeded: u64,
    /// Requests that completed with an error, flushed ones included.
    pub failed: u64,
    /// Calls that were refused.
    pub refused: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        self.refused += other.refused;
    }
}

/// Plays the bytes on a device that is open.
///
/// # Panics
/// When something does not hold.
pub fn play(lab: &Lab, bytes: &[u8]) -> Tally {
    let mut input = input::Input::new(bytes);
    let mut world = world::World::new(lab, &mut input);
    while !input.is_empty() {
        world.call(&mut input);
    }
    world.end()
}

/// Whether an errno says something about the request. `EIO` says that the device is broken.
fn check_errno(call: &str, errno: i32) {
    let known = [
        libc::EINVAL,
        libc::ENOMEM,
        libc::EBUSY,
        libc::EOPNOTSUPP,
        libc::EFAULT,
        libc::EMSGSIZE,
        libc::EPERM,
        libc::EAGAIN,
        libc::ENOENT,
        libc::ENETUNREACH,
        libc::EHOSTUNREACH,
        libc::EADDRNOTAVAIL,
    ];
    assert!(known.contains(&errno), "{call} refuses with errno {errno}");
}
