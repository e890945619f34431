//! A directory and everything below it, opened so that no name and no symbolic link leads out of it.
//!
//! Owns path resolution for both sides of a copy: the peer's paths are only ever resolved here, relative to an open
//! directory, by openat2(2) with `RESOLVE_BENEATH`. Kernels without it (before 5.6, some sandboxes) get a walk from name
//! to name that follows no link at all. Lexical rules are in `path`.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::path::RelPath;

/// openat2 answers EAGAIN when a rename elsewhere raced with it; so often in a row is no accident.
const RETRIES: usize = 64;
/// A directory, to list, to create in, to sync.
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// A file to read. A pipe or a device put in its place must not block the open.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// Whether links are followed on the way (they never lead out of the tree).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Links {
    /// What the user named: links inside the tree are followed.
    Follow,
    /// What a walk found or a manifest names: a link on the way is an error.
    Refuse,
}

/// An open directory.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    root: Arc<OwnedFd>,
    /// For messages only.
    shown: PathBuf,
}

impl Tree {
    /// Opens a directory by an ordinary path (the user's own: links are followed anywhere).
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let root = rustix::fs::open(path, DIRECTORY, Mode::empty())?;
        Ok(Self { root: Arc::new(root), shown: path.to_owned() })
    }

    /// The directory at `path` as a tree of its own.
    pub(crate) fn subtree(&self, path: &RelPath, links: Links) -> io::Result<Self> {
        Ok(Self { root: self.dir(path, links)?, shown: self.shown.join(path.as_os_str()) })
    }

    /// Where it is, for messages.
    pub(crate) fn shown(&self) -> &Path {
        &self.shown
    }

    /// Opens the directory at `path`.
    pub(crate) fn dir(&self, path: &RelPath, links: Links) -> io::Result<Arc<OwnedFd>> {
        if path.is_root() {
            return Ok(Arc::clone(&self.root));
        }
        Ok(Arc::new(self.open_beneath(path, DIRECTORY, links)?))
    }

    /// Opens the regular file at `path` for reading.
    pub(crate) fn file(&self, path: &RelPath, links: Links) -> io::Result<File> {
        let file = File::from(self.open_beneath(path, READ, links)?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        Ok(file)
    }

    fn open_beneath(&self, path: &RelPath, flags: OFlags, links: Links) -> io::Result<OwnedFd> {
        let mut resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let mut flags_for_leaf = flags;
        if links == Links::Refuse {
            resolve |= ResolveFlags::NO_SYMLINKS;
            flags_for_leaf |= OFlags::NOFOLLOW;
        }
        for _ in 0..RETRIES {
            match rustix::fs::openat2(&self.root, path.as_os_str(), flags_for_leaf, Mode::empty(), resolve) {
                Ok(fd) => return Ok(fd),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(Errno::XDEV) => return Err(outside()),
                Err(Errno::NOSYS | Errno::PERM) => return walk(self.root.as_fd(), path, flags),
                Err(Errno::LOOP) => return Err(link_on_the_way()),
                Err(error) => return Err(error.into()),
            }
        }
        Err(Errno::AGAIN.into())
    }
}

/// Opens name after name, following no link.
fn walk(root: impl AsFd, path: &RelPath, flags: OFlags) -> io::Result<OwnedFd> {
    let mut names = path.names().map(<OsStr as std::os::unix::ffi::OsStrExt>::from_bytes).peekable();
    let mut here = rustix::fs::openat(root, ".", DIRECTORY, Mode::empty())?;
    while let Some(name) = names.next() {
        let flags = if names.peek().is_some() { DIRECTORY } else { flags };
        here = rustix::fs::openat(&here, name, flags | OFlags::NOFOLLOW, Mode::empty()).map_err(|error| {
            // A link met with O_DIRECTORY is "not a directory".
            match rustix::fs::statat(&here, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_symlink() => {
                    link_on_the_way()
                }
                _ => error.into(),
            }
        })?;
    }
    Ok(here)
}

fn outside() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "it leads outside the directory")
}

fn link_on_the_way() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "there is a symbolic link on the way")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::scratch::Scratch;
    use std::os::unix::fs::symlink;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text.as_bytes()).unwrap()
    }

    fn sample() -> Scratch {
        let scratch = Scratch::new("tree");
        let top = scratch.path();
        std::fs::create_dir_all(top.join("served/a/b")).unwrap();
        std::fs::write(top.join("served/a/b/file"), b"inside").unwrap();
        std::fs::write(top.join("secret"), b"outside").unwrap();
        symlink("a/b", top.join("served/inner")).unwrap();
        symlink("../..", top.join("served/a/up")).unwrap();
        symlink("../secret", top.join("served/out")).unwrap();
        symlink("/etc", top.join("served/etc")).unwrap();
        scratch
    }

    #[test]
    fn links_lead_nowhere_outside() {
        let scratch = sample();
        let tree = Tree::open(&scratch.path().join("served")).unwrap();
        assert!(tree.file(&path("a/b/file"), Links::Refuse).is_ok());
        assert!(tree.file(&path("inner/file"), Links::Follow).is_ok());
        assert!(tree.file(&path("inner/file"), Links::Refuse).is_err());
        for links in [Links::Follow, Links::Refuse] {
            assert!(tree.file(&path("out"), links).is_err());
            assert!(tree.file(&path("a/up/secret"), links).is_err());
            assert!(tree.file(&path("etc/passwd"), links).is_err());
            assert!(tree.dir(&path("etc"), links).is_err());
            assert!(tree.dir(&path("a/up"), links).is_err());
        }
    }

    #[test]
    fn without_openat2_no_link_is_followed() {
        let scratch = sample();
        let tree = Tree::open(&scratch.path().join("served")).unwrap();
        assert!(walk(tree.root.as_fd(), &path("a/b/file"), READ).is_ok());
        for bad in ["inner/file", "out", "a/up/secret", "etc/passwd", "etc"] {
            let error = walk(tree.root.as_fd(), &path(bad), READ).unwrap_err();
            assert!(error.to_string().contains("symbolic link"), "{bad}: {error}");
        }
    }

    #[test]
    fn only_regular_files_are_read() {
        let scratch = sample();
        let tree = Tree::open(&scratch.path().join("served")).unwrap();
        assert!(tree.file(&path("a"), Links::Refuse).is_err());
        assert_eq!(tree.file(&path("nothing"), Links::Refuse).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
