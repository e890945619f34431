//! One opened library file: dlopen, symbol lookup, and what to say when either fails.
//!
//! Owns the choice of names to try. Not here: which functions there are.
//!
//! # Safety
//!
//! Opening a library runs its constructors; see [`super`].
#![allow(unsafe_code)]

use core::ffi::{CStr, c_void};
use std::ffi::{OsStr, OsString};
use std::path::Path;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use super::error::Search;
use super::{Kind, LoadError};

/// An opened library, never closed.
pub(super) struct File {
    library: core::mem::ManuallyDrop<Library>,
    name: OsString,
}

impl File {
    /// The address of a symbol in its default version, or null.
    pub(super) fn symbol(&self, symbol: &CStr) -> *mut c_void {
        // SAFETY: only the address is taken; what it is used as is the table's concern.
        let found = unsafe { self.library.get::<*mut c_void>(symbol.to_bytes_with_nul()) };
        found.map_or(core::ptr::null_mut(), |symbol| symbol.into_raw())
    }

    /// The error for a symbol that the library should have.
    pub(super) fn missing(&self, symbol: &'static CStr) -> LoadError {
        LoadError::Symbol { library: self.name.to_string_lossy().into_owned(), symbol }
    }
}

/// Opens the file that the environment names, or else the one that the dynamic linker finds.
pub(super) fn system(kind: &Kind) -> Result<File, LoadError> {
    let variable = std::env::var_os(kind.variable).filter(|value| !value.is_empty());
    let (name, search) = match variable {
        Some(file) => (file, Search::Variable(kind.variable)),
        None => (kind.soname.into(), Search::Linker(std::env::var_os("LD_LIBRARY_PATH"))),
    };
    // SAFETY: the program would run the same constructors if it were linked to the library.
    unsafe { open(kind, name, search) }
}

/// Opens the file at `path`.
///
/// # Safety
///
/// Running the file's constructors must be sound.
pub(super) unsafe fn given(kind: &Kind, path: &Path) -> Result<File, LoadError> {
    // SAFETY: the caller's promise.
    unsafe { open(kind, path.as_os_str().to_owned(), Search::Given) }
}

/// Opens a library by name.
///
/// # Safety
///
/// Running the file's constructors must be sound.
unsafe fn open(kind: &Kind, name: OsString, search: Search) -> Result<File, LoadError> {
    // All symbols are bound now, so that a broken installation fails here and not in the middle of a verb; and they are
    // local, as they are for any plug-in.
    // SAFETY: the caller's promise.
    let opened = unsafe { Library::open(Some::<&OsStr>(&name), RTLD_NOW | RTLD_LOCAL) };
    match opened {
        Ok(library) => Ok(File { library: core::mem::ManuallyDrop::new(library), name }),
        Err(source) => Err(LoadError::Library {
            soname: kind.soname,
            tried: name.into(),
            search,
            variable: kind.variable,
            install: kind.install,
            source,
        }),
    }
}
