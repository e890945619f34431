//! Queue pair numbers: 24 bits, of which the upper ten name the owning process's slot.
//!
//! Owns the arithmetic only; [`super::Wire`] gives numbers out. Slot 0 is nobody's, which keeps the
//! special numbers 0 and 1 (management) free; 0xff_ffff means multicast and is never given out.

/// Bits of a queue pair number below the slot: 16 384 queue pairs a slot.
pub(crate) const INDEX_BITS: u32 = 14;
/// Queue pairs a slot can number.
pub(crate) const INDICES: u32 = 1 << INDEX_BITS;
/// Slot numbers run from 1 to this one less.
pub(crate) const SLOTS: u16 = 1 << 10;
/// The destination number of multicast packets (IBTA 9.6), never a queue pair's own.
pub(crate) const MULTICAST: u32 = 0xff_ffff;

/// The queue pair number `index` of `slot`.
pub(crate) const fn join(slot: u16, index: u32) -> u32 {
    (slot as u32) << INDEX_BITS | (index & (INDICES - 1))
}

/// The slot that `qpn` belongs to, 0..=1023; 0 for the management queue pairs.
pub(crate) const fn slot(qpn: u32) -> u16 {
    ((qpn >> INDEX_BITS) & (SLOTS as u32 - 1)) as u16
}

/// The index of `qpn` inside its slot.
pub(crate) const fn index(qpn: u32) -> u32 {
    qpn & (INDICES - 1)
}

/// The destination of the packet that begins with these bytes (BTH bytes 5–7, IBTA 9.2).
///
/// # Panics
/// If there are fewer than eight bytes.
pub(super) fn destination(packet: &[u8]) -> u32 {
    u32::from_be_bytes([0, packet[5], packet[6], packet[7]])
}
