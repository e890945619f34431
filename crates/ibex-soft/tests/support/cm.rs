//! Connection management for the tests: thin wrappers over the device's table of librdmacm.
//!
//! Owns channels, identifiers and events that are given back in the right order, and the usual ways to connect.

use std::ffi::{CStr, c_int};
use std::ptr::null_mut;
use std::time::Instant;

use ibex_sys::*;

use super::{LIMIT, c, readable};

/// The table under test.
pub(crate) fn t() -> &'static Cm {
    ibex_soft::cm()
}

/// The errno of the call that just failed.
pub(crate) fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// The device's address with a port.
pub(crate) fn own(port: u16) -> libc::sockaddr_in {
    let address = std::env::var("IBEX_SOFT_ADDR").unwrap_or_else(|_| "127.0.0.1".to_owned());
    at(&address, port)
}

/// An IPv4 address with a port.
pub(crate) fn at(address: &str, port: u16) -> libc::sockaddr_in {
    let address: std::net::Ipv4Addr = address.parse().expect("an IPv4 address");
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(address).to_be() },
        sin_zero: [0; 8],
    }
}

/// An event channel.
pub(crate) struct Chan(pub(crate) *mut rdma_event_channel);
// SAFETY: functions of librdmacm may be called from any thread (rdma_cm(7)).
unsafe impl Send for Chan {}
// SAFETY: as above.
unsafe impl Sync for Chan {}

impl Chan {
    pub(crate) fn new() -> Chan {
        let channel = c!((t().create_event_channel)());
        assert!(!channel.is_null(), "create_event_channel: {}", errno());
        Chan(channel)
    }

    pub(crate) fn fd(&self) -> i32 {
        c!((*self.0).fd)
    }

    pub(crate) fn raw(&self) -> *mut rdma_event_channel {
        self.0
    }

    /// The next event, within the limit.
    pub(crate) fn next(&self) -> Event {
        assert!(readable(self.fd(), LIMIT.as_millis() as i32), "no event");
        let mut event = null_mut();
        assert_eq!(c!((t().get_cm_event)(self.0, &mut event)), 0, "get_cm_event: {}", errno());
        Event(event)
    }

    /// The next event, which must be of that kind and without an error.
    pub(crate) fn expect(&self, kind: rdma_cm_event_type) -> Event {
        let event = self.next();
        assert_eq!((event.kind(), event.status()), (kind, 0));
        event
    }

    /// Whether no event comes for so many milliseconds.
    pub(crate) fn quiet(&self, ms: i32) -> bool {
        !readable(self.fd(), ms)
    }
}

impl Drop for Chan {
    fn drop(&mut self) {
        c!((t().destroy_event_channel)(self.0));
    }
}

/// An event, acknowledged when dropped.
pub(crate) struct Event(pub(crate) *mut rdma_cm_event);

impl Event {
    pub(crate) fn kind(&self) -> rdma_cm_event_type {
        c!((*self.0).event)
    }

    pub(crate) fn status(&self) -> c_int {
        c!((*self.0).status)
    }

    /// The identifier it is about.
    pub(crate) fn id(&self) -> Cid {
        Cid(c!((*self.0).id))
    }

    pub(crate) fn listener(&self) -> *mut rdma_cm_id {
        c!((*self.0).listen_id)
    }

    pub(crate) fn conn(&self) -> rdma_conn_param {
        c!((*self.0).param.conn)
    }

    pub(crate) fn ud(&self) -> rdma_ud_param {
        c!((*self.0).param.ud)
    }

    /// Its private data.
    pub(crate) fn data(&self) -> Vec<u8> {
        let conn = self.conn();
        if conn.private_data.is_null() {
            return Vec::new();
        }
        let len = usize::from(conn.private_data_len);
        // SAFETY: the event is not acknowledged yet (rdma_get_cm_event(3)).
        unsafe { std::slice::from_raw_parts(conn.private_data.cast::<u8>(), len) }.to_vec()
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        assert_eq!(c!((t().ack_cm_event)(self.0)), 0);
    }
}

/// An identifier. Not destroyed when dropped: programs have several names for one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Cid(pub(crate) *mut rdma_cm_id);
// SAFETY: as for Chan.
unsafe impl Send for Cid {}
// SAFETY: as for Chan.
unsafe impl Sync for Cid {}

impl Cid {
    pub(crate) fn new(channel: Option<&Chan>, space: rdma_port_space) -> Cid {
        let mut id = null_mut();
        let channel = channel.map_or(null_mut(), |channel| channel.0);
        assert_eq!(c!((t().create_id)(channel, &mut id, null_mut(), space)), 0, "create_id: {}", errno());
        Cid(id)
    }

    /// A listener on any port of the device.
    pub(crate) fn listening(channel: Option<&Chan>, space: rdma_port_space) -> Cid {
        let id = Cid::new(channel, space);
        assert_eq!(id.bind(own(0)), Ok(()));
        assert_eq!(id.listen(0), Ok(()));
        id
    }

    /// Resolved to a port of the device.
    pub(crate) fn resolved(channel: &Chan, space: rdma_port_space, port: u16) -> Cid {
        Cid::resolved_to(channel, space, own(port))
    }

    /// Resolved to an address.
    pub(crate) fn resolved_to(channel: &Chan, space: rdma_port_space, to: libc::sockaddr_in) -> Cid {
        let id = Cid::new(Some(channel), space);
        assert_eq!(id.resolve_addr(to), Ok(()));
        assert_eq!(channel.expect(RDMA_CM_EVENT_ADDR_RESOLVED).id(), id);
        assert_eq!(id.resolve_route(), Ok(()));
        assert_eq!(channel.expect(RDMA_CM_EVENT_ROUTE_RESOLVED).id(), id);
        id
    }

    pub(crate) fn bind(self, mut address: libc::sockaddr_in) -> Result<(), i32> {
        result(c!((t().bind_addr)(self.0, (&raw mut address).cast())))
    }

    pub(crate) fn listen(self, backlog: c_int) -> Result<(), i32> {
        result(c!((t().listen)(self.0, backlog)))
    }

    pub(crate) fn resolve_addr(self, mut to: libc::sockaddr_in) -> Result<(), i32> {
        result(c!((t().resolve_addr)(self.0, null_mut(), (&raw mut to).cast(), 1000)))
    }

    pub(crate) fn resolve_route(self) -> Result<(), i32> {
        result(c!((t().resolve_route)(self.0, 1000)))
    }

    pub(crate) fn port(self) -> u16 {
        u16::from_be(c!((t().get_src_port)(self.0)))
    }

    pub(crate) fn peer_port(self) -> u16 {
        u16::from_be(c!((t().get_dst_port)(self.0)))
    }

    /// A queue pair of 16 requests each way, with queues of its own.
    pub(crate) fn create_qp(self) -> Result<(), i32> {
        let cap = ibv_qp_cap {
            max_send_wr: 16,
            max_recv_wr: 16,
            max_send_sge: 1,
            max_recv_sge: 1,
            max_inline_data: 16,
        };
        let kind = c!((*self.0).qp_type);
        let mut init = ibv_qp_init_attr { cap, qp_type: kind, sq_sig_all: 1, ..Default::default() };
        result(c!((t().create_qp)(self.0, null_mut(), &mut init)))
    }

    pub(crate) fn connect(self, data: &[u8]) -> Result<(), i32> {
        let mut param = parameters(data);
        result(c!((t().connect)(self.0, &mut param)))
    }

    pub(crate) fn accept(self, data: &[u8]) -> Result<(), i32> {
        let mut param = parameters(data);
        result(c!((t().accept)(self.0, &mut param)))
    }

    pub(crate) fn reject(self, data: &[u8]) -> Result<(), i32> {
        result(c!((t().reject)(self.0, data.as_ptr().cast(), data.len() as u8)))
    }

    pub(crate) fn disconnect(self) -> Result<(), i32> {
        result(c!((t().disconnect)(self.0)))
    }

    /// Destroys it with its queue pair.
    pub(crate) fn destroy(self) {
        c!((t().destroy_qp)(self.0));
        assert_eq!(c!((t().destroy_id)(self.0)), 0, "destroy_id: {}", errno());
    }

    pub(crate) fn qp_state(self) -> ibv_qp_state {
        let (mut attr, mut init) = (ibv_qp_attr::default(), ibv_qp_init_attr::default());
        let code = c!((super::v().query_qp)((*self.0).qp, &mut attr, IBV_QP_STATE.0 as c_int, &mut init));
        assert_eq!(code, 0);
        attr.qp_state
    }

    pub(crate) fn context(self) -> *mut ibv_context {
        c!((*self.0).verbs)
    }

    /// Registers `len` bytes of leaked memory for messages.
    pub(crate) fn memory(self, len: usize) -> (*mut u8, *mut ibv_mr) {
        let memory = Vec::leak(vec![0u8; len]).as_mut_ptr();
        let mr = c!(dispatch::rdma_reg_msgs(super::v(), self.0, memory.cast(), len));
        assert!(!mr.is_null());
        (memory, mr)
    }

    /// Posts a receive of 64 bytes.
    pub(crate) fn recv(self, memory: *mut u8, mr: *mut ibv_mr) {
        assert_eq!(c!(dispatch::rdma_post_recv(self.0, null_mut(), memory.cast(), 64, mr)), 0);
    }

    /// Sends a number inline, and waits for the completion.
    pub(crate) fn send(self, number: u64) {
        let mut bytes = number.to_le_bytes();
        let flags = IBV_SEND_INLINE.0 as c_int;
        let at = bytes.as_mut_ptr().cast();
        assert_eq!(c!(dispatch::rdma_post_send(self.0, null_mut(), at, 8, null_mut(), flags)), 0);
        let mut wc = ibv_wc::default();
        assert_eq!(c!(dispatch::rdma_get_send_comp(super::v(), self.0, &mut wc)), 1);
        assert_eq!(wc.status, IBV_WC_SUCCESS);
    }

    /// Waits for a receive's completion.
    pub(crate) fn received(self) -> ibv_wc {
        let mut wc = ibv_wc::default();
        assert_eq!(c!(dispatch::rdma_get_recv_comp(super::v(), self.0, &mut wc)), 1);
        wc
    }
}

/// 0, or errno behind −1.
pub(crate) fn result(code: c_int) -> Result<(), i32> {
    match code {
        0 => Ok(()),
        -1 => Err(errno()),
        other => panic!("a function of librdmacm returned {other}"),
    }
}

/// One READ each way, and these private data.
pub(crate) fn parameters(data: &[u8]) -> rdma_conn_param {
    rdma_conn_param {
        private_data: data.as_ptr().cast(),
        private_data_len: data.len() as u8,
        responder_resources: 1,
        initiator_depth: 1,
        retry_count: 7,
        rnr_retry_count: 7,
        ..Default::default()
    }
}

/// The name of an event.
pub(crate) fn name(kind: rdma_cm_event_type) -> String {
    let name = c!((t().event_str)(kind));
    // SAFETY: a static string for every value (rdma_event_str(3)).
    unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
}

/// Two connected ends of one process, each with a queue pair: the one that called, the one that was called.
pub(crate) fn pair(channel: &Chan) -> (Cid, Cid) {
    let listener = Cid::listening(Some(channel), RDMA_PS_TCP);
    let ends = pair_with(channel, listener);
    listener.destroy();
    ends
}

/// The same by a listener of the channel.
pub(crate) fn pair_with(channel: &Chan, listener: Cid) -> (Cid, Cid) {
    let caller = Cid::resolved(channel, RDMA_PS_TCP, listener.port());
    assert_eq!(caller.create_qp(), Ok(()));
    assert_eq!(caller.connect(&[]), Ok(()));
    let request = channel.expect(RDMA_CM_EVENT_CONNECT_REQUEST);
    let called = request.id();
    drop(request);
    assert_eq!(called.create_qp(), Ok(()));
    assert_eq!(called.accept(&[]), Ok(()));
    let start = Instant::now();
    let mut established = [false; 2];
    while established != [true; 2] {
        let event = channel.expect(RDMA_CM_EVENT_ESTABLISHED);
        established[usize::from(event.id() == called)] = true;
        assert!(start.elapsed() < LIMIT);
    }
    (caller, called)
}
