//! Meeting a peer out of band: what two queue pairs must know of each other, and how to exchange it.
//!
//! Owns [`Endpoint`] (40 bytes that travel), [`exchange`] and [`barrier`] over anything that reads and writes.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

use crate::addr::{Lid, Psn, Qpn};
use crate::attr::{Gid, Mtu};

/// Version of the fixed layout; an endpoint of another version is refused.
const VERSION: u8 = 1;
/// First byte of an endpoint: tells it from the greetings of other protocols.
const MAGIC: u8 = 0xb5;
/// What [`barrier`] sends.
const READY: u8 = 0xb6;

/// An error of the exchange.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// Fabric: the channel to the peer failed.
    #[error("cannot exchange endpoints with the peer")]
    Io(#[from] io::Error),
    /// Peer: what it sent is not an endpoint.
    #[error("the peer did not send an endpoint: {why}; does it speak the same version of ibex?")]
    NotAnEndpoint {
        /// What is wrong.
        why: &'static str,
    },
}

/// What a peer must know to connect to a queue pair.
///
/// Made by [`QueuePair::endpoint`](crate::QueuePair::endpoint). Travels as serde or as 40 bytes of fixed little-endian
/// layout with a check sum.
///
/// | bytes | 0 | 1 | 2 | 3 | 4..8 | 8..12 | 12..14 | 14..16 | 16..32 | 32..36 | 36..40 |
/// |---|---|---|---|---|---|---|---|---|---|---|---|
/// | | 0xb5 | version, 1 | MTU (1 to 5) | READs | QPN | PSN | LID | zero | GID | zero | check |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Endpoint {
    /// Number of the queue pair.
    pub qpn: Qpn,
    /// Sequence number of the first packet it will send.
    pub psn: Psn,
    /// Its port's GID; zero if it has none (InfiniBand within one subnet).
    pub gid: Gid,
    /// Its port's LID; 0 on RoCE.
    pub lid: Lid,
    /// The largest MTU its port does.
    pub mtu: Mtu,
    /// READs and atomics of the peer it serves at once.
    pub rd_atomic: u8,
}

impl Endpoint {
    /// Bytes of the fixed layout.
    pub const SIZE: usize = 40;

    /// An endpoint of something else than an ibex queue pair: a C program, say.
    #[must_use]
    pub const fn new(qpn: Qpn, psn: Psn, gid: Gid, lid: Lid, mtu: Mtu, rd_atomic: u8) -> Self {
        Self { qpn, psn, gid, lid, mtu, rd_atomic }
    }

    /// The fixed layout.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..4].copy_from_slice(&[MAGIC, VERSION, self.mtu as u8, self.rd_atomic]);
        bytes[4..8].copy_from_slice(&self.qpn.get().to_le_bytes());
        bytes[8..12].copy_from_slice(&self.psn.get().to_le_bytes());
        bytes[12..14].copy_from_slice(&self.lid.0.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.gid.0);
        let check = crate::check::fnv1a(&bytes[..36]);
        bytes[36..].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    /// Reads the fixed layout.
    ///
    /// # Errors
    /// [`ExchangeError::NotAnEndpoint`].
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Result<Self, ExchangeError> {
        let bad = |why| Err(ExchangeError::NotAnEndpoint { why });
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if bytes[0] != MAGIC {
            return bad("it begins with something else");
        }
        if bytes[1] != VERSION {
            return bad("its version is unknown");
        }
        if crate::check::fnv1a(&bytes[..36]) != word(36) {
            return bad("its check sum is wrong");
        }
        let Some(mtu) = Mtu::ALL.into_iter().find(|mtu| *mtu as u8 == bytes[2]) else {
            return bad("its MTU is unknown");
        };
        let mut gid = Gid::ZERO;
        gid.0.copy_from_slice(&bytes[16..32]);
        Ok(Self {
            qpn: Qpn::new(word(4)),
            psn: Psn::new(word(8)),
            gid,
            lid: Lid(u16::from_le_bytes([bytes[12], bytes[13]])),
            mtu,
            rd_atomic: bytes[3],
        })
    }
}

/// Sends `local` to the peer at the other end of `channel` and returns the peer's. Both sides call it; neither goes first.
///
/// # Errors
/// [`ExchangeError::Io`] if the channel fails, [`ExchangeError::NotAnEndpoint`] if something else speaks at the other end.
pub fn exchange(channel: &mut (impl Read + Write), local: Endpoint) -> Result<Endpoint, ExchangeError> {
    channel.write_all(&local.to_bytes())?;
    channel.flush()?;
    let mut bytes = [0; Endpoint::SIZE];
    channel.read_exact(&mut bytes)?;
    Endpoint::from_bytes(&bytes)
}

/// Returns when the peer at the other end of `channel` has called it too: afterwards both queue pairs are connected, and
/// the first message is not sent to one that is not.
///
/// # Errors
/// [`ExchangeError::Io`] if the channel fails, [`ExchangeError::NotAnEndpoint`] if something else speaks at the other end.
pub fn barrier(channel: &mut (impl Read + Write)) -> Result<(), ExchangeError> {
    channel.write_all(&[READY])?;
    channel.flush()?;
    let mut byte = [0];
    channel.read_exact(&mut byte)?;
    match byte {
        [READY] => Ok(()),
        _ => Err(ExchangeError::NotAnEndpoint { why: "it is not at the barrier" }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn endpoint() -> Endpoint {
        let gid = "10.0.0.1".parse().unwrap();
        Endpoint::new(Qpn::new(0x11), Psn::new(0xabcdef), gid, Lid(3), Mtu::B1024, 16)
    }

    #[test]
    fn bytes_come_back_and_damage_is_noticed() {
        let good = endpoint().to_bytes();
        assert_eq!(Endpoint::from_bytes(&good).unwrap(), endpoint());
        for at in 0..Endpoint::SIZE {
            let mut bad = good;
            bad[at] ^= 0x40;
            assert!(Endpoint::from_bytes(&bad).is_err(), "byte {at}");
        }
        let json = serde_json::to_string(&endpoint()).unwrap();
        assert_eq!(serde_json::from_str::<Endpoint>(&json).unwrap(), endpoint());
    }

    #[test]
    fn both_sides_exchange_and_meet() {
        let (mut left, mut right) = UnixStream::pair().unwrap();
        let other = Endpoint { qpn: Qpn::new(0x12), ..endpoint() };
        let peer = std::thread::spawn(move || {
            let peer = exchange(&mut right, other).unwrap();
            barrier(&mut right).unwrap();
            peer
        });
        assert_eq!(exchange(&mut left, endpoint()).unwrap(), other);
        barrier(&mut left).unwrap();
        assert_eq!(peer.join().unwrap(), endpoint());
    }
}
