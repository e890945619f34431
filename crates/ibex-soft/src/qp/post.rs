//! Posting: the checks a provider makes at once, and the doorbell.
//!
//! Owns [`Poster`], which holds the locks for the length of one `ibv_post_send(3)` or `ibv_post_recv(3)` so that a list
//! of requests costs them once. What can only be found out while a request is carried out (keys, bounds, the peer's
//! rights) comes as its completion.

use std::net::IpAddr;
use std::sync::RwLockReadGuard;

use ibex_proto::{PostError, QpState, SendOp, SendWqe};
use ibex_sys::ibv_sge;
use ibex_sys::lock::Guard;

use super::direct::Ends;
use super::express::Message;
use super::queue::Payload;
use super::{Inner, Qp, hands};
use crate::device::MAX_MESSAGE;
use crate::mr::{MrTable, PdNumber};
use crate::net::Peer;
use crate::nic::{Nic, QpTable};

/// A send request, its payload still in the program's hands.
#[derive(Clone, Copy)]
pub(crate) struct SendRequest<'a> {
    pub(crate) wr_id: u64,
    /// Of a datagram, the poster fills in the address.
    pub(crate) op: SendOp,
    /// Where a datagram goes; nothing on connections.
    pub(crate) to: Option<IpAddr>,
    pub(crate) payload: Payload<'a>,
    pub(crate) signaled: bool,
    pub(crate) fence: bool,
    pub(crate) solicited: bool,
}

/// The tables that posting to one queue pair needs, guarded for the length of the call.
pub(crate) struct Tables<'a> {
    mrs: RwLockReadGuard<'a, MrTable>,
    /// Only for a queue pair that is connected to one of this process.
    qps: Option<RwLockReadGuard<'a, QpTable>>,
    /// Whether the queue pair is being fetched.
    far: bool,
}

/// The right to post send requests to one queue pair; those that are not carried out at once start when it is
/// [finished](Poster::finish).
pub(crate) struct Poster<'a> {
    qp: &'a Qp,
    nic: &'a Nic,
    mrs: &'a MrTable,
    ends: Ends<'a>,
    /// Whether there is one request only, which may go by express.
    alone: bool,
    /// Whether the transport was given a request.
    given: bool,
}

/// The right to post receive requests to one queue pair.
pub(crate) struct RecvPoster<'a> {
    qp: &'a Qp,
    nic: &'a Nic,
    inner: Guard<'a, Inner>,
}

impl Qp {
    /// Guards the tables that posting needs.
    #[inline]
    pub(crate) fn tables<'a>(&self, nic: &'a Nic) -> Tables<'a> {
        let far = nic.fetch.approach(self);
        let mrs = nic.regions();
        Tables { mrs, qps: self.is_mated().then(|| nic.queue_pairs()), far }
    }

    /// Takes the locks that posting needs. A request that comes `alone` need not wait for others to travel with: if it is a
    /// short message it is tried by express, which the caller has not done.
    #[inline]
    pub(crate) fn poster<'a>(&'a self, nic: &'a Nic, tables: &'a Tables<'_>, alone: bool) -> Poster<'a> {
        let ends = Ends::lock(self, tables.qps.as_deref());
        if tables.far {
            ends.own.prefetch();
        }
        Poster { qp: self, nic, mrs: &tables.mrs, ends, alone, given: false }
    }

    /// Takes the lock that posting of receive requests needs.
    #[inline]
    pub(crate) fn recv_poster<'a>(&'a self, nic: &'a Nic) -> RecvPoster<'a> {
        nic.fetch.approach(self);
        RecvPoster { qp: self, nic, inner: self.lock() }
    }
}

impl Poster<'_> {
    /// For datagrams, the domain that addresses have to be of; `None` on connections.
    pub(crate) fn datagrams(&self) -> Option<PdNumber> {
        self.qp.is_datagram().then_some(self.qp.pd)
    }

    /// Whether so many requests can be posted now, which then only their own limits keep from being posted.
    ///
    /// # Errors
    /// An errno: `EINVAL` in a state that takes none, `ENOMEM` if the queue has not the room.
    pub(crate) fn admit(&self, count: usize) -> Result<(), i32> {
        let inner = &*self.ends.own;
        if matches!(inner.proto.state(), QpState::Reset | QpState::Init | QpState::Rtr) {
            return Err(libc::EINVAL);
        }
        if inner.send.room() < count { Err(libc::ENOMEM) } else { Ok(()) }
    }

    /// Adds a request to the send queue.
    ///
    /// # Errors
    /// An errno: `EINVAL` in a state that takes none, or for a payload beyond the queue pair's limits; `ENOMEM` if the
    /// queue is full.
    pub(crate) fn send(&mut self, request: &SendRequest<'_>) -> Result<(), i32> {
        let inner = &mut *self.ends.own;
        let len = match request.payload {
            Payload::Gather(list) if list.len() > inner.send.max_sge() => return Err(libc::EINVAL),
            Payload::Gather(list) => hands::capacity(list),
            Payload::Inline(len, _) if len as usize > inner.send.max_inline() => return Err(libc::EINVAL),
            Payload::Inline(len, _) => len,
            Payload::Bind(_) => 0,
        };
        if len > MAX_MESSAGE {
            return Err(libc::EINVAL);
        }
        let cookie = match inner.send.vacant() {
            Some(cookie) => cookie,
            // In these states the reason is the state, whatever room there is.
            None if matches!(inner.proto.state(), QpState::Reset | QpState::Init | QpState::Rtr) => {
                return Err(libc::EINVAL);
            }
            None => return Err(libc::ENOMEM),
        };
        if let Some(mate) = &mut self.ends.mate
            && self.qp.direct(self.nic, self.mrs, inner, mate, request, len)
        {
            return Ok(());
        }
        if self.ends.mate.is_none() && self.qp.one_sided(self.nic, self.mrs, inner, request, len) {
            return Ok(());
        }
        if self.alone
            && self.ends.mate.is_none()
            && let Some(message) = Message::of(request)
            && self.qp.express(self.nic, Some(self.mrs), inner, &message, cookie, len)
        {
            return Ok(());
        }
        let mut op = request.op;
        if let (SendOp::Datagram { remote_qpn, address, .. }, Some(to)) = (&mut op, request.to) {
            // The address stands beside the request: the program may destroy its handle when the datagram has been sent.
            *address = cookie;
            inner.send.direct(cookie, Peer { address: to, qpn: remote_qpn.get() });
        }
        let wqe = SendWqe {
            cookie,
            op,
            len,
            signaled: request.signaled || self.qp.sq_sig_all,
            fence: request.fence,
            solicited: request.solicited,
        };
        inner.proto.post_send(wqe).map_err(|error| match error {
            PostError::Full => libc::ENOMEM,
            PostError::State(_) | PostError::Operation { .. } | PostError::TooLong { .. } => libc::EINVAL,
        })?;
        inner.send.push(request.wr_id, request.payload);
        self.given = true;
        Ok(())
    }

    /// Rings the doorbell: carries out what can be done now.
    #[inline]
    pub(crate) fn finish(mut self) {
        if !self.given {
            return;
        }
        let inner = &mut *self.ends.own;
        if let Some(mut mate) = self.ends.mate.take() {
            self.qp.direct_posted(self.nic, self.mrs, inner, &mut mate);
        }
        self.qp.drive(self.nic, self.mrs, inner);
    }
}

impl RecvPoster<'_> {
    /// Adds a request to the receive queue.
    ///
    /// # Errors
    /// An errno: `EINVAL` in RESET, with a shared receive queue, or for a list beyond the limit; `ENOMEM` if the queue is
    /// full.
    #[inline]
    pub(crate) fn recv(&mut self, wr_id: u64, list: &[ibv_sge]) -> Result<(), i32> {
        if self.inner.proto.state() == QpState::Reset {
            return Err(libc::EINVAL);
        }
        self.inner.recv.push(wr_id, list)
    }

    /// Ends posting of receive requests, which start nothing; in ERR they are flushed.
    #[inline]
    pub(crate) fn finish(self) {
        if self.inner.proto.state() == QpState::Err {
            // The table comes before the lock.
            drop(self.inner);
            let mrs = self.nic.regions();
            self.qp.drive(self.nic, &mrs, &mut self.qp.lock());
        }
    }
}
