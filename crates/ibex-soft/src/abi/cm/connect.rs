//! Connections: `rdma_connect(3)`, `rdma_accept(3)`, `rdma_reject(3)`, `rdma_disconnect(3)` and their neighbours, and
//! `rdma_create_ep(3)`.
//!
//! Owns the C side of them: parameters, the order of messages and transitions, and endpoints. The protocol is the state
//! machine's.
//!
//! # Safety
//! As `object`.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::ptr::null_mut;

use ibex_sys::{
    IBV_EVENT_COMM_EST, IBV_QPT_UC, RAI_PASSIVE, RDMA_CM_EVENT_CONNECT_REQUEST, RDMA_MAX_INIT_DEPTH,
    RDMA_MAX_RESP_RES, ibv_event_type, ibv_pd, ibv_qp_init_attr, ibv_qp_type, rdma_addrinfo, rdma_cm_id,
    rdma_conn_param, rdma_port_space,
};

use super::channel::{rdma_ack_cm_event, rdma_get_cm_event};
use super::id::{
    Endpoint, complete, create_in, inside, rdma_bind_addr, rdma_destroy_id, rdma_resolve_addr,
    rdma_resolve_route,
};
use super::qp::{self, rdma_create_qp, rdma_destroy_qp, rdma_destroy_srq};
use crate::abi::object::{given, minus_one};
use crate::cm::{Accept, Call};
use crate::device::MAX_RD_ATOMIC;

/// Milliseconds that an endpoint gives each resolution.
const RESOLVE_MS: c_int = 2000;

/// The errno of the call that just failed.
fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

/// Success of a function that returns −1 with errno.
fn done(code: c_int) -> Result<(), i32> {
    if code == 0 { Ok(()) } else { Err(errno()) }
}

/// Copies private data in.
///
/// # Safety
/// `length` bytes at `data` are readable, or `data` is null.
unsafe fn private(data: *const c_void, length: u8) -> Result<Vec<u8>, i32> {
    if length == 0 {
        return Ok(Vec::new());
    }
    let from = given(data.cast_mut())?.cast::<u8>();
    // SAFETY: the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(from, usize::from(length)) }.to_vec())
}

/// A number of READs and atomics that a program asks for: at most the device's, `all` meaning that.
fn depth(asked: u8, all: u8) -> Result<u8, i32> {
    match asked {
        _ if asked == all => Ok(MAX_RD_ATOMIC),
        _ if asked > MAX_RD_ATOMIC => Err(libc::EINVAL),
        _ => Ok(asked),
    }
}

/// Number of the queue pair, and whether it has a shared receive queue: the identifier's, or else what the program says.
///
/// # Safety
/// `id` is alive.
unsafe fn queue_pair(id: *mut rdma_cm_id, param: &rdma_conn_param) -> (u32, bool) {
    // SAFETY: the caller's promise.
    let qp = unsafe { (*id).qp };
    if qp.is_null() {
        return (param.qp_num & 0xff_ffff, param.srq != 0);
    }
    // SAFETY: the identifier's queue pair is alive.
    let public = unsafe { &*qp };
    (public.qp_num, !public.srq.is_null())
}

/// `rdma_connect(3)`.
///
/// # Safety
/// `id` is alive; `param` is null or readable, as is the private data it points to.
pub unsafe extern "C" fn rdma_connect(id: *mut rdma_cm_id, param: *mut rdma_conn_param) -> c_int {
    minus_one(|| {
        // SAFETY: the caller's promise.
        let inside = unsafe { inside(id) }?;
        let param = if param.is_null() {
            rdma_conn_param {
                responder_resources: RDMA_MAX_RESP_RES,
                initiator_depth: RDMA_MAX_INIT_DEPTH,
                retry_count: 7,
                rnr_retry_count: 7,
                ..Default::default()
            }
        } else {
            // SAFETY: the caller's promise.
            unsafe { param.read() }
        };
        // SAFETY: the caller's promise.
        let (qpn, srq) = unsafe { queue_pair(id, &param) };
        // SAFETY: the caller's promise.
        let unreliable = unsafe { (*id).qp_type } == IBV_QPT_UC;
        let call = Call {
            qpn,
            unreliable,
            srq,
            responder_resources: depth(param.responder_resources, RDMA_MAX_RESP_RES)?,
            initiator_depth: depth(param.initiator_depth, RDMA_MAX_INIT_DEPTH)?,
            retry_count: param.retry_count,
            rnr_retry_count: param.rnr_retry_count,
            flow_control: param.flow_control != 0,
            // SAFETY: the caller's promise.
            private: unsafe { private(param.private_data, param.private_data_len) }?,
        };
        inside.nic()?.cm.connect(inside.nic()?, &inside.id, &call)?;
        // SAFETY: the caller's promise.
        unsafe { complete(id) }
    })
}

/// `rdma_accept(3)`.
///
/// # Safety
/// `id` is alive; `param` is null or readable, as is the private data it points to.
pub unsafe extern "C" fn rdma_accept(id: *mut rdma_cm_id, param: *mut rdma_conn_param) -> c_int {
    minus_one(|| {
        // SAFETY: the caller's promise.
        let inside = unsafe { inside(id) }?;
        let nic = inside.nic()?;
        let given = if param.is_null() {
            rdma_conn_param {
                responder_resources: RDMA_MAX_RESP_RES,
                initiator_depth: RDMA_MAX_INIT_DEPTH,
                rnr_retry_count: 7,
                ..Default::default()
            }
        } else {
            // SAFETY: the caller's promise.
            unsafe { param.read() }
        };
        // SAFETY: the caller's promise.
        let (qpn, srq) = unsafe { queue_pair(id, &given) };
        let accept = Accept {
            qpn,
            srq,
            responder_resources: depth(given.responder_resources, RDMA_MAX_RESP_RES)?,
            initiator_depth: depth(given.initiator_depth, RDMA_MAX_INIT_DEPTH)?,
            rnr_retry_count: given.rnr_retry_count,
            flow_control: given.flow_control != 0,
            // SAFETY: the caller's promise.
            private: unsafe { private(given.private_data, given.private_data_len) }?,
        };
        // SAFETY: the caller's promise.
        let has_qp = !unsafe { (*id).qp }.is_null();
        if has_qp && !inside.id.datagrams {
            // SAFETY: the caller's promise, and there is one.
            unsafe { qp::run(id, Some(accept.responder_resources), Some(accept.initiator_depth)) }?;
        }
        if let Err(errno) = nic.cm.accept(nic, &inside.id, &accept) {
            if has_qp && !inside.id.datagrams {
                // SAFETY: the caller's promise.
                unsafe { qp::stop(id) };
            }
            return Err(errno);
        }
        if inside.id.datagrams {
            return Ok(0);
        }
        // SAFETY: the caller's promise.
        unsafe { complete(id) }
    })
}

/// `rdma_reject(3)`.
///
/// # Safety
/// `id` is alive; `length` bytes at `data` are readable.
pub unsafe extern "C" fn rdma_reject(id: *mut rdma_cm_id, data: *const c_void, length: u8) -> c_int {
    minus_one(|| {
        // SAFETY: the caller's promise.
        let inside = unsafe { inside(id) }?;
        // SAFETY: the caller's promise.
        let private = unsafe { private(data, length) }?;
        inside.nic()?.cm.reject(inside.nic()?, &inside.id, &private)?;
        Ok(0)
    })
}

/// `rdma_reject_ece(3)`: there are no vendor options to be the reason; the same as [`rdma_reject`].
///
/// # Safety
/// As [`rdma_reject`].
pub unsafe extern "C" fn rdma_reject_ece(id: *mut rdma_cm_id, data: *const c_void, length: u8) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { rdma_reject(id, data, length) }
}

/// `rdma_establish(3)`.
///
/// # Safety
/// `id` is alive.
pub unsafe extern "C" fn rdma_establish(id: *mut rdma_cm_id) -> c_int {
    minus_one(|| {
        // SAFETY: the caller's promise.
        let inside = unsafe { inside(id) }?;
        // SAFETY: as above.
        if !unsafe { (*id).qp }.is_null() {
            // Then the library has done it.
            return Err(libc::EINVAL);
        }
        inside.nic()?.cm.establish(inside.nic()?, &inside.id)?;
        Ok(0)
    })
}

/// `rdma_notify(3)`: data arrived before the connection was established; other events change nothing.
///
/// # Safety
/// `id` is alive.
pub unsafe extern "C" fn rdma_notify(id: *mut rdma_cm_id, event: ibv_event_type) -> c_int {
    minus_one(|| {
        // SAFETY: the caller's promise.
        let inside = unsafe { inside(id) }?;
        if event == IBV_EVENT_COMM_EST {
            inside.nic()?.cm.communication_established(inside.nic()?, &inside.id)?;
        }
        Ok(0)
    })
}

/// `rdma_disconnect(3)`: the queue pair goes to the error state.
///
/// # Safety
/// `id` is alive.
pub unsafe extern "C" fn rdma_disconnect(id: *mut rdma_cm_id) -> c_int {
    minus_one(|| {
        // SAFETY: the caller's promise.
        let inside = unsafe { inside(id) }?;
        // SAFETY: the caller's promise.
        unsafe { qp::stop(id) };
        inside.nic()?.cm.disconnect(inside.nic()?, &inside.id)?;
        // SAFETY: the caller's promise.
        unsafe { complete(id) }
    })
}

/// `rdma_get_request(3)`: the next request of a synchronous listener, with a queue pair if it was made with attributes.
///
/// # Safety
/// `listener` is alive; `id` is writable.
pub unsafe extern "C" fn rdma_get_request(listener: *mut rdma_cm_id, id: *mut *mut rdma_cm_id) -> c_int {
    minus_one(|| {
        // SAFETY: the caller's promise.
        let inside = unsafe { inside(listener) }?;
        given(id)?;
        let (channel, endpoint) = {
            let own = inside.own();
            (own.sync.0, own.endpoint)
        };
        if channel.is_null() {
            return Err(libc::EINVAL);
        }
        let mut event = null_mut();
        // SAFETY: the listener's channel lives as long as it; the event is a local.
        done(unsafe { rdma_get_cm_event(channel, &raw mut event) })?;
        // SAFETY: just got.
        let got = unsafe { &*event };
        let outcome = match got.status {
            0 if got.event == RDMA_CM_EVENT_CONNECT_REQUEST => Ok(got.id),
            0 => Err(libc::EINVAL),
            status => Err(status.saturating_abs()),
        };
        let made = outcome.inspect_err(|_| {
            // SAFETY: just got, and given to nobody.
            unsafe { rdma_ack_cm_event(event) };
        })?;
        if let Some(Endpoint { mut init, pd }) = endpoint {
            // SAFETY: the identifier is new; attributes and domain live as the manual of rdma_create_ep wants.
            let created = done(unsafe { rdma_create_qp(made, pd, &raw mut init) });
            if let Err(errno) = created {
                // SAFETY: as above.
                unsafe { rdma_ack_cm_event(event) };
                // SAFETY: given to nobody; destroying it refuses the caller.
                unsafe { rdma_destroy_id(made) };
                return Err(errno);
            }
        }
        // The program reads the request's data there, until its next call.
        // SAFETY: the identifier is new.
        unsafe { (*made).event = event };
        // SAFETY: the caller's promise.
        unsafe { *id = made }
        Ok(0)
    })
}

/// `rdma_create_ep(3)`.
///
/// # Safety
/// `id` is writable; `info` came from `rdma_getaddrinfo`; `pd` is null or alive; `init` is null, or readable and writable.
pub unsafe extern "C" fn rdma_create_ep(
    id: *mut *mut rdma_cm_id,
    info: *mut rdma_addrinfo,
    pd: *mut ibv_pd,
    init: *mut ibv_qp_init_attr,
) -> c_int {
    minus_one(|| {
        given(id)?;
        // SAFETY: the caller's promise.
        let info = unsafe { &*given(info)? };
        let kind = ibv_qp_type(info.ai_qp_type as u32);
        // SAFETY: no channel is passed.
        let made =
            unsafe { create_in(null_mut(), null_mut(), rdma_port_space(info.ai_port_space as u32), kind) }?;
        // SAFETY: just made; the rest is the caller's promise.
        let ready = unsafe { prepare(made, info, pd, init) };
        if let Err(errno) = ready {
            // SAFETY: given to nobody.
            unsafe { rdma_destroy_ep(made) };
            return Err(errno);
        }
        // SAFETY: the caller's promise.
        unsafe { *id = made }
        Ok(0)
    })
}

/// Brings an endpoint to where its program calls or listens.
///
/// # Safety
/// As [`rdma_create_ep`]; `id` is new.
unsafe fn prepare(
    id: *mut rdma_cm_id,
    info: &rdma_addrinfo,
    pd: *mut ibv_pd,
    init: *mut ibv_qp_init_attr,
) -> Result<(), i32> {
    // SAFETY: the caller's promise.
    let inside = unsafe { inside(id) }?;
    if info.ai_flags & RAI_PASSIVE != 0 {
        // SAFETY: the caller's promise.
        done(unsafe { rdma_bind_addr(id, info.ai_src_addr) })?;
        if !init.is_null() {
            // SAFETY: the caller's promise.
            let mut init = unsafe { init.read() };
            init.qp_type = ibv_qp_type(info.ai_qp_type as u32);
            inside.own().endpoint = Some(Endpoint { init, pd });
        }
        return Ok(());
    }
    // SAFETY: the caller's promise.
    done(unsafe { rdma_resolve_addr(id, info.ai_src_addr, info.ai_dst_addr, RESOLVE_MS) })?;
    // SAFETY: the caller's promise.
    done(unsafe { rdma_resolve_route(id, RESOLVE_MS) })?;
    if !init.is_null() {
        // SAFETY: the caller's promise.
        unsafe { (*init).qp_type = ibv_qp_type(info.ai_qp_type as u32) };
        // SAFETY: the caller's promise.
        done(unsafe { rdma_create_qp(id, pd, init) })?;
    }
    Ok(())
}

/// `rdma_destroy_ep(3)`: with its queue pair and shared receive queue.
///
/// # Safety
/// `id` came from this library; it is not used any more.
pub unsafe extern "C" fn rdma_destroy_ep(id: *mut rdma_cm_id) {
    if id.is_null() {
        return;
    }
    // SAFETY: the caller's promise.
    unsafe { rdma_destroy_qp(id) };
    // SAFETY: the caller's promise.
    unsafe { rdma_destroy_srq(id) };
    // SAFETY: the caller's promise.
    unsafe { rdma_destroy_id(id) };
}
