#![allow(unsafe_code)]
//! Global symbols for every row of the table.
//!
//! A symbol is a jump to the function that answers, and no alias of it: `.set` cannot name a function that the
//! linker finds in another object, and without fat LTO that is where `ibex_soft::abi` is. Versions are no matter of
//! this file (the version script gives them), with one exception: the provider interface has the same names under
//! several versions, so each of those gets a name of its own and `.symver` ties it to its version.
//!
//! Not `#[unsafe(no_mangle)]` on the functions themselves, because `ibex` links the same functions into Rust programs,
//! where a global `ibv_open_device` would take the place of the system library's.
//!
//! # Safety
//! The assembly defines symbols and single jumps; it touches no register, so a jump's target sees the C caller's
//! arguments. That a row names the function whose C prototype the caller has is the table's promise.

use std::arch::global_asm;

use crate::stubs;

/// The instruction that continues in another function, with the arguments as they are.
#[cfg(target_arch = "x86_64")]
macro_rules! jump {
    () => {
        "jmp"
    };
}
#[cfg(target_arch = "aarch64")]
macro_rules! jump {
    () => {
        "b"
    };
}

/// A global function `$name` that continues in `$target`.
macro_rules! export {
    ($name:expr, $target:path) => {
        global_asm!(
            concat!(".pushsection .text.", $name, ",\"ax\",@progbits"),
            concat!(".globl ", $name),
            concat!(".type ", $name, ",@function"),
            concat!($name, ":"),
            concat!(jump!(), " {target}"),
            concat!(".size ", $name, ", . - ", $name),
            ".popsection",
            target = sym $target,
        );
    };
}

/// One row of the table, under `$name`.
macro_rules! row {
    (soft $name:expr, $function:ident) => {
        export!($name, ibex_soft::abi::$function);
    };
    (cm $name:expr, $function:ident) => {
        export!($name, ibex_soft::abi::cm::$function);
    };
    ($kind:ident $name:expr, $function:ident) => {
        export!($name, stubs::$kind);
    };
}

macro_rules! export_verbs {
    ($($version:literal { $($kind:ident $name:ident;)* })*) => {
        $($(row!($kind stringify!($name), $name);)*)*
    };
}
verbs_symbols!(export_verbs);

macro_rules! export_cm {
    ($($version:literal { $($kind:ident $name:ident;)* })*) => {
        $($(row!($kind concat!("ibex_", stringify!($name)), $name);)*)*
    };
}
cm_symbols!(export_cm);

/// One provider symbol under one number: `ibex_private_<number>_<name>`, exported as `<name>@IBVERBS_PRIVATE_<number>`.
macro_rules! export_private_row {
    ($number:literal $kind:ident $name:expr, $function:ident) => {
        row!($kind concat!("ibex_private_", $number, "_", $name), $function);
        global_asm!(concat!(
            ".symver ibex_private_", $number, "_", $name, ", ", $name, "@IBVERBS_PRIVATE_", $number
        ));
    };
}

macro_rules! export_private {
    ($number:literal => $($kind:ident $name:ident;)*) => {
        $(export_private_row!($number $kind stringify!($name), $name);)*
    };
}

macro_rules! export_private_versions {
    ($($number:literal)*) => {
        $(
            private_symbols!(export_private $number);
            // Called by every provider library as it is loaded: the device has no use for the registration.
            export_private_row!($number void concat!("verbs_register_driver_", $number), none);
            // The one symbol of data: "a destroy may fail once the device is gone". Nothing here outlives its device.
            global_asm!(
                concat!(".pushsection .rodata.ibex_private_", $number, ",\"a\",@progbits"),
                concat!(".globl ibex_private_", $number, "_verbs_allow_disassociate_destroy"),
                concat!(".type ibex_private_", $number, "_verbs_allow_disassociate_destroy,@object"),
                concat!(".size ibex_private_", $number, "_verbs_allow_disassociate_destroy,1"),
                concat!("ibex_private_", $number, "_verbs_allow_disassociate_destroy: .byte 0"),
                ".popsection",
                concat!(
                    ".symver ibex_private_", $number, "_verbs_allow_disassociate_destroy, ",
                    "verbs_allow_disassociate_destroy@IBVERBS_PRIVATE_", $number
                ),
            );
        )*
    };
}
private_versions!(export_private_versions);
