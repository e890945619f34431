//! One link: the sending half of the rings shared with a peer process, and whether the peer still is.
//!
//! Owns the writer, which threads that post take turns at, and what happens while the ring is full. The reading half
//! belongs to whoever receives ([`super::Incoming`]).

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ibex_proto::Ack;
use ibex_wire::Bth;

use super::bell::PeerBell;
use super::ring::{Garbage, Space, Writer, express_record};
use super::segment::Mapping;
use crate::oneside::View;
use ibex_sys::lock::{Guard, Lock};

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
    /// Packets sent in express records; written with the sending half's lock held.
    express: AtomicU64,
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
        let sent = match out.room(records.len()) {
            Ok(Room::Yes) => {
                out.writer.write(&out.map, records);
                out.bell.ring();
                Sent::Now
            }
            Ok(Room::Wait) if out.kept.len() + records.len() <= KEPT => {
                out.kept.extend_from_slice(records);
                Sent::Later
            }
            Ok(Room::Wait | Room::Lost) | Err(Garbage) => return Sent::Lost,
        };
        out.packets += count as u64;
        self.room.store(out.certain(), Ordering::Relaxed);
        sent
    }

    /// Sends an express record of `len` bytes of payload and padding at once: `fill` puts them into the ring and gives the
    /// header and the acknowledgement beside it, or nothing if the record is not to be sent. Whether it was: not if
    /// there is no room for it here and now.
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
        out.writer.publish(&out.map, len, &header, ack);
        out.bell.ring();
        let packets = 1 + u64::from(ack.is_some());
        out.packets += packets;
        self.express.store(self.express.load(Ordering::Relaxed) + packets, Ordering::Relaxed);
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

    /// Of these, packets sent in express records.
    pub(crate) fn express_packets(&self) -> u64 {
        self.express.load(Ordering::Relaxed)
    }

    #[inline]
    fn lock(&self) -> Guard<'_, Option<Out>> {
        self.out.lock()
    }
}

impl Out {
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
    use ibex_wire::{Opcode, Psn, Qpn};

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
