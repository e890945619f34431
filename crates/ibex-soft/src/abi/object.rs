//! C objects with their Rust insides, and the wall that panics do not pass.
//!
//! Owns how a pointer of the program's becomes a reference, and the return conventions: an errno as the value, −1 with
//! errno, a null pointer with errno. Does not own any object's rules.
//!
//! # Safety
//! An [`Object`] starts with the C structure, so that the program's pointer to that is a pointer to the whole. Objects
//! are made by [`Object::publish`] and end in [`Object::reclaim`]; between the two, references to the inside are shared
//! ones. That the program passes only pointers it was given, and none after the call that destroys the object, is the
//! man pages' rule for every function.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::os::set_errno;

/// A C structure and what the device knows besides.
#[repr(C)]
pub(super) struct Object<C, S> {
    pub(super) c: C,
    pub(super) soft: S,
}

/// Room for an object whose address has to be known before it is made.
pub(super) struct Room<C, S>(Box<MaybeUninit<Object<C, S>>>);

impl<C, S> Room<C, S> {
    pub(super) fn new() -> Room<C, S> {
        Room(Box::new_uninit())
    }

    /// The address the object will have, by which events name it.
    pub(super) fn name(&self) -> usize {
        self.0.as_ptr().expose_provenance()
    }

    /// Fills the room; the object now belongs to the program.
    pub(super) fn publish(self, c: C, soft: S) -> *mut C {
        Box::into_raw(Box::write(self.0, Object { c, soft })).cast()
    }
}

impl<C, S> Object<C, S> {
    /// Gives an object to the program.
    pub(super) fn publish(c: C, soft: S) -> *mut C {
        Room::new().publish(c, soft)
    }

    /// The inside of a program's object.
    ///
    /// # Safety
    /// `c` came from `publish` of this very type and has not been reclaimed; it is not for as long as the reference is
    /// used.
    pub(super) unsafe fn soft<'a>(c: *mut C) -> &'a S {
        let whole = c.cast::<Object<C, S>>();
        // SAFETY: the caller's promise; the field is never borrowed exclusively while published.
        unsafe { &(*whole).soft }
    }

    /// Takes an object back from the program.
    ///
    /// # Safety
    /// `c` came from `publish` of this very type; nothing uses it any more.
    pub(super) unsafe fn reclaim(c: *mut C) -> Box<Object<C, S>> {
        // SAFETY: the caller's promise.
        unsafe { Box::from_raw(c.cast()) }
    }
}

/// An object's pointer from the name that events carry.
pub(super) fn named<C>(name: usize) -> *mut C {
    std::ptr::with_exposed_provenance_mut(name)
}

static PANICKED: AtomicBool = AtomicBool::new(false);

/// Runs the body of an exported function; a panic becomes `EIO`, from then on for every function.
#[inline]
pub(super) fn caught<R>(body: impl FnOnce() -> Result<R, i32>) -> Result<R, i32> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| {
        PANICKED.store(true, Ordering::Relaxed);
        Err(libc::EIO)
    })
}

/// Whether a function of this library has panicked: its device cannot be trusted any more.
#[inline]
pub(super) fn panicked() -> bool {
    PANICKED.load(Ordering::Relaxed)
}

/// Convention "0 or an errno"; sets errno as well, which some programs print.
pub(super) fn code(body: impl FnOnce() -> Result<(), i32>) -> c_int {
    match caught(body) {
        Ok(()) => 0,
        Err(errno) => {
            set_errno(errno);
            errno
        }
    }
}

/// Convention "a result, or −1 with errno".
pub(super) fn minus_one(body: impl FnOnce() -> Result<c_int, i32>) -> c_int {
    caught(body).unwrap_or_else(|errno| {
        set_errno(errno);
        -1
    })
}

/// Convention "a pointer, or null with errno".
pub(super) fn pointer<T>(body: impl FnOnce() -> Result<*mut T, i32>) -> *mut T {
    caught(body).unwrap_or_else(|errno| {
        set_errno(errno);
        std::ptr::null_mut()
    })
}

/// Refuses null where the C side must give an object.
pub(super) fn given<T>(pointer: *mut T) -> Result<*mut T, i32> {
    if pointer.is_null() { Err(libc::EINVAL) } else { Ok(pointer) }
}
