//! Send requests as the transport sees them.
//!
//! Owns their description. Gather lists, inline data and user identifiers stay with the host, behind a cookie.

use ibex_wire::{Qkey, Qpn, Rkey};

use crate::{QpState, QpType, WcOpcode};

/// The longest message of a connection, in bytes (IBTA 9.7.5.1.4).
pub const MAX_MESSAGE: u32 = 1 << 31;

/// A send request: one message, or one READ or atomic operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SendWqe {
    /// The host's name for the request: given back to [`Host::gather`](crate::Host::gather),
    /// [`Host::scatter`](crate::Host::scatter) and in the [`SendCompletion`](crate::SendCompletion).
    pub cookie: u64,
    /// What to do.
    pub op: SendOp,
    /// Bytes of payload sent or read, at most [`MAX_MESSAGE`]. Ignored by atomics, which have eight.
    pub len: u32,
    /// The host shows the completion to its user even on success. Only passed through.
    pub signaled: bool,
    /// Do not start before all earlier READs and atomics of this queue have completed.
    pub fence: bool,
    /// The receiver's completion raises a solicited event (SEND, and WRITE with immediate data).
    pub solicited: bool,
}

/// The operation of a [`SendWqe`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendOp {
    /// To the peer's next receive request.
    Send {
        /// Four bytes for the receiver's completion, in memory order of the verbs' `imm_data`. Not together with `inv`.
        imm: Option<[u8; 4]>,
        /// A key of the peer to invalidate. Not together with `imm`, which wins.
        inv: Option<Rkey>,
    },
    /// To the peer's memory.
    Write {
        /// Key of the peer's memory.
        rkey: Rkey,
        /// Address in it.
        va: u64,
        /// Four bytes for a receive request of the peer, which this then consumes.
        imm: Option<[u8; 4]>,
    },
    /// From the peer's memory.
    Read {
        /// Key of the peer's memory.
        rkey: Rkey,
        /// Address in it.
        va: u64,
    },
    /// Replace eight bytes of the peer's memory if they hold `compare`; the old value comes back.
    CompareSwap {
        /// Key of the peer's memory.
        rkey: Rkey,
        /// Address in it, a multiple of eight.
        va: u64,
        /// The value expected.
        compare: u64,
        /// The value to store.
        swap: u64,
    },
    /// Add to eight bytes of the peer's memory, wrapping; the old value comes back.
    FetchAdd {
        /// Key of the peer's memory.
        rkey: Rkey,
        /// Address in it, a multiple of eight.
        va: u64,
        /// The value to add.
        add: u64,
    },
    /// To the next receive request of any queue pair; UD's only operation.
    Datagram {
        /// The queue pair it goes to.
        remote_qpn: Qpn,
        /// The key that queue pair has. With its highest bit set, the sending queue pair's own key is sent instead
        /// (IBTA 10.2.5): so only who may set a queue pair's key can use the privileged half of keys.
        qkey: Qkey,
        /// The host's name for the address, see [`Qp::next_address`](crate::Qp::next_address).
        address: u64,
        /// As for [`SendOp::Send`].
        imm: Option<[u8; 4]>,
    },
    /// Invalidate a key of this end: no packet, [`Host::local_invalidate`](crate::Host::local_invalidate). RC and UC.
    LocalInv {
        /// The key.
        rkey: Rkey,
    },
    /// Bind a memory window: no packet, [`Host::bind`](crate::Host::bind), which knows what from the cookie. RC and UC.
    BindMw,
}

impl SendOp {
    /// The completion's opcode.
    pub const fn wc_opcode(&self) -> WcOpcode {
        match self {
            SendOp::Send { .. } | SendOp::Datagram { .. } => WcOpcode::SEND,
            SendOp::Write { .. } => WcOpcode::RDMA_WRITE,
            SendOp::Read { .. } => WcOpcode::RDMA_READ,
            SendOp::CompareSwap { .. } => WcOpcode::COMP_SWAP,
            SendOp::FetchAdd { .. } => WcOpcode::FETCH_ADD,
            SendOp::LocalInv { .. } => WcOpcode::LOCAL_INV,
            SendOp::BindMw => WcOpcode::BIND_MW,
        }
    }

    /// Carried out by this end alone, when it is reached: takes no sequence number and sends nothing.
    #[inline]
    pub const fn is_local(&self) -> bool {
        matches!(self, SendOp::LocalInv { .. } | SendOp::BindMw)
    }

    /// READ and atomics: they are answered with data, hold one of the responder's resources and are what a fence
    /// waits for.
    #[inline]
    pub const fn awaits_data(&self) -> bool {
        matches!(self, SendOp::Read { .. } | SendOp::CompareSwap { .. } | SendOp::FetchAdd { .. })
    }
}

/// A request that the send queue does not take.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PostError {
    /// All of the queue's requests are outstanding.
    #[error("the send queue is full; fetch completions first, or make the queue longer")]
    Full,
    /// The state takes no send requests.
    #[error("a queue pair in {0:?} takes no send requests; move it to Rts")]
    State(QpState),
    /// The service has no such operation (IBTA table 35).
    #[error(
        "a queue pair of type {qp_type:?} has no operation {operation:?} as posted; RC has all but datagrams"
    )]
    Operation {
        /// What was posted.
        operation: WcOpcode,
        /// To what.
        qp_type: QpType,
    },
    /// A datagram is one packet.
    #[error("a datagram of {len} bytes does not fit one packet of {max}; send less, or use a connection")]
    TooLong {
        /// Bytes posted.
        len: u32,
        /// The path MTU.
        max: u32,
    },
}
