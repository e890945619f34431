//! One-sided operations on the memory of another process, carried out inside the call that posts them.
//!
//! Owns the choice of this way for WRITE, READ and atomics, and what peers are told of a queue pair of ours. Does not own
//! keys and copies ([`crate::oneside`]). As between queue pairs of one process ([`super::direct`]), whatever may not plainly
//! succeed goes as packets: then the peer says what is wrong.
//!
//! A request goes this way if nothing of its queue pair is outstanding, so that it is in order; it uses no sequence
//! number, since the peer's transport does not learn of it. In a stream of such requests the first may have to go as packets,
//! before the peer's memory is in sight or behind others; those that follow wait until it is acknowledged, or all would
//! go the same way.

use std::sync::{Arc, RwLockReadGuard};

use ibex_proto::{RcQp, RemoteAccess, SendOp};
use ibex_sys::lock::Guard;
use ibex_wire::Rkey;

use super::direct::{Bytes, Staged, atomic, bytes_of, pieces, transfer};
use super::post::SendRequest;
use super::{Inner, Qp};
use crate::host::LinkId;
use crate::mr::{MrTable, access};
use crate::net::Peer;
use crate::nic::Nic;
use crate::oneside::{Access, Map, Path, QpEntry, View, Wanted};

/// What a queue pair knows of its peer's memory.
#[derive(Default)]
pub(super) struct Far {
    /// The link that was looked at last, 0 if none.
    link: LinkId,
    view: Option<Arc<View>>,
    /// The file used last.
    map: Option<Arc<Map>>,
    /// Whether requests wait for those before them to be acknowledged, to be carried out here.
    holds: bool,
    /// Requests to go as packets before any is to wait again, and how many the next time that it was in vain.
    pause: u32,
    next_pause: u32,
    /// Whether peers see this queue pair.
    published: bool,
    /// Whether peers saw it at some time, and nobody has waited since for what they began then.
    seen: bool,
}

/// Requests that go as packets after one has waited in vain, at first and at most: to wait empties the pipeline.
const PAUSE: u32 = 256;
const MOST_PAUSE: u32 = 1 << 20;

/// Bytes that are carried out of a queue at a time: what a caller that receives for all queue pairs can be held up by.
const AT_ONCE: usize = 1 << 20;

/// What a request wants of the peer's memory: a key, an address, a length and a right; `None` if it is none that goes this way.
#[inline]
fn target(op: &SendOp, len: u32) -> Option<(u32, u64, u32, u32)> {
    match *op {
        SendOp::Write { rkey, va, imm: None } => Some((rkey.0, va, len, access::REMOTE_WRITE)),
        SendOp::Read { rkey, va } => Some((rkey.0, va, len, access::REMOTE_READ)),
        SendOp::CompareSwap { rkey, va, .. } | SendOp::FetchAdd { rkey, va, .. } => {
            Some((rkey.0, va, 8, access::REMOTE_ATOMIC))
        }
        _ => None,
    }
}

impl Far {
    /// Whether the peer's memory is in sight.
    #[inline]
    fn find(&mut self, nic: &Nic, peer: Peer) -> bool {
        if self.view.as_ref().is_some_and(|view| view.is_open()) {
            return true;
        }
        self.look(nic, peer)
    }

    fn look(&mut self, nic: &Nic, peer: Peer) -> bool {
        let Some(link) = nic.wire.link_to(peer) else { return false };
        if link == self.link || nic.wire.wants_packets() {
            return false;
        }
        (self.link, self.view, self.map) = (link, nic.wire.view(link), None);
        self.view.is_some()
    }
}

/// Carries the operation out; `None`, and nothing done that packets would not repeat, if it may not succeed.
#[inline]
fn reach(far: &mut Far, wanted: &Wanted, op: &SendOp, payload: Bytes<'_>) -> Option<()> {
    let len = wanted.len as usize;
    let Far { view, map, .. } = far;
    let view = view.as_deref()?;
    let permit = view.permit(wanted)?;
    let done = match (view.reach(&permit, len, map)?, *op) {
        (Path::Mapped(memory, at), SendOp::Write { .. }) => transfer(payload, Bytes::Memory(memory, at), len),
        (Path::Mapped(memory, at), SendOp::Read { .. }) => transfer(Bytes::Memory(memory, at), payload, len),
        (Path::Mapped(memory, at), op) if wanted.va.is_multiple_of(8) => {
            atomic(memory, at, &op, payload).is_some()
        }
        (Path::Process { pid, address }, SendOp::Write { .. }) => {
            pieces(payload, len, false)?.write(pid, address)
        }
        (Path::Process { pid, address }, SendOp::Read { .. }) => {
            pieces(payload, len, true)?.read(pid, address)
        }
        // The kernel has no atomics between processes.
        _ => false,
    };
    done.then_some(())
}

impl Qp {
    /// Carries out a request that is being posted; false if it has to be posted. The caller has checked that the queue has
    /// room.
    #[inline]
    pub(super) fn one_sided(
        &self,
        nic: &Nic,
        mrs: &MrTable,
        inner: &mut Inner,
        request: &SendRequest<'_>,
        len: u32,
    ) -> bool {
        let Some((rkey, va, len, right)) = target(&request.op, len) else { return false };
        let Some(peer) = inner.peer.filter(|peer| len > 0 && peer.address == nic.wire.address()) else {
            return false;
        };
        if !inner.far.find(nic, peer) {
            return false;
        }
        let wanted = Wanted { queue_pairs: (peer.qpn, self.num), rkey, va, len: u64::from(len), right };
        let at_rest = |own: &RcQp| own.is_at_rest() && own.may_request(&request.op) && !own.wants_transmit();
        if !inner.proto.as_rc().is_some_and(at_rest) {
            self.hold(inner, &wanted);
            return false;
        }
        let staged;
        let payload = match request.payload {
            super::Payload::Gather(list) => bytes_of(mrs, self.pd, list),
            super::Payload::Inline(len, copy) => match Staged::new(len, copy) {
                Some(bytes) => {
                    staged = bytes;
                    Bytes::Here(staged.bytes())
                }
                None => return false,
            },
            super::Payload::Bind(_) => return false,
        };
        // As in the question above: what this may be the answer to is acknowledged first.
        nic.wire.send_left(inner.lane.known());
        if reach(&mut inner.far, &wanted, &request.op, payload).is_none() {
            return false;
        }
        self.complete_posted(nic, mrs, inner, request, len);
        true
    }

    /// Has the request that is being posted, and those after it, wait for those before it, if it could go this way then.
    fn hold(&self, inner: &mut Inner, wanted: &Wanted) {
        let Inner { far, proto, .. } = inner;
        if far.holds {
            return;
        }
        if far.pause > 0 {
            far.pause -= 1;
            return;
        }
        if far.view.as_deref().is_some_and(|view| view.permit(wanted).is_some()) {
            far.holds = proto.as_rc_mut().is_some_and(|own| own.hold(|op| target(op, 0).is_some()));
        }
    }

    /// Carries out the requests that wait, if their turn has come, until one that has to go as packets. Whether there is more to
    /// be done by another call.
    pub(super) fn carry_out_held(&self, nic: &Nic, mrs: &MrTable, inner: &mut Inner) -> bool {
        let Inner { far, proto, send, peer, .. } = inner;
        let Some(own) = proto.as_rc_mut() else { return false };
        let peer = peer.filter(|peer| far.find(nic, *peer));
        if peer.is_some() && !own.is_settled() {
            return false;
        }
        let (mut copied, mut paused) = (0, false);
        // Without resources for them they fail, which is the transport's to say.
        let may_ask = own.may_request(&SendOp::Read { rkey: Rkey(0), va: 0 });
        let mut any = false;
        own.carry_out(|wqe| {
            let Some((rkey, va, len, right)) = target(&wqe.op, wqe.len).filter(|wanted| wanted.2 > 0) else {
                return false;
            };
            let Some(peer) = peer.filter(|_| may_ask || !wqe.op.awaits_data()) else { return false };
            let wanted = Wanted { queue_pairs: (peer.qpn, self.num), rkey, va, len: u64::from(len), right };
            paused = copied >= AT_ONCE;
            if paused {
                return false;
            }
            let payload = match send.inline(wqe.cookie) {
                Some(bytes) => Bytes::Here(bytes),
                None => bytes_of(mrs, self.pd, send.list(wqe.cookie)),
            };
            let done = reach(far, &wanted, &wqe.op, payload).is_some();
            any |= done;
            copied += len as usize;
            done
        });
        if paused {
            return true;
        }
        own.release();
        far.holds = false;
        if any {
            far.next_pause = 0;
        } else {
            far.next_pause = (far.next_pause * 2).clamp(PAUSE, MOST_PAUSE);
            far.pause = far.next_pause;
        }
        false
    }

    /// Whether requests wait to be [carried out](Qp::carry_out_held).
    #[inline]
    pub(super) fn holds(inner: &Inner) -> bool {
        inner.far.holds
    }

    /// Tells peers of this queue pair what they have to know, or that there is nothing.
    pub(super) fn publish(&self, nic: &Nic, inner: &mut Inner) {
        let Some(memory) = nic.wire.memory() else { return };
        let peer = inner.peer.filter(|peer| peer.address == nic.wire.address());
        match (peer, inner.proto.as_rc().filter(|own| own.serves_unseen())) {
            (Some(peer), Some(own)) => {
                // Without resources for them, READs and atomics are refused, which is the transport's to say.
                let all =
                    if inner.attr.max_dest_rd_atomic == 0 { RemoteAccess::WRITE } else { RemoteAccess::ALL };
                let access = Access(u32::from(own.access().0 & all.0));
                memory.enter_queue_pair(self.num, &QpEntry { remote: peer.qpn, pd: self.pd, access });
                (inner.far.published, inner.far.seen) = (true, true);
            }
            _ => self.withdraw(nic, inner),
        }
    }

    /// Peers are told that this queue pair serves no requests any more. Some may be in the middle of one: see
    /// [`Qp::lock_unseen`].
    pub(super) fn withdraw(&self, nic: &Nic, inner: &mut Inner) {
        if !std::mem::take(&mut inner.far.published) {
            return;
        }
        if let Some(memory) = nic.wire.memory() {
            memory.leave_queue_pair(self.num);
        }
    }

    /// The table of regions and this queue pair's lock. If `unseen` says so, with both held, no peer is in the middle of an
    /// operation through the queue pair, and none begins one. Waiting for peers takes neither: it may take long if one
    /// is stopped.
    pub(crate) fn lock_unseen<'a>(
        &'a self,
        nic: &'a Nic,
        mut unseen: impl FnMut(&Inner) -> bool,
    ) -> (RwLockReadGuard<'a, MrTable>, Guard<'a, Inner>) {
        let mut waited = false;
        loop {
            let mrs = nic.regions();
            let mut inner = self.lock();
            if !inner.far.seen || !unseen(&inner) {
                return (mrs, inner);
            }
            // Unless somebody made it known again meanwhile, once is enough.
            inner.far.seen = inner.far.published || !waited;
            self.withdraw(nic, &mut inner);
            let Some(memory) = nic.wire.memory().filter(|_| inner.far.seen) else { return (mrs, inner) };
            drop(inner);
            drop(mrs);
            memory.await_queue_pair(self.num);
            waited = true;
        }
    }

    /// The peer's memory is not in sight any more.
    pub(super) fn forget_far(&self, nic: &Nic, inner: &mut Inner) {
        let Far { published, seen, .. } = inner.far;
        inner.far = Far { published, seen, ..Far::default() };
        // Not to be told of a connection that is over.
        nic.wire.send_left(inner.lane.known());
        inner.lane.forget();
        // What waited for it does not any more.
        if let Some(own) = inner.proto.as_rc_mut() {
            own.release();
        }
    }
}
