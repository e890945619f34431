//! Creation of reliable connected queue pairs.
//!
//! Owns [`RcBuilder`] and [`QpCaps`]: leases on the completion queues (I6), the port and its address, RESET → INIT.
//!
//! # Safety
//! The queue pair is created with live queues of its own context, and keeps them alive.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use ibex_sys::lock::Lock;
use ibex_sys::{self as sys, Errno, convention};
use serde::Serialize;

use super::recv::RecvWr;
use super::state::Init;
use super::submit::SendWr;
use super::{Handle, Poster, QpShared, Queue, QueueError, QueuePair};
use crate::addr::{GidIndex, PortNum, Psn, Qpn};
use crate::attr::{Gid, Mtu};
use crate::cq::{CompletionQueue, Lease};
use crate::error::Error;
use crate::oob::Endpoint;
use crate::pd::ProtectionDomain;
use crate::queue::{Count, Ring};

/// Inline bytes asked for when the program does not say: a cache line, which devices that have inline at all can do.
const DEFAULT_INLINE: u32 = 64;

/// READs and atomics served at once for the peer, unless the device can do fewer; what common devices can do.
const DEFAULT_RD_ATOMIC: u32 = 16;

/// Sizes of a queue pair.
#[doc(alias = "ibv_qp_cap")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct QpCaps {
    /// Requests in the send queue.
    pub max_send_wr: u32,
    /// Requests in the receive queue.
    pub max_recv_wr: u32,
    /// Pieces of memory in a send request.
    pub max_send_sge: u32,
    /// Pieces of memory in a receive request.
    pub max_recv_sge: u32,
    /// Bytes a request can carry inline.
    pub max_inline: u32,
}

/// Options of a reliable connected queue pair. Made by [`ProtectionDomain::create_rc`].
#[derive(Clone, Debug)]
pub struct RcBuilder {
    pd: ProtectionDomain,
    send_cq: CompletionQueue,
    recv_cq: CompletionQueue,
    max_send_wr: u32,
    max_recv_wr: u32,
    max_send_sge: u32,
    max_recv_sge: u32,
    max_inline: Option<u32>,
    port: PortNum,
    gid_index: Option<GidIndex>,
    pkey_index: u16,
}

impl RcBuilder {
    pub(crate) fn new(pd: &ProtectionDomain, cq: &CompletionQueue) -> Self {
        Self {
            pd: pd.clone(),
            send_cq: cq.clone(),
            recv_cq: cq.clone(),
            max_send_wr: 64,
            max_recv_wr: 64,
            max_send_sge: 1,
            max_recv_sge: 1,
            max_inline: None,
            port: PortNum::FIRST,
            gid_index: None,
            pkey_index: 0,
        }
    }

    /// Another completion queue for receives; the same as for sends unless set.
    #[must_use]
    pub fn recv_cq(mut self, cq: &CompletionQueue) -> Self {
        self.recv_cq = cq.clone();
        self
    }

    /// Requests in the send queue, 1 or more; 64 unless set. The completion queue needs room for as many.
    #[must_use]
    pub fn max_send_wr(mut self, requests: u32) -> Self {
        self.max_send_wr = requests;
        self
    }

    /// Requests in the receive queue, 1 or more; 64 unless set. The completion queue needs room for as many.
    #[must_use]
    pub fn max_recv_wr(mut self, requests: u32) -> Self {
        self.max_recv_wr = requests;
        self
    }

    /// Pieces of memory in a send request; 1 unless set. More make every request larger in the device.
    #[must_use]
    pub fn max_send_sge(mut self, pieces: u32) -> Self {
        self.max_send_sge = pieces;
        self
    }

    /// Pieces of memory in a receive request; 1 unless set.
    #[must_use]
    pub fn max_recv_sge(mut self, pieces: u32) -> Self {
        self.max_recv_sge = pieces;
        self
    }

    /// Bytes that a request can carry inline; 64 unless set, or none if the device has no inline data. More make every
    /// request larger in the device.
    #[must_use]
    pub fn max_inline(mut self, bytes: u32) -> Self {
        self.max_inline = Some(bytes);
        self
    }

    /// The port; 1 unless set.
    #[must_use]
    pub fn port(mut self, port: PortNum) -> Self {
        self.port = port;
        self
    }

    /// The place in the GID table of the address to send from; chosen by [`Context::best_gid`](crate::Context::best_gid)
    /// unless set.
    #[must_use]
    pub fn gid_index(mut self, index: GidIndex) -> Self {
        self.gid_index = Some(index);
        self
    }

    /// The place in the partition key table; 0 unless set.
    #[must_use]
    pub fn pkey_index(mut self, index: u16) -> Self {
        self.pkey_index = index;
        self
    }

    /// Creates it in the state INIT, where receives can be posted.
    ///
    /// # Errors
    /// [`QueueError::NoRoom`] if a completion queue is too small, [`QueueError::CreateQp`] if the device refuses, and
    /// errors of asking the device for its port and address.
    #[doc(alias = "ibv_create_qp")]
    pub fn build(self) -> Result<QueuePair<Init>, Error> {
        self.check()?;
        let (endpoint, sgid_index) = self.address()?;
        // SAFETY: an open context; its operations do not change.
        let ops = unsafe { (*self.pd.context().as_raw()).ops };
        let (Some(post_send), Some(post_recv)) = (ops.post_send, ops.post_recv) else {
            return Err(self.refused(Errno::EOPNOTSUPP).into());
        };
        let leases = self.lease()?;
        let (raw, caps) = match self.create() {
            Ok(created) => created,
            Err(error) => {
                self.unlease(&leases);
                return Err(error.into());
            }
        };
        let (send_lease, recv_lease) = leases;
        // SAFETY: a queue pair just created; its number does not change.
        let qpn = Qpn::new(unsafe { (*raw.as_ptr()).qp_num });
        let send = queue(&self.send_cq, send_lease, self.max_send_wr, SendWr::new(caps.max_send_sge));
        let recv = queue(&self.recv_cq, recv_lease, self.max_recv_wr, RecvWr::new(caps.max_recv_sge));
        let shared = QpShared {
            raw,
            post_send,
            post_recv,
            qpn,
            caps,
            send,
            recv,
            landing: OnceLock::new(),
            destroyed: AtomicBool::new(false),
            port: self.port,
            sgid_index,
            endpoint: Endpoint { qpn, ..endpoint },
            pd: self.pd.clone(),
        };
        let qp = QueuePair { handle: Handle(Arc::new(shared)), peer: None, state: PhantomData };
        self.to_init(&qp)?;
        Ok(qp)
    }

    fn check(&self) -> Result<(), QueueError> {
        if self.max_send_wr == 0 || self.max_recv_wr == 0 {
            return Err(QueueError::NoWork);
        }
        for cq in [&self.send_cq, &self.recv_cq] {
            let (cq, pd) = (cq.context(), self.pd.context());
            if cq.as_raw() != pd.as_raw() {
                let name = |context: &crate::Context| context.device().name().to_owned();
                return Err(QueueError::OtherDevice { cq: name(cq), pd: name(pd) });
            }
        }
        Ok(())
    }

    /// What the peer will have to know, but for the number; and the place of the address in the table.
    fn address(&self) -> Result<(Endpoint, GidIndex), Error> {
        let context = self.pd.context();
        let attr = context.query_device()?;
        let port = context.query_port(self.port)?;
        let entry = match self.gid_index {
            Some(index) => context.gid_entry(self.port, index)?,
            None if port.is_ethernet() => Some(context.best_gid(self.port)?),
            None => context.best_gid(self.port).ok(),
        };
        let (gid, index) = match (entry, self.gid_index) {
            (Some(entry), _) => (entry.gid, entry.index),
            (None, Some(_)) if port.is_ethernet() => {
                let device = context.device().name().to_owned();
                return Err(crate::device::DeviceError::NoGid { device, port: self.port }.into());
            }
            (None, index) => (Gid::ZERO, index.unwrap_or_default()),
        };
        let rd_atomic = attr.max_qp_rd_atom.min(DEFAULT_RD_ATOMIC) as u8;
        let mtu = port.active_mtu.unwrap_or(Mtu::B1024);
        Ok((Endpoint::new(Qpn::default(), Psn::random(), gid, port.lid, mtu, rd_atomic), index))
    }

    /// Room in the completion queues (I6).
    fn lease(&self) -> Result<(Lease, Lease), QueueError> {
        let same = Arc::ptr_eq(&self.send_cq.inner, &self.recv_cq.inner);
        let wanted = u64::from(self.max_send_wr) + u64::from(self.max_recv_wr);
        let lease = |cq: &CompletionQueue, entries: u32, needs| {
            cq.inner.lease(entries).map_err(|no| {
                let (needs, wanted) =
                    if same { ("max_send_wr + max_recv_wr", wanted) } else { (needs, u64::from(entries)) };
                let remedy = u64::from(no.capacity - no.free) + wanted;
                (no.free, needs, wanted, remedy)
            })
        };
        let no_room = |(room, needs, wanted, remedy): (u32, &'static str, u64, u64)| QueueError::NoRoom {
            room,
            needs,
            wanted: u32::try_from(wanted).unwrap_or(u32::MAX),
            remedy,
        };
        let send = lease(&self.send_cq, self.max_send_wr, "max_send_wr").map_err(no_room)?;
        match lease(&self.recv_cq, self.max_recv_wr, "max_recv_wr") {
            Ok(recv) => Ok((send, recv)),
            Err((room, needs, wanted, remedy)) => {
                self.send_cq.inner.unlease(&send);
                // What was free before the lease for sends was taken and given back.
                let given = if same { self.max_send_wr } else { 0 };
                Err(no_room((room + given, needs, wanted, remedy - u64::from(given))))
            }
        }
    }

    fn unlease(&self, (send, recv): &(Lease, Lease)) {
        self.send_cq.inner.unlease(send);
        self.recv_cq.inner.unlease(recv);
    }

    /// Asks the device; without inline data if it has none and the program did not ask for any.
    fn create(&self) -> Result<(std::ptr::NonNull<sys::ibv_qp>, QpCaps), QueueError> {
        let first = self.create_with(self.max_inline.unwrap_or(DEFAULT_INLINE));
        match (first, self.max_inline) {
            (Err(_), None) => self.create_with(0),
            (first, _) => first,
        }
        .map_err(|source| self.refused(source))
    }

    /// The device's refusal.
    fn refused(&self, source: Errno) -> QueueError {
        let caps = format!(
            "max_send_wr {}, max_recv_wr {}, max_send_sge {}, max_recv_sge {}, max_inline {}",
            self.max_send_wr,
            self.max_recv_wr,
            self.max_send_sge,
            self.max_recv_sge,
            self.max_inline.unwrap_or(0)
        );
        QueueError::CreateQp { caps, source }
    }

    fn create_with(&self, max_inline_data: u32) -> Result<(std::ptr::NonNull<sys::ibv_qp>, QpCaps), Errno> {
        let cap = sys::ibv_qp_cap {
            max_send_wr: self.max_send_wr,
            max_recv_wr: self.max_recv_wr,
            max_send_sge: self.max_send_sge,
            max_recv_sge: self.max_recv_sge,
            max_inline_data,
        };
        let mut attr = sys::ibv_qp_init_attr {
            send_cq: self.send_cq.as_raw(),
            recv_cq: self.recv_cq.as_raw(),
            cap,
            qp_type: sys::IBV_QPT_RC,
            ..Default::default()
        };
        // SAFETY: a live domain, live queues of the same context, valid attributes.
        let raw = unsafe { (self.pd.context().verbs().create_qp)(self.pd.as_raw(), &raw mut attr) };
        let raw = convention::pointer(raw)?;
        let granted = attr.cap;
        let caps = QpCaps {
            max_send_wr: self.max_send_wr,
            max_recv_wr: self.max_recv_wr,
            max_send_sge: granted.max_send_sge.max(self.max_send_sge),
            max_recv_sge: granted.max_recv_sge.max(self.max_recv_sge),
            max_inline: granted.max_inline_data,
        };
        Ok((raw, caps))
    }

    /// RESET → INIT. What peers may do is decided by the memory exposed to them, so the queue pair allows all.
    fn to_init(&self, qp: &QueuePair<Init>) -> Result<(), Error> {
        let access =
            sys::IBV_ACCESS_REMOTE_READ | sys::IBV_ACCESS_REMOTE_WRITE | sys::IBV_ACCESS_REMOTE_ATOMIC;
        let mut attr = sys::ibv_qp_attr {
            qp_state: sys::IBV_QPS_INIT,
            pkey_index: self.pkey_index,
            port_num: self.port.0,
            qp_access_flags: access.0,
            ..Default::default()
        };
        let mask = sys::IBV_QP_STATE | sys::IBV_QP_PKEY_INDEX | sys::IBV_QP_PORT | sys::IBV_QP_ACCESS_FLAGS;
        qp.shared().modify(&mut attr, mask)?;
        Ok(())
    }
}

/// One queue, bound to its lease.
fn queue<W>(cq: &CompletionQueue, lease: Lease, capacity: u32, wr: W) -> Queue<W> {
    let ring = Arc::new(Ring::new(capacity, lease.tag));
    cq.inner.attach(&lease, &ring);
    Queue { ring, poster: Lock::new(Poster { count: Count::new(), wr }), cq: cq.clone(), lease }
}
