//! Layout tables of the C types, and their comparison with the golden files (tests only).
//!
//! Owns the description of a Rust type (size, alignment, members) that the macros fill in. The golden files come from
//! the C headers by way of `cargo xtask abi`; nothing in them is derived from this crate.

#![cfg_attr(
    not(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu")),
    allow(dead_code, reason = "compared only where the golden files were made")
)]

// The golden files are of x86-64 with glibc; other machines have other sizes of pointers, mutexes and conditions.
#[cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]
mod golden;
#[cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]
mod known;
#[cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]
mod render;
#[cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]
mod tests;

/// One member of a structure or union.
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) offset: usize,
    pub(crate) size: usize,
    pub(crate) type_name: &'static str,
    /// The layout of the member's own type, if it is one of this crate's.
    pub(crate) nested: Option<&'static Type>,
}

/// One structure or union.
pub(crate) struct Type {
    pub(crate) name: &'static str,
    pub(crate) size: usize,
    pub(crate) align: usize,
    pub(crate) fields: fn() -> Vec<Field>,
}

/// Types declared by this crate's macros.
pub(crate) trait Layout {
    const LAYOUT: Type;
}

/// Picks the layout of `T` if it has one: the inherent constant wins over the trait's where its bound holds.
pub(crate) struct Probe<T>(core::marker::PhantomData<T>);

impl<T: Layout> Probe<T> {
    pub(crate) const NESTED: Option<&'static Type> = Some(&T::LAYOUT);
}

/// The fallback of [`Probe`].
pub(crate) trait NoLayout {
    const NESTED: Option<&'static Type> = None;
}

impl<T> NoLayout for Probe<T> {}

/// The size of the member that `get` selects.
pub(crate) fn size_of_field<S, F>(_get: fn(&S) -> *const F) -> usize {
    size_of::<F>()
}
