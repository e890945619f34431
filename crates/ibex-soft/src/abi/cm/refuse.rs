//! Functions of librdmacm that this device does not serve: multicast, vendor options, resolution by the library.
//!
//! Owns the refusals: −1 with `EOPNOTSUPP`. None of them looks at its arguments.
//!
//! # Safety
//! Nothing is dereferenced; the functions are `unsafe` because their type in the table is.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_void};

use ibex_sys::{ibv_ece, rdma_addrinfo, rdma_cm_id, rdma_cm_join_mc_attr_ex};
use libc::sockaddr;

use crate::os::set_errno;

macro_rules! refusals {
    ($($name:ident($($type:ty),*);)*) => { $(
        #[doc = concat!("`", stringify!($name), "`: not served, `EOPNOTSUPP`.")]
        ///
        /// # Safety
        /// None; the arguments are not looked at.
        pub unsafe extern "C" fn $name($(_: $type),*) -> c_int {
            set_errno(libc::EOPNOTSUPP);
            -1
        }
    )* };
}

refusals! {
    rdma_join_multicast(*mut rdma_cm_id, *mut sockaddr, *mut c_void);
    rdma_join_multicast_ex(*mut rdma_cm_id, *mut rdma_cm_join_mc_attr_ex, *mut c_void);
    rdma_leave_multicast(*mut rdma_cm_id, *mut sockaddr);
    rdma_set_local_ece(*mut rdma_cm_id, *mut ibv_ece);
    rdma_get_remote_ece(*mut rdma_cm_id, *mut ibv_ece);
    rdma_resolve_addrinfo(*mut rdma_cm_id, *const c_char, *const c_char, *const rdma_addrinfo);
    rdma_query_addrinfo(*mut rdma_cm_id, *mut *mut rdma_addrinfo);
}
