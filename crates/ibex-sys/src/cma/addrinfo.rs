//! Address resolution: `rdma_addrinfo`.
//!
//! Man page: `rdma_getaddrinfo(3)`.
#![allow(missing_docs, reason = "members and constants carry their C names; the man page documents them")]

use core::ffi::{c_char, c_int, c_void};

use libc::{sockaddr, socklen_t};

use crate::macros::c_data;

/// Flag of [`rdma_addrinfo::ai_flags`]: for listening.
pub const RAI_PASSIVE: c_int = 0x01;
/// Flag of [`rdma_addrinfo::ai_flags`]: no name resolution.
pub const RAI_NUMERICHOST: c_int = 0x02;
/// Flag of [`rdma_addrinfo::ai_flags`]: no route resolution.
pub const RAI_NOROUTE: c_int = 0x04;
/// Flag of [`rdma_addrinfo::ai_flags`]: `ai_family` is a requirement.
pub const RAI_FAMILY: c_int = 0x08;
/// Flag of [`rdma_addrinfo::ai_flags`]: resolve through the subnet administrator.
pub const RAI_SA: c_int = 0x10;
/// Flag of [`rdma_addrinfo::ai_flags`]: resolve through DNS; excludes `RAI_SA`.
pub const RAI_DNS: c_int = 0x20;

c_data! {
    /// Hints for, and results of, address resolution.
    pub struct rdma_addrinfo {
        pub ai_flags: c_int,
        pub ai_family: c_int,
        pub ai_qp_type: c_int,
        pub ai_port_space: c_int,
        pub ai_src_len: socklen_t,
        pub ai_dst_len: socklen_t,
        pub ai_src_addr: *mut sockaddr,
        pub ai_dst_addr: *mut sockaddr,
        pub ai_src_canonname: *mut c_char,
        pub ai_dst_canonname: *mut c_char,
        pub ai_route_len: usize,
        pub ai_route: *mut c_void,
        pub ai_connect_len: usize,
        pub ai_connect: *mut c_void,
        pub ai_next: *mut rdma_addrinfo,
    }
}
