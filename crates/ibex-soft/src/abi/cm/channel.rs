//! Event channels: `rdma_create_event_channel(3)`, `rdma_get_cm_event(3)`, `rdma_ack_cm_event(3)`.
//!
//! Owns channels and the events that programs hold, and what has to be done in the program's thread when one is fetched:
//! an identifier is made for a request, a queue pair is moved when the peer has accepted.
//!
//! # Safety
//! As `object`. The names in queued events are addresses of live identifiers: destroying one discards its events, and
//! delivery counts, both under the service's lock.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::null_mut;
use std::sync::Arc;

use ibex_proto::cm::{ConnId, Reply, Request, SidrId, SidrReply, SidrRequest};
use ibex_sys::{
    RDMA_CM_EVENT_ADDR_ERROR, RDMA_CM_EVENT_ADDR_RESOLVED, RDMA_CM_EVENT_CONNECT_ERROR,
    RDMA_CM_EVENT_CONNECT_REQUEST, RDMA_CM_EVENT_CONNECT_RESPONSE, RDMA_CM_EVENT_DISCONNECTED,
    RDMA_CM_EVENT_ESTABLISHED, RDMA_CM_EVENT_REJECTED, RDMA_CM_EVENT_ROUTE_RESOLVED,
    RDMA_CM_EVENT_TIMEWAIT_EXIT, RDMA_CM_EVENT_UNREACHABLE, ibv_ah_attr, ibv_gid, ibv_global_route,
    rdma_cm_event, rdma_cm_event_param, rdma_cm_event_type, rdma_cm_id, rdma_conn_param, rdma_event_channel,
    rdma_ud_param,
};
use ibex_wire::mad::SidrStatus;

use super::home::{Home, home};
use super::id::{self, IdObject, Made};
use super::qp;
use crate::abi::object::{Object, given, minus_one, named, pointer};
use crate::cm::{Channel, Id, Queued, What};
use crate::event::EventQueue;

/// The inside of a channel.
struct ChannelInside {
    events: Arc<Channel>,
    home: &'static Home,
}

type ChannelObject = Object<rdma_event_channel, ChannelInside>;

/// The inside of an event.
struct EventInside {
    /// Whose acknowledgement it is.
    id: Arc<Id>,
    home: &'static Home,
    /// What `private_data` points to; freed with the event.
    _data: Vec<u8>,
}

type EventObject = Object<rdma_cm_event, EventInside>;

/// Makes a channel.
pub(super) fn create() -> Result<*mut rdma_event_channel, i32> {
    let home = home()?;
    home.nic()?;
    let events = EventQueue::new().map_err(|error| error.raw_os_error().unwrap_or(libc::EMFILE))?;
    let public = rdma_event_channel { fd: events.fd() };
    Ok(ChannelObject::publish(public, ChannelInside { events: Arc::new(events), home }))
}

/// The queue of a program's channel.
///
/// # Safety
/// `channel` is null or alive.
pub(super) unsafe fn events(channel: *mut rdma_event_channel) -> Result<Arc<Channel>, i32> {
    // SAFETY: the caller's promise.
    Ok(unsafe { ChannelObject::soft(given(channel)?) }.events.clone())
}

/// `rdma_create_event_channel(3)`.
///
/// # Safety
/// None; there are no arguments.
pub unsafe extern "C" fn rdma_create_event_channel() -> *mut rdma_event_channel {
    pointer(create)
}

/// `rdma_destroy_event_channel(3)`.
///
/// # Safety
/// `channel` came from this library; neither it nor an identifier on it is used any more.
pub unsafe extern "C" fn rdma_destroy_event_channel(channel: *mut rdma_event_channel) {
    let _ = minus_one(|| {
        // SAFETY: the caller's promise.
        let inside = unsafe { ChannelObject::soft(given(channel)?) };
        // In the child of a fork nothing may be freed: locks in it may be held for ever.
        inside.home.nic()?;
        // SAFETY: the caller gives it up.
        drop(unsafe { ChannelObject::reclaim(channel) });
        Ok(0)
    });
}

/// `rdma_get_cm_event(3)`: while it blocks, it drives the device. A signal handler does not end the wait.
///
/// # Safety
/// `channel` is alive; `event` is writable.
pub unsafe extern "C" fn rdma_get_cm_event(
    channel: *mut rdma_event_channel,
    event: *mut *mut rdma_cm_event,
) -> c_int {
    minus_one(|| {
        // SAFETY: the caller's promise.
        let inside = unsafe { ChannelObject::soft(given(channel)?) };
        given(event)?;
        let mut tried = false;
        loop {
            let nic = inside.home.nic()?;
            if let Some(queued) = nic.cm.take(&inside.events) {
                // SAFETY: the event counts as delivered, so that its identifier stays.
                let made = unsafe { fetch(inside.home, queued) };
                // SAFETY: the caller's promise.
                unsafe { *event = made }
                return Ok(0);
            }
            if !inside.events.nonblocking() {
                nic.wait_event(&inside.events, None)?;
            } else if tried {
                return Err(libc::EAGAIN);
            } else {
                tried = true;
                nic.progress();
            }
        }
    })
}

/// `rdma_ack_cm_event(3)`.
///
/// # Safety
/// `event` came from [`rdma_get_cm_event`]; it is not used any more.
pub unsafe extern "C" fn rdma_ack_cm_event(event: *mut rdma_cm_event) -> c_int {
    minus_one(|| {
        // SAFETY: the caller's promise.
        let inside = unsafe { EventObject::soft(given(event)?) };
        // In the child of a fork the count's lock may be held for ever.
        inside.home.nic()?;
        // SAFETY: the caller gives it up.
        let whole = unsafe { EventObject::reclaim(event) };
        whole.soft.id.unacked.ack(1);
        Ok(0)
    })
}

/// What an event says.
struct Said {
    event: rdma_cm_event_type,
    status: c_int,
    param: Param,
}

/// The parameters of an event.
enum Param {
    None,
    Data(Vec<u8>),
    Conn(rdma_conn_param, Vec<u8>),
    Ud(rdma_ud_param, Vec<u8>),
    Argument(u64),
}

impl Said {
    fn plain(event: rdma_cm_event_type, status: c_int) -> Said {
        Said { event, status, param: Param::None }
    }
}

/// Makes the event of a queued one, doing what belongs to it.
///
/// # Safety
/// The event was just taken from its channel.
unsafe fn fetch(home: &'static Home, queued: Queued) -> *mut rdma_cm_event {
    let Queued { id, what } = queued;
    let about: *mut rdma_cm_id = named(id.name);
    let mut listener = null_mut();
    let mut subject = about;
    let said = match what {
        What::Address(0) => Said::plain(RDMA_CM_EVENT_ADDR_RESOLVED, 0),
        What::Address(status) => Said::plain(RDMA_CM_EVENT_ADDR_ERROR, status),
        What::Route => Said::plain(RDMA_CM_EVENT_ROUTE_RESOLVED, 0),
        What::Request(conn, request) => {
            listener = about;
            // SAFETY: the event names a live listener.
            let called = unsafe { called(home, about, &id, conn, request) };
            match called {
                Ok((made, said)) => {
                    subject = made;
                    said
                }
                // Without descriptors or memory for it; the caller is refused.
                Err(errno) => Said::plain(RDMA_CM_EVENT_CONNECT_ERROR, -errno),
            }
        }
        What::SidrRequest(sidr, request) => {
            listener = about;
            // SAFETY: as above.
            let called = unsafe { asked(home, about, &id, sidr, &request) };
            match called {
                Ok((made, said)) => {
                    subject = made;
                    said
                }
                Err(errno) => Said::plain(RDMA_CM_EVENT_CONNECT_ERROR, -errno),
            }
        }
        // SAFETY: the event names a live identifier.
        What::Reply(reply) => unsafe { accepted(home, about, &id, &reply) },
        What::Established(data) => {
            Said { event: RDMA_CM_EVENT_ESTABLISHED, status: 0, param: Param::Data(data) }
        }
        What::SidrReply(reply) => resolved(home, &id, &reply),
        What::Rejected(reason, data) => {
            // SAFETY: the event names a live identifier.
            unsafe { qp::stop(about) };
            let status = c_int::from(reason);
            Said { event: RDMA_CM_EVENT_REJECTED, status, param: Param::Data(data) }
        }
        What::Unreachable => Said::plain(RDMA_CM_EVENT_UNREACHABLE, -libc::ETIMEDOUT),
        What::Disconnected(data) => {
            Said { event: RDMA_CM_EVENT_DISCONNECTED, status: 0, param: Param::Data(data) }
        }
        What::TimewaitExit => Said::plain(RDMA_CM_EVENT_TIMEWAIT_EXIT, 0),
        What::Written(event, status, argument) => {
            Said { event: rdma_cm_event_type(event), status, param: Param::Argument(argument) }
        }
    };
    publish(home, subject, listener, said, id)
}

/// Gives an event to the program.
fn publish(
    home: &'static Home,
    id: *mut rdma_cm_id,
    listen_id: *mut rdma_cm_id,
    said: Said,
    counted: Arc<Id>,
) -> *mut rdma_cm_event {
    let point = |data: &Vec<u8>| {
        if data.is_empty() { std::ptr::null() } else { data.as_ptr().cast::<c_void>() }
    };
    // The longest private data has 224 bytes.
    let length = |data: &Vec<u8>| data.len() as u8;
    let mut param = rdma_cm_event_param { arg: 0 };
    let data = match said.param {
        Param::None => Vec::new(),
        Param::Data(data) => {
            let (private_data, private_data_len) = (point(&data), length(&data));
            param.conn = rdma_conn_param { private_data, private_data_len, ..Default::default() };
            data
        }
        Param::Conn(conn, data) => {
            let (private_data, private_data_len) = (point(&data), length(&data));
            param.conn = rdma_conn_param { private_data, private_data_len, ..conn };
            data
        }
        Param::Ud(ud, data) => {
            let (private_data, private_data_len) = (point(&data), length(&data));
            param.ud = rdma_ud_param { private_data, private_data_len, ..ud };
            data
        }
        Param::Argument(arg) => {
            param.arg = arg;
            Vec::new()
        }
    };
    let public = rdma_cm_event { id, listen_id, event: said.event, status: said.status, param };
    EventObject::publish(public, EventInside { id: counted, home, _data: data })
}

/// Makes an identifier like its listener.
///
/// # Safety
/// `listener` is alive.
unsafe fn child(home: &'static Home, listener: *mut rdma_cm_id) -> Result<*mut rdma_cm_id, i32> {
    // SAFETY: the caller's promise.
    let inside = unsafe { id::inside(listener) }?;
    // SAFETY: as above.
    let public = unsafe { &*listener };
    let sync = !inside.own().sync.0.is_null();
    let channel = if sync { create()? } else { public.channel };
    // SAFETY: just made, or the listener's.
    let events = unsafe { events(channel) }?;
    let made =
        Made { space: public.ps, kind: public.qp_type, context: public.context, channel, events, sync };
    id::create(home, made)
}

/// Somebody calls: makes the identifier of the connection.
///
/// # Safety
/// `listener` is alive.
unsafe fn called(
    home: &'static Home,
    listener: *mut rdma_cm_id,
    id: &Id,
    conn: ConnId,
    request: Box<Request>,
) -> Result<(*mut rdma_cm_id, Said), i32> {
    let nic = home.nic()?;
    // SAFETY: the caller's promise.
    let made = unsafe { child(home, listener) }.inspect_err(|_| nic.cm.refuse(nic, conn))?;
    let conn_param = rdma_conn_param {
        responder_resources: request.responder_resources,
        initiator_depth: request.initiator_depth,
        flow_control: request.flow_control.into(),
        retry_count: request.retry_count,
        rnr_retry_count: request.rnr_retry_count,
        srq: request.srq.into(),
        qp_num: request.remote_qpn.get(),
        ..Default::default()
    };
    let param = Param::Conn(conn_param, request.private.clone());
    // SAFETY: just made.
    let inside = unsafe { IdObject::soft(made) };
    nic.cm.adopt(&inside.id, id, conn, request);
    // SAFETY: just made.
    unsafe { id::publish(made) }?;
    Ok((made, Said { event: RDMA_CM_EVENT_CONNECT_REQUEST, status: 0, param }))
}

/// Somebody asks for the queue pair of a datagram service: makes the identifier.
///
/// # Safety
/// `listener` is alive.
unsafe fn asked(
    home: &'static Home,
    listener: *mut rdma_cm_id,
    id: &Id,
    sidr: SidrId,
    request: &SidrRequest,
) -> Result<(*mut rdma_cm_id, Said), i32> {
    let nic = home.nic()?;
    // SAFETY: the caller's promise.
    let made = unsafe { child(home, listener) }?;
    // SAFETY: just made.
    let inside = unsafe { IdObject::soft(made) };
    nic.cm.adopt_sidr(&inside.id, id, sidr, request);
    // SAFETY: just made.
    unsafe { id::publish(made) }?;
    let param = Param::Ud(rdma_ud_param::default(), request.private.clone());
    Ok((made, Said { event: RDMA_CM_EVENT_CONNECT_REQUEST, status: 0, param }))
}

/// The peer accepts: moves the queue pair and tells it, or, if the identifier has none, tells the program.
///
/// # Safety
/// `about` is alive, and is the identifier `id` is the inside of.
unsafe fn accepted(home: &'static Home, about: *mut rdma_cm_id, id: &Id, reply: &Reply) -> Said {
    let conn = rdma_conn_param {
        responder_resources: reply.responder_resources,
        initiator_depth: reply.initiator_depth,
        flow_control: reply.flow_control.into(),
        rnr_retry_count: reply.rnr_retry_count,
        srq: reply.srq.into(),
        qp_num: reply.remote_qpn.get(),
        ..Default::default()
    };
    let param = Param::Conn(conn, reply.private.to_vec());
    // SAFETY: the caller's promise.
    if unsafe { (*about).qp }.is_null() {
        return Said { event: RDMA_CM_EVENT_CONNECT_RESPONSE, status: 0, param };
    }
    let outcome = (|| {
        let nic = home.nic()?;
        // SAFETY: the caller's promise.
        let moved = unsafe { qp::run(about, None, None) }.and_then(|()| nic.cm.establish(nic, id));
        if moved.is_err() {
            nic.cm.give_up(nic, id);
        }
        moved
    })();
    match outcome {
        Ok(()) => Said { event: RDMA_CM_EVENT_ESTABLISHED, status: 0, param },
        Err(errno) => {
            // SAFETY: the caller's promise.
            unsafe { qp::stop(about) };
            Said::plain(RDMA_CM_EVENT_CONNECT_ERROR, -errno)
        }
    }
}

/// The peer tells its queue pair, or that there is none.
fn resolved(home: &'static Home, id: &Id, reply: &SidrReply) -> Said {
    if reply.status != SidrStatus::SUCCESS {
        return Said::plain(RDMA_CM_EVENT_UNREACHABLE, c_int::from(reply.status.0));
    }
    let path = home.nic().and_then(|nic| nic.cm.path(nic, id));
    let Ok(path) = path else { return Said::plain(RDMA_CM_EVENT_CONNECT_ERROR, -libc::EIO) };
    let ud = rdma_ud_param {
        ah_attr: address(&path),
        qp_num: reply.qpn.get(),
        qkey: reply.qkey.0,
        ..Default::default()
    };
    let param = Param::Ud(ud, reply.private.to_vec());
    Said { event: RDMA_CM_EVENT_ESTABLISHED, status: 0, param }
}

/// A path as the verbs describe it.
pub(super) fn address(path: &ibex_proto::cm::Path) -> ibv_ah_attr {
    ibv_ah_attr {
        grh: ibv_global_route {
            dgid: ibv_gid { raw: path.remote.0 },
            flow_label: path.flow_label,
            sgid_index: gid_index(path),
            hop_limit: path.hop_limit,
            traffic_class: path.traffic_class,
        },
        sl: path.sl,
        static_rate: path.rate,
        is_global: 1,
        port_num: 1,
        ..Default::default()
    }
}

/// The place of the path's own address in the GID table: the IPv4 one comes after the link-local one.
fn gid_index(path: &ibex_proto::cm::Path) -> u8 {
    u8::from(path.local.ip().is_ipv4())
}

/// The enumerators of `rdma_cm_event_type`, by value.
const EVENTS: [&CStr; 20] = [
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
    c"RDMA_CM_EVENT_ADDRINFO_RESOLVED",
    c"RDMA_CM_EVENT_ADDRINFO_ERROR",
    c"RDMA_CM_EVENT_USER",
    c"RDMA_CM_EVENT_INTERNAL",
];

/// `rdma_event_str(3)`: the enumerator's name.
///
/// # Safety
/// None; every value has an answer.
pub unsafe extern "C" fn rdma_event_str(event: rdma_cm_event_type) -> *const c_char {
    let name = usize::try_from(event.0).ok().and_then(|index| EVENTS.get(index));
    name.map_or(c"UNKNOWN EVENT", |name| name).as_ptr()
}
