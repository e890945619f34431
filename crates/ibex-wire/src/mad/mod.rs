//! Management datagrams of connection management: 256 bytes, sent as datagrams between the queue pairs 1.
//!
//! - [`MadHeader`] is the header of all management datagrams; then comes a body of 232 bytes, one of the messages.
//! - One file per message: [`Req`], [`Mra`], [`Rej`], [`Rep`], [`Rtu`], [`Dreq`], [`Drep`], [`SidrReq`], [`SidrRep`], each a
//!   plain value. [`Mad`] is header and message; [`Mad::parse`] accepts what this class of datagrams is, and never
//!   panics; unknown values in fields are kept as they are.
//! - [`CmaHeader`] is what services of `librdmacm` put in front of private data.
//! - [`Route`] says whom a datagram is for, for those that only pass it on.
//! - [`Likeness`] is of a class of its own: by it software devices of ibex know each other.
//!
//! Not here: alternate paths (LAP, APR), and what messages mean (`ibex_proto::cm`).
//!
//! Facts are from the InfiniBand Architecture Specification, volume 1, chapters 12 and 13, and annex A11.

mod body;
mod cma;
mod drep;
mod dreq;
mod header;
mod likeness;
mod mra;
mod numbers;
mod private;
mod rej;
mod rep;
mod req;
mod route;
mod rtu;
mod sidr_rep;
mod sidr_req;

use core::fmt;

pub use cma::{CmaError, CmaHeader};
pub use drep::Drep;
pub use dreq::Dreq;
pub use header::{AttrId, MadHeader};
pub use likeness::Likeness;
pub use mra::Mra;
pub use numbers::{
    CommId, Gid, Guid, PortSpace, RejectReason, ServiceId, SidrStatus, TransportService, Which,
};
pub use private::{Private, TooLong};
pub use rej::Rej;
pub use rep::Rep;
pub use req::{Req, ReqPath};
pub use route::Route;
pub use rtu::Rtu;
pub use sidr_rep::SidrRep;
pub use sidr_req::SidrReq;

use crate::Qkey;

/// Bytes of a management datagram.
pub const MAD_LEN: usize = 256;

/// Bytes of a message after the common header.
pub const BODY_LEN: usize = MAD_LEN - MadHeader::LEN;

/// The key of queue pair 1.
pub const GSI_QKEY: Qkey = Qkey(0x8001_0000);

/// A connection management datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mad {
    /// The common header's transaction number: chosen by whoever sent the first message, repeated in answers.
    pub transaction: u64,
    /// The message.
    pub message: Message,
}

/// One of the messages.
// They are all 232 bytes on the wire, and are handled one at a time.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Message {
    /// Request for communication.
    Req(Req),
    /// Message receipt acknowledgement.
    Mra(Mra),
    /// Reject.
    Rej(Rej),
    /// Reply.
    Rep(Rep),
    /// Ready to use.
    Rtu(Rtu),
    /// Request for disconnection.
    Dreq(Dreq),
    /// Reply to it.
    Drep(Drep),
    /// Service ID resolution request.
    SidrReq(SidrReq),
    /// Reply to it.
    SidrRep(SidrRep),
}

/// Why bytes are not a connection management datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum MadError {
    /// Not 256 bytes.
    Length(usize),
    /// Not version 1 of management datagrams.
    BaseVersion(u8),
    /// Another class of management.
    Class(u8),
    /// Another version of connection management.
    ClassVersion(u8),
    /// Not a "send".
    Method(u8),
    /// A message that is not known or not served.
    Attribute(AttrId),
}

impl fmt::Display for MadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MadError::Length(len) => {
                write!(f, "a management datagram of {len} bytes; it must have {MAD_LEN}")
            }
            MadError::BaseVersion(version) => {
                write!(f, "management datagram version {version}; only 1 is known")
            }
            MadError::Class(class) => write!(f, "management class {class}; only 7 (connections) is served"),
            MadError::ClassVersion(version) => {
                write!(f, "connection management version {version}; only 2 is known")
            }
            MadError::Method(method) => write!(f, "management method {method:#04x}; only 3 (send) is known"),
            MadError::Attribute(attribute) => write!(f, "message {attribute:?} is not served"),
        }
    }
}

impl core::error::Error for MadError {}

impl Message {
    /// Which message it is.
    pub const fn attribute(&self) -> AttrId {
        match self {
            Message::Req(_) => AttrId::REQ,
            Message::Mra(_) => AttrId::MRA,
            Message::Rej(_) => AttrId::REJ,
            Message::Rep(_) => AttrId::REP,
            Message::Rtu(_) => AttrId::RTU,
            Message::Dreq(_) => AttrId::DREQ,
            Message::Drep(_) => AttrId::DREP,
            Message::SidrReq(_) => AttrId::SIDR_REQ,
            Message::SidrRep(_) => AttrId::SIDR_REP,
        }
    }
}

/// Checks the common header, and splits.
fn split(bytes: &[u8]) -> Result<(MadHeader, &body::Body), MadError> {
    let wrong = MadError::Length(bytes.len());
    let (header, rest) = bytes.split_first_chunk::<{ MadHeader::LEN }>().ok_or(wrong)?;
    let body: &body::Body = rest.try_into().map_err(|_| wrong)?;
    let header = MadHeader::parse(header);
    if header.base_version != MadHeader::BASE_VERSION {
        return Err(MadError::BaseVersion(header.base_version));
    }
    if header.class != MadHeader::CLASS_CM {
        return Err(MadError::Class(header.class));
    }
    if header.class_version != MadHeader::CM_VERSION {
        return Err(MadError::ClassVersion(header.class_version));
    }
    if header.method != MadHeader::METHOD_SEND {
        return Err(MadError::Method(header.method));
    }
    Ok((header, body))
}

impl Mad {
    /// Reads a datagram.
    ///
    /// # Errors
    ///
    /// The bytes are something else. Reserved fields and unknown values inside messages are not errors.
    pub fn parse(bytes: &[u8]) -> Result<Mad, MadError> {
        let (header, body) = split(bytes)?;
        let message = match header.attribute {
            AttrId::REQ => Message::Req(Req::parse(body)),
            AttrId::MRA => Message::Mra(Mra::parse(body)),
            AttrId::REJ => Message::Rej(Rej::parse(body)),
            AttrId::REP => Message::Rep(Rep::parse(body)),
            AttrId::RTU => Message::Rtu(Rtu::parse(body)),
            AttrId::DREQ => Message::Dreq(Dreq::parse(body)),
            AttrId::DREP => Message::Drep(Drep::parse(body)),
            AttrId::SIDR_REQ => Message::SidrReq(SidrReq::parse(body)),
            AttrId::SIDR_REP => Message::SidrRep(SidrRep::parse(body)),
            other => return Err(MadError::Attribute(other)),
        };
        Ok(Mad { transaction: header.transaction, message })
    }

    /// The bytes of the datagram; reserved fields are 0.
    pub fn to_bytes(&self) -> [u8; MAD_LEN] {
        let mut head = [0; MadHeader::LEN];
        let mut body = [0; BODY_LEN];
        MadHeader::cm(self.message.attribute(), self.transaction).emit(&mut head);
        match &self.message {
            Message::Req(message) => message.emit(&mut body),
            Message::Mra(message) => message.emit(&mut body),
            Message::Rej(message) => message.emit(&mut body),
            Message::Rep(message) => message.emit(&mut body),
            Message::Rtu(message) => message.emit(&mut body),
            Message::Dreq(message) => message.emit(&mut body),
            Message::Drep(message) => message.emit(&mut body),
            Message::SidrReq(message) => message.emit(&mut body),
            Message::SidrRep(message) => message.emit(&mut body),
        }
        let mut out = [0; MAD_LEN];
        out[..MadHeader::LEN].copy_from_slice(&head);
        out[MadHeader::LEN..].copy_from_slice(&body);
        out
    }
}
