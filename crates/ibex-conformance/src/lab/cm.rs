//! Connection management for tests: event channels, identifiers and events of librdmacm, given back in the right order.
//!
//! Owns objects of the C interface of `rdma_cm(7)` and bounded waits for their events. Synchronous identifiers are asked to
//! wait only where the event is sure to come.
//!
//! # Safety
//! The function table is complete and lives for ever. An identifier keeps its channel; a channel outlives its
//! identifiers; an event is acknowledged once.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ptr::null_mut;
use std::sync::Arc;
use std::time::Duration;

use ibex_sys::{
    Cm, RDMA_CM_EVENT_ADDR_RESOLVED, RDMA_CM_EVENT_ROUTE_RESOLVED, dispatch, ibv_qp_cap, ibv_qp_init_attr,
    ibv_qp_state, ibv_wc, rdma_cm_event, rdma_cm_event_type, rdma_cm_id, rdma_conn_param, rdma_event_channel,
    rdma_port_space, rdma_ud_param,
};

use super::device::errno;
use super::{Lab, PATIENCE};

/// The functions under test, and the device's address.
#[derive(Debug, Clone)]
pub struct CmLab {
    lab: Lab,
    table: &'static Cm,
}

impl CmLab {
    /// The connection management that belongs to the device under test.
    ///
    /// # Errors
    /// Why the provider has none.
    ///
    /// # Panics
    /// When there is no device.
    pub fn open() -> Result<CmLab, String> {
        let lab = Lab::open();
        let table = match std::env::var("IBEX_CONFORMANCE_PROVIDER").as_deref() {
            Ok("system") => Cm::load().map_err(|error| error.to_string())?,
            _ => ibex_soft::cm(),
        };
        // SAFETY: rdma_create_event_channel(3).
        let channel = unsafe { (table.create_event_channel)() };
        if channel.is_null() {
            return Err(format!("no event channel: errno {} (is rdma_ucm loaded?)", errno()));
        }
        // SAFETY: just made, and not used.
        unsafe { (table.destroy_event_channel)(channel) };
        Ok(CmLab { lab, table })
    }

    /// The device's address with a port.
    pub fn address(&self, port: u16) -> SocketAddr {
        // SAFETY: every bit pattern is a raw GID.
        let raw = unsafe { self.lab.gid().1.raw };
        SocketAddr::new(IpAddr::V6(Ipv6Addr::from(raw)).to_canonical(), port)
    }

    /// A new channel.
    ///
    /// # Panics
    /// When there can be none.
    pub fn channel(&self) -> Channel {
        // SAFETY: rdma_create_event_channel(3).
        let channel = unsafe { (self.table.create_event_channel)() };
        assert!(!channel.is_null(), "no event channel: errno {}", errno());
        Channel(Arc::new(Open { channel, lab: self.clone() }))
    }
}

#[derive(Debug)]
struct Open {
    channel: *mut rdma_event_channel,
    lab: CmLab,
}

// SAFETY: functions of librdmacm may be called from any thread.
unsafe impl Send for Open {}
// SAFETY: as above.
unsafe impl Sync for Open {}

impl Drop for Open {
    fn drop(&mut self) {
        // SAFETY: made by `CmLab::channel`; identifiers on it held an `Arc` of this.
        unsafe { (self.lab.table.destroy_event_channel)(self.channel) };
    }
}

/// An event channel.
#[derive(Debug, Clone)]
pub struct Channel(Arc<Open>);

impl Channel {
    fn table(&self) -> &'static Cm {
        self.0.lab.table
    }

    /// Whether an event comes in time.
    pub fn ready_within(&self, time: Duration) -> bool {
        // SAFETY: the channel is alive.
        let fd = unsafe { (*self.0.channel).fd };
        let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let ms = c_int::try_from(time.as_millis()).expect("short");
        // SAFETY: poll(2) with one entry.
        unsafe { libc::poll(&raw mut poll, 1, ms) > 0 }
    }

    /// The next event.
    ///
    /// # Panics
    /// When none comes within [`PATIENCE`].
    pub fn next(&self) -> Event {
        assert!(self.ready_within(PATIENCE), "no event");
        let mut event = null_mut();
        // SAFETY: rdma_get_cm_event(3), on a live channel.
        let ret = unsafe { (self.table().get_cm_event)(self.0.channel, &raw mut event) };
        assert_eq!(ret, 0, "rdma_get_cm_event: errno {}", errno());
        Event { event, channel: self.clone() }
    }

    /// The next event, which must be of this kind and a success.
    ///
    /// # Panics
    /// When it is not.
    pub fn expect(&self, kind: rdma_cm_event_type) -> Event {
        let event = self.next();
        assert_eq!((event.kind(), event.status()), (kind, 0));
        event
    }

    /// What a call for an event answers on a channel made non-blocking: an errno if there is none.
    ///
    /// # Panics
    /// When there is an event.
    pub fn nothing_without_blocking(&self) -> i32 {
        // SAFETY: the channel is alive.
        let fd = unsafe { (*self.0.channel).fd };
        // SAFETY: fcntl(2) on an open descriptor.
        let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
        // SAFETY: as above.
        unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) };
        let mut event = null_mut();
        // SAFETY: rdma_get_cm_event(3), on a live channel.
        let ret = unsafe { (self.table().get_cm_event)(self.0.channel, &raw mut event) };
        assert_eq!(ret, -1, "an event nobody expected");
        errno()
    }

    /// A new identifier on this channel.
    ///
    /// # Panics
    /// When there can be none.
    pub fn id(&self, space: rdma_port_space) -> Id {
        Id::new(&self.0.lab, Some(self), space)
    }

    /// An identifier that listens on any port of the device.
    pub fn listener(&self, space: rdma_port_space) -> Id {
        let id = self.id(space);
        assert_eq!(id.bind(self.0.lab.address(0)), Ok(()));
        assert_eq!(id.listen(16), Ok(()));
        id
    }

    /// An identifier with a route to a port of the device.
    pub fn resolved(&self, space: rdma_port_space, port: u16) -> Id {
        let id = self.id(space);
        assert_eq!(id.resolve_addr(self.0.lab.address(port)), Ok(()));
        assert!(self.expect(RDMA_CM_EVENT_ADDR_RESOLVED).is_about(&id));
        assert_eq!(id.resolve_route(), Ok(()));
        assert!(self.expect(RDMA_CM_EVENT_ROUTE_RESOLVED).is_about(&id));
        id
    }
}

/// An event, acknowledged when dropped.
#[derive(Debug)]
pub struct Event {
    event: *mut rdma_cm_event,
    channel: Channel,
}

impl Event {
    /// What happened.
    pub fn kind(&self) -> rdma_cm_event_type {
        // SAFETY: not acknowledged yet.
        unsafe { (*self.event).event }
    }

    /// 0, a negative errno, or a reason.
    pub fn status(&self) -> c_int {
        // SAFETY: not acknowledged yet.
        unsafe { (*self.event).status }
    }

    /// Whether it is about this identifier.
    pub fn is_about(&self, id: &Id) -> bool {
        // SAFETY: not acknowledged yet.
        unsafe { (*self.event).id == id.id }
    }

    /// Whether this listener was called.
    pub fn called(&self, id: &Id) -> bool {
        // SAFETY: not acknowledged yet.
        unsafe { (*self.event).listen_id == id.id }
    }

    /// Takes the identifier of a request.
    pub fn take_id(self) -> Id {
        // SAFETY: not acknowledged yet.
        let id = unsafe { (*self.event).id };
        Id { id, lab: self.channel.0.lab.clone(), channel: Some(self.channel.clone()) }
    }

    /// Parameters of a connection.
    pub fn conn(&self) -> rdma_conn_param {
        // SAFETY: not acknowledged yet.
        let param = unsafe { &(*self.event).param };
        // SAFETY: plain numbers and a pointer, valid whatever they are.
        unsafe { param.conn }
    }

    /// Parameters of a datagram service.
    pub fn ud(&self) -> rdma_ud_param {
        // SAFETY: not acknowledged yet.
        let param = unsafe { &(*self.event).param };
        // SAFETY: plain numbers and a pointer, valid whatever they are.
        unsafe { param.ud }
    }

    /// Its private data.
    pub fn data(&self) -> Vec<u8> {
        let conn = self.conn();
        let length = usize::from(conn.private_data_len);
        if conn.private_data.is_null() || length == 0 {
            return Vec::new();
        }
        // SAFETY: rdma_get_cm_event(3): readable until the event is acknowledged.
        unsafe { std::slice::from_raw_parts(conn.private_data.cast::<u8>(), length) }.to_vec()
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: got from the channel, acknowledged once.
        let ret = unsafe { (self.channel.table().ack_cm_event)(self.event) };
        assert!(ret == 0 || std::thread::panicking(), "rdma_ack_cm_event: errno {}", errno());
    }
}

/// An identifier; destroyed with its queue pair when dropped.
#[derive(Debug)]
pub struct Id {
    id: *mut rdma_cm_id,
    lab: CmLab,
    channel: Option<Channel>,
}

// SAFETY: functions of librdmacm may be called from any thread.
unsafe impl Send for Id {}
// SAFETY: as above.
unsafe impl Sync for Id {}

impl Id {
    /// A new identifier; synchronous without a channel.
    ///
    /// # Panics
    /// When there can be none.
    pub fn new(lab: &CmLab, channel: Option<&Channel>, space: rdma_port_space) -> Id {
        let mut id = null_mut();
        let raw = channel.map_or(null_mut(), |channel| channel.0.channel);
        // SAFETY: rdma_create_id(3), with a live channel or none.
        let ret = unsafe { (lab.table.create_id)(raw, &raw mut id, null_mut(), space) };
        assert_eq!(ret, 0, "rdma_create_id: errno {}", errno());
        Id { id, lab: lab.clone(), channel: channel.cloned() }
    }

    fn table(&self) -> &'static Cm {
        self.lab.table
    }

    /// `rdma_bind_addr`.
    ///
    /// # Errors
    /// Its errno.
    pub fn bind(&self, address: SocketAddr) -> Result<(), i32> {
        let mut address = Raw::from(address);
        // SAFETY: rdma_bind_addr(3), with an address that lives across the call.
        result(unsafe { (self.table().bind_addr)(self.id, address.as_ptr()) })
    }

    /// `rdma_listen`.
    ///
    /// # Errors
    /// Its errno.
    pub fn listen(&self, backlog: c_int) -> Result<(), i32> {
        // SAFETY: rdma_listen(3).
        result(unsafe { (self.table().listen)(self.id, backlog) })
    }

    /// `rdma_resolve_addr`.
    ///
    /// # Errors
    /// Its errno.
    pub fn resolve_addr(&self, to: SocketAddr) -> Result<(), i32> {
        let mut to = Raw::from(to);
        // SAFETY: rdma_resolve_addr(3), with an address that lives across the call.
        result(unsafe { (self.table().resolve_addr)(self.id, null_mut(), to.as_ptr(), 2000) })
    }

    /// `rdma_resolve_route`.
    ///
    /// # Errors
    /// Its errno.
    pub fn resolve_route(&self) -> Result<(), i32> {
        // SAFETY: rdma_resolve_route(3).
        result(unsafe { (self.table().resolve_route)(self.id, 2000) })
    }

    /// The local port.
    pub fn port(&self) -> u16 {
        // SAFETY: rdma_get_src_port(3).
        u16::from_be(unsafe { (self.table().get_src_port)(self.id) })
    }

    /// The peer's port.
    pub fn peer_port(&self) -> u16 {
        // SAFETY: rdma_get_dst_port(3).
        u16::from_be(unsafe { (self.table().get_dst_port)(self.id) })
    }

    /// `rdma_create_qp`, without domain and queues.
    ///
    /// # Errors
    /// Its errno.
    pub fn create_qp(&self) -> Result<(), i32> {
        let cap = ibv_qp_cap {
            max_send_wr: 8,
            max_recv_wr: 8,
            max_send_sge: 1,
            max_recv_sge: 1,
            max_inline_data: 16,
        };
        // SAFETY: the identifier is alive.
        let qp_type = unsafe { (*self.id).qp_type };
        let mut init = ibv_qp_init_attr { cap, qp_type, sq_sig_all: 1, ..Default::default() };
        // SAFETY: rdma_create_qp(3).
        result(unsafe { (self.table().create_qp)(self.id, null_mut(), &raw mut init) })
    }

    /// The state that the queue pair's structure shows.
    pub fn qp_state(&self) -> ibv_qp_state {
        // SAFETY: the identifier has a queue pair.
        let qp = unsafe { (*self.id).qp };
        // SAFETY: as above.
        unsafe { (*qp).state }
    }

    /// The number of the queue pair.
    pub fn qp_num(&self) -> u32 {
        // SAFETY: the identifier has a queue pair.
        let qp = unsafe { (*self.id).qp };
        // SAFETY: as above.
        unsafe { (*qp).qp_num }
    }

    /// `rdma_connect`, with one READ each way.
    ///
    /// # Errors
    /// Its errno.
    pub fn connect(&self, data: &[u8]) -> Result<(), i32> {
        let mut param = parameters(data);
        // SAFETY: rdma_connect(3); parameters and data live across the call.
        result(unsafe { (self.table().connect)(self.id, &raw mut param) })
    }

    /// `rdma_accept`, with one READ each way.
    ///
    /// # Errors
    /// Its errno.
    pub fn accept(&self, data: &[u8]) -> Result<(), i32> {
        let mut param = parameters(data);
        // SAFETY: the identifier is alive.
        let qp = unsafe { (*self.id).qp };
        if !qp.is_null() {
            param.qp_num = self.qp_num();
        }
        // SAFETY: rdma_accept(3); parameters and data live across the call.
        result(unsafe { (self.table().accept)(self.id, &raw mut param) })
    }

    /// `rdma_reject`.
    ///
    /// # Errors
    /// Its errno.
    pub fn reject(&self, data: &[u8]) -> Result<(), i32> {
        let length = u8::try_from(data.len()).expect("short");
        // SAFETY: rdma_reject(3); the data lives across the call.
        result(unsafe { (self.table().reject)(self.id, data.as_ptr().cast(), length) })
    }

    /// `rdma_disconnect`.
    ///
    /// # Errors
    /// Its errno.
    pub fn disconnect(&self) -> Result<(), i32> {
        // SAFETY: rdma_disconnect(3).
        result(unsafe { (self.table().disconnect)(self.id) })
    }

    /// `rdma_migrate_id` to another channel.
    ///
    /// # Errors
    /// Its errno.
    pub fn migrate(&mut self, to: &Channel) -> Result<(), i32> {
        // SAFETY: rdma_migrate_id(3), to a live channel.
        result(unsafe { (self.table().migrate_id)(self.id, to.0.channel) })?;
        self.channel = Some(to.clone());
        Ok(())
    }

    /// `rdma_get_request` on a synchronous listener.
    ///
    /// # Errors
    /// Its errno.
    pub fn get_request(&self) -> Result<Id, i32> {
        let mut id = null_mut();
        // SAFETY: rdma_get_request(3).
        result(unsafe { (self.table().get_request)(self.id, &raw mut id) })?;
        Ok(Id { id, lab: self.lab.clone(), channel: None })
    }

    /// Sends a few bytes inline and waits for the completion.
    pub fn send(&self, bytes: &[u8]) -> ibv_wc {
        let flags = c_int::try_from(ibex_sys::IBV_SEND_INLINE.0).expect("a flag");
        let at = bytes.as_ptr().cast_mut().cast::<c_void>();
        // SAFETY: rdma_post_send(3): inline data is read during the call.
        let ret =
            unsafe { dispatch::rdma_post_send(self.id, null_mut(), at, bytes.len(), null_mut(), flags) };
        assert_eq!(ret, 0, "rdma_post_send: errno {}", errno());
        let mut wc = ibv_wc::default();
        // SAFETY: the queues are those that rdma_create_qp made.
        let got = unsafe { dispatch::rdma_get_send_comp(self.lab.lab.verbs(), self.id, &raw mut wc) };
        assert_eq!(got, 1, "rdma_get_send_comp: errno {}", errno());
        wc
    }

    /// Posts a receive of 64 bytes; the memory is the identifier's for the rest of the process's life.
    pub fn post_recv(&self) -> Receive<'_> {
        let memory: &'static mut [u8; 64] = Box::leak(Box::new([0; 64]));
        let at = memory.as_mut_ptr();
        let verbs = self.lab.lab.verbs();
        // SAFETY: rdma_reg_msgs(3): the memory is never freed.
        let mr = unsafe { dispatch::rdma_reg_msgs(verbs, self.id, at.cast(), 64) };
        assert!(!mr.is_null(), "rdma_reg_msgs: errno {}", errno());
        // SAFETY: rdma_post_recv(3): the region contains the range.
        let ret = unsafe { dispatch::rdma_post_recv(self.id, null_mut(), at.cast(), 64, mr) };
        assert_eq!(ret, 0, "rdma_post_recv: errno {}", errno());
        Receive { id: self, at, mr }
    }
}

impl Drop for Id {
    fn drop(&mut self) {
        // SAFETY: the identifier is alive.
        let qp = unsafe { (*self.id).qp };
        if !qp.is_null() {
            // SAFETY: rdma_destroy_qp(3) wants one; nothing uses it any more.
            unsafe { (self.table().destroy_qp)(self.id) };
        }
        // SAFETY: destroyed once; events about it are acknowledged when dropped.
        let ret = unsafe { (self.table().destroy_id)(self.id) };
        assert!(ret == 0 || std::thread::panicking(), "rdma_destroy_id: errno {}", errno());
    }
}

/// A posted receive.
#[derive(Debug)]
pub struct Receive<'a> {
    id: &'a Id,
    at: *mut u8,
    mr: *mut ibex_sys::ibv_mr,
}

impl Receive<'_> {
    /// Waits for its completion: that, and the memory.
    pub fn wait(self) -> (ibv_wc, Vec<u8>) {
        let verbs = self.id.lab.lab.verbs();
        let mut wc = ibv_wc::default();
        // SAFETY: the queues are those that rdma_create_qp made.
        let got = unsafe { dispatch::rdma_get_recv_comp(verbs, self.id.id, &raw mut wc) };
        assert_eq!(got, 1, "rdma_get_recv_comp: errno {}", errno());
        // SAFETY: the completion gave the memory back.
        let bytes = unsafe { std::slice::from_raw_parts(self.at, 64) }.to_vec();
        // SAFETY: nothing uses the region any more.
        let ret = unsafe { dispatch::rdma_dereg_mr(verbs, self.mr) };
        assert_eq!(ret, 0, "rdma_dereg_mr: errno {}", errno());
        (wc, bytes)
    }
}

/// One READ each way, and these private data.
fn parameters(data: &[u8]) -> rdma_conn_param {
    rdma_conn_param {
        private_data: data.as_ptr().cast(),
        private_data_len: u8::try_from(data.len()).expect("short"),
        responder_resources: 1,
        initiator_depth: 1,
        retry_count: 7,
        rnr_retry_count: 7,
        ..Default::default()
    }
}

/// 0, or errno behind −1.
fn result(ret: c_int) -> Result<(), i32> {
    match ret {
        0 => Ok(()),
        -1 => Err(errno()),
        other => panic!("a function of librdmacm returned {other}"),
    }
}

/// An address as C has it.
struct Raw(libc::sockaddr_storage);

impl From<SocketAddr> for Raw {
    fn from(address: SocketAddr) -> Raw {
        // SAFETY: plain data, for which zeroes are valid.
        let mut raw: libc::sockaddr_storage = unsafe { MaybeUninit::zeroed().assume_init() };
        match address {
            SocketAddr::V4(v4) => {
                let from = libc::sockaddr_in {
                    sin_family: libc::sa_family_t::try_from(libc::AF_INET).expect("a family"),
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from(*v4.ip()).to_be() },
                    sin_zero: [0; 8],
                };
                // SAFETY: the storage is large enough and aligned for every family.
                unsafe { (&raw mut raw).cast::<libc::sockaddr_in>().write(from) };
            }
            SocketAddr::V6(v6) => {
                let from = libc::sockaddr_in6 {
                    sin6_family: libc::sa_family_t::try_from(libc::AF_INET6).expect("a family"),
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: 0,
                    sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                    sin6_scope_id: v6.scope_id(),
                };
                // SAFETY: as above.
                unsafe { (&raw mut raw).cast::<libc::sockaddr_in6>().write(from) };
            }
        }
        Raw(raw)
    }
}

impl Raw {
    fn as_ptr(&mut self) -> *mut libc::sockaddr {
        (&raw mut self.0).cast()
    }
}
