//! What a queue pair has produced besides packets and its host has not fetched yet.

use std::collections::VecDeque;

use crate::{Completion, Counters, Event, RecvCompletion, SendCompletion};

/// A packet written into the caller's buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transmit {
    /// Bytes written: BTH to the end of the padding. The link adds the ICRC.
    pub len: usize,
    /// The next packet is likely to be of this length too: a link that sends batches of equal segments goes on.
    pub more: bool,
}

/// Completions, events and counters, filled by all parts of a queue pair.
///
/// Bounded by the host: a send completion needs a post, which is refused while unfetched ones fill the queue; a
/// receive completion needs a receive request of the host; events are one per change of state.
///
/// Send completions are fetched before receive completions. A peer may put its answer before the acknowledgement of
/// what it answers, in one batch; programs are used to adapters that acknowledge at once, and some (perftest's
/// `ib_send_lat -e`, with room for one request) fail if the answer completes first.
pub(crate) struct Output {
    sends: VecDeque<SendCompletion>,
    recvs: VecDeque<RecvCompletion>,
    events: VecDeque<Event>,
    pub(crate) counters: Counters,
}

impl Output {
    pub(crate) fn new() -> Output {
        Output {
            sends: VecDeque::new(),
            recvs: VecDeque::new(),
            events: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    #[inline]
    pub(crate) fn send_done(&mut self, completion: SendCompletion) {
        self.sends.push_back(completion);
    }

    #[inline]
    pub(crate) fn recv_done(&mut self, completion: RecvCompletion) {
        self.recvs.push_back(completion);
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.events.push_back(event);
    }

    /// Where its memory is, see [`RcQp::memory`](crate::RcQp::memory).
    #[inline]
    pub(crate) fn memory(&self) -> [*const u8; 2] {
        [self.sends.as_slices().0.as_ptr().cast(), self.recvs.as_slices().0.as_ptr().cast()]
    }

    #[inline]
    pub(crate) fn unfetched_sends(&self) -> usize {
        self.sends.len()
    }

    /// Whether nothing is left to be fetched, events excepted.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.sends.is_empty() && self.recvs.is_empty()
    }

    /// Whether nothing is left to be fetched.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        self.is_empty() && self.events.is_empty()
    }

    /// Whether there are completions of receives, and nothing else.
    #[inline]
    pub(crate) fn has_only_receives(&self) -> bool {
        !self.recvs.is_empty() && self.sends.is_empty() && self.events.is_empty()
    }

    #[inline]
    pub(crate) fn pop_completion(&mut self) -> Option<Completion> {
        match self.sends.pop_front() {
            Some(send) => Some(Completion::Send(send)),
            None => {
                let recv = self.recvs.pop_front();
                if recv.is_none() {
                    // Empty queues begin at the start of their memory again: with one completion at a time no more than one
                    // place is touched.
                    self.sends.clear();
                    self.recvs.clear();
                }
                recv.map(Completion::Recv)
            }
        }
    }

    pub(crate) fn pop_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Forgets completions and events, as RESET does; counters go on.
    pub(crate) fn clear(&mut self) {
        self.sends.clear();
        self.recvs.clear();
        self.events.clear();
    }
}

#[cfg(test)]
mod tests {
    use ibex_wire::Qpn;

    use super::*;
    use crate::{WcOpcode, WcStatus};

    #[test]
    fn a_send_completes_before_the_answer_that_overtook_its_acknowledgement() {
        let mut output = Output::new();
        output.recv_done(RecvCompletion {
            cookie: 1,
            status: WcStatus::SUCCESS,
            opcode: WcOpcode::RECV,
            byte_len: 0,
            imm: None,
            invalidated: None,
            grh: false,
            src_qpn: Qpn::new(1),
            solicited: false,
        });
        output.send_done(SendCompletion {
            cookie: 2,
            status: WcStatus::SUCCESS,
            opcode: WcOpcode::SEND,
            byte_len: 0,
            signaled: true,
        });
        assert!(matches!(output.pop_completion(), Some(Completion::Send(_))));
        assert!(matches!(output.pop_completion(), Some(Completion::Recv(_))));
        assert!(output.pop_completion().is_none());
    }
}
