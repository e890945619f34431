//! Packets of queue pair 1, which carry management datagrams.
//!
//! Owns their headers. Does not own what datagrams say ([`crate::cm`], [`super::abroad`]).

use ibex_wire::mad::{GSI_QKEY, MAD_LEN};
use ibex_wire::{Bth, Deth, Header as _, Opcode, Packet, Psn, Qpn};

/// The queue pair of management datagrams.
pub(crate) const QPN: u32 = 1;

/// Bytes of a management datagram as a packet.
pub(crate) const PACKET: usize = Bth::LEN + Deth::LEN + MAD_LEN;

/// The packet of a datagram.
pub(crate) fn packet(psn: u32, mad: &[u8; MAD_LEN]) -> [u8; PACKET] {
    let mut packet = [0; PACKET];
    let bth = Bth::new(Opcode::UD_SEND_ONLY, Qpn::new(QPN), Psn::new(psn));
    let deth = Deth { qkey: GSI_QKEY, src_qpn: Qpn::new(QPN) };
    // `PACKET` is the sum of the three.
    if let Some(rest) = bth.put(&mut packet).and_then(|rest| deth.put(rest)) {
        rest.copy_from_slice(mad);
    }
    packet
}

/// The datagram in a packet, and the queue pair that sent it. `None` for what is no management datagram, or has not the key of
/// queue pair 1 (IBTA 9.6.1.5.3).
pub(crate) fn open<'a>(packet: &Packet<'a>) -> Option<(&'a [u8; MAD_LEN], Qpn)> {
    let deth = packet.deth().filter(|deth| deth.qkey == GSI_QKEY)?;
    let sound = packet.opcode() == Opcode::UD_SEND_ONLY && packet.bth().pad == 0;
    let mad = packet.payload().try_into().ok()?;
    sound.then_some((mad, deth.src_qpn))
}
