//! Handles by which a peer names exposed memory, and checked ranges of it.
//!
//! Owns [`RemoteHandle`] (32 bytes that travel) and what is made of it on the side that uses it: [`RemoteRegion`],
//! [`RemoteSlice`], [`RemoteU64`]. All of them are plain numbers: a forged or stale handle can reach only memory that
//! its owner exposed and never holds behind a reference (I2), or is refused by the owner's device.

use std::fmt;
use std::ops::{Bound, RangeBounds};

use serde::{Deserialize, Serialize};

use super::{Access, MemoryError};
use crate::addr::Rkey;

/// Version of the fixed layout; a handle of another version is refused.
const VERSION: u8 = 1;

/// Exposed memory, as told to a peer: address, length, key, rights and generation.
///
/// Send it by any means: [`to_bytes`](Self::to_bytes) is 32 bytes of fixed little-endian layout with a check sum, and
/// the type is serde. The receiver makes it usable with [`QueuePair::bind`](crate::QueuePair::bind).
///
/// | bytes | 0 | 1 | 2..4 | 4..8 | 8..16 | 16..24 | 24..28 | 28..32 |
/// |---|---|---|---|---|---|---|---|---|
/// | | version, 1 | access | zero | rkey | address | length | generation | check |
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RemoteHandle {
    pub(crate) addr: u64,
    pub(crate) len: u64,
    pub(crate) rkey: Rkey,
    pub(crate) generation: u32,
    pub(crate) access: Access,
}

impl RemoteHandle {
    /// Bytes of the fixed layout.
    pub const SIZE: usize = 32;

    /// A handle of memory that something else than [`SharedRegion`](crate::SharedRegion) exposed: a C program, say.
    #[must_use]
    pub const fn from_parts(addr: u64, len: u64, rkey: Rkey, access: Access) -> Self {
        Self { addr, len, rkey, generation: 0, access }
    }

    /// The fixed layout.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[0] = VERSION;
        bytes[1] = self.access.bits();
        bytes[4..8].copy_from_slice(&self.rkey.0.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.addr.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.len.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.generation.to_le_bytes());
        let check = crate::check::fnv1a(&bytes[..28]);
        bytes[28..].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    /// Reads the fixed layout.
    ///
    /// # Errors
    /// [`MemoryError::BadHandle`] if it is of another version, damaged, or names a range that wraps around.
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Result<Self, MemoryError> {
        let bad = |why| Err(MemoryError::BadHandle { why });
        if bytes[0] != VERSION {
            return bad("its version is unknown");
        }
        if crate::check::fnv1a(&bytes[..28]) != word(bytes, 28) {
            return bad("its check sum is wrong");
        }
        let Some(access) = Access::from_bits(bytes[1]) else { return bad("its access rights are unknown") };
        let handle = Self {
            addr: u64::from(word(bytes, 8)) | u64::from(word(bytes, 12)) << 32,
            len: u64::from(word(bytes, 16)) | u64::from(word(bytes, 20)) << 32,
            rkey: Rkey(word(bytes, 4)),
            generation: word(bytes, 24),
            access,
        };
        handle.checked()
    }

    /// Checks what no sender of a valid handle can get wrong.
    pub(crate) fn checked(self) -> Result<Self, MemoryError> {
        match self.addr.checked_add(self.len) {
            Some(_) => Ok(self),
            None => Err(MemoryError::BadHandle { why: "its range wraps around the address space" }),
        }
    }

    /// Length of the memory in bytes.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// True if the handle names no byte.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Address in the owner's address space.
    #[must_use]
    pub const fn addr(&self) -> u64 {
        self.addr
    }

    /// The key.
    #[must_use]
    pub const fn rkey(&self) -> Rkey {
        self.rkey
    }

    /// What may be done with the memory.
    #[must_use]
    pub const fn access(&self) -> Access {
        self.access
    }

    /// Number of the exposure, by which its owner tells an old handle from a new one of the same memory.
    #[must_use]
    pub const fn generation(&self) -> u32 {
        self.generation
    }
}

/// The little-endian word at `at`.
fn word(bytes: &[u8; RemoteHandle::SIZE], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

impl fmt::Debug for RemoteHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "RemoteHandle({:#x}..+{}, rkey {}, {}, generation {})",
            self.addr, self.len, self.rkey, self.access, self.generation
        )
    }
}

/// A peer's exposed memory, ready to be named in operations. Made by [`QueuePair::bind`](crate::QueuePair::bind).
///
/// Ranges are cut from it by [`at`](Self::at), [`slice`](Self::slice) and [`u64_at`](Self::u64_at), which check bounds
/// once; operations then only compare lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteRegion {
    handle: RemoteHandle,
}

impl RemoteRegion {
    pub(crate) fn new(handle: RemoteHandle) -> Result<Self, MemoryError> {
        Ok(Self { handle: handle.checked()? })
    }

    /// The handle this was made of.
    #[must_use]
    pub const fn handle(&self) -> &RemoteHandle {
        &self.handle
    }

    /// Length of the memory in bytes.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.handle.len
    }

    /// True if there is no byte in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.handle.len == 0
    }

    /// All of it.
    #[must_use]
    pub const fn all(&self) -> RemoteSlice {
        let RemoteHandle { addr, len, rkey, access, .. } = self.handle;
        RemoteSlice { addr, len, rkey, access }
    }

    /// From `offset` to the end; empty when `offset` lies at or behind the end, so that an operation on it is refused
    /// with both lengths in the message.
    #[must_use]
    pub const fn at(&self, offset: u64) -> RemoteSlice {
        let all = self.all();
        let offset = if offset < all.len { offset } else { all.len };
        RemoteSlice { addr: all.addr + offset, len: all.len - offset, rkey: all.rkey, access: all.access }
    }

    /// The range of bytes `range`.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`] if it is not inside the region.
    pub fn slice(&self, range: impl RangeBounds<u64>) -> Result<RemoteSlice, MemoryError> {
        self.all().slice(range)
    }

    /// The word of 8 bytes at `offset`, for atomics.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`] if it is not inside the region, [`MemoryError::Misaligned`] if its address is not a
    /// multiple of 8.
    pub fn u64_at(&self, offset: u64) -> Result<RemoteU64, MemoryError> {
        let end = offset.saturating_add(8);
        let slice = self.slice(offset..end)?;
        if !slice.addr.is_multiple_of(8) {
            return Err(MemoryError::Misaligned { addr: slice.addr });
        }
        Ok(RemoteU64 { addr: slice.addr, rkey: slice.rkey, access: slice.access })
    }
}

/// A range of a peer's exposed memory: the target of a WRITE or the source of a READ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteSlice {
    pub(crate) addr: u64,
    pub(crate) len: u64,
    pub(crate) rkey: Rkey,
    pub(crate) access: Access,
}

impl RemoteSlice {
    /// Length in bytes.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// True if there is no byte in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The range of bytes `range` within this one.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`] if it is not inside.
    pub fn slice(&self, range: impl RangeBounds<u64>) -> Result<Self, MemoryError> {
        let start = match range.start_bound() {
            Bound::Included(&start) => Some(start),
            Bound::Excluded(&before) => before.checked_add(1),
            Bound::Unbounded => Some(0),
        };
        let end = match range.end_bound() {
            Bound::Included(&last) => last.checked_add(1),
            Bound::Excluded(&end) => Some(end),
            Bound::Unbounded => Some(self.len),
        };
        match (start, end) {
            (Some(start), Some(end)) if start <= end && end <= self.len => {
                Ok(Self { addr: self.addr + start, len: end - start, ..*self })
            }
            _ => Err(MemoryError::OutOfBounds {
                start: start.unwrap_or(u64::MAX),
                end: end.unwrap_or(u64::MAX),
                len: self.len,
            }),
        }
    }
}

/// A word of a peer's exposed memory, aligned to 8: the target of an atomic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteU64 {
    pub(crate) addr: u64,
    pub(crate) rkey: Rkey,
    pub(crate) access: Access,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle() -> RemoteHandle {
        RemoteHandle::from_parts(0x1000, 4096, Rkey(7), Access::REMOTE_WRITE | Access::REMOTE_ATOMIC)
    }

    #[test]
    fn bytes_are_as_documented_and_come_back() {
        let bytes = handle().to_bytes();
        assert_eq!(bytes[..8], [1, 0b1010, 0, 0, 7, 0, 0, 0]);
        assert_eq!(bytes[8..16], 0x1000_u64.to_le_bytes());
        assert_eq!(bytes[16..24], 4096_u64.to_le_bytes());
        assert_eq!(RemoteHandle::from_bytes(&bytes).unwrap(), handle());
        let json = serde_json::to_string(&handle()).unwrap();
        assert_eq!(serde_json::from_str::<RemoteHandle>(&json).unwrap(), handle());
    }

    #[test]
    fn every_damaged_byte_is_noticed() {
        let good = handle().to_bytes();
        for at in 0..RemoteHandle::SIZE {
            let mut bad = good;
            bad[at] ^= 0x10;
            assert!(RemoteHandle::from_bytes(&bad).is_err(), "byte {at}");
        }
    }

    #[test]
    fn ranges_that_wrap_are_refused() {
        let handle = RemoteHandle::from_parts(u64::MAX - 10, 11, Rkey(1), Access::REMOTE_READ);
        assert!(RemoteHandle::from_bytes(&handle.to_bytes()).is_err());
        assert!(RemoteRegion::new(handle).is_err());
    }

    #[test]
    fn bounds_are_checked_once() {
        let region = RemoteRegion::new(handle()).unwrap();
        assert_eq!(region.at(4095).len(), 1);
        assert_eq!(region.at(5000).len(), 0);
        assert_eq!(region.slice(10..=19).unwrap().len(), 10);
        assert_eq!(region.slice(10..20).unwrap().slice(5..).unwrap().addr, 0x1000 + 15);
        assert!(region.slice(4000..4097).is_err());
        #[expect(clippy::reversed_empty_ranges, reason = "a reversed range is what is tested")]
        let reversed = region.slice(9..8);
        assert!(reversed.is_err());
        assert!(region.slice(..=u64::MAX).is_err());
        assert!(region.u64_at(4088).is_ok());
        assert!(matches!(region.u64_at(4089), Err(MemoryError::OutOfBounds { .. })));
        assert!(matches!(region.u64_at(4), Err(MemoryError::Misaligned { .. })));
    }
}
