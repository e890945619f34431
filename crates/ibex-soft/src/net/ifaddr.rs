//! Interfaces of this network namespace: their addresses and MTUs.
//!
//! Owns getifaddrs(3) and the MTU ioctl of netdevice(7) and nothing else; /sys/class/net is not
//! asked because it shows the namespace of whoever mounted it.
//!
//! # Safety
//! The list of getifaddrs is walked before it is freed, and copied out: no pointer into it leaves.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::AsRawFd;

/// One address of one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InterfaceAddress {
    /// The interface's name.
    pub(super) name: String,
    /// The address.
    pub(super) address: IpAddr,
    /// Bits of its network prefix.
    pub(super) prefix: u32,
    /// The interface index of a link-local IPv6 address, otherwise 0.
    pub(super) scope: u32,
}

/// All IP addresses of all interfaces, in the kernel's order.
///
/// # Errors
/// Those of getifaddrs(3).
pub(super) fn addresses() -> io::Result<Vec<InterfaceAddress>> {
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: getifaddrs(3) writes the head of a list it allocates to the given place.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found = Vec::new();
    let mut next = list;
    // SAFETY: getifaddrs(3): a node of the list, or the null that ends it, until freeifaddrs below.
    while let Some(node) = unsafe { next.as_ref() } {
        next = node.ifa_next;
        // SAFETY: getifaddrs(3): ifa_addr is null or a socket address of its family's size.
        let Some((address, scope)) = (unsafe { ip(node.ifa_addr) }) else { continue };
        // SAFETY: as above, for ifa_netmask.
        let mask = unsafe { ip(node.ifa_netmask) };
        // SAFETY: getifaddrs(3): ifa_name is a C string that lives as long as the list.
        let name = unsafe { CStr::from_ptr(node.ifa_name) };
        let prefix = mask.map_or(0, |(mask, _)| bits(mask).count_ones());
        found.push(InterfaceAddress { name: name.to_string_lossy().into_owned(), address, prefix, scope });
    }
    // SAFETY: freeifaddrs(3): the list of getifaddrs, freed once, not used again.
    unsafe { libc::freeifaddrs(list) };
    Ok(found)
}

/// The MTU of interface `name`, bytes from the IP header on.
///
/// # Errors
/// ENODEV when there is no such interface, else those of socket(2) and ioctl(2).
pub(super) fn mtu(name: &str) -> io::Result<usize> {
    let any = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .or_else(|_| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)))?;
    let mut request =
        libc::ifreq { ifr_name: [0; libc::IFNAMSIZ], ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_mtu: 0 } };
    // The last byte stays zero: netdevice(7) wants a terminated name.
    if name.len() >= libc::IFNAMSIZ {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: netdevice(7): SIOCGIFMTU reads the name and writes the MTU of the given ifreq.
    if unsafe { libc::ioctl(any.as_raw_fd(), libc::SIOCGIFMTU, &raw mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: netdevice(7): the ioctl succeeded, so the member it stands for is the one written.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    Ok(usize::try_from(mtu).unwrap_or(0))
}

/// Whether `address` lies in the network of `other`.
pub(super) fn same_network(other: &InterfaceAddress, address: IpAddr) -> bool {
    let width = match (other.address, address) {
        (IpAddr::V4(_), IpAddr::V4(_)) => 32,
        (IpAddr::V6(_), IpAddr::V6(_)) => 128,
        _ => return false,
    };
    let low = width - other.prefix.min(width);
    // A shift by the whole width would overflow: a prefix of 0 contains everything.
    low == 128 || (bits(other.address) ^ bits(address)) >> low == 0
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

/// The IP address at `at` and its scope.
///
/// # Safety
/// `at` is null or points to a socket address, as large as its family says.
unsafe fn ip(at: *const libc::sockaddr) -> Option<(IpAddr, u32)> {
    // SAFETY: the caller's promise; every socket address begins with its family.
    let family = unsafe { at.as_ref() }?.sa_family;
    match libc::c_int::from(family) {
        libc::AF_INET => {
            // SAFETY: the family says that this is a sockaddr_in; unaligned in case the list packs it.
            let v4 = unsafe { at.cast::<libc::sockaddr_in>().read_unaligned() };
            Some((Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes()).into(), 0))
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that this is a sockaddr_in6.
            let v6 = unsafe { at.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some((Ipv6Addr::from(v6.sin6_addr.s6_addr).into(), v6.sin6_scope_id))
        }
        _ => None,
    }
}
