//! Private data: the bytes that programs send along with connection messages.
//!
//! A message has room for a fixed number of them and carries no length: what is not used is zero, and a receiver sees
//! all of it.

use core::fmt;
use core::ops::Deref;

/// The `N` bytes of private data in a message.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Private<const N: usize>([u8; N]);

/// More bytes than the message has room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooLong {
    /// Bytes given.
    pub len: usize,
    /// Bytes there are.
    pub max: usize,
}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TooLong { len, max } = self;
        write!(
            f,
            "{len} bytes of private data where the message has room for {max}; send less, or send it later"
        )
    }
}

impl core::error::Error for TooLong {}

impl<const N: usize> Private<N> {
    /// How many bytes there are.
    pub const LEN: usize = N;
    /// Nothing but zeros.
    pub const ZERO: Private<N> = Private([0; N]);

    /// These bytes, and zeros after them.
    ///
    /// # Errors
    ///
    /// There are more than `N`.
    pub fn new(bytes: &[u8]) -> Result<Private<N>, TooLong> {
        let mut out = [0; N];
        let room = out.get_mut(..bytes.len()).ok_or(TooLong { len: bytes.len(), max: N })?;
        room.copy_from_slice(bytes);
        Ok(Private(out))
    }

    /// All of them.
    pub fn as_bytes(&self) -> &[u8; N] {
        &self.0
    }
}

impl<const N: usize> Default for Private<N> {
    fn default() -> Private<N> {
        Private::ZERO
    }
}

impl<const N: usize> From<[u8; N]> for Private<N> {
    fn from(bytes: [u8; N]) -> Private<N> {
        Private(bytes)
    }
}

impl<const N: usize> Deref for Private<N> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl<const N: usize> fmt::Debug for Private<N> {
    /// Prints up to the last byte that is not zero.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = self.0.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        write!(f, "Private<{N}>(")?;
        for byte in &self.0[..used] {
            write!(f, "{byte:02x}")?;
        }
        f.write_str(")")
    }
}
