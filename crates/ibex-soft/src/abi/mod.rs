//! The C ABI: the functions of libibverbs, answered by the device.
//!
//! Owns everything that meets a C program: its pointers, its structures, its return conventions. No panic leaves it. Each
//! function carries the name of the C function it stands for and its manual's contract. The table of them is
//! [`verbs`]; `ibex-dropin` exports the functions themselves.
//!
//! | file | owns |
//! |---|---|
//! | `object` | C objects with their Rust insides, return conventions, the wall for panics |
//! | `context` | devices and contexts |
//! | `gid` | the port's tables |
//! | `links` | which links the device has |
//! | `pd` | protection domains and memory regions |
//! | `mw` | memory windows |
//! | `cq` | completion channels and queues |
//! | `cq_ex` | extended completion queues |
//! | `device_ex` | extended device attributes, the clock |
//! | `qp` | queue pairs |
//! | `qp_ex` | extended queue pairs: creation, which operations they have |
//! | `wr` | building requests in place, as extended queue pairs do |
//! | `srq` | shared receive queues |
//! | `ah` | address handles |
//! | `post` | posting |
//! | `events` | asynchronous events |
//! | `text` | names, rates, sysfs |
//! | `refuse` | what is not served |
//! | [`mod@cm`] | connection management: librdmacm |
//!
//! # Safety
//! Functions trust their C caller as far as their manual lets them: pointers are those given out earlier and not yet given
//! back, buffers have the sizes said. Null is refused where it is no legal value.

mod ah;
pub mod cm;
mod context;
mod cq;
mod cq_ex;
mod device_ex;
mod events;
mod gid;
mod links;
mod mw;
mod object;
mod pd;
mod post;
mod qp;
mod qp_ex;
mod refuse;
mod srq;
mod text;
mod wr;

pub use ah::*;
pub use context::*;
pub use cq::*;
pub use events::*;
pub use gid::*;
pub use links::*;
pub use pd::*;
pub use qp::*;
pub use refuse::*;
pub use srq::*;
pub use text::*;

use ibex_sys::Verbs;

static VERBS: Verbs = Verbs {
    get_device_list: ibv_get_device_list,
    free_device_list: ibv_free_device_list,
    get_device_name: ibv_get_device_name,
    get_device_guid: ibv_get_device_guid,
    open_device: ibv_open_device,
    close_device: ibv_close_device,
    get_async_event: ibv_get_async_event,
    ack_async_event: ibv_ack_async_event,
    query_device: ibv_query_device,
    query_port: ibv_query_port,
    query_gid: ibv_query_gid,
    query_pkey: ibv_query_pkey,
    alloc_pd: ibv_alloc_pd,
    dealloc_pd: ibv_dealloc_pd,
    reg_mr: ibv_reg_mr,
    rereg_mr: ibv_rereg_mr,
    dereg_mr: ibv_dereg_mr,
    create_comp_channel: ibv_create_comp_channel,
    destroy_comp_channel: ibv_destroy_comp_channel,
    create_cq: ibv_create_cq,
    resize_cq: ibv_resize_cq,
    destroy_cq: ibv_destroy_cq,
    get_cq_event: ibv_get_cq_event,
    ack_cq_events: ibv_ack_cq_events,
    create_srq: ibv_create_srq,
    modify_srq: ibv_modify_srq,
    query_srq: ibv_query_srq,
    destroy_srq: ibv_destroy_srq,
    create_qp: ibv_create_qp,
    query_qp: ibv_query_qp,
    modify_qp: ibv_modify_qp,
    destroy_qp: ibv_destroy_qp,
    create_ah: ibv_create_ah,
    init_ah_from_wc: ibv_init_ah_from_wc,
    create_ah_from_wc: ibv_create_ah_from_wc,
    destroy_ah: ibv_destroy_ah,
    attach_mcast: ibv_attach_mcast,
    detach_mcast: ibv_detach_mcast,
    fork_init: ibv_fork_init,
    wc_status_str: ibv_wc_status_str,
    event_type_str: ibv_event_type_str,
    node_type_str: ibv_node_type_str,
    port_state_str: ibv_port_state_str,
    rate_to_mult: ibv_rate_to_mult,
    mult_to_ibv_rate,
    rate_to_mbps: ibv_rate_to_mbps,
    mbps_to_ibv_rate,
    resolve_eth_l2_from_gid: ibv_resolve_eth_l2_from_gid,
    get_pkey_index: Some(ibv_get_pkey_index),
    qp_to_qp_ex: Some(ibv_qp_to_qp_ex),
    reg_mr_iova: Some(ibv_reg_mr_iova),
    reg_mr_iova2: Some(ibv_reg_mr_iova2),
    get_device_index: Some(ibv_get_device_index),
    import_device: Some(ibv_import_device),
    import_pd: Some(ibv_import_pd),
    unimport_pd: Some(ibv_unimport_pd),
    import_mr: Some(ibv_import_mr),
    unimport_mr: Some(ibv_unimport_mr),
    set_ece: Some(ibv_set_ece),
    query_ece: Some(ibv_query_ece),
    query_gid_ex: Some(_ibv_query_gid_ex),
    query_gid_table: Some(_ibv_query_gid_table),
    reg_dmabuf_mr: Some(ibv_reg_dmabuf_mr),
    import_dm: Some(ibv_import_dm),
    unimport_dm: Some(ibv_unimport_dm),
    is_fork_initialized: Some(ibv_is_fork_initialized),
    query_qp_data_in_order: Some(ibv_query_qp_data_in_order),
    alloc_dmah: None,
    dealloc_dmah: None,
    reg_mr_ex: None,
    dm_export_dmabuf_fd: None,
    query_port_speed: None,
    alloc_buf: None,
    free_buf: None,
    reg_buf_mr: None,
    export_buf_dmabuf_fd: None,
    query_comp_cntr_caps: None,
    create_comp_cntr: None,
    destroy_comp_cntr: None,
    set_comp_cntr: None,
    set_err_comp_cntr: None,
    inc_comp_cntr: None,
    inc_err_comp_cntr: None,
    read_comp_cntr: None,
    read_err_comp_cntr: None,
    qp_attach_comp_cntr: None,
    wait_comp_event: Some(wait_comp_event),
    share_memory: Some(share_memory),
    unshare_memory: Some(unshare_memory),
    describe_links: Some(describe_links),
};

/// The table of the device's verbs. What it does not serve answers `EOPNOTSUPP` or, for functions younger than
/// rdma-core 50, is absent.
pub fn verbs() -> &'static Verbs {
    &VERBS
}
