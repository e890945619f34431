//! The table of librdmacm: one pointer for each function of `rdma_cma.h` and `rdma_verbs.h` that it exports.
//!
//! Owns [`Cm`]. Not here: the socket emulation (`rsocket.h`), which is built on top of these.
//!
//! Man pages: `rdma_cm(7)`, and section 3, each function under its own name.
#![allow(unsafe_code)]

use core::ffi::{c_char, c_int, c_void};

use libc::sockaddr;

use super::function_table;
use crate::cma::*;
use crate::verbs::{
    ibv_context, ibv_ece, ibv_event_type, ibv_pd, ibv_qp_attr, ibv_qp_init_attr, ibv_qp_init_attr_ex,
    ibv_srq_init_attr, ibv_srq_init_attr_ex,
};

function_table! {
    /// The functions of librdmacm, named without their prefix `rdma_`. Those that return an `int` return 0, or −1 with
    /// errno, unless said otherwise.
    ///
    /// Those of symbol version `RDMACM_1.0` are always there; later ones are `None` if the library is older.
    /// [`Cm::load`] gives the system's library.
    ///
    /// # Safety
    ///
    /// All functions follow the contracts of their man pages; whoever builds a table by hand must keep them.
    pub struct Cm {
        required {
            /// Null with errno on failure.
            create_event_channel = c"rdma_create_event_channel": fn() -> *mut rdma_event_channel;
            /// All identifiers on the channel must be gone, all events acknowledged.
            destroy_event_channel = c"rdma_destroy_event_channel": fn(*mut rdma_event_channel);
            /// With a null channel the identifier is synchronous.
            create_id = c"rdma_create_id":
                fn(*mut rdma_event_channel, *mut *mut rdma_cm_id, *mut c_void, rdma_port_space) -> c_int;
            /// Identifier, with a queue pair if attributes are given, from a resolved address.
            create_ep = c"rdma_create_ep":
                fn(*mut *mut rdma_cm_id, *mut rdma_addrinfo, *mut ibv_pd, *mut ibv_qp_init_attr) -> c_int;
            /// Inverse of `create_ep`.
            destroy_ep = c"rdma_destroy_ep": fn(*mut rdma_cm_id);
            /// Waits until the identifier's events are acknowledged.
            destroy_id = c"rdma_destroy_id": fn(*mut rdma_cm_id) -> c_int;
            /// Binds to a local address.
            bind_addr = c"rdma_bind_addr": fn(*mut rdma_cm_id, *mut sockaddr) -> c_int;
            /// Source (may be null), destination, timeout in milliseconds.
            resolve_addr = c"rdma_resolve_addr":
                fn(*mut rdma_cm_id, *mut sockaddr, *mut sockaddr, c_int) -> c_int;
            /// Timeout in milliseconds.
            resolve_route = c"rdma_resolve_route": fn(*mut rdma_cm_id, c_int) -> c_int;
            /// With a null domain the library's default one.
            create_qp = c"rdma_create_qp": fn(*mut rdma_cm_id, *mut ibv_pd, *mut ibv_qp_init_attr) -> c_int;
            /// Extended attributes.
            create_qp_ex = c"rdma_create_qp_ex": fn(*mut rdma_cm_id, *mut ibv_qp_init_attr_ex) -> c_int;
            /// Before the identifier is destroyed.
            destroy_qp = c"rdma_destroy_qp": fn(*mut rdma_cm_id);
            /// Asks for a connection; null parameters are the defaults.
            connect = c"rdma_connect": fn(*mut rdma_cm_id, *mut rdma_conn_param) -> c_int;
            /// Listens for requests.
            listen = c"rdma_listen": fn(*mut rdma_cm_id, c_int) -> c_int;
            /// Next request of a synchronous listener.
            get_request = c"rdma_get_request": fn(*mut rdma_cm_id, *mut *mut rdma_cm_id) -> c_int;
            /// Accepts a request.
            accept = c"rdma_accept": fn(*mut rdma_cm_id, *mut rdma_conn_param) -> c_int;
            /// Refuses a request, with private data.
            reject = c"rdma_reject": fn(*mut rdma_cm_id, *const c_void, u8) -> c_int;
            /// Passes on an asynchronous event (`IBV_EVENT_COMM_EST`).
            notify = c"rdma_notify": fn(*mut rdma_cm_id, ibv_event_type) -> c_int;
            /// Ends a connection; its queue pair goes to the error state.
            disconnect = c"rdma_disconnect": fn(*mut rdma_cm_id) -> c_int;
            /// Joins a multicast group.
            join_multicast = c"rdma_join_multicast": fn(*mut rdma_cm_id, *mut sockaddr, *mut c_void) -> c_int;
            /// Leaves a multicast group.
            leave_multicast = c"rdma_leave_multicast": fn(*mut rdma_cm_id, *mut sockaddr) -> c_int;
            /// Next event; blocks unless the channel's `fd` is non-blocking.
            get_cm_event = c"rdma_get_cm_event":
                fn(*mut rdma_event_channel, *mut *mut rdma_cm_event) -> c_int;
            /// Frees the event.
            ack_cm_event = c"rdma_ack_cm_event": fn(*mut rdma_cm_event) -> c_int;
            /// Big-endian port, 0 if not bound.
            get_src_port = c"rdma_get_src_port": fn(*mut rdma_cm_id) -> u16;
            /// Big-endian port, 0 if not connected.
            get_dst_port = c"rdma_get_dst_port": fn(*mut rdma_cm_id) -> u16;
            /// Array of open contexts terminated by null, or null with errno.
            get_devices = c"rdma_get_devices": fn(*mut c_int) -> *mut *mut ibv_context;
            /// Frees the array.
            free_devices = c"rdma_free_devices": fn(*mut *mut ibv_context);
            /// Static string.
            event_str = c"rdma_event_str": fn(rdma_cm_event_type) -> *const c_char;
            /// Level, option, value, size of the value.
            set_option = c"rdma_set_option": fn(*mut rdma_cm_id, c_int, c_int, *mut c_void, usize) -> c_int;
            /// Moves an identifier to another channel; null makes it synchronous.
            migrate_id = c"rdma_migrate_id": fn(*mut rdma_cm_id, *mut rdma_event_channel) -> c_int;
            /// Node, service, hints, result. 0, −1 with errno, or an error of `getaddrinfo(3)`.
            getaddrinfo = c"rdma_getaddrinfo":
                fn(*const c_char, *const c_char, *const rdma_addrinfo, *mut *mut rdma_addrinfo) -> c_int;
            /// Frees a result of `getaddrinfo`.
            freeaddrinfo = c"rdma_freeaddrinfo": fn(*mut rdma_addrinfo);
            /// Shared receive queue of an identifier.
            create_srq = c"rdma_create_srq": fn(*mut rdma_cm_id, *mut ibv_pd, *mut ibv_srq_init_attr) -> c_int;
            /// Extended attributes.
            create_srq_ex = c"rdma_create_srq_ex": fn(*mut rdma_cm_id, *mut ibv_srq_init_attr_ex) -> c_int;
            /// Inverse of `create_srq`.
            destroy_srq = c"rdma_destroy_srq": fn(*mut rdma_cm_id);
        }
        optional {
            /// Since RDMACM_1.1.
            join_multicast_ex = c"rdma_join_multicast_ex":
                fn(*mut rdma_cm_id, *mut rdma_cm_join_mc_attr_ex, *mut c_void) -> c_int;
            /// Since RDMACM_1.2. Completes a connection whose queue pair is not the identifier's.
            establish = c"rdma_establish": fn(*mut rdma_cm_id) -> c_int;
            /// Since RDMACM_1.2. Attributes and mask for the next transition (`qp_state` is the input).
            init_qp_attr = c"rdma_init_qp_attr": fn(*mut rdma_cm_id, *mut ibv_qp_attr, *mut c_int) -> c_int;
            /// Since RDMACM_1.3.
            reject_ece = c"rdma_reject_ece": fn(*mut rdma_cm_id, *const c_void, u8) -> c_int;
            /// Since RDMACM_1.3.
            set_local_ece = c"rdma_set_local_ece": fn(*mut rdma_cm_id, *mut ibv_ece) -> c_int;
            /// Since RDMACM_1.3.
            get_remote_ece = c"rdma_get_remote_ece": fn(*mut rdma_cm_id, *mut ibv_ece) -> c_int;
            /// Since RDMACM_1.4. Node, service, hints; answered by an event.
            resolve_addrinfo = c"rdma_resolve_addrinfo":
                fn(*mut rdma_cm_id, *const c_char, *const c_char, *const rdma_addrinfo) -> c_int;
            /// Since RDMACM_1.4.
            query_addrinfo = c"rdma_query_addrinfo": fn(*mut rdma_cm_id, *mut *mut rdma_addrinfo) -> c_int;
            /// Since RDMACM_1.4. Queues an event of the program's own: event, status, argument.
            write_cm_event = c"rdma_write_cm_event":
                fn(*mut rdma_cm_id, rdma_cm_event_type, c_int, u64) -> c_int;
        }
        extension {}
    }
}
