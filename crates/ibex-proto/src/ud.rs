//! What a datagram queue pair does with a packet.
//!
//! Owns the key check, and placing: 40 bytes of network header, then the payload. Datagrams have no order: sequence
//! numbers are not looked at. IBTA 9.8.3 (unreliable datagram), 10.2.5 (Q_Keys), annex A17.4.5.2 (the header on RoCEv2).
//!
//! A datagram longer than the receive request is dropped and the request kept for the next one, as the kernel's rxe
//! does: anybody who knows the key can send one, and must not be able to stop the queue pair.

use ibex_wire::{Grh, Mtu, Packet, Qkey};

use crate::output::Output;
use crate::uc::failed;
use crate::unreliable::{Fatal, next_recv};
use crate::{Host, RecvCompletion, RecvWqe, WcOpcode, WcStatus};

/// Bytes in front of the payload in the receiver's memory.
const HEADER: u32 = Grh::LEN as u32;

/// The receiving half of a datagram queue pair.
#[derive(Default)]
pub(crate) struct UdReceiver {
    /// A receive request that was too short for the last datagram.
    pub(crate) held: Option<RecvWqe>,
}

impl UdReceiver {
    /// Takes in a datagram.
    #[inline]
    pub(crate) fn handle<H: Host>(
        &mut self,
        packet: &Packet<'_>,
        qkey: Qkey,
        mtu: Mtu,
        grh: Option<&[u8; Grh::LEN]>,
        host: &mut H,
        out: &mut Output,
    ) -> Result<(), Fatal> {
        let Some(deth) = packet.deth() else { return Ok(()) };
        if deth.qkey != qkey {
            out.counters.bad_qkeys += 1;
            return Ok(());
        }
        let payload = packet.payload();
        if payload.len() > mtu.bytes() {
            out.counters.lost += 1;
            return Ok(());
        }
        let Some(recv) = next_recv(&mut self.held, host) else {
            out.counters.lost += 1;
            return Ok(());
        };
        let byte_len = HEADER + payload.len() as u32;
        if byte_len > recv.capacity {
            out.counters.lost += 1;
            self.held = Some(recv);
            return Ok(());
        }
        let header = grh.map_or(Ok(()), |grh| host.place(recv.cookie, 0, grh, payload.is_empty()));
        let placed = header.and_then(|()| match payload {
            [] => Ok(()),
            _ => host.place(recv.cookie, HEADER, payload, true),
        });
        if let Err(fault) = placed {
            out.recv_done(failed(recv, fault.status()));
            return Err(Fatal);
        }
        out.recv_done(RecvCompletion {
            cookie: recv.cookie,
            status: WcStatus::SUCCESS,
            opcode: WcOpcode::RECV,
            byte_len,
            imm: packet.imm().map(|imm| imm.0),
            invalidated: None,
            grh: grh.is_some(),
            solicited: packet.bth().solicited,
            src_qpn: deth.src_qpn,
        });
        Ok(())
    }
}
