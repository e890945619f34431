//! Flow steering and flow actions.
//!
//! Owns the inline verbs on `ibv_flow` and `ibv_flow_action`.
//!
//! Man pages: `ibv_create_flow(3)`, `ibv_flow_action_esp(3)`.
//!
//! # Safety
//!
//! See [`crate::dispatch`].
#![allow(unsafe_code)]

use core::ffi::c_int;

use super::context::extended;
use crate::verbs::{ibv_context, ibv_flow, ibv_flow_action, ibv_flow_action_esp_attr, ibv_flow_attr, ibv_qp};

extended! {
    /// Attaches a rule to a queue pair; null with errno on failure. The specifications follow the attributes in memory.
    pub fn ibv_create_flow[ibv_create_flow by object qp](
        qp: *mut ibv_qp,
        flow: *mut ibv_flow_attr,
    ) -> *mut ibv_flow;

    /// Detaches a rule; 0, or an errno.
    pub fn ibv_destroy_flow[ibv_destroy_flow by object flow_id](flow_id: *mut ibv_flow) -> c_int;

    /// Creates an ESP action; null with errno on failure.
    pub fn ibv_create_flow_action_esp[create_flow_action_esp by context context](
        context: *mut ibv_context,
        esp: *mut ibv_flow_action_esp_attr,
    ) -> *mut ibv_flow_action;

    /// Changes an ESP action; 0, or an errno.
    pub fn ibv_modify_flow_action_esp[modify_flow_action_esp by object action](
        action: *mut ibv_flow_action,
        esp: *mut ibv_flow_action_esp_attr,
    ) -> c_int;

    /// Destroys an action; 0, or an errno.
    pub fn ibv_destroy_flow_action[destroy_flow_action by object action](action: *mut ibv_flow_action) -> c_int;
}
