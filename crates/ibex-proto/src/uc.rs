//! What an unreliable connection does with a packet.
//!
//! Owns the rule that a message is whole or not there: a packet that is missing, out of place, too long or not allowed
//! drops the message it belongs to, in silence, and the next first packet begins anew with whatever number it has. The
//! receive request of a dropped message serves the next one. Bytes of a dropped WRITE may have been stored.
//! IBTA 9.8.2 (unreliable connection), 9.9.3 (classes D and E of responder errors).

use ibex_wire::{Mtu, Packet, Psn, Qpn, Reth, Rkey};

use crate::output::Output;
use crate::unreliable::{Fatal, next_recv};
use crate::{Host, MAX_MESSAGE, RecvCompletion, RecvWqe, RemoteAccess, RtrAttr, WcOpcode, WcStatus};

/// The message of which packets have come, but not the last one.
#[derive(Clone, Copy)]
enum Message {
    /// None, or one that is being dropped: only a first packet is welcome.
    None,
    Send {
        recv: RecvWqe,
        filled: u32,
    },
    Write {
        rkey: Rkey,
        va: u64,
        filled: u32,
        total: u32,
    },
}

/// Why a packet was not taken.
enum Stop {
    /// Its message is dropped.
    Drop,
    /// A receive request of this end failed.
    Fatal,
}

/// The receiving half of an unreliable connection.
pub(crate) struct UcReceiver {
    /// The number after that of the last packet taken.
    pub(crate) expected: Psn,
    message: Message,
    /// The receive request of a message that was dropped.
    held: Option<RecvWqe>,
    mtu: Mtu,
    remote_qpn: Qpn,
}

impl UcReceiver {
    pub(crate) fn new(attr: &RtrAttr) -> UcReceiver {
        UcReceiver {
            expected: attr.rq_psn,
            message: Message::None,
            held: None,
            mtu: attr.path_mtu,
            remote_qpn: attr.remote_qpn,
        }
    }

    /// Gives up the receive request in use, if there is one.
    pub(crate) fn take_held(&mut self) -> Option<RecvWqe> {
        self.drop_message();
        self.held.take()
    }

    /// The message being received will not be whole.
    fn drop_message(&mut self) {
        if let Message::Send { recv, .. } = self.message {
            self.held = Some(recv);
        }
        self.message = Message::None;
    }

    /// Takes in a packet.
    #[inline]
    pub(crate) fn handle<H: Host>(
        &mut self,
        packet: &Packet<'_>,
        access: RemoteAccess,
        host: &mut H,
        out: &mut Output,
    ) -> Result<(), Fatal> {
        let bth = packet.bth();
        let opcode = bth.opcode;
        let len = packet.payload().len();
        let mtu = self.mtu.bytes();
        if opcode.starts_message() {
            if !matches!(self.message, Message::None) {
                out.counters.lost += 1;
                self.drop_message();
            }
        } else {
            let continues = match self.message {
                Message::None => false,
                Message::Send { .. } => opcode.is_send(),
                Message::Write { .. } => opcode.is_write(),
            };
            if !continues || bth.psn != self.expected {
                out.counters.lost += 1;
                self.drop_message();
                return Ok(());
            }
        }
        self.expected = bth.psn.next();
        let fits = match (opcode.starts_message(), opcode.ends_message()) {
            (_, false) => len == mtu,
            (true, true) => len <= mtu,
            (false, true) => (1..=mtu).contains(&len),
        };
        let taken = match () {
            () if !fits => Err(Stop::Drop),
            () if opcode.is_send() => self.send(packet, host, out),
            () => self.write(packet, access, host, out),
        };
        match taken {
            Ok(()) => Ok(()),
            Err(Stop::Drop) => {
                out.counters.lost += 1;
                self.drop_message();
                Ok(())
            }
            Err(Stop::Fatal) => Err(Fatal),
        }
    }

    /// A packet of a SEND, in its place.
    #[inline]
    fn send<H: Host>(&mut self, packet: &Packet<'_>, host: &mut H, out: &mut Output) -> Result<(), Stop> {
        let payload = packet.payload();
        let last = packet.opcode().ends_message();
        let (recv, filled) = match self.message {
            Message::Send { recv, filled } => (recv, filled),
            _ => (next_recv(&mut self.held, host).ok_or(Stop::Drop)?, 0),
        };
        self.message = Message::Send { recv, filled };
        let len = payload.len() as u32;
        if len > recv.capacity.min(MAX_MESSAGE) - filled {
            return Err(Stop::Drop);
        }
        if len > 0
            && let Err(fault) = host.place(recv.cookie, filled, payload, last)
        {
            self.message = Message::None;
            out.recv_done(failed(recv, fault.status()));
            return Err(Stop::Fatal);
        }
        let filled = filled + len;
        if !last {
            self.message = Message::Send { recv, filled };
            return Ok(());
        }
        self.message = Message::None;
        out.recv_done(self.arrived(packet, recv, WcOpcode::RECV, filled));
        Ok(())
    }

    /// A packet of a WRITE, in its place.
    #[inline]
    fn write<H: Host>(
        &mut self,
        packet: &Packet<'_>,
        access: RemoteAccess,
        host: &mut H,
        out: &mut Output,
    ) -> Result<(), Stop> {
        let payload = packet.payload();
        let last = packet.opcode().ends_message();
        let (rkey, va, filled, total) = match self.message {
            Message::Write { rkey, va, filled, total } => (rkey, va, filled, total),
            _ => {
                let Reth { rkey, va, len } = packet.reth().ok_or(Stop::Drop)?;
                if !access.contains(RemoteAccess::WRITE) || len > MAX_MESSAGE {
                    return Err(Stop::Drop);
                }
                if len > 0 {
                    host.check_remote(rkey, va, len, RemoteAccess::WRITE).map_err(|_| Stop::Drop)?;
                }
                (rkey, va, 0, len)
            }
        };
        let len = payload.len() as u32;
        let left = total - filled;
        // The last packet brings exactly what is left, the others leave something.
        if if last { len != left } else { len >= left } {
            return Err(Stop::Drop);
        }
        let recv = match packet.imm() {
            Some(_) => Some(next_recv(&mut self.held, host).ok_or(Stop::Drop)?),
            None => None,
        };
        if len > 0 && host.write_remote(rkey, va.wrapping_add(u64::from(filled)), payload, last).is_err() {
            self.held = recv.or(self.held);
            return Err(Stop::Drop);
        }
        self.message =
            if last { Message::None } else { Message::Write { rkey, va, filled: filled + len, total } };
        if let Some(recv) = recv {
            out.recv_done(self.arrived(packet, recv, WcOpcode::RECV_RDMA_WITH_IMM, total));
        }
        Ok(())
    }

    fn arrived(&self, packet: &Packet<'_>, recv: RecvWqe, opcode: WcOpcode, byte_len: u32) -> RecvCompletion {
        RecvCompletion {
            cookie: recv.cookie,
            status: WcStatus::SUCCESS,
            opcode,
            byte_len,
            imm: packet.imm().map(|imm| imm.0),
            invalidated: None,
            grh: false,
            solicited: packet.bth().solicited,
            src_qpn: self.remote_qpn,
        }
    }
}

/// The completion of a receive request that failed or was flushed.
pub(crate) fn failed(recv: RecvWqe, status: WcStatus) -> RecvCompletion {
    RecvCompletion {
        cookie: recv.cookie,
        status,
        opcode: WcOpcode::RECV,
        byte_len: 0,
        imm: None,
        invalidated: None,
        grh: false,
        solicited: false,
        src_qpn: Qpn::new(0),
    }
}
