//! Tables of the functions that the two libraries export, and how they are filled.
//!
//! Owns the macro behind [`Verbs`] and [`Cm`]; the tables themselves are in `verbs.rs` and
//! `cm.rs`, opening a library is in [`crate::loader`]. A table may equally be a `static` written by hand, which is what a
//! device inside the process does.
//!
//! # Safety
//!
//! A pointer is turned into a function of the declared type only by `resolve`, whose caller vouches for the lookup. The
//! declared types are compared with the C prototypes by the golden test.
#![allow(unsafe_code)]

mod cm;
mod verbs;

pub use cm::Cm;
pub use verbs::Verbs;

/// Declares a table: `required` functions become plain pointers, `optional` ones are `None` where the library is older,
/// `extension` ones belong to ibex and are `None` in every table that comes from a library.
macro_rules! function_table {
    ($(#[$meta:meta])* pub struct $Table:ident {
        required { $( $(#[$rmeta:meta])* $required:ident = $rsym:literal: fn($($rarg:ty),* $(,)?) $(-> $rret:ty)?; )* }
        optional { $( $(#[$ometa:meta])* $optional:ident = $osym:literal: fn($($oarg:ty),* $(,)?) $(-> $oret:ty)?; )* }
        extension { $( $(#[$xmeta:meta])* $extension:ident: fn($($xarg:ty),* $(,)?) $(-> $xret:ty)?; )* }
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy)]
        pub struct $Table {
            $( $(#[$rmeta])* pub $required: unsafe extern "C" fn($($rarg),*) $(-> $rret)?, )*
            $( $(#[$ometa])* pub $optional: Option<unsafe extern "C" fn($($oarg),*) $(-> $oret)?>, )*
            $( $(#[$xmeta])* pub $extension: Option<unsafe extern "C" fn($($xarg),*) $(-> $xret)?>, )*
        }

        impl $Table {
            /// Fills a table from `lookup`; the error is the first required symbol that it does not know.
            ///
            /// # Safety
            ///
            /// Whatever `lookup` returns for a symbol must be null or the address of the C function of that name, as the
            /// headers of rdma-core declare it, callable for the rest of the process's life.
            pub(crate) unsafe fn resolve(
                mut lookup: impl FnMut(&'static core::ffi::CStr) -> *mut core::ffi::c_void,
            ) -> Result<Self, &'static core::ffi::CStr> {
                Ok(Self {
                    $( $required: {
                        let address = lookup($rsym);
                        if address.is_null() {
                            return Err($rsym);
                        }
                        // SAFETY: the caller promises that this is the function of that name.
                        unsafe {
                            core::mem::transmute::<
                                *mut core::ffi::c_void,
                                unsafe extern "C" fn($($rarg),*) $(-> $rret)?,
                            >(address)
                        }
                    }, )*
                    // SAFETY: null becomes `None`; for the rest the caller promises as above.
                    $( $optional: unsafe {
                        core::mem::transmute::<
                            *mut core::ffi::c_void,
                            Option<unsafe extern "C" fn($($oarg),*) $(-> $oret)?>,
                        >(lookup($osym))
                    }, )*
                    $( $extension: None, )*
                })
            }

            /// Symbol, type and whether it is required, of every function that comes from the library.
            #[cfg(all(test, target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]
            pub(crate) const SYMBOLS: &'static [(&'static core::ffi::CStr, fn() -> &'static str, bool)] = &[
                $( ($rsym, core::any::type_name::<unsafe extern "C" fn($($rarg),*) $(-> $rret)?>, true), )*
                $( ($osym, core::any::type_name::<unsafe extern "C" fn($($oarg),*) $(-> $oret)?>, false), )*
            ];
        }

        impl core::fmt::Debug for $Table {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.debug_struct(stringify!($Table)).finish_non_exhaustive()
            }
        }
    };
}

pub(crate) use function_table;
