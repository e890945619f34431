//! The stream that travels through the window: what is copied, file contents, checksums, as records packed into slots.
//!
//! Owns the encoding. A slot is a sequence of whole records (a record never spans two slots), so that many small files
//! share a slot and one RDMA operation. A record is one byte of kind, then its fields, integers little-endian, byte
//! strings with a `u32` length before them. The decoder never panics and trusts nothing.

use anyhow::{Context, Result, bail, ensure};

use super::path::RelPath;

/// Bytes of a slot, which is also the size of one RDMA operation: large enough that its fixed cost vanishes, small
/// enough that a window of them is modest.
pub(crate) const SLOT: usize = 1 << 20;
/// The largest record that is not file data: two paths and their fields.
pub(crate) const ROOM: usize = 16 << 10;
/// What precedes the bytes in a data record.
const DATA_HEAD: usize = 5;
/// Free space below which file data goes into the next slot rather than into crumbs.
const LEAST_DATA: usize = 4 << 10;

/// Modification time, as the file system has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mtime {
    /// Seconds since 1970, negative before.
    pub(crate) secs: i64,
    /// 0 to 999 999 999.
    pub(crate) nanos: u32,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Dir,
    /// With its size in bytes when it was listed.
    File(u64),
    /// With the bytes it points to.
    Link(Vec<u8>),
}

/// One file, directory or link of the copied tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Relative to what is copied; empty for that itself.
    pub(crate) path: RelPath,
    pub(crate) kind: Kind,
    /// Permission bits.
    pub(crate) mode: u32,
    pub(crate) mtime: Mtime,
}

/// A record of the stream, borrowing from its slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    /// How much there is in all; once, first.
    Totals { files: u64, bytes: u64 },
    /// Entries are numbered from 0 in the order they are sent.
    Entry(Entry),
    /// Something that cannot be copied.
    Trouble { path: RelPath, text: String, fatal: bool },
    /// Contents of file `id` follow, from this offset.
    Start { id: u64, offset: u64 },
    /// Contents of the started file.
    Data(&'a [u8]),
    /// The started file is complete: its size and BLAKE3 of all of it.
    End { size: u64, hash: [u8; 32] },
    /// The file cannot be read (further); started or not.
    Fail { id: u64, text: String },
    /// Nothing follows.
    Finish,
}

const TOTALS: u8 = 1;
const ENTRY: u8 = 2;
const TROUBLE: u8 = 3;
const START: u8 = 4;
const DATA: u8 = 5;
const END: u8 = 6;
const FAIL: u8 = 7;
const FINISH: u8 = 8;

impl Record<'_> {
    /// Appends the record (data records are written by [`data_room`] and [`data_done`], without a copy).
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let number = |out: &mut Vec<u8>, value: u64| out.extend_from_slice(&value.to_le_bytes());
        let string = |out: &mut Vec<u8>, value: &[u8]| {
            out.extend_from_slice(&(value.len() as u32).to_le_bytes());
            out.extend_from_slice(value);
        };
        match self {
            Self::Totals { files, bytes } => {
                out.push(TOTALS);
                number(out, *files);
                number(out, *bytes);
            }
            Self::Entry(entry) => {
                out.push(ENTRY);
                string(out, entry.path.as_bytes());
                out.extend_from_slice(&entry.mode.to_le_bytes());
                out.extend_from_slice(&entry.mtime.secs.to_le_bytes());
                out.extend_from_slice(&entry.mtime.nanos.to_le_bytes());
                match &entry.kind {
                    Kind::Dir => out.push(0),
                    Kind::File(size) => {
                        out.push(1);
                        number(out, *size);
                    }
                    Kind::Link(target) => {
                        out.push(2);
                        string(out, target);
                    }
                }
            }
            Self::Trouble { path, text, fatal } => {
                out.push(TROUBLE);
                string(out, path.as_bytes());
                string(out, clip(text));
                out.push(u8::from(*fatal));
            }
            Self::Start { id, offset } => {
                out.push(START);
                number(out, *id);
                number(out, *offset);
            }
            Self::Data(bytes) => {
                out.push(DATA);
                string(out, bytes);
            }
            Self::End { size, hash } => {
                out.push(END);
                number(out, *size);
                out.extend_from_slice(hash);
            }
            Self::Fail { id, text } => {
                out.push(FAIL);
                number(out, *id);
                string(out, clip(text));
            }
            Self::Finish => out.push(FINISH),
        }
    }
}

/// Error texts are short; one that is not must still fit [`ROOM`].
fn clip(text: &str) -> &[u8] {
    &text.as_bytes()[..text.floor_char_boundary(2048)]
}

/// Where file data may be read to in a slot filled up to `used`; `None` when the slot is as good as full.
pub(crate) fn data_room(slot: &mut [u8], used: usize) -> Option<&mut [u8]> {
    let room = slot.get_mut(used + DATA_HEAD..)?;
    (room.len() >= LEAST_DATA).then_some(room)
}

/// Completes the data record whose `length` bytes [`data_room`] gave the place for; the new fill level.
pub(crate) fn data_done(slot: &mut [u8], used: usize, length: usize) -> usize {
    slot[used] = DATA;
    slot[used + 1..used + DATA_HEAD].copy_from_slice(&(length as u32).to_le_bytes());
    used + DATA_HEAD + length
}

/// The records of a slot, in order.
#[derive(Debug)]
pub(crate) struct Records<'a>(&'a [u8]);

impl<'a> Records<'a> {
    /// Reads the filled part of a slot.
    pub(crate) fn new(slot: &'a [u8]) -> Self {
        Self(slot)
    }

    /// The next record; `None` at the end of the slot.
    ///
    /// # Errors
    /// When the bytes are no record.
    pub(crate) fn next(&mut self) -> Result<Option<Record<'a>>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        self.record().map(Some).context("the peer sent a malformed record")
    }

    fn record(&mut self) -> Result<Record<'a>> {
        Ok(match self.u8()? {
            TOTALS => Record::Totals { files: self.u64()?, bytes: self.u64()? },
            ENTRY => {
                let path = RelPath::parse(self.string()?)?;
                let mode = self.u32()?;
                let secs = self.u64()? as i64;
                let nanos = self.u32()?;
                ensure!(nanos < 1_000_000_000, "{nanos} nanoseconds in a time");
                let kind = match self.u8()? {
                    0 => Kind::Dir,
                    1 => Kind::File(self.u64()?),
                    2 => Kind::Link(self.string()?.to_vec()),
                    other => bail!("an entry of unknown kind {other}"),
                };
                Record::Entry(Entry { path, kind, mode: mode & 0o777, mtime: Mtime { secs, nanos } })
            }
            TROUBLE => Record::Trouble {
                path: RelPath::parse(self.string()?)?,
                text: self.text()?,
                fatal: self.u8()? != 0,
            },
            START => Record::Start { id: self.u64()?, offset: self.u64()? },
            DATA => Record::Data(self.string()?),
            END => Record::End { size: self.u64()?, hash: *self.take()? },
            FAIL => Record::Fail { id: self.u64()?, text: self.text()? },
            FINISH => Record::Finish,
            other => bail!("a record of unknown kind {other}"),
        })
    }

    fn take<const N: usize>(&mut self) -> Result<&'a [u8; N]> {
        let (head, rest) = self.0.split_first_chunk().context("the slot ends within a record")?;
        self.0 = rest;
        Ok(head)
    }

    fn u8(&mut self) -> Result<u8> {
        Ok(self.take::<1>()?[0])
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(*self.take()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(*self.take()?))
    }

    fn string(&mut self) -> Result<&'a [u8]> {
        let length = self.u32()? as usize;
        ensure!(length <= self.0.len(), "the slot ends within a record");
        let (head, rest) = self.0.split_at(length);
        self.0 = rest;
        Ok(head)
    }

    /// Text from the peer is for a terminal in the end: control characters are escaped.
    fn text(&mut self) -> Result<String> {
        let text = String::from_utf8_lossy(self.string()?);
        let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
        Ok(text.chars().map(escape).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Record<'static>> {
        let path = |text: &str| RelPath::parse(text.as_bytes()).unwrap();
        let entry = |kind| {
            Record::Entry(Entry { path: path("a/b"), kind, mode: 0o640, mtime: Mtime { secs: -5, nanos: 7 } })
        };
        vec![
            Record::Totals { files: 3, bytes: 1 << 40 },
            entry(Kind::Dir),
            entry(Kind::File(99)),
            entry(Kind::Link(b"../x".to_vec())),
            Record::Trouble { path: path("p"), text: "permission denied".to_owned(), fatal: true },
            Record::Start { id: 4, offset: 1 << 33 },
            Record::Data(b"contents"),
            Record::End { size: 8, hash: [9; 32] },
            Record::Fail { id: 4, text: "gone".to_owned() },
            Record::Finish,
        ]
    }

    fn decode(bytes: &[u8]) -> Result<Vec<Record<'_>>> {
        let mut records = Records::new(bytes);
        let mut all = Vec::new();
        while let Some(record) = records.next()? {
            all.push(record);
        }
        Ok(all)
    }

    #[test]
    fn records_survive_the_journey() {
        let mut bytes = Vec::new();
        samples().iter().for_each(|record| record.encode(&mut bytes));
        assert_eq!(decode(&bytes).unwrap(), samples());
    }

    #[test]
    fn data_is_written_in_place() {
        let mut slot = vec![0; SLOT];
        let room = data_room(&mut slot, 10).unwrap();
        room[..3].copy_from_slice(b"abc");
        let used = data_done(&mut slot, 10, 3);
        assert_eq!(decode(&slot[10..used]).unwrap(), [Record::Data(b"abc")]);
        assert!(data_room(&mut slot, SLOT - 100).is_none());
        assert!(data_room(&mut slot, SLOT).is_none());
    }

    #[test]
    fn damaged_records_are_errors_and_never_panics() {
        let mut bytes = Vec::new();
        samples().iter().for_each(|record| record.encode(&mut bytes));
        for cut in 1..bytes.len() {
            let _ = decode(&bytes[..cut]);
        }
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..20_000 {
            let mut damaged = bytes.clone();
            let at = random.usize(..damaged.len());
            damaged[at] ^= 1 << random.u32(..8);
            let _ = decode(&damaged);
        }
        assert!(decode(&[DATA, 0xff, 0xff, 0xff, 0xff, 1]).is_err());
    }

    #[test]
    fn a_peer_cannot_name_a_path_outside() {
        for bad in ["../x", "/x", "a/../../x"] {
            let mut bytes = vec![ENTRY];
            bytes.extend_from_slice(&(bad.len() as u32).to_le_bytes());
            bytes.extend_from_slice(bad.as_bytes());
            bytes.extend_from_slice(&[0; 64]);
            assert!(decode(&bytes).is_err(), "{bad}");
        }
    }
}
