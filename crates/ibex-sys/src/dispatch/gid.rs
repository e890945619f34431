//! The GID table in its newer form, and what a flow label makes of the UDP source port.
//!
//! Owns `ibv_query_gid_ex`, `ibv_query_gid_table`, `ibv_flow_label_to_udp_sport`.
//!
//! Man pages: `ibv_query_gid_ex(3)`, `ibv_query_gid_table(3)`.
//!
//! # Safety
//!
//! See [`crate::dispatch`].
#![allow(unsafe_code)]

use core::ffi::c_int;

use crate::Verbs;
use crate::verbs::{IB_ROCE_UDP_ENCAP_VALID_PORT_MIN, ibv_context, ibv_gid_entry};

/// Reads an entry of a port's GID table; 0, or an errno (ENODATA for an empty entry).
///
/// # Safety
///
/// `context` is live, `entry` is writable. See `ibv_query_gid_ex(3)`.
pub unsafe fn ibv_query_gid_ex(
    verbs: &Verbs,
    context: *mut ibv_context,
    port_num: u32,
    gid_index: u32,
    entry: *mut ibv_gid_entry,
    flags: u32,
) -> c_int {
    match verbs.query_gid_ex {
        // SAFETY: the caller's promise; the size is that of the caller's structure.
        Some(query) => unsafe {
            query(context, port_num, gid_index, entry, flags, size_of::<ibv_gid_entry>())
        },
        None => libc::EOPNOTSUPP,
    }
}

/// Reads the valid entries of all GID tables of a device; their number, or a negative errno.
///
/// # Safety
///
/// `context` is live, `entries` is writable for `max_entries` entries. See `ibv_query_gid_table(3)`.
pub unsafe fn ibv_query_gid_table(
    verbs: &Verbs,
    context: *mut ibv_context,
    entries: *mut ibv_gid_entry,
    max_entries: usize,
    flags: u32,
) -> isize {
    match verbs.query_gid_table {
        // SAFETY: the caller's promise; the size is that of one entry.
        Some(query) => unsafe { query(context, entries, max_entries, flags, size_of::<ibv_gid_entry>()) },
        None => -(libc::EOPNOTSUPP as isize),
    }
}

/// The UDP source port of RoCEv2 packets with this flow label (20 bits): its low 14 bits, mixed with the high 6.
pub fn ibv_flow_label_to_udp_sport(flow_label: u32) -> u16 {
    let low = flow_label & 0x3FFF;
    let high = flow_label & 0xF_C000;
    // 14 bits and the two constant ones above them: always fits.
    ((low ^ (high >> 14)) | IB_ROCE_UDP_ENCAP_VALID_PORT_MIN) as u16
}
