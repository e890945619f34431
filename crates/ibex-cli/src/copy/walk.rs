//! The list of what a copy holds, read from the source's directory tree.
//!
//! Owns listing and the decision what is copied at all; reads no file contents. What cannot be listed becomes a
//! [`Trouble`] and the rest goes on.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, FileType, Stat};

use super::path::{self, RelPath};
use super::record::{Entry, Kind, Mtime};
use super::tree::{Links, Tree};

/// Something in the source that is not copied, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) path: RelPath,
    pub(crate) text: String,
    /// Whether the copy counts as failed; otherwise it is a remark.
    pub(crate) fatal: bool,
}

/// Everything to copy, parents before children.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) entries: Vec<Entry>,
    pub(crate) troubles: Vec<Trouble>,
}

impl Listing {
    /// Number of files and the sum of their sizes.
    pub(crate) fn totals(&self) -> (u64, u64) {
        self.entries.iter().fold((0, 0), |(files, bytes), entry| match entry.kind {
            Kind::File(size) => (files + 1, bytes.saturating_add(size)),
            _ => (files, bytes),
        })
    }
}

/// The permission bits, and the time of last modification.
pub(crate) fn meta(stat: &Stat) -> (u32, Mtime) {
    // The field types differ between architectures; the values fit everywhere.
    #[allow(clippy::unnecessary_cast)]
    (stat.st_mode as u32 & 0o777, Mtime { secs: stat.st_mtime as i64, nanos: stat.st_mtime_nsec as u32 })
}

/// Lists the directory `tree` itself (as the entry with the empty path) and everything below. `tick` is called once per
/// directory.
pub(crate) fn directory(tree: &Tree, mut tick: impl FnMut()) -> io::Result<Listing> {
    let mut listing = Listing::default();
    let (mode, mtime) = meta(&rustix::fs::fstat(tree.dir(&RelPath::root(), Links::Refuse)?)?);
    listing.entries.push(Entry { path: RelPath::root(), kind: Kind::Dir, mode, mtime });
    let mut waiting = vec![RelPath::root()];
    while let Some(dir) = waiting.pop() {
        tick();
        let first = listing.entries.len();
        if let Err(error) = list_one(tree, &dir, &mut listing) {
            let text = format!("cannot list the directory: {error}");
            listing.troubles.push(Trouble { path: dir, text, fatal: true });
            continue;
        }
        // Depth first, in order of names: the stack takes the last one first.
        let below = listing.entries[first..].iter().filter(|entry| entry.kind == Kind::Dir);
        waiting.extend(below.rev().map(|entry| entry.path.clone()));
    }
    Ok(listing)
}

/// Lists a single file as the entry with the empty path.
pub(crate) fn file(stat: &Stat) -> Listing {
    let (mode, mtime) = meta(stat);
    let entry = Entry { path: RelPath::root(), kind: Kind::File(stat.st_size as u64), mode, mtime };
    Listing { entries: vec![entry], troubles: Vec::new() }
}

fn list_one(tree: &Tree, dir: &RelPath, listing: &mut Listing) -> io::Result<()> {
    let fd = tree.dir(dir, Links::Refuse)?;
    let mut names = Vec::new();
    for item in rustix::fs::Dir::read_from(&fd)? {
        let name = item?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." && !path::is_part_name(OsStr::from_bytes(&name)) {
            names.push(name);
        }
    }
    names.sort_unstable();
    for name in names {
        let path = match dir.join(&name) {
            Ok(path) => path,
            Err(error) => {
                listing.troubles.push(Trouble { path: dir.clone(), text: error.to_string(), fatal: true });
                continue;
            }
        };
        match list_name(&fd, OsStr::from_bytes(&name), &path) {
            Ok(Ok(entry)) => listing.entries.push(entry),
            Ok(Err(trouble)) => listing.troubles.push(trouble),
            // Removed since the directory was read: it is as if it had never been there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => listing.troubles.push(Trouble { path, text: error.to_string(), fatal: true }),
        }
    }
    Ok(())
}

fn list_name(
    dir: impl std::os::fd::AsFd,
    name: &OsStr,
    path: &RelPath,
) -> io::Result<std::result::Result<Entry, Trouble>> {
    let stat = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let (mode, mtime) = meta(&stat);
    let trouble = |text: &str, fatal| Trouble { path: path.clone(), text: text.to_owned(), fatal };
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Kind::Dir,
        FileType::RegularFile => Kind::File(stat.st_size as u64),
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(&dir, name, Vec::new())?.into_bytes();
            if !path::link_stays_inside(path, &target) {
                return Ok(Err(trouble(
                    "the symbolic link leads outside the copied tree; it is not copied",
                    true,
                )));
            }
            Kind::Link(target)
        }
        FileType::Fifo => return Ok(Err(trouble("a pipe is not copied", false))),
        FileType::Socket => return Ok(Err(trouble("a socket is not copied", false))),
        _ => return Ok(Err(trouble("a device is not copied", false))),
    };
    Ok(Ok(Entry { path: path.clone(), kind, mode, mtime }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::scratch::Scratch;
    use std::os::unix::fs::symlink;

    #[test]
    fn parents_come_before_children_and_nothing_is_missed() {
        let scratch = Scratch::new("walk");
        let top = scratch.path();
        std::fs::create_dir_all(top.join("b/empty")).unwrap();
        std::fs::write(top.join("b/two"), b"22").unwrap();
        std::fs::write(top.join("a"), b"1").unwrap();
        std::fs::write(top.join("b/.two.ibex-part"), b"2").unwrap();
        symlink("../a", top.join("b/link")).unwrap();
        symlink("/etc/passwd", top.join("b/leak")).unwrap();
        let listing = directory(&Tree::open(top).unwrap(), || {}).unwrap();
        let paths: Vec<String> = listing.entries.iter().map(|entry| entry.path.to_string()).collect();
        assert_eq!(paths, [".", "a", "b", "b/empty", "b/link", "b/two"]);
        assert_eq!(listing.totals(), (2, 3));
        assert_eq!(listing.troubles.len(), 1);
        assert!(listing.troubles[0].fatal && listing.troubles[0].path.to_string() == "b/leak");
    }
}
