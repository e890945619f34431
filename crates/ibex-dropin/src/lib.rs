//! libibverbs.so.1 and librdmacm.so.1 served by the software device.
//!
//! Unmodified C programs run on it with `LD_LIBRARY_PATH=target/dropin`; `cargo xtask dropin` builds that folder. This
//! crate owns which symbols the two libraries export, under which versions, and the refusals of what the device does
//! not serve. It owns no behaviour: the functions are those of `ibex_soft::abi`.
//!
//! - `table.rs`: the symbols and their versions, one list that both this crate and the link step read.
//! - `export.rs`: turns each line of the table into a global symbol.
//! - `stubs.rs`: refusals, by return convention, and the hooks of provider libraries (libmlx5, libefa).
//!
//! # How the libraries are made
//! rustc gives a `cdylib` its own anonymous version script, which GNU ld refuses to combine with another. So this
//! crate is built as a static library, and `cargo xtask dropin` links it with `cc -shared`, a version script written
//! from the table, the right SONAME and `-z nodelete` (the device's thread must survive `dlclose`). Any linker will
//! do. librdmacm.so.1 is a library of its own, as ldconfig keys libraries by SONAME, and holds nothing but jumps to
//! the `IBEX_PRIVATE_1` symbols of libibverbs.so.1: both share one device and one state.
//!
//! Read first: ld.so(8), rdma-core's `Documentation/versioning.md` for what the version names promise.

#[macro_use]
mod table;
mod export;
mod stubs;

#[cfg(test)]
mod tests;
