//! The exported symbols of both libraries: name, version and who answers, in one list.
//!
//! Each list is a macro that hands its rows to the macro it is given. `export.rs` makes symbols of them; xtask
//! includes this very file to write the version scripts and to know what the finished libraries must export. A row is
//! `kind name;` where the kind says who answers: `soft` is `ibex_soft::abi::name`, `cm` is `ibex_soft::abi::cm::name`, and
//! the others are refusals of `crate::stubs`, chosen by the function's return convention:
//!
//! | kind | the function returns |
//! |---|---|
//! | `code` | `int`: EOPNOTSUPP itself |
//! | `minus` | `int`, `ssize_t`: −1 with errno EOPNOTSUPP |
//! | `null` | a pointer: NULL with errno EOPNOTSUPP |
//! | `zero` | a number that 0 fits, or a pointer that may be NULL without an error |
//! | `void` | nothing |
//!
//! Versions of one library follow each other in the order written: a later one inherits from the one before. The
//! names and versions are those of rdma-core's `libibverbs.map` and `librdmacm.map` up to release 65. Left out are the
//! second, older versions (`IBVERBS_1.0`) of functions that got a new one in 2006: no program of today's imports them.

/// libibverbs.so.1, public versions.
macro_rules! verbs_symbols {
    ($then:ident) => {
        $then! {
            "IBVERBS_1.0" {
                soft ibv_create_comp_channel;
                soft ibv_destroy_comp_channel;
                soft ibv_rate_to_mult;
                soft mult_to_ibv_rate;
                soft ibv_copy_path_rec_from_kern;
                soft ibv_copy_path_rec_to_kern;
                soft ibv_copy_qp_attr_from_kern;
                soft ibv_get_sysfs_path;
                soft ibv_read_sysfs_file;
            }
            "IBVERBS_1.1" {
                soft ibv_ack_async_event;
                soft ibv_ack_cq_events;
                soft ibv_alloc_pd;
                soft ibv_attach_mcast;
                soft ibv_close_device;
                soft ibv_copy_ah_attr_from_kern;
                soft ibv_create_ah;
                soft ibv_create_ah_from_wc;
                soft ibv_create_cq;
                soft ibv_create_qp;
                soft ibv_create_srq;
                soft ibv_dealloc_pd;
                soft ibv_dereg_mr;
                soft ibv_destroy_ah;
                soft ibv_destroy_cq;
                soft ibv_destroy_qp;
                soft ibv_destroy_srq;
                soft ibv_detach_mcast;
                soft ibv_dofork_range;
                soft ibv_dontfork_range;
                soft ibv_event_type_str;
                soft ibv_fork_init;
                soft ibv_free_device_list;
                soft ibv_get_async_event;
                soft ibv_get_cq_event;
                soft ibv_get_device_guid;
                soft ibv_get_device_list;
                soft ibv_get_device_name;
                soft ibv_init_ah_from_wc;
                soft ibv_modify_qp;
                soft ibv_modify_srq;
                soft ibv_node_type_str;
                soft ibv_open_device;
                soft ibv_port_state_str;
                soft ibv_query_device;
                soft ibv_query_gid;
                soft ibv_query_pkey;
                soft ibv_query_port;
                soft ibv_query_qp;
                soft ibv_query_srq;
                soft ibv_rate_to_mbps;
                soft ibv_reg_mr;
                void ibv_register_driver;
                soft ibv_rereg_mr;
                soft ibv_resize_cq;
                soft ibv_resolve_eth_l2_from_gid;
                soft ibv_wc_status_str;
                soft mbps_to_ibv_rate;
            }
            "IBVERBS_1.5" { soft ibv_get_pkey_index; }
            "IBVERBS_1.6" { soft ibv_qp_to_qp_ex; }
            "IBVERBS_1.7" { soft ibv_reg_mr_iova; }
            "IBVERBS_1.8" { soft ibv_reg_mr_iova2; }
            "IBVERBS_1.9" { soft ibv_get_device_index; }
            "IBVERBS_1.10" {
                soft ibv_import_device;
                soft ibv_import_mr;
                soft ibv_import_pd;
                soft ibv_query_ece;
                soft ibv_set_ece;
                soft ibv_unimport_mr;
                soft ibv_unimport_pd;
            }
            "IBVERBS_1.11" {
                soft _ibv_query_gid_ex;
                soft _ibv_query_gid_table;
            }
            "IBVERBS_1.12" { soft ibv_reg_dmabuf_mr; }
            "IBVERBS_1.13" {
                soft ibv_import_dm;
                soft ibv_is_fork_initialized;
                soft ibv_unimport_dm;
            }
            "IBVERBS_1.14" { soft ibv_query_qp_data_in_order; }
            "IBVERBS_1.15" {
                null ibv_alloc_dmah;
                code ibv_dealloc_dmah;
                null ibv_reg_mr_ex;
            }
            "IBVERBS_1.16" {
                minus ibv_dm_export_dmabuf_fd;
                code ibv_query_port_speed;
            }
            "IBVERBS_1.17" {
                null ibv_alloc_buf;
                void ibv_free_buf;
                null ibv_reg_buf_mr;
            }
            "IBVERBS_1.18" {
                code _ibv_query_comp_cntr_caps;
                null ibv_create_comp_cntr;
                code ibv_destroy_comp_cntr;
                minus ibv_export_buf_dmabuf_fd;
                code ibv_inc_comp_cntr;
                code ibv_inc_err_comp_cntr;
                code ibv_qp_attach_comp_cntr;
                code ibv_read_comp_cntr;
                code ibv_read_err_comp_cntr;
                code ibv_set_comp_cntr;
                code ibv_set_err_comp_cntr;
            }
        }
    };
}

/// The provider interface of libibverbs.so.1, which libmlx5 and libefa import whole (perftest, UCX and libfabric are
/// linked to them); `ibv_devinfo` really calls one of its functions. One list for every number of
/// `private_versions`: a name that a release does not know yet is never asked for. What follows the macro's name is
/// handed on before the rows. The one symbol of data, `verbs_allow_disassociate_destroy`, and
/// `verbs_register_driver_<number>` are written out in `export.rs`.
macro_rules! private_symbols {
    ($then:ident $($with:tt)*) => {
        $then! {
            $($with)* =>
            zero __ioctl_final_num_attrs;
            void __verbs_log;
            null _verbs_init_and_alloc_context;
            code execute_ioctl;
            code ibv_cmd_advise_mr;
            code ibv_cmd_alloc_dm;
            code ibv_cmd_alloc_dmah;
            code ibv_cmd_alloc_mw;
            code ibv_cmd_alloc_pd;
            code ibv_cmd_attach_mcast;
            code ibv_cmd_close_xrcd;
            code ibv_cmd_create_ah;
            code ibv_cmd_create_comp_cntr;
            code ibv_cmd_create_counters;
            code ibv_cmd_create_cq;
            code ibv_cmd_create_cq_ex;
            code ibv_cmd_create_cq_ex2;
            code ibv_cmd_create_flow;
            code ibv_cmd_create_flow_action_esp;
            code ibv_cmd_create_qp;
            code ibv_cmd_create_qp_ex;
            code ibv_cmd_create_qp_ex2;
            code ibv_cmd_create_rwq_ind_table;
            code ibv_cmd_create_srq;
            code ibv_cmd_create_srq_ex;
            code ibv_cmd_create_wq;
            code ibv_cmd_dealloc_mw;
            code ibv_cmd_dealloc_pd;
            code ibv_cmd_dereg_mr;
            code ibv_cmd_destroy_ah;
            code ibv_cmd_destroy_comp_cntr;
            code ibv_cmd_destroy_counters;
            code ibv_cmd_destroy_cq;
            code ibv_cmd_destroy_flow;
            code ibv_cmd_destroy_flow_action;
            code ibv_cmd_destroy_qp;
            code ibv_cmd_destroy_rwq_ind_table;
            code ibv_cmd_destroy_srq;
            code ibv_cmd_destroy_wq;
            code ibv_cmd_detach_mcast;
            minus ibv_cmd_export_dmabuf_fd;
            code ibv_cmd_free_dm;
            code ibv_cmd_free_dmah;
            code ibv_cmd_get_context;
            code ibv_cmd_inc_comp_cntr;
            code ibv_cmd_inc_err_comp_cntr;
            code ibv_cmd_modify_cq;
            code ibv_cmd_modify_flow_action_esp;
            code ibv_cmd_modify_qp;
            code ibv_cmd_modify_qp_ex;
            code ibv_cmd_modify_srq;
            code ibv_cmd_modify_wq;
            code ibv_cmd_open_qp;
            code ibv_cmd_open_xrcd;
            minus ibv_cmd_poll_cq;
            code ibv_cmd_post_recv;
            code ibv_cmd_post_send;
            code ibv_cmd_post_srq_recv;
            code ibv_cmd_qp_attach_comp_cntr;
            code ibv_cmd_query_comp_cntr_caps;
            code ibv_cmd_query_context;
            code ibv_cmd_query_device_any;
            code ibv_cmd_query_mr;
            code ibv_cmd_query_port;
            code ibv_cmd_query_port_speed;
            code ibv_cmd_query_qp;
            code ibv_cmd_query_srq;
            code ibv_cmd_read_comp_cntr;
            code ibv_cmd_read_counters;
            code ibv_cmd_read_err_comp_cntr;
            code ibv_cmd_reg_dm_mr;
            code ibv_cmd_reg_dmabuf_mr;
            code ibv_cmd_reg_mr;
            code ibv_cmd_reg_mr_ex;
            code ibv_cmd_req_notify_cq;
            code ibv_cmd_rereg_mr;
            code ibv_cmd_resize_cq;
            code ibv_cmd_set_comp_cntr;
            code ibv_cmd_set_err_comp_cntr;
            null ibv_dmabuf_heap_alloc;
            null ibv_dmabuf_heap_cc_shared_init;
            void ibv_dmabuf_heap_destroy;
            void ibv_dmabuf_heap_free;
            soft ibv_query_gid_type;
            minus ibv_read_ibdev_sysfs_file;
            zero ibv_wr_opcode_str;
            void verbs_init_cq;
            null verbs_open_device;
            void verbs_set_ops;
            void verbs_uninit_context;
        }
    };
}

/// Numbers of the provider interface. 34 served rdma-core 34 to 56 and so every current stable distribution; then it
/// moved with releases 57, 59, 64 and 65. Without its number a newer libmlx5 makes the loader refuse the program:
/// append on every move.
macro_rules! private_versions {
    ($then:ident) => {
        $then! { 34 57 59 64 65 }
    };
}

/// librdmacm.so.1. libibverbs.so.1 answers under the name `ibex_<name>`, version `IBEX_PRIVATE_1`.
macro_rules! cm_symbols {
    ($then:ident) => {
        $then! {
            "RDMACM_1.0" {
                cm rdma_create_event_channel;
                cm rdma_destroy_event_channel;
                cm rdma_create_id;
                cm rdma_destroy_id;
                cm rdma_bind_addr;
                cm rdma_resolve_addr;
                cm rdma_resolve_route;
                cm rdma_create_qp;
                cm rdma_create_qp_ex;
                cm rdma_destroy_qp;
                cm rdma_connect;
                cm rdma_listen;
                cm rdma_accept;
                cm rdma_reject;
                cm rdma_notify;
                cm rdma_disconnect;
                cm rdma_get_cm_event;
                cm rdma_ack_cm_event;
                cm rdma_get_src_port;
                cm rdma_get_dst_port;
                cm rdma_join_multicast;
                cm rdma_leave_multicast;
                cm rdma_get_devices;
                cm rdma_free_devices;
                cm rdma_event_str;
                cm rdma_set_option;
                cm rdma_migrate_id;
                cm rdma_getaddrinfo;
                cm rdma_freeaddrinfo;
                cm rdma_get_request;
                cm rdma_create_ep;
                cm rdma_destroy_ep;
                cm rdma_create_srq;
                cm rdma_create_srq_ex;
                cm rdma_destroy_srq;
                minus rsocket;
                minus rbind;
                minus rlisten;
                minus raccept;
                minus rconnect;
                minus rshutdown;
                minus rclose;
                minus rrecv;
                minus rrecvfrom;
                minus rrecvmsg;
                minus rsend;
                minus rsendto;
                minus rsendmsg;
                minus rread;
                minus rreadv;
                minus rwrite;
                minus rwritev;
                minus rpoll;
                minus rselect;
                minus rgetpeername;
                minus rgetsockname;
                minus rsetsockopt;
                minus rgetsockopt;
                minus rfcntl;
                minus riomap;
                minus riounmap;
                minus riowrite;
            }
            "RDMACM_1.1" { cm rdma_join_multicast_ex; }
            "RDMACM_1.2" {
                cm rdma_establish;
                cm rdma_init_qp_attr;
            }
            "RDMACM_1.3" {
                cm rdma_get_remote_ece;
                cm rdma_reject_ece;
                cm rdma_set_local_ece;
            }
            "RDMACM_1.4" {
                cm rdma_query_addrinfo;
                cm rdma_resolve_addrinfo;
                cm rdma_write_cm_event;
            }
            "RDMACM_1.5" {
                minus repoll_create;
                minus repoll_ctl;
                minus repoll_wait;
            }
        }
    };
}
