//! Macros that declare C structures, unions and enumerations, with their layout tables.
//!
//! Owns: `c_data!` (plain data: `Copy`, `Debug`, all-zero `Default`), `c_object!` (objects with an identity: no
//! `Copy`), `c_union!`, `c_opaque!`, `c_enum!` and `c_flags!` (newtypes for C enumerations). Each of them also records,
//! for tests only, what [`crate::layout`] compares with the golden files. Does not own any type.
//!
//! # Safety
//!
//! `c_data!`, `c_object!` and `c_union!` implement the unsafe trait [`Plain`](crate::Plain); each expansion first
//! requires every member's type to be `Plain`, which is all that the trait asks for.

/// Declares `repr(C)` plain data: copyable, and all zeros by default.
macro_rules! c_data {
    ($( $(#[$meta:meta])* pub struct $name:ident {
        $( $(#[$fmeta:meta])* pub $field:ident : $ty:ty ),* $(,)?
    } )*) => { $(
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug)]
        pub struct $name { $( $(#[$fmeta])* pub $field: $ty ),* }
        $crate::macros::plain!($name { $($field: $ty),* });
    )* };
}

/// Declares a `repr(C)` object: something whose address is its identity, so that it is not copyable.
macro_rules! c_object {
    ($( $(#[$meta:meta])* pub struct $name:ident {
        $( $(#[$fmeta:meta])* pub $field:ident : $ty:ty ),* $(,)?
    } )*) => { $(
        $(#[$meta])*
        #[repr(C)]
        pub struct $name { $( $(#[$fmeta])* pub $field: $ty ),* }
        $crate::macros::plain!($name { $($field: $ty),* });
        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )* };
}

/// Declares a `repr(C)` union; `Debug` prints its name only, since the member in force is not known.
macro_rules! c_union {
    ($( $(#[$meta:meta])* pub union $name:ident {
        $( $(#[$fmeta:meta])* pub $field:ident : $ty:ty ),* $(,)?
    } )*) => { $(
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy)]
        pub union $name { $( $(#[$fmeta])* pub $field: $ty ),* }
        $crate::macros::plain!($name { $($field: $ty),* });
        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )* };
}

/// Declares a structure that C only ever names behind a pointer.
macro_rules! c_opaque {
    ($( $(#[$meta:meta])* pub struct $name:ident; )*) => { $(
        $(#[$meta])*
        #[repr(C)]
        #[derive(Debug)]
        pub struct $name {
            _private: [u8; 0],
            // Neither Send, Sync nor Unpin may be assumed of something only C knows.
            _marker: core::marker::PhantomData<(*mut u8, core::marker::PhantomPinned)>,
        }
    )* };
}

/// `Plain`, `Default` and the layout table of one structure or union.
macro_rules! plain {
    ($name:ident { $($field:ident: $ty:ty),* }) => {
        const _: () = {
            const fn member<T: $crate::Plain>() {}
            $( member::<$ty>(); )*
        };
        // SAFETY: every member is `Plain`, as just checked, so all-zero bytes are a valid value of the whole.
        #[allow(unsafe_code)]
        unsafe impl $crate::Plain for $name {}
        impl Default for $name {
            fn default() -> Self {
                $crate::zeroed()
            }
        }
        #[cfg(test)]
        impl $crate::layout::Layout for $name {
            const LAYOUT: $crate::layout::Type = $crate::layout::Type {
                name: stringify!($name),
                size: core::mem::size_of::<$name>(),
                align: core::mem::align_of::<$name>(),
                fields: || {
                    #[allow(unused_imports)]
                    use $crate::layout::NoLayout as _;
                    vec![ $( $crate::layout::Field {
                        name: stringify!($field),
                        offset: core::mem::offset_of!($name, $field),
                        size: $crate::layout::size_of_field(|it: &$name| &raw const it.$field),
                        type_name: core::any::type_name::<$ty>(),
                        nested: $crate::layout::Probe::<$ty>::NESTED,
                    } ),* ]
                },
            };
        }
    };
}

/// Declares a C enumeration as a newtype with constants, so that a value unknown to this crate is printed and is not
/// undefined behaviour. The literal is the prefix that `Display` drops.
macro_rules! c_enum {
    ($( $(#[$meta:meta])* pub enum $name:ident : $repr:ident, $prefix:literal {
        $( $(#[$vmeta:meta])* $variant:ident = $value:expr ),* $(,)?
    } )*) => { $(
        $crate::macros::newtype!($(#[$meta])* $name: $repr, $prefix { $( $(#[$vmeta])* $variant = $value ),* });

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, concat!(stringify!($name), "({})"), self.0),
                }
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name.strip_prefix($prefix).unwrap_or(name)),
                    None => write!(f, "{}", self.0),
                }
            }
        }
    )* };
}

/// Declares a C enumeration of flags: as `c_enum!`, with set operations.
macro_rules! c_flags {
    ($( $(#[$meta:meta])* pub flags $name:ident : $repr:ident, $prefix:literal {
        $( $(#[$vmeta:meta])* $variant:ident = $value:expr ),* $(,)?
    } )*) => { $(
        $crate::macros::newtype!($(#[$meta])* $name: $repr, $prefix { $( $(#[$vmeta])* $variant = $value ),* });

        impl $name {
            /// True if every bit of `other` is set.
            #[inline]
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// True if no bit is set.
            #[inline]
            pub const fn is_empty(self) -> bool {
                self.0 == 0
            }

            /// Both sets of bits; usable in constants.
            #[inline]
            pub const fn union(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }

        impl core::ops::BitOr for $name {
            type Output = Self;
            #[inline]
            fn bitor(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }

        impl core::ops::BitOrAssign for $name {
            #[inline]
            fn bitor_assign(&mut self, other: Self) {
                self.0 |= other.0;
            }
        }

        impl core::ops::BitAnd for $name {
            type Output = Self;
            #[inline]
            fn bitand(self, other: Self) -> Self {
                Self(self.0 & other.0)
            }
        }

        impl core::ops::BitAndAssign for $name {
            #[inline]
            fn bitand_assign(&mut self, other: Self) {
                self.0 &= other.0;
            }
        }

        impl core::ops::Not for $name {
            type Output = Self;
            #[inline]
            fn not(self) -> Self {
                Self(!self.0)
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                $crate::names::flags(f, u64::from(self.0), Self::NAMES.iter().map(|&(v, n)| (u64::from(v), n)), "")
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                $crate::names::flags(f, u64::from(self.0), Self::NAMES.iter().map(|&(v, n)| (u64::from(v), n)), $prefix)
            }
        }
    )* };
}

/// What `c_enum!` and `c_flags!` share: the type, its constants and their names.
macro_rules! newtype {
    ($(#[$meta:meta])* $name:ident : $repr:ident, $prefix:literal {
        $( $(#[$vmeta:meta])* $variant:ident = $value:expr ),*
    }) => {
        $(#[$meta])*
        #[repr(transparent)]
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
        pub struct $name(pub $repr);

        $( $(#[$vmeta])* pub const $variant: $name = $name($value); )*

        impl $name {
            /// The named values, in the order of the C header.
            pub const NAMES: &'static [($repr, &'static str)] = &[ $( ($variant.0, stringify!($variant)) ),* ];

            /// The C name of this value; the first one where several names share it.
            pub fn name(self) -> Option<&'static str> {
                Self::NAMES.iter().find(|(value, _)| *value == self.0).map(|(_, name)| *name)
            }
        }

        // SAFETY: a transparent integer; every bit pattern is a value.
        #[allow(unsafe_code)]
        unsafe impl $crate::Plain for $name {}
    };
}

pub(crate) use {c_data, c_enum, c_flags, c_object, c_opaque, c_union, newtype, plain};
