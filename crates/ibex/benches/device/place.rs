//! A core for each side: two spinning processes on one core measure the scheduler.
//!
//! Owns the choice and the pinning of this thread and of those it starts. See sched_setaffinity(2).
//!
//! # Safety
//! The sets passed to the system are whole `cpu_set_t` values of this function's own.
#![allow(unsafe_code)]

use crate::peer::Role;

/// Keeps this thread on the first or the last core that it may use; with one core both sides share it, and the figures
/// are what they are. A core's hardware threads have neighbouring numbers or far ones, never the first and the last of
/// several cores, except on a machine of one core.
pub(crate) fn settle(role: Role) {
    // SAFETY: a set of bits, for which zero is the empty set (sched_setaffinity(2)).
    let mut allowed: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: a whole set of this function's own, and its size (sched_getaffinity(2)).
    if unsafe { libc::sched_getaffinity(0, size, &raw mut allowed) } != 0 {
        return;
    }
    let bits = usize::try_from(libc::CPU_SETSIZE).unwrap_or_default();
    // SAFETY: bits below CPU_SETSIZE are within the set (CPU_SET(3)).
    let mut cores = (0..bits).filter(|&core| unsafe { libc::CPU_ISSET(core, &allowed) });
    let chosen = match role {
        Role::Asking => cores.next(),
        Role::Answering => cores.next_back(),
    };
    let Some(core) = chosen else { return };
    // SAFETY: as above: zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the number was a member of a set of the same size (CPU_SET(3)).
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: a whole set and its size (sched_setaffinity(2)). A refusal leaves the thread where it was.
    let _ = unsafe { libc::sched_setaffinity(0, size, &raw const set) };
}
