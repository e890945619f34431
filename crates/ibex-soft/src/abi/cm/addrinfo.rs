//! Names to addresses: `rdma_getaddrinfo(3)`, `rdma_freeaddrinfo(3)`.
//!
//! Owns `rdma_addrinfo` objects. Resolution is `getaddrinfo(3)`'s; of what it finds, the first address of the device's
//! family is taken, so that `localhost` means 127.0.0.1 on a device that stands there.
//!
//! # Safety
//! All parts are allocated with `calloc(3)` and freed with `free(3)`, since programs replace them with their own.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_void};
use std::mem::{size_of, zeroed};
use std::net::SocketAddr;
use std::ptr::null_mut;

use ibex_sys::{
    IBV_QPT_RC, IBV_QPT_UD, RAI_FAMILY, RAI_NUMERICHOST, RAI_PASSIVE, RAI_SA, RDMA_PS_IPOIB, RDMA_PS_TCP,
    RDMA_PS_UDP, rdma_addrinfo,
};
use libc::{sockaddr, socklen_t};

use super::socket_address;
use crate::abi::object::{caught, given};
use crate::net::Config;
use crate::os::set_errno;

/// `rdma_getaddrinfo(3)`: 0; −1 with errno; or an error of `getaddrinfo(3)`.
///
/// # Safety
/// Strings are null or end with a zero; `hints` is null or readable, as are the addresses it points to; `result` is
/// writable.
pub unsafe extern "C" fn rdma_getaddrinfo(
    node: *const c_char,
    service: *const c_char,
    hints: *const rdma_addrinfo,
    result: *mut *mut rdma_addrinfo,
) -> c_int {
    let found = caught(|| {
        given(result)?;
        let hints = if hints.is_null() {
            rdma_addrinfo { ai_port_space: RDMA_PS_TCP.0 as c_int, ..Default::default() }
        } else {
            // SAFETY: the caller's promise.
            unsafe { hints.read() }
        };
        if node.is_null() && service.is_null() && hints.ai_src_addr.is_null() && hints.ai_dst_addr.is_null() {
            return Err(libc::EINVAL);
        }
        if hints.ai_flags & RAI_SA != 0 {
            return Err(libc::EOPNOTSUPP);
        }
        // SAFETY: the caller's promise.
        let address = match unsafe { lookup(node, service, &hints) } {
            Ok(address) => address,
            Err(Lookup::Code(code)) => return Ok(Err(code)),
            Err(Lookup::Errno(errno)) => return Err(errno),
        };
        // SAFETY: the caller's promise about the hints' addresses.
        Ok(Ok(unsafe { answer(address, &hints) }?))
    });
    match found {
        Ok(Ok(made)) => {
            // SAFETY: the caller's promise; checked for null above.
            unsafe { *result = made }
            0
        }
        Ok(Err(code)) => code,
        Err(errno) => {
            set_errno(errno);
            -1
        }
    }
}

/// Why there is no address.
enum Lookup {
    /// An error of `getaddrinfo(3)`.
    Code(c_int),
    Errno(i32),
}

/// The address of a name, `None` without name and service.
///
/// # Safety
/// Strings are null or end with a zero.
unsafe fn lookup(
    node: *const c_char,
    service: *const c_char,
    hints: &rdma_addrinfo,
) -> Result<Option<SocketAddr>, Lookup> {
    if node.is_null() && service.is_null() {
        return Ok(None);
    }
    // SAFETY: plain data, for which zeroes are valid.
    let mut asked: libc::addrinfo = unsafe { zeroed() };
    // Any type: one result for each address and not three.
    asked.ai_socktype = libc::SOCK_STREAM;
    asked.ai_family = if hints.ai_flags & RAI_FAMILY != 0 { hints.ai_family } else { 0 };
    for (ours, theirs) in [(RAI_PASSIVE, libc::AI_PASSIVE), (RAI_NUMERICHOST, libc::AI_NUMERICHOST)] {
        if hints.ai_flags & ours != 0 {
            asked.ai_flags |= theirs;
        }
    }
    let mut list = null_mut();
    // SAFETY: the caller's promise; hints and result are locals.
    let code = unsafe { libc::getaddrinfo(node, service, &raw const asked, &raw mut list) };
    if code == libc::EAI_SYSTEM {
        return Err(Lookup::Errno(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)));
    }
    if code != 0 {
        return Err(Lookup::Code(code));
    }
    let mut found = Vec::new();
    let mut entry = list;
    while !entry.is_null() {
        // SAFETY: an entry of the list, which is freed below.
        let this = unsafe { &*entry };
        // SAFETY: getaddrinfo gives addresses of their families' lengths.
        found.extend(unsafe { socket_address::read(this.ai_addr) });
        entry = this.ai_next;
    }
    // SAFETY: the list just got, not used any more.
    unsafe { libc::freeaddrinfo(list) };
    let device = Config::from_env().ok().map(|config| config.address);
    let ours = |address: &&SocketAddr| device.is_none_or(|ip| ip.is_ipv4() == address.is_ipv4());
    let chosen = found.iter().find(ours).or(found.first());
    chosen.copied().map(Some).ok_or(Lookup::Code(libc::EAI_NODATA))
}

/// Makes the result.
///
/// # Safety
/// The hints' addresses are readable for their lengths.
unsafe fn answer(address: Option<SocketAddr>, hints: &rdma_addrinfo) -> Result<*mut rdma_addrinfo, i32> {
    let datagrams = [RDMA_PS_UDP, RDMA_PS_IPOIB].map(|space| space.0 as c_int).contains(&hints.ai_port_space);
    let space = match (hints.ai_port_space, hints.ai_qp_type) {
        (0, kind) if kind == IBV_QPT_UD.0 as c_int => RDMA_PS_UDP.0 as c_int,
        (0, _) => RDMA_PS_TCP.0 as c_int,
        (space, _) => space,
    };
    let kind = match hints.ai_qp_type {
        0 if datagrams => IBV_QPT_UD.0 as c_int,
        0 => IBV_QPT_RC.0 as c_int,
        kind => kind,
    };
    let mut made = rdma_addrinfo {
        ai_flags: hints.ai_flags,
        ai_family: address.map_or(hints.ai_family, |address| match address {
            SocketAddr::V4(_) => libc::AF_INET,
            SocketAddr::V6(_) => libc::AF_INET6,
        }),
        ai_qp_type: kind,
        ai_port_space: space,
        ..Default::default()
    };
    let parts = (|| {
        if let Some(address) = address {
            let raw = socket_address::storage(address);
            let length = socket_address::length(&address);
            // SAFETY: a local of at least that length.
            let copy = unsafe { copy((&raw const raw).cast(), length) }?;
            if hints.ai_flags & RAI_PASSIVE != 0 {
                (made.ai_src_addr, made.ai_src_len) = (copy, length);
            } else {
                (made.ai_dst_addr, made.ai_dst_len) = (copy, length);
            }
        }
        // An address that was not looked up is taken over from the hints.
        if made.ai_src_addr.is_null() && !hints.ai_src_addr.is_null() {
            // SAFETY: the caller's promise.
            made.ai_src_addr = unsafe { copy(hints.ai_src_addr, hints.ai_src_len) }?;
            made.ai_src_len = hints.ai_src_len;
        }
        if made.ai_dst_addr.is_null() && !hints.ai_dst_addr.is_null() {
            // SAFETY: the caller's promise.
            made.ai_dst_addr = unsafe { copy(hints.ai_dst_addr, hints.ai_dst_len) }?;
            made.ai_dst_len = hints.ai_dst_len;
        }
        allocate(size_of::<rdma_addrinfo>())
    })();
    match parts {
        Ok(room) => {
            let to = room.cast::<rdma_addrinfo>();
            // SAFETY: just allocated with this size; calloc aligns for every type.
            unsafe { to.write(made) };
            Ok(to)
        }
        Err(errno) => {
            // SAFETY: null or just allocated, and given to nobody.
            unsafe { libc::free(made.ai_src_addr.cast()) };
            // SAFETY: as above.
            unsafe { libc::free(made.ai_dst_addr.cast()) };
            Err(errno)
        }
    }
}

/// Zeroed memory that `free(3)` frees.
fn allocate(length: usize) -> Result<*mut c_void, i32> {
    // SAFETY: calloc has no precondition.
    let room = unsafe { libc::calloc(1, length.max(1)) };
    if room.is_null() { Err(libc::ENOMEM) } else { Ok(room) }
}

/// A copy of an address, freed with `free(3)`.
///
/// # Safety
/// `length` bytes at `from` are readable.
unsafe fn copy(from: *const sockaddr, length: socklen_t) -> Result<*mut sockaddr, i32> {
    let to = allocate(length as usize)?;
    // SAFETY: the caller's promise; `to` has that length and is new.
    unsafe { std::ptr::copy_nonoverlapping(from.cast::<u8>(), to.cast::<u8>(), length as usize) };
    Ok(to.cast())
}

/// `rdma_freeaddrinfo(3)`.
///
/// # Safety
/// `list` is null or came from [`rdma_getaddrinfo`]; neither it nor its parts are used any more.
pub unsafe extern "C" fn rdma_freeaddrinfo(list: *mut rdma_addrinfo) {
    let mut entry = list;
    while !entry.is_null() {
        // SAFETY: the caller's promise.
        let this = unsafe { entry.read() };
        let parts: [*mut c_void; 6] = [
            this.ai_src_addr.cast(),
            this.ai_dst_addr.cast(),
            this.ai_src_canonname.cast(),
            this.ai_dst_canonname.cast(),
            this.ai_route,
            this.ai_connect,
        ];
        for part in parts {
            // SAFETY: null, or allocated by malloc(3) or its kin, by us or by the program.
            unsafe { libc::free(part) };
        }
        // SAFETY: as above.
        unsafe { libc::free(entry.cast()) };
        entry = this.ai_next;
    }
}
