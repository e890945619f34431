//! Options of an identifier, for `rdma_set_option(3)`.

use core::ffi::c_int;

/// Level of the options below that start with `RDMA_OPTION_ID`.
pub const RDMA_OPTION_ID: c_int = 0;
/// Level of the options below that start with `RDMA_OPTION_IB`.
pub const RDMA_OPTION_IB: c_int = 1;
/// Type of service; an `u8` (RFC 2474).
pub const RDMA_OPTION_ID_TOS: c_int = 0;
/// May share an address; an `int`.
pub const RDMA_OPTION_ID_REUSEADDR: c_int = 1;
/// Bind to one address family only; an `int`.
pub const RDMA_OPTION_ID_AFONLY: c_int = 2;
/// Local ACK timeout of the queue pair; an `u8`, 4.096 µs × 2^value.
pub const RDMA_OPTION_ID_ACK_TIMEOUT: c_int = 3;
/// Paths to use; an array of [`ibv_path_data`](crate::ibv_path_data).
pub const RDMA_OPTION_IB_PATH: c_int = 1;
