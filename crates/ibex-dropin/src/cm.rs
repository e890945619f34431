//! What of librdmacm is answered without a connection manager: the names of its events.
//!
//! The built-in device has no connection manager, so every other `rdma_*` and rsocket function refuses with
//! EOPNOTSUPP; see the table. Names as in rdma_cma.h, rdma_event_str(3).

use std::ffi::{CStr, c_char};

/// The enumerators of `rdma_cm_event_type`, by value.
const EVENTS: [&CStr; 16] = [
    c"RDMA_CM_EVENT_ADDR_RESOLVED",
    c"RDMA_CM_EVENT_ADDR_ERROR",
    c"RDMA_CM_EVENT_ROUTE_RESOLVED",
    c"RDMA_CM_EVENT_ROUTE_ERROR",
    c"RDMA_CM_EVENT_CONNECT_REQUEST",
    c"RDMA_CM_EVENT_CONNECT_RESPONSE",
    c"RDMA_CM_EVENT_CONNECT_ERROR",
    c"RDMA_CM_EVENT_UNREACHABLE",
    c"RDMA_CM_EVENT_REJECTED",
    c"RDMA_CM_EVENT_ESTABLISHED",
    c"RDMA_CM_EVENT_DISCONNECTED",
    c"RDMA_CM_EVENT_DEVICE_REMOVAL",
    c"RDMA_CM_EVENT_MULTICAST_JOIN",
    c"RDMA_CM_EVENT_MULTICAST_ERROR",
    c"RDMA_CM_EVENT_ADDR_CHANGE",
    c"RDMA_CM_EVENT_TIMEWAIT_EXIT",
];

/// rdma_event_str(3): the enumerator's name.
pub(crate) extern "C" fn rdma_event_str(event: u32) -> *const c_char {
    let name = usize::try_from(event).ok().and_then(|index| EVENTS.get(index));
    name.map_or(c"UNKNOWN EVENT", |name| name).as_ptr()
}
