//! The engine: commands in, datagrams and events out.

use std::collections::VecDeque;

use ibex_wire::mad::{Gid, MAD_LEN, TransportService};
use ibex_wire::{Psn, Qpn};

use super::{
    CmConfig, CmError, ConnId, ConnState, ConnectParams, Event, ListenParams, ListenerId, Path, RejectParams,
    ReplyParams, SidrId, SidrParams, SidrReplyParams,
};
use crate::Nanos;

/// A datagram to send: as a UD SEND from queue pair 1 to queue pair 1, with the key
/// [`GSI_QKEY`](ibex_wire::mad::GSI_QKEY).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transmit {
    /// The address to send from.
    pub local: Gid,
    /// The address to send to.
    pub remote: Gid,
    /// The payload.
    pub mad: [u8; MAD_LEN],
}

/// What a queue pair needs to know to be moved to RTR and RTS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attributes {
    /// The way to the peer.
    pub path: Path,
    /// The kind of queue pair.
    pub transport: TransportService,
    /// The peer's queue pair.
    pub remote_qpn: Qpn,
    /// RTR: the sequence number expected first.
    pub rq_psn: Psn,
    /// RTS: the sequence number of the first request.
    pub sq_psn: Psn,
    /// RTR, RC only: READs and atomics of the peer to answer at once.
    pub max_dest_rd_atomic: u8,
    /// RTS, RC only: READs and atomics to have outstanding.
    pub max_rd_atomic: u8,
    /// RTS, RC only.
    pub retry_count: u8,
    /// RTS, RC only.
    pub rnr_retry_count: u8,
    /// RTS, RC only: local acknowledgement timeout, 4.096 µs × 2^this (5 bits).
    pub ack_timeout: u8,
}

/// Numbers since the engine was made.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counters {
    /// Datagrams received.
    pub received: u64,
    /// Datagrams sent, repetitions included.
    pub sent: u64,
    /// Repetitions for want of an answer.
    pub repeated: u64,
    /// Received messages that had been received before.
    pub duplicates: u64,
    /// Received datagrams that are no messages of this kind, or belong to no connection here.
    pub ignored: u64,
    /// Requests dropped because the backlog or the table was full.
    pub overflow: u64,
}

/// One process's connection management.
///
/// After any command and any `handle_…`: drain [`poll_transmit`](Cm::poll_transmit) and [`poll_event`](Cm::poll_event), then ask
/// [`poll_timeout`](Cm::poll_timeout) and call [`handle_timeout`](Cm::handle_timeout) at that time. `now` must not go backwards.
#[derive(Debug)]
pub struct Cm {
    config: CmConfig,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    counters: Counters,
}

impl Cm {
    /// An engine without listeners and connections.
    pub fn new(config: CmConfig) -> Cm {
        Cm { config, transmits: VecDeque::new(), events: VecDeque::new(), counters: Counters::default() }
    }

    /// Offers a service. Requests come as [`Event::Request`] and [`Event::SidrRequest`].
    ///
    /// # Errors
    ///
    /// [`CmError::InUse`] if the service is offered on this address, or on all of them.
    pub fn listen(&mut self, params: &ListenParams) -> Result<ListenerId, CmError> {
        let _ = self.config;
        Err(CmError::InUse(params.service))
    }

    /// Ends a listener. Its requests that are not answered yet stay, and are the host's to answer or release.
    ///
    /// # Errors
    ///
    /// [`CmError::Unknown`].
    pub fn unlisten(&mut self, _listener: ListenerId) -> Result<(), CmError> {
        Err(CmError::Unknown)
    }

    /// Requests a connection. One of [`Event::Reply`], [`Event::Rejected`] and [`Event::Unreachable`] follows.
    ///
    /// # Errors
    ///
    /// [`CmError::PrivateData`], [`CmError::Range`], [`CmError::TooMany`].
    pub fn connect(&mut self, _now: Nanos, _params: &ConnectParams) -> Result<ConnId, CmError> {
        Err(CmError::Unknown)
    }

    /// The program has fetched this request: it no longer counts against the listener's backlog. Answers say so too.
    ///
    /// # Errors
    ///
    /// [`CmError::Unknown`], [`CmError::State`].
    pub fn taken(&mut self, _conn: ConnId) -> Result<(), CmError> {
        Err(CmError::Unknown)
    }

    /// Tells the peer that the answer to its request or reply takes longer, 4.096 µs × 2^`service_timeout` (5 bits) from now.
    /// Repeated when its message comes again.
    ///
    /// # Errors
    ///
    /// [`CmError::Unknown`], [`CmError::State`], [`CmError::PrivateData`] (222 bytes), [`CmError::Range`].
    pub fn mra(
        &mut self,
        _now: Nanos,
        _conn: ConnId,
        _service_timeout: u8,
        _private: &[u8],
    ) -> Result<(), CmError> {
        Err(CmError::Unknown)
    }

    /// Accepts a request; the queue pair must be able to receive already. One of [`Event::Established`],
    /// [`Event::Rejected`] and [`Event::Unreachable`] follows.
    ///
    /// # Errors
    ///
    /// [`CmError::Unknown`], [`CmError::State`], [`CmError::Range`].
    pub fn reply(&mut self, _now: Nanos, _conn: ConnId, _params: &ReplyParams) -> Result<(), CmError> {
        Err(CmError::Unknown)
    }

    /// Refuses a request or a reply, or gives up a reply of one's own. No event follows; the connection is gone.
    ///
    /// # Errors
    ///
    /// [`CmError::Unknown`], [`CmError::State`], [`CmError::PrivateData`] (148 bytes), [`CmError::Information`] (72 bytes).
    pub fn reject(&mut self, _now: Nanos, _conn: ConnId, _params: &RejectParams) -> Result<(), CmError> {
        Err(CmError::Unknown)
    }

    /// After [`Event::Reply`]: the queue pair is ready, tell the peer. The connection is established, without an event.
    ///
    /// # Errors
    ///
    /// [`CmError::Unknown`], [`CmError::State`], [`CmError::PrivateData`] (224 bytes).
    pub fn ready(&mut self, _now: Nanos, _conn: ConnId, _private: &[u8]) -> Result<(), CmError> {
        Err(CmError::Unknown)
    }

    /// Data arrived on a queue pair whose reply is out: the caller is ready, though its message was lost.
    /// [`Event::Established`] follows, unless it came before.
    ///
    /// # Errors
    ///
    /// [`CmError::Unknown`], [`CmError::State`].
    pub fn communication_established(&mut self, _now: Nanos, _conn: ConnId) -> Result<(), CmError> {
        Err(CmError::Unknown)
    }

    /// Ends an established connection, or one whose reply is out; or agrees to its end after
    /// [`Event::DisconnectRequested`]. [`Event::Disconnected`] follows, later [`Event::TimewaitExit`].
    ///
    /// # Errors
    ///
    /// [`CmError::Unknown`], [`CmError::State`], [`CmError::PrivateData`] (220 bytes; 224 when agreeing).
    pub fn disconnect(&mut self, _now: Nanos, _conn: ConnId, _private: &[u8]) -> Result<(), CmError> {
        Err(CmError::Unknown)
    }

    /// The host has no more use for the connection, in whatever state: the engine tells the peer what is proper
    /// (refusal, disconnection), sees it through by itself, and gives no more events of it. Unknown connections are no error.
    pub fn release(&mut self, _now: Nanos, _conn: ConnId) {}

    /// What the queue pair needs for RTR and RTS: from [`Event::Request`] on at the accepting end (the numbers of
    /// `reply` once it is given), from [`Event::Reply`] on at the other.
    ///
    /// # Errors
    ///
    /// [`CmError::Unknown`], [`CmError::State`].
    pub fn attributes(&self, _conn: ConnId) -> Result<Attributes, CmError> {
        Err(CmError::Unknown)
    }

    /// Where a connection is; `None` if it is gone.
    pub fn state(&self, _conn: ConnId) -> Option<ConnState> {
        None
    }

    /// Asks which queue pair serves a service. [`Event::SidrReply`] or [`Event::SidrUnreachable`] follows.
    ///
    /// # Errors
    ///
    /// [`CmError::PrivateData`], [`CmError::Range`], [`CmError::TooMany`].
    pub fn sidr_request(&mut self, _now: Nanos, _params: &SidrParams) -> Result<SidrId, CmError> {
        Err(CmError::Unknown)
    }

    /// Says the program has fetched this request, as [`taken`](Cm::taken) does for connections.
    ///
    /// # Errors
    ///
    /// [`CmError::Unknown`].
    pub fn sidr_taken(&mut self, _sidr: SidrId) -> Result<(), CmError> {
        Err(CmError::Unknown)
    }

    /// Answers a resolution.
    ///
    /// # Errors
    ///
    /// [`CmError::Unknown`], [`CmError::PrivateData`] (136 bytes).
    pub fn sidr_reply(
        &mut self,
        _now: Nanos,
        _sidr: SidrId,
        _params: &SidrReplyParams,
    ) -> Result<(), CmError> {
        Err(CmError::Unknown)
    }

    /// The host has no more use for a resolution: one that was asked is forgotten, one to be answered is refused. No more events
    /// of it come.
    pub fn sidr_release(&mut self, _now: Nanos, _sidr: SidrId) {}

    /// A datagram arrived on queue pair 1: payload `mad`, from address `from` to this end's address `to`, sent by queue pair
    /// `from_qpn`. Anything may be in it.
    pub fn handle_mad(&mut self, _now: Nanos, _from: Gid, _to: Gid, _from_qpn: Qpn, _mad: &[u8]) {}

    /// The time asked for by [`poll_timeout`](Cm::poll_timeout) has come. Harmless at other times.
    pub fn handle_timeout(&mut self, _now: Nanos) {}

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`handle_timeout`](Cm::handle_timeout) is wanted; `None` while nothing is waited for.
    pub fn poll_timeout(&self) -> Option<Nanos> {
        None
    }

    /// Whether nothing is left: no connection, no resolution, nothing to send, no event. Listeners do not count.
    pub fn is_idle(&self) -> bool {
        self.transmits.is_empty() && self.events.is_empty()
    }

    /// Numbers since the engine was made.
    pub fn counters(&self) -> Counters {
        self.counters
    }
}
