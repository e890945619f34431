//! RoCEv2 packet formats and the invariant CRC, without I/O, allocation or unsafe code.
//!
//! A RoCEv2 packet is IP, UDP (destination port [`UDP_PORT`]), then what this crate is about:
//!
//! ```text
//! BTH │ extended headers chosen by the opcode │ payload │ 0–3 bytes of padding │ ICRC
//! ```
//!
//! - One file per header: [`Bth`], [`Deth`], [`Reth`], [`AtomicEth`], [`Aeth`], [`AtomicAckEth`], [`ImmDt`],
//!   [`Ieth`], [`Grh`]. Each is a plain value with `LEN`, `parse(&[u8; LEN])` and `emit(&mut [u8; LEN])`, which
//!   cannot fail, since the array's length is in the type. The [`Header`] trait carries them over slices.
//! - [`Opcode`] says which headers follow, and where in a message a packet stands.
//! - [`Packet`] is a validated view over received bytes: [`Packet::parse`] checks lengths, padding and opcode once,
//!   never panics on any input, and its accessors are cheap reads afterwards.
//! - [`Psn`] is 24-bit serial-number arithmetic; [`Qpn`], [`Rkey`], … keep numbers of one kind from being used as
//!   another.
//! - [`mad`] holds the messages of connection management, which travel as payload of datagrams.
//! - [`icrc`] computes and verifies the invariant CRC over UDP on IPv4 and IPv6.
//!
//! ```
//! use ibex_wire::icrc::Flow;
//! use ibex_wire::{Bth, Header, ICRC_LEN, Opcode, Packet, Psn, Qpn, padding};
//!
//! // SEND ONLY with five bytes, from 10.0.0.1 to 10.0.0.2, sealed for an unconnected socket.
//! let pad = padding(5);
//! let bth = Bth { pad: pad as u8, ack_req: true, ..Bth::new(Opcode::RC_SEND_ONLY, Qpn::new(0x11), Psn::new(1)) };
//! let mut wire = [0; Bth::LEN + 5 + 3 + ICRC_LEN];
//! let payload = bth.put(&mut wire).expect("room for the header");
//! payload[..5].copy_from_slice(b"hello");
//! let flow = Flow::v4([10, 0, 0, 1].into(), 4791, [10, 0, 0, 2].into(), 4791);
//! flow.seal(0, &mut wire);
//!
//! let packet = Packet::parse(flow.verify(0, &wire).expect("the ICRC is right")).expect("it is a packet");
//! assert_eq!((packet.opcode(), packet.payload()), (Opcode::RC_SEND_ONLY, &b"hello"[..]));
//! ```
//!
//! Not here: sockets, IP headers themselves, and what packets mean (`ibex-proto`).
//!
//! Facts are from the InfiniBand Architecture Specification, volume 1, chapter 9 and annex A17 (RoCEv2).

#![no_std]

mod aeth;
mod atomic;
mod atomic_ack;
mod bth;
mod deth;
mod grh;
mod header;
pub mod icrc;
mod ieth;
mod immdt;
pub mod mad;
mod numbers;
mod opcode;
mod packet;
mod psn;
mod reth;

pub use aeth::{Aeth, NakCode, RNR_TIMER_NS, Syndrome, rnr_timer_code, rnr_timer_ns};
pub use atomic::AtomicEth;
pub use atomic_ack::AtomicAckEth;
pub use bth::{Bth, padding};
pub use deth::Deth;
pub use grh::Grh;
pub use header::Header;
pub use ieth::Ieth;
pub use immdt::ImmDt;
pub use numbers::{Mtu, Pkey, Qkey, Qpn, Rkey};
pub use opcode::{Opcode, Position, Service};
pub use packet::{Packet, ParseError};
pub use psn::Psn;
pub use reth::Reth;

/// The UDP destination port of RoCEv2 (IANA: roce).
pub const UDP_PORT: u16 = 4791;

/// Bytes of the invariant CRC at the end of each packet.
pub const ICRC_LEN: usize = 4;

/// The most bytes of headers a packet of these services starts with: BTH, AtomicETH.
pub const MAX_HEADERS: usize = Bth::LEN + AtomicEth::LEN;

/// The largest packet from BTH to ICRC: headers, a payload of 4096 bytes and the ICRC.
pub const MAX_PACKET: usize = MAX_HEADERS + 4096 + ICRC_LEN;
