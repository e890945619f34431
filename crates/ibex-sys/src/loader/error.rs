//! Why a library could not be loaded. Owns [`LoadError`] and its wording.

use core::ffi::CStr;
use core::fmt;
use std::ffi::OsString;
use std::path::PathBuf;

/// A library could not be opened, or is not what it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The library could not be opened: it is not installed, not found, or something that it needs is missing.
    #[error(
        "cannot open {} ({search}); install {soname} with {install}, or set {variable} to its file",
        tried.display()
    )]
    #[non_exhaustive]
    Library {
        /// The library's soname.
        soname: &'static str,
        /// The name or path that was given to `dlopen(3)`.
        tried: PathBuf,
        /// Where it was looked for.
        search: Search,
        /// The environment variable that names another file.
        variable: &'static str,
        /// Commands that install it.
        install: &'static str,
        /// What the dynamic linker said.
        source: libloading::Error,
    },
    /// The library was opened but lacks a function that every version of it has.
    #[error(
        "{library} has no function {}: it is not rdma-core's library, or older than libibverbs 1.1; install rdma-core",
        symbol.to_string_lossy()
    )]
    #[non_exhaustive]
    Symbol {
        /// The file that was opened.
        library: String,
        /// The function's C name.
        symbol: &'static CStr,
    },
}

/// Where a library was looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Search {
    /// In the dynamic linker's directories; with the value of `LD_LIBRARY_PATH`.
    Linker(Option<OsString>),
    /// Under the path in this environment variable.
    Variable(&'static str),
    /// Under the path that the caller gave.
    Given,
}

impl fmt::Display for Search {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linker(Some(path)) => write!(
                f,
                "looked for in LD_LIBRARY_PATH={} and the system's library directories",
                path.display()
            ),
            Self::Linker(None) => {
                f.write_str("looked for in the system's library directories; LD_LIBRARY_PATH is not set")
            }
            Self::Variable(name) => write!(f, "the file that {name} names"),
            Self::Given => f.write_str("the file that was asked for"),
        }
    }
}
