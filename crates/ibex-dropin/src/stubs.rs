#![allow(unsafe_code)]
//! Refusals of what the device does not serve, one for each return convention.
//!
//! The arguments of the refused function are never looked at, so one function serves all of a convention: in the C
//! calling conventions of x86-64 and AArch64 the caller owns the arguments, variadic or not, and the result lies in one
//! register whose low half is the narrower type's result.
//!
//! # Safety
//! The only unsafe operation is the store to the calling thread's errno.

use std::ffi::c_void;
use std::ptr;

/// What every refusal says.
const REFUSAL: i32 = libc::EOPNOTSUPP;

fn set_errno() {
    // SAFETY: __errno_location(3) has no precondition.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: the pointer is the calling thread's own errno, valid for as long as the thread runs.
    unsafe { errno.write(REFUSAL) };
}

/// EOPNOTSUPP as the value.
pub(crate) extern "C" fn code() -> i64 {
    i64::from(REFUSAL)
}

/// −1 with errno EOPNOTSUPP; the same register read as `int`, `ssize_t` or `off_t`.
pub(crate) extern "C" fn minus() -> i64 {
    set_errno();
    -1
}

/// NULL with errno EOPNOTSUPP.
pub(crate) extern "C" fn null() -> *mut c_void {
    set_errno();
    ptr::null_mut()
}

/// 0, or NULL, without an error.
pub(crate) extern "C" fn zero() -> i64 {
    0
}

/// Nothing done, as there is nothing to undo or to register.
pub(crate) extern "C" fn void() {}
