//! The copy protocol between two directories, over a window in memory: what arrives, what is refused, what is resumed.

#![allow(clippy::unwrap_used, reason = "in a test, failing is what an unwrap is for")]

use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::mpsc::{self, Receiver as Queue, Sender as Feed};
use std::time::Duration;

use anyhow::{Result, bail};

use super::message::{Problem, Report, SourceInfo};
use super::path::RelPath;
use super::place::{Dest, Place, Source, source_name};
use super::receiver::Receiver;
use super::record::{Entry, Kind, Mtime, Record, SLOT};
use super::scratch::Scratch;
use super::sender::Sender;
use super::watch::Watch;
use super::window::{Inlet, Outlet};
use crate::control::Control;

/// Few slots, so that the window fills and empties many times.
const SLOTS: u64 = 3;

struct MemoryOutlet {
    feed: Feed<Vec<u8>>,
    /// Ends the copy after so many slots, as a killed process would.
    last: u64,
}

impl Outlet for MemoryOutlet {
    type Chunk = Vec<u8>;

    fn slots(&self) -> u64 {
        SLOTS
    }

    fn chunk(&mut self, _: &Control) -> Result<Vec<u8>> {
        Ok(vec![0xee; SLOT])
    }

    fn ship(&mut self, _: &Control, number: u64, mut chunk: Vec<u8>, used: usize) -> Result<()> {
        if number >= self.last {
            bail!("killed by the test");
        }
        chunk.truncate(used);
        let _ = self.feed.send(chunk);
        Ok(())
    }

    fn drain(&mut self, _: &Control) -> Result<()> {
        Ok(())
    }
}

struct MemoryInlet(Queue<Vec<u8>>);

impl Inlet for MemoryInlet {
    type Chunk = Vec<u8>;

    fn next(&mut self, control: &Control) -> Result<Vec<u8>> {
        loop {
            if let Ok(chunk) = self.0.recv_timeout(Duration::from_millis(20)) {
                return Ok(chunk);
            }
            control.alive()?;
        }
    }

    fn recycle(&mut self, _: Vec<u8>) {}
}

#[derive(Default)]
struct Notes {
    problems: Vec<Problem>,
    totals: (u64, u64),
    done: u64,
}

impl Watch for Notes {
    fn totals(&mut self, files: u64, bytes: u64) {
        self.totals = (files, bytes);
    }
    fn advance(&mut self, bytes: u64) {
        self.done += bytes;
    }
    fn problem(&mut self, problem: &Problem) {
        self.problems.push(problem.clone());
    }
}

struct Outcome {
    report: Result<Report>,
    sent: Notes,
    received: Notes,
}

/// Copies `from` to `to` as `ibex cp` would, ending after `last` slots.
fn copy(from: &str, to: &Path, checksum: bool, last: u64) -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (feed, queue) = mpsc::channel();
    let source = Source::open(Place::Local(from.into()), source_name(from.as_bytes()), || {}).unwrap();
    let dest = Dest::resolve(&Place::Local(to.to_owned()), false, &source.info).unwrap();
    std::thread::scope(|scope| {
        let receiving = scope.spawn(|| {
            let (stream, peer) = listener.accept().unwrap();
            let control = Control::accept(stream, peer).unwrap();
            let mut notes = Notes::default();
            let report = Receiver::run(&control, MemoryInlet(queue), &dest, checksum, &mut notes);
            (report, notes)
        });
        let mut sent = Notes::default();
        let sending = {
            let control = Control::connect(&address).unwrap();
            Sender::run(&control, MemoryOutlet { feed, last }, &source, &mut sent)
        };
        let (report, received) = receiving.join().unwrap();
        let report = match (sending, report) {
            (Ok(theirs), Ok(ours)) => {
                assert_eq!(theirs, ours);
                Ok(ours)
            }
            (Err(error), _) | (_, Err(error)) => Err(error),
        };
        Outcome { report, sent, received }
    })
}

fn whole(from: &Path, to: &Path) -> Report {
    let outcome = copy(from.to_str().unwrap(), to, false, u64::MAX);
    assert_eq!(outcome.received.problems, []);
    assert_eq!(outcome.sent.done, outcome.sent.totals.1);
    assert_eq!(outcome.received.done, outcome.received.totals.1);
    outcome.report.unwrap()
}

/// Every name below a directory with what a copy must keep of it.
fn snapshot(dir: &Path) -> Vec<String> {
    fn visit(dir: &Path, top: &Path, all: &mut Vec<String>) {
        for item in std::fs::read_dir(dir).unwrap() {
            let path = item.unwrap().path();
            let meta = std::fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(top).unwrap().to_string_lossy().into_owned();
            let time = format!("{}.{:09}", meta.mtime(), meta.mtime_nsec());
            if meta.is_symlink() {
                all.push(format!("{name} -> {} {time}", std::fs::read_link(&path).unwrap().display()));
            } else if meta.is_dir() {
                all.push(format!("{name}/ {:o} {time}", meta.mode()));
                visit(&path, top, all);
            } else {
                let hash = blake3::hash(&std::fs::read(&path).unwrap());
                all.push(format!("{name} {:o} {time} {hash}", meta.mode()));
            }
        }
    }
    let mut all = Vec::new();
    visit(dir, dir, &mut all);
    all.sort();
    all
}

fn random(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

/// Sizes around every boundary, odd names, empty things, links, modes, old times.
fn sample(top: &Path) {
    let dir = top.join("src");
    std::fs::create_dir_all(dir.join("deep/er/est")).unwrap();
    std::fs::create_dir_all(dir.join("empty")).unwrap();
    for (index, size) in
        [0, 1, 2, 4095, 4096, SLOT - 5, SLOT, SLOT + 1, 3 * SLOT + 17].into_iter().enumerate()
    {
        std::fs::write(dir.join(format!("file {index}")), random(size, index as u64)).unwrap();
    }
    for index in 0..300 {
        std::fs::write(dir.join(format!("deep/er/{index}")), random(index * 7, index as u64)).unwrap();
    }
    let odd = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"n\xffot\nutf8 \xf0");
    std::fs::write(dir.join(odd), b"odd").unwrap();
    std::fs::write(dir.join("deep/er/est/".to_owned() + &"n".repeat(255)), b"long").unwrap();
    symlink("deep/er/1", dir.join("link")).unwrap();
    symlink("../../file 3", dir.join("deep/er/up")).unwrap();
    symlink("nowhere", dir.join("dangling")).unwrap();
    std::fs::set_permissions(dir.join("file 1"), PermissionsExt::from_mode(0o751)).unwrap();
    let old = std::fs::FileTimes::new()
        .set_modified(std::time::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789));
    std::fs::File::open(dir.join("file 1")).unwrap().set_times(old).unwrap();
    std::fs::File::open(dir.join("empty")).unwrap().set_times(old).unwrap();
    std::fs::set_permissions(dir.join("empty"), PermissionsExt::from_mode(0o555)).unwrap();
}

#[test]
fn a_tree_arrives_identical_and_a_second_copy_moves_nothing() {
    let scratch = Scratch::new("copy");
    sample(scratch.path());
    let (from, to) = (scratch.path().join("src"), scratch.path().join("dst"));
    let first = whole(&from, &to);
    assert_eq!(snapshot(&from), snapshot(&to));
    assert_eq!((first.files_copied, first.files_unchanged, first.failed), (311, 0, 0));
    assert_eq!((first.dirs, first.links), (5, 3));
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 2, "the mark is gone");

    let second = whole(&scratch.path().join("src/."), &to);
    assert_eq!((second.files_copied, second.bytes_copied), (0, 0));
    assert_eq!(second.bytes_skipped, first.bytes_copied);
    assert_eq!(snapshot(&from), snapshot(&to));
}

#[test]
fn an_interrupted_copy_leaves_no_broken_file_and_is_continued() {
    let scratch = Scratch::new("copy");
    sample(scratch.path());
    let (from, to) = (scratch.path().join("src"), scratch.path().join("dst"));
    let expected = snapshot(&from);
    // The first slot lists what there is; what arrived before is not sent again.
    for last in [1, 2, 3, 3] {
        let outcome = copy(from.to_str().unwrap(), &to, false, last);
        assert!(outcome.report.is_err());
        for line in snapshot(&to) {
            let name = line.split(' ').next().unwrap_or_default();
            let is_part = line.contains(".ibex-part");
            // Directories get their times at the end; files are whole or not there.
            assert!(is_part || name.ends_with('/') || expected.contains(&line), "{line}");
        }
    }
    let report = whole(&from, &to);
    assert!(report.files_unchanged + report.files_resumed > 0, "{report:?}");
    assert!(report.bytes_skipped > 0);
    assert_eq!(expected, snapshot(&to));
}

#[test]
fn a_part_that_is_not_the_beginning_of_the_file_is_not_continued() {
    let scratch = Scratch::new("copy");
    let (from, to) = (scratch.path().join("f"), scratch.path().join("g"));
    std::fs::write(&from, random(2 * SLOT, 1)).unwrap();
    std::fs::write(scratch.path().join(".g.ibex-part"), random(SLOT, 2)).unwrap();
    let report = whole(&from, &to);
    assert_eq!((report.files_resumed, report.bytes_skipped), (0, 0));
    assert_eq!(std::fs::read(&to).unwrap(), random(2 * SLOT, 1));

    std::fs::remove_file(&to).unwrap();
    std::fs::write(scratch.path().join(".g.ibex-part"), &random(2 * SLOT, 1)[..SLOT]).unwrap();
    let report = whole(&from, &to);
    assert_eq!(
        (report.files_resumed, report.bytes_skipped, report.bytes_copied),
        (1, SLOT as u64, SLOT as u64)
    );
    assert_eq!(std::fs::read(&to).unwrap(), random(2 * SLOT, 1));
}

#[test]
fn contents_are_compared_when_asked() {
    let scratch = Scratch::new("copy");
    let (from, to) = (scratch.path().join("f"), scratch.path().join("g"));
    std::fs::write(&from, b"new!").unwrap();
    std::fs::write(&to, b"old!").unwrap();
    let same_time = std::fs::metadata(&from).unwrap().modified().unwrap();
    std::fs::File::options().write(true).open(&to).unwrap().set_modified(same_time).unwrap();
    assert_eq!(whole(&from, &to).files_unchanged, 1);
    let compared = copy(from.to_str().unwrap(), &to, true, u64::MAX).report.unwrap();
    assert_eq!((compared.files_unchanged, compared.files_copied), (0, 1));
    assert_eq!(std::fs::read(&to).unwrap(), b"new!");
    let compared = copy(from.to_str().unwrap(), &to, true, u64::MAX).report.unwrap();
    assert_eq!((compared.files_unchanged, compared.bytes_copied), (1, 0));
}

#[test]
fn what_fails_is_reported_and_the_rest_goes_on() {
    let scratch = Scratch::new("copy");
    let (from, to) = (scratch.path().join("src"), scratch.path().join("dst"));
    std::fs::create_dir_all(from.join("sub")).unwrap();
    std::fs::write(from.join("a"), b"a").unwrap();
    std::fs::write(from.join("sub/b"), b"b").unwrap();
    std::fs::write(from.join("z"), b"z").unwrap();
    symlink("/etc/passwd", from.join("leak")).unwrap();
    std::fs::create_dir_all(to.join("src/a")).unwrap();
    std::fs::write(to.join("src/sub"), b"in the way").unwrap();
    let outcome = copy(from.to_str().unwrap(), &to, false, u64::MAX);
    let report = outcome.report.unwrap();
    // `leak`, `a`, `sub`, and `sub/b` below it.
    assert_eq!((report.failed, report.files_copied), (4, 1));
    assert_eq!(outcome.received.problems.len(), 3, "{:?}", outcome.received.problems);
    assert_eq!(std::fs::read(to.join("src/z")).unwrap(), b"z");
    assert_eq!(std::fs::read(to.join("src/sub")).unwrap(), b"in the way");
}

#[test]
fn nothing_is_written_through_a_link_at_the_destination() {
    let scratch = Scratch::new("copy");
    let (from, to) = (scratch.path().join("src"), scratch.path().join("dst"));
    std::fs::create_dir_all(from.join("sub")).unwrap();
    std::fs::write(from.join("sub/f"), b"new").unwrap();
    std::fs::create_dir_all(scratch.path().join("elsewhere")).unwrap();
    std::fs::create_dir_all(to.join("src")).unwrap();
    symlink("../../elsewhere", to.join("src/sub")).unwrap();
    let outcome = copy(from.to_str().unwrap(), &to, false, u64::MAX);
    assert_eq!(outcome.report.unwrap().failed, 2);
    assert_eq!(std::fs::read_dir(scratch.path().join("elsewhere")).unwrap().count(), 0);
}

#[test]
fn a_single_file_goes_where_cp_would_put_it() {
    let scratch = Scratch::new("copy");
    let from = scratch.path().join("f");
    std::fs::write(&from, b"x").unwrap();
    std::fs::create_dir(scratch.path().join("d")).unwrap();
    whole(&from, &scratch.path().join("d"));
    whole(&from, &scratch.path().join("g"));
    assert_eq!(std::fs::read(scratch.path().join("d/f")).unwrap(), b"x");
    assert_eq!(std::fs::read(scratch.path().join("g")).unwrap(), b"x");
}

#[test]
fn a_file_of_many_windows_arrives() {
    let scratch = Scratch::new("copy");
    let from = scratch.path().join("f");
    std::fs::write(&from, random(20 * SLOT, 3)).unwrap();
    let report = whole(&from, &scratch.path().join("g"));
    assert_eq!(report.bytes_copied, 20 * SLOT as u64);
}

/// Feeds a receiver the records of a sender that does not keep to the rules.
fn hostile(to: &Path, records: &[Record<'_>]) -> (Result<Report>, Notes) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (feed, queue) = mpsc::channel();
    let mut slot = Vec::new();
    records.iter().for_each(|record| record.encode(&mut slot));
    feed.send(slot).unwrap();
    let info = SourceInfo { name: Some(b"got".to_vec()), dir: true };
    let dest = Dest::resolve(&Place::Local(to.to_owned()), false, &info).unwrap();
    let far = std::thread::spawn(move || Control::connect(&address).unwrap());
    let (stream, peer) = listener.accept().unwrap();
    let control = Control::accept(stream, peer).unwrap();
    let _far = far.join().unwrap();
    let mut notes = Notes::default();
    let report = Receiver::run(&control, MemoryInlet(queue), &dest, false, &mut notes);
    (report, notes)
}

fn entry(path: &str, kind: Kind) -> Record<'static> {
    let path = RelPath::parse(path.as_bytes()).unwrap();
    Record::Entry(Entry { path, kind, mode: 0o755, mtime: Mtime::default() })
}

#[test]
fn a_hostile_sender_gets_nowhere() {
    let scratch = Scratch::new("hostile");
    std::fs::create_dir_all(scratch.path().join("in/got/there")).unwrap();
    std::fs::create_dir_all(scratch.path().join("out")).unwrap();
    symlink("../../out", scratch.path().join("in/got/door")).unwrap();
    let to = scratch.path().join("in");
    let top = entry("", Kind::Dir);

    // Through links that were there, that it just made, or that would lead outside.
    let (report, notes) = hostile(
        &to,
        &[
            top.clone(),
            entry("door/f", Kind::File(1)),
            entry("door/d", Kind::Dir),
            entry("own", Kind::Link(b"there".to_vec())),
            entry("own/f", Kind::File(1)),
            entry("up", Kind::Link(b"../..".to_vec())),
            entry("abs", Kind::Link(b"/etc".to_vec())),
            entry(".x.ibex-part", Kind::File(1)),
            Record::Finish,
        ],
    );
    assert_eq!(report.unwrap().failed, 6, "{:?}", notes.problems);
    assert_eq!(std::fs::read_dir(scratch.path().join("out")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(to.join("got/there")).unwrap().count(), 0);

    // Out of order.
    let file = entry("f", Kind::File(1));
    let wrong: [&[Record<'_>]; 7] = [
        &[top.clone(), Record::Start { id: 0, offset: 0 }],
        &[file.clone(), Record::Start { id: 0, offset: 5 }],
        &[file.clone(), Record::Data(b"x")],
        &[file.clone(), Record::End { size: 0, hash: [0; 32] }],
        &[file.clone(), Record::Finish],
        &[file.clone(), Record::Start { id: 0, offset: 0 }, Record::Finish],
        &[Record::Finish, Record::Finish],
    ];
    for records in wrong {
        assert!(hostile(&to, records).0.is_err(), "{records:?}");
        assert!(!to.join("got").join("f").exists());
    }

    // A lie about the contents.
    let lie = Record::End { size: 1, hash: [0; 32] };
    let records = [file, Record::Start { id: 0, offset: 0 }, Record::Data(b"x"), lie, Record::Finish];
    assert_eq!(hostile(&to, &records).0.unwrap().failed, 1);
    assert!(!to.join("got/f").exists() && !to.join("got/.f.ibex-part").exists());
}
