//! Memory regions, windows and device memory.
//!
//! Owns `ibv_reg_mr` and `ibv_reg_mr_iova` with the header's choice of the exported function, windows, device memory,
//! null regions and advice.
//!
//! Man pages: `ibv_reg_mr(3)`, `ibv_alloc_mw(3)`, `ibv_bind_mw(3)`, `ibv_alloc_dm(3)`, `ibv_alloc_null_mr(3)`,
//! `ibv_advise_mr(3)`.
//!
//! # Safety
//!
//! See [`crate::dispatch`].
#![allow(unsafe_code)]

use core::ffi::{c_int, c_uint, c_void};

use super::context::{Unsupported, extended, fail};
use crate::Verbs;
use crate::verbs::{
    IBV_ACCESS_OPTIONAL_RANGE, IBV_MW_TYPE_1, ibv_advise_mr_advice, ibv_alloc_dm_attr, ibv_context, ibv_dm,
    ibv_mr, ibv_mw, ibv_mw_bind, ibv_mw_type, ibv_pd, ibv_qp, ibv_sge,
};

/// Registers memory; null with errno on failure.
///
/// Optional access flags (`IBV_ACCESS_OPTIONAL_RANGE`) go through `ibv_reg_mr_iova2`, which drops those that the kernel
/// does not know; a library without that function is given the other flags only.
///
/// # Safety
///
/// `pd` is live; the memory is mapped and stays so until the region is deregistered. See `ibv_reg_mr(3)`.
pub unsafe fn ibv_reg_mr(
    verbs: &Verbs,
    pd: *mut ibv_pd,
    addr: *mut c_void,
    length: usize,
    access: c_int,
) -> *mut ibv_mr {
    let optional = IBV_ACCESS_OPTIONAL_RANGE as c_int;
    match verbs.reg_mr_iova2 {
        // SAFETY: the caller's promise; the I/O address is the virtual one.
        Some(reg) if access & optional != 0 => unsafe {
            reg(pd, addr, length, addr as u64, access as c_uint)
        },
        // SAFETY: the caller's promise.
        _ => unsafe { (verbs.reg_mr)(pd, addr, length, access & !optional) },
    }
}

/// Registers memory under another address; null with errno on failure, EOPNOTSUPP if the library is too old for it.
///
/// # Safety
///
/// As for [`ibv_reg_mr`].
pub unsafe fn ibv_reg_mr_iova(
    verbs: &Verbs,
    pd: *mut ibv_pd,
    addr: *mut c_void,
    length: usize,
    iova: u64,
    access: c_int,
) -> *mut ibv_mr {
    let optional = IBV_ACCESS_OPTIONAL_RANGE as c_int;
    match (verbs.reg_mr_iova2, verbs.reg_mr_iova) {
        // SAFETY: the caller's promise.
        (Some(reg), _) if access & optional != 0 => unsafe { reg(pd, addr, length, iova, access as c_uint) },
        // SAFETY: the caller's promise.
        (_, Some(reg)) => unsafe { reg(pd, addr, length, iova, access & !optional) },
        _ => fail(libc::EOPNOTSUPP),
    }
}

/// Allocates a memory window; null with errno on failure.
///
/// # Safety
///
/// `pd` is live. See `ibv_alloc_mw(3)`.
pub unsafe fn ibv_alloc_mw(pd: *mut ibv_pd, r#type: ibv_mw_type) -> *mut ibv_mw {
    // SAFETY: the domain is live.
    let context = unsafe { (*pd).context };
    // SAFETY: a live domain's context is live.
    match unsafe { (*context).ops.alloc_mw } {
        // SAFETY: the device's own function, with the caller's arguments.
        Some(alloc_mw) => unsafe { alloc_mw(pd, r#type) },
        None => fail(libc::EOPNOTSUPP),
    }
}

/// Frees a memory window; 0, or an errno.
///
/// # Safety
///
/// `mw` is live and not used again. See `ibv_alloc_mw(3)`.
pub unsafe fn ibv_dealloc_mw(mw: *mut ibv_mw) -> c_int {
    // SAFETY: the window is live.
    let context = unsafe { (*mw).context };
    // SAFETY: a live window's context is live.
    match unsafe { (*context).ops.dealloc_mw } {
        // SAFETY: the device's own function, with the caller's arguments.
        Some(dealloc_mw) => unsafe { dealloc_mw(mw) },
        None => c_int::unsupported(),
    }
}

/// Posts the binding of a type 1 window; 0, or an errno: EINVAL for a window of another type or for a range without a
/// region, EPERM for a region of another protection domain.
///
/// # Safety
///
/// All objects are live, `mw_bind` is readable. See `ibv_bind_mw(3)`.
pub unsafe fn ibv_bind_mw(qp: *mut ibv_qp, mw: *mut ibv_mw, mw_bind: *mut ibv_mw_bind) -> c_int {
    // SAFETY: readable by the caller's promise.
    let info = unsafe { (*mw_bind).bind_info };
    // SAFETY: the window is live.
    if unsafe { (*mw).r#type } != IBV_MW_TYPE_1 {
        return libc::EINVAL;
    }
    if info.mr.is_null() {
        if info.addr != 0 || info.length != 0 {
            return libc::EINVAL;
        }
    } else {
        // SAFETY: the region is live.
        let region_pd = unsafe { (*info.mr).pd };
        // SAFETY: the window is live.
        if unsafe { (*mw).pd } != region_pd {
            return libc::EPERM;
        }
    }
    // SAFETY: the window is live.
    let context = unsafe { (*mw).context };
    // SAFETY: a live window's context is live.
    match unsafe { (*context).ops.bind_mw } {
        // SAFETY: the device's own function, with the caller's arguments.
        Some(bind_mw) => unsafe { bind_mw(qp, mw, mw_bind) },
        None => c_int::unsupported(),
    }
}

/// The next key of a type 2 window: the low 8 bits count, the rest is the window's own.
pub fn ibv_inc_rkey(rkey: u32) -> u32 {
    (rkey & !0xff) | (rkey.wrapping_add(1) & 0xff)
}

/// Copies into device memory; 0, or an errno.
///
/// # Safety
///
/// `dm` is live, `host_addr` is readable for `length` bytes. See `ibv_memcpy_to_dm(3)`.
pub unsafe fn ibv_memcpy_to_dm(
    dm: *mut ibv_dm,
    dm_offset: u64,
    host_addr: *const c_void,
    length: usize,
) -> c_int {
    // SAFETY: the device memory is live.
    match unsafe { (*dm).memcpy_to_dm } {
        // SAFETY: the device's own function, with the caller's arguments.
        Some(copy) => unsafe { copy(dm, dm_offset, host_addr, length) },
        None => c_int::unsupported(),
    }
}

/// Copies from device memory; 0, or an errno.
///
/// # Safety
///
/// `dm` is live, `host_addr` is writable for `length` bytes. See `ibv_memcpy_to_dm(3)`.
pub unsafe fn ibv_memcpy_from_dm(
    host_addr: *mut c_void,
    dm: *mut ibv_dm,
    dm_offset: u64,
    length: usize,
) -> c_int {
    // SAFETY: the device memory is live.
    match unsafe { (*dm).memcpy_from_dm } {
        // SAFETY: the device's own function, with the caller's arguments.
        Some(copy) => unsafe { copy(host_addr, dm, dm_offset, length) },
        None => c_int::unsupported(),
    }
}

extended! {
    /// Advises about ranges of regions; 0, or an errno.
    pub fn ibv_advise_mr[advise_mr by object pd](
        pd: *mut ibv_pd,
        advice: ibv_advise_mr_advice,
        flags: u32,
        sg_list: *mut ibv_sge,
        num_sge: u32,
    ) -> c_int;

    /// Allocates device memory; null with errno on failure.
    pub fn ibv_alloc_dm[alloc_dm by context context](
        context: *mut ibv_context,
        attr: *mut ibv_alloc_dm_attr,
    ) -> *mut ibv_dm;

    /// Frees device memory; 0, or an errno.
    pub fn ibv_free_dm[free_dm by object dm](dm: *mut ibv_dm) -> c_int;

    /// Registers device memory; null with errno on failure.
    pub fn ibv_reg_dm_mr[reg_dm_mr by object pd](
        pd: *mut ibv_pd,
        dm: *mut ibv_dm,
        dm_offset: u64,
        length: usize,
        access: c_uint,
    ) -> *mut ibv_mr;

    /// Allocates a region that discards what is written to it and reads as zeros; null with errno on failure.
    pub fn ibv_alloc_null_mr[alloc_null_mr by object pd](pd: *mut ibv_pd) -> *mut ibv_mr;
}
