//! The wire link: RoCEv2 packets over UDP, between any two processes on any two addresses.
//!
//! Owns every socket of the device: who holds UDP port 4791 of the address, which queue pair
//! numbers this process may give out, how a packet finds the process that owns its destination, the
//! ICRC, segmentation offload, counters and fault injection. It knows queue pair numbers and
//! addresses; it knows no queue pairs, no PSNs and no memory. Nothing here blocks and no thread is
//! started: the owner of a [`Wire`] polls its descriptors, receives and sends.
//!
//! # Many processes, one address
//!
//! * A queue pair number is `slot << 14 | index`, see [`qpn`]. A process owns a slot while it holds
//!   the abstract unix datagram socket of that name; the kernel frees it when the process is gone.
//! * Each process sends from, and receives direct traffic on, its own UDP socket with an ephemeral
//!   port. One process per address is the *holder* of the RoCE port; it forwards what arrives there
//!   for others to their slot's socket. When it exits, another takes over.
//! * Peers on the same address meet over the slot sockets, tell each other their own UDP ports, and
//!   talk directly from then on, each by a socket connected to the other's port ([`lines`]). Everybody else is
//!   addressed at the RoCE port.
//!
//! * Peers of one user on the same address attach to each other when they learn each other's port, and exchange packets
//!   through shared memory from then on ([`crate::host`]), as does a process with itself. Packets there have no ICRC.
//! * Devices like this one at other addresses are told from others by a question ([`abroad`]).
//! * To devices like this one an acknowledgement may travel beside a short message, in one datagram ([`express`]).
//!
//! # Order of calls
//!
//! [`Config::from_env`] → [`Wire::open`] → [`Wire::alloc_qpn`] per queue pair → [`Wire::hello`] when
//! its peer is known → [`TxBatch::push`] and [`TxBatch::flush`] to send, [`Wire::recv`] to receive.
//! Sleep on [`Wire::fds`]. `&Wire` is shared between threads; a [`TxBatch`] and an [`RxRing`] belong
//! to whoever drives them.
//!
//! # Security
//!
//! As on any RoCE network, whoever can send to the address can inject packets: there is no
//! authentication on the wire, only PSNs and keys. On one host that means every local user of the
//! network namespace, who can also occupy slot names or the RoCE port and so deny the service.
//! Packets for a process that has exited may reach whoever is given its UDP port next. Use the
//! software device between processes that trust each other.
//!
//! Read first: IBTA annex A17 (RoCEv2), udp(7), unix(7).

mod abroad;
mod config;
mod counters;
mod crowd;
mod disarm;
mod error;
pub(crate) mod express;
mod fault;
mod forward;
mod holder;
mod ifaddr;
mod interest;
mod lines;
mod mailbox;
pub(crate) mod management;
mod neighbours;
mod pace;
mod pcap;
pub(crate) mod qpn;
mod rx;
mod slot;
#[cfg(test)]
mod tests;
mod tx;
mod udp;
mod wire;

pub(crate) use config::{Config, LinkChoice};
pub(crate) use error::NetError;
pub(crate) use lines::Line;
pub(crate) use mailbox::Held;
pub(crate) use rx::{Datagram, Received, RxRing, Scan, Sink};
pub(crate) use slot::random;
pub(crate) use tx::{MAX_PACKET, Peer, TxBatch};
pub(crate) use wire::Wire;
