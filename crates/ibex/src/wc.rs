//! Work completions: how operations ended.
//!
//! Owns [`WorkCompletion`] (a success), [`CompletionError`] (a failure, explained), [`Status`] and [`Opcode`]. See
//! ibv_poll_cq(3) and IBTA volume 1, 11.6.2.

use std::fmt;

use ibex_sys as sys;
use serde::{Deserialize, Serialize};

use crate::addr::{Qpn, Rkey};

/// Who has to change something for an operation not to fail this way again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Fault {
    /// This program: the request was wrong.
    Misuse,
    /// The peer refused or could not carry out the request.
    Peer,
    /// The peer could not be reached, or its answers made no sense.
    Fabric,
    /// The local device.
    Device,
    /// Nobody: an earlier operation failed and took this one along.
    Flushed,
}

/// Declares [`Status`]: constants, names, sentences, faults.
macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $c:ident, $fault:ident, $text:literal;)*) => {
        impl Status {
            $($(#[$doc])* pub const $name: Self = Self(sys::$c.0);)*

            /// The status in words.
            #[must_use]
            pub fn describe(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                    _ => "unknown status",
                }
            }

            /// Who is at fault; the device for a status this library does not know.
            #[must_use]
            pub fn fault(self) -> Fault {
                match self {
                    $(Self::$name => Fault::$fault,)*
                    _ => Fault::Device,
                }
            }

            /// The name without `IBV_WC_`, if known.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

/// How a work request ended. A value this library does not know is printed as its number.
#[doc(alias = "ibv_wc_status")]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Status(pub u32);

statuses! {
    /// It ran to its end.
    SUCCESS = IBV_WC_SUCCESS, Misuse, "success";
    /// A message longer than the receive buffer posted for it, or than a device can send.
    LOC_LEN_ERR = IBV_WC_LOC_LEN_ERR, Misuse, "local length error";
    /// The work request is inconsistent.
    LOC_QP_OP_ERR = IBV_WC_LOC_QP_OP_ERR, Misuse, "local queue pair operation error";
    /// Reliable datagrams, not in use.
    LOC_EEC_OP_ERR = IBV_WC_LOC_EEC_OP_ERR, Misuse, "local EE context operation error";
    /// A buffer is not covered by the region its lkey names.
    LOC_PROT_ERR = IBV_WC_LOC_PROT_ERR, Misuse, "local protection error";
    /// The queue pair went to the error state before this request ran.
    WR_FLUSH_ERR = IBV_WC_WR_FLUSH_ERR, Flushed, "flushed";
    /// A memory window could not be bound.
    MW_BIND_ERR = IBV_WC_MW_BIND_ERR, Misuse, "memory window bind error";
    /// An answer of the peer that is not one to this request.
    BAD_RESP_ERR = IBV_WC_BAD_RESP_ERR, Fabric, "bad response";
    /// The peer wrote, with immediate data, to a region that does not allow it.
    LOC_ACCESS_ERR = IBV_WC_LOC_ACCESS_ERR, Misuse, "local access error";
    /// The peer found the request invalid: unsupported, too long, misaligned.
    REM_INV_REQ_ERR = IBV_WC_REM_INV_REQ_ERR, Peer, "remote invalid request error";
    /// The peer's memory does not allow it.
    REM_ACCESS_ERR = IBV_WC_REM_ACCESS_ERR, Peer, "remote access error";
    /// The peer could not complete the request.
    REM_OP_ERR = IBV_WC_REM_OP_ERR, Peer, "remote operation error";
    /// The peer did not answer, however often it was asked.
    RETRY_EXC_ERR = IBV_WC_RETRY_EXC_ERR, Fabric, "transport retry counter exceeded";
    /// The peer had no receive buffer, however often it was asked.
    RNR_RETRY_EXC_ERR = IBV_WC_RNR_RETRY_EXC_ERR, Peer, "receiver-not-ready retry counter exceeded";
    /// Reliable datagrams, not in use.
    LOC_RDD_VIOL_ERR = IBV_WC_LOC_RDD_VIOL_ERR, Misuse, "local RDD violation error";
    /// Reliable datagrams, not in use.
    REM_INV_RD_REQ_ERR = IBV_WC_REM_INV_RD_REQ_ERR, Peer, "remote invalid RD request";
    /// The peer aborted the request.
    REM_ABORT_ERR = IBV_WC_REM_ABORT_ERR, Peer, "remote aborted error";
    /// Reliable datagrams, not in use.
    INV_EECN_ERR = IBV_WC_INV_EECN_ERR, Misuse, "invalid EE context number";
    /// Reliable datagrams, not in use.
    INV_EEC_STATE_ERR = IBV_WC_INV_EEC_STATE_ERR, Misuse, "invalid EE context state";
    /// The device failed.
    FATAL_ERR = IBV_WC_FATAL_ERR, Device, "fatal error";
    /// No answer in time.
    RESP_TIMEOUT_ERR = IBV_WC_RESP_TIMEOUT_ERR, Fabric, "response timeout";
    /// Something else.
    GENERAL_ERR = IBV_WC_GENERAL_ERR, Device, "general error";
    /// Tag matching failed.
    TM_ERR = IBV_WC_TM_ERR, Misuse, "tag matching error";
    /// A tag-matched rendezvous is to be completed by software.
    TM_RNDV_INCOMPLETE = IBV_WC_TM_RNDV_INCOMPLETE, Misuse, "tag matching rendezvous incomplete";
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "Status({})", self.0),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(_) => f.write_str(self.describe()),
            None => write!(f, "status {}", self.0),
        }
    }
}

/// What completed.
#[doc(alias = "ibv_wc_opcode")]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Opcode(pub u32);

impl Opcode {
    /// A SEND, with or without immediate data.
    pub const SEND: Self = Self(sys::IBV_WC_SEND.0);
    /// A WRITE, with or without immediate data.
    pub const RDMA_WRITE: Self = Self(sys::IBV_WC_RDMA_WRITE.0);
    /// A READ.
    pub const RDMA_READ: Self = Self(sys::IBV_WC_RDMA_READ.0);
    /// An atomic compare and swap.
    pub const COMP_SWAP: Self = Self(sys::IBV_WC_COMP_SWAP.0);
    /// An atomic fetch and add.
    pub const FETCH_ADD: Self = Self(sys::IBV_WC_FETCH_ADD.0);
    /// A receive, consumed by a SEND.
    pub const RECV: Self = Self(sys::IBV_WC_RECV.0);
    /// A receive, consumed by a WRITE with immediate data; the bytes went where the WRITE said.
    pub const RECV_RDMA_WITH_IMM: Self = Self(sys::IBV_WC_RECV_RDMA_WITH_IMM.0);

    /// True for completions of the receive queue.
    #[inline]
    #[must_use]
    pub const fn is_recv(self) -> bool {
        self.0 & sys::IBV_WC_RECV.0 != 0
    }

    /// True for operations that name memory of the peer.
    #[must_use]
    pub(crate) fn is_one_sided(self) -> bool {
        matches!(self, Self::RDMA_WRITE | Self::RDMA_READ | Self::COMP_SWAP | Self::FETCH_ADD)
    }
}

impl fmt::Debug for Opcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Opcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Self::SEND => "SEND",
            Self::RDMA_WRITE => "WRITE",
            Self::RDMA_READ => "READ",
            Self::COMP_SWAP => "compare and swap",
            Self::FETCH_ADD => "fetch and add",
            Self::RECV => "RECV",
            Self::RECV_RDMA_WITH_IMM => "RECV of a WRITE with immediate data",
            Self(number) => return write!(f, "operation {number}"),
        })
    }
}

/// The words of a completion that survive in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Record {
    // The first four are zero in most requests, and so written at once.
    pub(crate) status: u32,
    pub(crate) vendor_err: u32,
    /// Immediate data as on the wire. Until the completion: the rkey of the request.
    pub(crate) imm: u32,
    pub(crate) flags: u32,
    /// Until the completion: what was posted, as a completion opcode.
    pub(crate) opcode: u32,
    /// Until the completion: bytes of the request.
    pub(crate) byte_len: u32,
}

impl Record {
    /// Nothing known.
    pub(crate) const EMPTY: Self =
        Self { status: 0, vendor_err: 0, imm: 0, flags: 0, opcode: 0, byte_len: 0 };
}

/// A successful completion.
///
/// A completion in error is a [`CompletionError`] instead, since most of these fields mean nothing then.
#[doc(alias = "ibv_wc")]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct WorkCompletion {
    record: Record,
}

impl WorkCompletion {
    #[inline]
    pub(crate) const fn new(record: Record) -> Self {
        Self { record }
    }

    /// What completed.
    #[inline]
    #[must_use]
    pub const fn opcode(&self) -> Opcode {
        Opcode(self.record.opcode)
    }

    /// Bytes received, or bytes of the request for operations of the send queue.
    #[inline]
    #[must_use]
    pub const fn byte_len(&self) -> u32 {
        self.record.byte_len
    }

    /// Immediate data, in the byte order of this host, if there is any.
    #[inline]
    #[must_use]
    pub const fn imm(&self) -> Option<u32> {
        if self.record.flags & sys::IBV_WC_WITH_IMM.0 != 0 {
            Some(u32::from_be(self.record.imm))
        } else {
            None
        }
    }

    /// The key that the peer's SEND invalidated, if it did.
    #[must_use]
    pub const fn invalidated(&self) -> Option<Rkey> {
        if self.record.flags & sys::IBV_WC_WITH_INV.0 != 0 { Some(Rkey(self.record.imm)) } else { None }
    }
}

impl fmt::Debug for WorkCompletion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkCompletion")
            .field("opcode", &self.opcode())
            .field("byte_len", &self.byte_len())
            .field("imm", &self.imm())
            .finish_non_exhaustive()
    }
}

/// An operation that was posted and did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub struct CompletionError {
    /// How it ended.
    pub status: Status,
    /// What had been posted.
    pub opcode: Opcode,
    /// Bytes of the request.
    pub bytes: u32,
    /// The key of the peer's memory, for one-sided operations.
    pub rkey: Option<Rkey>,
    /// The queue pair.
    pub qpn: Qpn,
    /// What the device adds; its meaning is the vendor's.
    pub vendor_err: u32,
    /// Operations posted later to the same queue that were or will be flushed.
    pub flushed: u32,
}

impl fmt::Display for CompletionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.status == Status::WR_FLUSH_ERR {
            let cause = "the queue pair was in the error state: look at the first operation that failed, or at the peer's end";
            return write!(f, "{} of {} bytes was flushed; {cause}", self.opcode, self.bytes);
        }
        let place = match self.status.fault() {
            Fault::Peer => " at the peer",
            _ => "",
        };
        write!(f, "{} of {} bytes failed{place}: {}", self.opcode, self.bytes, self.status)?;
        match (self.status, self.rkey) {
            (Status::REM_ACCESS_ERR, Some(rkey)) => {
                write!(f, " (rkey {:#x} revoked, out of bounds or without the right)", rkey.0)?;
            }
            (Status::RETRY_EXC_ERR, _) => {
                write!(f, " (the peer does not answer: gone, unreachable, or its queue pair is not ready)")?;
            }
            (Status::RNR_RETRY_EXC_ERR, _) => write!(f, " (the peer has no receive posted)")?,
            (Status::LOC_PROT_ERR, _) => {
                write!(f, " (a buffer of another protection domain?)")?;
            }
            (Status::LOC_LEN_ERR, _) if self.opcode.is_recv() => {
                write!(f, " (the peer's message is longer than the buffer)")?;
            }
            _ => {}
        }
        if self.vendor_err != 0 {
            write!(f, ", vendor error {:#x}", self.vendor_err)?;
        }
        match self.flushed {
            0 => Ok(()),
            1 => write!(f, "; 1 later operation flushed"),
            n => write!(f, "; {n} later operations flushed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(status: Status) -> CompletionError {
        CompletionError {
            status,
            opcode: Opcode::RDMA_WRITE,
            bytes: 4096,
            rkey: Some(Rkey(0x1a2b)),
            qpn: Qpn::new(0x11),
            vendor_err: 0,
            flushed: 3,
        }
    }

    #[test]
    fn errors_say_what_where_and_why() {
        assert_eq!(
            error(Status::REM_ACCESS_ERR).to_string(),
            "WRITE of 4096 bytes failed at the peer: remote access error (rkey 0x1a2b revoked, out of bounds or \
             without the right); 3 later operations flushed"
        );
        assert_eq!(
            error(Status(77)).to_string(),
            "WRITE of 4096 bytes failed: status 77; 3 later operations flushed"
        );
    }

    #[test]
    fn immediate_data_is_big_endian_on_the_wire() {
        let record = Record { flags: sys::IBV_WC_WITH_IMM.0, imm: 7_u32.to_be(), ..Record::EMPTY };
        assert_eq!(WorkCompletion::new(record).imm(), Some(7));
        assert_eq!(WorkCompletion::new(Record::EMPTY).imm(), None);
    }
}
