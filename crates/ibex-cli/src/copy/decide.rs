//! What the receiver does about an entry: makes it, finds it unchanged, or asks for it.
//!
//! Owns the comparison of an entry with what is in its place or was left by an earlier copy. Contents arrive in `receiver`.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rustix::fs::{AtFlags, FileType, Mode};

use super::message::Answer;
use super::path;
use super::receiver::{Basis, Receiver};
use super::record::{Entry, Kind};
use super::tree::Links;
use super::{part, place, walk};

impl Receiver<'_> {
    /// The open directory an entry goes into and its name there; no name for the destination directory itself.
    pub(super) fn spot(&mut self, entry: &Entry) -> Result<(Arc<OwnedFd>, Option<OsString>)> {
        let path = self.dest.prefix.append(&entry.path)?;
        let name = path.name().map(OsStr::to_owned);
        if let Some(name) = &name {
            ensure!(!path::is_part_name(name), "names like this are kept for unfinished copies");
        }
        let parent = path.parent();
        if let Some((last, dir)) = &self.last_dir
            && *last == parent
        {
            return Ok((Arc::clone(dir), name));
        }
        let dir = self.dest.tree.dir(&parent, Links::Refuse)?;
        self.last_dir = Some((parent, Arc::clone(&dir)));
        Ok((dir, name))
    }

    /// Does at once what can be done at once; for a file that must be sent, the answer.
    pub(super) fn decide(&mut self, id: u64, entry: &Entry) -> Result<Option<(Answer, Basis)>> {
        let (dir, name) = self.spot(entry)?;
        match &entry.kind {
            Kind::Dir => {
                if let Some(name) = name {
                    place::make_dir(&dir, &name)?;
                    self.dirs.push(entry.clone());
                }
                self.report.dirs += 1;
                Ok(None)
            }
            Kind::Link(target) => {
                let name = name.context("a link cannot take the place of the directory")?;
                ensure!(
                    !entry.path.is_root() && path::link_stays_inside(&entry.path, target),
                    "the symbolic link leads outside the copied tree; it is refused"
                );
                part::place_link(&dir, &name, target, entry.mtime)?;
                self.touched.insert(self.dest.prefix.append(&entry.path)?.parent());
                self.report.links += 1;
                Ok(None)
            }
            Kind::File(size) => {
                let name = name.context("a file cannot take the place of the directory")?;
                self.decide_file(id, entry, *size, &dir, &name)
            }
        }
    }

    fn decide_file(
        &mut self,
        id: u64,
        entry: &Entry,
        size: u64,
        dir: &OwnedFd,
        name: &OsStr,
    ) -> Result<Option<(Answer, Basis)>> {
        let there = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Some(stat),
            Err(rustix::io::Errno::NOENT) => None,
            Err(error) => return Err(io::Error::from(error).into()),
        };
        if let Some(stat) = there {
            let kind = FileType::from_raw_mode(stat.st_mode);
            ensure!(kind != FileType::Directory, "a directory is in its place");
            let (mode, mtime) = walk::meta(&stat);
            let same_size = kind == FileType::RegularFile && stat.st_size as u64 == size;
            if same_size && !self.checksum && mtime == entry.mtime {
                if mode != entry.mode {
                    rustix::fs::chmodat(dir, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())
                        .map_err(io::Error::from)?;
                }
                self.unchanged(size);
                self.watch.advance(size);
                return Ok(None);
            }
            if same_size
                && self.checksum
                && size > 0
                && let Ok(mut file) =
                    self.dest.tree.file(&self.dest.prefix.append(&entry.path)?, Links::Refuse)
                && let Ok(hasher) = part::hash_prefix(&mut file, size, || self.control.tick())
            {
                let hash = *hasher.finalize().as_bytes();
                return Ok(Some((Answer::Want { id, have: size, hash }, Basis::Place(size, hasher))));
            }
        }
        let (have, hash, basis) = match part::leftover(dir, name, size, || self.control.tick()) {
            Some(left) => (left.length, *left.hasher.finalize().as_bytes(), Basis::Part(left)),
            None => (0, [0; 32], Basis::Nothing),
        };
        Ok(Some((Answer::Want { id, have, hash }, basis)))
    }
}
