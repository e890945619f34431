//! The return conventions of libibverbs and librdmacm, decoded: the only file that knows them.
//!
//! Owns one function per convention, each turning what a C function returned into a `Result` with an [`Errno`]:
//!
//! | function | success | failure | used by |
//! |---|---|---|---|
//! | [`status`] | 0 | an errno as the value; siw and cxgb4 return it negative | `ibv_modify_qp`, `ibv_query_*`, `ibv_post_*`, `ibv_req_notify_cq`, `ibv_dealloc_*`, `ibv_destroy_*`, `ibv_dereg_mr` |
//! | [`pointer()`] | not null | null, with `errno` | `ibv_open_device`, `ibv_alloc_*`, `ibv_create_*`, `ibv_reg_mr`, `ibv_get_device_list`, `rdma_create_event_channel` |
//! | [`minus_one`] | anything but −1 | −1, with `errno` | `ibv_query_gid`, `ibv_query_pkey`, `ibv_get_cq_event`, `ibv_get_async_event`, `ibv_close_device`, `rdma_*` |
//! | [`count`] | a count | negative | `ibv_poll_cq` |
//! | [`long_count`] | a count | a negative errno | `ibv_query_gid_table` |
//! | [`more`] | 0 | an errno; ENOENT is no failure, there is just nothing (more) | `ibv_start_poll`, `ibv_next_poll` |
//! | [`name_resolution`] | 0 | −1 with `errno`, or an error of `getaddrinfo(3)` | `rdma_getaddrinfo` |
//!
//! Each must be called straight after the C function, since `errno` belongs to the latest call. Calls that say only "−1"
//! without setting `errno` (`ibv_query_pkey` on a malformed file) are reported with whatever `errno` holds, and as EIO if
//! that is 0.
//!
//! Man pages: `errno(3)`, and RETURN VALUE of each function's.

mod errno;
#[cfg(test)]
mod tests;

use core::ffi::c_int;
use core::ptr::NonNull;

pub use errno::Errno;

/// 0, or an errno as the value, of either sign.
///
/// A value of −1 is taken for the other convention (−1 with `errno`), which some providers mix in: EPERM, which would be
/// the literal reading, is what no provider means by it.
///
/// # Errors
///
/// The errno.
#[inline]
pub fn status(ret: c_int) -> Result<(), Errno> {
    if ret == 0 { Ok(()) } else { Err(value(ret)) }
}

/// A pointer, or null with `errno`.
///
/// # Errors
///
/// The calling thread's `errno`.
#[inline]
pub fn pointer<T>(ret: *mut T) -> Result<NonNull<T>, Errno> {
    NonNull::new(ret).ok_or_else(Errno::last)
}

/// Anything but −1 is a result; −1 is a failure with `errno`.
///
/// # Errors
///
/// The calling thread's `errno`.
#[inline]
pub fn minus_one(ret: c_int) -> Result<c_int, Errno> {
    if ret == -1 { Err(Errno::last()) } else { Ok(ret) }
}

/// A count, or something negative: an errno, or −1 with `errno`.
///
/// # Errors
///
/// The errno.
#[inline]
pub fn count(ret: c_int) -> Result<usize, Errno> {
    usize::try_from(ret).map_err(|_| value(ret))
}

/// A count, or a negative errno, in the width of a pointer.
///
/// # Errors
///
/// The errno; EIO for a value that is none.
#[inline]
pub fn long_count(ret: isize) -> Result<usize, Errno> {
    usize::try_from(ret).map_err(|_| c_int::try_from(ret).map_or(Errno::EIO, value))
}

/// True if there is a completion to read, false (ENOENT) if there is none.
///
/// # Errors
///
/// Any errno but ENOENT.
#[inline]
pub fn more(ret: c_int) -> Result<bool, Errno> {
    match status(ret) {
        Ok(()) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// 0; −1 with `errno`; or an error of `getaddrinfo(3)`, which is mapped to the errno that says most nearly the same.
///
/// # Errors
///
/// The errno: EADDRNOTAVAIL if the name or service is unknown, EAGAIN if the name server did not answer, EAFNOSUPPORT,
/// ENOMEM, or EINVAL.
pub fn name_resolution(ret: c_int) -> Result<(), Errno> {
    match ret {
        0 => Ok(()),
        // glibc's EAI_BADFLAGS is also −1; with `errno` at 0 it must be that.
        -1 => Err(if Errno::raw() == 0 { Errno::EINVAL } else { Errno::last() }),
        libc::EAI_NONAME | libc::EAI_SERVICE | libc::EAI_FAIL => Err(Errno::EADDRNOTAVAIL),
        libc::EAI_AGAIN => Err(Errno::EAGAIN),
        libc::EAI_FAMILY | libc::EAI_SOCKTYPE => Err(Errno::EAFNOSUPPORT),
        libc::EAI_MEMORY => Err(Errno::ENOMEM),
        libc::EAI_SYSTEM => Err(Errno::last()),
        _ => Err(Errno::EINVAL),
    }
}

/// The errno in a non-zero return value of either sign; −1 stands for `errno`.
#[cold]
fn value(ret: c_int) -> Errno {
    match ret {
        -1 => Errno::last(),
        // `c_int::MIN` has no absolute value and is no errno.
        ret => ret.checked_abs().map_or(Errno::EIO, Errno),
    }
}
