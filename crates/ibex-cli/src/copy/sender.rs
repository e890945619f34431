//! The sending side of a copy: entries, then the contents the receiver asks for, as one stream of records.
//!
//! Owns the order of things: entries run ahead of contents by a bounded number, so that the receiver's decisions are
//! there before they are needed; whenever nothing can be added the slot at hand is shipped, so that neither side waits for
//! the other. Every wait ends when the peer is gone (`control`).

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use blake3::Hasher;

use super::message::{Answer, Message, Report};
use super::part;
use super::place::Source;
use super::record::{self, Entry, Kind, ROOM, Record, SLOT};
use super::walk;
use super::watch::Watch;
use super::window::Outlet;
use crate::control::Control;

/// Entries that are listed to the receiver before the contents of earlier ones: enough to fill many slots with small
/// files between two answers.
const AHEAD: usize = 4096;
/// How long one wait for the receiver lasts before the peer's life is looked at again.
const SLICE: Duration = Duration::from_millis(200);

/// A copy, seen from the side that has the files.
pub(crate) struct Sender<'a, O: Outlet> {
    control: &'a Control,
    outlet: O,
    source: &'a Source,
    watch: &'a mut dyn Watch,
    /// The slot being filled and how far it is.
    slot: Option<(O::Chunk, usize)>,
    shipped: u64,
    freed: u64,
    /// Files listed and not yet decided.
    unanswered: HashSet<u64>,
    wants: VecDeque<Want>,
    cancelled: HashSet<u64>,
    done: Option<Report>,
    scratch: Vec<u8>,
}

/// A file the receiver asked for.
struct Want {
    id: u64,
    have: u64,
    hash: [u8; 32],
}

/// How sending one file went wrong.
enum Stop {
    /// This file only.
    File(std::io::Error),
    /// The whole copy.
    Copy(anyhow::Error),
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        Self::File(error)
    }
}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Self {
        Self::Copy(error)
    }
}

impl<'a, O: Outlet> Sender<'a, O> {
    /// Sends everything and waits for the receiver's report.
    ///
    /// # Errors
    /// When the peer is gone, the device fails, or the peer does not keep to the protocol. A file that cannot be read
    /// is no error here: the report counts it.
    pub(crate) fn run(
        control: &'a Control,
        outlet: O,
        source: &'a Source,
        watch: &'a mut dyn Watch,
    ) -> Result<Report> {
        let mut this = Self {
            control,
            outlet,
            source,
            watch,
            slot: None,
            shipped: 0,
            freed: 0,
            unanswered: HashSet::new(),
            wants: VecDeque::new(),
            cancelled: HashSet::new(),
            done: None,
            scratch: Vec::new(),
        };
        this.send_all()
    }

    fn send_all(&mut self) -> Result<Report> {
        let source = self.source;
        let (files, bytes) = source.listing.totals();
        self.watch.totals(files, bytes);
        self.emit(&Record::Totals { files, bytes })?;
        for trouble in &source.listing.troubles {
            let walk::Trouble { path, text, fatal } = trouble.clone();
            self.emit(&Record::Trouble { path, text, fatal })?;
        }
        let mut entries = (0_u64..).zip(&source.listing.entries).peekable();
        loop {
            while self.receive(Duration::ZERO)? {}
            let queued = self.unanswered.len() + self.wants.len();
            if queued < AHEAD / 2 && entries.peek().is_some() {
                for (id, entry) in entries.by_ref().take(AHEAD - queued) {
                    self.emit(&Record::Entry(entry.clone()))?;
                    if matches!(entry.kind, Kind::File(_)) {
                        self.unanswered.insert(id);
                    }
                }
            } else if let Some(want) = self.wants.pop_front() {
                self.send_wanted(&want)?;
            } else if self.unanswered.is_empty() {
                break;
            } else {
                self.ship()?;
                self.receive(SLICE)?;
            }
        }
        self.emit(&Record::Finish)?;
        self.ship()?;
        self.outlet.drain(self.control)?;
        loop {
            if let Some(report) = self.done.take() {
                return Ok(report);
            }
            self.receive(SLICE)?;
        }
    }

    fn entry(&self, id: u64) -> Result<&'a Entry> {
        let entry = usize::try_from(id).ok().and_then(|index| self.source.listing.entries.get(index));
        entry.ok_or_else(|| anyhow::anyhow!("the receiver named file {id}, which does not exist"))
    }

    /// Takes one message, waiting for it at most `limit`.
    fn receive(&mut self, limit: Duration) -> Result<bool> {
        let Some(message) = self.control.recv::<Message>(limit)? else { return Ok(false) };
        match message {
            Message::Answers(answers) => {
                for answer in answers {
                    let (Answer::Skip(id) | Answer::Want { id, .. }) = answer;
                    ensure!(self.unanswered.remove(&id), "the receiver decided twice about file {id}");
                    match answer {
                        Answer::Want { id, have, hash } => self.wants.push_back(Want { id, have, hash }),
                        Answer::Skip(id) => {
                            if let Kind::File(size) = self.entry(id)?.kind {
                                self.watch.advance(size);
                            }
                        }
                    }
                }
            }
            Message::Free(count) => {
                ensure!(
                    (self.freed..=self.shipped).contains(&count),
                    "the receiver returned a slot it never had"
                );
                self.freed = count;
            }
            Message::Cancel(id) => {
                self.entry(id)?;
                self.cancelled.insert(id);
            }
            Message::Problem(problem) => self.watch.problem(&problem),
            Message::Done(report) => self.done = Some(report),
            Message::Abort(why) => bail!("{} gave up: {why}", self.control.peer()),
            other => bail!("the receiver sent a message out of place: {other:?}"),
        }
        Ok(true)
    }

    /// The slot at hand, with at least `room` bytes left.
    fn slot(&mut self, room: usize) -> Result<&mut (O::Chunk, usize)> {
        if self.slot.as_ref().is_some_and(|(_, used)| SLOT - used < room) {
            self.ship()?;
        }
        if self.slot.is_none() {
            let chunk = self.outlet.chunk(self.control)?;
            self.slot = Some((chunk, 0));
        }
        self.slot.as_mut().ok_or_else(|| anyhow::anyhow!("no slot"))
    }

    fn emit(&mut self, record: &Record<'_>) -> Result<()> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        record.encode(&mut scratch);
        ensure!(scratch.len() <= ROOM, "a record of {} bytes is too long", scratch.len());
        let (chunk, used) = self.slot(scratch.len())?;
        chunk[*used..*used + scratch.len()].copy_from_slice(&scratch);
        *used += scratch.len();
        self.scratch = scratch;
        Ok(())
    }

    /// Sends the slot at hand as soon as the window has room for it.
    fn ship(&mut self) -> Result<()> {
        let Some((chunk, used)) = self.slot.take() else { return Ok(()) };
        while self.shipped - self.freed >= self.outlet.slots() {
            self.receive(SLICE)?;
        }
        self.outlet.ship(self.control, self.shipped, chunk, used)?;
        self.shipped += 1;
        Ok(())
    }

    fn send_wanted(&mut self, want: &Want) -> Result<()> {
        let entry = self.entry(want.id)?;
        match self.send_file(want, entry) {
            Ok(()) => Ok(()),
            Err(Stop::File(error)) => self.emit(&Record::Fail { id: want.id, text: error.to_string() }),
            Err(Stop::Copy(error)) => Err(error),
        }
    }

    fn send_file(&mut self, want: &Want, entry: &Entry) -> Result<(), Stop> {
        let Kind::File(size) = entry.kind else {
            return Err(
                anyhow::anyhow!("the receiver asked for the contents of {}, no file", entry.path).into()
            );
        };
        let mut file = self.source.file(entry)?;
        let (offset, mut hasher) = self.resume(&mut file, want, size)?;
        self.emit(&Record::Start { id: want.id, offset })?;
        self.watch.advance(offset);
        let mut sent = offset;
        while sent < size {
            while self.receive(Duration::ZERO)? {}
            if self.cancelled.contains(&want.id) {
                return Err(std::io::Error::other("cancelled by the receiver").into());
            }
            let (chunk, used) = self.slot(ROOM)?;
            let slot = &mut **chunk;
            let Some(room) = record::data_room(slot, *used) else {
                self.ship()?;
                continue;
            };
            let most = usize::try_from(size - sent).unwrap_or(usize::MAX).min(room.len());
            let count = file.read(&mut room[..most])?;
            if count == 0 {
                break;
            }
            hasher.update(&room[..count]);
            *used = record::data_done(slot, *used, count);
            sent += count as u64;
            self.watch.advance(count as u64);
        }
        self.emit(&Record::End { size: sent, hash: *hasher.finalize().as_bytes() })?;
        let (_, mtime) = walk::meta(&rustix::fs::fstat(&file).map_err(std::io::Error::from)?);
        if sent != size || mtime != entry.mtime {
            let text = "it changed while it was copied; copy it again".to_owned();
            self.emit(&Record::Trouble { path: entry.path.clone(), text, fatal: false })?;
        }
        Ok(())
    }

    /// Where to begin: after what the receiver has, if that is what this file begins with.
    fn resume(&mut self, file: &mut File, want: &Want, size: u64) -> Result<(u64, Box<Hasher>), Stop> {
        if want.have > 0 && want.have <= size.min(file.metadata()?.len()) {
            let hasher = part::hash_prefix(file, want.have, || self.control.tick())?;
            if hasher.finalize() == want.hash {
                return Ok((want.have, hasher));
            }
            file.seek(SeekFrom::Start(0))?;
        }
        Ok((0, Box::new(Hasher::new())))
    }
}
