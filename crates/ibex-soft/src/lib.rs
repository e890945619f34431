//! The software RDMA device: a RoCEv2 NIC in Rust, behind the C ABI of libibverbs and librdmacm.
//!
//! Owns the device `ibex0`: protection domains, memory regions and windows, completion queues and channels, queue pairs (RC, UC, UD),
//! shared receive queues, address handles, their events, connection management, and the links on which they travel. The protocol is
//! `ibex-proto`'s, packet formats `ibex-wire`'s, the C types `ibex-sys`'s. What the device does not have it refuses
//! (`EOPNOTSUPP`), and reports as absent.
//!
//! ```text
//!  abi      C functions, structures and return conventions            unsafe: pointers of the program's
//!   │
//!  qp  srq  ah  cq  mr  event  device  cm  the objects' rules         memory   unsafe: the program's memory
//!   │
//!  nic      who drives: callers, the thread, timers, fork             os       unsafe: a few system calls
//!   │
//!  net      RoCEv2 over UDP, many processes on one address
//!  host     the same packets through memory shared with other processes of the user
//! ```
//!
//! # Life of a SEND
//! `ibv_post_send` translates the request ([`abi`]), takes the queue pair's lock, enters it into the send queue and has the
//! transport make packets, each gathered from the program's memory straight into the transmit buffer, which leaves in
//! batches. At the peer whoever receives (a polling caller, a blocked one, or the thread) hands the packet to
//! the queue pair, whose payload goes from the receive buffer straight to the program's memory; a completion enters the
//! ring, and an event the channel if it was armed. The acknowledgement comes back the same way. No step allocates.
//!
//! Shorter ways, for what plainly succeeds: between queue pairs of one process the call that posts also delivers
//! (`qp/direct`); WRITE, READ and atomics on another process of the host are carried out by the caller on that process's
//! memory (`oneside`). Everything else goes as packets, through shared memory if the peer is on this host (`host`).
//!
//! # Locks
//! In this order: table of regions (read) → table of queue pairs (read) → queue pair → shared receive queue → completion
//! queue → event queue. A receive round has the engine's own table of queue pairs. A window's lock comes after the queue pair's, for the length of one copy; the gate of an extended
//! object (`gate`) comes before everything, and is held while the program runs. A thread takes each table at most once, and
//! two queue pairs at most, the lower number first. The engine's lock, which only who makes or destroys a queue pair or pays for
//! another waits for, comes before all of
//! them; the pool of buffers, the timers and a link's sending half are leaves. The program is never called back, and nothing blocks, under any of
//! them; only taking back what another process of the host works on just now waits for it.
//!
//! Connection management has locks of its own ([`mod@abi::cm`]): after the engine's, before the event queues'; no queue pair
//! is locked under them.
//!
//! # Unsafe code
//! Only in `abi/*` (what C programs pass), `memory.rs` (memory they registered), and for system calls in `os.rs` and
//! `net/{udp,ifaddr,interest,disarm}.rs`; in `host/{segment,ancillary}.rs` and `oneside` for memory shared with other processes.
//! Each says what it relies on.
//!
//! # Environment
//! | variable | meaning |
//! |---|---|
//! | `IBEX_SOFT_ADDR`, `IBEX_SOFT_NETDEV` | where the device stands; the default, 127.0.0.1, is reachable from this host only |
//! | `IBEX_SOFT_LINK` | the best link that may be used: `auto`, `direct`, `host`, `wire` |
//! | `IBEX_SOFT_STATS` | if set, the link's counters go to stderr when the device is closed |
//!
//! More, for the link, in `net/config.rs`. A program may set the same by [`Settings`].

pub mod abi;
mod ah;
mod cm;
mod cq;
mod device;
mod event;
mod gate;
mod host;
mod memory;
mod mr;
mod net;
mod nic;
mod oneside;
mod os;
mod qp;
mod settings;
mod srq;

pub use abi::cm::cm;
pub use abi::verbs;
pub use settings::{Link, Settings, SettingsError};
