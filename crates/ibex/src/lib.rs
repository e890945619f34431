//! RDMA for Rust: sound verbs over any device, and a software device where there is none.
//!
//! ```
//! use ibex::prelude::*;
//!
//! # fn main() -> ibex::Result<()> {
//! # struct Device;
//! # impl Device { fn any() -> Result<ibex::Device, ibex::DeviceError> { Ok(Provider::Soft.devices()?[0].clone()) } }
//! # let (mut here, mut there) = std::os::unix::net::UnixStream::pair().unwrap();
//! # let other = std::thread::spawn(move || -> ibex::Result<()> {
//! #     let pd = Device::any()?.open()?.alloc_pd()?;
//! #     let pool = pd.pool().block(4 * KIB).blocks(4).build()?;
//! #     let cq = pd.context().create_cq(64)?;
//! #     let qp = pd.create_rc(&cq).max_send_wr(16).max_recv_wr(16).build()?;
//! #     let incoming = qp.recv(pool.take()?)?;
//! #     let peer = oob::exchange(&mut there, qp.endpoint())?;
//! #     let qp = qp.connect(&peer)?;
//! #     oob::barrier(&mut there)?;
//! #     let (message, _) = incoming.wait()?;
//! #     assert_eq!(&message[..], b"hello");
//! #     oob::barrier(&mut there)?;
//! #     Ok(())
//! # });
//! let ctx = Device::any()?.open()?;                          // a NIC if there is one, else the built-in device
//! let pd = ctx.alloc_pd()?;
//! let pool = pd.pool().block(4 * KIB).blocks(16).build()?;   // one registered slab, 16 buffers
//! let cq = ctx.create_cq(128)?;
//! let qp = pd.create_rc(&cq).max_send_wr(64).build()?;       // takes its lease of the queue, or says why not
//! let peer = oob::exchange(&mut here, qp.endpoint())?;       // any `Read + Write`
//! let qp = qp.connect(&peer)?;                               // only a connected pair can send
//! # oob::barrier(&mut here)?;
//!
//! let sent = qp.send(pool.take_from(b"hello")?)?;            // the buffer belongs to the operation now
//! let (buf, completion) = sent.wait()?;                      // and comes back with its completion
//! # drop((buf, completion));
//! # oob::barrier(&mut here)?;
//! # other.join().unwrap()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Layers
//! | module | what |
//! |---|---|
//! | [`Provider`], [`Device`], [`Context`] | where devices come from; asking them |
//! | [`mem`] | memory operations use, and who owns it meanwhile |
//! | [`CompletionQueue`] | where the ends of operations are learnt; [waiting](Wait) |
//! | [`QueuePair`] | typed states, operations, batches |
//! | [`Op`] | an operation in flight |
//! | [`oob`] | meeting a peer over any byte channel |
//! | [`verbs`] | the C interface: unsafe verbs with their contracts, the table of transitions |
//!
//! # What is guaranteed
//! Safe code cannot make the device touch memory that Rust believes to be its own, nor the other way round:
//! - A buffer in an operation is out of reach until the device has confirmed the operation's end. Dropping, leaking or
//!   timing out of an [`Op`], a panic, and dropping the queue pair all keep that promise; where a device refuses to confirm,
//!   memory is leaked and [counted](leaks), never freed.
//! - Memory behind Rust references is registered for local use only: no peer can reach it. What peers can reach, a
//!   [`SharedRegion`], is never behind a reference.
//! - A completion queue has room for every completion that can arrive; none is lost, and no operation takes another's.
//! - Nothing in `Drop` blocks without bound or panics.
//!
//! What is *not* promised: that a peer is honest, or that its data arrive unharmed by a device that is not.
//!
//! # Unsafe code
//! Denied in the crate and allowed in these files, each of which says what it must keep true: `lock`, `limits`,
//! `provider`, `device`, `context`, `pd`, `mem/{volatile,map,mr,pool,buf,frozen,registered,region,sge}`,
//! `queue/{erased,ring}`, `cq/{mod,channel,reaper,sleep}`, `qp/{mod,builder,submit,recv,batch,landing}`, `op/mod`,
//! `verbs/raw`.

pub mod mem;
pub mod oob;
pub mod prelude;
pub mod verbs;

mod addr;
mod attr;
mod check;
mod context;
mod cq;
mod device;
mod error;
mod gid;
mod limits;
mod op;
mod pd;
mod provider;
mod qp;
mod queue;
mod rng;
mod stats;
mod wc;

/// The C types and functions underneath.
pub use ibex_sys as sys;

pub use addr::{GidIndex, Lid, Lkey, Pkey, PortNum, Psn, Qkey, Qpn, Rkey};
pub use attr::{
    AtomicCap, DeviceAttr, Gid, GidEntry, GidType, Guid, LinkLayer, Mtu, PortAttr, PortState, Transport,
};
pub use context::Context;
pub use cq::{CompletionQueue, CqBuilder, Wait};
pub use device::{Device, DeviceError};
pub use error::{Error, Result};
pub use mem::{
    Access, Buf, FrozenBuf, MemoryError, Pages, Pool, PoolBuilder, Registered, RemoteHandle, RemoteRegion,
    RemoteSlice, RemoteU64, SharedRegion, Sink, Source,
};
pub use oob::{Endpoint, ExchangeError};
pub use op::{Atomic, Failed, Inline, Op, Rejected, Unfinished, Work};
pub use pd::ProtectionDomain;
pub use provider::{DEVICE_VARIABLE, Origin, Provider, Table};
pub use qp::{
    Batch, BatchError, Finding, ModifyError, Post, PostError, Posted, QpCaps, QpState, QueueError, QueuePair,
    Quiet, RcBuilder, RcOptions,
};
pub use stats::{Leaks, leaks};
pub use wc::{CompletionError, Fault, Opcode, Status, WorkCompletion};

/// Settings of the built-in software device: address, links, faults, packet capture. See [`soft::Settings`].
#[cfg(feature = "soft")]
pub mod soft {
    pub use ibex_soft::{Link, Settings, SettingsError};
}

/// States of a [`QueuePair`] as types.
pub mod state {
    pub use crate::qp::{Init, Rtr, Rts, State};
}
