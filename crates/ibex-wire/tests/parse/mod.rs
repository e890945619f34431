//! What must hold whatever bytes are parsed. Shared by the property tests and the fuzz target `packet`.

use std::net::Ipv4Addr;

use ibex_wire::Packet;
use ibex_wire::icrc::Flow;

/// Whatever the bytes: no panic, and what is accepted is consistent.
pub(crate) fn parse_anything(bytes: &[u8]) {
    let flow = Flow::v4(Ipv4Addr::LOCALHOST, 1, Ipv4Addr::LOCALHOST, 2);
    if let Some((inside, identification)) = flow.verify_any_identification(0, bytes) {
        assert_eq!(flow.verify(identification, bytes), Some(inside));
    }
    let Ok(packet) = Packet::parse(bytes) else { return };
    let opcode = packet.opcode();
    assert!(opcode.is_known());
    let pad = usize::from(packet.bth().pad);
    assert_eq!(opcode.header_len() + packet.payload().len() + pad, bytes.len());
    assert_eq!(packet.reth().is_some(), opcode.has_reth());
    assert_eq!(packet.aeth().is_some(), opcode.has_aeth());
    assert_eq!(packet.imm().is_some(), opcode.has_imm());
    assert_eq!(packet.ieth().is_some(), opcode.has_ieth());
    assert_eq!(packet.deth().is_some(), opcode.has_deth());
    assert_eq!(packet.atomic_eth().is_some(), opcode.has_atomic_eth());
    assert_eq!(packet.atomic_ack_eth().is_some(), opcode.has_atomic_ack_eth());
    assert!(!format!("{packet:?}").is_empty());
}
