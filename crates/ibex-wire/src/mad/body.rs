//! Reading and writing the fields of a message body: big-endian numbers, and groups of bits counted from the high end.
//!
//! Owns no layout; each message's file does. Offsets are constants of a fixed-length body, so the checks fold away.

use super::BODY_LEN;
use crate::header::field;

/// The bytes after the common header.
pub(super) type Body = [u8; BODY_LEN];

#[inline]
pub(super) fn get_u16(body: &Body, at: usize) -> u16 {
    u16::from_be_bytes(field(body, at))
}

#[inline]
pub(super) fn get_u24(body: &Body, at: usize) -> u32 {
    u32::from_be_bytes(field(body, at)) >> 8
}

#[inline]
pub(super) fn get_u32(body: &Body, at: usize) -> u32 {
    u32::from_be_bytes(field(body, at))
}

#[inline]
pub(super) fn get_u64(body: &Body, at: usize) -> u64 {
    u64::from_be_bytes(field(body, at))
}

/// `width` bits of the byte at `at`, after skipping `skip` bits from the high end.
#[inline]
pub(super) fn get_bits(body: &Body, at: usize, skip: u32, width: u32) -> u8 {
    body[at] >> (8 - skip - width) & low_bits(width)
}

#[inline]
pub(super) fn get_flag(body: &Body, at: usize, skip: u32) -> bool {
    get_bits(body, at, skip, 1) != 0
}

#[inline]
pub(super) fn put(body: &mut Body, at: usize, bytes: &[u8]) {
    body[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Writes the low 24 bits of `value`, leaving the byte after them alone.
#[inline]
pub(super) fn put_u24(body: &mut Body, at: usize, value: u32) {
    put(body, at, &value.to_be_bytes()[1..]);
}

/// Writes the low `width` bits of `value`, leaving the others of the byte alone.
#[inline]
pub(super) fn put_bits(body: &mut Body, at: usize, skip: u32, width: u32, value: u8) {
    let shift = 8 - skip - width;
    let mask = low_bits(width) << shift;
    body[at] = body[at] & !mask | value << shift & mask;
}

#[inline]
pub(super) fn put_flag(body: &mut Body, at: usize, skip: u32, value: bool) {
    put_bits(body, at, skip, 1, u8::from(value));
}

/// A byte with the low `width` bits set; `width` is 1 to 7.
const fn low_bits(width: u32) -> u8 {
    (1 << width) - 1
}
