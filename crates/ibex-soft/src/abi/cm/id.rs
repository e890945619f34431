//! Identifiers: `rdma_create_id(3)` to `rdma_listen(3)`, and what a program reads in them.
//!
//! Owns the `rdma_cm_id` and its inside, and the waiting of synchronous ones. Addresses and ports are [`crate::cm`]'s.
//!
//! # Safety
//! As `object`. Programs read and write the members of an identifier directly, from one thread at a time
//! (`rdma_create_id(3)`); the library reads and writes them only in calls that were given the identifier.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::net::SocketAddr;
use std::ptr::null_mut;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ibex_sys::{
    IBV_QPT_RC, IBV_QPT_UD, RDMA_CM_EVENT_REJECTED, RDMA_CM_EVENT_USER, RDMA_OPTION_ID,
    RDMA_OPTION_ID_ACK_TIMEOUT, RDMA_OPTION_ID_AFONLY, RDMA_OPTION_ID_REUSEADDR, RDMA_OPTION_ID_TOS,
    RDMA_PS_UDP, ibv_gid, ibv_pd, ibv_qp_init_attr, ibv_qp_type, ibv_sa_path_rec, rdma_cm_event_type,
    rdma_cm_id, rdma_event_channel, rdma_port_space,
};
use libc::sockaddr;

use super::channel::{self, rdma_ack_cm_event, rdma_get_cm_event};
use super::home::{Home, home};
use super::socket_address;
use crate::abi::object::{Object, Room, given, minus_one};
use crate::cm::{Channel, Id, Phase, What, port_space};
use crate::nic::Nic;

/// The inside of an identifier.
pub(super) struct IdInside {
    pub(super) id: Arc<Id>,
    pub(super) home: &'static Home,
    own: Mutex<Own>,
}

/// What the identifier owns besides.
#[derive(Default)]
pub(super) struct Own {
    /// The channel of a synchronous identifier, which only it uses.
    pub(super) sync: Pointer<rdma_event_channel>,
    /// The path record that `route` points to.
    path: Pointer<ibv_sa_path_rec>,
    /// What requests to a listener made by `rdma_create_ep` get queue pairs with.
    pub(super) endpoint: Option<Endpoint>,
}

/// Attributes and domain of queue pairs to be made.
#[derive(Clone, Copy)]
pub(super) struct Endpoint {
    pub(super) init: ibv_qp_init_attr,
    pub(super) pd: *mut ibv_pd,
}

// SAFETY: the pointers in it are objects of the program's, used through the verbs, which may be called from any thread.
unsafe impl Send for Endpoint {}

/// A pointer that may be null, owned by whoever has this.
pub(super) struct Pointer<T>(pub(super) *mut T);

impl<T> Default for Pointer<T> {
    fn default() -> Pointer<T> {
        Pointer(null_mut())
    }
}

// SAFETY: owned, and used under a lock only.
unsafe impl<T> Send for Pointer<T> {}

pub(super) type IdObject = Object<rdma_cm_id, IdInside>;

impl IdInside {
    pub(super) fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn nic(&self) -> Result<&Nic, i32> {
        self.home.nic()
    }
}

/// The inside of a program's identifier.
///
/// # Safety
/// `id` is null or came from [`create`] and was not destroyed.
pub(super) unsafe fn inside<'a>(id: *mut rdma_cm_id) -> Result<&'a IdInside, i32> {
    // SAFETY: the caller's promise.
    let inside = unsafe { IdObject::soft(given(id)?) };
    inside.nic()?;
    Ok(inside)
}

/// What a new identifier is made of.
pub(super) struct Made {
    pub(super) space: rdma_port_space,
    pub(super) kind: ibv_qp_type,
    pub(super) context: *mut c_void,
    pub(super) channel: *mut rdma_event_channel,
    pub(super) events: Arc<Channel>,
    /// Whether the channel is its own.
    pub(super) sync: bool,
}

/// Makes an identifier.
pub(super) fn create(home: &'static Home, made: Made) -> Result<*mut rdma_cm_id, i32> {
    let space = port_space(made.space.0).ok_or(libc::EOPNOTSUPP)?;
    let room = Room::new();
    let id = Id::new(room.name(), space, made.kind == IBV_QPT_UD, made.events);
    let own = Own { sync: Pointer(if made.sync { made.channel } else { null_mut() }), ..Own::default() };
    let inside = IdInside { id: Arc::new(id), home, own: Mutex::new(own) };
    let public = rdma_cm_id {
        channel: made.channel,
        context: made.context,
        ps: made.space,
        qp_type: made.kind,
        ..Default::default()
    };
    Ok(room.publish(public, inside))
}

/// `rdma_create_id(3)`; without a channel the identifier is synchronous.
///
/// # Safety
/// `channel` is null or alive; `id` is writable.
pub unsafe extern "C" fn rdma_create_id(
    channel: *mut rdma_event_channel,
    id: *mut *mut rdma_cm_id,
    context: *mut c_void,
    space: rdma_port_space,
) -> c_int {
    let kind = if space == RDMA_PS_UDP { IBV_QPT_UD } else { IBV_QPT_RC };
    minus_one(|| {
        // SAFETY: the caller's promise.
        let made = unsafe { create_in(channel, context, space, kind) }?;
        // SAFETY: the caller's promise.
        unsafe { *given(id)? = made }
        Ok(0)
    })
}

/// Makes an identifier on a channel, or with one of its own.
///
/// # Safety
/// `channel` is null or alive.
pub(super) unsafe fn create_in(
    channel: *mut rdma_event_channel,
    context: *mut c_void,
    space: rdma_port_space,
    kind: ibv_qp_type,
) -> Result<*mut rdma_cm_id, i32> {
    let home = home()?;
    home.nic()?;
    port_space(space.0).ok_or(libc::EOPNOTSUPP)?;
    let sync = channel.is_null();
    let channel = if sync { channel::create()? } else { channel };
    // SAFETY: alive by the caller's promise, or just made.
    let events = unsafe { channel::events(channel) }?;
    create(home, Made { space, kind, context, channel, events, sync })
}

/// `rdma_destroy_id(3)`: waits until its events are acknowledged.
///
/// # Safety
/// `id` came from this library; it is not used any more.
pub unsafe extern "C" fn rdma_destroy_id(id: *mut rdma_cm_id) -> c_int {
    minus_one(|| {
        // SAFETY: the caller's promise.
        let inside = unsafe { inside(id) }?;
        // SAFETY: as above.
        let last = unsafe { std::mem::replace(&mut (*id).event, null_mut()) };
        if !last.is_null() {
            // SAFETY: the last event of a synchronous identifier, which only it has.
            unsafe { rdma_ack_cm_event(last) };
        }
        inside.nic()?.cm.destroy(inside.nic()?, &inside.id);
        inside.id.unacked.wait();
        // SAFETY: the caller gives it up; no event names it any more.
        let whole = unsafe { IdObject::reclaim(id) };
        let own = std::mem::take(&mut *whole.soft.own());
        if !own.sync.0.is_null() {
            // SAFETY: made with the identifier, used by nobody else.
            unsafe { channel::rdma_destroy_event_channel(own.sync.0) };
        }
        if !own.path.0.is_null() {
            // SAFETY: made by `publish`, and only named by the identifier.
            drop(unsafe { Box::from_raw(own.path.0) });
        }
        Ok(0)
    })
}

/// Ends a call on a synchronous identifier: waits for its event, keeps it in the identifier, and says what it says.
///
/// # Errors
/// `ECONNREFUSED` if the peer refused, otherwise the event's status.
///
/// # Safety
/// `id` is alive.
pub(super) unsafe fn complete(id: *mut rdma_cm_id) -> Result<c_int, i32> {
    // SAFETY: the caller's promise.
    let inside = unsafe { inside(id) }?;
    let channel = inside.own().sync.0;
    if channel.is_null() {
        return Ok(0);
    }
    // SAFETY: as above; the slot is the library's on a synchronous identifier.
    let slot = unsafe { &raw mut (*id).event };
    // SAFETY: as above.
    let last = unsafe { slot.replace(null_mut()) };
    if !last.is_null() {
        // SAFETY: got by an earlier call.
        unsafe { rdma_ack_cm_event(last) };
    }
    // SAFETY: the identifier's channel lives as long as it.
    if unsafe { rdma_get_cm_event(channel, slot) } != 0 {
        return Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO));
    }
    // SAFETY: the call has just filled it.
    let event = unsafe { *slot };
    // SAFETY: just got, and not acknowledged.
    let event = unsafe { &*event };
    match event.status {
        0 => Ok(0),
        _ if event.event == RDMA_CM_EVENT_REJECTED => Err(libc::ECONNREFUSED),
        status => Err(status.saturating_abs()),
    }
}

/// Fills in what a program reads of addresses, device and path.
///
/// # Safety
/// `id` is alive.
pub(super) unsafe fn publish(id: *mut rdma_cm_id) -> Result<(), i32> {
    // SAFETY: the caller's promise.
    let inside = unsafe { inside(id) }?;
    let nic = inside.nic()?;
    let own = nic.wire.address();
    let (local, remote, phase) = {
        let state = inside.id.state();
        (state.local, state.remote, state.phase)
    };
    // SAFETY: the caller's promise; nobody else uses the members during the call.
    let public = unsafe { &mut *id };
    let gid = |address: SocketAddr| ibv_gid {
        raw: ibex_wire::mad::Gid::from(socket_address::canonical(address)).0,
    };
    let mut on_device = false;
    if let Some(local) = local {
        public.route.addr.src.src_storage = socket_address::storage(local);
        on_device = socket_address::canonical(local) == own;
    }
    if let Some(remote) = remote {
        public.route.addr.dst.dst_storage = socket_address::storage(remote);
    }
    if on_device && (phase != Phase::Bound || remote.is_none()) {
        public.verbs = inside.home.context;
        public.port_num = 1;
        if public.pd.is_null() {
            public.pd = inside.home.pd;
        }
        if let Some(local) = local {
            public.route.addr.addr.ibaddr.sgid = gid(local);
        }
        if let Some(remote) = remote {
            public.route.addr.addr.ibaddr.dgid = gid(remote);
        }
        public.route.addr.addr.ibaddr.pkey = PKEY.to_be();
    }
    if matches!(phase, Phase::Routed | Phase::Connection) {
        let path = inside.nic()?.cm.path(nic, &inside.id)?;
        let record = ibv_sa_path_rec {
            dgid: ibv_gid { raw: path.remote.0 },
            sgid: ibv_gid { raw: path.local.0 },
            hop_limit: path.hop_limit,
            traffic_class: path.traffic_class,
            reversible: 1,
            numb_path: 1,
            pkey: PKEY.to_be(),
            // Exactly that.
            mtu_selector: 2,
            mtu: path.mtu.code(),
            rate_selector: 2,
            rate: path.rate,
            packet_life_time_selector: 2,
            packet_life_time: path.packet_life_time,
            ..Default::default()
        };
        let mut parts = inside.own();
        if parts.path.0.is_null() {
            parts.path = Pointer(Box::into_raw(Box::new(record)));
        } else {
            // SAFETY: made here, and freed only with the identifier.
            unsafe { *parts.path.0 = record }
        }
        public.route.path_rec = parts.path.0;
        public.route.num_paths = 1;
    }
    Ok(())
}

/// The default partition.
const PKEY: u16 = 0xffff;

/// `rdma_bind_addr(3)`.
///
/// # Safety
/// `id` is alive; `address` is readable for its family's length.
pub unsafe extern "C" fn rdma_bind_addr(id: *mut rdma_cm_id, address: *mut sockaddr) -> c_int {
    minus_one(|| {
        // SAFETY: the caller's promise.
        let inside = unsafe { inside(id) }?;
        // SAFETY: the caller's promise.
        let address = unsafe { socket_address::read(address) }?;
        inside.nic()?.cm.bind(inside.nic()?, &inside.id, address)?;
        // SAFETY: the caller's promise.
        unsafe { publish(id) }?;
        Ok(0)
    })
}

/// `rdma_resolve_addr(3)`. Nothing is asked of the network, so that the timeout has no use.
///
/// # Safety
/// `id` is alive; `source` is null or readable for its family's length, `destination` readable.
pub unsafe extern "C" fn rdma_resolve_addr(
    id: *mut rdma_cm_id,
    source: *mut sockaddr,
    destination: *mut sockaddr,
    _timeout_ms: c_int,
) -> c_int {
    minus_one(|| {
        // SAFETY: the caller's promise.
        let inside = unsafe { inside(id) }?;
        let source = if source.is_null() {
            None
        } else {
            // SAFETY: the caller's promise.
            Some(unsafe { socket_address::read(source) }?)
        };
        // SAFETY: the caller's promise.
        let destination = unsafe { socket_address::read(destination) }?;
        inside.nic()?.cm.resolve(inside.nic()?, &inside.id, source, destination)?;
        // SAFETY: the caller's promise.
        unsafe { publish(id) }?;
        // SAFETY: the caller's promise.
        unsafe { complete(id) }
    })
}

/// `rdma_resolve_route(3)`. Nothing is asked of the network, so that the timeout has no use.
///
/// # Safety
/// `id` is alive.
pub unsafe extern "C" fn rdma_resolve_route(id: *mut rdma_cm_id, _timeout_ms: c_int) -> c_int {
    minus_one(|| {
        // SAFETY: the caller's promise.
        let inside = unsafe { inside(id) }?;
        inside.nic()?.cm.route(&inside.id)?;
        // SAFETY: the caller's promise.
        unsafe { publish(id) }?;
        // SAFETY: the caller's promise.
        unsafe { complete(id) }
    })
}

/// `rdma_listen(3)`.
///
/// # Safety
/// `id` is alive.
pub unsafe extern "C" fn rdma_listen(id: *mut rdma_cm_id, backlog: c_int) -> c_int {
    minus_one(|| {
        // SAFETY: the caller's promise.
        let inside = unsafe { inside(id) }?;
        inside.nic()?.cm.listen(inside.nic()?, &inside.id, backlog)?;
        // SAFETY: the caller's promise.
        unsafe { publish(id) }?;
        Ok(0)
    })
}

/// `rdma_set_option(3)`. A path of the program's own (`RDMA_OPTION_IB_PATH`) is not served.
///
/// # Safety
/// `id` is alive; `length` bytes at `value` are readable.
pub unsafe extern "C" fn rdma_set_option(
    id: *mut rdma_cm_id,
    level: c_int,
    option: c_int,
    value: *mut c_void,
    length: usize,
) -> c_int {
    minus_one(|| {
        // SAFETY: the caller's promise.
        let inside = unsafe { inside(id) }?;
        if level != RDMA_OPTION_ID {
            return Err(libc::EOPNOTSUPP);
        }
        let wide = matches!(option, RDMA_OPTION_ID_REUSEADDR | RDMA_OPTION_ID_AFONLY);
        let wanted = if wide { size_of::<c_int>() } else { 1 };
        if length != wanted {
            return Err(libc::EINVAL);
        }
        let value = given(value)?;
        let number = if wide {
            // SAFETY: the caller's promise, and the length is an int's.
            unsafe { value.cast::<c_int>().read_unaligned() }
        } else {
            // SAFETY: the caller's promise, and the length is a byte's.
            c_int::from(unsafe { value.cast::<u8>().read() })
        };
        let mut state = inside.id.state();
        match option {
            RDMA_OPTION_ID_TOS => state.options.tos = number as u8,
            // Five bits on the wire.
            RDMA_OPTION_ID_ACK_TIMEOUT if number > 31 => return Err(libc::EINVAL),
            RDMA_OPTION_ID_ACK_TIMEOUT => state.options.ack_timeout = Some(number as u8),
            RDMA_OPTION_ID_REUSEADDR => state.options.reuse = number != 0,
            RDMA_OPTION_ID_AFONLY if state.phase != Phase::Idle => return Err(libc::EINVAL),
            RDMA_OPTION_ID_AFONLY => state.options.family_only = number != 0,
            _ => return Err(libc::ENOSYS),
        }
        Ok(0)
    })
}

/// `rdma_migrate_id(3)`: waits until its events are acknowledged. Without a channel it becomes synchronous.
///
/// # Safety
/// `id` is alive, `channel` null or alive.
pub unsafe extern "C" fn rdma_migrate_id(id: *mut rdma_cm_id, channel: *mut rdma_event_channel) -> c_int {
    minus_one(|| {
        // SAFETY: the caller's promise.
        let inside = unsafe { inside(id) }?;
        let sync = channel.is_null();
        if sync && !inside.own().sync.0.is_null() {
            return Err(libc::EINVAL);
        }
        let channel = if sync { channel::create()? } else { channel };
        // SAFETY: alive by the caller's promise, or just made.
        let events = unsafe { channel::events(channel) }?;
        if !sync {
            // SAFETY: as above; on a synchronous identifier the slot is the library's.
            let last = unsafe { std::mem::replace(&mut (*id).event, null_mut()) };
            if !inside.own().sync.0.is_null() && !last.is_null() {
                // SAFETY: got by an earlier call on the identifier.
                unsafe { rdma_ack_cm_event(last) };
            }
        }
        inside.nic()?.cm.migrate(&inside.id, events);
        let mut own = inside.own();
        let before = std::mem::replace(&mut own.sync, Pointer(if sync { channel } else { null_mut() }));
        drop(own);
        if !before.0.is_null() {
            // SAFETY: made for the identifier, which has left it.
            unsafe { channel::rdma_destroy_event_channel(before.0) };
        }
        inside.id.unacked.wait();
        // SAFETY: the caller's promise.
        unsafe { (*id).channel = channel };
        Ok(0)
    })
}

/// `rdma_write_cm_event`: queues an event of the program's own.
///
/// # Safety
/// `id` is alive.
pub unsafe extern "C" fn rdma_write_cm_event(
    id: *mut rdma_cm_id,
    event: rdma_cm_event_type,
    status: c_int,
    argument: u64,
) -> c_int {
    minus_one(|| {
        // SAFETY: the caller's promise.
        let inside = unsafe { inside(id) }?;
        if event != RDMA_CM_EVENT_USER {
            return Err(libc::EINVAL);
        }
        inside.nic()?.cm.tell(&inside.id, What::Written(event.0, status, argument));
        Ok(0)
    })
}

/// `rdma_get_src_port(3)`: big-endian, 0 if there is none.
///
/// # Safety
/// `id` is alive.
pub unsafe extern "C" fn rdma_get_src_port(id: *mut rdma_cm_id) -> u16 {
    // SAFETY: the caller's promise.
    let local = unsafe { inside(id) }.ok().and_then(|inside| inside.id.state().local);
    local.map_or(0, |address| address.port().to_be())
}

/// `rdma_get_dst_port(3)`: big-endian, 0 if there is none.
///
/// # Safety
/// `id` is alive.
pub unsafe extern "C" fn rdma_get_dst_port(id: *mut rdma_cm_id) -> u16 {
    // SAFETY: the caller's promise.
    let remote = unsafe { inside(id) }.ok().and_then(|inside| inside.id.state().remote);
    remote.map_or(0, |address| address.port().to_be())
}
