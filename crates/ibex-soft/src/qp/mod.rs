//! Queue pairs: attributes, states, queues, around the transport's state machine.
//!
//! Owns what `ibv_modify_qp(3)` and `ibv_query_qp(3)` change and show, posting, and the error states as the program sees
//! them, for RC, UC and UD. Does not own the protocol (`ibex-proto`), nor packets on their way ([`crate::net`]), nor when
//! a queue pair is driven ([`crate::nic`]), nor requests that wait in a shared receive queue ([`crate::srq`]).
//!
//! | file | owns |
//! |---|---|
//! | `transition` | the table of state transitions |
//! | `queue` | slots of posted requests |
//! | `hands` | scatter/gather, keys: what the transport reaches through |
//! | `post` | posting |
//! | `direct` | operations between two queue pairs of one process |
//! | `far` | one-sided operations on another process's memory |
//! | `express` | short messages to and from devices like this one |
//! | `drive` | turning the transport's output into packets, completions, events, timers |
//!
//! Locks, always in this order: table of regions (read) → table of queue pairs (read) → queue pair → shared receive
//! queue → completion queue → event queue. Nothing is called back into the program under any of them.

mod direct;
mod drive;
mod express;
mod far;
mod hands;
mod post;
mod queue;
mod transition;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use ibex_proto::{
    InitAttr, Nanos, Qp as Transport, QpState, QpType, RcCaps, RemoteAccess, RtrAttr, RtsAttr, Tuning,
    ack_timeout,
};
use ibex_sys::lock::{Guard, Lock};
use ibex_sys::{
    IBV_QP_ACCESS_FLAGS, IBV_QP_AV, IBV_QP_EN_SQD_ASYNC_NOTIFY, IBV_QP_MAX_DEST_RD_ATOMIC,
    IBV_QP_MIN_RNR_TIMER, IBV_QP_QKEY, IBV_QP_STATE, IBV_QPS_ERR, IBV_QPS_INIT, IBV_QPS_RESET, IBV_QPS_RTR,
    IBV_QPS_RTS, IBV_QPS_SQD, IBV_QPS_SQE, IBV_QPT_UC, IBV_QPT_UD, ibv_qp_attr, ibv_qp_attr_mask, ibv_qp_cap,
    ibv_qp_state, ibv_qp_type,
};
use ibex_wire::{Mtu, Pkey, Psn, Qkey, Qpn};

use crate::cq::Cq;
use crate::device::{AsyncEvent, AsyncQueue, Limits};
use crate::event::Unacked;
use crate::memory;
use crate::mr::{MrTable, PdNumber, access};
use crate::net::{Line, Peer};
use crate::nic::{LATE, Nic, Timer};
use crate::srq::Srq;

pub(crate) use express::{Message, Taken};
pub(crate) use hands::capacity;
pub(crate) use post::{Poster, SendRequest};
pub(crate) use queue::{MAX_INLINE, MAX_SGE, MAX_WR, Payload, RecvQueue, SendQueue};
pub(crate) use transition::{Limits as TransitionLimits, Refusal};

/// Messages in a row without a completion that a device like this one is not asked to acknowledge: most of what
/// acknowledging costs is saved, and a lost one is noticed by the next that asks.
const SPARSE_ACKS: u32 = 16;

/// The least timeout that a look that comes late by [`LATE`] does little to. Probes come as late; over shared memory nothing is
/// lost that they could find.
const PATIENT: Nanos = 4 * LATE;

/// What a queue pair is made of.
pub(crate) struct Parts {
    /// Its number.
    pub(crate) num: u32,
    /// RC, UC or UD.
    pub(crate) service: ibv_qp_type,
    /// The device's address.
    pub(crate) own: IpAddr,
    /// The address of the program's `ibv_qp`, as asynchronous events name it.
    pub(crate) name: usize,
    /// Its protection domain.
    pub(crate) pd: PdNumber,
    /// Where its asynchronous events go.
    pub(crate) events: Arc<AsyncQueue>,
    /// Where its completions go.
    pub(crate) send_cq: Arc<Cq>,
    /// Where its receive completions go.
    pub(crate) recv_cq: Arc<Cq>,
    /// Where its receive requests come from, if not from a queue of its own.
    pub(crate) srq: Option<Arc<Srq>>,
    /// Sizes; already checked against the device's limits.
    pub(crate) cap: ibv_qp_cap,
    /// Every send request gives a completion.
    pub(crate) sq_sig_all: bool,
    /// Choices of the transport.
    pub(crate) tuning: Tuning,
    /// Where its deadline is told.
    pub(crate) timer: Timer,
}

/// A queue pair.
pub(crate) struct Qp {
    pub(crate) num: u32,
    service: ibv_qp_type,
    own: IpAddr,
    pub(crate) name: usize,
    pub(crate) pd: PdNumber,
    pub(crate) sq_sig_all: bool,
    events: Arc<AsyncQueue>,
    pub(crate) send_cq: Arc<Cq>,
    pub(crate) recv_cq: Arc<Cq>,
    /// Asynchronous events delivered and not acknowledged.
    pub(crate) async_events: Unacked,
    /// Where its deadline is told, see [`Inner::timer`].
    pub(crate) timer: Timer,
    /// Whether a round left it owing an acknowledgement that nobody has sent since, as far as can be told without the lock.
    /// Set and cleared with it held.
    pub(crate) owing: AtomicBool,
    /// Number of the queue pair of this process that it is connected to, or 0: see [`direct`].
    mate: AtomicU32,
    inner: Lock<Inner>,
}

/// What changes in a queue pair.
pub(crate) struct Inner {
    /// Apart: not needed to carry out requests.
    attr: Box<ibv_qp_attr>,
    proto: Transport,
    send: SendQueue,
    recv: RecvQueue,
    /// In ERR: the program knows that no more requests of the shared receive queue will be taken.
    last_wqe_told: bool,
    /// In SQD: requests begun have not finished yet.
    draining: bool,
    peer: Option<Peer>,
    /// Kept for the packets to its peer, if they go by UDP to a device known to be like this one.
    line: Option<Arc<Line>>,
    /// Which lines there were when it was looked for, see [`Wire::line_changes`](crate::net::Wire::line_changes); `None` before.
    line_looked: Option<u32>,
    /// What the transport had repeated when a line to another address was found, or doubted.
    repeats: u64,
    /// When its peer may be asked again what it is.
    ask_at: Nanos,
    /// The memory of its peer, if that is another process of this host.
    far: far::Far,
    /// The link to it.
    lane: express::Lane,
    /// Packets taken in since it was driven.
    packets: u32,
    /// Whether its timeout is so long that a timer may come a little later.
    patient: bool,
    /// Whether the queue pair is on the list of those to drive at the end of a receive round.
    pub(crate) dirty: bool,
    /// When a timer of the device will look at it, if nothing happens until then; `Nanos::MAX` if none will. Not before it has
    /// something outstanding, if it [rests](Timer::rest), and up to [`LATE`] later after that.
    pub(crate) timer: Nanos,
    /// When it has to be driven because its link was full; `Nanos::MAX` if it was not.
    stalled: Nanos,
    /// Timeouts the transport had counted when last seen.
    timeouts: u64,
}

impl Qp {
    /// A queue pair in RESET.
    pub(crate) fn new(parts: Parts) -> Qp {
        parts.send_cq.users.fetch_add(1, Ordering::Relaxed);
        parts.recv_cq.users.fetch_add(1, Ordering::Relaxed);
        let cap = parts.cap;
        let caps = RcCaps {
            local_qpn: Qpn::new(parts.num),
            // A queue without send requests cannot be asked of the transport; nothing can be posted to its one slot.
            sq_depth: cap.max_send_wr.max(1),
            tuning: parts.tuning,
        };
        let transport = match parts.service {
            IBV_QPT_UC => QpType::Uc,
            IBV_QPT_UD => QpType::Ud,
            _ => QpType::Rc,
        };
        let send =
            SendQueue::new(cap.max_send_wr, cap.max_send_sge, cap.max_inline_data, parts.send_cq.unpolled());
        let inner = Inner {
            attr: Box::new(ibv_qp_attr { cap, ..Default::default() }),
            proto: Transport::new(transport, caps),
            send: if transport == QpType::Ud { send.of_datagrams() } else { send },
            recv: match parts.srq {
                Some(srq) => RecvQueue::shared(srq),
                None => RecvQueue::new(cap.max_recv_wr, cap.max_recv_sge, parts.recv_cq.unpolled()),
            },
            last_wqe_told: false,
            draining: false,
            peer: None,
            line: None,
            line_looked: None,
            repeats: 0,
            ask_at: 0,
            far: far::Far::default(),
            lane: express::Lane::default(),
            packets: 0,
            patient: false,
            dirty: false,
            timer: Nanos::MAX,
            stalled: Nanos::MAX,
            timeouts: 0,
        };
        Qp {
            num: parts.num,
            service: parts.service,
            own: parts.own,
            name: parts.name,
            pd: parts.pd,
            sq_sig_all: parts.sq_sig_all,
            events: parts.events,
            send_cq: parts.send_cq,
            recv_cq: parts.recv_cq,
            async_events: Unacked::default(),
            timer: parts.timer,
            owing: AtomicBool::new(false),
            mate: AtomicU32::new(0),
            inner: Lock::new(inner),
        }
    }

    /// The queue pair's lock.
    #[inline]
    pub(crate) fn lock(&self) -> Guard<'_, Inner> {
        self.inner.lock()
    }

    /// The lock, if nobody holds it.
    pub(crate) fn try_lock(&self) -> Option<Guard<'_, Inner>> {
        self.inner.try_lock()
    }

    /// Changes attributes and state. `address` is the destination that `attr.ah_attr` names, if it can be reached.
    ///
    /// # Errors
    /// An errno: `EINVAL` for what [`Refusal`] lists and for a destination that is no address of this device's family,
    /// `EOPNOTSUPP` for a change in SQD that the transport cannot make.
    pub(crate) fn modify(
        &self,
        nic: &Nic,
        attr: &ibv_qp_attr,
        mask: ibv_qp_attr_mask,
        address: Option<IpAddr>,
        limits: &Limits,
    ) -> Result<ibv_qp_state, i32> {
        // What is taken from peers here they have let go of when this returns.
        let taken = mask.contains(IBV_QP_ACCESS_FLAGS) || mask.contains(IBV_QP_AV);
        let (mrs, mut inner) = self.lock_unseen(nic, |_| {
            taken || mask.contains(IBV_QP_STATE) && [IBV_QPS_RESET, IBV_QPS_ERR].contains(&attr.qp_state)
        });
        if mask.contains(IBV_QP_STATE) {
            inner.proto.acknowledge_all();
        }
        if inner.owes() {
            // An acknowledgement left for later would be lost with the state.
            self.drive(nic, &mrs, &mut inner);
        }
        let ends = mask.contains(IBV_QP_STATE) && [IBV_QPS_RESET, IBV_QPS_ERR].contains(&attr.qp_state);
        if ends && inner.owe_again(nic.wire.address()) {
            self.drive(nic, &mrs, &mut inner);
        }
        let changed = self.change(nic, &mrs, &mut inner, (attr, mask), address, limits);
        // If it was refused, peers are to see again what they saw before.
        self.publish(nic, &mut inner);
        if changed.is_ok() {
            self.drive(nic, &mrs, &mut inner);
        }
        changed.map(|()| inner.state())
    }

    /// [`Qp::modify`], but for what others see of it.
    fn change(
        &self,
        nic: &Nic,
        mrs: &MrTable,
        inner: &mut Inner,
        (attr, mask): (&ibv_qp_attr, ibv_qp_attr_mask),
        address: Option<IpAddr>,
        limits: &Limits,
    ) -> Result<(), i32> {
        let from = inner.state();
        let to = transition::check(self.service, from, attr, mask, &limits.transition())
            .map_err(|_: Refusal| libc::EINVAL)?;
        if mask.contains(IBV_QP_AV) && address.is_none() {
            return Err(libc::EINVAL);
        }
        if from == IBV_QPS_SQD && to == IBV_QPS_SQD {
            // The responder's room for READs and atomics is laid out once.
            if mask.contains(IBV_QP_MAX_DEST_RD_ATOMIC) {
                return Err(libc::EOPNOTSUPP);
            }
        }
        if to == IBV_QPS_RESET {
            self.reset(nic, mrs, inner);
            return Ok(());
        }
        transition::apply(&mut inner.attr, attr, mask);
        if to == IBV_QPS_RTR && self.is_datagram() {
            // Not an attribute of datagrams: their longest is the port's.
            inner.attr.path_mtu = limits.mtu;
        }
        if let (true, Some(address)) = (mask.contains(IBV_QP_AV), address) {
            let peer = Peer { address, qpn: inner.attr.dest_qp_num };
            inner.peer = Some(peer);
            (inner.line, inner.line_looked) = (None, None);
            self.find_mate(nic, peer);
            self.forget_far(nic, inner);
            nic.wire.hello(peer);
            // Whoever is on this address is a device like this one, which acknowledges what is left when it closes, and repeats
            // only what is missing.
            let alike = peer.address == nic.wire.address();
            inner.proto.set_sparse_acks(if alike { SPARSE_ACKS } else { 0 });
            inner.proto.set_peer_repairs(alike);
        }
        inner.step(from, to, mask)
    }

    /// Forgets everything: back to RESET, with its completions removed from both queues.
    pub(crate) fn reset(&self, nic: &Nic, mrs: &MrTable, inner: &mut Inner) {
        mrs.revoke_all(self.num);
        inner.proto.reset();
        inner.send.clear();
        inner.recv.clear();
        (inner.last_wqe_told, inner.draining) = (false, false);
        inner.peer = None;
        (inner.line, inner.line_looked) = (None, None);
        self.forget_mate();
        self.forget_far(nic, inner);
        *inner.attr = ibv_qp_attr { cap: inner.attr.cap, ..Default::default() };
        self.send_cq.purge(self.num);
        self.recv_cq.purge(self.num);
    }

    /// The attributes as they are now.
    pub(crate) fn query(&self) -> ibv_qp_attr {
        let inner = self.lock();
        let state = inner.state();
        let mut attr = *inner.attr;
        attr.qp_state = state;
        attr.cur_qp_state = state;
        attr.sq_draining = u8::from(inner.draining);
        if state != IBV_QPS_RESET && state != IBV_QPS_INIT {
            attr.rq_psn = inner.proto.rq_psn().get();
            if state != IBV_QPS_RTR {
                attr.sq_psn = inner.proto.sq_psn().get();
            }
        }
        attr
    }

    /// Whether it is for datagrams, and not for a connection.
    pub(crate) fn is_datagram(&self) -> bool {
        self.service == IBV_QPT_UD
    }

    /// Has fetched what the queue pair refers to, as far as nobody works on it, and the program's object for it.
    pub(crate) fn prefetch(&self) {
        if let Some(inner) = self.try_lock() {
            inner.prefetch();
            // By the object it is named when something is posted.
            let object = self.name as *const u8;
            memory::prefetch_at(object);
            memory::prefetch_at(object.wrapping_add(2 * memory::LINE));
            memory::prefetch_at(inner.send.unpolled.address());
            memory::prefetch_at(inner.recv.unpolled.address());
        }
    }

    /// Reports something about this queue pair to its program.
    fn report(&self, kind: ibex_sys::ibv_event_type) {
        self.events.push(AsyncEvent::Qp(kind, self.name));
    }
}

impl Drop for Qp {
    fn drop(&mut self) {
        self.send_cq.users.fetch_sub(1, Ordering::Relaxed);
        self.recv_cq.users.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Inner {
    fn state(&self) -> ibv_qp_state {
        ibv_qp_state(self.proto.state() as u32)
    }

    /// Moves the transport. The table has admitted the transition, so that a refusal is a mistake of this device.
    fn step(&mut self, from: ibv_qp_state, to: ibv_qp_state, mask: ibv_qp_attr_mask) -> Result<(), i32> {
        if from != to {
            self.draining = false;
        }
        if to == IBV_QPS_SQD && from != to && !mask.contains(IBV_QP_EN_SQD_ASYNC_NOTIFY) {
            self.attr.en_sqd_async_notify = 0;
        }
        let attr = &self.attr;
        if mask.contains(IBV_QP_QKEY) {
            self.proto.set_qkey(Qkey(attr.qkey));
        }
        let rights = remote_access(attr.qp_access_flags);
        let (timeout, retry) = (ack_timeout(attr.timeout), Some(attr.retry_cnt));
        self.patient = timeout.is_none_or(|timeout| timeout >= PATIENT);
        // IBTA 9.7.5.2.8: 7 means for ever.
        let rnr_retry = (attr.rnr_retry < 7).then_some(attr.rnr_retry);
        let moved = match (from, to) {
            (_, IBV_QPS_ERR) => {
                self.proto.set_error();
                Ok(())
            }
            (_, IBV_QPS_INIT) => self.proto.to_init(InitAttr { pkey: Pkey::DEFAULT, access: rights }),
            (_, IBV_QPS_RTR) => {
                if mask.contains(IBV_QP_ACCESS_FLAGS) {
                    self.proto.set_access(rights);
                }
                self.proto.to_rtr(RtrAttr {
                    remote_qpn: Qpn::new(attr.dest_qp_num),
                    path_mtu: mtu(attr.path_mtu.0).ok_or(libc::EINVAL)?,
                    rq_psn: Psn::new(attr.rq_psn),
                    max_dest_rd_atomic: attr.max_dest_rd_atomic,
                    min_rnr_timer: attr.min_rnr_timer,
                })
            }
            _ => {
                if mask.contains(IBV_QP_ACCESS_FLAGS) {
                    self.proto.set_access(rights);
                }
                if mask.contains(IBV_QP_MIN_RNR_TIMER) {
                    self.proto.set_min_rnr_timer(attr.min_rnr_timer);
                }
                match (from, to) {
                    (IBV_QPS_RTR, IBV_QPS_RTS) => self.proto.to_rts(RtsAttr {
                        sq_psn: Psn::new(attr.sq_psn),
                        timeout,
                        retry,
                        rnr_retry,
                        max_rd_atomic: attr.max_rd_atomic,
                    }),
                    (IBV_QPS_RTS, IBV_QPS_SQD) => {
                        self.draining = true;
                        // Told here always; whether the program is told is decided then.
                        self.proto.to_sqd(true)
                    }
                    (IBV_QPS_SQD, IBV_QPS_SQD) => {
                        self.proto.set_patience(timeout, retry, rnr_retry);
                        self.proto.set_max_rd_atomic(attr.max_rd_atomic);
                        Ok(())
                    }
                    (IBV_QPS_SQD | IBV_QPS_SQE, IBV_QPS_RTS) => self.proto.resume(),
                    _ => Ok(()),
                }
            }
        };
        moved.map_err(|_| libc::EINVAL)
    }

    /// Owes the peer an acknowledgement of what it has not asked to have acknowledged: this end closes.
    pub(crate) fn owe_all(&mut self) {
        self.proto.acknowledge_all();
    }

    /// Owes a peer on another address the last acknowledgement once more: this end closes, and if the first one gets lost,
    /// nobody will be here to answer what the peer repeats. `own` is the device's address. True if there is something to send.
    pub(crate) fn owe_again(&mut self, own: IpAddr) -> bool {
        let elsewhere = self.peer.is_some_and(|peer| peer.address != own);
        if elsewhere {
            self.proto.acknowledge_again();
        }
        elsewhere && self.owes()
    }

    /// Has the memory fetched that working on the queue pair needs besides itself.
    pub(crate) fn prefetch(&self) {
        memory::prefetch_at(self.send.address());
        memory::prefetch_at(self.recv.address());
        self.proto.memory().into_iter().for_each(memory::prefetch_at);
    }

    /// Whether it could send without waiting for somebody who is sending over its link.
    pub(crate) fn may_send(&self) -> bool {
        self.lane.known().is_none_or(|link| link.is_free())
    }

    /// Sends what waits in its link, as far as there is room; whether nothing is left of it.
    pub(crate) fn settle_link(&self) -> bool {
        self.lane.known().is_none_or(|link| link.try_settle())
    }

    /// Whether the peer waits for an acknowledgement, and for nothing else of its requests.
    pub(crate) fn owes_only_ack(&self) -> bool {
        self.proto.owes_only_ack()
    }

    /// Whether there is something to send.
    pub(crate) fn owes(&self) -> bool {
        self.proto.wants_transmit()
    }

    /// Whether a packet from `source` may be for this queue pair.
    pub(crate) fn accepts(&self, source: IpAddr) -> bool {
        (self.proto.qp_type() == QpType::Ud || self.peer.is_some_and(|peer| peer.address == source))
            && !matches!(self.proto.state(), QpState::Reset | QpState::Init)
    }
}

/// The rights a peer has through the queue pair; the bits are those of the access flags.
fn remote_access(flags: u32) -> RemoteAccess {
    let remote = access::REMOTE_WRITE | access::REMOTE_READ | access::REMOTE_ATOMIC;
    RemoteAccess((flags & remote) as u8)
}

/// The transport's MTU for the value of `enum ibv_mtu`.
fn mtu(code: u32) -> Option<Mtu> {
    Some(match code {
        1 => Mtu::Mtu256,
        2 => Mtu::Mtu512,
        3 => Mtu::Mtu1024,
        4 => Mtu::Mtu2048,
        5 => Mtu::Mtu4096,
        _ => return None,
    })
}
