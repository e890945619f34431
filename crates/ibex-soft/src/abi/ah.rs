//! Address handles: `ibv_create_ah(3)`, `ibv_create_ah_from_wc(3)`, `ibv_init_ah_from_wc(3)`.
//!
//! Owns their C side; the check of an address and the header before a datagram are [`crate::ah`]'s. A post copies the
//! address out of the handle, so that one destroyed too early misleads nobody.
//!
//! # Safety
//! As `object`. A header is the first 40 bytes of a receive's buffer, which need not be aligned.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ibex_sys::{
    IBV_WC_GRH, ibv_ah, ibv_ah_attr, ibv_context, ibv_gid, ibv_global_route, ibv_grh, ibv_pd, ibv_wc,
};

use super::context::{Shared, shared};
use super::object::{Object, code, given, minus_one, pointer};
use super::pd::{self, Pd};
use super::qp::raw;
use crate::ah::{self, GRH_LEN};
use crate::device;

/// The inside of an address handle.
pub(super) struct AhInside {
    shared: Arc<Shared>,
    pub(super) pd: Arc<Pd>,
    /// Where datagrams go.
    pub(super) address: IpAddr,
}

type AhObject = Object<ibv_ah, AhInside>;

/// The inside of a program's address handle.
///
/// # Safety
/// `ah` is null or came from [`ibv_create_ah`] and was not destroyed.
#[inline]
pub(super) unsafe fn inside<'a>(ah: *mut ibv_ah) -> Result<&'a AhInside, i32> {
    // SAFETY: the caller's promise.
    Ok(unsafe { AhObject::soft(given(ah)?) })
}

/// `ibv_create_ah(3)`: `EINVAL` for an address that this device cannot reach.
///
/// # Safety
/// `pd` is alive; `attr` is readable.
pub unsafe extern "C" fn ibv_create_ah(pd: *mut ibv_pd, attr: *mut ibv_ah_attr) -> *mut ibv_ah {
    pointer(|| {
        // SAFETY: the caller's promise.
        let attr = unsafe { given(attr)?.read() };
        // SAFETY: the caller's promise.
        unsafe { create(pd, &attr) }
    })
}

/// # Safety
/// `pd` is null or alive.
unsafe fn create(pd: *mut ibv_pd, attr: &ibv_ah_attr) -> Result<*mut ibv_ah, i32> {
    // SAFETY: the caller's promise.
    let domain = unsafe { pd::inside(pd) }?;
    let shared = &domain.shared;
    let own = shared.nic()?.wire.address();
    let address = ah::destination(attr, raw(&attr.grh.dgid), own, &shared.limits)?;
    domain.users.fetch_add(1, Ordering::AcqRel);
    // SAFETY: the domain is alive.
    let context = unsafe { (*pd).context };
    let inside = AhInside { shared: shared.clone(), pd: domain.clone(), address };
    Ok(AhObject::publish(ibv_ah { context, pd, handle: 0 }, inside))
}

/// `ibv_destroy_ah(3)`.
///
/// # Safety
/// `ah` came from [`ibv_create_ah`]; it is not used any more unless this fails.
pub unsafe extern "C" fn ibv_destroy_ah(ah: *mut ibv_ah) -> c_int {
    code(|| {
        // SAFETY: the caller's promise.
        let inside = unsafe { inside(ah) }?;
        inside.shared.nic()?;
        inside.pd.users.fetch_sub(1, Ordering::AcqRel);
        // SAFETY: the caller gives it up.
        drop(unsafe { AhObject::reclaim(ah) });
        Ok(())
    })
}

/// The address of whom a datagram came from, read from its completion and the header before it.
///
/// # Safety
/// `context` is open; `wc` is readable; `grh` is readable if the completion says so.
unsafe fn sender(
    context: *mut ibv_context,
    port: u8,
    wc: *const ibv_wc,
    grh: *const ibv_grh,
) -> Result<ibv_ah_attr, i32> {
    // SAFETY: the caller's promise.
    let nic = unsafe { shared(context) }?.nic()?;
    if port != 1 || wc.is_null() {
        return Err(libc::EINVAL);
    }
    // SAFETY: the caller's promise.
    let wc = unsafe { &*wc };
    // Without a header a RoCE address cannot be told.
    if wc.wc_flags & IBV_WC_GRH.0 == 0 || grh.is_null() {
        return Err(libc::EINVAL);
    }
    // SAFETY: the caller's promise; bytes need no alignment.
    let header = unsafe { grh.cast::<[u8; GRH_LEN]>().read_unaligned() };
    let told = ah::read_header(&header)?;
    let table = device::gids(nic.wire.address());
    let sgid_index = table.iter().position(|&gid| gid == told.dgid).ok_or(libc::EINVAL)?;
    Ok(ibv_ah_attr {
        grh: ibv_global_route {
            dgid: ibv_gid { raw: told.sgid },
            flow_label: told.flow_label,
            // The table has two entries at most.
            sgid_index: sgid_index as u8,
            // As far as the answer may have to go.
            hop_limit: 0xff,
            traffic_class: told.traffic_class,
        },
        dlid: wc.slid,
        sl: wc.sl,
        src_path_bits: wc.dlid_path_bits,
        static_rate: 0,
        is_global: 1,
        port_num: port,
    })
}

/// `ibv_init_ah_from_wc(3)`.
///
/// # Safety
/// `context` is open; `wc` and `grh`, the start of the receive's buffer, are readable; `attr` is writable.
pub unsafe extern "C" fn ibv_init_ah_from_wc(
    context: *mut ibv_context,
    port: u8,
    wc: *mut ibv_wc,
    grh: *mut ibv_grh,
    attr: *mut ibv_ah_attr,
) -> c_int {
    minus_one(|| {
        // SAFETY: the caller's promise.
        let told = unsafe { sender(context, port, wc, grh) }?;
        // SAFETY: the caller's promise.
        unsafe { given(attr)?.write(told) }
        Ok(0)
    })
}

/// `ibv_create_ah_from_wc(3)`.
///
/// # Safety
/// `pd` is alive; `wc` and `grh`, the start of the receive's buffer, are readable.
pub unsafe extern "C" fn ibv_create_ah_from_wc(
    pd: *mut ibv_pd,
    wc: *mut ibv_wc,
    grh: *mut ibv_grh,
    port: u8,
) -> *mut ibv_ah {
    pointer(|| {
        // SAFETY: the caller's promise.
        let context = unsafe { (*given(pd)?).context };
        // SAFETY: the caller's promise.
        let attr = unsafe { sender(context, port, wc, grh) }?;
        // SAFETY: the caller's promise.
        unsafe { create(pd, &attr) }
    })
}
