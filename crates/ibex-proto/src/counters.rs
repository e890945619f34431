//! Counters of one queue pair: what went wrong on the wire and how often.

/// Totals since the queue pair was made. They wrap only in theory.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counters {
    /// Packets handed to the link.
    pub sent: u64,
    /// Packets taken from the link, of any fate.
    pub received: u64,
    /// Dropped: this state does not receive, wrong partition, or another service.
    pub dropped: u64,
    /// UC and UD: packets of messages that were dropped, for want of a packet before them, a receive request, room in it
    /// or rights.
    pub lost: u64,
    /// UD: datagrams with the wrong key.
    pub bad_qkeys: u64,
    /// Requests received again and answered again.
    pub duplicate_requests: u64,
    /// Requests that came ahead of a missing one.
    pub out_of_sequence: u64,
    /// Responses that matched nothing outstanding.
    pub stale_responses: u64,
    /// Times the requester went back for any reason but "receiver not ready".
    pub retransmissions: u64,
    /// Of these, because nothing was heard in time.
    pub timeouts: u64,
    /// Times the oldest packet was sent again to ask, after less silence than a timeout.
    pub probes: u64,
    /// "Receiver not ready" received.
    pub rnr_naks_received: u64,
    /// "Receiver not ready" sent.
    pub rnr_naks_sent: u64,
    /// Sequence error NAKs sent.
    pub sequence_naks_sent: u64,
}

impl Counters {
    /// Times something was sent again because it, or its answer, may have been lost.
    #[inline]
    pub fn repeats(&self) -> u64 {
        self.retransmissions + self.probes
    }
}
