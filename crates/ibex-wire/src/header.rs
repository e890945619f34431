//! The shape shared by all headers: a fixed length, and moving along a slice.
//!
//! Owns no format; each header's file does.

/// A header of fixed length, read from and written to the front of slices.
pub trait Header: Sized {
    /// Bytes on the wire.
    const LEN: usize;

    /// Splits the header off the front of `bytes`; `None` if `bytes` is too short.
    fn split(bytes: &[u8]) -> Option<(Self, &[u8])>;

    /// Writes the header to the front of `out` and returns what follows; `None` if `out` is too short.
    fn put<'a>(&self, out: &'a mut [u8]) -> Option<&'a mut [u8]>;
}

/// Implements [`Header`] for a type with inherent `LEN`, `parse(&[u8; LEN])` and `emit(&self, &mut [u8; LEN])`.
macro_rules! header {
    ($name:ident) => {
        impl crate::Header for $name {
            const LEN: usize = $name::LEN;

            #[inline]
            fn split(bytes: &[u8]) -> Option<(Self, &[u8])> {
                let (head, rest) = bytes.split_first_chunk::<{ $name::LEN }>()?;
                Some(($name::parse(head), rest))
            }

            // Always: with the fields at hand, most of a header is constants.
            #[inline(always)]
            fn put<'a>(&self, out: &'a mut [u8]) -> Option<&'a mut [u8]> {
                let (head, rest) = out.split_first_chunk_mut::<{ $name::LEN }>()?;
                self.emit(head);
                Some(rest)
            }
        }
    };
}
pub(crate) use header;

/// Reads `N` bytes at `AT`. Both are constants of a fixed-length header, so the checks fold away.
#[inline(always)]
pub(crate) fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}
