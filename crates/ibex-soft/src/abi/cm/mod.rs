//! The functions of librdmacm, answered by the device.
//!
//! Owns everything that meets a C program of `rdma_cm(7)`: its identifiers, channels and events. The table of the functions
//! is [`cm`]; `ibex-dropin` exports the functions themselves. What connects is [`crate::cm`].
//!
//! | file | owns |
//! |---|---|
//! | `home` | the one context, its domain |
//! | `id` | identifiers, from creation to listening; synchronous ones |
//! | `channel` | channels and events |
//! | `connect` | connecting, accepting, ending; endpoints |
//! | `qp` | queue pairs of identifiers |
//! | `addrinfo`, `socket_address` | names and addresses |
//! | `refuse` | what is not served |
//!
//! # Safety
//! As [`crate::abi`].

mod addrinfo;
mod channel;
mod connect;
mod home;
mod id;
mod qp;
mod refuse;
mod socket_address;

pub use addrinfo::*;
pub use channel::{
    rdma_ack_cm_event, rdma_create_event_channel, rdma_destroy_event_channel, rdma_event_str,
    rdma_get_cm_event,
};
pub use connect::*;
pub use home::{rdma_free_devices, rdma_get_devices};
pub use id::{
    rdma_bind_addr, rdma_create_id, rdma_destroy_id, rdma_get_dst_port, rdma_get_src_port, rdma_listen,
    rdma_migrate_id, rdma_resolve_addr, rdma_resolve_route, rdma_set_option, rdma_write_cm_event,
};
pub use qp::{
    rdma_create_qp, rdma_create_qp_ex, rdma_create_srq, rdma_create_srq_ex, rdma_destroy_qp,
    rdma_destroy_srq, rdma_init_qp_attr,
};
pub use refuse::*;

use ibex_sys::Cm;

static CM: Cm = Cm {
    create_event_channel: rdma_create_event_channel,
    destroy_event_channel: rdma_destroy_event_channel,
    create_id: rdma_create_id,
    create_ep: rdma_create_ep,
    destroy_ep: rdma_destroy_ep,
    destroy_id: rdma_destroy_id,
    bind_addr: rdma_bind_addr,
    resolve_addr: rdma_resolve_addr,
    resolve_route: rdma_resolve_route,
    create_qp: rdma_create_qp,
    create_qp_ex: rdma_create_qp_ex,
    destroy_qp: rdma_destroy_qp,
    connect: rdma_connect,
    listen: rdma_listen,
    get_request: rdma_get_request,
    accept: rdma_accept,
    reject: rdma_reject,
    notify: rdma_notify,
    disconnect: rdma_disconnect,
    join_multicast: rdma_join_multicast,
    leave_multicast: rdma_leave_multicast,
    get_cm_event: rdma_get_cm_event,
    ack_cm_event: rdma_ack_cm_event,
    get_src_port: rdma_get_src_port,
    get_dst_port: rdma_get_dst_port,
    get_devices: rdma_get_devices,
    free_devices: rdma_free_devices,
    event_str: rdma_event_str,
    set_option: rdma_set_option,
    migrate_id: rdma_migrate_id,
    getaddrinfo: rdma_getaddrinfo,
    freeaddrinfo: rdma_freeaddrinfo,
    create_srq: rdma_create_srq,
    create_srq_ex: rdma_create_srq_ex,
    destroy_srq: rdma_destroy_srq,
    join_multicast_ex: Some(rdma_join_multicast_ex),
    establish: Some(rdma_establish),
    init_qp_attr: Some(rdma_init_qp_attr),
    reject_ece: Some(rdma_reject_ece),
    set_local_ece: Some(rdma_set_local_ece),
    get_remote_ece: Some(rdma_get_remote_ece),
    resolve_addrinfo: Some(rdma_resolve_addrinfo),
    query_addrinfo: Some(rdma_query_addrinfo),
    write_cm_event: Some(rdma_write_cm_event),
};

/// The table of the device's connection management. What it does not serve answers `EOPNOTSUPP`.
pub fn cm() -> &'static Cm {
    &CM
}
