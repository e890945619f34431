//! Opening libibverbs and librdmacm at run time, and filling the tables from them.
//!
//! Owns the three ways to a table, for [`Verbs`] and [`Cm`] alike:
//!
//! - `load`: the system's library, once per process, found by the dynamic linker under its soname; `IBEX_LIBIBVERBS` and
//!   `IBEX_LIBRDMACM` name another file;
//! - `load_from`: a given file;
//! - `from_static`: functions already in the process, found by a lookup of the caller's.
//!
//! A library that was opened is never closed: providers start threads, register fork handlers and keep pointers to it.
//! A table is therefore valid for ever. Not here: which devices there are, or whether any is usable.
//!
//! Man page: `dlopen(3)`.
//!
//! # Safety
//!
//! A library file is trusted to be what its name says, as it would be if the program were linked to it.
#![allow(unsafe_code)]

mod error;
mod open;
#[cfg(test)]
mod tests;

use core::ffi::{CStr, c_void};
use std::path::Path;
use std::sync::OnceLock;

pub use error::{LoadError, Search};

use crate::{Cm, Verbs};

/// What is known about one of the libraries.
pub(crate) struct Kind {
    /// What the dynamic linker is asked for.
    pub(crate) soname: &'static str,
    /// The environment variable that names another file.
    pub(crate) variable: &'static str,
    /// How to get it, by distribution.
    pub(crate) install: &'static str,
}

const VERBS: Kind = Kind {
    soname: "libibverbs.so.1",
    variable: "IBEX_LIBIBVERBS",
    install: "`apt install libibverbs1 ibverbs-providers`, `dnf install libibverbs`, \
              `zypper install libibverbs1 rdma-core` or `pacman -S rdma-core`",
};

const CM: Kind = Kind {
    soname: "librdmacm.so.1",
    variable: "IBEX_LIBRDMACM",
    install: "`apt install librdmacm1 ibverbs-providers`, `dnf install librdmacm`, \
              `zypper install librdmacm1 rdma-core` or `pacman -S rdma-core`",
};

/// The three ways to a table, with the same words for both.
macro_rules! load {
    ($Table:ident, $kind:ident, $soname:literal, $variable:literal) => {
        impl $Table {
            #[doc = concat!("The functions of the system's `", $soname, "`.")]
            ///
            #[doc = concat!("If the environment variable `", $variable, "` is set, the file that it names is opened instead.")]
            /// The library is opened by the first call that succeeds; later calls return the same table. A failure is not
            /// remembered.
            ///
            /// # Errors
            ///
            /// [`LoadError`] if the library cannot be opened, with what was tried and what to install, or if it lacks a
            /// function that every version of it has.
            pub fn load() -> Result<&'static Self, LoadError> {
                static TABLE: OnceLock<$Table> = OnceLock::new();
                if let Some(table) = TABLE.get() {
                    return Ok(table);
                }
                let file = open::system(&$kind)?;
                // SAFETY: the library that the system, or its user by environment, says is this one.
                let table = unsafe { $Table::resolve(|symbol| file.symbol(symbol)) }
                    .map_err(|symbol| file.missing(symbol))?;
                // If another thread was faster, its table is the same one.
                Ok(TABLE.get_or_init(|| table))
            }

            #[doc = concat!("The functions of the `", $soname, "` in a given file.")]
            ///
            /// Each call makes a new table, kept for the rest of the process's life. Objects of different libraries must
            /// not be mixed.
            ///
            /// # Safety
            ///
            #[doc = concat!("The file must be a `", $soname, "`, or behave like one: running its constructors must be sound, and each")]
            /// function must have the prototype of rdma-core's headers.
            ///
            /// # Errors
            ///
            /// [`LoadError`] if the file cannot be opened, or lacks a function that every version of the library has.
            pub unsafe fn load_from(path: impl AsRef<Path>) -> Result<&'static Self, LoadError> {
                // SAFETY: the caller vouches for the file.
                let file = unsafe { open::given(&$kind, path.as_ref()) }?;
                // SAFETY: the caller vouches for the functions.
                let table = unsafe { $Table::resolve(|symbol| file.symbol(symbol)) }
                    .map_err(|symbol| file.missing(symbol))?;
                Ok(Box::leak(Box::new(table)))
            }

            /// A table of functions that are already in the process, for programs that link the library themselves.
            ///
            /// `lookup` gets each symbol's C name and answers with its address, or null if there is no such function.
            ///
            /// # Safety
            ///
            /// Each address must be that of the C function of this name with the prototype of rdma-core's headers, callable
            /// for the rest of the process's life.
            ///
            /// # Errors
            ///
            /// [`LoadError::Symbol`] if `lookup` does not know a function that every version of the library has.
            pub unsafe fn from_static(
                lookup: impl FnMut(&'static CStr) -> *mut c_void,
            ) -> Result<Self, LoadError> {
                // SAFETY: the caller vouches for the functions.
                unsafe { $Table::resolve(lookup) }.map_err(|symbol| LoadError::Symbol {
                    library: format!("the {} linked to this program", $soname),
                    symbol,
                })
            }
        }
    };
}

load!(Verbs, VERBS, "libibverbs.so.1", "IBEX_LIBIBVERBS");
load!(Cm, CM, "librdmacm.so.1", "IBEX_LIBRDMACM");
