//! A queue pair of an unreliable service: its state, and its send queue.
//!
//! Owns what UC and UD have in common: requests go out in order, each once, and complete when their last packet has been
//! handed to the link; a local failure stops the send queue alone (SQE). What arrives is `uc.rs`'s and `ud.rs`'s.
//! IBTA 9.8 (unreliable services), 10.3.1 (states), 9.9.2.4.2 (their requester's errors).

use std::collections::VecDeque;

use ibex_wire::{
    Bth, Deth, Header, ImmDt, Mtu, Opcode, Packet, Pkey, Psn, Qkey, Qpn, Reth, Service, padding,
};

use crate::output::Output;
use crate::requester::completion;
use crate::uc::UcReceiver;
use crate::ud::UdReceiver;
use crate::{
    BadTransition, Event, Host, InitAttr, LocalFault, MAX_MESSAGE, PostError, QpState, QpType, RcCaps,
    RecvWqe, RemoteAccess, RtrAttr, RtsAttr, SendOp, SendWqe, Transmit, WcStatus,
};

/// The queue pair cannot go on: its receive request's own memory cannot be reached.
pub(crate) struct Fatal;

/// A queue pair of UC or UD.
pub(crate) struct Unreliable {
    pub(crate) qp_type: QpType,
    pub(crate) state: QpState,
    pub(crate) caps: RcCaps,
    pub(crate) access: RemoteAccess,
    pub(crate) qkey: Qkey,
    pkey: Pkey,
    /// From RTR on.
    receiving: Option<Receiving>,
    /// Posted and not completed. The first one may have been sent in part.
    sq: VecDeque<SendWqe>,
    /// Packets of the first request that have been sent.
    sent: u32,
    /// The number of the next packet.
    pub(crate) psn: Psn,
    /// SQD is to be reported.
    notify_drained: bool,
    pub(crate) out: Output,
}

/// What exists from RTR on.
struct Receiving {
    remote_qpn: Qpn,
    mtu: Mtu,
    receiver: Receiver,
    /// A packet has arrived.
    established: bool,
}

enum Receiver {
    Uc(UcReceiver),
    Ud(UdReceiver),
}

impl Unreliable {
    /// A queue pair in RESET.
    pub(crate) fn new(qp_type: QpType, caps: RcCaps) -> Unreliable {
        Unreliable {
            qp_type,
            state: QpState::Reset,
            caps,
            access: RemoteAccess::NONE,
            qkey: Qkey(0),
            pkey: Pkey::DEFAULT,
            receiving: None,
            sq: VecDeque::new(),
            sent: 0,
            psn: Psn::new(0),
            notify_drained: false,
            out: Output::new(),
        }
    }

    pub(crate) fn remote_qpn(&self) -> Option<Qpn> {
        self.receiving.as_ref().filter(|_| self.qp_type != QpType::Ud).map(|receiving| receiving.remote_qpn)
    }

    pub(crate) fn path_mtu(&self) -> Option<Mtu> {
        self.receiving.as_ref().map(|receiving| receiving.mtu)
    }

    pub(crate) fn rq_psn(&self) -> Psn {
        match self.receiving.as_ref().map(|receiving| &receiving.receiver) {
            Some(Receiver::Uc(receiver)) => receiver.expected,
            _ => Psn::new(0),
        }
    }

    pub(crate) fn enter_init(&mut self, attr: InitAttr) -> Result<(), BadTransition> {
        self.step(&[QpState::Reset, QpState::Init], QpState::Init)?;
        self.access = attr.access;
        self.pkey = attr.pkey;
        Ok(())
    }

    pub(crate) fn enter_rtr(&mut self, attr: RtrAttr) -> Result<(), BadTransition> {
        self.step(&[QpState::Init], QpState::Rtr)?;
        let receiver = match self.qp_type {
            QpType::Ud => Receiver::Ud(UdReceiver::default()),
            _ => Receiver::Uc(UcReceiver::new(&attr)),
        };
        self.receiving =
            Some(Receiving { remote_qpn: attr.remote_qpn, mtu: attr.path_mtu, receiver, established: false });
        Ok(())
    }

    pub(crate) fn enter_rts(&mut self, attr: RtsAttr) -> Result<(), BadTransition> {
        self.step(&[QpState::Rtr], QpState::Rts)?;
        self.psn = attr.sq_psn;
        Ok(())
    }

    pub(crate) fn enter_sqd(&mut self, notify: bool) -> Result<(), BadTransition> {
        self.step(&[QpState::Rts], QpState::Sqd)?;
        self.notify_drained = notify;
        self.report_drained();
        Ok(())
    }

    /// SQD or SQE → RTS.
    pub(crate) fn resume(&mut self) -> Result<(), BadTransition> {
        self.step(&[QpState::Sqd, QpState::Sqe], QpState::Rts)?;
        self.notify_drained = false;
        Ok(())
    }

    pub(crate) fn set_error(&mut self) {
        self.state = QpState::Err;
        self.notify_drained = false;
        let held = self.receiving.as_mut().and_then(|receiving| match &mut receiving.receiver {
            Receiver::Uc(receiver) => receiver.take_held(),
            Receiver::Ud(receiver) => receiver.held.take(),
        });
        if let Some(recv) = held {
            self.out.recv_done(crate::uc::failed(recv, WcStatus::WR_FLUSH_ERR));
        }
        self.flush_sends();
    }

    pub(crate) fn reset(&mut self) {
        self.state = QpState::Reset;
        self.receiving = None;
        self.sq.clear();
        self.sent = 0;
        self.notify_drained = false;
        self.out.clear();
    }

    #[inline]
    pub(crate) fn post_send(&mut self, wqe: SendWqe) -> Result<(), PostError> {
        let has = match (self.qp_type, wqe.op) {
            (QpType::Ud, SendOp::Datagram { .. }) => true,
            (QpType::Ud, _) | (_, SendOp::Datagram { .. }) => false,
            (_, SendOp::Send { imm, inv }) => inv.is_none() || imm.is_some(),
            (_, SendOp::Write { .. } | SendOp::LocalInv { .. } | SendOp::BindMw) => true,
            (_, SendOp::Read { .. } | SendOp::CompareSwap { .. } | SendOp::FetchAdd { .. }) => false,
        };
        if !has {
            return Err(PostError::Operation { operation: wqe.op.wc_opcode(), qp_type: self.qp_type });
        }
        let queued = self.sq.len() + self.out.unfetched_sends();
        match (self.state, &self.receiving) {
            (QpState::Rts | QpState::Sqd, Some(receiving)) => {
                let max = receiving.mtu.bytes() as u32;
                if self.qp_type == QpType::Ud && wqe.len > max {
                    return Err(PostError::TooLong { len: wqe.len, max });
                }
                if queued >= self.caps.sq_depth as usize {
                    return Err(PostError::Full);
                }
                self.sq.push_back(wqe);
            }
            (QpState::Err | QpState::Sqe, _) => {
                if queued >= self.caps.sq_depth as usize {
                    return Err(PostError::Full);
                }
                self.out.send_done(completion(&wqe, WcStatus::WR_FLUSH_ERR));
            }
            (state, _) => return Err(PostError::State(state)),
        }
        Ok(())
    }

    /// Takes in one packet. `grh` is the network header it came with, if the link has it.
    #[inline]
    pub(crate) fn handle_packet<H: Host>(
        &mut self,
        packet: &Packet<'_>,
        grh: Option<&[u8; 40]>,
        host: &mut H,
    ) {
        let counters = &mut self.out.counters;
        counters.received += 1;
        let service = if self.qp_type == QpType::Ud { Service::Ud } else { Service::Uc };
        let bth = packet.bth();
        let ready = matches!(self.state, QpState::Rtr | QpState::Rts | QpState::Sqd | QpState::Sqe);
        let (true, Some(receiving)) = (ready, &mut self.receiving) else {
            counters.dropped += 1;
            return;
        };
        if bth.opcode.service() != service || !bth.pkey.matches(self.pkey) {
            counters.dropped += 1;
            return;
        }
        let handled = match &mut receiving.receiver {
            Receiver::Uc(receiver) => {
                if !receiving.established {
                    receiving.established = true;
                    if self.state == QpState::Rtr {
                        self.out.event(Event::CommEst);
                    }
                }
                receiver.handle(packet, self.access, host, &mut self.out)
            }
            Receiver::Ud(receiver) => {
                receiver.handle(packet, self.qkey, receiving.mtu, grh, host, &mut self.out)
            }
        };
        if let Err(Fatal) = handled {
            self.set_error();
        }
    }

    /// The address that the next packet goes to, for datagrams.
    #[inline]
    pub(crate) fn next_address(&self) -> Option<u64> {
        match (self.state, self.sq.front()?.op) {
            (QpState::Rts, SendOp::Datagram { address, .. }) => Some(address),
            _ => None,
        }
    }

    #[inline]
    pub(crate) fn wants_transmit(&self) -> bool {
        match self.state {
            QpState::Rts => !self.sq.is_empty(),
            // A message begun is finished.
            QpState::Sqd => self.sent > 0,
            _ => false,
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.sq.is_empty()
    }

    /// Writes the next packet.
    #[inline]
    pub(crate) fn poll_transmit<H: Host>(&mut self, host: &mut H, buf: &mut [u8]) -> Option<Transmit> {
        while self.wants_transmit() {
            let wqe = self.sq.front()?;
            let sent = match wqe.op {
                SendOp::LocalInv { rkey } => host.local_invalidate(rkey).map(|()| None),
                SendOp::BindMw => host.bind(wqe.cookie).map(|()| None),
                _ => match self.packet(host, buf) {
                    // No room in `buf`.
                    Ok(None) => return None,
                    other => other,
                },
            };
            match sent {
                Ok(Some(transmit)) => {
                    self.out.counters.sent += 1;
                    self.psn = self.psn.next();
                    self.sent += 1;
                    if !transmit.more {
                        self.finish(WcStatus::SUCCESS);
                        self.report_drained();
                    }
                    return Some(transmit);
                }
                Ok(None) => self.finish(WcStatus::SUCCESS),
                Err(fault) => {
                    self.finish(fault.status());
                    self.stop();
                }
            }
        }
        None
    }

    /// One packet of the first request; [`Transmit::more`] says that it was not its last. `Ok(None)` if `buf` is too short.
    #[inline]
    fn packet<H: Host>(&self, host: &mut H, buf: &mut [u8]) -> Result<Option<Transmit>, LocalFault> {
        let (Some(wqe), Some(receiving)) = (self.sq.front(), &self.receiving) else {
            return Err(LocalFault::Operation);
        };
        if wqe.len > MAX_MESSAGE {
            return Err(LocalFault::Length);
        }
        let mtu = receiving.mtu;
        let offset = self.sent << mtu.shift();
        let len = (wqe.len - offset).min(mtu.bytes() as u32) as usize;
        let first = self.sent == 0;
        let last = self.sent + 1 == mtu.packets(wqe.len);
        let (opcode, dest_qpn, imm) = match wqe.op {
            SendOp::Send { imm, .. } => (send_opcode(first, last, imm.is_some()), receiving.remote_qpn, imm),
            SendOp::Write { imm, .. } => {
                (write_opcode(first, last, imm.is_some()), receiving.remote_qpn, imm)
            }
            SendOp::Datagram { remote_qpn, imm, .. } => {
                let opcode = if imm.is_some() { Opcode::UD_SEND_ONLY_IMM } else { Opcode::UD_SEND_ONLY };
                (opcode, remote_qpn, imm)
            }
            _ => return Err(LocalFault::Operation),
        };
        let pad = padding(len);
        let bth = Bth {
            solicited: wqe.solicited && last,
            pad: pad as u8,
            pkey: self.pkey,
            ..Bth::new(opcode, dest_qpn, self.psn)
        };
        let extended = bth.put(buf).and_then(|rest| match wqe.op {
            SendOp::Write { rkey, va, .. } if first => (Reth { va, rkey, len: wqe.len }).put(rest),
            SendOp::Datagram { qkey, .. } => {
                let qkey = if qkey.0 & PRIVILEGED != 0 { self.qkey } else { qkey };
                (Deth { qkey, src_qpn: self.caps.local_qpn }).put(rest)
            }
            _ => Some(rest),
        });
        let rest = extended.and_then(|rest| match imm {
            Some(imm) if last => ImmDt(imm).put(rest),
            _ => Some(rest),
        });
        let Some(payload) = rest.and_then(|rest| rest.get_mut(..len + pad)) else { return Ok(None) };
        if len > 0 {
            host.gather(wqe.cookie, offset, &mut payload[..len])?;
            payload[len..].fill(0);
        }
        Ok(Some(Transmit { len: opcode.header_len() + len + pad, more: !last }))
    }

    /// Completes the first request.
    #[inline]
    fn finish(&mut self, status: WcStatus) {
        self.sent = 0;
        if let Some(wqe) = self.sq.pop_front() {
            self.out.send_done(completion(&wqe, status));
        }
    }

    /// The send queue stops; receiving goes on.
    fn stop(&mut self) {
        self.state = QpState::Sqe;
        self.notify_drained = false;
        self.flush_sends();
    }

    fn flush_sends(&mut self) {
        while !self.sq.is_empty() {
            self.finish(WcStatus::WR_FLUSH_ERR);
        }
    }

    #[inline]
    fn report_drained(&mut self) {
        if self.notify_drained && self.state == QpState::Sqd && self.sent == 0 {
            self.notify_drained = false;
            self.out.event(Event::SqDrained);
        }
    }

    fn step(&mut self, from: &[QpState], to: QpState) -> Result<(), BadTransition> {
        if !from.contains(&self.state) {
            return Err(BadTransition { from: self.state, to });
        }
        self.state = to;
        Ok(())
    }
}

/// The bit of a request's Q_Key that stands for the sending queue pair's own (IBTA 10.2.5).
const PRIVILEGED: u32 = 1 << 31;

/// A receive request for the next message: the one left over from a message that was dropped, or the host's next.
pub(crate) fn next_recv<H: Host>(held: &mut Option<RecvWqe>, host: &mut H) -> Option<RecvWqe> {
    held.take().or_else(|| host.take_recv())
}

fn send_opcode(first: bool, last: bool, imm: bool) -> Opcode {
    match (first, last) {
        (true, false) => Opcode::UC_SEND_FIRST,
        (false, false) => Opcode::UC_SEND_MIDDLE,
        (false, true) if imm => Opcode::UC_SEND_LAST_IMM,
        (false, true) => Opcode::UC_SEND_LAST,
        (true, true) if imm => Opcode::UC_SEND_ONLY_IMM,
        (true, true) => Opcode::UC_SEND_ONLY,
    }
}

fn write_opcode(first: bool, last: bool, imm: bool) -> Opcode {
    match (first, last) {
        (true, false) => Opcode::UC_WRITE_FIRST,
        (false, false) => Opcode::UC_WRITE_MIDDLE,
        (false, true) if imm => Opcode::UC_WRITE_LAST_IMM,
        (false, true) => Opcode::UC_WRITE_LAST,
        (true, true) if imm => Opcode::UC_WRITE_ONLY_IMM,
        (true, true) => Opcode::UC_WRITE_ONLY,
    }
}
