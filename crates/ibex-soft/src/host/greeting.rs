//! What two processes tell each other when they attach: fixed-size messages on their connection.
//!
//! Owns the bytes. Both ends are on one host, so words are in its byte order; they may be of different builds, which the
//! magic tells. Descriptors travel beside them ([`super::ancillary`]).

/// Bytes of a greeting.
pub(crate) const GREETING: usize = 96;

/// Bytes that each process tells about its memory.
pub(crate) const EXTRA: usize = 64;

/// A name and a version: whoever shares a ring must agree on every byte of it.
const MAGIC: [u8; 8] = *b"ibxhost\x03";

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// From the process that was asked: with the rings' file, then page and counter of its bell.
    Accept,
    /// From the one that asked: with page and counter of its bell. Rings may be used from here on.
    Confirm,
}

/// A message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Greeting {
    pub(crate) kind: Kind,
    /// The sender's UDP port, by which its slots are recognised.
    pub(crate) port: u16,
    /// Its process number as it knows it.
    pub(crate) pid: i32,
    /// About its memory, see [`crate::host`].
    pub(crate) extra: [u8; EXTRA],
}

impl Greeting {
    pub(crate) fn emit(&self) -> [u8; GREETING] {
        let mut bytes = [0; GREETING];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8] = match self.kind {
            Kind::Accept => 1,
            Kind::Confirm => 2,
        };
        bytes[10..12].copy_from_slice(&self.port.to_ne_bytes());
        bytes[12..16].copy_from_slice(&self.pid.to_ne_bytes());
        bytes[GREETING - EXTRA..].copy_from_slice(&self.extra);
        bytes
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Greeting> {
        let bytes: &[u8; GREETING] = bytes.try_into().ok()?;
        let kind = match bytes[8] {
            1 => Kind::Accept,
            2 => Kind::Confirm,
            _ => return None,
        };
        let mut extra = [0; EXTRA];
        extra.copy_from_slice(&bytes[GREETING - EXTRA..]);
        let port = u16::from_ne_bytes([bytes[10], bytes[11]]);
        let pid = i32::from_ne_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
        (bytes[..8] == MAGIC).then_some(Greeting { kind, port, pid, extra })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greetings_survive_the_way() {
        let greeting = Greeting { kind: Kind::Accept, port: 50_000, pid: 4711, extra: [3; EXTRA] };
        let bytes = greeting.emit();
        assert_eq!(Greeting::parse(&bytes), Some(greeting));
        assert_eq!(Greeting::parse(&bytes[1..]), None);
        for at in 0..9 {
            let mut strange = bytes;
            strange[at] ^= 0x40;
            assert_eq!(Greeting::parse(&strange), None);
        }
    }
}
