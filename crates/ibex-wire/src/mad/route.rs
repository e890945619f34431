//! Whom a datagram is for, when several processes share a port.

use super::body::{get_u32, get_u64};
use super::{AttrId, CommId, MadError, ServiceId, split};

/// The receiver of a datagram, among those that share queue pair 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Route {
    /// Whoever listens to this service (REQ and SIDR_REQ).
    Service(ServiceId),
    /// Whoever chose this name for a connection or request.
    Connection(CommId),
    /// Whoever knows the connection that the sender names so: the sender never learned the receiver's name for it. Only a
    /// REJ of a caller that gave up is like this; it can be shown to everyone, or dropped.
    Unnamed(CommId),
}

impl Route {
    /// Finds the receiver.
    ///
    /// # Errors
    ///
    /// As for [`Mad::parse`](super::Mad::parse).
    pub fn of(bytes: &[u8]) -> Result<Route, MadError> {
        let (header, body) = split(bytes)?;
        Ok(match header.attribute {
            AttrId::REQ | AttrId::SIDR_REQ => Route::Service(ServiceId(get_u64(body, 8))),
            AttrId::SIDR_REP => Route::Connection(CommId(get_u32(body, 0))),
            AttrId::MRA | AttrId::REJ | AttrId::REP | AttrId::RTU | AttrId::DREQ | AttrId::DREP => {
                match CommId(get_u32(body, 4)) {
                    CommId::NONE => Route::Unnamed(CommId(get_u32(body, 0))),
                    id => Route::Connection(id),
                }
            }
            other => return Err(MadError::Attribute(other)),
        })
    }
}
