//! The verbs themselves, for those who want the metal.
//!
//! Owns [`raw`], the unsafe verbs with their contracts, and [`transition`], the table of state transitions. Objects of the
//! safe layer give their C pointers by `as_raw`; types are [`sys`](crate::sys)'s.

pub mod raw;

pub use crate::qp::transition;
