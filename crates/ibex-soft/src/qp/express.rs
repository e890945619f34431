//! Short messages to a process that shares memory: from the program's buffer into the ring, in one step.
//!
//! Owns this way of sending, and of completing what it brings. The packets are those of the usual way, and so is what
//! follows from them; what is left out is the search for anything else to do, of which the transport says that there
//! is nothing ([`ibex_proto::RcQp::express_send`]). Whatever does not go this way goes the usual one ([`super::drive`]).

use std::sync::Arc;

use ibex_proto::{RcQp, SendOp, SendWqe};
use ibex_sys::IBV_EVENT_QP_FATAL;
use ibex_wire::{Aeth, Bth};

use super::hands::Hands;
use super::post::SendRequest;
use super::queue::Payload;
use super::{Inner, Qp, hands};
use crate::host::{self, Link, Room};
use crate::mr::MrTable;
use crate::net::{Peer, TxBatch};
use crate::nic::Nic;

/// Most bytes of payload: a packet that is copied twice in less time than is saved.
const MOST: usize = 480;

/// Bytes of its record, and of one with an acknowledgement behind it.
const RECORD: usize = host::record(Bth::LEN + MOST);
const ACK_RECORD: usize = host::record(Bth::LEN + Aeth::LEN);

/// The link that a queue pair's messages go over, as found last.
#[derive(Default)]
pub(super) struct Lane(Option<Arc<Link>>);

impl Lane {
    /// The link to the peer, if there is one now.
    #[inline]
    fn find(&mut self, nic: &Nic, peer: Option<Peer>) -> Option<&Link> {
        let id = nic.wire.lane_to(peer?)?;
        if self.0.as_ref().is_none_or(|link| link.id != id) {
            self.0 = if nic.wire.wants_packets() { None } else { nic.wire.link(id) };
        }
        self.0.as_deref().filter(|link| !link.is_down())
    }

    /// Forgets it: the queue pair has no peer, or another.
    pub(super) fn forget(&mut self) {
        self.0 = None;
    }
}

impl Qp {
    /// Sends a message that is being posted; false if it has to be posted. The caller has checked that the queue has room,
    /// which is `cookie`'s slot.
    #[inline]
    pub(super) fn express(
        &self,
        nic: &Nic,
        mrs: &MrTable,
        inner: &mut Inner,
        request: &SendRequest<'_>,
        cookie: u64,
        len: u32,
    ) -> bool {
        let SendOp::Send { imm: None, inv: None } = request.op else { return false };
        if len as usize > MOST {
            return false;
        }
        let Some(link) = inner.lane.find(nic, inner.peer) else { return false };
        let mut records = [0; RECORD + ACK_RECORD];
        if link.room(records.len()) != Room::Yes {
            return false;
        }
        let start = host::HEADER + Bth::LEN;
        let payload = &mut records[start..start + len as usize];
        match request.payload {
            Payload::Gather(list) => {
                if len > 0 && hands::gather(mrs, self.pd, list, payload).is_err() {
                    return false;
                }
            }
            Payload::Inline(_, copy) => copy(payload),
            Payload::Bind(_) => return false,
        }
        let wqe = SendWqe {
            cookie,
            op: request.op,
            len,
            signaled: request.signaled || self.sq_sig_all,
            fence: request.fence,
            solicited: request.solicited,
        };
        let Some(rc) = inner.proto.as_rc_mut() else { return false };
        let Some(packet) = rc.express_send(wqe, &mut records[host::HEADER..], || nic.now()) else {
            return false;
        };
        records[..host::HEADER].copy_from_slice(&host::header(packet));
        let (mut end, mut count) = (host::record(packet), 1);
        let mut hands = Hands { mrs, pd: self.pd, qpn: self.num, send: &inner.send, recv: &mut inner.recv };
        if let Some(ack) = rc.express_ack(&mut hands, &mut records[end + host::HEADER..]) {
            records[end..end + host::HEADER].copy_from_slice(&host::header(ack));
            (end, count) = (end + host::record(ack), 2);
        }
        TxBatch::send_records(&nic.wire, link, &records[..end], count);
        // Kept for the case that it has to be sent again.
        inner.send.push(request.wr_id, request.payload);
        self.watch(nic, inner);
        true
    }

    /// Completes the receives that a packet brought, if that is all there is to do.
    #[inline]
    pub(crate) fn complete_received(&self, inner: &mut Inner) -> bool {
        if inner.dirty || !inner.proto.as_rc().is_some_and(RcQp::has_only_received) {
            return false;
        }
        inner.packets = 0;
        if self.complete(inner) {
            // A lost completion can never be told: the queue pair is of no more use, which is more to do.
            inner.proto.set_error();
            self.report(IBV_EVENT_QP_FATAL);
            return false;
        }
        true
    }
}
