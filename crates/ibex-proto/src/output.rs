//! What a queue pair has produced besides packets and its host has not fetched yet.

use std::collections::VecDeque;

use crate::{Completion, Counters, Event, RecvCompletion, SendCompletion};

/// Completions, events and counters, filled by all parts of a queue pair.
///
/// Bounded by the host: a send completion needs a post, which is refused while unfetched ones fill the queue; a
/// receive completion needs a receive request of the host; events are one per change of state.
pub(crate) struct Output {
    completions: VecDeque<Completion>,
    events: VecDeque<Event>,
    /// Send completions among `completions`.
    unfetched_sends: usize,
    pub(crate) counters: Counters,
}

impl Output {
    pub(crate) fn new() -> Output {
        Output {
            completions: VecDeque::with_capacity(16),
            events: VecDeque::new(),
            unfetched_sends: 0,
            counters: Counters::default(),
        }
    }

    #[inline]
    pub(crate) fn send_done(&mut self, completion: SendCompletion) {
        self.unfetched_sends += 1;
        self.completions.push_back(Completion::Send(completion));
    }

    #[inline]
    pub(crate) fn recv_done(&mut self, completion: RecvCompletion) {
        self.completions.push_back(Completion::Recv(completion));
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.events.push_back(event);
    }

    #[inline]
    pub(crate) fn unfetched_sends(&self) -> usize {
        self.unfetched_sends
    }

    #[inline]
    pub(crate) fn pop_completion(&mut self) -> Option<Completion> {
        let completion = self.completions.pop_front()?;
        self.unfetched_sends -= usize::from(matches!(completion, Completion::Send(_)));
        Some(completion)
    }

    pub(crate) fn pop_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Forgets completions and events, as RESET does; counters go on.
    pub(crate) fn clear(&mut self) {
        self.completions.clear();
        self.events.clear();
        self.unfetched_sends = 0;
    }
}
