//! Packet sequence numbers: 24-bit serial arithmetic.
//!
//! Owns wrap-around and the meaning of "before" and "after" (IBTA 9.7.2): of the 2^24 numbers, the half behind a
//! number precedes it, the other half follows. Windows and retransmission are `ibex-proto`'s.

use core::fmt;
use core::ops::{Add, AddAssign, Sub};

/// A packet sequence number, 24 bits, wrapping.
///
/// There is no `Ord`: on a circle "less" is not transitive. Ask [`Psn::distance_from`] or [`Psn::precedes`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Psn(u32);

impl Psn {
    /// One more than the largest value.
    pub const MODULUS: u32 = 1 << 24;
    /// Half of the circle: the most packets that may be outstanding.
    pub const HALF: u32 = 1 << 23;

    /// The number's low 24 bits.
    #[inline]
    pub const fn new(value: u32) -> Psn {
        Psn(value & (Psn::MODULUS - 1))
    }

    /// The number, below 2^24.
    #[inline]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Steps from `origin` forward to `self`, 0 to 2^24 − 1.
    #[inline]
    pub const fn forward_from(self, origin: Psn) -> u32 {
        self.0.wrapping_sub(origin.0) & (Psn::MODULUS - 1)
    }

    /// The shorter way from `origin` to `self`: −2^23 to 2^23 − 1. Exactly half the circle counts as behind.
    #[inline]
    pub const fn distance_from(self, origin: Psn) -> i32 {
        // Moving the 24 bits to the top lets the machine's sign bit be the number's.
        (self.0.wrapping_sub(origin.0) << 8) as i32 >> 8
    }

    /// Whether `self` comes before `other`.
    #[inline]
    pub const fn precedes(self, other: Psn) -> bool {
        self.distance_from(other) < 0
    }

    /// The next number.
    #[inline]
    pub const fn next(self) -> Psn {
        Psn::new(self.0.wrapping_add(1))
    }

    /// The number before.
    #[inline]
    pub const fn prev(self) -> Psn {
        Psn::new(self.0.wrapping_sub(1))
    }
}

impl Add<u32> for Psn {
    type Output = Psn;

    #[inline]
    fn add(self, steps: u32) -> Psn {
        Psn::new(self.0.wrapping_add(steps))
    }
}

impl AddAssign<u32> for Psn {
    #[inline]
    fn add_assign(&mut self, steps: u32) {
        *self = *self + steps;
    }
}

impl Sub<u32> for Psn {
    type Output = Psn;

    #[inline]
    fn sub(self, steps: u32) -> Psn {
        Psn::new(self.0.wrapping_sub(steps))
    }
}

impl fmt::Debug for Psn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Psn({:#08x})", self.0)
    }
}

impl fmt::Display for Psn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#08x}", self.0)
    }
}
