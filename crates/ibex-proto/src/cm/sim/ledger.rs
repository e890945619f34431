//! What each end has been told and has said: which events may come next, and whether both ends agree.
//!
//! The contract of [`Cm`](crate::cm::Cm) as a host sees it, kept apart from how the engine keeps it.

use std::collections::HashMap;

use crate::cm::{ConnId, ConnState, Disconnect, Event};

/// Where a host believes a connection to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// `connect` was called.
    Calling,
    /// The reply was given.
    Replied,
    /// A request was given.
    Asked,
    /// `reply` was called.
    Accepted,
    /// Data flows.
    Established,
    /// The peer wants the end.
    PeerEnding,
    /// `disconnect` was called.
    Ending,
    /// Only TIMEWAIT is left.
    Over,
    /// The last event was given, or the host has let go.
    Gone,
}

/// One end of a connection.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) phase: Phase,
    /// Whether this end asked for the connection.
    pub(super) calls: bool,
    /// What tells this attempt from others: carried in private data and numbers.
    pub(super) token: u64,
    /// This end was established at some time.
    pub(super) established: bool,
    /// The host did something that may leave the peer without an answer: let go, refused, or ended.
    pub(super) meddled: bool,
    /// How many outcomes it has had: reply, refusal, unreachable (calling); established, refusal, unreachable (asked).
    pub(super) outcomes: u32,
    /// The peer did not answer, to the end.
    pub(super) unreachable: bool,
    /// The peer refused.
    pub(super) rejected: bool,
}

/// The ends at one engine.
#[derive(Default, Debug)]
pub(super) struct Ledger {
    pub(super) ends: HashMap<ConnId, End>,
    /// Requests may be forged from others.
    pub(super) forgers: bool,
}

impl Ledger {
    pub(super) fn open(&mut self, conn: ConnId, phase: Phase, token: u64) {
        let calls = phase == Phase::Calling;
        let same = |end: &&End| (end.calls, end.token) == (calls, token) && end.phase != Phase::Gone;
        let twice = self.ends.values().any(|end| same(&end));
        assert!(self.forgers || !twice, "the same request, twice at once");
        let end = End {
            phase,
            calls,
            token,
            established: false,
            meddled: false,
            outcomes: 0,
            unreachable: false,
            rejected: false,
        };
        let before = self.ends.insert(conn, end);
        assert!(before.is_none_or(|end| end.phase == Phase::Gone), "{conn:?} is used while it is in use");
    }

    pub(super) fn end(&mut self, conn: ConnId) -> &mut End {
        self.ends.get_mut(&conn).expect("an event or command of a connection that was never opened")
    }

    /// Enters an event; panics if it may not come now.
    pub(super) fn enter(&mut self, conn: ConnId, event: &Event) {
        use Phase::{Accepted, Asked, Calling, Ending, Established, Gone, Over, PeerEnding, Replied};
        let end = self.end(conn);
        let outcome = matches!(end.phase, Calling | Asked | Accepted);
        end.rejected |= matches!(event, Event::Rejected { .. });
        end.unreachable |= matches!(
            event,
            Event::Unreachable { .. } | Event::Disconnected { how: Disconnect::TimedOut, .. }
        );
        let next = match (event, end.phase) {
            (Event::Reply { .. }, Calling) => Replied,
            (Event::Established { .. }, Accepted) => Established,
            (Event::Delayed { .. }, phase @ (Calling | Accepted)) => phase,
            (Event::Rejected { .. }, Calling | Asked | Accepted) => Gone,
            (Event::Rejected { .. }, Replied | Established) => Over,
            (Event::Unreachable { .. }, Calling | Accepted) => Gone,
            (Event::DisconnectRequested { .. }, Replied | Established) => PeerEnding,
            (Event::Disconnected { how: Disconnect::Agreed, .. }, Ending) => Over,
            // From Established: the engine found the connection to be stale.
            (Event::Disconnected { .. }, Ending | Established) => Over,
            (Event::TimewaitExit { .. }, Over) => Gone,
            (event, phase) => panic!("{event:?} in phase {phase:?}"),
        };
        if outcome && !matches!(event, Event::Delayed { .. }) {
            end.outcomes += 1;
            assert_eq!(end.outcomes, 1, "a second outcome: {event:?}");
        }
        end.established |= next == Established;
        end.phase = next;
    }

    /// What the engine must say the state is.
    pub(super) fn agrees(&self, conn: ConnId, state: Option<ConnState>) -> bool {
        let Some(end) = self.ends.get(&conn) else { return state.is_none() };
        match end.phase {
            Phase::Calling => state == Some(ConnState::ReqSent),
            Phase::Replied => matches!(state, Some(ConnState::RepRcvd | ConnState::MraRepSent)),
            Phase::Asked => matches!(state, Some(ConnState::ReqRcvd | ConnState::MraReqSent)),
            Phase::Accepted => state == Some(ConnState::RepSent),
            // A stale connection is being ended by the engine.
            Phase::Established => {
                matches!(state, Some(ConnState::Established | ConnState::DreqSent))
            }
            Phase::PeerEnding => state == Some(ConnState::DreqRcvd),
            Phase::Ending => state == Some(ConnState::DreqSent),
            Phase::Over => state == Some(ConnState::Timewait),
            Phase::Gone => state.is_none(),
        }
    }
}
