//! C types, inline dispatch and run-time loader for libibverbs and librdmacm.
//!
//! Everything of `infiniband/verbs.h` and `rdma/rdma_cma.h`, declared for Rust without their headers, without a C compiler
//! and without linking to anything: the libraries are opened at run time, or not at all, if a device inside the process
//! offers the same functions.
//!
//! - Types and constants, flat in this crate's root under their C names, in the newest layout (rdma-core 65).
//!   [`verbs`] and [`cma`] hold them, one file per object.
//! - [`Verbs`] and [`Cm`]: tables of function pointers, one for each function that the libraries export, filled by
//!   [`loader`] or by hand.
//! - [`dispatch`]: what the headers do inline, which is the whole data path and every extended verb.
//! - [`convention`]: what return values mean.
//!
//! # Names
//!
//! C's names, unchanged; members that are keywords in Rust are written raw (`r#type`). What has no name in C (members of
//! unnamed types) has one here: unions are called after their structure and member (`ibv_send_wr_wr`), and an unnamed
//! member is called by what it holds (`ibv_send_wr::imm`, `ibv_wc::imm`, `ibv_send_wr::tail`).
//!
//! C enumerations are transparent newtypes with constants, never Rust enumerations: a value that a newer library returns
//! is printed as a number and is not undefined behaviour. `Debug` prints the C name, `Display` the short one
//! (`RETRY_EXC_ERR`). A member that C declares as an integer is an integer here, also where it holds flags. Members that C
//! declares big-endian are integers whose documentation says so.
//!
//! `Default` of plain structures is all zeros, as after `memset`. Objects that have an identity (`ibv_qp`, …) cannot be
//! copied.
//!
//! # Which versions
//!
//! Structures only ever grew, at their end (`verbs_context`: at its front). Programs and libraries of rdma-core 34 to 65
//! work together through the sizes they pass each other; [`dispatch`] follows those rules. Functions that an older library
//! lacks are `None` in its table. Every layout, constant and prototype is compared with C's by the tests, against what
//! `cargo xtask abi` got from the C compiler.
//!
//! # Safety
//!
//! Calling anything here that reaches a device is `unsafe`, with the contract of the man page of the same name. This crate
//! checks nothing that C does not check, but for null function pointers. The sound interface is the crate `ibex`.
//!
//! # Example
//!
//! ```
//! match ibex_sys::Verbs::load() {
//!     Ok(verbs) => {
//!         let mut count = 0;
//!         // SAFETY: the count is writable.
//!         let list = unsafe { (verbs.get_device_list)(&raw mut count) };
//!         match ibex_sys::convention::pointer(list) {
//!             Ok(list) => {
//!                 println!("{count} devices");
//!                 // SAFETY: the list came from `get_device_list` and is not used again.
//!                 unsafe { (verbs.free_device_list)(list.as_ptr()) };
//!             }
//!             Err(errno) => println!("no RDMA devices: {errno}"),
//!         }
//!     }
//!     // Says what was looked for, where, and what to install.
//!     Err(error) => println!("{error}"),
//! }
//! ```
#![allow(non_camel_case_types, non_snake_case, non_upper_case_globals)]

#[cfg(not(target_os = "linux"))]
compile_error!("RDMA verbs exist on Linux only");

pub mod cma;
pub mod convention;
pub mod dispatch;
#[cfg(test)]
mod layout;
pub mod loader;
#[doc(hidden)]
pub mod lock;
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
