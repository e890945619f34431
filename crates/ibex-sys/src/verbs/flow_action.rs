//! ESP flow actions (IPsec offload). In C these are macros over the kernel's `ib_uverbs_*` names.
//!
//! Man page: `ibv_flow_action_esp(3)`.
#![allow(missing_docs, reason = "members and constants carry their C names; the man page documents them")]

use core::ffi::c_void;

use super::ibv_context;
use crate::macros::{c_data, c_enum, c_flags, c_object, c_union};

c_enum! {
    /// Kind of key material.
    pub enum ibv_flow_action_esp_keymat: u32, "IBV_FLOW_ACTION_ESP_KEYMAT_" {
        IBV_FLOW_ACTION_ESP_KEYMAT_AES_GCM = 0,
    }

    /// How AES-GCM makes its initialisation vectors.
    pub enum ibv_flow_action_esp_keymat_aes_gcm_iv_algo: u32, "IBV_FLOW_ACTION_IV_ALGO_" {
        IBV_FLOW_ACTION_IV_ALGO_SEQ = 0,
    }

    /// Kind of replay protection.
    pub enum ibv_flow_action_esp_replay: u32, "IBV_FLOW_ACTION_ESP_REPLAY_" {
        IBV_FLOW_ACTION_ESP_REPLAY_NONE = 0,
        IBV_FLOW_ACTION_ESP_REPLAY_BMP = 1,
    }
}

c_flags! {
    /// Bits of [`ibv_flow_action_esp::flags`]; three pairs in which the first name stands for a bit that is not set.
    pub flags ibv_flow_action_esp_flags: u32, "IBV_FLOW_ACTION_ESP_FLAGS_" {
        IBV_FLOW_ACTION_ESP_FLAGS_INLINE_CRYPTO = 0,
        IBV_FLOW_ACTION_ESP_FLAGS_FULL_OFFLOAD = 1 << 0,
        IBV_FLOW_ACTION_ESP_FLAGS_TUNNEL = 0,
        IBV_FLOW_ACTION_ESP_FLAGS_TRANSPORT = 1 << 1,
        IBV_FLOW_ACTION_ESP_FLAGS_DECRYPT = 0,
        IBV_FLOW_ACTION_ESP_FLAGS_ENCRYPT = 1 << 2,
        IBV_FLOW_ACTION_ESP_FLAGS_ESN_NEW_WINDOW = 1 << 3,
    }

    /// Bits of [`ibv_flow_action_esp_attr::comp_mask`].
    pub flags ibv_flow_action_esp_mask: u32, "IBV_FLOW_ACTION_ESP_MASK_" {
        IBV_FLOW_ACTION_ESP_MASK_ESN = 1 << 0,
    }
}

c_union! {
    /// A pointer widened to 64 bits; an unnamed member in C.
    pub union ibv_flow_action_esp_encap_val {
        pub val_ptr: *mut c_void,
        pub val_ptr_data_u64: u64,
    }

    /// A pointer widened to 64 bits; an unnamed member in C.
    pub union ibv_flow_action_esp_encap_next {
        pub next_ptr: *mut ibv_flow_action_esp_encap,
        pub next_ptr_data_u64: u64,
    }
}

c_data! {
    /// AES-GCM key material.
    pub struct ibv_flow_action_esp_keymat_aes_gcm {
        pub iv: u64,
        pub iv_algo: u32,
        pub salt: u32,
        pub icv_len: u32,
        pub key_len: u32,
        pub aes_key: [u32; 8],
    }

    /// Replay window.
    pub struct ibv_flow_action_esp_replay_bmp {
        pub size: u32,
    }

    /// A list of headers around the payload.
    pub struct ibv_flow_action_esp_encap {
        pub val: ibv_flow_action_esp_encap_val,
        pub next: ibv_flow_action_esp_encap_next,
        pub len: u16,
        pub r#type: u16,
    }

    /// ESP parameters.
    pub struct ibv_flow_action_esp {
        pub spi: u32,
        pub seq: u32,
        pub tfc_pad: u32,
        pub flags: u32,
        pub hard_limit_pkts: u64,
    }

    /// Input of `ibv_create_flow_action_esp`.
    pub struct ibv_flow_action_esp_attr {
        pub esp_attr: *mut ibv_flow_action_esp,
        pub keymat_proto: ibv_flow_action_esp_keymat,
        pub keymat_len: u16,
        pub keymat_ptr: *mut c_void,
        pub replay_proto: ibv_flow_action_esp_replay,
        pub replay_len: u16,
        pub replay_ptr: *mut c_void,
        pub esp_encap: *mut ibv_flow_action_esp_encap,
        pub comp_mask: u32,
        pub esn: u32,
    }
}

c_object! {
    /// An action that rules may name.
    pub struct ibv_flow_action {
        pub context: *mut ibv_context,
    }
}
