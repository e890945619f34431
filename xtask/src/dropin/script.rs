//! What the linker reads: version scripts, roots and trampolines, all from the table of `ibex-dropin`.

use std::fmt::Write as _;

use anyhow::{Result, bail};

use super::elf::Symbol;

#[macro_use]
#[path = "../../../crates/ibex-dropin/src/table.rs"]
mod table;

/// The version under which libibverbs.so.1 answers for librdmacm.so.1. Its number changes with the meaning of any of
/// its symbols, so that files of two builds refuse each other instead of crashing.
const BRIDGE: &str = "IBEX_PRIVATE_1";

/// A version and the names that it holds.
type Version = (&'static str, &'static [&'static str]);

macro_rules! rows {
    ($($version:literal { $($kind:ident $name:ident;)* })*) => {
        &[$(($version, &[$(stringify!($name)),*])),*]
    };
}

macro_rules! names {
    (=> $($kind:ident $name:ident;)*) => {
        &[$(stringify!($name)),*]
    };
}

macro_rules! numbers {
    ($($number:literal)*) => {
        &[$($number),*]
    };
}

const VERBS: &[Version] = verbs_symbols!(rows);
const CM: &[Version] = cm_symbols!(rows);
const PRIVATE: &[&str] = private_symbols!(names);
const PRIVATE_NUMBERS: &[u32] = private_versions!(numbers);

/// The one symbol of data among the provider interface.
const PRIVATE_DATA: &str = "verbs_allow_disassociate_destroy";

/// Versions that inherit from each other; the first one hides every symbol that no version names.
fn chain(versions: &[Version]) -> String {
    let mut text = String::new();
    let mut parent = String::new();
    for (version, names) in versions {
        let _ = writeln!(text, "{version} {{\n  global:");
        for name in *names {
            let _ = writeln!(text, "    {name};");
        }
        if parent.is_empty() {
            text.push_str("  local: *;\n");
        }
        let _ = writeln!(text, "}}{parent};");
        parent = format!(" {version}");
    }
    text
}

fn bridge_names() -> impl Iterator<Item = String> {
    CM.iter().flat_map(|(_, names)| names.iter()).map(|name| format!("ibex_{name}"))
}

/// The version script of libibverbs.so.1.
pub(super) fn verbs_map() -> String {
    let mut text = chain(VERBS);
    for number in PRIVATE_NUMBERS {
        // Empty: `.symver` puts the symbols there.
        let _ = writeln!(text, "IBVERBS_PRIVATE_{number} {{ }};");
    }
    let _ = writeln!(text, "{BRIDGE} {{\n  global:");
    for name in bridge_names() {
        let _ = writeln!(text, "    {name};");
    }
    text.push_str("};\n");
    text
}

/// A response file that makes the linker take every exported symbol out of the archive.
pub(super) fn verbs_roots() -> String {
    let public = VERBS.iter().flat_map(|(_, names)| names.iter()).map(ToString::to_string);
    public.chain(bridge_names()).map(|name| format!("-Wl,-u,{name}\n")).collect()
}

/// The version script of librdmacm.so.1.
pub(super) fn cm_map() -> String {
    chain(CM)
}

/// Assembly of librdmacm.so.1: each function continues in its bridge, with the arguments as they are.
pub(super) fn cm_trampolines() -> Result<String> {
    let mut text = String::from(".text\n");
    for (_, names) in CM {
        for name in *names {
            let jump = if cfg!(target_arch = "x86_64") {
                format!("jmp *ibex_{name}@GOTPCREL(%rip)")
            } else if cfg!(target_arch = "aarch64") {
                // x16 is the register that the procedure call standard leaves to code between caller and callee.
                format!("adrp x16, :got:ibex_{name}\n ldr x16, [x16, :got_lo12:ibex_{name}]\n br x16")
            } else {
                bail!("no trampolines are written for this architecture: x86_64 and aarch64 only");
            };
            let _ = writeln!(
                text,
                ".globl {name}\n.type {name},@function\n{name}:\n {jump}\n.size {name}, . - {name}"
            );
        }
    }
    text.push_str(".section .note.GNU-stack,\"\",@progbits\n");
    Ok(text)
}

/// All that the two libraries must export.
pub(super) fn expected() -> Vec<Symbol> {
    let public = VERBS.iter().chain(CM);
    let public = public.flat_map(|(version, names)| names.iter().map(move |name| Symbol::new(name, version)));
    let private = PRIVATE_NUMBERS.iter().flat_map(|number| {
        let version = format!("IBVERBS_PRIVATE_{number}");
        let registration = format!("verbs_register_driver_{number}");
        let names = PRIVATE.iter().copied().chain([PRIVATE_DATA, &registration]);
        names.map(|name| Symbol::new(name, &version)).collect::<Vec<_>>()
    });
    let bridge = bridge_names().map(|name| Symbol::new(&name, BRIDGE));
    public.chain(private).chain(bridge).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_inherit_in_order_and_hide_the_rest_once() {
        let map = verbs_map();
        assert_eq!(map.matches("local: *;").count(), 1);
        assert!(map.contains("} IBVERBS_1.1;\nIBVERBS_1.6 {"), "{map}");
        assert!(map.contains("IBVERBS_PRIVATE_34 { };"), "{map}");
    }

    #[test]
    fn every_bridge_has_a_trampoline() {
        let text = cm_trampolines().expect("a known architecture");
        assert!(text.contains("rdma_create_id:"), "{text}");
        assert!(bridge_names().all(|name| text.contains(&name)));
    }

    #[test]
    fn expected_exports_are_unique() {
        let all = expected();
        let unique: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(unique.len(), all.len());
        assert!(all.contains(&Symbol::new("verbs_register_driver_34", "IBVERBS_PRIVATE_34")));
    }
}
