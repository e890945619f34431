//! The check sum of the small fixed layouts that travel out of band: 32-bit FNV-1a.
//!
//! It catches truncation, the wrong kind of bytes and foreign versions; it does not authenticate.

/// The check sum of `bytes`.
pub(crate) fn fnv1a(bytes: &[u8]) -> u32 {
    // Offset basis and prime of the 32-bit variant, as published by its authors.
    bytes.iter().fold(0x811c_9dc5, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    #[test]
    fn published_vectors() {
        assert_eq!(super::fnv1a(b""), 0x811c_9dc5);
        assert_eq!(super::fnv1a(b"a"), 0xe40c_292c);
        assert_eq!(super::fnv1a(b"foobar"), 0xbf9c_f968);
    }
}
