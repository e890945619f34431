//! Drawing names for connections: the process's slot, then 22 bits that nobody else can guess and that come again only after
//! all others.

use std::hash::{DefaultHasher, Hasher};

use ibex_wire::mad::CommId;

/// Bits of a name below the slot.
pub(super) const INDEX_BITS: u32 = 22;

/// Half of them: a round of the permutation works on halves.
const HALF: u32 = INDEX_BITS / 2;

/// A counter seen through a secret permutation (a Feistel network of four rounds).
#[derive(Debug)]
pub(super) struct Ids {
    slot: u32,
    secret: [u64; 2],
    next: u32,
    salt: u32,
}

impl Ids {
    pub(super) fn new(slot: u16, secret: [u64; 2]) -> Ids {
        Ids { slot: u32::from(slot & 0x3ff), secret, next: keyed(secret, 0), salt: keyed(secret, u64::MAX) }
    }

    /// The next name; never [`CommId::NONE`]. The caller skips those still in use.
    pub(super) fn draw(&mut self) -> CommId {
        loop {
            self.next = self.next.wrapping_add(1) & ((1 << INDEX_BITS) - 1);
            let id = CommId(self.slot << INDEX_BITS | self.permute(self.next));
            if id != CommId::NONE {
                return id;
            }
        }
    }

    /// A transaction number for what this end begins: the name, behind bits that nobody else knows.
    pub(super) fn transaction(&self, id: CommId) -> u64 {
        u64::from(self.salt) << 32 | u64::from(id.0)
    }

    fn permute(&self, index: u32) -> u32 {
        let mask = (1 << HALF) - 1;
        let (mut left, mut right) = (index >> HALF, index & mask);
        for round in 1..=4_u32 {
            let mixed = left ^ keyed(self.secret, u64::from(round) << 32 | u64::from(right)) & mask;
            (left, right) = (right, mixed);
        }
        left << HALF | right
    }
}

/// A number that depends on all bits of both, and does not tell the secret.
fn keyed(secret: [u64; 2], value: u64) -> u32 {
    // SipHash; its own key is fixed, so the secret goes first.
    let mut hasher = DefaultHasher::new();
    hasher.write_u64(secret[0]);
    hasher.write_u64(secret[1]);
    hasher.write_u64(value);
    hasher.finish() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_the_slot_and_do_not_come_again() {
        let mut ids = Ids::new(1023, [1, 2]);
        let mut seen = vec![false; 1 << INDEX_BITS];
        for _ in 0..1 << INDEX_BITS {
            let id = ids.draw();
            assert_eq!(id.0 >> INDEX_BITS, 1023);
            let index = id.0 & ((1 << INDEX_BITS) - 1);
            assert!(!std::mem::replace(&mut seen[index as usize], true));
        }
    }

    #[test]
    fn no_connection_is_never_drawn() {
        let mut ids = Ids::new(0, [1, 2]);
        assert!((0..1 << INDEX_BITS).all(|_| ids.draw() != CommId::NONE));
    }

    #[test]
    fn neighbours_and_secrets_differ() {
        let draw = |secret| {
            let mut ids = Ids::new(0, secret);
            [ids.draw().0, ids.draw().0, ids.draw().0]
        };
        assert_ne!(draw([1, 2]), draw([1, 3]));
        let [a, b, c] = draw([1, 2]);
        assert_ne!(b.wrapping_sub(a), c.wrapping_sub(b));
    }
}
