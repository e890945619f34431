//! The error table: which fault is answered with which NAK, ends a request with which status, raises which event.
//!
//! Owns the mapping only (IBTA 9.9.2, 9.9.3 and 11.6.2); requester and responder carry it out.

use ibex_wire::NakCode;

use crate::{Event, RemoteFault, WcStatus};

/// The status of a request that was answered with this NAK. `None` for the sequence error, which is not the end, and
/// for codes a reliable connection does not use.
pub(crate) const fn status_of(nak: NakCode) -> Option<WcStatus> {
    match nak {
        NakCode::INVALID_REQUEST => Some(WcStatus::REM_INV_REQ_ERR),
        NakCode::REMOTE_ACCESS => Some(WcStatus::REM_ACCESS_ERR),
        NakCode::REMOTE_OPERATIONAL => Some(WcStatus::REM_OP_ERR),
        _ => None,
    }
}

/// Why a responder gives up: the NAK it sends, and what its own side learns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Refusal {
    /// Sent to the requester.
    pub(crate) nak: NakCode,
    /// Reported to the host. `None` if a receive completion tells it.
    pub(crate) event: Option<Event>,
    /// Status of the receive request in use, if there is one.
    pub(crate) recv_status: WcStatus,
}

impl Refusal {
    /// Malformed, out of its place in a message, not enabled on this queue pair, or beyond its resources.
    pub(crate) const INVALID: Refusal = Refusal {
        nak: NakCode::INVALID_REQUEST,
        event: Some(Event::QpReqErr),
        recv_status: WcStatus::WR_FLUSH_ERR,
    };

    /// The message is longer than the receive request.
    pub(crate) const TOO_LONG: Refusal =
        Refusal { nak: NakCode::INVALID_REQUEST, event: None, recv_status: WcStatus::LOC_LEN_ERR };

    /// The receive request's own memory cannot be reached.
    pub(crate) const fn local(status: WcStatus) -> Refusal {
        Refusal { nak: NakCode::REMOTE_OPERATIONAL, event: None, recv_status: status }
    }

    /// The key of SEND with invalidate cannot be invalidated.
    pub(crate) const fn invalidate(fault: RemoteFault) -> Refusal {
        Refusal { recv_status: WcStatus::LOC_ACCESS_ERR, ..Refusal::remote(fault) }
    }

    /// The host refuses the peer's access.
    pub(crate) const fn remote(fault: RemoteFault) -> Refusal {
        let (nak, event) = match fault {
            RemoteFault::Access => (NakCode::REMOTE_ACCESS, Event::QpAccessErr),
            RemoteFault::Invalid => (NakCode::INVALID_REQUEST, Event::QpReqErr),
            RemoteFault::Operation => (NakCode::REMOTE_OPERATIONAL, Event::QpFatal),
        };
        Refusal { nak, event: Some(event), recv_status: WcStatus::WR_FLUSH_ERR }
    }
}
