//! A queue whose elements lie in one piece.
//!
//! Owns where they stand: what is in the queue is a slice. A queue that runs empty begins again at the start of its memory, so
//! that one of a few elements at a time touches no more than one place.

use std::ops::{Deref, DerefMut};

/// First in, first out.
#[derive(Debug)]
pub(crate) struct Fifo<T> {
    /// Those before `head` have been taken out.
    places: Vec<T>,
    head: usize,
}

impl<T> Fifo<T> {
    pub(crate) const fn new() -> Fifo<T> {
        Fifo { places: Vec::new(), head: 0 }
    }

    #[inline(always)]
    pub(crate) fn push(&mut self, element: T) {
        if self.places.len() == self.places.capacity() {
            self.make_room();
        }
        self.places.push(element);
    }

    /// Moves what there is to the start, if that frees half of the places: each is moved once for every one that is taken out.
    #[cold]
    fn make_room(&mut self) {
        if self.head > 0 && self.head >= self.len() {
            self.places.drain(..self.head);
            self.head = 0;
        }
    }

    /// Takes out the oldest, if there is one.
    #[inline(always)]
    pub(crate) fn drop_front(&mut self) {
        if self.head < self.places.len() {
            self.head += 1;
        }
        if self.head == self.places.len() {
            self.clear();
        }
    }

    #[inline]
    pub(crate) fn clear(&mut self) {
        self.places.clear();
        self.head = 0;
    }
}

impl<T> Deref for Fifo<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        &self.places[self.head..]
    }
}

impl<T> DerefMut for Fifo<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.places[self.head..]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    #[test]
    fn behaves_as_a_queue_and_stays_small() {
        let mut queue = Fifo::new();
        let mut model = VecDeque::new();
        let mut state = 1_u64;
        for number in 0..200_000_u32 {
            // Up to 64 at once, now and then none.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if model.len() < 64 && state >> 63 == 0 {
                queue.push(number);
                model.push_back(number);
            } else {
                queue.drop_front();
                model.pop_front();
            }
            assert_eq!(queue.first(), model.front());
            assert_eq!(queue.last(), model.back());
            assert_eq!(queue.len(), model.len());
        }
        assert!(queue.iter().eq(model.iter()));
        assert!(queue.places.capacity() <= 256, "{}", queue.places.capacity());
    }

    #[test]
    fn an_empty_queue_begins_again_at_the_start() {
        let mut queue = Fifo::new();
        queue.push(1);
        let start = queue.as_ptr();
        for number in 0..100 {
            queue.push(number);
            queue.drop_front();
            queue.drop_front();
            queue.push(number);
            assert_eq!(queue.as_ptr(), start);
        }
    }
}
