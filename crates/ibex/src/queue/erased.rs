//! Values whose type is forgotten until they are taken out again.
//!
//! Up to three words are stored in place, larger values in a box, so that the buffers of this library move in and out
//! without allocation.
//!
//! # Safety
//! `data` holds a `T` (or a box of one) and `drop` is the function for that `T`, from `new` until `take` or `drop`.
#![allow(unsafe_code)]

use std::mem::{MaybeUninit, align_of, size_of};

/// Words stored in place: a [`Buf`](crate::Buf), a [`FrozenBuf`](crate::FrozenBuf), a vector.
const WORDS: usize = 3;

type Data = MaybeUninit<[usize; WORDS]>;

/// A value of some type that is `Send`.
pub(crate) struct Erased {
    data: Data,
    drop: unsafe fn(*mut Data),
}

/// Whether a type is stored in place.
const fn fits<T>() -> bool {
    size_of::<T>() <= size_of::<Data>() && align_of::<T>() <= align_of::<Data>()
}

/// Drops what is in place.
///
/// # Safety
/// `data` holds a `T`, which is not used afterwards.
unsafe fn drop_in_place<T>(data: *mut Data) {
    // SAFETY: the caller's promise; `new` checked size and alignment.
    unsafe { data.cast::<T>().drop_in_place() };
}

/// Drops what is in a box.
///
/// # Safety
/// `data` holds a `Box<T>`, which is not used afterwards.
unsafe fn drop_box<T>(data: *mut Data) {
    // SAFETY: the caller's promise; a box is one word.
    unsafe { data.cast::<Box<T>>().drop_in_place() };
}

impl Erased {
    #[inline]
    pub(crate) fn new<T: Send + 'static>(value: T) -> Self {
        let mut data = Data::uninit();
        if fits::<T>() {
            // SAFETY: size and alignment fit.
            unsafe { data.as_mut_ptr().cast::<T>().write(value) };
            Self { data, drop: drop_in_place::<T> }
        } else {
            // SAFETY: a box is one word.
            unsafe { data.as_mut_ptr().cast::<Box<T>>().write(Box::new(value)) };
            Self { data, drop: drop_box::<T> }
        }
    }

    /// The value, out of the place where it lies.
    ///
    /// # Safety
    /// `this` points at one made of a `T`, which is not used afterwards.
    #[inline]
    pub(crate) unsafe fn take<T: Send + 'static>(this: *const Self) -> T {
        // SAFETY: the caller's promise; a field of what it points at.
        let data = unsafe { &raw const (*this).data };
        if fits::<T>() {
            // SAFETY: a `T` lies in place, by the caller's promise.
            unsafe { data.cast::<T>().read() }
        } else {
            // SAFETY: a box of a `T` lies in place, by the caller's promise.
            *unsafe { data.cast::<Box<T>>().read() }
        }
    }
}

impl Drop for Erased {
    fn drop(&mut self) {
        // SAFETY: the function for what `data` holds, called once.
        unsafe { (self.drop)(&raw mut self.data) };
    }
}

// SAFETY: only values that are `Send` get in.
unsafe impl Send for Erased {}

#[cfg(test)]
mod tests {
    use std::mem::ManuallyDrop;
    use std::sync::Arc;

    use super::*;

    /// In and out again.
    fn there_and_back<T: Send + 'static>(value: T) -> T {
        let erased = ManuallyDrop::new(Erased::new(value));
        // SAFETY: made of a `T` and not used afterwards.
        unsafe { Erased::take::<T>(&raw const *erased) }
    }

    #[test]
    fn values_come_back_and_are_dropped_once() {
        let token = Arc::new(());
        let small = there_and_back((Arc::clone(&token), 7_u32));
        assert_eq!(small.1, 7);
        let large = there_and_back((Arc::clone(&token), [9_u64; 8]));
        assert_eq!(large.1, [9; 8]);
        drop((small, large));
        drop(Erased::new(Arc::clone(&token)));
        drop(Erased::new((Arc::clone(&token), [0_u64; 8])));
        assert_eq!(Arc::strong_count(&token), 1);
    }

    #[test]
    fn four_words() {
        assert_eq!(size_of::<Erased>(), 32);
    }
}
