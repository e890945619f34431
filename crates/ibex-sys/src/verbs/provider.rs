//! What vendor libraries see of a device behind the public `ibv_device`.
//!
//! Private to rdma-core (`libibverbs/driver.h`), but libmlx5 and libefa, which many programs are linked to, compare
//! `verbs_device::ops` of any device they are handed. A device that is not theirs must therefore have *some* other
//! address there: a device made outside rdma-core is allocated as this structure.
#![allow(missing_docs, reason = "members and constants carry their C names; the man page documents them")]

use core::ffi::{c_int, c_void};

use super::ibv_device;
use crate::macros::{c_data, c_object};

c_data! {
    /// A node of a doubly linked list.
    pub struct list_node {
        pub next: *mut list_node,
        pub prev: *mut list_node,
    }
}

c_object! {
    /// A device with the members that follow it in rdma-core 34 to 65.
    pub struct verbs_device {
        pub device: ibv_device,
        /// The provider's operations; vendor libraries only compare this address.
        pub ops: *const c_void,
        /// Atomic in C.
        pub refcount: c_int,
        pub entry: list_node,
        pub sysfs: *mut c_void,
        pub core_support: u64,
    }
}
