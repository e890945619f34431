//! Protection domains and memory regions: `ibv_alloc_pd(3)`, `ibv_reg_mr(3)`, `ibv_rereg_mr(3)`.
//!
//! Owns the checks at registration. Keys and bounds are [`crate::mr`]'s.
//!
//! # Safety
//! As `object`. The program promises (`ibv_reg_mr(3)`) that a region's memory stays mapped until it is deregistered;
//! that promise is handed to [`UserMemory::new`].
#![allow(unsafe_code)]

use std::ffi::{c_int, c_uint, c_void};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ibex_sys::{
    IBV_REREG_MR_CHANGE_ACCESS, IBV_REREG_MR_CHANGE_PD, IBV_REREG_MR_CHANGE_TRANSLATION,
    IBV_REREG_MR_ERR_CMD, IBV_REREG_MR_ERR_INPUT, IBV_REREG_MR_FLAGS_SUPPORTED, ibv_context, ibv_mr, ibv_pd,
};

use super::context::{Shared, shared};
use super::object::{Object, caught, code, given, pointer};
use crate::memory::{self, UserMemory};
use crate::mr::{self, PdNumber, Region, access};
use crate::oneside;
use crate::os::set_errno;

/// The inside of a protection domain.
pub(super) struct Pd {
    pub(super) shared: Arc<Shared>,
    pub(super) number: PdNumber,
    /// Regions, windows and queue pairs in it: it cannot be freed before they are.
    pub(super) users: AtomicU32,
}

type PdObject = Object<ibv_pd, Arc<Pd>>;
type MrObject = Object<ibv_mr, Mr>;

/// The inside of a region.
struct Mr {
    shared: Arc<Shared>,
    pd: Mutex<Arc<Pd>>,
    lkey: u32,
}

/// The inside of a program's protection domain.
///
/// # Safety
/// `pd` is null or came from [`ibv_alloc_pd`] and was not freed.
pub(super) unsafe fn inside<'a>(pd: *mut ibv_pd) -> Result<&'a Arc<Pd>, i32> {
    // SAFETY: the caller's promise.
    Ok(unsafe { PdObject::soft(given(pd)?) })
}

/// `ibv_alloc_pd(3)`.
///
/// # Safety
/// `context` is open.
pub unsafe extern "C" fn ibv_alloc_pd(context: *mut ibv_context) -> *mut ibv_pd {
    pointer(|| {
        // SAFETY: the caller's promise.
        let shared = unsafe { shared(context) }?;
        let number = shared.nic()?.domain();
        shared.domains.lock().unwrap_or_else(PoisonError::into_inner).push(number);
        let pd = Pd { shared: shared.clone(), number, users: AtomicU32::new(0) };
        Ok(PdObject::publish(ibv_pd { context, handle: number }, Arc::new(pd)))
    })
}

/// `ibv_dealloc_pd(3)`: `EBUSY` while regions or queue pairs are in it.
///
/// # Safety
/// `pd` came from [`ibv_alloc_pd`]; it is not used any more unless this fails.
pub unsafe extern "C" fn ibv_dealloc_pd(pd: *mut ibv_pd) -> c_int {
    code(|| {
        // SAFETY: the caller's promise.
        let inside = unsafe { inside(pd) }?;
        inside.shared.nic()?;
        if inside.users.load(Ordering::Acquire) > 0 {
            return Err(libc::EBUSY);
        }
        let mut domains = inside.shared.domains.lock().unwrap_or_else(PoisonError::into_inner);
        domains.retain(|&number| number != inside.number);
        drop(domains);
        // SAFETY: the caller gives it up.
        drop(unsafe { PdObject::reclaim(pd) });
        Ok(())
    })
}

/// Checks a registration and makes its region.
///
/// # Safety
/// The memory stays mapped until the region is deregistered.
unsafe fn region(
    number: PdNumber,
    addr: *mut c_void,
    length: usize,
    iova: u64,
    flags: u32,
) -> Result<Region, i32> {
    mr::check_access(flags)?;
    let len = length as u64;
    let iova = if flags & access::ZERO_BASED != 0 { 0 } else { iova };
    // As the kernel has it: nothing, or a range round the end of the address space, cannot be registered.
    if length == 0 || addr.addr().checked_add(length).is_none() || iova.checked_add(len).is_none() {
        return Err(libc::EINVAL);
    }
    let write = flags & (access::LOCAL_WRITE | access::MW_BIND) != 0;
    let addr = addr.expose_provenance();
    memory::populate(addr, length, write).map_err(|error| error.raw_os_error().unwrap_or(libc::EFAULT))?;
    // SAFETY: mapped with the rights needed, as was just seen, and until deregistration by the caller's promise. All
    // accesses check the right to write, without which the memory need not be writable.
    let memory = unsafe { UserMemory::new(addr, length) };
    Ok(Region { pd: number, access: flags, iova, len, memory })
}

/// # Safety
/// As [`ibv_reg_mr`].
unsafe fn register(
    pd: *mut ibv_pd,
    addr: *mut c_void,
    length: usize,
    iova: u64,
    flags: u32,
) -> Result<*mut ibv_mr, i32> {
    // SAFETY: the caller's promise.
    let inside = unsafe { inside(pd) }?;
    let nic = inside.shared.nic()?;
    // SAFETY: the caller's promise.
    let region = unsafe { region(inside.number, addr, length, iova, flags) }?;
    let keys = nic.register(region).ok_or(libc::ENOMEM)?;
    inside.users.fetch_add(1, Ordering::AcqRel);
    // SAFETY: the domain is alive.
    let context = unsafe { (*pd).context };
    let public =
        ibv_mr { context, pd, addr, length, handle: keys.lkey >> 8, lkey: keys.lkey, rkey: keys.rkey };
    Ok(MrObject::publish(
        public,
        Mr { shared: inside.shared.clone(), pd: Mutex::new(inside.clone()), lkey: keys.lkey },
    ))
}

/// `ibv_reg_mr(3)`.
///
/// # Safety
/// `pd` is alive; `[addr, addr + length)` stays mapped until `ibv_dereg_mr` returned.
pub unsafe extern "C" fn ibv_reg_mr(
    pd: *mut ibv_pd,
    addr: *mut c_void,
    length: usize,
    access: c_int,
) -> *mut ibv_mr {
    // SAFETY: the caller's promise.
    pointer(|| unsafe { register(pd, addr, length, addr.addr() as u64, access as u32) })
}

/// `ibv_reg_mr_iova(3)`.
///
/// # Safety
/// As [`ibv_reg_mr`].
pub unsafe extern "C" fn ibv_reg_mr_iova(
    pd: *mut ibv_pd,
    addr: *mut c_void,
    length: usize,
    iova: u64,
    access: c_int,
) -> *mut ibv_mr {
    // SAFETY: the caller's promise.
    pointer(|| unsafe { register(pd, addr, length, iova, access as u32) })
}

/// `ibv_reg_mr_iova2(3)`: what the macros of verbs.h call when optional access flags may be among them.
///
/// # Safety
/// As [`ibv_reg_mr`].
pub unsafe extern "C" fn ibv_reg_mr_iova2(
    pd: *mut ibv_pd,
    addr: *mut c_void,
    length: usize,
    iova: u64,
    access: c_uint,
) -> *mut ibv_mr {
    // SAFETY: the caller's promise.
    pointer(|| unsafe { register(pd, addr, length, iova, access) })
}

/// `ibv_dereg_mr(3)`. Returns after the last copy from or to the memory; `EBUSY` while windows are bound to it.
///
/// # Safety
/// `mr` came from a registration here; it is not used any more unless this fails.
pub unsafe extern "C" fn ibv_dereg_mr(mr: *mut ibv_mr) -> c_int {
    code(|| {
        // SAFETY: the caller's promise.
        let inside = unsafe { MrObject::soft(given(mr)?) };
        let nic = inside.shared.nic()?;
        // The key may be gone already, with a context that was closed.
        nic.deregister(inside.lkey)?;
        let pd = inside.pd.lock().unwrap_or_else(PoisonError::into_inner).clone();
        pd.users.fetch_sub(1, Ordering::AcqRel);
        // SAFETY: the caller gives it up.
        drop(unsafe { MrObject::reclaim(mr) });
        Ok(())
    })
}

/// Extension of this device: memory that lies in a file, which other processes of this host may map, too.
///
/// # Safety
/// `[addr, addr + length)` maps the file from `offset` on until [`unshare_memory`] returned.
pub unsafe extern "C" fn share_memory(addr: *mut c_void, length: usize, fd: c_int, offset: u64) -> c_int {
    code(|| oneside::shares().enter(given(addr)?.expose_provenance(), length, fd, offset))
}

/// Extension of this device: takes back [`share_memory`].
///
/// # Safety
/// No region registered since lies in the memory.
pub unsafe extern "C" fn unshare_memory(addr: *mut c_void) -> c_int {
    code(|| {
        oneside::shares().leave(given(addr)?.addr());
        Ok(())
    })
}

/// `ibv_rereg_mr(3)`: the region keeps its keys. `EBUSY` while windows are bound to it.
///
/// # Safety
/// As [`ibv_reg_mr`], for what the flags say is changed.
pub unsafe extern "C" fn ibv_rereg_mr(
    mr: *mut ibv_mr,
    flags: c_int,
    pd: *mut ibv_pd,
    addr: *mut c_void,
    length: usize,
    access: c_int,
) -> c_int {
    // SAFETY: the caller's promise.
    match caught(|| unsafe { change(mr, flags as u32, pd, addr, length, access as u32) }) {
        Ok(()) => 0,
        Err(errno) => {
            set_errno(errno);
            // By the manual the first means that the region is as it was, the second that it is not to be used.
            let intact = errno != libc::EIO;
            if intact { IBV_REREG_MR_ERR_INPUT.0 } else { IBV_REREG_MR_ERR_CMD.0 }
        }
    }
}

/// # Safety
/// As [`ibv_rereg_mr`].
unsafe fn change(
    mr: *mut ibv_mr,
    flags: u32,
    pd: *mut ibv_pd,
    addr: *mut c_void,
    length: usize,
    access: u32,
) -> Result<(), i32> {
    let flag = |bit: ibex_sys::ibv_rereg_mr_flags| flags & bit.0 != 0;
    if flags == 0 || flags & !IBV_REREG_MR_FLAGS_SUPPORTED.0 != 0 {
        return Err(libc::EINVAL);
    }
    // SAFETY: the caller's promise.
    let inside_mr = unsafe { MrObject::soft(given(mr)?) };
    let nic = inside_mr.shared.nic()?;
    let mut current = inside_mr.pd.lock().unwrap_or_else(PoisonError::into_inner);
    let target = if flag(IBV_REREG_MR_CHANGE_PD) {
        // SAFETY: the caller's promise.
        unsafe { inside(pd) }?.clone()
    } else {
        current.clone()
    };
    let old = nic.change_region(inside_mr.lkey, |region| region.access)?;
    let access = if flag(IBV_REREG_MR_CHANGE_ACCESS) { access } else { old };
    // SAFETY: the region is alive.
    let public = unsafe { &*mr };
    let (old_addr, old_length) = (public.addr, public.length);
    let moved = flag(IBV_REREG_MR_CHANGE_TRANSLATION);
    let (addr, length) = if moved { (addr, length) } else { (old_addr, old_length) };
    // SAFETY: the caller's promise for a new range, and that of the registration for the old one.
    let mut fresh = unsafe { region(target.number, addr, length, addr.addr() as u64, access) }?;
    nic.change_region(inside_mr.lkey, |region| {
        if !moved {
            fresh.iova = region.iova;
        }
        *region = fresh;
    })?;
    target.users.fetch_add(1, Ordering::AcqRel);
    current.users.fetch_sub(1, Ordering::AcqRel);
    *current = target;
    drop(current);
    if flag(IBV_REREG_MR_CHANGE_PD) {
        // SAFETY: the region is alive and the program's to change here.
        unsafe { (*mr).pd = pd }
    }
    // SAFETY: as above.
    unsafe { (*mr).addr = addr }
    // SAFETY: as above.
    unsafe { (*mr).length = length }
    Ok(())
}
