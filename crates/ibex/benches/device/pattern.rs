//! Payloads that show direction, number and place of every word, cheap enough to be checked while measuring.

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the asking side.
    There,
    Back,
}

/// Word `place` of message `number`. Odd multipliers: different numbers give different words; the constant added keeps
/// message 0 from being zero.
#[inline]
pub(crate) fn word(way: Way, number: u64, place: u64) -> u64 {
    let salt = match way {
        Way::There => 0x9e37_79b9_7f4a_7c15,
        Way::Back => 0xc2b2_ae3d_27d4_eb4f,
    };
    (number + 1).wrapping_mul(salt) ^ place.wrapping_mul(0x1656_67b1_9e37_79f9)
}
