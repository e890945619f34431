//! One link: the sending half of the rings shared with a peer process, and whether the peer still is.
//!
//! Owns the writer, which threads that post take turns at, and what happens while the ring is full. The reading half
//! belongs to whoever receives ([`super::Incoming`]).

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ibex_proto::Ack;
use ibex_sys::lock::{Guard, Lock};
use ibex_wire::{Bth, Pkey};

use super::bell::PeerBell;
use super::ring::{self, Garbage, HEADER, Space, Writer, express_record};
use super::segment::Mapping;
use crate::net::express::{ACK_LEN, Beside};
use crate::oneside::View;

/// How long a full ring may stand still before its reader is taken for stopped: packets are lost from then on, as at a
/// full socket, so that the transport's timers run and end. A reader that is only pushed from its processor is back
/// within a few of the scheduler's slices.
const STOPPED: Duration = Duration::from_millis(20);

/// Bytes kept for a ring in which other threads have taken the room that was there: a full batch of each of four.
const KEPT: usize = 64 << 10;

/// The number of a link among those this process ever had, never 0.
pub(crate) type LinkId = u32;

/// Whether packets can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// They can.
    Yes,
    /// Not before the reader has read more.
    Wait,
    /// The reader has stopped or is gone: they are lost.
    Lost,
}

/// What became of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// They are in the ring.
    Now,
    /// They are kept, and go before all others once there is room: [`Link::push_on`].
    Later,
    /// They are lost.
    Lost,
}

/// A link to a peer process, or of this process to itself.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) id: LinkId,
    /// The peer's UDP port, by which its slots are recognised.
    pub(crate) port: u16,
    /// `None` once the link is down: then nothing keeps the memory mapped.
    out: Lock<Option<Out>>,
    /// Bytes that certainly fit, when last seen.
    room: AtomicUsize,
    down: AtomicBool,
    /// Packets sent in express records, or left before; written with the sending half's lock held.
    express: AtomicU64,
    /// An acknowledgement that was left to travel with what is sent next: the word that says it, 0 if there is none, and the queue
    /// pair that it is for. Entered by whoever receives, taken out with the sending half's lock held.
    left: AtomicU64,
    left_to: AtomicU32,
    /// The peer's memory, if it may be reached; `None` once the link is down, whoever still knows the link.
    view: Mutex<Option<Arc<View>>>,
}

#[derive(Debug)]
struct Out {
    map: Arc<Mapping>,
    writer: Writer,
    bell: PeerBell,
    /// Whether the reader has been told that room is wanted.
    wants: bool,
    /// Since when the ring is full, and the reader's position then.
    full: Option<(Instant, u64)>,
    /// Records that found no room although there had been some.
    kept: Vec<u8>,
    packets: u64,
}

impl Link {
    /// A link that writes with `writer` and wakes its reader by `bell`.
    pub(crate) fn new(
        id: LinkId,
        port: u16,
        map: Arc<Mapping>,
        writer: Writer,
        bell: PeerBell,
        view: Option<View>,
    ) -> Link {
        let out = Out { map, writer, bell, wants: false, full: None, kept: Vec::new(), packets: 0 };
        let (room, down, express) = (AtomicUsize::new(0), AtomicBool::new(false), AtomicU64::new(0));
        Link {
            id,
            port,
            out: Lock::new(Some(out)),
            room,
            down,
            express,
            left: AtomicU64::new(0),
            left_to: AtomicU32::new(0),
            view: Mutex::new(view.map(Arc::new)),
        }
    }

    /// Whether `bytes` of records can be sent. When the answer is to wait, the peer wakes this process once there is room.
    #[inline]
    pub(crate) fn room(&self, bytes: usize) -> Room {
        if self.room.load(Ordering::Relaxed) >= bytes { Room::Yes } else { self.look(bytes) }
    }

    #[cold]
    fn look(&self, bytes: usize) -> Room {
        let mut out = self.lock();
        let Some(out) = &mut *out else { return Room::Lost };
        let room = out.room(bytes);
        self.room.store(out.certain(), Ordering::Relaxed);
        match room {
            Ok(room) => room,
            // The reader's own position is beyond what was written; who receives will see the end of the link.
            Err(Garbage) => {
                self.down.store(true, Ordering::Relaxed);
                Room::Lost
            }
        }
    }

    /// Sends `records`, which hold `count` packets.
    pub(crate) fn send(&self, records: &[u8], count: usize) -> Sent {
        let mut guard = self.lock();
        let Some(out) = &mut *guard else { return Sent::Lost };
        // Whatever its queue pair sends comes after it.
        self.pass_left(out);
        let sent = out.send(records, count);
        self.room.store(out.certain(), Ordering::Relaxed);
        sent
    }

    /// Leaves an acknowledgement to travel with whatever is sent next. There is none left. Only who receives calls this, and sees
    /// to it that [`Link::send_left`] follows soon.
    #[inline]
    pub(crate) fn leave(&self, beside: Beside) {
        debug_assert!(!self.has_left());
        self.left_to.store(beside.to, Ordering::Relaxed);
        self.left.store(beside.word, Ordering::Release);
    }

    /// Whether an acknowledgement was left and has not been sent.
    #[inline]
    pub(crate) fn has_left(&self) -> bool {
        self.left.load(Ordering::Acquire) != 0
    }

    /// Sends the acknowledgement that was left.
    #[cold]
    pub(crate) fn send_left(&self) -> Sent {
        let mut guard = self.lock();
        let Some(out) = &mut *guard else {
            self.take_left();
            return Sent::Lost;
        };
        let sent = self.pass_left(out);
        self.room.store(out.certain(), Ordering::Relaxed);
        sent
    }

    /// Sends what was left and what is kept, as far as that needs no waiting. Whether nothing of it remains.
    pub(crate) fn try_settle(&self) -> bool {
        let Some(mut guard) = self.out.try_lock() else { return false };
        let Some(out) = &mut *guard else {
            self.take_left();
            return true;
        };
        self.pass_left(out);
        // Room for nothing more is room for what is kept.
        let _ = out.room(0);
        self.room.store(out.certain(), Ordering::Relaxed);
        out.kept.is_empty()
    }

    /// Sends what was left, if something was, as a packet.
    fn pass_left(&self, out: &mut Out) -> Sent {
        let Some(packet) = self.take_left().packet(Pkey::DEFAULT) else { return Sent::Now };
        let mut record = [0; ring::record(ACK_LEN)];
        record[..HEADER].copy_from_slice(&ring::header(ACK_LEN));
        record[HEADER..HEADER + ACK_LEN].copy_from_slice(&packet);
        let sent = out.send(&record, 1);
        self.count(u64::from(sent != Sent::Lost));
        sent
    }

    /// Whether nobody is sending at this moment.
    pub(crate) fn is_free(&self) -> bool {
        self.out.try_lock().is_some()
    }

    /// Counts packets that no batch of its sender's counts, with the lock held.
    #[inline]
    fn count(&self, packets: u64) {
        self.express.store(self.express.load(Ordering::Relaxed) + packets, Ordering::Relaxed);
    }

    /// What was left, with the lock held: nobody else takes it out.
    #[inline]
    fn left(&self) -> Beside {
        let word = self.left.load(Ordering::Acquire);
        // As it was entered with that word: it is written again only when there is none.
        Beside { word, to: self.left_to.load(Ordering::Relaxed) }
    }

    #[inline]
    fn take_left(&self) -> Beside {
        let left = self.left();
        if left.is_some() {
            self.left.store(0, Ordering::Release);
        }
        left
    }

    /// Sends an express record of `len` bytes of payload and padding at once: `fill` puts them into the ring and gives the
    /// header and the acknowledgement that its queue pair owes, or nothing if the record is not to be sent. Whether it was: not if
    /// there is no room for it here and now. What was [left](Link::leave) travels beside it.
    #[inline]
    pub(crate) fn express(
        &self,
        len: usize,
        fill: impl FnOnce(Space<'_>) -> Option<(Bth, Option<Ack>)>,
    ) -> bool {
        let mut guard = self.lock();
        let Some(out) = &mut *guard else { return false };
        if out.certain() < express_record(len) {
            return false;
        }
        let Some((bth, ack)) = out.writer.space(&out.map, len).and_then(fill) else {
            return false;
        };
        let mut header = [0; Bth::LEN];
        bth.emit(&mut header);
        let beside = match ack {
            None => self.take_left(),
            // What was left travels with the next, unless it is part of this.
            Some(ack) => {
                let left = self.left();
                if left.to == bth.dest_qpn.get() && left.ack().is_some_and(|left| !ack.psn.precedes(left.psn))
                {
                    self.take_left();
                }
                Beside::new(bth.dest_qpn, ack)
            }
        };
        out.writer.publish(&out.map, len, &header, beside);
        out.bell.ring();
        let packets = 1 + u64::from(beside.is_some());
        out.packets += packets;
        self.count(packets);
        self.room.store(out.certain(), Ordering::Relaxed);
        true
    }

    /// Sends what was kept, if there is room; whether some is left.
    pub(crate) fn push_on(&self) -> bool {
        self.look(0) == Room::Wait
    }

    /// Wakes the peer, if it sleeps.
    pub(crate) fn ring(&self) {
        if let Some(out) = &mut *self.lock() {
            out.bell.ring();
        }
    }

    /// Ends the link: what is sent from here on is lost.
    pub(crate) fn take_down(&self) {
        self.down.store(true, Ordering::Relaxed);
        let view = self.view.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(view) = view {
            view.close();
        }
        let out = self.lock().take();
        self.room.store(0, Ordering::Relaxed);
        drop(out);
    }

    /// The peer's memory, if it may be reached.
    pub(crate) fn view(&self) -> Option<Arc<View>> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the link is at its end.
    #[inline]
    pub(crate) fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    /// Packets sent so far.
    pub(crate) fn packets(&self) -> u64 {
        self.lock().as_ref().map_or(0, |out| out.packets)
    }

    /// Of these, packets sent in express records, or left before.
    pub(crate) fn express_packets(&self) -> u64 {
        self.express.load(Ordering::Relaxed)
    }

    #[inline]
    fn lock(&self) -> Guard<'_, Option<Out>> {
        self.out.lock()
    }
}

impl Out {
    fn send(&mut self, records: &[u8], count: usize) -> Sent {
        let sent = match self.room(records.len()) {
            Ok(Room::Yes) => {
                self.writer.write(&self.map, records);
                self.bell.ring();
                Sent::Now
            }
            Ok(Room::Wait) if self.kept.len() + records.len() <= KEPT => {
                self.kept.extend_from_slice(records);
                Sent::Later
            }
            Ok(Room::Wait | Room::Lost) | Err(Garbage) => return Sent::Lost,
        };
        self.packets += count as u64;
        sent
    }

    /// Bytes that certainly fit, as last seen.
    fn certain(&self) -> usize {
        if self.kept.is_empty() { self.writer.room() } else { 0 }
    }

    /// Whether there is room for `bytes`, after what was kept, which is sent first.
    fn room(&mut self, bytes: usize) -> Result<Room, Garbage> {
        let bytes = self.kept.len() + bytes;
        if self.writer.fits(&self.map, bytes)? {
            self.found();
            return Ok(Room::Yes);
        }
        if !self.wants {
            self.wants = true;
            self.writer.want_room(&self.map, true);
            fence(Ordering::SeqCst);
            if self.writer.fits(&self.map, bytes)? {
                self.found();
                return Ok(Room::Yes);
            }
        }
        let head = self.writer.head();
        match self.full {
            Some((since, at)) if at == head => {
                Ok(if since.elapsed() > STOPPED { Room::Lost } else { Room::Wait })
            }
            _ => {
                self.full = Some((Instant::now(), head));
                Ok(Room::Wait)
            }
        }
    }

    fn found(&mut self) {
        if self.wants {
            self.wants = false;
            self.writer.want_room(&self.map, false);
        }
        self.full = None;
        if !self.kept.is_empty() {
            self.writer.write(&self.map, &self.kept);
            self.kept.clear();
            self.bell.ring();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::super::bell::Bell;
    use super::super::ring::{self, DATA, LINE, PAIR, Reader, Side};
    use ibex_wire::{Aeth, Header as _, Opcode, Packet, Psn, Qpn, Syndrome};

    use super::super::segment;
    use super::*;
    use crate::net::express::Room as _;

    fn link() -> (Link, segment::Mapping, Reader) {
        let (fd, map) = segment::create(PAIR, false).unwrap();
        let theirs = segment::open(fd.as_fd(), PAIR).unwrap();
        let bell = Bell::new().unwrap();
        let [page, event] = bell.fds().map(|fd| fd.try_clone_to_owned().unwrap());
        let bell = PeerBell::new(&page, event).unwrap();
        let link = Link::new(1, 7, Arc::new(map), Writer::new(Side::Forth), bell, None);
        (link, theirs, Reader::new(Side::Forth))
    }

    fn records(count: usize) -> Vec<u8> {
        let mut records = vec![0; count * LINE];
        records.chunks_mut(LINE).for_each(|record| record[..8].copy_from_slice(&ring::header(56)));
        records
    }

    #[test]
    fn a_full_ring_makes_wait_until_its_reader_reads() {
        let (link, map, mut reader) = link();
        let batch = records(100);
        let mut sent = 0;
        while link.room(batch.len()) == Room::Yes {
            assert_eq!(link.send(&batch, 100), Sent::Now);
            sent += 100;
        }
        assert!(sent * LINE > DATA / 2);
        assert_eq!(link.room(batch.len()), Room::Wait);
        let mut out = [0; crate::net::MAX_PACKET];
        assert!(reader.read(&map, &mut out).unwrap().is_some());
        assert!(reader.tell(&map), "the writer waits");
        for _ in 0..300 {
            assert!(reader.read(&map, &mut out).unwrap().is_some());
        }
        reader.tell(&map);
        assert_eq!(link.room(batch.len()), Room::Yes);
        assert_eq!(link.packets(), sent as u64);
    }

    /// What is sent by express finds its place at once or not at all, and never overtakes.
    #[test]
    fn express_waits_for_nothing() {
        let (link, map, mut reader) = link();
        let header = Bth::new(Opcode::RC_SEND_ONLY, Qpn::new(1), Psn::new(1));
        let asked = std::cell::Cell::new(0);
        let express = |len| {
            link.express(len, |mut space| {
                asked.set(asked.get() + 1);
                space.write(0, &vec![7; len]);
                Some((header, None))
            })
        };
        let mut out = [0; crate::net::MAX_PACKET];
        assert!(express(8));
        assert!(!link.express(8, |_| None), "it was thought better of");
        assert!(
            matches!(reader.read(&map, &mut out), Ok(Some(ring::Record::Express(one))) if one.len() == 8)
        );
        assert!(matches!(reader.read(&map, &mut out), Ok(None)), "of which nothing is seen");
        while link.room(100 * LINE) == Room::Yes {
            assert_eq!(link.send(&records(100), 100), Sent::Now);
        }
        // To the brim.
        let before = asked.get();
        while express(8) {}
        let filled = asked.get() - before;
        assert!(!express(8) && asked.get() == before + filled, "nothing is put where there is no room");
        assert_eq!(link.send(&records(10), 10), Sent::Later);
        assert_eq!(link.express_packets(), 1 + filled);
        while reader.read(&map, &mut out).unwrap().is_some() {}
        reader.tell(&map);
        assert!(!express(8), "what is kept goes first");
        assert!(!link.push_on());
        assert!(express(8));
        for _ in 0..10 {
            assert!(matches!(reader.read(&map, &mut out), Ok(Some(ring::Record::Packet(56)))));
        }
        assert!(matches!(reader.read(&map, &mut out), Ok(Some(ring::Record::Express(_)))));
        link.take_down();
        assert!(!express(8));
    }

    fn ack(psn: u32) -> Ack {
        Ack { psn: Psn::new(psn), aeth: Aeth { syndrome: Syndrome::ACK, msn: psn } }
    }

    fn leave(link: &Link, to: u32, psn: u32) {
        link.leave(Beside::new(Qpn::new(to), ack(psn)));
    }

    /// Sends a message for a queue pair, which may owe an acknowledgement.
    fn message(link: &Link, to: u32, own: Option<Ack>) -> bool {
        let header = Bth::new(Opcode::RC_SEND_ONLY, Qpn::new(to), Psn::new(1));
        link.express(0, |_| Some((header, own)))
    }

    /// The queue pairs that something has come for, and the numbers acknowledged.
    fn arrived(map: &segment::Mapping, reader: &mut Reader) -> Vec<(u32, Option<u32>)> {
        let mut out = [0; crate::net::MAX_PACKET];
        let mut all = Vec::new();
        loop {
            match reader.read(map, &mut out).expect("sound") {
                None => break,
                Some(ring::Record::Packet(len)) => {
                    let packet = Packet::parse(&out[..len]).expect("sound");
                    let psn = (packet.opcode() == Opcode::RC_ACK).then_some(packet.bth().psn.get());
                    all.push((packet.bth().dest_qpn.get(), psn));
                }
                Some(ring::Record::Express(mut express)) => {
                    let to = express.bth.dest_qpn.get();
                    let own = express.ack().map(|ack| (to, Some(ack.psn.get())));
                    let other =
                        express.take_other().map(|beside| (beside.to, beside.ack().map(|ack| ack.psn.get())));
                    all.extend(own.or(other));
                    all.push((to, None));
                }
            }
        }
        reader.tell(map);
        all
    }

    #[test]
    fn what_was_left_travels_with_what_is_sent_next() {
        let (link, map, mut reader) = link();
        // Beside a message, for the same queue pair or another.
        for to in [5, 6] {
            leave(&link, 5, 10);
            assert!(link.has_left() && arrived(&map, &mut reader).is_empty());
            assert!(message(&link, to, None) && !link.has_left());
            assert_eq!(arrived(&map, &mut reader), [(5, Some(10)), (to, None)]);
        }
        // Before packets, and alone.
        leave(&link, 5, 11);
        let mut packet = vec![0; LINE];
        packet[..ring::HEADER].copy_from_slice(&ring::header(12));
        Bth::new(Opcode::RC_SEND_ONLY, Qpn::new(7), Psn::new(0)).put(&mut packet[ring::HEADER..]);
        assert_eq!(link.send(&packet, 1), Sent::Now);
        assert_eq!(arrived(&map, &mut reader), [(5, Some(11)), (7, None)]);
        leave(&link, 5, 12);
        assert_eq!(link.send_left(), Sent::Now);
        assert_eq!(arrived(&map, &mut reader), [(5, Some(12))]);
        // Where a message has one of its own, the other waits for the next; an older one of its own is not said any more.
        leave(&link, 5, 13);
        assert!(message(&link, 6, Some(ack(20))) && link.has_left());
        assert!(message(&link, 5, Some(ack(14))) && !link.has_left());
        assert_eq!(
            arrived(&map, &mut reader),
            [(6, Some(20)), (6, None), (5, Some(14)), (5, None)],
            "13 is part of 14"
        );
        assert!(message(&link, 5, None));
        assert_eq!(arrived(&map, &mut reader), [(5, None)], "and nothing is said twice");
        leave(&link, 5, 16);
        assert!(message(&link, 5, Some(ack(15))) && message(&link, 5, None));
        assert_eq!(
            arrived(&map, &mut reader),
            [(5, Some(15)), (5, None), (5, Some(16)), (5, None)],
            "said again, an older one does not include it"
        );
        assert_eq!((link.express_packets(), link.packets()), (15, 16));
        // A message that was thought better of takes nothing along.
        leave(&link, 5, 15);
        assert!(!link.express(0, |_| None) && link.has_left());
        link.take_down();
        assert_eq!(link.send_left(), Sent::Lost);
        assert!(!link.has_left(), "nobody is to wait for it");
    }

    /// With no room it is kept, in its place before what comes after it.
    #[test]
    fn what_was_left_waits_for_room_like_everything() {
        let (link, map, mut reader) = link();
        while link.room(100 * LINE) == Room::Yes {
            assert_eq!(link.send(&records(100), 100), Sent::Now);
        }
        while message(&link, 1, None) {}
        leave(&link, 5, 10);
        assert_eq!(link.send_left(), Sent::Later);
        leave(&link, 6, 11);
        let mut out = [0; crate::net::MAX_PACKET];
        while reader.read(&map, &mut out).unwrap().is_some() {}
        reader.tell(&map);
        assert!(!link.push_on());
        assert!(message(&link, 7, None));
        assert_eq!(arrived(&map, &mut reader), [(5, Some(10)), (6, Some(11)), (7, None)]);
    }

    /// At the end of a process nobody is waited for: not for who sends, not for room.
    #[test]
    fn what_was_left_is_settled_without_waiting() {
        let (link, map, mut reader) = link();
        leave(&link, 5, 10);
        let guard = link.lock();
        assert!(!link.is_free() && !link.try_settle() && link.has_left());
        drop(guard);
        assert!(link.is_free() && link.try_settle() && !link.has_left());
        assert_eq!(arrived(&map, &mut reader), [(5, Some(10))]);
        while link.room(100 * LINE) == Room::Yes {
            assert_eq!(link.send(&records(100), 100), Sent::Now);
        }
        while message(&link, 1, None) {}
        leave(&link, 5, 11);
        assert!(!link.try_settle() && !link.has_left(), "it is kept, and not forgotten");
        let mut out = [0; crate::net::MAX_PACKET];
        while reader.read(&map, &mut out).unwrap().is_some() {}
        reader.tell(&map);
        assert!(link.try_settle());
        assert_eq!(arrived(&map, &mut reader), [(5, Some(11))]);
        link.take_down();
        leave(&link, 5, 12);
        assert!(link.try_settle() && !link.has_left(), "nothing can be done about it");
    }

    /// One thread leaves, others send: each is said once, whole, and in its order.
    #[test]
    fn what_is_left_beside_others_that_send_is_said_once() {
        const COUNT: u32 = 30_000;

        struct End<'a>(&'a AtomicBool);

        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }

        let (link, map, mut reader) = link();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let (link, done) = (&link, &done);
                scope.spawn(move || {
                    while !done.load(Ordering::Relaxed) {
                        // One that never has one of its own, and one that always has.
                        message(link, 100 + thread, (thread == 1).then(|| ack(0)));
                        link.room(LINE);
                        std::thread::yield_now();
                    }
                });
            }
            // Also when an assertion fails.
            let _end = End(&done);
            let (mut said, mut number) = (0, 0);
            let start = Instant::now();
            while said < COUNT {
                assert!(start.elapsed() < Duration::from_secs(60), "{said} of {number} were said");
                if number < COUNT && !link.has_left() {
                    number += 1;
                    leave(&link, number % 50 + 1, number);
                }
                if number % 7 == 0 {
                    link.send_left();
                }
                for (to, psn) in arrived(&map, &mut reader) {
                    if let (true, Some(psn)) = (to < 100, psn) {
                        said += 1;
                        assert_eq!((psn, to), (said, said % 50 + 1));
                    }
                }
            }
        });
        assert!(!link.has_left());
    }

    /// The places of the ring's last line and a half: what would run over goes the usual way.
    #[test]
    fn express_does_not_run_over_the_end() {
        let (link, map, mut reader) = link();
        let mut out = [0; crate::net::MAX_PACKET];
        // Up to a line before the end.
        for _ in 0..DATA / LINE - 1 {
            if link.room(LINE) != Room::Yes {
                panic!("it is read");
            }
            assert_eq!(link.send(&records(1), 1), Sent::Now);
            assert!(reader.read(&map, &mut out).unwrap().is_some());
            reader.tell(&map);
        }
        assert_eq!(link.room(DATA / 2), Room::Yes);
        let filled = |_: Space<'_>| Some((Bth::new(Opcode::RC_SEND_ONLY, Qpn::new(1), Psn::new(1)), None));
        assert!(!link.express(36, filled));
        assert_eq!(link.express_packets(), 0);
        assert!(link.express(32, filled), "it ends with the ring");
        assert!(link.express(36, filled), "at the start again");
        for len in [32, 36] {
            let record = reader.read(&map, &mut out);
            assert!(matches!(record, Ok(Some(ring::Record::Express(express))) if express.len() == len));
        }
    }

    /// Two threads both see the last room there is: once the batch of the slower one was lost.
    #[test]
    fn what_another_thread_took_the_room_of_is_kept() {
        let (link, map, mut reader) = link();
        let batch = records(100);
        while link.room(batch.len()) == Room::Yes {
            assert_eq!(link.send(&batch, 100), Sent::Now);
        }
        let mut late = records(300);
        let numbers = (0..=u8::MAX).cycle();
        late.chunks_mut(LINE).zip(numbers).for_each(|(record, number)| record[ring::HEADER] = number);
        assert_eq!(link.send(&late[..100 * LINE], 100), Sent::Later);
        assert_eq!(link.send(&late[100 * LINE..], 200), Sent::Later);
        assert!(link.push_on(), "there is no room yet");
        assert_eq!(link.room(LINE), Room::Wait, "others come after it");
        let mut read = || {
            let mut out = [0; crate::net::MAX_PACKET];
            let mut numbers = Vec::new();
            while reader.read(&map, &mut out).unwrap().is_some() {
                numbers.push(out[0]);
            }
            reader.tell(&map);
            numbers
        };
        read();
        assert!(!link.push_on());
        assert_eq!(link.send(&batch, 100), Sent::Now);
        let numbers = read();
        assert_eq!(numbers[..256], (0..=255).collect::<Vec<_>>());
        assert_eq!(numbers.len(), 400);
        assert_eq!(link.packets() as usize % 100, 0);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let (link, _map, _reader) = link();
        let batch = records(100);
        while link.room(batch.len()) == Room::Yes {
            link.send(&batch, 100);
        }
        let kept = (0..100).take_while(|_| link.send(&batch, 100) == Sent::Later).count();
        assert_eq!(kept, KEPT / batch.len());
    }

    #[test]
    fn packets_for_a_reader_that_stopped_are_lost_until_it_goes_on() {
        let (link, map, mut reader) = link();
        let batch = records(100);
        while link.room(batch.len()) == Room::Yes {
            link.send(&batch, 100);
        }
        std::thread::sleep(STOPPED + Duration::from_millis(5));
        assert_eq!(link.room(batch.len()), Room::Lost);
        assert_eq!(link.send(&batch, 100), Sent::Lost);
        let mut out = [0; crate::net::MAX_PACKET];
        while reader.read(&map, &mut out).unwrap().is_some() {}
        reader.tell(&map);
        assert_eq!(link.send(&batch, 100), Sent::Now);
    }

    #[test]
    fn a_link_that_is_down_takes_nothing_and_maps_nothing() {
        let (link, _map, _reader) = link();
        link.take_down();
        assert!(link.is_down());
        assert_eq!(link.room(64), Room::Lost);
        assert_eq!(link.send(&records(1), 1), Sent::Lost);
    }
}
