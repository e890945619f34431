//! `SRC` and `DST` as the user writes them: a local path, `HOST:PATH`, or an `ibex://` address.
//!
//! Owns the syntax only: an argument is remote when a colon comes before any slash, as scp has it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// One end of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    Local(PathBuf),
    Remote {
        /// `HOST:PORT`, with brackets around an IPv6 address, as the standard library resolves it.
        server: String,
        /// As written; the server judges it.
        path: Vec<u8>,
    },
}

impl Location {
    /// Parses an argument. `port` is used where none is written.
    ///
    /// # Errors
    /// When it looks remote and has no host, or a malformed port.
    pub(crate) fn parse(text: &OsStr, port: u16) -> Result<Self> {
        let bytes = text.as_bytes();
        if let Some(rest) = bytes.strip_prefix(b"ibex://") {
            let slash = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
            let (host, path) = rest.split_at(slash);
            let path = path.strip_prefix(b"/").unwrap_or(path).to_vec();
            return Ok(Self::Remote { server: server(host, port, text)?, path });
        }
        // An IPv6 address has colons of its own, hence the brackets.
        let search = if bytes.starts_with(b"[") {
            match bytes.windows(2).position(|pair| pair == b"]:") {
                Some(end) => end + 1,
                None => return Ok(Self::Local(text.into())),
            }
        } else {
            0
        };
        let colon = bytes[search..].iter().position(|byte| *byte == b':').map(|at| search + at);
        match colon {
            Some(colon) if !bytes[..colon].contains(&b'/') => Ok(Self::Remote {
                server: server(&bytes[..colon], port, text)?,
                path: bytes[colon + 1..].to_vec(),
            }),
            _ => Ok(Self::Local(text.into())),
        }
    }
}

/// `HOST` or `HOST:PORT` with the port filled in.
fn server(host: &[u8], port: u16, whole: &OsStr) -> Result<String> {
    let whole = Path::new(whole).display();
    let host = std::str::from_utf8(host).with_context(|| format!("{whole}: the host's name is no text"))?;
    let (name, port) = match host.rsplit_once(':') {
        Some((name, written)) if !written.ends_with(']') => {
            (name, written.parse().with_context(|| format!("{whole}: {written:?} is no port number"))?)
        }
        _ => (host, port),
    };
    ensure!(
        !name.is_empty(),
        "{whole}: no host before the colon; write ./{whole} for a local file of that name"
    );
    Ok(format!("{name}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(server: &str, path: &str) -> Location {
        Location::Remote { server: server.to_owned(), path: path.as_bytes().to_vec() }
    }

    #[test]
    fn remote_and_local_are_told_apart() {
        let parse = |text: &str| Location::parse(OsStr::new(text), 7471).unwrap();
        assert_eq!(parse("db3:data/x"), remote("db3:7471", "data/x"));
        assert_eq!(parse("db3:"), remote("db3:7471", ""));
        assert_eq!(parse("db3:a:b"), remote("db3:7471", "a:b"));
        assert_eq!(parse("[::1]:x"), remote("[::1]:7471", "x"));
        assert_eq!(parse("ibex://db3:99/a/b"), remote("db3:99", "a/b"));
        assert_eq!(parse("ibex://[::1]:99/a"), remote("[::1]:99", "a"));
        assert_eq!(parse("ibex://[::1]/a"), remote("[::1]:7471", "a"));
        assert_eq!(parse("ibex://db3"), remote("db3:7471", ""));
        for local in ["a", "./a:b", "/x/a:b", "dir/a:b", "[x]", "."] {
            assert_eq!(parse(local), Location::Local(local.into()));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [":x", "ibex://db3:port/x", "ibex:///x"] {
            assert!(Location::parse(OsStr::new(bad), 7471).is_err(), "{bad}");
        }
    }
}
