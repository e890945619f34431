//! The port's tables: `ibv_query_gid(3)`, `ibv_query_gid_ex(3)`, `ibv_query_pkey(3)`.
//!
//! Owns their C side; the GIDs are [`crate::device`]'s.
//!
//! # Safety
//! As `object`.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_uint};
use std::mem::size_of;

use ibex_sys::{IBV_GID_TYPE_ROCE_V2, ibv_context, ibv_gid, ibv_gid_entry};

use super::context::{copy_prefix, shared};
use super::object::{caught, code, given, minus_one};
use crate::device;

/// The default partition, full member; the only one RoCE has.
const PKEY: u16 = 0xffff;

/// The GID at an index.
///
/// # Safety
/// `context` is open.
unsafe fn gid(context: *mut ibv_context, port: u32, index: u32) -> Result<[u8; 16], i32> {
    // SAFETY: the caller's promise.
    let nic = unsafe { shared(context) }?.nic()?;
    if port != 1 {
        return Err(libc::EINVAL);
    }
    device::gids(nic.wire.address()).get(index as usize).copied().ok_or(libc::EINVAL)
}

fn entry(raw: [u8; 16], index: u32) -> ibv_gid_entry {
    let gid_type = IBV_GID_TYPE_ROCE_V2.0;
    ibv_gid_entry { gid: ibv_gid { raw }, gid_index: index, port_num: 1, gid_type, ndev_ifindex: 0 }
}

/// `ibv_query_gid(3)`.
///
/// # Safety
/// `context` is open; `to` is writable.
pub unsafe extern "C" fn ibv_query_gid(
    context: *mut ibv_context,
    port: u8,
    index: c_int,
    to: *mut ibv_gid,
) -> c_int {
    minus_one(|| {
        let index = u32::try_from(index).map_err(|_| libc::EINVAL)?;
        // SAFETY: the caller's promise.
        let raw = unsafe { gid(context, u32::from(port), index) }?;
        // SAFETY: the caller's promise.
        unsafe { given(to)?.write(ibv_gid { raw }) }
        Ok(0)
    })
}

/// What verbs.h calls for `ibv_query_gid_ex(3)`.
///
/// # Safety
/// `context` is open; `size` bytes at `to` are writable.
pub unsafe extern "C" fn _ibv_query_gid_ex(
    context: *mut ibv_context,
    port: u32,
    index: u32,
    to: *mut ibv_gid_entry,
    flags: u32,
    size: usize,
) -> c_int {
    code(|| {
        if flags != 0 {
            return Err(libc::EOPNOTSUPP);
        }
        // SAFETY: the caller's promise.
        let raw = unsafe { gid(context, port, index) }?;
        // SAFETY: the caller's promise.
        unsafe { copy_prefix(&entry(raw, index), given(to)?, size) };
        Ok(())
    })
}

/// What verbs.h calls for `ibv_query_gid_table(3)`: the number of entries, or a negative errno.
///
/// # Safety
/// `context` is open; `most` entries of `size` bytes at `to` are writable.
pub unsafe extern "C" fn _ibv_query_gid_table(
    context: *mut ibv_context,
    to: *mut ibv_gid_entry,
    most: usize,
    flags: u32,
    size: usize,
) -> isize {
    let outcome = caught(|| {
        // SAFETY: the caller's promise.
        let nic = unsafe { shared(context) }?.nic()?;
        let table = device::gids(nic.wire.address());
        if flags != 0 || size < size_of::<ibv_gid_entry>() || most < table.len() {
            return Err(libc::EINVAL);
        }
        for (index, raw) in table.iter().enumerate() {
            let to = given(to)?.wrapping_byte_add(index * size);
            // SAFETY: the caller's promise; the table is no longer than `most`.
            unsafe { copy_prefix(&entry(*raw, index as u32), to, size) };
        }
        Ok(table.len() as isize)
    });
    outcome.unwrap_or_else(|errno| -(errno as isize))
}

/// `ibv_query_gid_type` of rdma-core's private interface, which `ibv_devinfo` uses: 1 for RoCEv2.
///
/// # Safety
/// `context` is open; `to` is writable.
pub unsafe extern "C" fn ibv_query_gid_type(
    context: *mut ibv_context,
    port: u8,
    index: c_uint,
    to: *mut c_uint,
) -> c_int {
    minus_one(|| {
        // SAFETY: the caller's promise.
        unsafe { gid(context, u32::from(port), index) }?;
        // SAFETY: the caller's promise.
        unsafe { *given(to)? = 1 }
        Ok(0)
    })
}

/// `ibv_query_pkey(3)`.
///
/// # Safety
/// `context` is open; `to` is writable.
pub unsafe extern "C" fn ibv_query_pkey(
    context: *mut ibv_context,
    port: u8,
    index: c_int,
    to: *mut u16,
) -> c_int {
    minus_one(|| {
        // SAFETY: the caller's promise.
        unsafe { shared(context) }?.nic()?;
        if port != 1 || index != 0 {
            return Err(libc::EINVAL);
        }
        // SAFETY: the caller's promise.
        unsafe { *given(to)? = PKEY.to_be() }
        Ok(0)
    })
}

/// `ibv_get_pkey_index(3)`.
///
/// # Safety
/// `context` is open.
pub unsafe extern "C" fn ibv_get_pkey_index(context: *mut ibv_context, port: u8, pkey: u16) -> c_int {
    minus_one(|| {
        // SAFETY: the caller's promise.
        unsafe { shared(context) }?.nic()?;
        if port != 1 || pkey != PKEY.to_be() {
            return Err(libc::EINVAL);
        }
        Ok(0)
    })
}
