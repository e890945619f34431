//! Everything this crate declares, listed for the comparison. A name that is forgotten here fails it.

use super::{Layout, Type};
use crate::*;

macro_rules! types {
    ($($name:ident)*) => { &[ $( &<$name as Layout>::LAYOUT ),* ] };
}

/// Structures and unions that C names. Those without a name in C are reached through their members.
pub(super) const TYPES: &[&Type] = types! {
    _ibv_device_ops ibv_ah ibv_ah_attr ibv_alloc_dm_attr ibv_async_event ibv_comp_channel ibv_comp_cntr
    ibv_comp_cntr_caps ibv_comp_cntr_init_attr ibv_context ibv_context_ops ibv_counter_attach_attr ibv_counters
    ibv_counters_init_attr ibv_cq ibv_cq_ex ibv_cq_init_attr_ex ibv_cq_moderation_caps ibv_data_buf ibv_device
    ibv_device_attr ibv_device_attr_ex ibv_dm ibv_dmah ibv_dmah_init_attr ibv_ece ibv_fd_arr ibv_flow ibv_flow_action
    ibv_flow_action_esp ibv_flow_action_esp_attr ibv_flow_action_esp_encap ibv_flow_action_esp_keymat_aes_gcm
    ibv_flow_action_esp_replay_bmp ibv_flow_attr ibv_flow_esp_filter ibv_flow_eth_filter ibv_flow_gre_filter
    ibv_flow_ipv4_ext_filter ibv_flow_ipv4_filter ibv_flow_ipv6_filter ibv_flow_mpls_filter ibv_flow_spec
    ibv_flow_spec_action_drop ibv_flow_spec_action_handle ibv_flow_spec_action_tag ibv_flow_spec_counter_action
    ibv_flow_spec_esp ibv_flow_spec_eth ibv_flow_spec_gre ibv_flow_spec_ipv4 ibv_flow_spec_ipv4_ext ibv_flow_spec_ipv6
    ibv_flow_spec_mpls ibv_flow_spec_tcp_udp ibv_flow_spec_tunnel ibv_flow_tcp_udp_filter ibv_flow_tunnel_filter
    ibv_gid ibv_gid_entry ibv_global_route ibv_grh ibv_mr ibv_mr_init_attr ibv_mw ibv_mw_bind ibv_mw_bind_info
    ibv_moderate_cq ibv_modify_cq_attr ibv_odp_caps ibv_ops_wr ibv_packet_pacing_caps ibv_parent_domain_init_attr
    ibv_path_data ibv_path_record ibv_pci_atomic_caps ibv_pd ibv_poll_cq_attr ibv_port_attr ibv_qp ibv_qp_attr
    ibv_qp_attach_comp_cntr_attr ibv_qp_cap ibv_qp_ex ibv_qp_init_attr ibv_qp_init_attr_ex ibv_qp_open_attr
    ibv_qp_rate_limit_attr ibv_query_device_ex_input ibv_recv_wr ibv_rss_caps ibv_rwq_ind_table
    ibv_rwq_ind_table_init_attr ibv_rx_hash_conf ibv_sa_mcmember_rec ibv_sa_path_rec ibv_sa_service_rec ibv_send_wr
    ibv_sge ibv_srq ibv_srq_attr ibv_srq_init_attr ibv_srq_init_attr_ex ibv_td ibv_td_init_attr ibv_tm_cap ibv_tm_caps
    ibv_tso_caps ibv_values_ex ibv_wc ibv_wc_tm_info ibv_wq ibv_wq_attr ibv_wq_init_attr ibv_xrcd ibv_xrcd_init_attr
    rdma_addr rdma_addrinfo rdma_cm_event rdma_cm_id rdma_cm_join_mc_attr_ex rdma_conn_param rdma_event_channel
    rdma_ib_addr rdma_route rdma_ud_param verbs_context
};

/// An enumeration: name, integer type, values and names of its enumerators.
pub(super) struct Enumeration {
    pub(super) name: &'static str,
    pub(super) repr: &'static str,
    pub(super) values: Vec<(&'static str, i64)>,
}

macro_rules! enumerations {
    ($($name:ident)*) => { vec![ $( Enumeration {
        name: stringify!($name),
        repr: core::any::type_name_of_val(&$name::default().0),
        values: $name::NAMES.iter().map(|(value, name)| (*name, i64::from(*value))).collect(),
    } ),* ] };
}

/// All enumerations.
pub(super) fn enumerations() -> Vec<Enumeration> {
    enumerations! {
        ibv_access_flags ibv_advise_mr_advice ibv_atomic_cap ibv_comp_cntr_type ibv_counter_description ibv_cq_attr_mask
        ibv_cq_init_attr_mask ibv_create_cq_attr_flags ibv_create_cq_wc_flags ibv_device_cap_flags ibv_dm_mask
        ibv_dmah_init_attr_mask ibv_event_type ibv_flow_action_esp_flags ibv_flow_action_esp_keymat
        ibv_flow_action_esp_keymat_aes_gcm_iv_algo ibv_flow_action_esp_mask ibv_flow_action_esp_replay ibv_flow_attr_type
        ibv_flow_flags ibv_flow_spec_type ibv_fork_status ibv_gid_type ibv_ind_table_init_attr_mask ibv_mig_state
        ibv_mr_init_attr_mask ibv_mtu ibv_mw_type ibv_node_type ibv_odp_general_caps ibv_odp_transport_cap_bits
        ibv_ops_flags ibv_ops_wr_opcode ibv_parent_domain_init_attr_mask ibv_pci_atomic_op_size ibv_placement_type
        ibv_port_cap_flags ibv_port_cap_flags2 ibv_port_state ibv_qp_attach_comp_cntr_op ibv_qp_attr_mask
        ibv_qp_create_flags ibv_qp_create_send_ops_flags ibv_qp_init_attr_mask ibv_qp_open_attr_mask ibv_qp_state
        ibv_qp_type ibv_query_qp_data_in_order_caps ibv_query_qp_data_in_order_flags ibv_rate ibv_raw_packet_caps
        ibv_read_counters_flags ibv_rereg_mr_err_code ibv_rereg_mr_flags ibv_rx_hash_fields ibv_rx_hash_function_flags
        ibv_selectivity_level ibv_send_flags ibv_srq_attr_mask ibv_srq_init_attr_mask ibv_srq_type ibv_tm_cap_flags
        ibv_tph_mem_type ibv_transport_type ibv_values_mask ibv_wc_flags ibv_wc_opcode ibv_wc_status ibv_wq_attr_mask
        ibv_wq_flags ibv_wq_init_attr_mask ibv_wq_state ibv_wq_type ibv_wr_opcode ibv_xrcd_init_attr_mask
        rdma_cm_event_type rdma_cm_join_mc_attr_mask rdma_cm_mc_join_flags rdma_port_space
    }
}

macro_rules! constants {
    ($($name:ident)*) => { &[ $( (stringify!($name), $name as i64) ),* ] };
}

/// Constants outside enumerations: macros and members of unnamed enumerations.
pub(super) const CONSTANTS: &[(&str, i64)] = constants! {
    ETHERNET_LL_SIZE IBV_ACCESS_OPTIONAL_FIRST IBV_ACCESS_OPTIONAL_RANGE IBV_ADVISE_MR_FLAG_FLUSH
    IBV_DEVICE_CC_DMA_BOUNCE IBV_DEVICE_PCI_WRITE_END_PADDING IBV_DEVICE_RAW_SCATTER_FCS IBV_LINK_LAYER_ETHERNET
    IBV_LINK_LAYER_INFINIBAND IBV_LINK_LAYER_UNSPECIFIED IBV_PATH_FLAG_BIDIRECTIONAL IBV_PATH_FLAG_GMP
    IBV_PATH_FLAG_INBOUND IBV_PATH_FLAG_INBOUND_REVERSE IBV_PATH_FLAG_OUTBOUND IBV_PATH_FLAG_PRIMARY
    IBV_PATH_FLAG_ALTERNATE IBV_PATH_RECORD_REVERSIBLE IBV_QPF_GRH_REQUIRED IBV_SYSFS_NAME_MAX IBV_SYSFS_PATH_MAX
    IBV_WC_IP_CSUM_OK_SHIFT IB_GRH_FLOWLABEL_MASK IB_ROCE_UDP_ENCAP_VALID_PORT_MAX IB_ROCE_UDP_ENCAP_VALID_PORT_MIN
    RAI_DNS RAI_FAMILY RAI_NOROUTE RAI_NUMERICHOST RAI_PASSIVE RAI_SA RDMA_IB_IP_PORT_MASK RDMA_IB_IP_PS_MASK
    RDMA_IB_IP_PS_TCP RDMA_IB_IP_PS_UDP RDMA_IB_PS_IB RDMA_MAX_INIT_DEPTH RDMA_MAX_RESP_RES RDMA_OPTION_IB
    RDMA_OPTION_IB_PATH RDMA_OPTION_ID RDMA_OPTION_ID_ACK_TIMEOUT RDMA_OPTION_ID_AFONLY RDMA_OPTION_ID_REUSEADDR
    RDMA_OPTION_ID_TOS RDMA_UDP_QKEY
};

/// Constants that are not plain integers here.
pub(super) fn other_constants() -> [(&'static str, i64); 4] {
    [
        ("IBV_ALLOCATOR_USE_DEFAULT", IBV_ALLOCATOR_USE_DEFAULT.addr() as i64),
        ("__VERBS_ABI_IS_EXTENDED", __VERBS_ABI_IS_EXTENDED.addr() as i64),
        ("IBV_WC_STANDARD_FLAGS", i64::from(IBV_WC_STANDARD_FLAGS.0)),
        ("IBV_CREATE_CQ_SUP_WC_FLAGS", i64::from(IBV_CREATE_CQ_SUP_WC_FLAGS.0)),
    ]
}
