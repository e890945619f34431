//! What programs ask for: addresses, listeners, connections, and the events of their channels.
//!
//! Owns the checks of addresses and phases. Each command sends what it causes before it returns; none waits for a peer.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use ibex_proto::cm::{
    Attributes, CmError, ConnId, ConnectParams, ListenParams, Path, RejectParams, ReplyParams, SidrId,
    SidrParams, SidrReplyParams,
};
use ibex_wire::mad::{
    CmaHeader, Gid, PortSpace, Private, RejectReason, ServiceId, SidrStatus, TransportService,
};
use ibex_wire::{Mtu, Psn, Qkey, Qpn};

use super::id::State;
use super::ports::{errno_of, mailbox};
use super::{Channel, Id, Inner, Options, Phase, Queued, Service, What, push};
use crate::net::random;
use crate::nic::Nic;

/// Requests that may wait to be fetched when a program names no number, and at most; both as in Linux.
const BACKLOG: usize = 1024;

/// How long a peer may take to answer, 4.096 µs · 2^19 = 2.1 s: with [`RETRIES`] a silent one is given up after half a
/// minute. The kernel's `rdma_cm` allows twice that.
const RESPONSE_TIMEOUT: u8 = 19;

/// Repetitions of a message, as many as there can be.
const RETRIES: u8 = 15;

/// The longest a packet is said to be under way, 4.096 µs · 2^14 = 67 ms: twice that is the transport's timeout, about what a
/// peer takes that has to be scheduled first.
const LIFE_TIME: u8 = 14;

/// The Q_Key of the datagram port spaces, `RDMA_UDP_QKEY`.
const QKEY: Qkey = Qkey(0x0123_4567);

/// What a connection is asked for with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Call {
    pub(crate) qpn: u32,
    /// Unreliable connection instead of a reliable one.
    pub(crate) unreliable: bool,
    pub(crate) srq: bool,
    pub(crate) responder_resources: u8,
    pub(crate) initiator_depth: u8,
    pub(crate) retry_count: u8,
    pub(crate) rnr_retry_count: u8,
    pub(crate) flow_control: bool,
    pub(crate) private: Vec<u8>,
}

/// What a request is accepted with; READs and atomics are bounded by what was asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Accept {
    pub(crate) qpn: u32,
    pub(crate) srq: bool,
    pub(crate) responder_resources: u8,
    pub(crate) initiator_depth: u8,
    pub(crate) rnr_retry_count: u8,
    pub(crate) flow_control: bool,
    pub(crate) private: Vec<u8>,
}

/// The errno of a refused command: what is no misuse is a peer that was faster, and that is `EINVAL` as well.
fn refused(error: CmError) -> i32 {
    match error {
        CmError::InUse(_) => libc::EADDRINUSE,
        CmError::TooMany(_) => libc::ENOMEM,
        _ => libc::EINVAL,
    }
}

/// The path from this NIC.
fn path(nic: &Nic, state: &State) -> Result<Path, i32> {
    let remote = state.remote.ok_or(libc::EINVAL)?;
    let mtu = Mtu::ALL.into_iter().rev().find(|mtu| mtu.bytes() <= nic.wire.mtu()).unwrap_or(Mtu::Mtu256);
    let local = Gid::from(nic.wire.address());
    Ok(Path {
        traffic_class: state.options.tos,
        packet_life_time: LIFE_TIME,
        ..Path::new(local, Gid::from(remote.ip().to_canonical()), mtu)
    })
}

/// A first sequence number that nobody can foresee.
fn psn() -> Psn {
    Psn::new(random() as u32)
}

impl Service {
    /// Binds an identifier: `rdma_bind_addr(3)`. Port 0 is any port.
    ///
    /// # Errors
    /// `EINVAL` if it is bound, `EADDRINUSE`, `EADDRNOTAVAIL` for an address of another host, `ENODEV` for one of this
    /// host that is not the device's.
    pub(crate) fn bind(&self, nic: &Nic, id: &Id, address: SocketAddr) -> Result<(), i32> {
        let mut state = id.state();
        if state.phase != Phase::Idle {
            return Err(libc::EINVAL);
        }
        let own = nic.wire.address();
        let ip = address.ip().to_canonical();
        if !ip.is_unspecified() && ip != own {
            let local = UdpSocket::bind((ip, 0)).is_ok();
            return Err(if local { libc::ENODEV } else { libc::EADDRNOTAVAIL });
        }
        // "Any address" of IPv6 is also that of IPv4, unless said otherwise.
        let dual = ip.is_unspecified() && ip.is_ipv6() && !state.options.family_only;
        let v6 = if dual { own.is_ipv6() } else { ip.is_ipv6() };
        let port = self.ports.bind(&nic.wire, id.space, v6, address.port(), state.options.reuse)?;
        let mut local = address;
        local.set_port(port.number());
        state.port = Some(port);
        state.local = Some(local);
        state.phase = Phase::Bound;
        Ok(())
    }

    /// Resolves a destination, from the address bound or the device's: `rdma_resolve_addr(3)`. The outcome is an event.
    ///
    /// # Errors
    /// Those of [`Service::bind`] for `source`; `EINVAL` after a listener or a resolution.
    pub(crate) fn resolve(
        &self,
        nic: &Nic,
        id: &Arc<Id>,
        source: Option<SocketAddr>,
        destination: SocketAddr,
    ) -> Result<(), i32> {
        let idle = id.state().phase == Phase::Idle;
        let named = source.filter(|source| source.port() != 0 || !source.ip().is_unspecified());
        if let (true, Some(source)) = (idle, named) {
            self.bind(nic, id, source)?;
        }
        let own = nic.wire.address();
        let mut state = id.state();
        let port = match (state.phase, &state.port) {
            (Phase::Idle, _) => {
                let port = self.ports.ephemeral(&nic.wire, id.space)?;
                let number = port.number();
                state.port = Some(port);
                number
            }
            (Phase::Bound, Some(port)) => port.number(),
            _ => return Err(libc::EINVAL),
        };
        state.phase = Phase::Bound;
        let mut remote = destination;
        if remote.ip().is_unspecified() {
            // As with sockets: the own host.
            remote.set_ip(own);
        }
        let ip = remote.ip().to_canonical();
        let reached = if ip.is_ipv4() != own.is_ipv4() {
            Err(libc::ENETUNREACH)
        } else {
            nic.wire.reach(ip).map_err(|error| errno_of(&error))
        };
        state.local = Some(SocketAddr::new(own, port));
        state.remote = Some(remote);
        if reached.is_ok() {
            state.phase = Phase::Resolved;
        }
        drop(state);
        self.tell(id, What::Address(reached.err().map_or(0, |errno| -errno)));
        Ok(())
    }

    /// Finds the route: `rdma_resolve_route(3)`. The outcome is an event.
    ///
    /// # Errors
    /// `EINVAL` without a resolved address.
    pub(crate) fn route(&self, id: &Arc<Id>) -> Result<(), i32> {
        let mut state = id.state();
        if state.phase != Phase::Resolved {
            return Err(libc::EINVAL);
        }
        state.phase = Phase::Routed;
        drop(state);
        self.tell(id, What::Route);
        Ok(())
    }

    /// The path of a resolved identifier, or of one that was called.
    ///
    /// # Errors
    /// `EINVAL` without a destination.
    pub(crate) fn path(&self, nic: &Nic, id: &Id) -> Result<Path, i32> {
        path(nic, &id.state())
    }

    /// Queues an event that needs no peer.
    pub(crate) fn tell(&self, id: &Arc<Id>, what: What) {
        let _order = self.lock();
        push(id, what);
    }

    /// Listens: `rdma_listen(3)`.
    ///
    /// # Errors
    /// `EINVAL` in another phase than bound, `EADDRINUSE`.
    pub(crate) fn listen(&self, nic: &Nic, id: &Arc<Id>, backlog: i32) -> Result<(), i32> {
        if id.state().phase == Phase::Idle {
            self.bind(nic, id, SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0))?;
        }
        let mut inner = self.lock();
        let mut state = id.state();
        let (Phase::Bound, Some(local)) = (state.phase, state.local) else { return Err(libc::EINVAL) };
        let own = nic.wire.address();
        let ip = local.ip().to_canonical();
        let dual = ip.is_unspecified() && ip.is_ipv6() && !state.options.family_only;
        if !dual && ip.is_ipv4() != own.is_ipv4() {
            // Any address of a family that no device here has: nobody can call.
            state.phase = Phase::Listening;
            return Ok(());
        }
        let service = ServiceId::ip(id.space, local.port());
        let held = Arc::new(nic.wire.hold(&mailbox(service)).map_err(|error| errno_of(&error))?);
        held.listen().map_err(|error| errno_of(&error))?;
        let backlog = usize::try_from(backlog).unwrap_or(0);
        let backlog = if (1..BACKLOG).contains(&backlog) { backlog } else { BACKLOG };
        let listener = inner.cm.listen(&ListenParams { service, local: None, backlog }).map_err(refused)?;
        inner.listeners.insert(listener, id.clone());
        inner.services.insert(service, listener);
        state.listener = Some((listener, held));
        state.phase = Phase::Listening;
        Ok(())
    }

    /// Calls: `rdma_connect(3)`.
    ///
    /// # Errors
    /// `EINVAL` without a route, or with more private data than there is room for.
    pub(crate) fn connect(&self, nic: &Nic, id: &Arc<Id>, call: &Call) -> Result<(), i32> {
        self.run(nic, |inner, now| {
            let mut state = id.state();
            let (Phase::Routed, Some(local), Some(remote)) = (state.phase, state.local, state.remote) else {
                return Err(libc::EINVAL);
            };
            let service = ServiceId::ip(id.space, remote.port());
            let cma = Some(CmaHeader {
                src_port: local.port(),
                src: local.ip().to_canonical(),
                dst: remote.ip().to_canonical(),
            });
            let path = path(nic, &state)?;
            if id.datagrams {
                let params = SidrParams {
                    cma,
                    response_timeout: RESPONSE_TIMEOUT,
                    max_cm_retries: RETRIES,
                    private: call.private.clone(),
                    ..SidrParams::new(path, service)
                };
                let sidr = inner.cm.sidr_request(now, &params).map_err(refused)?;
                inner.sidrs.insert(sidr, id.clone());
                state.sidr = Some(sidr);
            } else {
                let params = ConnectParams {
                    cma,
                    transport: if call.unreliable { TransportService::UC } else { TransportService::RC },
                    responder_resources: call.responder_resources,
                    initiator_depth: call.initiator_depth,
                    retry_count: call.retry_count.min(7),
                    rnr_retry_count: call.rnr_retry_count.min(7),
                    flow_control: call.flow_control,
                    srq: call.srq,
                    remote_response_timeout: RESPONSE_TIMEOUT,
                    local_response_timeout: RESPONSE_TIMEOUT,
                    max_cm_retries: RETRIES,
                    private: call.private.clone(),
                    ..ConnectParams::new(path, service, Qpn::new(call.qpn), psn())
                };
                let conn = inner.cm.connect(now, &params).map_err(refused)?;
                inner.conns.insert(conn, id.clone());
                state.conn = Some(conn);
            }
            state.phase = Phase::Connection;
            Ok(())
        })
    }

    /// The attributes for moving the queue pair of a connection.
    ///
    /// # Errors
    /// `EINVAL` without one, or before the peer has said what it needs.
    pub(crate) fn attributes(&self, id: &Id) -> Result<Attributes, i32> {
        let inner = self.lock();
        let state = id.state();
        let mut attributes = inner.cm.attributes(state.conn.ok_or(libc::EINVAL)?).map_err(refused)?;
        if let Some(psn) = state.psn {
            // Told to the peer with the answer, which comes after the queue pair was moved.
            attributes.rq_psn = Psn::new(psn);
        }
        if let Some(timeout) = state.options.ack_timeout {
            attributes.ack_timeout = timeout;
        }
        Ok(attributes)
    }

    /// Accepts: `rdma_accept(3)`; the queue pair can receive already.
    ///
    /// # Errors
    /// `EINVAL` without a request, after it was given up, or with more private data than there is room for.
    pub(crate) fn accept(&self, nic: &Nic, id: &Id, accept: &Accept) -> Result<(), i32> {
        self.run(nic, |inner, now| {
            let state = id.state();
            if let Some(sidr) = state.sidr {
                let params = SidrReplyParams {
                    status: SidrStatus::SUCCESS,
                    qpn: Qpn::new(accept.qpn),
                    qkey: QKEY,
                    private: accept.private.clone(),
                };
                return inner.cm.sidr_reply(now, sidr, &params).map_err(refused);
            }
            let conn = state.conn.ok_or(libc::EINVAL)?;
            let request = state.request.as_ref().ok_or(libc::EINVAL)?;
            let params = ReplyParams {
                responder_resources: accept.responder_resources.min(request.responder_resources),
                initiator_depth: accept.initiator_depth.min(request.initiator_depth),
                flow_control: accept.flow_control,
                rnr_retry_count: accept.rnr_retry_count.min(7),
                srq: accept.srq,
                private: Private::new(&accept.private).map_err(|_| libc::EINVAL)?,
                ..ReplyParams::new(Qpn::new(accept.qpn), Psn::new(state.psn.unwrap_or(0)))
            };
            inner.cm.reply(now, conn, &params).map_err(refused)
        })
    }

    /// Refuses a request: `rdma_reject(3)`.
    ///
    /// # Errors
    /// `EINVAL` without one, or with more private data than there is room for.
    pub(crate) fn reject(&self, nic: &Nic, id: &Id, private: &[u8]) -> Result<(), i32> {
        self.run(nic, |inner, now| {
            let state = id.state();
            if let Some(sidr) = state.sidr {
                let params = SidrReplyParams {
                    status: SidrStatus::REJECT,
                    qpn: Qpn::new(0),
                    qkey: Qkey(0),
                    private: private.to_vec(),
                };
                return inner.cm.sidr_reply(now, sidr, &params).map_err(refused);
            }
            let conn = state.conn.ok_or(libc::EINVAL)?;
            inner.cm.reject(now, conn, &RejectParams::consumer(private)).map_err(refused)?;
            inner.conns.remove(&conn);
            Ok(())
        })
    }

    /// Refuses a request that no identifier could be made for.
    pub(crate) fn refuse(&self, nic: &Nic, conn: ConnId) {
        self.run(nic, |inner, now| {
            inner.pending.remove(&conn);
            inner.cm.release(now, conn);
        });
    }

    /// Gives up a connection whose queue pair could not be moved.
    pub(crate) fn give_up(&self, nic: &Nic, id: &Id) {
        self.run(nic, |inner, now| {
            let conn = id.state().conn;
            if let Some(conn) = conn {
                let params = RejectParams {
                    reason: RejectReason::CONSUMER_DEFINED,
                    info: Vec::new(),
                    private: Vec::new(),
                };
                if inner.cm.reject(now, conn, &params).is_err() {
                    inner.cm.release(now, conn);
                }
                inner.conns.remove(&conn);
            }
        });
    }

    /// Tells the peer that the queue pair is ready: `rdma_establish(3)`.
    ///
    /// # Errors
    /// `EINVAL` unless the peer has accepted.
    pub(crate) fn establish(&self, nic: &Nic, id: &Id) -> Result<(), i32> {
        self.run(nic, |inner, now| {
            let conn = id.state().conn.ok_or(libc::EINVAL)?;
            inner.cm.ready(now, conn, &[]).map_err(refused)
        })
    }

    /// Data arrived before the peer's last message: `rdma_notify(3)`.
    ///
    /// # Errors
    /// `EINVAL` without a connection.
    pub(crate) fn communication_established(&self, nic: &Nic, id: &Id) -> Result<(), i32> {
        self.run(nic, |inner, now| {
            let conn = id.state().conn.ok_or(libc::EINVAL)?;
            inner.cm.communication_established(now, conn).map_err(refused)
        })
    }

    /// Ends a connection, or agrees to its end: `rdma_disconnect(3)`.
    ///
    /// # Errors
    /// `EINVAL` unless there is one.
    pub(crate) fn disconnect(&self, nic: &Nic, id: &Id) -> Result<(), i32> {
        self.run(nic, |inner, now| {
            let conn = id.state().conn.ok_or(libc::EINVAL)?;
            inner.cm.disconnect(now, conn, &[]).map_err(refused)
        })
    }

    /// Takes the oldest event of a channel; it counts as delivered.
    pub(crate) fn take(&self, channel: &Channel) -> Option<Queued> {
        // The lock keeps an identifier's destruction, which discards events, from coming between.
        let _order = self.lock();
        channel.pop(|queued| queued.id.unacked.deliver())
    }

    /// Gives a request its identifier; what happened to it meanwhile is queued. `listener` is who was called.
    pub(crate) fn adopt(
        &self,
        id: &Arc<Id>,
        listener: &Id,
        conn: ConnId,
        request: Box<ibex_proto::cm::Request>,
    ) {
        let mut inner = self.lock();
        let called = listener.state().listener.as_ref().map(|(_, held)| held.clone());
        {
            let mut state = id.state();
            let port = request.service.port().map_or(0, |(_, port)| port);
            let peer = request.cma.map_or(SocketAddr::new(request.path.remote.ip(), 0), |cma| cma.source());
            let local = request.cma.map_or(request.path.local.ip(), |cma| cma.dst);
            state.local = Some(SocketAddr::new(local, port));
            state.remote = Some(peer);
            state.conn = Some(conn);
            state.psn = Some(psn().get());
            state.phase = Phase::Connection;
            state.options = Options::inherited(listener);
            state.request = Some(request);
            state.called = called;
        }
        inner.conns.insert(conn, id.clone());
        // Fails if the caller gave up; then that is among the events to come.
        let _ = inner.cm.taken(conn);
        if let Some((_, early)) = inner.pending.remove(&conn) {
            early.into_iter().for_each(|what| push(id, what));
        }
        inner.forget(conn);
    }

    /// The same for a request of a datagram service.
    pub(crate) fn adopt_sidr(
        &self,
        id: &Arc<Id>,
        listener: &Id,
        sidr: SidrId,
        request: &ibex_proto::cm::SidrRequest,
    ) {
        let mut inner = self.lock();
        let mut state = id.state();
        let port = request.service.port().map_or(0, |(_, port)| port);
        let peer = request.cma.map_or(SocketAddr::new(request.remote.ip(), 0), |cma| cma.source());
        state.local = Some(SocketAddr::new(request.cma.map_or(request.local.ip(), |cma| cma.dst), port));
        state.remote = Some(peer);
        state.sidr = Some(sidr);
        state.phase = Phase::Connection;
        state.options = Options::inherited(listener);
        let _ = inner.cm.sidr_taken(sidr);
    }

    /// Moves an identifier to another channel, with the events that wait: `rdma_migrate_id(3)`. Returns the old channel.
    pub(crate) fn migrate(&self, id: &Arc<Id>, to: Arc<Channel>) -> Arc<Channel> {
        let _order = self.lock();
        let from = id.set_channel(to.clone());
        let mut moved = Vec::new();
        from.retain(|queued| {
            let stays = !Arc::ptr_eq(&queued.id, id);
            if !stays {
                moved.push(queued.clone());
            }
            stays
        });
        moved.into_iter().for_each(|queued| to.push(queued));
        from
    }

    /// Ends an identifier: its connection or listener is given up, and events that nobody fetched are discarded. Those
    /// delivered are the caller's to wait for ([`Id::unacked`]).
    pub(crate) fn destroy(&self, nic: &Nic, id: &Arc<Id>) {
        self.run(nic, |inner, now| inner.destroy(now, id));
    }
}

impl Inner {
    fn destroy(&mut self, now: ibex_proto::Nanos, id: &Arc<Id>) {
        let mut state = std::mem::take(&mut *id.state());
        if let Some(conn) = state.conn.take() {
            self.cm.release(now, conn);
            self.conns.remove(&conn);
        }
        if let Some(sidr) = state.sidr.take() {
            self.cm.sidr_release(now, sidr);
            self.sidrs.remove(&sidr);
        }
        if let Some((listener, _)) = state.listener.take() {
            // Listed since it was made.
            let _ = self.cm.unlisten(listener);
            self.listeners.remove(&listener);
            let served = self.services.iter().find(|(_, other)| **other == listener);
            if let Some(service) = served.map(|(&service, _)| service) {
                self.services.remove(&service);
                self.remember(now, service);
            }
        }
        let mut orphans = Vec::new();
        id.channel().retain(|queued| {
            let stays = !Arc::ptr_eq(&queued.id, id);
            match &queued.what {
                What::Request(conn, _) if !stays => orphans.push(*conn),
                What::SidrRequest(sidr, _) if !stays => self.cm.sidr_release(now, *sidr),
                _ => {}
            }
            stays
        });
        for conn in orphans {
            self.pending.remove(&conn);
            self.cm.release(now, conn);
        }
    }
}

impl Options {
    /// What an identifier made for a request has of its listener's.
    fn inherited(listener: &Id) -> Options {
        let options = listener.state().options;
        Options { reuse: false, ..options }
    }
}

/// The port space of a number of `enum rdma_port_space`, if it is one that is served.
pub(crate) fn port_space(number: u32) -> Option<PortSpace> {
    let space = PortSpace(u16::try_from(number).ok()?);
    [PortSpace::TCP, PortSpace::UDP, PortSpace::IB].contains(&space).then_some(space)
}
