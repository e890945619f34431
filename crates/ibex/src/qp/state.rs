//! States of a queue pair, as values and as types. See ibv_modify_qp(3), IBTA volume 1, 10.3.1.

use std::fmt;

use ibex_sys as sys;

/// The state of a queue pair.
#[doc(alias = "ibv_qp_state")]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct QpState(pub u32);

impl QpState {
    /// Fresh, or made so again: nothing is posted.
    pub const RESET: Self = Self(sys::IBV_QPS_RESET.0);
    /// Belongs to a port; receives can be posted.
    pub const INIT: Self = Self(sys::IBV_QPS_INIT.0);
    /// Ready to receive: knows its peer.
    pub const RTR: Self = Self(sys::IBV_QPS_RTR.0);
    /// Ready to send.
    pub const RTS: Self = Self(sys::IBV_QPS_RTS.0);
    /// Send queue drained: finishes what has begun, starts nothing.
    pub const SQD: Self = Self(sys::IBV_QPS_SQD.0);
    /// Send queue error, of unreliable services.
    pub const SQE: Self = Self(sys::IBV_QPS_SQE.0);
    /// Error: everything posted is flushed.
    pub const ERR: Self = Self(sys::IBV_QPS_ERR.0);
}

impl fmt::Display for QpState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&sys::ibv_qp_state(self.0), f)
    }
}

impl fmt::Debug for QpState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QpState({self})")
    }
}

/// State of a [`QueuePair`](crate::QueuePair) that belongs to a port: receives can be posted, nothing sent.
#[derive(Clone, Copy, Debug)]
pub struct Init;

/// State of a [`QueuePair`](crate::QueuePair) that knows its peer: it receives, and cannot send yet.
#[derive(Clone, Copy, Debug)]
pub struct Rtr;

/// State of a connected [`QueuePair`](crate::QueuePair): the only one that can send.
#[derive(Clone, Copy, Debug)]
pub struct Rts;

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Init {}
    impl Sealed for super::Rtr {}
    impl Sealed for super::Rts {}
}

/// The states a [`QueuePair`](crate::QueuePair) can have as a type: [`Init`], [`Rtr`], [`Rts`].
pub trait State: sealed::Sealed + 'static {
    /// The same as a value.
    const STATE: QpState;
}

impl State for Init {
    const STATE: QpState = QpState::INIT;
}
impl State for Rtr {
    const STATE: QpState = QpState::RTR;
}
impl State for Rts {
    const STATE: QpState = QpState::RTS;
}
