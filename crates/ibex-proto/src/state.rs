//! Queue pair states, and the table of what each does (IBTA 10.3.1).
//!
//! Owns names and the refusal. The changes are carried out in `qp.rs`; which attributes the verbs demand for each is the
//! host's to check.

/// What a queue pair is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum QpType {
    /// Reliable connection.
    Rc,
    /// Unreliable connection: SEND and WRITE, in order, without acknowledgement; a message that is not whole is dropped.
    Uc,
    /// Unreliable datagrams: messages of one packet, each to a destination of its own.
    Ud,
}

/// A queue pair's state, with the numbers of `enum ibv_qp_state`.
///
/// What each call makes of each state ("-" is refused), and what becomes of a request posted in it:
///
/// ```text
#[doc = include_str!("states.txt")]
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum QpState {
    /// Made, or cleared: nothing is posted, nothing arrives.
    Reset = 0,
    /// Receive requests may be posted.
    Init = 1,
    /// Ready to receive.
    Rtr = 2,
    /// Ready to send as well.
    Rts = 3,
    /// Send queue drained: requests begun are finished, others wait.
    Sqd = 4,
    /// Send queue error. Unreliable services only; a reliable connection goes to ERR instead.
    Sqe = 5,
    /// Every request is flushed.
    Err = 6,
}

/// A move between states that the verbs do not know.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "a queue pair in {from:?} cannot move to {to:?}; the way is Reset, Init, Rtr, Rts, and Reset or Err from anywhere"
)]
pub struct BadTransition {
    /// Where it is.
    pub from: QpState,
    /// Where it was to go.
    pub to: QpState,
}
