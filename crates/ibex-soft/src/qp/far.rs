//! One-sided operations on the memory of another process, carried out inside the call that posts them.
//!
//! Owns the choice of this way for WRITE, READ and atomics, and what peers are told of a queue pair of ours. Does not own
//! keys and copies ([`crate::oneside`]). As between queue pairs of one process ([`super::direct`]), whatever may not plainly
//! succeed goes as packets: then the peer says what is wrong.
//!
//! A request goes this way if nothing of its queue pair is outstanding, so that it is in order; it uses no sequence
//! number, since the peer's transport does not learn of it.

use std::sync::{Arc, RwLockReadGuard};

use ibex_proto::{RcQp, RemoteAccess, SendOp};

use super::direct::{Bytes, Staged, atomic, bytes_of, pieces, transfer};
use super::post::SendRequest;
use super::{Inner, Qp};
use crate::host::LinkId;
use crate::mr::{MrTable, access};
use crate::net::Peer;
use crate::nic::Nic;
use crate::oneside::{Access, Map, Path, QpEntry, View, Wanted};
use ibex_sys::lock::Guard;

/// What a queue pair knows of its peer's memory.
#[derive(Default)]
pub(super) struct Far {
    /// The link that was looked at last, 0 if none.
    link: LinkId,
    view: Option<Arc<View>>,
    /// The file used last.
    map: Option<Arc<Map>>,
    /// Whether peers see this queue pair.
    published: bool,
    /// Whether peers saw it at some time, and nobody has waited since for what they began then.
    seen: bool,
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
        let (rkey, va, len, right) = match request.op {
            SendOp::Write { rkey, va, imm: None } => (rkey, va, len, access::REMOTE_WRITE),
            SendOp::Read { rkey, va } => (rkey, va, len, access::REMOTE_READ),
            SendOp::CompareSwap { rkey, va, .. } | SendOp::FetchAdd { rkey, va, .. } => {
                (rkey, va, 8, access::REMOTE_ATOMIC)
            }
            _ => return false,
        };
        let Some(peer) = inner.peer.filter(|peer| len > 0 && peer.address == nic.wire.address()) else {
            return false;
        };
        let at_rest = |own: &RcQp| own.is_at_rest() && own.may_request(&request.op) && !own.wants_transmit();
        if !inner.far.find(nic, peer) || !inner.proto.as_rc().is_some_and(at_rest) {
            return false;
        }
        let wanted =
            Wanted { queue_pairs: (peer.qpn, self.num), rkey: rkey.0, va, len: u64::from(len), right };
        if self.reach(mrs, inner, &wanted, request).is_none() {
            return false;
        }
        self.complete_posted(nic, mrs, inner, request, len);
        true
    }

    /// Carries the operation out; `None`, and nothing done that packets would not repeat, if it may not succeed.
    #[inline]
    fn reach(
        &self,
        mrs: &MrTable,
        inner: &mut Inner,
        wanted: &Wanted,
        request: &SendRequest<'_>,
    ) -> Option<()> {
        let staged;
        let payload = match request.payload {
            super::Payload::Gather(list) => bytes_of(mrs, self.pd, list),
            super::Payload::Inline(len, copy) => {
                staged = Staged::new(len, copy)?;
                Bytes::Here(staged.bytes())
            }
            super::Payload::Bind(_) => return None,
        };
        let len = wanted.len as usize;
        let super::far::Far { view, map, .. } = &mut inner.far;
        let view = view.as_deref()?;
        let permit = view.permit(wanted)?;
        let done = match (view.reach(&permit, len, map)?, request.op) {
            (Path::Mapped(memory, at), SendOp::Write { .. }) => {
                transfer(payload, Bytes::Memory(memory, at), len)
            }
            (Path::Mapped(memory, at), SendOp::Read { .. }) => {
                transfer(Bytes::Memory(memory, at), payload, len)
            }
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
    pub(super) fn forget_far(&self, inner: &mut Inner) {
        let Far { published, seen, .. } = inner.far;
        inner.far = Far { published, seen, ..Far::default() };
        inner.lane.forget();
    }
}
