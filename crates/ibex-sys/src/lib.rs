//! C types, inline dispatch and run-time loader for libibverbs and librdmacm.
#![allow(non_camel_case_types, non_snake_case, non_upper_case_globals)]

pub mod cma;
pub mod dispatch;
#[cfg(test)]
mod layout;
mod macros;
mod names;
mod plain;
pub mod table;
pub mod verbs;

pub use cma::*;
pub use plain::{Plain, zeroed};
pub use table::{Cm, Verbs};
pub use verbs::*;
