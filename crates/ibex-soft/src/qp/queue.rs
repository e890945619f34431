//! Send and receive queues: where work requests stand until they complete.
//!
//! Owns the slots of both queues with their scatter/gather lists and inline data; all memory is taken when the queue
//! pair is created, but for windows. Does not own execution (`ibex-proto`) nor access to memory ([`super::hands`]).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ibex_sys::ibv_sge;

use crate::cq::Unpolled;
use crate::mr::{Bind, PdNumber};
use crate::net::Peer;
use crate::srq::Srq;

/// Most bytes a send request can carry inline.
pub(crate) const MAX_INLINE: u32 = 512;

/// Most elements of a scatter/gather list.
pub(crate) const MAX_SGE: u32 = 32;

/// Most requests a queue can be created with.
pub(crate) const MAX_WR: u32 = 1 << 15;

/// The payload of a send request as it is posted.
#[derive(Clone, Copy)]
pub(crate) enum Payload<'a> {
    /// Registered memory.
    Gather(&'a [ibv_sge]),
    /// So many bytes that the function copies, at once.
    Inline(u32, &'a dyn Fn(&mut [u8])),
    /// None, but what a window is bound to.
    Bind(&'a Bind),
}

/// Requests in their slots, each with its list behind it: what is needed of a request lies in one or two cache lines.
#[derive(Debug)]
struct Slots {
    /// Each slot is a head and room for a list. A head, which happens to be as large as an element, is the identifier in
    /// the place of the address, the list's length or that of inline data in the place of the length, and [`INLINE`] in the
    /// place of the key for the latter.
    cells: Vec<ibv_sge>,
    stride: usize,
    count: usize,
}

/// In the place of the key: the payload is inline data.
const INLINE: u32 = 1;

impl Slots {
    fn new(count: usize, max_sge: usize) -> Slots {
        let stride = 1 + max_sge;
        Slots { cells: vec![ibv_sge::default(); count * stride], stride, count }
    }

    #[inline]
    fn len(&self) -> usize {
        self.count
    }

    /// One slot more.
    fn grow(&mut self) {
        self.count += 1;
        self.cells.resize(self.count * self.stride, ibv_sge::default());
    }

    /// Puts a request with a list, which is not longer than the room for it.
    #[inline]
    fn put(&mut self, index: usize, wr_id: u64, list: &[ibv_sge]) {
        let at = index * self.stride;
        self.cells[at] = ibv_sge { addr: wr_id, length: list.len() as u32, lkey: 0 };
        // Mostly one element, for which a call is too much.
        match list {
            [one] => self.cells[at + 1] = *one,
            _ => self.cells[at + 1..at + 1 + list.len()].copy_from_slice(list),
        }
    }

    /// Puts a request with inline data, which stands elsewhere.
    fn put_inline(&mut self, index: usize, wr_id: u64, len: u32) {
        self.cells[index * self.stride] = ibv_sge { addr: wr_id, length: len, lkey: INLINE };
    }

    /// Where the slot is.
    #[inline]
    fn address(&self, index: usize) -> *const u8 {
        self.cells.as_ptr().wrapping_add(index * self.stride).cast()
    }

    #[inline]
    fn id(&self, index: usize) -> u64 {
        self.cells[index * self.stride].addr
    }

    /// The list of a request, which has no inline data.
    #[inline]
    fn list(&self, index: usize) -> &[ibv_sge] {
        let at = index * self.stride;
        let head = &self.cells[at];
        let len = if head.lkey == INLINE { 0 } else { head.length as usize };
        &self.cells[at + 1..at + 1 + len]
    }

    /// Bytes of inline data of a request, if it has any.
    #[inline]
    fn inline(&self, index: usize) -> Option<usize> {
        let head = &self.cells[index * self.stride];
        (head.lkey == INLINE).then_some(head.length as usize)
    }
}

/// The send queue's slots, used round and round: requests complete in the order of posting.
#[derive(Debug)]
pub(crate) struct SendQueue {
    slots: Slots,
    inline: Box<[u8]>,
    /// Where each datagram goes; empty for connections.
    peers: Box<[Option<Peer>]>,
    /// What each request to bind is for; empty until the first of them.
    binds: Box<[Bind]>,
    max_sge: usize,
    max_inline: usize,
    /// Slot of the next request.
    next: usize,
    used: usize,
    /// Requests that completed and whose completions wait: they still count.
    pub(crate) unpolled: Unpolled,
}

impl SendQueue {
    /// A queue of `depth` requests.
    pub(crate) fn new(depth: u32, max_sge: u32, max_inline: u32, unpolled: Unpolled) -> SendQueue {
        let (depth, max_sge, max_inline) = (depth as usize, max_sge as usize, max_inline as usize);
        SendQueue {
            slots: Slots::new(depth, max_sge),
            inline: vec![0; depth * max_inline].into_boxed_slice(),
            peers: Box::default(),
            binds: Box::default(),
            max_sge,
            max_inline,
            next: 0,
            used: 0,
            unpolled,
        }
    }

    /// The same queue for datagrams, which have a destination each.
    pub(crate) fn of_datagrams(self) -> SendQueue {
        let peers = vec![None; self.slots.len()].into_boxed_slice();
        SendQueue { peers, ..self }
    }

    /// Notes where the datagram goes that is about to be pushed into slot `cookie`.
    pub(crate) fn direct(&mut self, cookie: u64, to: Peer) {
        if let Some(peer) = self.peers.get_mut(cookie as usize) {
            *peer = Some(to);
        }
    }

    /// Where the datagram in a slot goes.
    pub(crate) fn peer(&self, cookie: u64) -> Option<Peer> {
        self.peers.get(cookie as usize).copied().flatten()
    }

    /// Where the next request will stand.
    #[inline]
    pub(crate) fn address(&self) -> *const u8 {
        self.slots.address(self.next)
    }

    /// The slot that [`SendQueue::push`] would use; `None` if all are taken.
    #[inline]
    pub(crate) fn vacant(&self) -> Option<u64> {
        (self.used + self.unpolled.count() < self.slots.len()).then_some(self.next as u64)
    }

    /// Requests there is room for.
    pub(crate) fn room(&self) -> usize {
        self.slots.len().saturating_sub(self.used + self.unpolled.count())
    }

    /// Copies inline data to where those of the vacant slot stand.
    #[inline]
    pub(crate) fn stage(&mut self, len: u32, copy: &dyn Fn(&mut [u8])) -> &[u8] {
        let at = self.next * self.max_inline;
        let place = &mut self.inline[at..at + len as usize];
        copy(place);
        place
    }

    /// Puts a request, whose inline data has been [staged](SendQueue::stage), into the vacant slot.
    #[inline]
    pub(crate) fn push_staged(&mut self, wr_id: u64, payload: Payload<'_>) {
        match payload {
            Payload::Inline(len, _) => {
                self.slots.put_inline(self.next, wr_id, len);
                self.advance();
            }
            Payload::Gather(list) => {
                self.slots.put(self.next, wr_id, list);
                self.advance();
            }
            Payload::Bind(_) => self.push(wr_id, payload),
        }
    }

    #[inline]
    fn advance(&mut self) {
        self.next = if self.next + 1 == self.slots.len() { 0 } else { self.next + 1 };
        self.used += 1;
    }

    /// Puts a request into the vacant slot. The caller has checked that there is one and that the payload is within the
    /// limits the queue was made with.
    pub(crate) fn push(&mut self, wr_id: u64, payload: Payload<'_>) {
        match payload {
            Payload::Gather(list) => self.slots.put(self.next, wr_id, list),
            Payload::Inline(len, copy) => {
                self.stage(len, copy);
                self.slots.put_inline(self.next, wr_id, len);
            }
            Payload::Bind(bind) => {
                if self.binds.is_empty() {
                    self.binds = vec![Bind::default(); self.slots.len()].into_boxed_slice();
                }
                self.binds[self.next] = *bind;
                self.slots.put(self.next, wr_id, &[]);
            }
        }
        self.advance();
    }

    /// Frees the slot of a completed request; returns its identifier.
    #[inline]
    pub(crate) fn complete(&mut self, cookie: u64) -> u64 {
        self.used = self.used.saturating_sub(1);
        self.slots.id(cookie as usize)
    }

    /// The gather list of a request.
    pub(crate) fn list(&self, cookie: u64) -> &[ibv_sge] {
        self.slots.list(cookie as usize)
    }

    /// The inline data of a request, if it has any.
    pub(crate) fn inline(&self, cookie: u64) -> Option<&[u8]> {
        let index = cookie as usize;
        let len = self.slots.inline(index)?;
        let at = index * self.max_inline;
        Some(&self.inline[at..at + len])
    }

    /// What a request to bind is for.
    pub(crate) fn bind(&self, cookie: u64) -> Option<&Bind> {
        self.binds.get(cookie as usize)
    }

    /// Elements a gather list may have.
    pub(crate) fn max_sge(&self) -> usize {
        self.max_sge
    }

    /// Bytes of inline data a request may have.
    pub(crate) fn max_inline(&self) -> usize {
        self.max_inline
    }

    /// Forgets every request.
    pub(crate) fn clear(&mut self) {
        self.next = 0;
        self.used = 0;
    }
}

/// The receive queue's slots, used round and round. With a shared receive queue: what was taken from it and has not
/// completed.
#[derive(Debug)]
pub(crate) struct RecvQueue {
    slots: Slots,
    max_sge: usize,
    /// Slot of the next request posted.
    next: usize,
    /// Requests posted and not completed.
    used: usize,
    /// Of these, not yet taken by the transport.
    waiting: usize,
    /// Requests that completed and whose completions wait: they still count.
    pub(crate) unpolled: Unpolled,
    shared: Option<Shared>,
}

/// The shared receive queue that requests come from.
#[derive(Debug)]
struct Shared {
    srq: Arc<Srq>,
    /// Slots that hold no request.
    free: Vec<u32>,
}

impl RecvQueue {
    /// A queue of `depth` requests.
    pub(crate) fn new(depth: u32, max_sge: u32, unpolled: Unpolled) -> RecvQueue {
        let (depth, max_sge) = (depth as usize, max_sge as usize);
        RecvQueue {
            slots: Slots::new(depth, max_sge),
            max_sge,
            next: 0,
            used: 0,
            waiting: 0,
            unpolled,
            shared: None,
        }
    }

    /// A queue pair's end of a shared receive queue.
    pub(crate) fn shared(srq: Arc<Srq>) -> RecvQueue {
        srq.users.fetch_add(1, Ordering::Relaxed);
        let unpolled = srq.unpolled.clone();
        let max_sge = srq.max_sge as u32;
        let shared = Some(Shared { srq, free: Vec::new() });
        let mut queue = RecvQueue::new(0, max_sge, unpolled);
        queue.shared = shared;
        queue
    }

    /// Where the request is that is taken next, if it is the queue's own.
    #[inline]
    pub(crate) fn address(&self) -> *const u8 {
        self.slots.address(self.oldest())
    }

    /// Slot of the oldest request that waits.
    #[inline]
    fn oldest(&self) -> usize {
        if self.waiting <= self.next {
            self.next - self.waiting
        } else {
            self.next + self.slots.len() - self.waiting
        }
    }

    /// Whether requests come from a shared receive queue, and are posted there only.
    pub(crate) fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// The domain of the shared receive queue, which its lists are checked against; `None` if requests are the queue
    /// pair's own.
    pub(crate) fn pd(&self) -> Option<PdNumber> {
        self.shared.as_ref().map(|shared| shared.srq.pd)
    }

    /// Posts a request.
    ///
    /// # Errors
    /// An errno: `ENOMEM` if the queue is full, `EINVAL` if the list is too long or the queue is a shared one.
    #[inline]
    pub(crate) fn push(&mut self, wr_id: u64, list: &[ibv_sge]) -> Result<(), i32> {
        if list.len() > self.max_sge || self.is_shared() {
            return Err(libc::EINVAL);
        }
        if self.used + self.unpolled.count() >= self.slots.len() {
            return Err(libc::ENOMEM);
        }
        self.slots.put(self.next, wr_id, list);
        self.next = if self.next + 1 == self.slots.len() { 0 } else { self.next + 1 };
        self.used += 1;
        self.waiting += 1;
        Ok(())
    }

    /// Takes the oldest request that waits, to be used; returns its slot.
    pub(crate) fn take(&mut self) -> Option<u64> {
        let slot = self.try_take()?;
        self.keep();
        Some(slot)
    }

    /// Takes the oldest request that waits; returns its slot. [`RecvQueue::keep`] or [`RecvQueue::put_back`] must follow.
    #[inline]
    pub(crate) fn try_take(&mut self) -> Option<u64> {
        if self.is_shared() {
            return self.take_shared();
        }
        if self.waiting == 0 {
            return None;
        }
        let slot = self.oldest();
        self.waiting -= 1;
        Some(slot as u64)
    }

    /// The request taken last is used.
    #[inline]
    pub(crate) fn keep(&self) {
        if let Some(shared) = &self.shared {
            shared.srq.taken();
        }
    }

    /// Takes the oldest request of the shared queue into a slot of our own. A few slots are enough: the transport holds one
    /// request, and completions of others wait for the end of a receive round at most.
    fn take_shared(&mut self) -> Option<u64> {
        let RecvQueue { slots, shared: Some(shared), used, .. } = self else { return None };
        if shared.free.is_empty() {
            let index = slots.len();
            slots.grow();
            shared.free.push(index as u32);
        }
        let index = *shared.free.last()? as usize;
        shared.srq.take(|wr_id, list| slots.put(index, wr_id, list))?;
        shared.free.pop();
        *used += 1;
        Some(index as u64)
    }

    /// Puts back the request taken last, untouched: it is taken next. To a shared queue, since this queue pair may not
    /// need it for long.
    pub(crate) fn put_back(&mut self, cookie: u64) {
        let Some(shared) = &mut self.shared else {
            self.waiting += 1;
            return;
        };
        let index = cookie as usize;
        shared.srq.put_back(self.slots.id(index), self.slots.list(index));
        shared.free.push(cookie as u32);
        self.used -= 1;
    }

    /// Frees the slot of a completed request; returns its identifier.
    #[inline]
    pub(crate) fn complete(&mut self, cookie: u64) -> u64 {
        self.used = self.used.saturating_sub(1);
        if let Some(shared) = &mut self.shared {
            shared.srq.complete(1);
            shared.free.push(cookie as u32);
        }
        self.slots.id(cookie as usize)
    }

    /// The scatter list of a request.
    #[inline]
    pub(crate) fn list(&self, cookie: u64) -> &[ibv_sge] {
        self.slots.list(cookie as usize)
    }

    /// Forgets every request.
    pub(crate) fn clear(&mut self) {
        if let Some(shared) = &mut self.shared {
            // Requests that were taken are lost to the shared queue, as the specification has it.
            shared.srq.complete(self.used);
            shared.free.clear();
            shared.free.extend(0..self.slots.len() as u32);
        }
        self.next = 0;
        self.used = 0;
        self.waiting = 0;
    }
}

impl Drop for RecvQueue {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            shared.srq.complete(self.used);
            shared.srq.users.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sge(addr: u64) -> ibv_sge {
        ibv_sge { addr, length: 1, lkey: 1 }
    }

    #[test]
    fn send_slots_go_round_and_keep_their_payload() {
        let mut queue = SendQueue::new(2, 2, 4, Unpolled::default());
        for round in 0..5u64 {
            assert_eq!(queue.vacant(), Some(0));
            queue.push(round, Payload::Gather(&[sge(1), sge(2)]));
            queue.push(round + 100, Payload::Inline(3, &|out| out.copy_from_slice(b"abc")));
            assert_eq!(queue.vacant(), None);
            assert_eq!(queue.list(0).len(), 2);
            assert_eq!(queue.inline(0), None);
            assert_eq!(queue.inline(1), Some(&b"abc"[..]));
            assert_eq!(queue.complete(0), round);
            assert_eq!(queue.complete(1), round + 100);
        }
    }

    #[test]
    fn receive_slots_are_taken_in_the_order_of_posting() {
        let mut queue = RecvQueue::new(3, 1, Unpolled::default());
        queue.push(1, &[sge(1)]).unwrap();
        queue.push(2, &[]).unwrap();
        queue.push(3, &[sge(3)]).unwrap();
        assert_eq!(queue.push(4, &[]), Err(libc::ENOMEM));
        assert_eq!(queue.push(4, &[sge(1), sge(2)]), Err(libc::EINVAL));
        let first = queue.take().unwrap();
        assert_eq!(queue.push(4, &[]), Err(libc::ENOMEM), "taken is not yet free");
        assert_eq!(queue.complete(first), 1);
        queue.push(4, &[sge(4)]).unwrap();
        for expected in [2, 3, 4] {
            let cookie = queue.take().unwrap();
            assert_eq!(queue.list(cookie).len(), usize::from(expected != 2));
            assert_eq!(queue.complete(cookie), expected);
        }
        assert_eq!(queue.take(), None);
    }
}
