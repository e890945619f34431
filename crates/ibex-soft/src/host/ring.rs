//! Rings of packets in shared memory: one writer process, one reader process each.
//!
//! Owns the layout of a pair's two rings and both ends of one. Does not own who is woken ([`super::bell`]), nor what a
//! packet says. A record is a header word and a packet (BTH to padding, no ICRC) and occupies whole cache lines:
//!
//! ```text
//! control   0: reader's position │ 128: writer waits for room        one line each
//! data      │ header │ packet … │ header │ packet … │ 0 │
//! express   │ header │ acknowledgement │ BTH │ queue pair acknowledged │ payload … │
//! ```
//!
//! An express record is one packet of a short message, and beside it what an acknowledgement would have said as a packet
//! before it, which may be for another queue pair. Its header tells the length of payload and padding.
//!
//! The header is what publishes a record: the reader looks at the word at its position, so that an empty look costs one
//! load and a message one line less than with an index. The writer puts a zero behind the last record before it stores
//! the header of the first, hence the reader's next header is zero or true, whatever was there a lap ago, and records
//! written together appear together. A record never wraps: a header of its own kind sends the reader to the start.
//!
//! The other process is not trusted to keep to this: everything read is checked, once, on a private copy.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use ibex_wire::Bth;

use super::segment::Mapping;
use crate::memory::UserMemory;
use crate::net::express::{Beside, Express, Room};

/// Bytes of data in one ring. It stays in the second-level caches of both processors, and holds 60 of the largest
/// packets: more than a reader takes in one round. Pages are allocated when first touched.
pub(crate) const DATA: usize = 256 << 10;

/// Bytes of a record's alignment: one cache line, so that neighbours do not share one.
pub(crate) const LINE: usize = 64;

/// Bytes of the header.
pub(crate) const HEADER: usize = 8;

/// Bytes of the control words of one ring: two pairs of lines, which processors fetch together.
const CONTROL: usize = 256;
const POSITION: usize = 0;
const WANT: usize = 128;

/// Where the data begin: a page for the control words.
const DATA_START: usize = 4096;

/// Bytes of the file with both rings of a pair.
pub(crate) const PAIR: usize = DATA_START + 2 * DATA;

/// The largest packet, bytes, as in [`crate::net`].
const MAX_PACKET: usize = crate::net::MAX_PACKET;

/// The smallest: a BTH.
const MIN_PACKET: usize = 12;

/// Bytes consumed after which the reader tells the writer its position.
const TELL: u64 = DATA as u64 / 8;

/// Lines ahead of the last record that are brought near for the next: a short message and an acknowledgement.
const SOON: usize = 3;

/// The upper half of a header.
const PACKET: u64 = 0x1bec_0001;
const WRAP: u64 = 0x1bec_0002;
const EXPRESS: u64 = 0x1bec_0003;

/// Where the payload of an express record begins: behind the header, the word of the acknowledgement and those of the BTH.
const EXPRESS_PAYLOAD: usize = 4 * HEADER;

/// A BTH and a queue pair number in words, and back.
#[inline]
fn halves(bth: &[u8; Bth::LEN], to: u32) -> [u64; 2] {
    let mut low = [0; 8];
    let mut high = [0; 4];
    low.copy_from_slice(&bth[..8]);
    high.copy_from_slice(&bth[8..]);
    [u64::from_ne_bytes(low), u64::from(to) << 32 | u64::from(u32::from_ne_bytes(high))]
}

#[inline]
fn joined([low, high]: [u64; 2]) -> ([u8; Bth::LEN], u32) {
    let mut bth = [0; Bth::LEN];
    bth[..8].copy_from_slice(&low.to_ne_bytes());
    bth[8..].copy_from_slice(&(high as u32).to_ne_bytes());
    (bth, (high >> 32) as u32)
}

/// The room for an express record's payload.
pub(crate) struct Space<'a> {
    map: &'a Mapping,
    payload: usize,
    len: usize,
}

impl Room for Space<'_> {
    #[inline]
    fn copy_from(&mut self, memory: &UserMemory, offset: usize, range: Range<usize>) {
        debug_assert!(range.end <= self.len);
        memory.copy_to(offset, self.map.memory(), self.payload + range.start, range.len(), false);
    }

    #[inline]
    fn write(&mut self, at: usize, data: &[u8]) {
        debug_assert!(at + data.len() <= self.len);
        self.map.write(self.payload + at, data);
    }
}

/// Which ring of the pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// From the process that made the file.
    Forth,
    /// To it.
    Back,
}

impl Side {
    fn control(self) -> usize {
        CONTROL * self as usize
    }

    fn data(self) -> usize {
        DATA_START + DATA * self as usize
    }
}

/// The header of a packet of `len` bytes.
pub(crate) fn header(len: usize) -> [u8; HEADER] {
    (PACKET << 32 | len as u64).to_ne_bytes()
}

/// The length of the packet whose record, with a [`header`] of ours, begins here.
pub(crate) fn length(record: &[u8]) -> usize {
    first_header(record) as u32 as usize
}

/// Bytes that a record with a packet of `len` bytes occupies.
pub(crate) const fn record(len: usize) -> usize {
    (HEADER + len).next_multiple_of(LINE)
}

/// What stands in the ring.
pub(crate) enum Record<'a> {
    /// A packet of so many bytes, copied out.
    Packet(usize),
    /// A short message, still where it is: valid until the next call that may tell the writer.
    Express(Express<'a>),
}

/// The other process wrote what no writer of ours writes; the ring is of no more use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a shared ring holds what is no packet")]
pub(crate) struct Garbage;

/// The writing end.
#[derive(Debug)]
pub(crate) struct Writer {
    side: Side,
    /// Bytes ever written, and how many of them were read when last seen.
    tail: u64,
    head: u64,
}

/// The reading end.
#[derive(Debug)]
pub(crate) struct Reader {
    side: Side,
    /// Bytes ever read, and how many of them the writer has been told of.
    head: u64,
    told: u64,
}

impl Writer {
    /// The writing end of a fresh ring.
    pub(crate) fn new(side: Side) -> Writer {
        Writer { side, tail: 0, head: 0 }
    }

    /// Bytes of records that certainly fit, by the reader's position as last seen.
    pub(crate) fn room(&self) -> usize {
        // The gap before the end of the ring is shorter than the longest record; the zero needs a line.
        (DATA - (self.tail - self.head) as usize).saturating_sub(record(MAX_PACKET) + LINE)
    }

    /// Whether `bytes` of records certainly fit, asking the reader's position if need be.
    ///
    /// # Errors
    /// [`Garbage`].
    pub(crate) fn fits(&mut self, map: &Mapping, bytes: usize) -> Result<bool, Garbage> {
        if self.room() >= bytes {
            return Ok(true);
        }
        let head = map.word(self.side.control() + POSITION).load(Ordering::Acquire);
        let sound = head >= self.head && head <= self.tail && head.is_multiple_of(LINE as u64);
        if !sound {
            return Err(Garbage);
        }
        self.head = head;
        Ok(self.room() >= bytes)
    }

    /// Bytes read so far, as last seen.
    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    /// Tells the reader that the writer waits for room, or no longer does.
    pub(crate) fn want_room(&self, map: &Mapping, wanted: bool) {
        map.word(self.side.control() + WANT).store(wanted.into(), Ordering::SeqCst);
    }

    /// Writes `records`, each begun by [`header`] and padded to [`record`] bytes, and publishes them together. They
    /// must fit, see [`Writer::fits`].
    pub(crate) fn write(&mut self, map: &Mapping, records: &[u8]) {
        debug_assert!(!records.is_empty() && records.len().is_multiple_of(LINE));
        let data = self.side.data();
        let place = |tail: u64| tail as usize & (DATA - 1);
        let start = place(self.tail);
        let mut publish = (start, first_header(records));
        let mut rest = records;
        if records.len() > DATA - start {
            // As many whole records as there is room for, then on from the start.
            let fitting = fitting(records, DATA - start);
            let gap = DATA - start - fitting;
            if fitting > 0 {
                map.write(data + start + HEADER, &records[HEADER..fitting]);
            }
            if gap > 0 {
                let wrap = WRAP << 32;
                if fitting > 0 {
                    map.word(data + start + fitting).store(wrap, Ordering::Relaxed);
                } else {
                    publish = (start, wrap);
                }
            }
            self.tail += (fitting + gap) as u64;
            rest = &records[fitting..];
        }
        let at = place(self.tail);
        // The first header of all is stored last.
        let skip = if at == publish.0 { HEADER } else { 0 };
        map.write(data + at + skip, &rest[skip..]);
        self.tail += rest.len() as u64;
        let end = data + place(self.tail);
        map.word(end).store(0, Ordering::Relaxed);
        map.word(data + publish.0).store(publish.1, Ordering::Release);
        // The lines behind the zero will be needed next; the zero's own is being watched by the reader.
        for line in 1..=SOON {
            map.prefetch(data + place(self.tail + (line * LINE) as u64));
        }
    }
}

impl Writer {
    /// Room for an express record with `len` bytes of payload and padding, if it comes before the ring's end. Such a record
    /// must fit, see [`Writer::fits`].
    #[inline]
    pub(crate) fn space<'a>(&self, map: &'a Mapping, len: usize) -> Option<Space<'a>> {
        let place = self.tail as usize & (DATA - 1);
        let payload = self.side.data() + place + EXPRESS_PAYLOAD;
        (place + express_record(len) <= DATA).then_some(Space { map, payload, len })
    }

    /// Publishes the record whose payload [`Writer::space`] had room for.
    #[inline]
    pub(crate) fn publish(&mut self, map: &Mapping, len: usize, bth: &[u8; Bth::LEN], beside: Beside) {
        let data = self.side.data();
        let place = |tail: u64| tail as usize & (DATA - 1);
        let start = data + place(self.tail);
        let [header, acknowledged, bth_low, bth_high, ..] = map.line(start);
        acknowledged.store(beside.word, Ordering::Relaxed);
        let [low, high] = halves(bth, beside.to);
        bth_low.store(low, Ordering::Relaxed);
        bth_high.store(high, Ordering::Relaxed);
        self.tail += express_record(len) as u64;
        map.word(data + place(self.tail)).store(0, Ordering::Relaxed);
        header.store(EXPRESS << 32 | len as u64, Ordering::Release);
        for line in 1..=SOON {
            map.prefetch(data + place(self.tail + (line * LINE) as u64));
        }
    }
}

/// Bytes of an express record with `len` bytes of payload and padding.
pub(crate) const fn express_record(len: usize) -> usize {
    (EXPRESS_PAYLOAD + len).next_multiple_of(LINE)
}

/// The header of the first record.
fn first_header(records: &[u8]) -> u64 {
    records.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

/// Bytes of the whole records that fit into `room`.
fn fitting(records: &[u8], room: usize) -> usize {
    let mut at = 0;
    while let Some(bytes) = records[at..].first_chunk() {
        let length = record(u64::from_ne_bytes(*bytes) as u32 as usize);
        if at + length > room {
            break;
        }
        at += length;
    }
    at
}

impl Reader {
    /// The reading end of a fresh ring.
    pub(crate) fn new(side: Side) -> Reader {
        Reader { side, head: 0, told: 0 }
    }

    /// Whether there is a packet.
    #[inline]
    pub(crate) fn is_ready(&self, map: &Mapping) -> bool {
        let place = self.head as usize & (DATA - 1);
        map.word(self.side.data() + place).load(Ordering::Acquire) != 0
    }

    /// Takes the next record; `None` if there is none. A packet is copied into `out`.
    ///
    /// # Errors
    /// [`Garbage`].
    #[inline(always)]
    pub(crate) fn read<'a>(
        &mut self,
        map: &'a Mapping,
        out: &mut [u8; MAX_PACKET],
    ) -> Result<Option<Record<'a>>, Garbage> {
        let place = self.head as usize & (DATA - 1);
        match map.word(self.side.data() + place).load(Ordering::Acquire) {
            0 => Ok(None),
            header if header >> 32 == EXPRESS => self.express(map, header).map(Some),
            header => self.take(map, header, out).map(|len| Some(Record::Packet(len))),
        }
    }

    /// An express record.
    #[inline(always)]
    fn express<'a>(&mut self, map: &'a Mapping, header: u64) -> Result<Record<'a>, Garbage> {
        let place = self.head as usize & (DATA - 1);
        let len = header as u32 as usize;
        let sound =
            len <= MAX_PACKET - Bth::LEN && len.is_multiple_of(4) && place + EXPRESS_PAYLOAD + len <= DATA;
        if !sound {
            return Err(Garbage);
        }
        let at = self.side.data() + place;
        // The rest of it is needed when its queue pair has been found, which may take as long.
        map.prefetch_to_read(at + LINE);
        self.head += express_record(len) as u64;
        map.prefetch_to_read(at + express_record(len));
        let [_, acknowledged, bth_low, bth_high, ..] = map.line(at);
        let word = |word: &AtomicU64| word.load(Ordering::Relaxed);
        let (bth, to) = joined([word(bth_low), word(bth_high)]);
        let beside = Beside { word: word(acknowledged), to };
        let payload = at + EXPRESS_PAYLOAD;
        Ok(Record::Express(Express::mapped(beside, Bth::parse(&bth), map.memory(), payload, len)))
    }

    #[inline(never)]
    fn take(&mut self, map: &Mapping, header: u64, out: &mut [u8; MAX_PACKET]) -> Result<usize, Garbage> {
        let data = self.side.data();
        let mut place = self.head as usize & (DATA - 1);
        let mut header = header;
        if header == WRAP << 32 {
            // Published together with what follows it. A ring is not sent round from its start.
            if place == 0 {
                return Err(Garbage);
            }
            self.head += (DATA - place) as u64;
            place = 0;
            header = map.word(data).load(Ordering::Acquire);
        }
        let len = header as u32 as usize;
        let sound = header >> 32 == PACKET
            && (MIN_PACKET..=MAX_PACKET).contains(&len)
            && len.is_multiple_of(4)
            && place + HEADER + len <= DATA;
        if !sound {
            return Err(Garbage);
        }
        // What comes next is looked at as soon as this one is dealt with.
        map.prefetch_to_read(data + place + record(len));
        map.read(data + place + HEADER, &mut out[..len]);
        self.head += record(len) as u64;
        Ok(len)
    }

    /// Tells the writer how far the reader has come, if it is time to or if the writer waits for it; in the second case
    /// true: the writer may have to be woken.
    #[inline(always)]
    pub(crate) fn tell(&mut self, map: &Mapping) -> bool {
        if self.head == self.told {
            return false;
        }
        let control = self.side.control();
        let wanted = || map.word(control + WANT).load(Ordering::SeqCst) != 0;
        if self.head - self.told < TELL && !wanted() {
            return false;
        }
        self.told = self.head;
        // SeqCst: either the writer that is about to wait sees this, or it is seen to want room.
        map.word(control + POSITION).store(self.head, Ordering::SeqCst);
        wanted()
    }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
