//! A queue that mostly holds one element.
//!
//! Owns where elements stand: the first one to come to an empty queue in the queue itself, those behind it in memory of their
//! own. So a connection that has one request at a time, among thousands of others, touches no memory besides its own.

use std::collections::VecDeque;
use std::ops::{Index, IndexMut};

/// A queue.
pub(crate) struct Queue<T> {
    /// The oldest element, unless it came when there were others.
    near: Option<T>,
    rest: VecDeque<T>,
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue { near: None, rest: VecDeque::new() }
    }
}

impl<T> Queue<T> {
    #[inline]
    pub(crate) fn len(&self) -> usize {
        usize::from(self.near.is_some()) + self.rest.len()
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.near.is_none() && self.rest.is_empty()
    }

    #[inline]
    pub(crate) fn push_back(&mut self, element: T) {
        if self.is_empty() {
            self.near = Some(element);
        } else {
            self.rest.push_back(element);
        }
    }

    #[inline]
    pub(crate) fn pop_front(&mut self) -> Option<T> {
        match self.near.take() {
            Some(element) => Some(element),
            None => self.rest.pop_front(),
        }
    }

    #[inline]
    pub(crate) fn front(&self) -> Option<&T> {
        self.near.as_ref().or_else(|| self.rest.front())
    }

    #[inline]
    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        match (&self.near, index) {
            (None, _) => self.rest.get(index),
            (Some(near), 0) => Some(near),
            (Some(_), _) => self.rest.get(index - 1),
        }
    }

    #[inline]
    fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        match (&mut self.near, index) {
            (None, _) => self.rest.get_mut(index),
            (Some(near), 0) => Some(near),
            (Some(_), _) => self.rest.get_mut(index - 1),
        }
    }

    /// The index of the first element for which `before` is false, as for all after it.
    pub(crate) fn partition_point(&self, mut before: impl FnMut(&T) -> bool) -> usize {
        match &self.near {
            None => self.rest.partition_point(before),
            Some(near) if before(near) => 1 + self.rest.partition_point(before),
            Some(_) => 0,
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.near.iter().chain(&self.rest)
    }

    pub(crate) fn clear(&mut self) {
        self.near = None;
        self.rest.clear();
    }
}

impl<T> Index<usize> for Queue<T> {
    type Output = T;

    #[inline]
    fn index(&self, index: usize) -> &T {
        self.get(index).expect("an index below the length")
    }
}

impl<T> IndexMut<usize> for Queue<T> {
    #[inline]
    fn index_mut(&mut self, index: usize) -> &mut T {
        self.get_mut(index).expect("an index below the length")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_come_out_in_order_and_have_the_places_of_a_plain_queue() {
        let (mut queue, mut plain) = (Queue::default(), VecDeque::new());
        let mut state = 1u32;
        for number in 0..10_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if state >> 30 != 0 && plain.len() < 5 {
                queue.push_back(number);
                plain.push_back(number);
            } else {
                assert_eq!(queue.pop_front(), plain.pop_front());
            }
            assert_eq!((queue.len(), queue.is_empty()), (plain.len(), plain.is_empty()));
            assert_eq!(queue.front(), plain.front());
            assert!(queue.iter().eq(&plain));
            for index in 0..6 {
                assert_eq!(queue.get(index), plain.get(index));
                assert_eq!(queue.get_mut(index), plain.get_mut(index));
            }
            let middle = number - 2;
            assert_eq!(queue.partition_point(|&at| at < middle), plain.partition_point(|&at| at < middle));
        }
        queue.clear();
        assert!(queue.is_empty());
    }
}
