//! Queue pairs of the reliable connected service.
//!
//! Owns [`QueuePair`] and its life: created by `builder`, connected by `connect`, posting by `post` and `batch`, destroyed
//! here. What a refused transition lacks is `transition`'s knowledge. See ibv_create_qp(3), ibv_modify_qp(3).
//!
//! # Safety
//! The `ibv_qp` is valid until it is destroyed by `QpShared::destroy`, once; nothing is posted afterwards, since posting
//! needs the [`QueuePair`] that destruction consumes.
#![allow(unsafe_code)]

mod batch;
mod builder;
mod connect;
mod error;
mod landing;
mod post;
mod recv;
mod state;
mod submit;
pub mod transition;

use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use ibex_sys::{self as sys, convention};

pub use batch::{Batch, BatchError};
pub use builder::{QpCaps, RcBuilder};
pub use connect::RcOptions;
pub use error::{ModifyError, PostError, QueueError};
use ibex_sys::lock::Lock;
pub use post::{Post, Posted, Quiet};
pub use state::{Init, QpState, Rtr, Rts, State};
pub use transition::Finding;

use crate::addr::{GidIndex, PortNum, Qpn};
use crate::context::Context;
use crate::cq::{CompletionQueue, CqInner, Lease};
use crate::mem::{MemoryError, RemoteHandle, RemoteRegion};
use crate::oob::Endpoint;
use crate::op::Side;
use crate::pd::ProtectionDomain;
use crate::queue::{Count, Ring};
use landing::Landing;

/// What the poster of a queue needs, under the queue's lock.
pub(crate) struct Poster<W> {
    count: Count,
    /// The work request to fill in, and its pieces.
    wr: W,
}

/// One of the two queues of a queue pair.
pub(crate) struct Queue<W> {
    ring: Arc<Ring>,
    poster: Lock<Poster<W>>,
    cq: CompletionQueue,
    lease: Lease,
}

/// How a device is posted to.
type PostFn<W> = unsafe extern "C" fn(*mut sys::ibv_qp, *mut W, *mut *mut W) -> i32;

/// What operations share with their queue pair, and what outlives it if one of them is kept.
pub(crate) struct QpShared {
    raw: NonNull<sys::ibv_qp>,
    /// The device's own functions, which every post through `verbs.h` would look up again.
    post_send: PostFn<sys::ibv_send_wr>,
    post_recv: PostFn<sys::ibv_recv_wr>,
    qpn: Qpn,
    caps: QpCaps,
    send: Queue<submit::SendWr>,
    recv: Queue<recv::RecvWr>,
    landing: OnceLock<Landing>,
    /// Set by whoever destroys it, first.
    destroyed: AtomicBool,
    port: PortNum,
    sgid_index: GidIndex,
    endpoint: Endpoint,
    pd: ProtectionDomain,
}

// SAFETY: libibverbs' objects may be used from any thread; posting takes a lock.
unsafe impl Send for QpShared {}
// SAFETY: as above.
unsafe impl Sync for QpShared {}

impl QpShared {
    #[inline]
    pub(crate) fn ring(&self, side: Side) -> &Ring {
        match side {
            Side::Send => &self.send.ring,
            Side::Recv => &self.recv.ring,
        }
    }

    #[inline]
    pub(crate) fn cq(&self, side: Side) -> &CqInner {
        match side {
            Side::Send => &self.send.cq.inner,
            Side::Recv => &self.recv.cq.inner,
        }
    }

    pub(crate) fn qpn(&self) -> Qpn {
        self.qpn
    }

    fn context(&self) -> &Context {
        self.pd.context()
    }

    /// Requests posted to a queue after `seq`.
    pub(crate) fn posted_after(&self, side: Side, seq: u32) -> u32 {
        match side {
            Side::Send => self.send.poster.lock().count.posted_after(seq),
            Side::Recv => self.recv.poster.lock().count.posted_after(seq),
        }
    }

    /// The state the library last set.
    fn last_state(&self) -> QpState {
        // SAFETY: a live queue pair.
        QpState(unsafe { (*self.raw.as_ptr()).state }.0)
    }

    /// A transition, explained if refused.
    fn modify(&self, attr: &mut sys::ibv_qp_attr, mask: sys::ibv_qp_attr_mask) -> Result<(), ModifyError> {
        let from = self.last_state();
        let modify_qp = self.context().verbs().modify_qp;
        // SAFETY: a live queue pair and valid attributes; the mask is a small bit set.
        let code = unsafe { modify_qp(self.raw.as_ptr(), attr, mask.0.cast_signed()) };
        convention::status(code).map_err(|source| {
            let to = QpState(attr.qp_state.0);
            let port = self.context().query_port(self.port).ok();
            let mut findings = transition::check(from, to, mask);
            findings.extend(transition::check_values(attr, mask, port.as_ref()));
            ModifyError { from, to, findings, source }
        })
    }

    fn to_err(&self) -> Result<(), ModifyError> {
        let mut attr = sys::ibv_qp_attr { qp_state: sys::IBV_QPS_ERR, ..Default::default() };
        self.modify(&mut attr, sys::IBV_QP_STATE)
    }

    /// Requests in flight in both queues.
    fn in_flight(&self) -> u32 {
        self.send.ring.count_in_flight() + self.recv.ring.count_in_flight()
    }

    /// Destroys the queue pair (F2) and gives everything in flight back. Only the first call does something.
    fn destroy(&self) -> Result<(), QueueError> {
        if self.destroyed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        // SAFETY: live, and destroyed once. Nobody posts: that takes the `QueuePair` whose end this is.
        let code = unsafe { (self.context().verbs().destroy_qp)(self.raw.as_ptr()) };
        convention::status(code).map_err(|source| {
            crate::stats::leaked_object();
            QueueError::Destroy { what: "queue pair", source }
        })?;
        // SAFETY: the queue pair is destroyed (F2).
        unsafe { self.send.cq.inner.retire(&self.send.lease, &self.send.ring) };
        // SAFETY: as above.
        unsafe { self.recv.cq.inner.retire(&self.recv.lease, &self.recv.ring) };
        Ok(())
    }
}

/// The one handle of a queue pair; its end is the queue pair's.
struct Handle(Arc<QpShared>);

impl Drop for Handle {
    fn drop(&mut self) {
        // In the error state the device stops using memory; destruction is the fence, whatever this answers.
        if !self.0.destroyed.load(Ordering::Acquire) {
            let _ = self.0.to_err();
        }
        // A failure is counted (`leaks()`), and the memory in flight is leaked.
        let _ = self.0.destroy();
    }
}

/// A queue pair of the reliable connected service, in a state known to the compiler: only a connected one,
/// `QueuePair<Rts>`, can send.
///
/// ```text
/// RcBuilder::build ──► QueuePair<Init> ──connect──────────────► QueuePair<Rts>
///                              └─to_rtr─► QueuePair<Rtr> ─to_rts────┘
/// ```
///
/// It may be used by many threads at once. Dropping it destroys it: what is in flight ends, and the memory is given back
/// when the device has confirmed. [`close`](Self::close) does the same in good order.
///
/// ```
/// # use ibex::prelude::*;
/// # fn main() -> ibex::Result<()> {
/// # let ctx = Provider::Soft.devices()?[0].open()?;
/// let pd = ctx.alloc_pd()?;
/// let cq = ctx.create_cq(256)?;
/// let pool = pd.pool().block(4 * KIB).blocks(16).build()?;
///
/// let left = pd.create_rc(&cq).max_send_wr(32).max_recv_wr(32).build()?;
/// let right = pd.create_rc(&cq).max_send_wr(32).max_recv_wr(32).build()?;
/// let (l, r) = (left.endpoint(), right.endpoint()); // over a network: `oob::exchange`
/// let (left, right) = (left.connect(&r)?, right.connect(&l)?);
///
/// let incoming = right.recv(pool.take()?)?;
/// left.send(pool.take_from(b"hello")?)?.wait()?;
/// let (message, _) = incoming.wait()?;
/// assert_eq!(&message[..], b"hello");
/// # Ok(())
/// # }
/// ```
///
/// One that is not connected has no `send`:
///
/// ```compile_fail,E0599
/// # use ibex::prelude::*;
/// # fn f(qp: ibex::QueuePair<ibex::state::Init>, buf: Buf) {
/// let _ = qp.send(buf);
/// # }
/// ```
#[doc(alias = "ibv_qp")]
pub struct QueuePair<S: State = Rts> {
    handle: Handle,
    /// Who is at the other end, once that is known.
    peer: Option<Endpoint>,
    state: PhantomData<S>,
}

/// How long [`QueuePair::close`] waits for flushed requests: far longer than any device takes.
const CLOSE: Duration = Duration::from_secs(1);

impl<S: State> QueuePair<S> {
    pub(crate) fn shared(&self) -> &Arc<QpShared> {
        &self.handle.0
    }

    /// The same queue pair, known to be in another state.
    fn into_state<T: State>(self, peer: Option<Endpoint>) -> QueuePair<T> {
        QueuePair { handle: self.handle, peer, state: PhantomData }
    }

    /// What a peer must know to connect to it.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        self.shared().endpoint
    }

    /// Who is at the other end, once it is ready to receive.
    #[must_use]
    pub fn peer(&self) -> Option<&Endpoint> {
        self.peer.as_ref()
    }

    /// Its number.
    #[must_use]
    pub fn qpn(&self) -> Qpn {
        self.shared().qpn
    }

    /// The sizes the device granted; queues hold as many requests as were asked for.
    #[must_use]
    pub fn caps(&self) -> QpCaps {
        self.shared().caps
    }

    /// The port it uses.
    #[must_use]
    pub fn port(&self) -> PortNum {
        self.shared().port
    }

    /// The place in the GID table of the address it sends from.
    #[must_use]
    pub fn gid_index(&self) -> GidIndex {
        self.shared().sgid_index
    }

    /// The domain it was made in.
    #[must_use]
    pub fn pd(&self) -> &ProtectionDomain {
        &self.shared().pd
    }

    /// The state the device says it is in: [`QpState::ERR`] after a failure.
    ///
    /// # Errors
    /// [`QueueError::Poll`] if the device can no longer be asked.
    #[doc(alias = "ibv_query_qp")]
    pub fn query_state(&self) -> Result<QpState, QueueError> {
        let mut attr = sys::ibv_qp_attr::default();
        let mut init = sys::ibv_qp_init_attr::default();
        let query_qp = self.shared().context().verbs().query_qp;
        let mask = sys::IBV_QP_STATE.0.cast_signed();
        // SAFETY: a live queue pair and valid places for the answer.
        let code = unsafe { query_qp(self.as_raw(), &raw mut attr, mask, &raw mut init) };
        convention::status(code).map_err(|source| QueueError::Poll { source })?;
        Ok(QpState(attr.qp_state.0))
    }

    /// Moves it to the error state: everything in flight ends as flushed, and everything posted from now on.
    ///
    /// # Errors
    /// [`ModifyError`] if the device refuses.
    pub fn to_err(&self) -> Result<(), ModifyError> {
        self.shared().to_err()
    }

    /// Makes a peer's memory usable in operations, checking its handle.
    ///
    /// # Errors
    /// [`MemoryError::BadHandle`] if it names an impossible range.
    pub fn bind(&self, handle: RemoteHandle) -> Result<RemoteRegion, MemoryError> {
        RemoteRegion::new(handle)
    }

    /// The C object, valid while this exists.
    #[must_use]
    pub fn as_raw(&self) -> *mut sys::ibv_qp {
        self.shared().raw.as_ptr()
    }

    /// Ends it in good order: moves it to the error state, waits (at most a second) until everything in flight has been
    /// flushed and so given back, and destroys it.
    ///
    /// # Errors
    /// [`QueueError::Destroy`] if the device refuses; the queue pair and the memory of what was in flight are leaked then,
    /// and counted in [`leaks`](crate::leaks).
    pub fn close(self) -> Result<(), QueueError> {
        let shared = self.shared();
        let deadline = Instant::now() + CLOSE;
        if shared.to_err().is_ok() {
            // No event is waited for: devices flush at once.
            while shared.in_flight() > 0 && Instant::now() < deadline {
                let reaped = shared.cq(Side::Send).reap().and_then(|_| shared.cq(Side::Recv).reap());
                if reaped.is_err() {
                    break;
                }
                std::thread::yield_now();
            }
        }
        shared.destroy()
    }
}

impl<S: State> fmt::Debug for QueuePair<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueuePair")
            .field("qpn", &self.qpn())
            .field("state", &S::STATE)
            .field("peer", &self.peer.map(|peer| peer.qpn))
            .finish_non_exhaustive()
    }
}
