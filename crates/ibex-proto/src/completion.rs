//! What comes out of a queue pair besides packets: completions and events.
//!
//! Statuses and opcodes carry the verbs' numbers, so that a host copies them into its `ibv_wc`.

use core::fmt;

use ibex_wire::{Qpn, Rkey};

macro_rules! numbered {
    ($(#[$doc:meta])* $type:ident { $($(#[$item_doc:meta])* $name:ident = $value:expr,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $type(pub u32);

        impl $type {
            $($(#[$item_doc])* pub const $name: $type = $type($value);)*

            /// The verbs' name without its prefix, if the number has one.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, concat!(stringify!($type), "({})"), self.0),
                }
            }
        }
    };
}

numbered! {
    /// The status of a completion, with the numbers of `enum ibv_wc_status`.
    WcStatus {
        /// Done.
        SUCCESS = 0,
        /// Local length error: a receive buffer was too short, or a message longer than 2^31 bytes.
        LOC_LEN_ERR = 1,
        /// Local operation error: a request this queue pair cannot carry out.
        LOC_QP_OP_ERR = 2,
        /// Local protection error: a scatter or gather entry outside its region.
        LOC_PROT_ERR = 4,
        /// Flushed: an earlier request failed, or the queue pair was moved to ERR.
        WR_FLUSH_ERR = 5,
        /// A memory window could not be bound, or a key not invalidated.
        MW_BIND_ERR = 6,
        /// The peer answered with something that does not fit the request.
        BAD_RESP_ERR = 7,
        /// An operation that came with the message (invalidate) is not allowed here.
        LOC_ACCESS_ERR = 8,
        /// The peer found the request invalid: too long for its buffer, not enabled, malformed.
        REM_INV_REQ_ERR = 9,
        /// The peer's key, rights or bounds do not allow the access.
        REM_ACCESS_ERR = 10,
        /// The peer failed through no fault of the request.
        REM_OP_ERR = 11,
        /// The peer did not answer although asked again as often as allowed.
        RETRY_EXC_ERR = 12,
        /// The peer had no receive request although asked again as often as allowed.
        RNR_RETRY_EXC_ERR = 13,
    }
}

numbered! {
    /// The operation of a completion, with the numbers of `enum ibv_wc_opcode`.
    WcOpcode {
        /// SEND, with or without immediate data or invalidate.
        SEND = 0,
        /// WRITE, with or without immediate data.
        RDMA_WRITE = 1,
        /// READ.
        RDMA_READ = 2,
        /// Compare-and-swap.
        COMP_SWAP = 3,
        /// Fetch-and-add.
        FETCH_ADD = 4,
        /// A memory window was bound.
        BIND_MW = 5,
        /// A key of this end was invalidated.
        LOCAL_INV = 6,
        /// A SEND arrived.
        RECV = 128,
        /// A WRITE with immediate data arrived.
        RECV_RDMA_WITH_IMM = 129,
    }
}

/// A finished request, from [`Qp::poll_completion`](crate::Qp::poll_completion).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Completion {
    /// Of the send queue.
    Send(SendCompletion),
    /// Of the receive queue.
    Recv(RecvCompletion),
}

/// A finished send request. Every request posted gives exactly one, in the order of posting, signalled or not: the
/// host frees its slot, and shows it to its user if it was signalled or failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SendCompletion {
    /// The request's [`SendWqe::cookie`](crate::SendWqe::cookie).
    pub cookie: u64,
    /// How it ended.
    pub status: WcStatus,
    /// What it was.
    pub opcode: WcOpcode,
    /// Bytes read (READ), 8 (atomics), bytes sent otherwise. Undefined unless successful.
    pub byte_len: u32,
    /// The request's [`SendWqe::signaled`](crate::SendWqe::signaled).
    pub signaled: bool,
}

/// A finished receive request. Each request taken from the host gives exactly one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecvCompletion {
    /// The request's [`RecvWqe::cookie`](crate::RecvWqe::cookie).
    pub cookie: u64,
    /// How it ended.
    pub status: WcStatus,
    /// What arrived.
    pub opcode: WcOpcode,
    /// Bytes of the message; of the WRITE for [`WcOpcode::RECV_RDMA_WITH_IMM`]; of a datagram 40 more, see
    /// [`grh`](RecvCompletion::grh).
    pub byte_len: u32,
    /// Immediate data, in memory order of the verbs' `imm_data`.
    pub imm: Option<[u8; 4]>,
    /// The local key that the peer's SEND with invalidate has invalidated.
    pub invalidated: Option<Rkey>,
    /// The datagram came with a network header, which fills the first 40 bytes of the receive request. Without one
    /// these are undefined; the payload starts behind them in both cases.
    pub grh: bool,
    /// The sender asked for a solicited event.
    pub solicited: bool,
    /// The sending queue pair.
    pub src_qpn: Qpn,
}

/// Something to report about the queue pair, from [`Qp::poll_event`](crate::Qp::poll_event). The names are those of
/// the verbs' asynchronous events.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// The first packet arrived while the queue pair was in RTR (`IBV_EVENT_COMM_EST`).
    CommEst,
    /// SQD is complete: every request begun has finished (`IBV_EVENT_SQ_DRAINED`).
    SqDrained,
    /// A peer's malformed request moved the queue pair to ERR (`IBV_EVENT_QP_REQ_ERR`).
    QpReqErr,
    /// A peer's forbidden access moved the queue pair to ERR (`IBV_EVENT_QP_ACCESS_ERR`).
    QpAccessErr,
    /// A local failure while serving a peer moved the queue pair to ERR (`IBV_EVENT_QP_FATAL`).
    QpFatal,
}
