//! One communication identifier, as the service knows it.
//!
//! Owns its addresses, its options and where it is in its life. Does not own its connection, which the state machine has
//! (`ibex_proto::cm`), nor what the program sees ([`crate::abi`]).

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ibex_proto::cm::{ConnId, ListenerId, Request, SidrId};
use ibex_wire::mad::PortSpace;

use super::Channel;
use super::ports::Port;
use crate::event::Unacked;
use crate::net::Held;

/// An identifier.
#[derive(Debug)]
pub(crate) struct Id {
    /// The address of the program's `rdma_cm_id`.
    pub(crate) name: usize,
    /// Its port space.
    pub(crate) space: PortSpace,
    /// Whether its queue pair is one for datagrams, which are resolved and not connected.
    pub(crate) datagrams: bool,
    /// Its events that were delivered and not acknowledged.
    pub(crate) unacked: Unacked,
    channel: Mutex<Arc<Channel>>,
    state: Mutex<State>,
    /// Whether the program was told of the end, or will be.
    ended: AtomicBool,
}

/// Where an identifier is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Phase {
    #[default]
    Idle,
    Bound,
    /// Destination, and with it the device, known.
    Resolved,
    /// Route known.
    Routed,
    Listening,
    /// It has had a connection or a resolution; how that stands, the state machine knows.
    Connection,
}

/// What changes in an identifier.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) phase: Phase,
    pub(crate) local: Option<SocketAddr>,
    pub(crate) remote: Option<SocketAddr>,
    pub(crate) port: Option<Port>,
    pub(crate) options: Options,
    pub(crate) conn: Option<ConnId>,
    pub(crate) sidr: Option<SidrId>,
    /// The listener, and its mailbox.
    pub(crate) listener: Option<(ListenerId, Arc<Held>)>,
    /// The mailbox of the listener that was called, until the connection is made: the caller may repeat its request.
    pub(crate) called: Option<Arc<Held>>,
    /// The sequence number to begin with that the caller will be told.
    pub(crate) psn: Option<u32>,
    /// What the peer asked for, for who accepts without saying otherwise.
    pub(crate) request: Option<Box<Request>>,
}

/// What `rdma_set_option(3)` sets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    /// `RDMA_OPTION_ID_TOS`.
    pub(crate) tos: u8,
    /// `RDMA_OPTION_ID_REUSEADDR`.
    pub(crate) reuse: bool,
    /// `RDMA_OPTION_ID_AFONLY`.
    pub(crate) family_only: bool,
    /// `RDMA_OPTION_ID_ACK_TIMEOUT`.
    pub(crate) ack_timeout: Option<u8>,
}

impl Id {
    /// An idle identifier.
    pub(crate) fn new(name: usize, space: PortSpace, datagrams: bool, channel: Arc<Channel>) -> Id {
        Id {
            name,
            space,
            datagrams,
            unacked: Unacked::default(),
            channel: Mutex::new(channel),
            state: Mutex::default(),
            ended: AtomicBool::new(false),
        }
    }

    /// What changes; taken after the service's lock if both are.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its channel.
    pub(crate) fn channel(&self) -> Arc<Channel> {
        self.channel.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gives it another channel; the old one.
    pub(super) fn set_channel(&self, channel: Arc<Channel>) -> Arc<Channel> {
        std::mem::replace(&mut *self.channel.lock().unwrap_or_else(PoisonError::into_inner), channel)
    }

    /// Notes the end of its connection; whether it is news.
    pub(super) fn end(&self) -> bool {
        !self.ended.swap(true, Ordering::Relaxed)
    }
}
