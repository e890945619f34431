//! Short messages to and from other processes: from one program's buffer into the ring of a link, or into a datagram where no
//! memory is shared, and from there into the other's buffer.
//!
//! Owns this way of sending, of taking in, and of completing; also what becomes of an acknowledgement that a message asks for or
//! brings. The packets are those of the usual way, and so is what
//! follows from them; what is left out is the search for anything else to do, of which the transport says that there
//! is nothing ([`ibex_proto::RcQp::may_express`], [`ibex_proto::RcQp::expects_express`]). Whatever does not go this way
//! goes the usual one ([`super::drive`]).

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ibex_proto::{Ack, Clock, Nanos, RcQp, SendOp, SendWqe};
use ibex_sys::{IBV_EVENT_QP_FATAL, IBV_QPT_RC, IBV_WC_RECV, ibv_wc};
use ibex_wire::{Bth, Pkey, padding};

use super::post::SendRequest;
use super::queue::Payload;
use super::{Inner, Qp, SendQueue, hands};
use crate::host::Link;
use crate::memory::UserMemory;
use crate::mr::MrTable;
use crate::net::express::{Beside, Datagram, Express, MOST, Room};
use crate::net::{Line, Peer};
use crate::nic::Nic;

/// A SEND without immediate, its payload still in the program's hands.
pub(crate) struct Message<'a> {
    pub(crate) wr_id: u64,
    pub(crate) payload: Payload<'a>,
    pub(crate) signaled: bool,
    pub(crate) fence: bool,
    pub(crate) solicited: bool,
}

impl<'a> Message<'a> {
    /// The message that a request is for, if it is one.
    #[inline]
    pub(super) fn of(request: &SendRequest<'a>) -> Option<Message<'a>> {
        let SendOp::Send { imm: None, inv: None } = request.op else { return None };
        let &SendRequest { wr_id, payload, signaled, fence, solicited, .. } = request;
        Some(Message { wr_id, payload, signaled, fence, solicited })
    }
}

/// The link that a queue pair's messages go over, as found last.
#[derive(Default)]
pub(super) struct Lane(Option<Arc<Link>>);

impl Lane {
    /// The link to the peer, if there is one now.
    #[inline]
    fn find(&mut self, nic: &Nic, peer: Option<Peer>) -> Option<&Link> {
        let id = nic.wire.lane_to(peer?)?;
        if self.0.as_ref().is_none_or(|link| link.id != id) {
            self.0 = nic.wire.link(id);
        }
        self.known().map(|link| &**link)
    }

    /// The same as found last, if it still is one.
    #[inline]
    pub(super) fn known(&self) -> Option<&Arc<Link>> {
        self.0.as_ref().filter(|link| !link.is_down())
    }

    /// Forgets it: the queue pair has no peer, or another.
    pub(super) fn forget(&mut self) {
        self.0 = None;
    }
}

/// What a message that was sent says besides.
struct Said {
    /// It asks for an acknowledgement.
    asks: bool,
    /// It has one beside it.
    acks: bool,
}

impl Said {
    /// The header of the message, and the acknowledgement beside it.
    #[inline(always)]
    fn header(&mut self, rc: &mut RcQp, wqe: &SendWqe) -> Option<(Bth, Option<Ack>)> {
        let (bth, ack) = rc.express_header(wqe)?;
        *self = Said { asks: bth.ack_req, acks: ack.is_some() };
        Some((bth, ack))
    }
}

/// How a message goes.
enum Way<'a> {
    Ring(&'a Link),
    Line(&'a Line),
}

impl<'a> Way<'a> {
    #[inline]
    fn find(nic: &Nic, lane: &'a mut Lane, line: Option<&'a Line>, peer: Option<Peer>) -> Option<Way<'a>> {
        if !nic.wire.wants_packets()
            && let Some(link) = lane.find(nic, peer)
        {
            return Some(Way::Ring(link));
        }
        line.filter(|line| peer.is_some_and(|to| nic.wire.goes_by(line, to))).map(Way::Line)
    }
}

impl Qp {
    /// Posts a list of one short message, if it can go this way; if not, false, and nothing has happened.
    #[inline]
    pub(crate) fn post_express(&self, nic: &Nic, message: &Message<'_>) -> bool {
        if self.service != IBV_QPT_RC || self.is_mated() {
            return false;
        }
        let len = match message.payload {
            Payload::Gather(list) => hands::capacity(list),
            Payload::Inline(len, _) => len,
            Payload::Bind(_) => return false,
        };
        let far = nic.fetch.approach(self);
        // Inline data is of no region.
        let mrs = matches!(message.payload, Payload::Gather(_)).then(|| nic.regions());
        let mut inner = self.lock();
        if far {
            inner.prefetch();
        }
        let fits = match message.payload {
            Payload::Gather(list) => list.len() <= inner.send.max_sge(),
            _ => len as usize <= inner.send.max_inline(),
        };
        match inner.send.vacant() {
            Some(cookie) if fits => self.express(nic, mrs.as_deref(), &mut inner, message, cookie, len),
            _ => false,
        }
    }

    /// Sends a message that is being posted; false if it has to be posted. The caller has checked that the queue has room,
    /// which is `cookie`'s slot, and that the message is within its limits. Inline data needs no regions.
    #[inline]
    pub(super) fn express(
        &self,
        nic: &Nic,
        mrs: Option<&MrTable>,
        inner: &mut Inner,
        request: &Message<'_>,
        cookie: u64,
        len: u32,
    ) -> bool {
        if len as usize > MOST {
            return false;
        }
        let Inner { lane, line, repeats, proto, send, peer, timer, .. } = inner;
        let Some(way) = Way::find(nic, lane, line.as_deref(), *peer) else { return false };
        let wqe = SendWqe {
            cookie,
            op: SendOp::Send { imm: None, inv: None },
            len,
            signaled: request.signaled || self.sq_sig_all,
            fence: request.fence,
            solicited: request.solicited,
        };
        let Some(rc) = proto.as_rc_mut().filter(|rc| rc.may_express(&wqe)) else { return false };
        let padded = len as usize + padding(len as usize);
        let mut said = Said { asks: false, acks: false };
        let sent = match way {
            Way::Ring(link) => link.express(padded, |mut space| {
                let filled = self.fill(&mut space, mrs, send, request, len as usize);
                if filled { said.header(rc, &wqe) } else { None }
            }),
            Way::Line(line) => {
                if line.is_abroad() && doubts(nic, rc, repeats, *peer) {
                    return false;
                }
                let mut datagram = Datagram::new();
                let filled = self.fill(&mut datagram, mrs, send, request, len as usize);
                let made = if filled { said.header(rc, &wqe) } else { None };
                if let Some((bth, ack)) = &made {
                    nic.wire.send_express(line, datagram, padded, (bth, *ack));
                }
                made.is_some()
            }
        };
        if !sent {
            return false;
        }
        // What follows is done while the peer takes it in.
        if said.acks {
            self.owing.store(false, Ordering::Relaxed);
        }
        rc.express_sent(wqe, said.asks, said.acks, &Watch { nic, look: *timer });
        // Kept for the case that it has to be sent again.
        send.push_staged(request.wr_id, request.payload);
        self.timer.wake();
        self.watch_lazily(nic, inner);
        true
    }

    /// Puts a message's payload and padding into their place; false if it cannot be read.
    #[inline]
    fn fill(
        &self,
        room: &mut impl Room,
        mrs: Option<&MrTable>,
        send: &mut SendQueue,
        request: &Message<'_>,
        len: usize,
    ) -> bool {
        match (request.payload, mrs) {
            (Payload::Gather(list), Some(mrs)) => {
                let put = |memory: &UserMemory, at, range| room.copy_from(memory, at, range);
                if len > 0 && hands::stretches(mrs, self.pd, list, 0, len, false, put).is_err() {
                    return false;
                }
            }
            (Payload::Inline(bytes, copy), _) => room.write(0, send.stage(bytes, copy)),
            (Payload::Gather(_), None) | (Payload::Bind(_), _) => return false,
        }
        let pad = padding(len);
        if pad > 0 {
            room.write(len, &[0; 3][..pad]);
        }
        true
    }

    /// Takes in a message from a process that shares memory, and completes it and what the acknowledgement beside it ends. The
    /// acknowledgement that it asks for is left to the link, to travel with whatever this process sends next to the same
    /// peer, if there is a place for it: `left` is the link that has one left, or had it last; `None` if it is to be sent at once.
    #[inline]
    pub(crate) fn take_express(
        &self,
        nic: &Nic,
        mrs: &MrTable,
        inner: &mut Inner,
        express: &Express<'_>,
        left: Option<&mut Option<Arc<Link>>>,
    ) -> Taken {
        let Inner { proto, send, recv, lane, peer, .. } = inner;
        if inner.dirty || recv.is_shared() {
            return Taken::Not;
        }
        let Some(rc) = proto.as_rc_mut() else { return Taken::Not };
        let bth = &express.bth;
        let Some(len) = express.len().checked_sub(usize::from(bth.pad)) else { return Taken::Not };
        let ack = express.ack();
        if !rc.expects_express(bth, len, ack.as_ref()) || bth.version != 0 {
            return Taken::Not;
        }
        let Some(recv_cookie) = recv.try_take() else { return Taken::Not };
        // It is the completion that tells the program of it, not the last byte.
        let list = recv.list(recv_cookie);
        let place = |memory: &UserMemory, at, range| express.copy_to(range, memory, at);
        if len > 0 && hands::stretches(mrs, self.pd, list, 0, len, true, place).is_err() {
            recv.put_back(recv_cookie);
            return Taken::Not;
        }
        let mut lost = false;
        let owes = rc.express_receive(bth, ack.as_ref(), nic, |done| {
            lost |= self.note(self.complete_send(send, &done))
        });
        let entry = ibv_wc {
            wr_id: recv.complete(recv_cookie),
            opcode: IBV_WC_RECV,
            byte_len: len as u32,
            qp_num: self.num,
            src_qp: rc.remote_qpn().map_or(0, |qpn| qpn.get()),
            ..Default::default()
        };
        let pushed = self.recv_cq.push(entry, bth.solicited, &recv.unpolled);
        lost |= self.note(pushed.map_err(|overflow| (overflow, &*self.recv_cq)));
        let owes = owes && !leave_ack(rc, nic, lane, *peer, left);
        inner.packets = u32::from(owes);
        if ack.is_some() {
            self.rest(nic, inner);
        }
        if lost {
            self.lose(inner);
            return Taken::Drive;
        }
        if owes { Taken::Owes } else { Taken::Done }
    }

    /// Takes in an acknowledgement, and completes what it ends.
    #[inline]
    pub(crate) fn take_ack(
        &self,
        nic: &Nic,
        inner: &mut Inner,
        source: IpAddr,
        pkey: Pkey,
        ack: &Ack,
    ) -> Taken {
        if inner.dirty || !inner.accepts(source) {
            return Taken::Not;
        }
        let Inner { proto, send, .. } = inner;
        let Some(rc) = proto.as_rc_mut().filter(|rc| rc.expects_ack(pkey, ack)) else {
            return Taken::Not;
        };
        let mut lost = false;
        rc.express_acknowledged(nic, |done| lost |= self.note(self.complete_send(send, &done)));
        if lost {
            self.lose(inner);
            return Taken::Drive;
        }
        if !self.rest(nic, inner) {
            self.watch(nic, inner);
        }
        Taken::Done
    }

    /// With nothing outstanding, has the timer let it pass; false if that is not for this queue pair. With few of them a look in
    /// vain costs less than to say so, on a line that other threads' queue pairs share; and where packets may get lost the time
    /// matters from which on one is waited for.
    #[inline]
    fn rest(&self, nic: &Nic, inner: &Inner) -> bool {
        let rests = nic.fetch.is_crowd()
            && inner.patient
            && inner.stalled == Nanos::MAX
            && inner.lane.known().is_some();
        if rests {
            self.timer.rest();
        }
        rests
    }

    /// Completes the receives that a packet brought, if that is all there is to do.
    #[inline]
    pub(crate) fn complete_received(&self, inner: &mut Inner) -> bool {
        if inner.dirty || !inner.proto.as_rc().is_some_and(RcQp::has_only_received) {
            return false;
        }
        inner.packets = 0;
        if self.complete(inner) {
            self.lose(inner);
            return false;
        }
        true
    }

    /// A completion was lost, which can never be told: the queue pair is of no more use, and there is more to do.
    #[cold]
    fn lose(&self, inner: &mut Inner) {
        inner.proto.set_error();
        self.report(IBV_EVENT_QP_FATAL);
    }

    /// [`Qp::watch`] for what mostly is over before its time comes: a look that comes in vain costs less than to call each
    /// off.
    #[inline]
    fn watch_lazily(&self, nic: &Nic, inner: &mut Inner) {
        if inner.proto.poll_timeout().is_some_and(|due| due < inner.timer) {
            self.watch(nic, inner);
        }
    }
}

/// Whether something had to be repeated to a peer since the line to it was found, so that the line ends.
#[inline]
fn doubts(nic: &Nic, rc: &RcQp, repeats: &mut u64, peer: Option<Peer>) -> bool {
    let now = rc.counters().repeats();
    let doubts = now != *repeats;
    if doubts {
        *repeats = now;
        peer.inspect(|&peer| nic.wire.doubt(peer));
    }
    doubts
}

/// Leaves the acknowledgement that is asked for to the link, see [`Qp::take_express`]; false, and it is owed, if there is no place.
#[inline(always)]
fn leave_ack(
    rc: &mut RcQp,
    nic: &Nic,
    lane: &Lane,
    peer: Option<Peer>,
    left: Option<&mut Option<Arc<Link>>>,
) -> bool {
    if let Some(left) = left
        && !left.as_ref().is_some_and(|left| left.has_left())
        && let Some(link) = lane.known()
        && peer.is_some_and(|peer| nic.wire.goes_over(peer, link.id))
        && let Some((to, ack)) = rc.give_ack()
    {
        link.leave(Beside::new(to, ack));
        if left.as_ref().is_none_or(|left| left.id != link.id) {
            *left = Some(link.clone());
        }
        return true;
    }
    rc.owe_ack();
    false
}

/// The clock of a queue pair.
struct Watch<'a> {
    nic: &'a Nic,
    /// When a timer will look at it, or `Nanos::MAX`.
    look: Nanos,
}

impl Clock for Watch<'_> {
    fn now(&self) -> Nanos {
        self.nic.now()
    }

    #[inline]
    fn next_look(&self) -> Option<Nanos> {
        (self.look != Nanos::MAX).then_some(self.look)
    }
}

/// What became of an express record, or of an acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is to come as packets; nothing has happened.
    Not,
    /// All is done.
    Done,
    /// All but an acknowledgement, which is owed.
    Owes,
    /// The queue pair has to be driven.
    Drive,
}
