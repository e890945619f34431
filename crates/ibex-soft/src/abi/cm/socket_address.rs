//! Socket addresses between C and Rust.
//!
//! Owns reading and writing `sockaddr_in` and `sockaddr_in6`; `ip(7)`, `ipv6(7)`. No other family names a device here.
//!
//! # Safety
//! A `sockaddr` that a program passes is readable for the length of its family, as with `bind(2)`.
#![allow(unsafe_code)]

use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use libc::{sa_family_t, sockaddr, sockaddr_in, sockaddr_in6, sockaddr_storage, socklen_t};

use crate::abi::object::given;

/// Reads an address.
///
/// # Errors
/// `EINVAL` for null, `EAFNOSUPPORT` for another family.
///
/// # Safety
/// `from` is null or readable for the length of its family.
pub(super) unsafe fn read(from: *const sockaddr) -> Result<SocketAddr, i32> {
    let from = given(from.cast_mut())?;
    // SAFETY: a place inside what the caller promises to be readable.
    let family = unsafe { &raw const (*from).sa_family };
    // SAFETY: the caller's promise; every address has a family.
    let family = unsafe { family.read_unaligned() };
    match libc::c_int::from(family) {
        libc::AF_INET => {
            // SAFETY: the caller's promise for this family.
            let v4 = unsafe { from.cast::<sockaddr_in>().read_unaligned() };
            let address = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Ok(SocketAddr::new(address.into(), u16::from_be(v4.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: the caller's promise for this family.
            let v6 = unsafe { from.cast::<sockaddr_in6>().read_unaligned() };
            let address = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Ok(SocketAddrV6::new(address, u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id).into())
        }
        _ => Err(libc::EAFNOSUPPORT),
    }
}

/// The C form of an address, the rest zero.
pub(super) fn storage(address: SocketAddr) -> sockaddr_storage {
    // SAFETY: plain data, for which zeroes are valid.
    let mut to: sockaddr_storage = unsafe { zeroed() };
    let to_ptr = &raw mut to;
    match address {
        SocketAddr::V4(v4) => {
            let from = sockaddr_in {
                sin_family: libc::AF_INET as sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from(*v4.ip()).to_be() },
                sin_zero: [0; 8],
            };
            // SAFETY: the storage is large enough and aligned for every family.
            unsafe { to_ptr.cast::<sockaddr_in>().write(from) }
        }
        SocketAddr::V6(v6) => {
            let from = sockaddr_in6 {
                sin6_family: libc::AF_INET6 as sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: as above.
            unsafe { to_ptr.cast::<sockaddr_in6>().write(from) }
        }
    }
    to
}

/// Bytes of the C form.
pub(super) fn length(address: &SocketAddr) -> socklen_t {
    let length = match address {
        SocketAddr::V4(_) => size_of::<sockaddr_in>(),
        SocketAddr::V6(_) => size_of::<sockaddr_in6>(),
    };
    length as socklen_t
}

/// An address with an IPv4-mapped IPv6 address as what it stands for.
pub(super) fn canonical(address: SocketAddr) -> IpAddr {
    address.ip().to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_way_through_c() {
        for text in ["192.0.2.7:7471", "[2001:db8::1]:1", "0.0.0.0:0", "[fe80::1%3]:5"] {
            let address: SocketAddr = text.parse().unwrap();
            let raw = storage(address);
            // SAFETY: just written.
            assert_eq!(unsafe { read((&raw const raw).cast()) }, Ok(address));
        }
        let other = libc::sockaddr { sa_family: libc::AF_UNIX as sa_family_t, sa_data: [0; 14] };
        // SAFETY: a live local, of which only the family is read.
        assert_eq!(unsafe { read(&other) }, Err(libc::EAFNOSUPPORT));
        // SAFETY: null is refused.
        assert_eq!(unsafe { read(std::ptr::null()) }, Err(libc::EINVAL));
    }
}
