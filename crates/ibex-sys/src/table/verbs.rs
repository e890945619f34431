//! The table of libibverbs: one pointer for each function it exports.
//!
//! Owns [`Verbs`]. What verbs.h does inline instead (posting, polling, everything extended) is in
//! [`crate::dispatch`]. Return conventions are decoded in [`crate::convention`].
//!
//! Man pages: section 3, each function under its own name.
#![allow(unsafe_code)]

use core::ffi::{c_char, c_int, c_uint, c_void};

use super::function_table;
use crate::verbs::*;

function_table! {
    /// The functions of libibverbs, named without their prefix `ibv_`.
    ///
    /// Those of symbol versions `IBVERBS_1.0` and `IBVERBS_1.1` are always there; later ones are `None` if the library is
    /// older. [`Verbs::load`] gives the system's library; the software device offers a table of its own functions.
    ///
    /// # Safety
    ///
    /// All functions follow the contracts of their man pages. Whoever builds a table by hand must fill it with functions
    /// that keep those contracts, all of one device library: objects of one table are passed to no other.
    pub struct Verbs {
        required {
            /// Array terminated by null, or null with errno; the argument, the number of devices, may be null.
            get_device_list = c"ibv_get_device_list": fn(*mut c_int) -> *mut *mut ibv_device;
            /// Frees the array; devices not opened become invalid.
            free_device_list = c"ibv_free_device_list": fn(*mut *mut ibv_device);
            /// NUL-terminated, owned by the device.
            get_device_name = c"ibv_get_device_name": fn(*mut ibv_device) -> *const c_char;
            /// Big-endian node GUID.
            get_device_guid = c"ibv_get_device_guid": fn(*mut ibv_device) -> u64;
            /// Null with errno on failure.
            open_device = c"ibv_open_device": fn(*mut ibv_device) -> *mut ibv_context;
            /// 0, or −1.
            close_device = c"ibv_close_device": fn(*mut ibv_context) -> c_int;
            /// 0, or −1 with errno; blocks unless the context's `async_fd` is non-blocking.
            get_async_event = c"ibv_get_async_event": fn(*mut ibv_context, *mut ibv_async_event) -> c_int;
            /// Every event that was got must be acknowledged once.
            ack_async_event = c"ibv_ack_async_event": fn(*mut ibv_async_event);
            /// 0, or an errno.
            query_device = c"ibv_query_device": fn(*mut ibv_context, *mut ibv_device_attr) -> c_int;
            /// 0, or an errno; fills only the old, shorter attributes: see `dispatch::ibv_query_port`.
            query_port = c"ibv_query_port": fn(*mut ibv_context, u8, *mut _compat_ibv_port_attr) -> c_int;
            /// 0, or −1 with errno.
            query_gid = c"ibv_query_gid": fn(*mut ibv_context, u8, c_int, *mut ibv_gid) -> c_int;
            /// 0, or −1 with errno; the key is big-endian.
            query_pkey = c"ibv_query_pkey": fn(*mut ibv_context, u8, c_int, *mut u16) -> c_int;
            /// Null with errno on failure.
            alloc_pd = c"ibv_alloc_pd": fn(*mut ibv_context) -> *mut ibv_pd;
            /// 0, or an errno.
            dealloc_pd = c"ibv_dealloc_pd": fn(*mut ibv_pd) -> c_int;
            /// Null with errno on failure.
            reg_mr = c"ibv_reg_mr": fn(*mut ibv_pd, *mut c_void, usize, c_int) -> *mut ibv_mr;
            /// 0, or a value of `ibv_rereg_mr_err_code`, with errno.
            rereg_mr = c"ibv_rereg_mr": fn(*mut ibv_mr, c_int, *mut ibv_pd, *mut c_void, usize, c_int) -> c_int;
            /// 0, or an errno.
            dereg_mr = c"ibv_dereg_mr": fn(*mut ibv_mr) -> c_int;
            /// Null with errno on failure.
            create_comp_channel = c"ibv_create_comp_channel": fn(*mut ibv_context) -> *mut ibv_comp_channel;
            /// 0, or an errno (EBUSY while a queue uses it).
            destroy_comp_channel = c"ibv_destroy_comp_channel": fn(*mut ibv_comp_channel) -> c_int;
            /// Null with errno on failure.
            create_cq = c"ibv_create_cq":
                fn(*mut ibv_context, c_int, *mut c_void, *mut ibv_comp_channel, c_int) -> *mut ibv_cq;
            /// 0, or an errno.
            resize_cq = c"ibv_resize_cq": fn(*mut ibv_cq, c_int) -> c_int;
            /// 0, or an errno; waits until every event got from the queue is acknowledged.
            destroy_cq = c"ibv_destroy_cq": fn(*mut ibv_cq) -> c_int;
            /// 0, or −1 with errno; blocks unless the channel's `fd` is non-blocking.
            get_cq_event = c"ibv_get_cq_event":
                fn(*mut ibv_comp_channel, *mut *mut ibv_cq, *mut *mut c_void) -> c_int;
            /// Takes the queue's mutex: acknowledge many at once.
            ack_cq_events = c"ibv_ack_cq_events": fn(*mut ibv_cq, c_uint);
            /// Null with errno on failure.
            create_srq = c"ibv_create_srq": fn(*mut ibv_pd, *mut ibv_srq_init_attr) -> *mut ibv_srq;
            /// 0, or an errno.
            modify_srq = c"ibv_modify_srq": fn(*mut ibv_srq, *mut ibv_srq_attr, c_int) -> c_int;
            /// 0, or an errno.
            query_srq = c"ibv_query_srq": fn(*mut ibv_srq, *mut ibv_srq_attr) -> c_int;
            /// 0, or an errno.
            destroy_srq = c"ibv_destroy_srq": fn(*mut ibv_srq) -> c_int;
            /// Null with errno on failure.
            create_qp = c"ibv_create_qp": fn(*mut ibv_pd, *mut ibv_qp_init_attr) -> *mut ibv_qp;
            /// 0, or an errno.
            query_qp = c"ibv_query_qp":
                fn(*mut ibv_qp, *mut ibv_qp_attr, c_int, *mut ibv_qp_init_attr) -> c_int;
            /// 0, or an errno.
            modify_qp = c"ibv_modify_qp": fn(*mut ibv_qp, *mut ibv_qp_attr, c_int) -> c_int;
            /// 0, or an errno; waits until every asynchronous event got from it is acknowledged.
            destroy_qp = c"ibv_destroy_qp": fn(*mut ibv_qp) -> c_int;
            /// Null with errno on failure.
            create_ah = c"ibv_create_ah": fn(*mut ibv_pd, *mut ibv_ah_attr) -> *mut ibv_ah;
            /// 0, or −1 with errno.
            init_ah_from_wc = c"ibv_init_ah_from_wc":
                fn(*mut ibv_context, u8, *mut ibv_wc, *mut ibv_grh, *mut ibv_ah_attr) -> c_int;
            /// Null with errno on failure.
            create_ah_from_wc = c"ibv_create_ah_from_wc":
                fn(*mut ibv_pd, *mut ibv_wc, *mut ibv_grh, u8) -> *mut ibv_ah;
            /// 0, or an errno.
            destroy_ah = c"ibv_destroy_ah": fn(*mut ibv_ah) -> c_int;
            /// 0, or an errno; the LID is in host order.
            attach_mcast = c"ibv_attach_mcast": fn(*mut ibv_qp, *const ibv_gid, u16) -> c_int;
            /// 0, or an errno; the LID is in host order.
            detach_mcast = c"ibv_detach_mcast": fn(*mut ibv_qp, *const ibv_gid, u16) -> c_int;
            /// 0, or an errno.
            fork_init = c"ibv_fork_init": fn() -> c_int;
            /// Static string.
            wc_status_str = c"ibv_wc_status_str": fn(ibv_wc_status) -> *const c_char;
            /// Static string.
            event_type_str = c"ibv_event_type_str": fn(ibv_event_type) -> *const c_char;
            /// Static string.
            node_type_str = c"ibv_node_type_str": fn(ibv_node_type) -> *const c_char;
            /// Static string.
            port_state_str = c"ibv_port_state_str": fn(ibv_port_state) -> *const c_char;
            /// Multiple of 2.5 Gbit/s, or −1.
            rate_to_mult = c"ibv_rate_to_mult": fn(ibv_rate) -> c_int;
            /// Inverse of `rate_to_mult`; `IBV_RATE_MAX` if there is none.
            mult_to_ibv_rate = c"mult_to_ibv_rate": fn(c_int) -> ibv_rate;
            /// Mbit/s, or −1.
            rate_to_mbps = c"ibv_rate_to_mbps": fn(ibv_rate) -> c_int;
            /// Inverse of `rate_to_mbps`; `IBV_RATE_MAX` if there is none.
            mbps_to_ibv_rate = c"mbps_to_ibv_rate": fn(c_int) -> ibv_rate;
            /// 0, or an errno; writes six bytes and the VLAN identifier.
            resolve_eth_l2_from_gid = c"ibv_resolve_eth_l2_from_gid":
                fn(*mut ibv_context, *mut ibv_ah_attr, *mut u8, *mut u16) -> c_int;
        }
        optional {
            /// Since IBVERBS_1.5. The index, or −1 with errno; the key is big-endian.
            get_pkey_index = c"ibv_get_pkey_index": fn(*mut ibv_context, u8, u16) -> c_int;
            /// Since IBVERBS_1.6. Null if the queue pair has no extended interface.
            qp_to_qp_ex = c"ibv_qp_to_qp_ex": fn(*mut ibv_qp) -> *mut ibv_qp_ex;
            /// Since IBVERBS_1.7. Null with errno on failure.
            reg_mr_iova = c"ibv_reg_mr_iova":
                fn(*mut ibv_pd, *mut c_void, usize, u64, c_int) -> *mut ibv_mr;
            /// Since IBVERBS_1.8. As `reg_mr_iova`; drops optional access flags the kernel does not know.
            reg_mr_iova2 = c"ibv_reg_mr_iova2":
                fn(*mut ibv_pd, *mut c_void, usize, u64, c_uint) -> *mut ibv_mr;
            /// Since IBVERBS_1.9. The kernel's index of the device, or −1.
            get_device_index = c"ibv_get_device_index": fn(*mut ibv_device) -> c_int;
            /// Since IBVERBS_1.10. Null with errno on failure.
            import_device = c"ibv_import_device": fn(c_int) -> *mut ibv_context;
            /// Since IBVERBS_1.10. Null with errno on failure.
            import_pd = c"ibv_import_pd": fn(*mut ibv_context, u32) -> *mut ibv_pd;
            /// Since IBVERBS_1.10.
            unimport_pd = c"ibv_unimport_pd": fn(*mut ibv_pd);
            /// Since IBVERBS_1.10. Null with errno on failure.
            import_mr = c"ibv_import_mr": fn(*mut ibv_pd, u32) -> *mut ibv_mr;
            /// Since IBVERBS_1.10.
            unimport_mr = c"ibv_unimport_mr": fn(*mut ibv_mr);
            /// Since IBVERBS_1.10. 0, or an errno.
            set_ece = c"ibv_set_ece": fn(*mut ibv_qp, *mut ibv_ece) -> c_int;
            /// Since IBVERBS_1.10. 0, or an errno.
            query_ece = c"ibv_query_ece": fn(*mut ibv_qp, *mut ibv_ece) -> c_int;
            /// Since IBVERBS_1.11 as `_ibv_query_gid_ex`. 0, or an errno; the last argument is the entry's size.
            query_gid_ex = c"_ibv_query_gid_ex":
                fn(*mut ibv_context, u32, u32, *mut ibv_gid_entry, u32, usize) -> c_int;
            /// Since IBVERBS_1.11 as `_ibv_query_gid_table`. The number of entries, or a negative errno.
            query_gid_table = c"_ibv_query_gid_table":
                fn(*mut ibv_context, *mut ibv_gid_entry, usize, u32, usize) -> isize;
            /// Since IBVERBS_1.12. Null with errno on failure.
            reg_dmabuf_mr = c"ibv_reg_dmabuf_mr":
                fn(*mut ibv_pd, u64, usize, u64, c_int, c_int) -> *mut ibv_mr;
            /// Since IBVERBS_1.13. Null with errno on failure.
            import_dm = c"ibv_import_dm": fn(*mut ibv_context, u32) -> *mut ibv_dm;
            /// Since IBVERBS_1.13.
            unimport_dm = c"ibv_unimport_dm": fn(*mut ibv_dm);
            /// Since IBVERBS_1.13.
            is_fork_initialized = c"ibv_is_fork_initialized": fn() -> ibv_fork_status;
            /// Since IBVERBS_1.14. Bits of `ibv_query_qp_data_in_order_caps`, or 0 and 1.
            query_qp_data_in_order = c"ibv_query_qp_data_in_order":
                fn(*mut ibv_qp, ibv_wr_opcode, u32) -> c_int;
            /// Since IBVERBS_1.15. Null with errno on failure.
            alloc_dmah = c"ibv_alloc_dmah": fn(*mut ibv_context, *mut ibv_dmah_init_attr) -> *mut ibv_dmah;
            /// Since IBVERBS_1.15. 0, or an errno.
            dealloc_dmah = c"ibv_dealloc_dmah": fn(*mut ibv_dmah) -> c_int;
            /// Since IBVERBS_1.15. Null with errno on failure.
            reg_mr_ex = c"ibv_reg_mr_ex": fn(*mut ibv_pd, *mut ibv_mr_init_attr) -> *mut ibv_mr;
            /// Since IBVERBS_1.16. A file descriptor, or −1 with errno.
            dm_export_dmabuf_fd = c"ibv_dm_export_dmabuf_fd": fn(*mut ibv_dm) -> c_int;
            /// Since IBVERBS_1.16. 0, or an errno; in units of 100 Mbit/s.
            query_port_speed = c"ibv_query_port_speed": fn(*mut ibv_context, u32, *mut u64) -> c_int;
            /// Since IBVERBS_1.17. Null with errno on failure.
            alloc_buf = c"ibv_alloc_buf": fn(*mut ibv_pd, usize, *mut *mut ibv_buf) -> *mut c_void;
            /// Since IBVERBS_1.17.
            free_buf = c"ibv_free_buf": fn(*mut ibv_buf);
            /// Since IBVERBS_1.17. Null with errno on failure.
            reg_buf_mr = c"ibv_reg_buf_mr":
                fn(*mut ibv_pd, *mut ibv_buf, *mut c_void, usize, c_int) -> *mut ibv_mr;
            /// Since IBVERBS_1.18. A file descriptor, or −1 with errno.
            export_buf_dmabuf_fd = c"ibv_export_buf_dmabuf_fd": fn(*mut ibv_buf) -> c_int;
            /// Since IBVERBS_1.18 as `_ibv_query_comp_cntr_caps`. 0, or an errno; the last argument is the structure's size.
            query_comp_cntr_caps = c"_ibv_query_comp_cntr_caps":
                fn(*mut ibv_context, *mut ibv_comp_cntr_caps, usize) -> c_int;
            /// Since IBVERBS_1.18. Null with errno on failure.
            create_comp_cntr = c"ibv_create_comp_cntr":
                fn(*mut ibv_context, *mut ibv_comp_cntr_init_attr) -> *mut ibv_comp_cntr;
            /// Since IBVERBS_1.18. 0, or an errno.
            destroy_comp_cntr = c"ibv_destroy_comp_cntr": fn(*mut ibv_comp_cntr) -> c_int;
            /// Since IBVERBS_1.18. 0, or an errno.
            set_comp_cntr = c"ibv_set_comp_cntr": fn(*mut ibv_comp_cntr, u64) -> c_int;
            /// Since IBVERBS_1.18. 0, or an errno.
            set_err_comp_cntr = c"ibv_set_err_comp_cntr": fn(*mut ibv_comp_cntr, u64) -> c_int;
            /// Since IBVERBS_1.18. 0, or an errno.
            inc_comp_cntr = c"ibv_inc_comp_cntr": fn(*mut ibv_comp_cntr, u64) -> c_int;
            /// Since IBVERBS_1.18. 0, or an errno.
            inc_err_comp_cntr = c"ibv_inc_err_comp_cntr": fn(*mut ibv_comp_cntr, u64) -> c_int;
            /// Since IBVERBS_1.18. 0, or an errno.
            read_comp_cntr = c"ibv_read_comp_cntr": fn(*mut ibv_comp_cntr, *mut u64) -> c_int;
            /// Since IBVERBS_1.18. 0, or an errno.
            read_err_comp_cntr = c"ibv_read_err_comp_cntr": fn(*mut ibv_comp_cntr, *mut u64) -> c_int;
            /// Since IBVERBS_1.18. 0, or an errno.
            qp_attach_comp_cntr = c"ibv_qp_attach_comp_cntr":
                fn(*mut ibv_qp, *mut ibv_comp_cntr, *mut ibv_qp_attach_comp_cntr_attr) -> c_int;
        }
        extension {
            /// Waits until an event of the channel can be read, at most so many nanoseconds. 0, ETIMEDOUT, or an errno.
            /// `None` for the system's library: wait on the channel's `fd` with `poll(2)`. A device inside the process
            /// offers it where it can do work on its own behalf instead of sleeping.
            wait_comp_event: fn(*mut ibv_comp_channel, u64) -> c_int;
            /// Says that memory, so many bytes from an address on, maps the file of a descriptor from an offset on, and will
            /// until [`unshare_memory`](Verbs::unshare_memory). 0 or an errno. Regions registered in it afterwards may be
            /// reached by other processes that map the file, too, if the device has a use for that. The file must be sealed
            /// against shrinking (`F_SEAL_SHRINK`). `None` for the system's library: adapters have no use for it.
            share_memory: fn(*mut c_void, usize, c_int, u64) -> c_int;
            /// Takes back what was said of the memory at this address, before it is unmapped and after its regions are
            /// deregistered. 0 or an errno.
            unshare_memory: fn(*mut c_void) -> c_int;
            /// Writes into the buffer, of so many bytes, a text that ends with a zero: the links that a device inside the
            /// process has, then a line for every process it could be connected to, having met them. Returns the text's
            /// length, which is cut to fit, or −1 with `errno`. Takes up to a tenth of a second.
            describe_links: fn(*mut ibv_context, *mut c_char, usize) -> c_int;
        }
    }
}
