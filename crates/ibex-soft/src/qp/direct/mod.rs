//! Operations between two queue pairs of one process, carried out inside the call that posts them.
//!
//! Owns the choice of this way and what both ends are told afterwards. Does not own what makes an operation fail: only
//! what plainly succeeds goes this way, everything else goes the way of packets, whose transport gives the exact
//! status, retry and NAK. So programs cannot tell the two apart, but by the clock.
//!
//! | file | owns |
//! |---|---|
//! | `perform` | one operation: rights, lengths, the copy, the receiver's completion |
//! | `copy` | bytes from one scatter/gather list to another |
//!
//! # Order
//! A request is carried out at once if nothing of its queue pair is outstanding. What was posted behind packets waits
//! until these are acknowledged, and is then carried out here too; its sequence numbers are passed over at both ends. Both
//! ends have to agree on all that went either way before, acknowledgements included: otherwise an answer could complete
//! before what it answers.
//!
//! # Locks
//! The locks of both queue pairs are held, taken in ascending order of their numbers ([`Ends`]); so two threads that post to
//! each other's queue pairs cannot block one another. The table of queue pairs is held, too: a queue pair that is found
//! stays until the call ends, and `ibv_destroy_qp` waits for that.

mod copy;
mod perform;

use std::sync::atomic::Ordering;

use ibex_proto::{RcQp, SendOp, SendWqe};
use ibex_sys::lock::Guard;
use ibex_sys::{IBV_EVENT_QP_FATAL, IBV_WC_SUCCESS, ibv_wc, ibv_wc_opcode};

use super::post::SendRequest;
use super::{Inner, Qp};
use crate::mr::MrTable;
use crate::net::{LinkChoice, Peer};
use crate::nic::{Nic, QpTable};
pub(super) use copy::{Bytes, Staged, bytes_of, pieces, transfer};
use perform::Operation;
pub(super) use perform::{Source, atomic};

/// Whether operations may go this way on a NIC.
pub(super) fn is_allowed(nic: &Nic) -> bool {
    nic.wire.link_choice() >= LinkChoice::Direct && !nic.wire.wants_packets()
}

/// The other end of a queue pair's connection, if it is in this process, with its lock.
pub(super) struct Mate<'a> {
    qp: &'a Qp,
    inner: Guard<'a, Inner>,
}

impl Mate<'_> {
    /// Sequence numbers of one message will not be used by the other end.
    #[inline]
    fn pass_over(&mut self, packets: u32) {
        if let Some(their) = self.inner.proto.as_rc_mut() {
            their.was_bypassed(packets);
        }
    }
}

/// Both ends of a connection, as far as they are here.
pub(super) struct Ends<'a> {
    pub(super) own: Guard<'a, Inner>,
    pub(super) mate: Option<Mate<'a>>,
}

impl<'a> Ends<'a> {
    /// Locks a queue pair, and the other end of its connection if that is in this process. A connection of a queue pair
    /// to itself has no other end.
    #[inline]
    pub(super) fn lock(qp: &'a Qp, qps: Option<&'a QpTable>) -> Ends<'a> {
        let num = qp.mate();
        let mate = match qps {
            Some(qps) if num != 0 && num != qp.num => qps.get(num),
            _ => None,
        };
        let Some(mate) = mate else { return Ends { own: qp.lock(), mate: None } };
        let (own, inner) = if mate.num < qp.num {
            let inner = mate.lock();
            (qp.lock(), inner)
        } else {
            (qp.lock(), mate.lock())
        };
        // Under the locks: either may have been modified meanwhile, or be connected to somebody else.
        let mated = qp.mate() == mate.num && mate.mate() == qp.num;
        Ends { own, mate: mated.then_some(Mate { qp: mate, inner }) }
    }
}

impl Qp {
    /// The queue pair of this process that this one is connected to, 0 if there is none. Changes under the lock only.
    #[inline]
    fn mate(&self) -> u32 {
        self.mate.load(Ordering::Relaxed)
    }

    /// Whether there is such a queue pair, as far as can be seen without the lock.
    #[inline]
    pub(super) fn is_mated(&self) -> bool {
        self.mate() != 0
    }

    /// The destination has become known.
    pub(super) fn find_mate(&self, nic: &Nic, peer: Peer) {
        // Of another process's queue pair nothing is found here: to look would only hold up who makes and destroys some.
        let here = is_allowed(nic) && nic.wire.is_here(peer);
        self.mate.store(if here { peer.qpn } else { 0 }, Ordering::Relaxed);
    }

    /// The destination is forgotten.
    pub(super) fn forget_mate(&self) {
        self.mate.store(0, Ordering::Relaxed);
    }

    /// A completion was lost, which can never be told: the queue pair is of no more use.
    fn lost(&self, nic: &Nic, mrs: &MrTable, inner: &mut Inner) {
        inner.proto.set_error();
        self.report(IBV_EVENT_QP_FATAL);
        self.drive(nic, mrs, inner);
    }

    /// Carries out a request that is being posted; false if it has to be posted. The caller has checked that the queue has
    /// room.
    #[inline]
    pub(super) fn direct(
        &self,
        nic: &Nic,
        mrs: &MrTable,
        inner: &mut Inner,
        mate: &mut Mate<'_>,
        request: &SendRequest<'_>,
        len: u32,
    ) -> bool {
        if !inner.proto.as_rc().is_some_and(RcQp::is_at_rest) {
            return false;
        }
        let len = if is_atomic(&request.op) { 8 } else { len };
        let operation = Operation { op: request.op, len, solicited: request.solicited };
        if !self.fits(nic, mrs, inner, mate, &operation, request.payload.into()) {
            return false;
        }
        let packets = inner.proto.as_rc_mut().map_or(0, |own| own.rest_done(len));
        mate.pass_over(packets);
        self.complete_posted(nic, mrs, inner, request, len);
        true
    }

    /// Tells the program, if it wants to know, of a request of `len` bytes that was carried out while it was posted.
    #[inline]
    pub(super) fn complete_posted(
        &self,
        nic: &Nic,
        mrs: &MrTable,
        inner: &mut Inner,
        request: &SendRequest<'_>,
        len: u32,
    ) {
        if !request.signaled && !self.sq_sig_all {
            return;
        }
        let entry = ibv_wc {
            wr_id: request.wr_id,
            status: IBV_WC_SUCCESS,
            opcode: ibv_wc_opcode(request.op.wc_opcode().0),
            byte_len: len,
            qp_num: self.num,
            ..Default::default()
        };
        let pushed = self.send_cq.push(entry, false, &inner.send.unpolled);
        if self.note(pushed.map_err(|overflow| (overflow, &*self.send_cq))) {
            self.lost(nic, mrs, inner);
        }
    }

    /// Carries out the requests that were posted behind packets, once these are acknowledged.
    pub(super) fn direct_posted(&self, nic: &Nic, mrs: &MrTable, inner: &mut Inner, mate: &mut Mate<'_>) {
        while let Some(&SendWqe { cookie, op, len, solicited, .. }) =
            inner.proto.as_rc().and_then(RcQp::front_at_rest)
        {
            let operation = Operation { op, len, solicited };
            if !self.fits(nic, mrs, inner, mate, &operation, Source::Slot(cookie)) {
                return;
            }
            let packets = inner.proto.as_rc_mut().map_or(0, RcQp::front_done);
            mate.pass_over(packets);
            if self.complete(inner) {
                self.lost(nic, mrs, inner);
            }
        }
    }

    /// Carries an operation out if it cannot fail, and completes it for the receiver.
    #[inline]
    fn fits(
        &self,
        nic: &Nic,
        mrs: &MrTable,
        inner: &mut Inner,
        mate: &mut Mate<'_>,
        operation: &Operation,
        source: Source<'_>,
    ) -> bool {
        let Mate { qp: target, inner: theirs } = mate;
        let ready = inner.proto.as_rc().zip(theirs.proto.as_rc()).is_some_and(|(own, their)| {
            own.may_request(&operation.op) && their.may_be_bypassed(&operation.op) && own.is_level_with(their)
        });
        if !ready {
            return false;
        }
        match perform::perform(mrs, (self, inner), (target, theirs), operation, source) {
            None => false,
            Some(None) => true,
            Some(Some(done)) => {
                let pushed = target.complete_recv(&mut theirs.recv, &done);
                if target.note(pushed) {
                    // As on the wire: the message has arrived, the queue pair it arrived at is of no more use.
                    target.lost(nic, mrs, theirs);
                }
                true
            }
        }
    }
}

fn is_atomic(op: &SendOp) -> bool {
    matches!(op, SendOp::CompareSwap { .. } | SendOp::FetchAdd { .. })
}
