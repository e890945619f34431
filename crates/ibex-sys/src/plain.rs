//! The trait of types for which all-zero bytes are a value, and the function that makes such a value.
//!
//! Owns [`Plain`] and [`zeroed`]. C callers clear a structure with `memset` before filling it; `Default` of this crate's
//! structures is the same thing.
//!
//! # Safety
//!
//! [`zeroed`] relies on nothing but the promise of [`Plain`], which the macros check member by member.
#![allow(unsafe_code)]

/// Types that are valid when all their bytes are zero.
///
/// # Safety
///
/// All-zero bytes must be a valid value of the type. True for integers, raw pointers, optional function pointers, arrays
/// of such, and structures and unions made only of such.
pub unsafe trait Plain: Sized {}

/// The value whose bytes are all zero, as `memset(&value, 0, sizeof value)` leaves it in C.
#[inline]
pub const fn zeroed<T: Plain>() -> T {
    // SAFETY: `T: Plain` promises that all-zero bytes are a valid `T`.
    unsafe { core::mem::zeroed() }
}

macro_rules! plain_scalars {
    ($($ty:ty),*) => { $(
        // SAFETY: every bit pattern of an integer is a value.
        unsafe impl Plain for $ty {}
    )* };
}
plain_scalars!(u8, i8, u16, i16, u32, i32, u64, i64, usize, isize);

// SAFETY: a null pointer is a valid raw pointer.
unsafe impl<T> Plain for *mut T {}
// SAFETY: a null pointer is a valid raw pointer.
unsafe impl<T> Plain for *const T {}
// SAFETY: an array holds nothing but its elements.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}

macro_rules! plain_functions {
    ($( ($($arg:ident),*) )*) => { $(
        // SAFETY: `None` of an optional function pointer is guaranteed to be the null pointer.
        unsafe impl<Ret, $($arg),*> Plain for Option<unsafe extern "C" fn($($arg),*) -> Ret> {}
    )* };
}
plain_functions! { () (A) (A, B) (A, B, C) (A, B, C, D) (A, B, C, D, E) (A, B, C, D, E, F) }

// SAFETY: on Linux the static initialisers of these are all zeros, with glibc and with musl.
unsafe impl Plain for libc::pthread_mutex_t {}
// SAFETY: as above.
unsafe impl Plain for libc::pthread_cond_t {}
// SAFETY: two integers.
unsafe impl Plain for libc::timespec {}
// SAFETY: integers and arrays of integers.
unsafe impl Plain for libc::sockaddr {}
// SAFETY: integers and arrays of integers.
unsafe impl Plain for libc::sockaddr_in {}
// SAFETY: integers and arrays of integers.
unsafe impl Plain for libc::sockaddr_in6 {}
// SAFETY: integers and arrays of integers.
unsafe impl Plain for libc::sockaddr_storage {}
