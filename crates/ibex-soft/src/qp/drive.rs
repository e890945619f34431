//! Driving: the transport's output becomes packets, completions, events and timers.
//!
//! Owns the order of these, and what a full completion queue does. Called with the queue pair's lock held after
//! anything that may have given the transport something to say.

use std::net::IpAddr;

use ibex_proto::{Completion, Event, Nanos, QpState, RecvCompletion, SendCompletion, WcStatus};
use ibex_sys::{
    IBV_EVENT_COMM_EST, IBV_EVENT_QP_ACCESS_ERR, IBV_EVENT_QP_FATAL, IBV_EVENT_QP_LAST_WQE_REACHED,
    IBV_EVENT_QP_REQ_ERR, IBV_EVENT_SQ_DRAINED, IBV_WC_GRH, IBV_WC_RECV, IBV_WC_WITH_IMM, IBV_WC_WITH_INV,
    IBV_WC_WR_FLUSH_ERR, ibv_wc, ibv_wc_imm, ibv_wc_opcode, ibv_wc_status,
};
use ibex_wire::{ICRC_LEN, Packet};

use super::hands::Hands;
use super::{Inner, Qp, RecvQueue, SendQueue};
use crate::ah;
use crate::cq::{Cq, Overflow};
use crate::device::AsyncEvent;
use crate::mr::MrTable;
use crate::net::{Peer, TxBatch};
use crate::nic::Nic;

/// Packets for one queue pair in one round up to which it looks like a conversation, where an answer is likely to be
/// posted; more looks like a stream, whose sender should have its acknowledgement.
const LATENCY_PACKETS: u32 = 2;

/// Least time between two attempts of a queue pair to find out what its peer at another address is.
const ASK_EVERY: Nanos = 10_000_000;

/// Bytes of a UDP header.
const UDP_HEADER: usize = 8;

/// Bytes of the UDP datagram that a packet came in, its header included.
fn udp_len(packet: &Packet<'_>) -> u16 {
    let bth = packet.bth();
    let bytes =
        UDP_HEADER + bth.opcode.header_len() + packet.payload().len() + usize::from(bth.pad) + ICRC_LEN;
    // No packet of the link's is as long as 64 KiB.
    u16::try_from(bytes).unwrap_or(u16::MAX)
}

impl Qp {
    /// Takes in one packet; [`Qp::drive_with`] must follow, if only after a batch. False if it was not for this queue
    /// pair.
    pub(crate) fn receive(
        &self,
        inner: &mut Inner,
        mrs: &MrTable,
        now: Nanos,
        source: IpAddr,
        packet: &Packet<'_>,
    ) -> bool {
        if !inner.accepts(source) {
            return false;
        }
        let mut hands = Hands { mrs, pd: self.pd, qpn: self.num, send: &inner.send, recv: &mut inner.recv };
        if self.is_datagram() {
            let grh = ah::write_header(source, self.own, udp_len(packet));
            inner.proto.handle_datagram(now, packet, &grh, &mut hands);
        } else {
            inner.proto.handle_packet(now, packet, &mut hands);
        }
        inner.packets += 1;
        true
    }

    /// [`Qp::drive_with`] for a caller that polls: if all there is to send is an acknowledgement, leaves it for a request
    /// that the caller may be about to post. True if it was left; then [`Qp::drive_with`] must follow soon.
    pub(crate) fn drive_lazily(
        &self,
        nic: &Nic,
        mrs: &MrTable,
        inner: &mut Inner,
        tx: &mut TxBatch,
        now: Nanos,
    ) -> bool {
        let lazy =
            inner.proto.owes_only_ack() && inner.packets <= LATENCY_PACKETS && !inner.proto.wants_request();
        // What is held back may go on now.
        let lazy = lazy && !Qp::holds(inner);
        inner.packets = 0;
        if lazy {
            self.settle(nic, mrs, inner, None, now);
            self.watch(nic, inner);
        } else {
            self.drive_with(nic, mrs, inner, tx, now);
        }
        lazy
    }

    /// Carries out what a timer is due for, if it is.
    pub(crate) fn timeout(&self, nic: &Nic, mrs: &MrTable, inner: &mut Inner, tx: &mut TxBatch, now: Nanos) {
        inner.timer = Nanos::MAX;
        if inner.proto.poll_timeout().is_some_and(|due| due <= now) {
            inner.proto.handle_timeout(now);
        }
        let timeouts = inner.proto.counters().timeouts;
        if timeouts != inner.timeouts {
            inner.timeouts = timeouts;
            // The peer may have been replaced by another process behind the port learned for it.
            if let Some(peer) = inner.peer {
                nic.wire.hello(peer);
            }
        }
        self.drive_with(nic, mrs, inner, tx, now);
    }

    /// [`Qp::drive_with`], with a transmit buffer of the device's.
    pub(crate) fn drive(&self, nic: &Nic, mrs: &MrTable, inner: &mut Inner) {
        let mut tx = nic.batch();
        inner.packets = 0;
        self.settle(nic, mrs, inner, Some(&mut tx), nic.now());
        tx.flush(&nic.wire);
        // The peer need not wait for this.
        self.watch(nic, inner);
        nic.return_batch(tx);
    }

    /// Sends what is owed; takes no lock. The caller flushes `tx`.
    pub(crate) fn pay(&self, nic: &Nic, mrs: &MrTable, inner: &mut Inner, tx: &mut TxBatch, now: Nanos) {
        if inner.owes() {
            self.transmit(nic, mrs, inner, tx, now);
            self.watch(nic, inner);
        }
    }

    /// Drains the transport. The caller flushes `tx`.
    pub(crate) fn drive_with(
        &self,
        nic: &Nic,
        mrs: &MrTable,
        inner: &mut Inner,
        tx: &mut TxBatch,
        now: Nanos,
    ) {
        inner.packets = 0;
        self.settle(nic, mrs, inner, Some(tx), now);
        self.watch(nic, inner);
    }

    /// Drains the transport, its packets only if there is a buffer for them.
    fn settle(&self, nic: &Nic, mrs: &MrTable, inner: &mut Inner, mut tx: Option<&mut TxBatch>, now: Nanos) {
        loop {
            let more = Qp::holds(inner) && self.carry_out_held(nic, mrs, inner);
            if let Some(tx) = &mut tx {
                self.transmit(nic, mrs, inner, tx, now);
            }
            if more {
                inner.stalled = nic.stall(now, self.num);
            }
            let overflow = self.complete(inner);
            self.flush_receives(inner);
            if inner.proto.state() == QpState::Err {
                self.withdraw(nic, inner);
                self.forget_far(nic, inner);
            }
            while let Some(event) = inner.proto.poll_event() {
                self.report(match event {
                    Event::CommEst => {
                        self.publish(nic, inner);
                        IBV_EVENT_COMM_EST
                    }
                    Event::SqDrained => {
                        inner.draining = false;
                        if inner.attr.en_sqd_async_notify == 0 {
                            continue;
                        }
                        IBV_EVENT_SQ_DRAINED
                    }
                    Event::QpReqErr => IBV_EVENT_QP_REQ_ERR,
                    Event::QpAccessErr => IBV_EVENT_QP_ACCESS_ERR,
                    Event::QpFatal => IBV_EVENT_QP_FATAL,
                });
            }
            if !overflow || inner.proto.state() == QpState::Err {
                break;
            }
            // A lost completion can never be told: the queue pair is of no more use.
            inner.proto.set_error();
            self.report(IBV_EVENT_QP_FATAL);
        }
    }

    /// Tells the timers what follows from what was done.
    #[inline]
    pub(super) fn watch(&self, nic: &Nic, inner: &mut Inner) {
        let due = inner.proto.poll_timeout().map_or(inner.stalled, |due| due.min(inner.stalled));
        // After a rest the thread may look later than the deadline entered says.
        let rested = self.timer.wake() && due != Nanos::MAX;
        if due < inner.timer || rested {
            nic.timer(&self.timer, due);
        } else if due > inner.timer {
            self.timer.put_off(due);
        }
        inner.timer = due;
    }

    fn transmit(&self, nic: &Nic, mrs: &MrTable, inner: &mut Inner, tx: &mut TxBatch, now: Nanos) {
        inner.stalled = Nanos::MAX;
        if !inner.proto.wants_transmit() {
            return;
        }
        let Some(peer) = inner.peer else {
            self.transmit_datagrams(nic, mrs, inner, tx, now);
            return;
        };
        let proto = &mut inner.proto;
        let mut hands = Hands { mrs, pd: self.pd, qpn: self.num, send: &inner.send, recv: &mut inner.recv };
        if proto.owes_only_ack() && peer.address == nic.wire.address() {
            // A batch's last packet may be shorter than the others: behind a request the acknowledgement costs nothing.
            // On this address it is taken as a whole; who is elsewhere may see an answer before the acknowledgement of
            // what it answers, which programs with short send queues do not expect.
            tx.push(&nic.wire, peer, |buf| {
                proto.poll_request(now, &mut hands, buf).map_or(0, |packet| packet.len)
            });
        }
        while tx.push(&nic.wire, peer, |buf| {
            proto.poll_transmit(now, &mut hands, buf).map_or(0, |packet| packet.len)
        }) {}
        if tx.is_lined() {
            if inner.line_looked != Some(nic.wire.line_changes()) {
                self.look_for_line(nic, inner, peer);
            }
        } else if now >= inner.ask_at && peer.address != nic.wire.address() {
            inner.ask_at = now + ASK_EVERY;
            nic.wire.hello(peer);
        }
        if tx.take_stalled() {
            inner.stalled = nic.stall(now, self.num);
        }
    }

    /// Finds the line to the peer, if there is one.
    #[cold]
    fn look_for_line(&self, nic: &Nic, inner: &mut Inner, peer: Peer) {
        // What gets lost there, for whatever reason, is to be repeated.
        let repeats = inner.attr.retry_cnt > 0 && inner.attr.timeout > 0;
        inner.line = nic.wire.line(peer).filter(|line| repeats || !line.is_abroad());
        inner.line_looked = Some(nic.wire.line_changes());
        inner.repeats = inner.proto.counters().repeats();
    }

    /// [`Qp::transmit`] where each packet has a destination of its own.
    fn transmit_datagrams(&self, nic: &Nic, mrs: &MrTable, inner: &mut Inner, tx: &mut TxBatch, now: Nanos) {
        let Inner { proto, send, recv, .. } = inner;
        let mut hands = Hands { mrs, pd: self.pd, qpn: self.num, send, recv };
        while let Some(to) = proto.next_address().and_then(|cookie| hands.send.peer(cookie)) {
            let pushed = tx.push(&nic.wire, to, |buf| {
                proto.poll_transmit(now, &mut hands, buf).map_or(0, |packet| packet.len)
            });
            if !pushed {
                break;
            }
        }
        if tx.take_stalled() {
            inner.stalled = nic.stall(now, self.num);
        }
    }

    /// Moves completions to their queues; true if one was lost.
    pub(super) fn complete(&self, inner: &mut Inner) -> bool {
        let mut lost = false;
        while let Some(completion) = inner.proto.poll_completion() {
            let outcome = match completion {
                Completion::Send(done) => self.complete_send(&mut inner.send, &done),
                Completion::Recv(done) => self.complete_recv(&mut inner.recv, &done),
            };
            lost |= self.note(outcome);
        }
        lost
    }

    #[inline]
    pub(super) fn complete_send(
        &self,
        send: &mut SendQueue,
        done: &SendCompletion,
    ) -> Result<(), (Overflow, &Cq)> {
        let wr_id = send.complete(done.cookie);
        if done.status == WcStatus::SUCCESS && !done.signaled {
            return Ok(());
        }
        let entry = ibv_wc {
            wr_id,
            status: ibv_wc_status(done.status.0),
            opcode: ibv_wc_opcode(done.opcode.0),
            byte_len: done.byte_len,
            qp_num: self.num,
            ..Default::default()
        };
        self.send_cq.push(entry, false, &send.unpolled).map_err(|overflow| (overflow, &*self.send_cq))
    }

    pub(super) fn complete_recv(
        &self,
        recv: &mut RecvQueue,
        done: &RecvCompletion,
    ) -> Result<(), (Overflow, &Cq)> {
        let mut entry = ibv_wc {
            wr_id: recv.complete(done.cookie),
            status: ibv_wc_status(done.status.0),
            opcode: ibv_wc_opcode(done.opcode.0),
            byte_len: done.byte_len,
            qp_num: self.num,
            src_qp: done.src_qpn.get(),
            ..Default::default()
        };
        if done.grh {
            entry.wc_flags |= IBV_WC_GRH.0;
        }
        if let Some(imm) = done.imm {
            entry.imm = ibv_wc_imm { imm_data: u32::from_ne_bytes(imm) };
            entry.wc_flags |= IBV_WC_WITH_IMM.0;
        }
        if let Some(rkey) = done.invalidated {
            entry.imm = ibv_wc_imm { invalidated_rkey: rkey.0 };
            entry.wc_flags |= IBV_WC_WITH_INV.0;
        }
        self.recv_cq
            .push(entry, done.solicited, &recv.unpolled)
            .map_err(|overflow| (overflow, &*self.recv_cq))
    }

    /// In ERR, completes the receive requests the transport has not taken. Those of a shared receive queue stay there for
    /// others: the program learns that no more will be taken, once what was taken has completed.
    fn flush_receives(&self, inner: &mut Inner) {
        if inner.proto.state() != QpState::Err {
            return;
        }
        if inner.recv.is_shared() {
            if !inner.last_wqe_told {
                inner.last_wqe_told = true;
                self.report(IBV_EVENT_QP_LAST_WQE_REACHED);
            }
            return;
        }
        while let Some(cookie) = inner.recv.take() {
            let entry = ibv_wc {
                wr_id: inner.recv.complete(cookie),
                status: IBV_WC_WR_FLUSH_ERR,
                opcode: IBV_WC_RECV,
                qp_num: self.num,
                ..Default::default()
            };
            // The queue pair is in ERR already: the overflow's event is all that is left to do.
            let pushed = self.recv_cq.push(entry, false, &inner.recv.unpolled);
            self.note(pushed.map_err(|overflow| (overflow, &*self.recv_cq)));
        }
    }

    /// Reports a completion queue that overflowed; true if the completion was lost.
    pub(super) fn note(&self, outcome: Result<(), (Overflow, &Cq)>) -> bool {
        match outcome {
            Ok(()) => false,
            Err((overflow, cq)) => {
                if overflow.first {
                    self.events.push(AsyncEvent::Cq(ibex_sys::IBV_EVENT_CQ_ERR, cq.name));
                }
                true
            }
        }
    }
}
