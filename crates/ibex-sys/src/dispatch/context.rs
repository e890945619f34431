//! The way from an `ibv_context` to the extended operations around it.
//!
//! Owns `verbs_get_ctx`, the bounds check by `sz`, and the macro that declares a verb which is nothing but a call through
//! `verbs_context`. The layout rule: offsets are counted backwards from the embedded context, so that a member exists if
//! its distance from the end is within `sz`, whichever version of the library allocated the structure.
//!
//! # Safety
//!
//! `verbs_context` may be shorter at its front than this crate's declaration. It is therefore never dereferenced as a
//! whole: members are read one by one through addresses computed from the context.
#![allow(unsafe_code)]

use core::ffi::c_int;
use core::mem::offset_of;

use crate::verbs::{__VERBS_ABI_IS_EXTENDED, ibv_context, verbs_context};

/// The extended context around `context`, or null if there is none.
///
/// The result may point before the start of the allocation, if an older library made it: only members within its `sz`
/// may be touched.
///
/// # Safety
///
/// `context` is a live device context.
#[inline]
pub unsafe fn verbs_get_ctx(context: *mut ibv_context) -> *mut verbs_context {
    // SAFETY: the context is live.
    let abi_compat = unsafe { (*context).abi_compat };
    if abi_compat == __VERBS_ABI_IS_EXTENDED {
        context.wrapping_byte_sub(offset_of!(verbs_context, context)).cast()
    } else {
        core::ptr::null_mut()
    }
}

/// Reads the member at `offset` of the extended context around `context`; `None` if there is no such context, it is too
/// short, or the member is null. The last argument only names the member's type.
///
/// # Safety
///
/// `context` is a live device context, and `offset` is that of a member of the type that `_member` gives.
#[inline]
pub(super) unsafe fn member<F: Copy>(
    context: *mut ibv_context,
    offset: usize,
    _member: fn(&verbs_context) -> &Option<F>,
) -> Option<F> {
    // SAFETY: the caller's promise.
    let extended = unsafe { verbs_get_ctx(context) };
    if extended.is_null() {
        return None;
    }
    let sz = extended.wrapping_byte_add(offset_of!(verbs_context, sz)).cast::<usize>();
    // SAFETY: in every extended context `sz` lies immediately before the embedded `ibv_context`.
    let sz = unsafe { sz.read() };
    if sz < size_of::<verbs_context>() - offset {
        return None;
    }
    let address = extended.wrapping_byte_add(offset).cast::<Option<F>>();
    // SAFETY: `sz` says that the allocation reaches back to this member.
    unsafe { address.read() }
}

/// The extended operation `$op` of a context, if the device has it: `verbs_get_ctx_op` of C.
macro_rules! ctx_op {
    ($context:expr, $op:ident) => {
        // SAFETY: the caller promises a live context; offset and type are of one and the same member.
        unsafe {
            $crate::dispatch::context::member(
                $context,
                core::mem::offset_of!($crate::verbs::verbs_context, $op),
                |it| &it.$op,
            )
        }
    };
}

/// Declares verbs that only call through `verbs_context`. In brackets: the member called, and how to get at the context:
/// from the argument that is a `context` itself, or from the `context` member of an `object` argument.
macro_rules! extended {
    ($( $(#[$meta:meta])*
        pub fn $name:ident [ $op:ident by $how:ident $on:ident ] ($($arg:ident: $ty:ty),* $(,)?) -> $ret:ty;
    )*) => { $(
        $(#[$meta])*
        ///
        /// # Safety
        ///
        /// As the man page says: the objects named are live and belong together, structures and arrays are valid.
        #[inline]
        pub unsafe fn $name($($arg: $ty),*) -> $ret {
            let owner = $crate::dispatch::context::extended!(@context $how $on);
            match $crate::dispatch::context::ctx_op!(owner, $op) {
                // SAFETY: the device's own function for this verb, with the caller's arguments.
                Some(op) => unsafe { op($($arg),*) },
                None => <$ret as $crate::dispatch::context::Unsupported>::unsupported(),
            }
        }
    )* };
    (@context context $context:ident) => { $context };
    (@context object $object:ident) => {
        // SAFETY: the object is live.
        unsafe { (*$object).context }
    };
}

pub(super) use {ctx_op, extended};

/// How "not supported" is said in a function's own convention.
pub(super) trait Unsupported {
    /// EOPNOTSUPP: as the value, or null with `errno`.
    fn unsupported() -> Self;
}

impl Unsupported for c_int {
    #[cold]
    fn unsupported() -> Self {
        libc::EOPNOTSUPP
    }
}

impl<T> Unsupported for *mut T {
    #[cold]
    fn unsupported() -> Self {
        fail(libc::EOPNOTSUPP)
    }
}

/// Null with this `errno`.
#[cold]
pub(super) fn fail<T>(errno: c_int) -> *mut T {
    set_errno(errno);
    core::ptr::null_mut()
}

/// Sets the calling thread's `errno`.
pub(super) fn set_errno(errno: c_int) {
    // SAFETY: no preconditions; the address belongs to this thread as long as it lives.
    let location = unsafe { libc::__errno_location() };
    // SAFETY: valid for writes, see above.
    unsafe { *location = errno };
}
