//! C types, inline dispatch and run-time loader for libibverbs and librdmacm.
#![allow(non_camel_case_types, non_snake_case, non_upper_case_globals)]

pub mod cma;
pub mod convention;
pub mod dispatch;
#[cfg(test)]
mod layout;
pub mod loader;
mod macros;
mod names;
mod plain;
pub mod table;
pub mod verbs;

pub use cma::*;
pub use convention::Errno;
pub use loader::LoadError;
pub use plain::{Plain, zeroed};
pub use table::{Cm, Verbs};
pub use verbs::*;
