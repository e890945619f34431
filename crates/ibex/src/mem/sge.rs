//! The traits of memory that operations take.
//!
//! Owns [`Source`] (the device reads it) and [`Sink`] (the device may write it). An operation owns such a value from its
//! post to its completion, and hands it back with the result.
//!
//! # Safety
//! Implementations promise what the trait docs ask for; this file implements them for lists only.
#![allow(unsafe_code)]

use ibex_sys::ibv_sge;

use super::MAX_MESSAGE;

/// Memory the device may read.
///
/// Implemented by [`Buf`](crate::Buf), [`FrozenBuf`](crate::FrozenBuf), [`Registered`](crate::Registered), slices of a
/// [`SharedRegion`](crate::SharedRegion), and lists of these.
///
/// # Safety
/// While a value of the type exists, without any use of `&mut` on it, every piece that [`gather`](Self::gather) names must
/// stay registered under the key given with it and mapped, moving the value must not move the memory, and no safe code may
/// change it (memory that is never behind a reference excepted). Two calls without a `&mut` use in between must name the
/// same pieces.
pub unsafe trait Source: Sized + Send + 'static {
    /// Bytes in all pieces.
    fn bytes(&self) -> usize;

    /// The same as the length of a message, or `None` if no message is that long (2 GiB).
    #[inline]
    fn message(&self) -> Option<u32> {
        let bytes = self.bytes();
        // At most 2^31.
        (bytes <= MAX_MESSAGE).then_some(bytes as u32)
    }

    /// Writes the pieces to `list`, as many as fit, and returns how many there are.
    fn gather(&self, list: &mut [ibv_sge]) -> usize;

    /// Called when a receive into this memory has completed with `bytes` bytes: takes note of the length, and returns how
    /// many of them lie beyond this memory.
    #[inline]
    fn received(&mut self, bytes: u32) -> u32 {
        bytes
    }
}

/// Memory the device may write.
///
/// # Safety
/// As [`Source`], and no safe code may read the memory either while the value is not borrowed; its registration allows
/// local writes. The same holds for the pieces that [`scatter`](Self::scatter) names.
pub unsafe trait Sink: Source {
    /// Writes the pieces with room for a message to `list`, as many as fit, and returns how many there are. Other than
    /// [`gather`](Source::gather) it names the whole capacity and not the present content.
    fn scatter(&self, list: &mut [ibv_sge]) -> usize;
}

// SAFETY: a vector owns its elements, each of which keeps the promise; moving the vector moves no element.
unsafe impl<S: Source> Source for Vec<S> {
    fn bytes(&self) -> usize {
        self.iter().map(Source::bytes).sum()
    }

    fn gather(&self, list: &mut [ibv_sge]) -> usize {
        self.iter().fold(0, |at, element| at + element.gather(list.get_mut(at..).unwrap_or_default()))
    }

    /// Spreads the length over the elements in order.
    fn received(&mut self, bytes: u32) -> u32 {
        self.iter_mut().fold(bytes, |rest, element| element.received(rest))
    }
}

// SAFETY: as for `Source`.
unsafe impl<S: Sink> Sink for Vec<S> {
    fn scatter(&self, list: &mut [ibv_sge]) -> usize {
        self.iter().fold(0, |at, element| at + element.scatter(list.get_mut(at..).unwrap_or_default()))
    }
}
