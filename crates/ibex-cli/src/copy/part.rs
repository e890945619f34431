//! One file being received: its part beside its place, its checksum, and the moment it takes its place.
//!
//! Owns the rule that the destination is only ever replaced by a rename, after size and checksum were found right and the
//! contents are on the disk. What is received so far stays in the part when anything goes wrong, except when the disk is
//! full: then the part is removed, since keeping it would keep the disk full.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Arc;
use std::time::{Duration, Instant};

use blake3::Hasher;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::path;
use super::record::Mtime;

/// A copy that was just broken off may hold its lock for as long as its server takes to notice.
const BUSY: Duration = Duration::from_millis(500);
/// Between two attempts to lock.
const PAUSE: Duration = Duration::from_millis(20);
/// Pieces in which existing bytes are read to be hashed.
const PIECE: usize = 1 << 20;

/// Bytes of a part left by an earlier copy, not yet confirmed by the sender.
#[derive(Debug)]
pub(crate) struct Leftover {
    pub(crate) length: u64,
    pub(crate) hasher: Box<Hasher>,
}

/// A part, open and locked.
#[derive(Debug)]
pub(crate) struct Part {
    dir: Arc<OwnedFd>,
    name: OsString,
    part: OsString,
    file: File,
    hasher: Box<Hasher>,
    length: u64,
}

/// Hashes the first `length` bytes of an open file from its beginning.
pub(crate) fn hash_prefix(file: &mut File, length: u64, mut tick: impl FnMut()) -> io::Result<Box<Hasher>> {
    file.seek(SeekFrom::Start(0))?;
    let mut hasher = Box::new(Hasher::new());
    let mut piece = vec![0; PIECE];
    let mut left = length;
    while left > 0 {
        let want = left.min(PIECE as u64) as usize;
        file.read_exact(&mut piece[..want])?;
        hasher.update(&piece[..want]);
        left -= want as u64;
        tick();
    }
    Ok(hasher)
}

/// What an earlier copy left of `name`, if it can be the beginning of a file of `size` bytes. A part that cannot be read
/// is as good as none.
pub(crate) fn leftover(dir: &OwnedFd, name: &OsStr, size: u64, tick: impl FnMut()) -> Option<Leftover> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(dir, path::part_name(name), flags, Mode::empty()).ok()?);
    let meta = file.metadata().ok()?;
    let length = meta.len();
    if !meta.is_file() || length == 0 || length > size {
        return None;
    }
    let hasher = hash_prefix(&mut file, length, tick).ok()?;
    Some(Leftover { length, hasher })
}

impl Part {
    /// Opens (or makes) the part of `name` and truncates it to nothing, or to the confirmed `leftover`.
    pub(crate) fn open(dir: Arc<OwnedFd>, name: &OsStr, leftover: Option<Leftover>) -> io::Result<Self> {
        let part = path::part_name(name);
        let file = lock_part(&dir, &part)?;
        let (length, hasher) =
            leftover.map_or_else(|| (0, Box::new(Hasher::new())), |left| (left.length, left.hasher));
        if file.metadata()?.len() < length {
            return Err(io::Error::other("its part was changed by someone else; copy it again"));
        }
        file.set_len(length)?;
        let mut this = Self { dir, name: name.to_owned(), part, file, hasher, length };
        this.file.seek(SeekFrom::Start(length))?;
        Ok(this)
    }

    /// Appends received contents.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.file.write_all(bytes)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Puts the file into its place if it is what the sender sent.
    pub(crate) fn finish(self, size: u64, hash: &[u8; 32], mode: u32, mtime: Mtime) -> io::Result<()> {
        if self.length != size || self.hasher.finalize() != *hash {
            // These bytes are wrong somewhere: they must not be continued.
            self.remove();
            return Err(io::Error::new(
                ErrorKind::InvalidData,
                "the checksum of what arrived is not the sender's; it is discarded, copy it again",
            ));
        }
        self.file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        rustix::fs::futimens(&self.file, &times(mtime))?;
        self.file.sync_all()?;
        rustix::fs::renameat(&self.dir, &self.part, &self.dir, &self.name).map_err(|error| match error {
            Errno::ISDIR => io::Error::new(ErrorKind::IsADirectory, "a directory is in its place"),
            other => other.into(),
        })
    }

    /// After a failed write: keeps the part to be continued, unless the disk is full.
    pub(crate) fn abandon(self, why: &io::Error) {
        if matches!(why.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge) {
            self.remove();
        }
    }

    fn remove(&self) {
        // It may be gone already; nothing depends on it.
        let _ = rustix::fs::unlinkat(&self.dir, &self.part, AtFlags::empty());
    }
}

/// Opens and locks a part. Two copies to the same place must not write one part.
fn lock_part(dir: &OwnedFd, part: &OsStr) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let begin = Instant::now();
    loop {
        // Nobody else reads it before it is whole.
        let file = File::from(rustix::fs::openat(dir, part, flags, Mode::RUSR | Mode::WUSR)?);
        let meta = file.metadata()?;
        if !meta.is_file() || meta.nlink() > 1 {
            return Err(io::Error::other("something that is no part has the name of its part"));
        }
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) if begin.elapsed() < BUSY => {
                std::thread::sleep(PAUSE);
                continue;
            }
            Err(Errno::WOULDBLOCK) => {
                return Err(io::Error::new(ErrorKind::ResourceBusy, "another copy is writing the same file"));
            }
            Err(error) => return Err(error.into()),
        }
        // The one who held the lock may just have moved this very file into its place.
        match rustix::fs::statat(dir, part, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if stat.st_ino == meta.ino() => return Ok(file),
            Ok(_) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// For utimensat: the access time is left alone.
pub(crate) fn times(mtime: Mtime) -> Timestamps {
    let omit = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
    Timestamps {
        last_access: omit,
        last_modification: Timespec { tv_sec: mtime.secs, tv_nsec: mtime.nanos.into() },
    }
}

/// Makes a symbolic link in its place, by a rename like a file.
pub(crate) fn place_link(dir: impl AsFd, name: &OsStr, target: &[u8], mtime: Mtime) -> io::Result<()> {
    let dir = dir.as_fd();
    match rustix::fs::readlinkat(dir, name, Vec::new()) {
        Ok(there) if there.as_bytes() == target => {}
        _ => {
            let part = path::part_name(name);
            match rustix::fs::unlinkat(dir, &part, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
            rustix::fs::symlinkat(target, dir, &part)?;
            if let Err(error) = rustix::fs::renameat(dir, &part, dir, name) {
                let _ = rustix::fs::unlinkat(dir, &part, AtFlags::empty());
                return Err(error.into());
            }
        }
    }
    Ok(rustix::fs::utimensat(dir, name, &times(mtime), AtFlags::SYMLINK_NOFOLLOW)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::record::Mtime;
    use crate::copy::scratch::Scratch;

    fn dir(scratch: &Scratch) -> Arc<OwnedFd> {
        Arc::new(File::open(scratch.path()).unwrap().into())
    }

    #[test]
    fn a_file_appears_only_when_it_is_whole() {
        let scratch = Scratch::new("part");
        let name = OsStr::new("f");
        let place = scratch.path().join("f");
        let mut part = Part::open(dir(&scratch), name, None).unwrap();
        part.write(b"hello ").unwrap();
        drop(part);
        assert!(!place.exists());

        let left = leftover(&dir(&scratch), name, 11, || {}).unwrap();
        assert_eq!(left.length, 6);
        assert_eq!(left.hasher.finalize(), blake3::hash(b"hello "));
        let mut part = Part::open(dir(&scratch), name, Some(left)).unwrap();
        part.write(b"world").unwrap();
        let mtime = Mtime { secs: 1_000_000, nanos: 5 };
        part.finish(11, blake3::hash(b"hello world").as_bytes(), 0o640, mtime).unwrap();
        let meta = std::fs::metadata(&place).unwrap();
        assert_eq!(std::fs::read(&place).unwrap(), b"hello world");
        assert_eq!((meta.mode() & 0o777, meta.mtime(), meta.mtime_nsec()), (0o640, 1_000_000, 5));
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_wrong_checksum_discards_the_part_and_keeps_the_old_file() {
        let scratch = Scratch::new("part");
        std::fs::write(scratch.path().join("f"), b"old").unwrap();
        let mut part = Part::open(dir(&scratch), OsStr::new("f"), None).unwrap();
        part.write(b"new").unwrap();
        assert!(part.finish(3, &[0; 32], 0o600, Mtime::default()).is_err());
        assert_eq!(std::fs::read(scratch.path().join("f")).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 1);
    }

    #[test]
    fn two_copies_do_not_share_a_part() {
        let scratch = Scratch::new("part");
        let first = Part::open(dir(&scratch), OsStr::new("f"), None).unwrap();
        let error = Part::open(dir(&scratch), OsStr::new("f"), None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceBusy);
        drop(first);
        Part::open(dir(&scratch), OsStr::new("f"), None).unwrap();
    }

    #[test]
    fn a_part_is_not_written_through_a_planted_link() {
        let scratch = Scratch::new("part");
        std::fs::write(scratch.path().join("victim"), b"precious").unwrap();
        let part = scratch.path().join(".f.ibex-part");
        std::os::unix::fs::symlink("victim", &part).unwrap();
        assert!(Part::open(dir(&scratch), OsStr::new("f"), None).is_err());
        std::fs::remove_file(&part).unwrap();
        std::fs::hard_link(scratch.path().join("victim"), &part).unwrap();
        assert!(Part::open(dir(&scratch), OsStr::new("f"), None).is_err());
        assert_eq!(std::fs::read(scratch.path().join("victim")).unwrap(), b"precious");
    }

    #[test]
    fn links_are_placed_and_replaced() {
        let scratch = Scratch::new("part");
        let name = OsStr::new("l");
        for target in ["a", "a", "b"] {
            place_link(dir(&scratch), name, target.as_bytes(), Mtime { secs: 7, nanos: 0 }).unwrap();
            assert_eq!(std::fs::read_link(scratch.path().join("l")).unwrap(), std::path::Path::new(target));
        }
        assert_eq!(std::fs::symlink_metadata(scratch.path().join("l")).unwrap().mtime(), 7);
    }
}
