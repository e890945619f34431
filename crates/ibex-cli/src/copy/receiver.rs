//! The receiving side of a copy: decides what is needed and puts what arrives into its place.
//!
//! Owns the decisions (unchanged, continued, new), directories and links, and the report. Contents of one file go through
//! `part`; syncing and renaming through `finish`. Every name comes from the peer: it is resolved below the destination
//! by `tree` with no link followed.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use blake3::Hasher;
use rustix::fs::{AtFlags, Mode};

use super::finish::{Finisher, Job, Outcome};
use super::message::{Answer, Message, Problem, Report};
use super::part::{self, Leftover, Part};
use super::path::RelPath;
use super::place::Dest;
use super::record::{Entry, Kind, Mtime, Record, Records};
use super::tree::Links;
use super::watch::Watch;
use super::window::Inlet;
use crate::control::Control;

/// A copy, seen from the side that gets the files.
pub(crate) struct Receiver<'a> {
    pub(super) control: &'a Control,
    pub(super) dest: &'a Dest,
    /// Compare contents instead of times.
    pub(super) checksum: bool,
    pub(super) watch: &'a mut dyn Watch,
    finisher: Finisher,
    /// Number of the next entry.
    next: u64,
    /// Files asked for and not begun.
    pending: HashMap<u64, Pending>,
    current: Current,
    answers: Vec<Answer>,
    pub(super) dirs: Vec<Entry>,
    /// Directories that could not be made: nothing below them is tried.
    lost: Vec<RelPath>,
    /// Directories that something was put into.
    pub(super) touched: HashSet<RelPath>,
    /// The directory used last: entries come directory by directory.
    pub(super) last_dir: Option<(RelPath, Arc<OwnedFd>)>,
    pub(super) report: Report,
}

struct Pending {
    entry: Entry,
    basis: Basis,
}

/// What is there of a wanted file already.
pub(super) enum Basis {
    Nothing,
    /// A part of an earlier copy.
    Part(Leftover),
    /// A file in its place that may be the same.
    Place(u64, Box<Hasher>),
}

/// The file whose contents are arriving.
enum Current {
    None,
    Part {
        id: u64,
        entry: Entry,
        part: Box<Part>,
        resumed: bool,
    },
    /// It is there; only its checksum is awaited.
    Verify {
        id: u64,
        entry: Entry,
        length: u64,
        hash: [u8; 32],
    },
    /// It failed on this side; what still arrives is dropped.
    Discard {
        id: u64,
    },
}

impl<'a> Receiver<'a> {
    /// Receives everything and reports.
    ///
    /// # Errors
    /// When the peer is gone, the device fails, or the peer does not keep to the protocol. What fails for one file is
    /// told to `watch` and counted in the report.
    pub(crate) fn run(
        control: &'a Control,
        mut inlet: impl Inlet,
        dest: &'a Dest,
        checksum: bool,
        watch: &'a mut dyn Watch,
    ) -> Result<Report> {
        let mut this = Self {
            control,
            dest,
            checksum,
            watch,
            finisher: Finisher::start()?,
            next: 0,
            pending: HashMap::new(),
            current: Current::None,
            answers: Vec::new(),
            dirs: Vec::new(),
            lost: Vec::new(),
            touched: HashSet::new(),
            last_dir: None,
            report: Report::default(),
        };
        let mut used = 0;
        let mut finished = false;
        while !finished {
            let chunk = inlet.next(control)?;
            let mut records = Records::new(&chunk);
            while let Some(record) = records.next()? {
                ensure!(!finished, "the sender went on after its end");
                finished = matches!(record, Record::Finish);
                this.take(record)?;
            }
            inlet.recycle(chunk);
            while let Some(outcome) = this.finisher.poll() {
                this.finished(outcome);
            }
            if !this.answers.is_empty() {
                control.send(&Message::Answers(std::mem::take(&mut this.answers)))?;
            }
            used += 1;
            control.send(&Message::Free(used))?;
        }
        let report = this.close()?;
        control.send(&Message::Done(report.clone()))?;
        Ok(report)
    }

    fn take(&mut self, record: Record<'_>) -> Result<()> {
        match record {
            Record::Totals { files, bytes } => self.watch.totals(files, bytes),
            Record::Trouble { path, text, fatal } => self.problem(&path, text, fatal),
            Record::Entry(entry) => self.entry(entry),
            Record::Start { id, offset } => self.start(id, offset)?,
            Record::Data(bytes) => self.data(bytes)?,
            Record::End { size, hash } => self.end(size, hash)?,
            Record::Fail { id, text } => self.fail(id, text)?,
            Record::Finish => {
                ensure!(self.pending.is_empty(), "the sender ended before it had sent every file");
                ensure!(matches!(self.current, Current::None), "the sender ended within a file");
            }
        }
        Ok(())
    }

    fn problem(&mut self, path: &RelPath, error: impl std::fmt::Display, fatal: bool) {
        if fatal {
            self.report.failed += 1;
        }
        // What is copied itself has no name of its own but the one it gets here.
        let path = if path.is_root() { &self.dest.prefix } else { path };
        self.watch.problem(&Problem::new(path, error, fatal));
    }

    fn entry(&mut self, entry: Entry) {
        let id = self.next;
        self.next += 1;
        let is_file = matches!(entry.kind, Kind::File(_));
        if self.lost.iter().any(|lost| entry.path.starts_with(lost)) {
            // Its directory was reported; each name below would say the same.
            self.report.failed += 1;
        } else {
            match self.decide(id, &entry) {
                Ok(Some((answer, basis))) => {
                    self.answers.push(answer);
                    self.pending.insert(id, Pending { entry, basis });
                    return;
                }
                Ok(None) => {}
                Err(error) => {
                    if entry.kind == Kind::Dir {
                        self.lost.push(entry.path.clone());
                    }
                    self.problem(&entry.path, format!("{error:#}"), true);
                }
            }
        }
        if is_file {
            self.answers.push(Answer::Skip(id));
        }
    }

    pub(super) fn unchanged(&mut self, size: u64) {
        self.report.files_unchanged += 1;
        self.report.bytes_skipped += size;
    }

    fn start(&mut self, id: u64, offset: u64) -> Result<()> {
        ensure!(matches!(self.current, Current::None), "the sender began a file within another");
        let Pending { entry, basis } = self
            .pending
            .remove(&id)
            .with_context(|| format!("the sender began file {id}, which was not wanted"))?;
        let leftover = match (offset, basis) {
            (0, _) => None,
            (_, Basis::Part(left)) if left.length == offset => Some(left),
            (_, Basis::Place(length, hasher)) if length == offset => {
                let hash = *hasher.finalize().as_bytes();
                self.watch.advance(offset);
                self.current = Current::Verify { id, entry, length, hash };
                return Ok(());
            }
            _ => bail!("the sender continued file {id} from byte {offset}, which is not where it stopped"),
        };
        let resumed = leftover.is_some();
        let opened = self.spot(&entry).and_then(|(dir, name)| {
            let name = name.context("a file cannot take the place of the directory")?;
            Ok(Part::open(dir, &name, leftover)?)
        });
        match opened {
            Ok(part) => {
                self.report.bytes_skipped += offset;
                self.watch.advance(offset);
                self.current = Current::Part { id, entry, part: Box::new(part), resumed };
            }
            Err(error) => {
                self.problem(&entry.path, format!("{error:#}"), true);
                self.control.send(&Message::Cancel(id))?;
                self.current = Current::Discard { id };
            }
        }
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<()> {
        let failed = match &mut self.current {
            Current::Part { part, .. } => part.write(bytes).err(),
            Current::Discard { .. } => None,
            Current::None | Current::Verify { .. } => {
                bail!("the sender sent contents that belong to no file")
            }
        };
        let Some(error) = failed else {
            self.report.bytes_copied += bytes.len() as u64;
            self.watch.advance(bytes.len() as u64);
            return Ok(());
        };
        if let Current::Part { id, entry, part, .. } = std::mem::replace(&mut self.current, Current::None) {
            part.abandon(&error);
            self.problem(&entry.path, &error, true);
            self.control.send(&Message::Cancel(id))?;
            self.current = Current::Discard { id };
        }
        Ok(())
    }

    fn end(&mut self, size: u64, hash: [u8; 32]) -> Result<()> {
        match std::mem::replace(&mut self.current, Current::None) {
            Current::None => bail!("the sender ended a file it had not begun"),
            Current::Discard { .. } => {}
            Current::Part { entry, part, resumed, .. } => {
                self.touched.insert(self.dest.prefix.append(&entry.path)?.parent());
                let (mode, mtime) = (entry.mode, entry.mtime);
                let job = Job { path: entry.path, part: *part, size, hash, mode, mtime, resumed };
                self.finisher.submit(job, || self.control.tick())?;
            }
            Current::Verify { entry, length, hash: ours, .. } => {
                if length != size || ours != hash {
                    self.problem(&entry.path, "it changed while it was compared; copy it again", true);
                } else if let Err(error) = self.set_meta(&entry) {
                    self.problem(&entry.path, error, true);
                } else {
                    self.unchanged(size);
                }
            }
        }
        Ok(())
    }

    fn fail(&mut self, id: u64, text: String) -> Result<()> {
        if let Some(pending) = self.pending.remove(&id) {
            self.problem(&pending.entry.path, text, true);
            return Ok(());
        }
        match std::mem::replace(&mut self.current, Current::None) {
            Current::Part { id: this, entry, .. } | Current::Verify { id: this, entry, .. } if this == id => {
                self.problem(&entry.path, text, true);
            }
            // Reported when it failed on this side.
            Current::Discard { id: this } if this == id => {}
            _ => bail!("the sender gave up file {id}, which was not wanted"),
        }
        Ok(())
    }

    fn finished(&mut self, Outcome { path, resumed, result }: Outcome) {
        match result {
            Ok(()) => {
                self.report.files_copied += 1;
                self.report.files_resumed += u64::from(resumed);
            }
            Err(error) => self.problem(&path, error, true),
        }
    }

    /// Permissions and time of something that is in its place.
    fn set_meta(&mut self, entry: &Entry) -> Result<()> {
        let (dir, name) = self.spot(entry)?;
        let Some(name) = name else { return Ok(()) };
        set_meta(&dir, &name, entry.mode, entry.mtime)?;
        Ok(())
    }

    /// Waits for the last files, then settles directories: deepest first, since a directory's time changes with what is
    /// put into it and its mode may forbid just that.
    fn close(mut self) -> Result<Report> {
        let control = self.control;
        while let Some(outcome) = self.finisher.wait(|| control.tick()) {
            control.alive()?;
            self.finished(outcome);
        }
        for path in std::mem::take(&mut self.touched) {
            control.tick();
            let synced =
                self.dest.tree.dir(&path, Links::Refuse).and_then(|dir| Ok(rustix::fs::fsync(&*dir)?));
            if let Err(error) = synced {
                self.problem(&path, format!("cannot sync the directory: {error}"), true);
            }
        }
        for entry in std::mem::take(&mut self.dirs).into_iter().rev() {
            control.tick();
            if let Err(error) = self.set_meta(&entry) {
                self.problem(&entry.path, format!("{error:#}"), true);
            }
        }
        if self.report.failed == 0 {
            self.dest.finished();
        }
        Ok(self.report)
    }
}

fn set_meta(dir: &OwnedFd, name: &OsStr, mode: u32, mtime: Mtime) -> io::Result<()> {
    rustix::fs::utimensat(dir, name, &part::times(mtime), AtFlags::SYMLINK_NOFOLLOW)?;
    rustix::fs::chmodat(dir, name, Mode::from_raw_mode(mode), AtFlags::empty())?;
    Ok(())
}
