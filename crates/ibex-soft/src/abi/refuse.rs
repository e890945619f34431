//! Functions of libibverbs whose objects this device does not have.
//!
//! Owns the refusals: `EOPNOTSUPP` by each function's return convention. None of them looks at its arguments.
//!
//! # Safety
//! Nothing is dereferenced; the functions are `unsafe` because their type in the table is.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};

use ibex_sys::{ibv_ah_attr, ibv_context, ibv_dm, ibv_gid, ibv_mr, ibv_pd, ibv_qp};

use crate::os::set_errno;

/// Refuses by the convention "an errno as the value".
pub(super) fn errno() -> c_int {
    set_errno(libc::EOPNOTSUPP);
    libc::EOPNOTSUPP
}

/// Refuses by the convention "a null pointer with errno".
fn null<T>() -> *mut T {
    set_errno(libc::EOPNOTSUPP);
    std::ptr::null_mut()
}

macro_rules! refusals {
    ($($how:ident { $($name:ident($($type:ty),*) $(-> $result:ty)?;)* })*) => { $($(
        #[doc = concat!("`", stringify!($name), "`: not served, `EOPNOTSUPP`.")]
        ///
        /// # Safety
        /// None; the arguments are not looked at.
        pub unsafe extern "C" fn $name($(_: $type),*) $(-> $result)? {
            $how()
        }
    )*)* };
}

fn nothing() {}

refusals! {
    errno {
        ibv_attach_mcast(*mut ibv_qp, *const ibv_gid, u16) -> c_int;
        ibv_detach_mcast(*mut ibv_qp, *const ibv_gid, u16) -> c_int;
        ibv_resolve_eth_l2_from_gid(*mut ibv_context, *mut ibv_ah_attr, *mut u8, *mut u16) -> c_int;
    }
    null {
        ibv_import_device(c_int) -> *mut ibv_context;
        ibv_import_pd(*mut ibv_context, u32) -> *mut ibv_pd;
        ibv_import_mr(*mut ibv_pd, u32) -> *mut ibv_mr;
        ibv_import_dm(*mut ibv_context, u32) -> *mut ibv_dm;
        ibv_reg_dmabuf_mr(*mut ibv_pd, u64, usize, u64, c_int, c_int) -> *mut ibv_mr;
    }
    nothing {
        ibv_unimport_pd(*mut ibv_pd);
        ibv_unimport_mr(*mut ibv_mr);
        ibv_unimport_dm(*mut ibv_dm);
        ibv_copy_path_rec_from_kern(*mut c_void, *mut c_void);
        ibv_copy_path_rec_to_kern(*mut c_void, *mut c_void);
        ibv_copy_qp_attr_from_kern(*mut c_void, *mut c_void);
        ibv_copy_ah_attr_from_kern(*mut c_void, *mut c_void);
    }
}
