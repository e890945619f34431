//! Relative paths inside a copied or served tree, and which of them are refused.
//!
//! Owns the lexical rules: what a peer may name, where a symbolic link may lead, what a part of an unfinished copy is
//! called. It does not touch the file system; `tree` makes sure that links met on the way lead nowhere else either. Names
//! are bytes, as Linux has them.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use anyhow::{Result, bail, ensure};

/// The longest name of a directory entry (NAME_MAX of every Linux file system).
const NAME_MAX: usize = 255;
/// The longest path the kernel takes (PATH_MAX, without its closing NUL).
const PATH_MAX: usize = 4095;
/// The end of the name of a part.
const PART_SUFFIX: &[u8] = b".ibex-part";

/// A path below some directory: no leading slash, no `.`, no `..`, no NUL. Empty means that directory itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RelPath(Vec<u8>);

impl RelPath {
    /// The directory itself.
    pub(crate) fn root() -> Self {
        Self::default()
    }

    /// Takes a path as a user or a peer wrote it. Repeated slashes and `.` fall away.
    ///
    /// # Errors
    /// When it is absolute, contains `..` or NUL, or is too long.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let shown = OsStr::from_bytes(bytes).display();
        ensure!(
            !bytes.starts_with(b"/"),
            "{shown}: an absolute path is refused; name it relative to the directory"
        );
        ensure!(!bytes.contains(&0), "{shown}: a path cannot contain NUL");
        let mut path = Self::root();
        for part in bytes.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => bail!("{shown}: \"..\" is refused; name it relative to the directory"),
                name => path = path.join(name)?,
            }
        }
        Ok(path)
    }

    /// Appends one name.
    ///
    /// # Errors
    /// When it is no name (empty, `.`, `..`, with a slash or NUL) or too long.
    pub(crate) fn join(&self, name: &[u8]) -> Result<Self> {
        let shown = OsStr::from_bytes(name).display();
        ensure!(
            !matches!(name, b"" | b"." | b"..") && !name.contains(&b'/') && !name.contains(&0),
            "{shown:?} is no name for a file"
        );
        ensure!(name.len() <= NAME_MAX, "{shown}: the name is longer than {NAME_MAX} bytes");
        let mut path = self.0.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        ensure!(path.len() <= PATH_MAX, "{shown}: the path is longer than {PATH_MAX} bytes");
        Ok(Self(path))
    }

    /// Appends a whole path.
    pub(crate) fn append(&self, rest: &Self) -> Result<Self> {
        rest.names().try_fold(self.clone(), |path, name| path.join(name))
    }

    /// Whether this is the directory itself.
    pub(crate) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The names from the top down.
    pub(crate) fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
    }

    /// The last name; none for the directory itself.
    pub(crate) fn name(&self) -> Option<&OsStr> {
        self.names().last().map(OsStr::from_bytes)
    }

    /// Everything but the last name.
    pub(crate) fn parent(&self) -> Self {
        let cut = self.0.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        Self(self.0[..cut].to_vec())
    }

    /// Whether it is `other` or lies below it.
    pub(crate) fn starts_with(&self, other: &Self) -> bool {
        other.is_root()
            || self.0.strip_prefix(other.as_bytes()).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    }

    /// The bytes, as they are sent.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// For the kernel; `.` for the directory itself.
    pub(crate) fn as_os_str(&self) -> &OsStr {
        if self.0.is_empty() { OsStr::new(".") } else { OsStr::from_bytes(&self.0) }
    }
}

impl std::fmt::Display for RelPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A name with a line break or an escape must not forge lines on a terminal.
        for byte in String::from_utf8_lossy(self.as_os_str().as_bytes()).chars() {
            if byte.is_control() { write!(f, "{}", byte.escape_default())? } else { write!(f, "{byte}")? }
        }
        Ok(())
    }
}

/// Whether a symbolic link at `link` (relative to the copied tree) stays inside that tree: a relative target whose `..`
/// all come first and are no more than the link is deep. `..` after a name is refused, since that name may be a link
/// itself and `..` then leads elsewhere than it seems.
pub(crate) fn link_stays_inside(link: &RelPath, target: &[u8]) -> bool {
    if target.is_empty() || target.starts_with(b"/") || target.contains(&0) {
        return false;
    }
    let depth = link.names().count().saturating_sub(1);
    let mut parts = target.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
    let mut up = 0;
    for part in parts.by_ref() {
        if part != b".." {
            return up <= depth && parts.all(|part| part != b"..");
        }
        up += 1;
    }
    up <= depth
}

/// The name under which `name` is received until it is whole: hidden, beside it. A name too long for the additions is
/// represented by its checksum.
pub(crate) fn part_name(name: &OsStr) -> OsString {
    let mut part = b".".to_vec();
    if name.len() + 1 + PART_SUFFIX.len() <= NAME_MAX {
        part.extend_from_slice(name.as_bytes());
    } else {
        part.extend_from_slice(blake3::hash(name.as_bytes()).to_hex().as_bytes());
    }
    part.extend_from_slice(PART_SUFFIX);
    OsString::from_vec(part)
}

/// Whether a name is that of a part: such files are neither sent nor accepted.
pub(crate) fn is_part_name(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name.starts_with(b".") && name.ends_with(PART_SUFFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn paths_are_normalised() {
        assert_eq!(path("a//b/./c/").as_bytes(), b"a/b/c");
        assert!(path("./.").is_root());
        assert_eq!(path("a/b").parent(), path("a"));
        assert!(path("a").parent().is_root());
        assert_eq!(path("a/b").name(), Some(OsStr::new("b")));
        assert_eq!(path("").name(), None);
        assert!(path("a/b").starts_with(&path("a")) && !path("ab").starts_with(&path("a")));
        assert_eq!(path("x").append(&path("a/b")).unwrap(), path("x/a/b"));
    }

    #[test]
    fn escapes_are_refused() {
        for bad in ["/", "/etc/passwd", "..", "a/../..", "a/..", "../a", "a\0b"] {
            assert!(RelPath::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(RelPath::parse("x".repeat(256).as_bytes()).is_err());
        assert!(RelPath::parse("x/".repeat(2100).as_bytes()).is_err());
        assert!(RelPath::root().join(b"a/b").is_err());
    }

    #[test]
    fn links_stay_inside_or_are_refused() {
        let good =
            [("l", "x"), ("l", "x/y"), ("a/l", "../x"), ("a/b/l", "../../x/y"), ("l", "./x"), ("a/l", "..")];
        for (link, target) in good {
            assert!(link_stays_inside(&path(link), target.as_bytes()), "{link} -> {target}");
        }
        let bad = [
            ("l", "/x"),
            ("l", ".."),
            ("a/l", "../../x"),
            ("a/l", "x/.."),
            ("l", ""),
            ("a/b/l", "../x/../.."),
        ];
        for (link, target) in bad {
            assert!(!link_stays_inside(&path(link), target.as_bytes()), "{link} -> {target}");
        }
    }

    #[test]
    fn parts_have_names_that_fit() {
        assert_eq!(part_name(OsStr::new("a.bin")), ".a.bin.ibex-part");
        let long = "n".repeat(255);
        let part = part_name(OsStr::new(&long));
        assert!(part.len() <= NAME_MAX && is_part_name(&part));
        assert!(!is_part_name(OsStr::new("a.ibex-part")));
    }

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        assert_eq!(path("a\nb\x1b[2J").to_string(), "a\\nb\\u{1b}[2J");
    }
}
