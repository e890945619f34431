//! Copies from one scatter/gather list to another, without a buffer between them.
//!
//! Owns walking two lists whose pieces end at different places. Every piece is looked up before the first byte is
//! moved, so that a copy happens whole or not at all. Bounds and rights are [`crate::mr`]'s, loads and stores
//! [`crate::memory`]'s.

use ibex_sys::ibv_sge;

use crate::memory::UserMemory;
use crate::mr::{MrTable, PdNumber};
use crate::oneside::Pieces;
use crate::qp::queue::MAX_INLINE;

/// A scatter/gather list and what is needed to look it up.
#[derive(Clone, Copy)]
pub(in crate::qp) struct List<'a> {
    mrs: &'a MrTable,
    pd: PdNumber,
    sges: &'a [ibv_sge],
}

/// One end of a copy.
#[derive(Clone, Copy)]
pub(in crate::qp) enum Bytes<'a> {
    /// A list of keys and addresses.
    List(List<'a>),
    /// Memory that has been looked up, from this offset on; it is known to be long enough.
    Memory(&'a UserMemory, usize),
    /// Bytes of the device's own; only to copy from.
    Here(&'a [u8]),
}

/// Inline data on its way from the program to its receiver.
pub(in crate::qp) struct Staged {
    bytes: [u8; MAX_INLINE as usize],
    len: usize,
}

impl Staged {
    /// Copies `len` bytes by `copy`; `None` if they are more than a request may carry.
    #[inline]
    pub(in crate::qp) fn new(len: u32, copy: &dyn Fn(&mut [u8])) -> Option<Staged> {
        let mut staged = Staged { bytes: [0; MAX_INLINE as usize], len: len as usize };
        copy(staged.bytes.get_mut(..len as usize)?);
        Some(staged)
    }

    /// What was copied.
    #[inline]
    pub(in crate::qp) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl<'a> List<'a> {
    #[inline]
    pub(super) fn new(mrs: &'a MrTable, pd: PdNumber, sges: &'a [ibv_sge]) -> List<'a> {
        List { mrs, pd, sges }
    }

    /// Whether the list's first `len` bytes exist and may be written.
    pub(super) fn takes(self, len: usize) -> bool {
        walk(Bytes::Here(&[0; 8][..len.min(8)]), Bytes::List(self), len.min(8), false)
    }

    #[inline]
    fn find(&self, sge: &ibv_sge, skip: u64, len: u64, write: bool) -> Option<(&'a UserMemory, usize)> {
        let va = sge.addr.checked_add(skip)?;
        self.mrs.local(self.pd, sge.lkey, va, len, write).ok()
    }
}

/// Where one end's walk stands.
struct Cursor<'a> {
    bytes: Bytes<'a>,
    /// Element of the list.
    index: usize,
    /// Bytes of it, or of the memory, that are done.
    done: u64,
}

impl Cursor<'_> {
    fn new(bytes: Bytes<'_>) -> Cursor<'_> {
        Cursor { bytes, index: 0, done: 0 }
    }

    /// Bytes left of the present piece; `None` if there is no more.
    fn left(&mut self) -> Option<u64> {
        let list = match self.bytes {
            Bytes::List(list) => list,
            Bytes::Memory(..) => return Some(u64::MAX),
            Bytes::Here(bytes) => {
                return (bytes.len() as u64).checked_sub(self.done).filter(|&left| left > 0);
            }
        };
        loop {
            let left = u64::from(list.sges.get(self.index)?.length) - self.done;
            if left > 0 {
                return Some(left);
            }
            self.index += 1;
            self.done = 0;
        }
    }
}

/// Copies `len` bytes; false, and nothing done, if one of the ends does not have them.
#[inline]
pub(in crate::qp) fn transfer(from: Bytes<'_>, to: Bytes<'_>, len: usize) -> bool {
    if len == 0 {
        return true;
    }
    if let (Some(from), Some(to)) = (whole(from, len, false), whole(to, len, true)) {
        return put(from, to, len, true);
    }
    walk(from, to, len, false) && walk(from, to, len, true)
}

/// A scatter/gather list as one end of a copy.
#[inline]
pub(in crate::qp) fn bytes_of<'a>(mrs: &'a MrTable, pd: PdNumber, sges: &'a [ibv_sge]) -> Bytes<'a> {
    Bytes::List(List::new(mrs, pd, sges))
}

/// The first `len` bytes of an end, for a copy of the kernel's; `None` if it does not have them, or may not be touched.
pub(in crate::qp) fn pieces(bytes: Bytes<'_>, len: usize, write: bool) -> Option<Pieces<'_>> {
    let mut pieces = Pieces::new();
    let mut cursor = Cursor::new(bytes);
    let mut done = 0;
    while done < len {
        let part = cursor.left()?.min((len - done) as u64);
        let added = match piece(&cursor, part, write)? {
            Piece::Memory(memory, at) => pieces.add(memory, at, part as usize),
            Piece::Here(bytes) => pieces.add_bytes(bytes),
        };
        if !added {
            return None;
        }
        cursor.done += part;
        done += part as usize;
    }
    Some(pieces)
}

/// An end that is in one piece.
#[derive(Clone, Copy)]
enum Piece<'a> {
    Memory(&'a UserMemory, usize),
    Here(&'a [u8]),
}

/// The end as one piece, if it is one.
#[inline]
fn whole(bytes: Bytes<'_>, len: usize, write: bool) -> Option<Piece<'_>> {
    match bytes {
        Bytes::Memory(memory, at) => Some(Piece::Memory(memory, at)),
        Bytes::Here(bytes) => bytes.get(..len).map(Piece::Here),
        Bytes::List(list) => {
            let first = list.sges.first().filter(|first| first.length as usize >= len)?;
            list.find(first, 0, len as u64, write).map(|(memory, at)| Piece::Memory(memory, at))
        }
    }
}

/// Copies one piece; `last` for the end of a message, whose last bytes become visible last.
#[inline]
fn put(from: Piece<'_>, to: Piece<'_>, len: usize, last: bool) -> bool {
    match (from, to) {
        (Piece::Memory(from, at), Piece::Memory(to, to_at)) => from.copy_to(at, to, to_at, len, last),
        (Piece::Here(bytes), Piece::Memory(to, to_at)) => to.write(to_at, &bytes[..len], last),
        (_, Piece::Here(_)) => return false,
    }
    true
}

/// Walks both ends, and copies if `copy` is set; false if one of them is too short or may not be touched.
fn walk(from: Bytes<'_>, to: Bytes<'_>, len: usize, copy: bool) -> bool {
    let (mut from, mut to) = (Cursor::new(from), Cursor::new(to));
    let mut done = 0;
    while done < len {
        let Some(part) = from.left().zip(to.left()).map(|(from, to)| from.min(to).min((len - done) as u64))
        else {
            return false;
        };
        let Some((source, target)) = piece(&from, part, false).zip(piece(&to, part, true)) else {
            return false;
        };
        done += part as usize;
        if copy && !put(source, target, part as usize, done == len) {
            return false;
        }
        from.done += part;
        to.done += part;
    }
    true
}

/// The next `part` bytes of an end.
fn piece<'a>(cursor: &Cursor<'a>, part: u64, write: bool) -> Option<Piece<'a>> {
    let done = cursor.done as usize;
    match cursor.bytes {
        Bytes::Memory(memory, at) => Some(Piece::Memory(memory, at + done)),
        Bytes::Here(bytes) => bytes.get(done..done + part as usize).map(Piece::Here),
        Bytes::List(list) => list
            .find(&list.sges[cursor.index], cursor.done, part, write)
            .map(|(memory, at)| Piece::Memory(memory, at)),
    }
}
