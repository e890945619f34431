//! Where a copy comes from and where it goes: the rules of `cp` for names, directories and continued copies.
//!
//! Owns the decision what `SRC` and `DST` mean on the file system, on the user's own side (any path) and on the server's
//! (paths below the served directory). Reading and writing happen elsewhere.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use super::message::SourceInfo;
use super::path::{self, RelPath};
use super::record::Entry;
use super::tree::{Links, Tree};
use super::walk::{self, Listing};

/// The first line of a mark that a directory copy is unfinished; the source's name follows.
const MARK: &[u8] = b"ibex: this directory copy is not finished\n";

/// A path on one side of the copy.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// The user's own: anything goes.
    Local(PathBuf),
    /// Below a served directory.
    Served(Tree, RelPath),
}

impl Place {
    fn shown(&self) -> String {
        match self {
            Self::Local(path) => path.display().to_string(),
            Self::Served(_, path) => path.to_string(),
        }
    }

    /// Opens it as a directory; links are followed (inside a served tree).
    fn dir(&self) -> io::Result<Tree> {
        match self {
            Self::Local(path) => Tree::open(path),
            Self::Served(tree, path) => tree.subtree(path, Links::Follow),
        }
    }

    /// Opens it as a regular file.
    fn file(&self) -> io::Result<File> {
        match self {
            Self::Local(path) => {
                let nonblock = OFlags::NONBLOCK.bits().cast_signed();
                let file = OpenOptions::new().read(true).custom_flags(nonblock).open(path)?;
                let regular = file.metadata()?.is_file();
                regular.then_some(file).ok_or_else(|| {
                    io::Error::new(ErrorKind::InvalidInput, "it is neither a regular file nor a directory")
                })
            }
            Self::Served(tree, path) => tree.file(path, Links::Follow),
        }
    }

    /// The directory it is in and its name there.
    fn split(&self) -> Option<(Self, OsString)> {
        match self {
            Self::Local(path) => {
                let parent = path.parent()?;
                let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
                Some((Self::Local(parent.to_owned()), path.file_name()?.to_owned()))
            }
            Self::Served(tree, path) => {
                Some((Self::Served(tree.clone(), path.parent()), path.name()?.to_owned()))
            }
        }
    }
}

/// The name a source is known by, or none when only its contents are meant (`dir/.`, `.`, `..`, `/`, `HOST:`).
pub(crate) fn source_name(written: &[u8]) -> Option<Vec<u8>> {
    let last = written.split(|byte| *byte == b'/').rfind(|part| !part.is_empty())?;
    // `dir/` is dir itself, as for cp; `dir/.` is what is in it.
    (last != b"." && last != b"..").then(|| last.to_vec())
}

/// What is being copied.
#[derive(Debug)]
pub(crate) struct Source {
    top: Place,
    /// Only for a directory: what its entries are opened in.
    tree: Option<Tree>,
    pub(crate) listing: Listing,
    pub(crate) info: SourceInfo,
}

impl Source {
    /// Looks at the source and lists it.
    ///
    /// # Errors
    /// When it cannot be read at all.
    pub(crate) fn open(top: Place, name: Option<Vec<u8>>, tick: impl FnMut()) -> Result<Self> {
        let cannot = || format!("cannot read {}", top.shown());
        match top.dir() {
            Ok(tree) => {
                let listing = walk::directory(&tree, tick).with_context(cannot)?;
                Ok(Self { tree: Some(tree), listing, info: SourceInfo { name, dir: true }, top })
            }
            Err(error) if error.kind() == ErrorKind::NotADirectory => {
                let file = top.file().with_context(cannot)?;
                let stat = rustix::fs::fstat(&file).map_err(io::Error::from).with_context(cannot)?;
                // A file has a name, whatever way it was written.
                let name = name.or_else(|| top.split().map(|(_, name)| name.as_bytes().to_vec()));
                Ok(Self {
                    tree: None,
                    listing: walk::file(&stat),
                    info: SourceInfo { name, dir: false },
                    top,
                })
            }
            Err(error) => Err(error).with_context(cannot),
        }
    }

    /// Opens one of the listed files.
    pub(crate) fn file(&self, entry: &Entry) -> io::Result<File> {
        match &self.tree {
            Some(tree) => tree.file(&entry.path, Links::Refuse),
            None => self.top.file(),
        }
    }
}

/// Where it goes.
#[derive(Debug)]
pub(crate) struct Dest {
    pub(crate) tree: Tree,
    /// What the copy is called there; empty when contents go into the directory itself.
    pub(crate) prefix: RelPath,
    /// Present while a directory copy that made its own top directory is unfinished.
    mark: Option<(OwnedFd, OsString)>,
}

impl Dest {
    /// Decides where a source goes. `slash`: the destination was written with a slash at its end.
    ///
    /// # Errors
    /// When there is no such place.
    pub(crate) fn resolve(place: &Place, slash: bool, source: &SourceInfo) -> Result<Self> {
        let shown = place.shown();
        let name = source.name.as_deref();
        let parent = || -> Result<(Tree, OsString)> {
            let (parent, leaf) = place.split().with_context(|| format!("{shown} cannot be written"))?;
            let tree = parent.dir().with_context(|| {
                format!("cannot write {shown}: no directory {} to put it in; make it first", parent.shown())
            })?;
            ensure!(!path::is_part_name(&leaf), "{shown}: names like this are kept for unfinished copies");
            Ok((tree, leaf))
        };
        match place.dir() {
            Ok(tree) => {
                let Some(name) = name else {
                    return Ok(Self { tree, prefix: RelPath::root(), mark: None });
                };
                if source.dir
                    && let Ok((above, leaf)) = parent()
                    && let Some(mark) = find_mark(&above, &leaf, name)?
                {
                    return Ok(Self { tree: above, prefix: rel(&leaf)?, mark: Some(mark) });
                }
                Ok(Self { tree, prefix: RelPath::root().join(name)?, mark: None })
            }
            Err(error) if error.kind() == ErrorKind::NotADirectory => {
                ensure!(!source.dir, "cannot put a directory in place of the file {shown}");
                ensure!(!slash, "{shown} is a file and no directory");
                let (tree, leaf) = parent()?;
                Ok(Self { tree, prefix: rel(&leaf)?, mark: None })
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if slash && !source.dir {
                    bail!("there is no directory {shown}; make it first");
                }
                let (tree, leaf) = parent()?;
                let mark = match name {
                    Some(name) if source.dir => Some(
                        set_mark(&tree, &leaf, name)
                            .with_context(|| format!("cannot write in {}", tree.shown().display()))?,
                    ),
                    _ => None,
                };
                Ok(Self { tree, prefix: rel(&leaf)?, mark })
            }
            Err(error) => Err(error).with_context(|| format!("cannot write {shown}")),
        }
    }

    /// Everything arrived: the next copy of the same source is a new one.
    pub(crate) fn finished(&self) {
        if let Some((dir, mark)) = &self.mark {
            // If it stays, the next copy goes to the same place: harmless.
            let _ = rustix::fs::unlinkat(dir, mark, AtFlags::empty());
        }
    }
}

fn rel(leaf: &OsStr) -> Result<RelPath> {
    RelPath::root().join(leaf.as_bytes())
}

/// The mark beside directory `leaf` if an unfinished copy of a source of this name made it.
fn find_mark(above: &Tree, leaf: &OsStr, name: &[u8]) -> Result<Option<(OwnedFd, OsString)>> {
    let mark = path::part_name(leaf);
    let mut text = Vec::new();
    let Ok(file) = above.file(&rel(&mark)?, Links::Refuse) else { return Ok(None) };
    // Whatever else has this name is longer, shorter or different: no mark.
    if file.take((MARK.len() + name.len() + 1) as u64).read_to_end(&mut text).is_err()
        || text != mark_text(name)
    {
        return Ok(None);
    }
    Ok(Some((above_fd(above)?, mark)))
}

fn set_mark(above: &Tree, leaf: &OsStr, name: &[u8]) -> io::Result<(OwnedFd, OsString)> {
    let dir = above_fd(above)?;
    let mark = path::part_name(leaf);
    match rustix::fs::unlinkat(&dir, &mark, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(&dir, &mark, flags, Mode::RUSR | Mode::WUSR)?);
    file.write_all(&mark_text(name))?;
    Ok((dir, mark))
}

fn mark_text(name: &[u8]) -> Vec<u8> {
    [MARK, name].concat()
}

fn above_fd(above: &Tree) -> io::Result<OwnedFd> {
    above.dir(&RelPath::root(), Links::Refuse)?.try_clone()
}

/// Makes the directory `name`, or takes the one that is there; in both cases this user can write in it for now.
pub(crate) fn make_dir(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::EXIST) => {
            let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                return Err(io::Error::new(
                    ErrorKind::NotADirectory,
                    "something that is no directory is in its place",
                ));
            }
            let mode = Mode::from_raw_mode(stat.st_mode);
            if !mode.contains(Mode::RWXU) {
                rustix::fs::chmodat(parent, name, mode | Mode::RWXU, AtFlags::empty())?;
            }
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::scratch::Scratch;

    fn dir_source(name: Option<&str>) -> SourceInfo {
        SourceInfo { name: name.map(|name| name.as_bytes().to_vec()), dir: true }
    }

    fn resolve(path: &Path, source: &SourceInfo) -> Result<(PathBuf, String)> {
        let slash = path.as_os_str().as_bytes().ends_with(b"/");
        let dest = Dest::resolve(&Place::Local(path.to_owned()), slash, source)?;
        Ok((dest.tree.shown().to_owned(), dest.prefix.to_string()))
    }

    #[test]
    fn names_are_those_of_cp() {
        let name = |text: &str| source_name(text.as_bytes()).map(|name| String::from_utf8(name).unwrap());
        assert_eq!(name("a/b").as_deref(), Some("b"));
        assert_eq!(name("a/b/").as_deref(), Some("b"));
        for contents in ["", ".", "a/.", "a/./", "..", "a/..", "/"] {
            assert_eq!(name(contents), None, "{contents}");
        }
    }

    #[test]
    fn an_existing_directory_takes_the_source_in() {
        let scratch = Scratch::new("place");
        let top = scratch.path();
        let file = SourceInfo { name: Some(b"f".to_vec()), dir: false };
        assert_eq!(resolve(top, &file).unwrap(), (top.to_owned(), "f".to_owned()));
        assert_eq!(resolve(top, &dir_source(Some("d"))).unwrap(), (top.to_owned(), "d".to_owned()));
        assert_eq!(resolve(top, &dir_source(None)).unwrap(), (top.to_owned(), ".".to_owned()));
        let new = top.join("new");
        assert_eq!(resolve(&new, &file).unwrap(), (top.to_owned(), "new".to_owned()));
        assert!(resolve(&top.join("no/where"), &file).is_err());
        assert!(resolve(Path::new(&format!("{}/", new.display())), &file).is_err());
        std::fs::write(&new, b"").unwrap();
        assert_eq!(resolve(&new, &file).unwrap(), (top.to_owned(), "new".to_owned()));
        assert!(resolve(&new, &dir_source(Some("d"))).is_err());
    }

    #[test]
    fn an_unfinished_directory_copy_goes_on_to_the_same_place() {
        let scratch = Scratch::new("place");
        let new = scratch.path().join("new");
        let expected = (scratch.path().to_owned(), "new".to_owned());
        assert_eq!(resolve(&new, &dir_source(Some("d"))).unwrap(), expected);
        std::fs::create_dir(&new).unwrap();
        assert_eq!(resolve(&new, &dir_source(Some("d"))).unwrap(), expected);
        // Another source is another copy.
        assert_eq!(resolve(&new, &dir_source(Some("e"))).unwrap(), (new.clone(), "e".to_owned()));
        let dest = Dest::resolve(&Place::Local(new.clone()), false, &dir_source(Some("d"))).unwrap();
        dest.finished();
        assert_eq!(resolve(&new, &dir_source(Some("d"))).unwrap(), (new, "d".to_owned()));
    }
}
