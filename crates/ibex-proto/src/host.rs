//! What the transport asks of the device around it: memory, keys and receive requests of one queue pair.
//!
//! Owns the [`Host`] trait and the reasons for which a host refuses. The host owns pointers, regions and the receive
//! queue; the transport knows only cookies (the host's name for a work request), offsets and keys.

use ibex_wire::Rkey;

use crate::WcStatus;

/// Rights of remote peers. The bits are those of the verbs' `IBV_ACCESS_REMOTE_*`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct RemoteAccess(pub u8);

impl RemoteAccess {
    /// No right.
    pub const NONE: RemoteAccess = RemoteAccess(0);
    /// WRITE, with or without immediate data.
    pub const WRITE: RemoteAccess = RemoteAccess(1 << 1);
    /// READ.
    pub const READ: RemoteAccess = RemoteAccess(1 << 2);
    /// Compare-and-swap and fetch-and-add.
    pub const ATOMIC: RemoteAccess = RemoteAccess(1 << 3);
    /// All three.
    pub const ALL: RemoteAccess = RemoteAccess(0b1110);

    /// Whether every right in `other` is in `self`.
    #[inline]
    pub const fn contains(self, other: RemoteAccess) -> bool {
        self.0 & other.0 == other.0
    }
}

impl core::ops::BitOr for RemoteAccess {
    type Output = RemoteAccess;

    fn bitor(self, other: RemoteAccess) -> RemoteAccess {
        RemoteAccess(self.0 | other.0)
    }
}

/// An atomic operation on eight bytes, in the byte order of the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AtomicOp {
    /// Store `swap` if the memory holds `compare`.
    CompareSwap {
        /// The value expected.
        compare: u64,
        /// The value to store.
        swap: u64,
    },
    /// Add, wrapping.
    FetchAdd {
        /// The value to add.
        add: u64,
    },
}

/// A receive request handed to the transport by [`Host::take_recv`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecvWqe {
    /// The host's name for it; comes back in [`Host::place`] and in the [`RecvCompletion`](crate::RecvCompletion).
    pub cookie: u64,
    /// Bytes its scatter list can hold, at most `u32::MAX`.
    pub capacity: u32,
}

/// Why the host could not reach *local* memory of a work request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LocalFault {
    /// A local key is unknown, of another protection domain, without the right, or too short.
    #[error(
        "local protection error: a scatter or gather entry is outside its memory region or its lkey is not valid"
    )]
    Protection,
    /// The scatter list cannot hold the data.
    #[error("local length error: the scatter list is shorter than the data")]
    Length,
    /// The device failed.
    #[error("local operation error: the device could not carry out the request")]
    Operation,
    /// A window cannot be bound as asked, or a key not invalidated.
    #[error("memory window error: the window, its region or the key does not allow this bind or invalidate")]
    Window,
}

impl LocalFault {
    /// The status of the work request that met it.
    pub const fn status(self) -> WcStatus {
        match self {
            LocalFault::Protection => WcStatus::LOC_PROT_ERR,
            LocalFault::Length => WcStatus::LOC_LEN_ERR,
            LocalFault::Operation => WcStatus::LOC_QP_OP_ERR,
            LocalFault::Window => WcStatus::MW_BIND_ERR,
        }
    }
}

/// Why the host refuses a *peer's* access.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RemoteFault {
    /// The key, its rights or its bounds. Answered with "remote access error".
    #[error(
        "remote access error: the rkey is not valid, does not allow this access, or the range leaves its region"
    )]
    Access,
    /// The request cannot be carried out as it stands, such as an unaligned atomic. Answered with "invalid request".
    #[error("remote invalid request")]
    Invalid,
    /// The device failed. Answered with "remote operational error".
    #[error("remote operational error")]
    Operation,
}

/// Memory, keys and receive requests of one queue pair, called back from
/// [`Qp::handle_packet`](crate::Qp::handle_packet) and [`Qp::poll_transmit`](crate::Qp::poll_transmit).
///
/// Dispatch is static. Calls come in the order of the protocol and never recurse into the queue pair.
pub trait Host {
    /// Fills `out` with bytes `offset..` of the payload of send request `cookie` (its gather list, or the copy of
    /// its inline data). `out` is never empty; a request without payload is not asked.
    ///
    /// # Errors
    /// Completes the request with [`LocalFault::status`] once those before it have completed, and moves the queue
    /// pair to ERR.
    fn gather(&mut self, cookie: u64, offset: u32, out: &mut [u8]) -> Result<(), LocalFault>;

    /// Stores READ data, or the eight bytes of an atomic's original value in the host's byte order, at `offset` of
    /// the scatter list of send request `cookie`. `data` is never empty. A lost and repeated packet is not stored twice.
    ///
    /// # Errors
    /// Completes the request with [`LocalFault::status`] and moves the queue pair to ERR.
    fn scatter(&mut self, cookie: u64, offset: u32, data: &[u8]) -> Result<(), LocalFault>;

    /// The next receive request of this queue pair (or of its shared receive queue), which now belongs to the
    /// transport until its [`RecvCompletion`](crate::RecvCompletion). `None` answers the peer with "receiver not ready", or
    /// drops the message of an unreliable service.
    fn take_recv(&mut self) -> Option<RecvWqe>;

    /// Stores received bytes at `offset` of receive request `cookie`. `data` is never empty and always within the
    /// capacity given; `last` is set on the packet that ends the message (not set if that packet has no payload).
    ///
    /// # Errors
    /// Completes the receive request with [`LocalFault::status`], answers "remote operational error", moves the
    /// queue pair to ERR.
    fn place(&mut self, cookie: u64, offset: u32, data: &[u8], last: bool) -> Result<(), LocalFault>;

    /// Checks a peer's request for `len` > 0 bytes at `va` under `rkey`. `access` is exactly one right.
    ///
    /// # Errors
    /// Answered with the matching NAK; the queue pair moves to ERR.
    fn check_remote(
        &mut self,
        rkey: Rkey,
        va: u64,
        len: u32,
        access: RemoteAccess,
    ) -> Result<(), RemoteFault>;

    /// Stores bytes of a peer's WRITE. Checks the key again: it may have died since the message's first packet.
    /// With `last`, the final bytes of the message must become visible last, with release order.
    ///
    /// # Errors
    /// As [`Host::check_remote`].
    fn write_remote(&mut self, rkey: Rkey, va: u64, data: &[u8], last: bool) -> Result<(), RemoteFault>;

    /// Reads bytes for a peer's READ. Checks the key again, as [`Host::write_remote`] does.
    ///
    /// # Errors
    /// As [`Host::check_remote`].
    fn read_remote(&mut self, rkey: Rkey, va: u64, out: &mut [u8]) -> Result<(), RemoteFault>;

    /// Carries out an atomic operation on the eight aligned bytes at `va`, checking key and rights, and returns
    /// what they held before. Called once per request: repeats are answered from the transport's memory.
    ///
    /// # Errors
    /// As [`Host::check_remote`].
    fn atomic(&mut self, rkey: Rkey, va: u64, op: AtomicOp) -> Result<u64, RemoteFault>;

    /// Invalidates a key on behalf of the peer's SEND with invalidate.
    ///
    /// # Errors
    /// As [`Host::check_remote`].
    fn invalidate(&mut self, rkey: Rkey) -> Result<(), RemoteFault>;

    /// Carries out [`SendOp::LocalInv`](crate::SendOp::LocalInv), once, when all requests before it have been sent (and,
    /// with a fence, READs and atomics have completed).
    ///
    /// # Errors
    /// As [`Host::gather`].
    fn local_invalidate(&mut self, rkey: Rkey) -> Result<(), LocalFault>;

    /// Carries out [`SendOp::BindMw`](crate::SendOp::BindMw), the bind of send request `cookie`; once, as
    /// [`Host::local_invalidate`].
    ///
    /// # Errors
    /// As [`Host::gather`].
    fn bind(&mut self, cookie: u64) -> Result<(), LocalFault>;
}
