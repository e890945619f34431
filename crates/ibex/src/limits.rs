//! Limits of the process that RDMA runs into, for error messages.
//!
//! # Safety
//! Asks the kernel, with a place for the answer; nothing else.
#![allow(unsafe_code)]

/// The memory lock limit in bytes, or `None` if there is none. See getrlimit(2).
pub(crate) fn memlock() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the answer.
    let failed = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
    (failed == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}
