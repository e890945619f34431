//! The Rust declarations against the golden files: every structure, member, enumeration, constant and prototype.
//!
//! A difference between this crate (the newest layouts) and an older golden file is allowed only where it is listed here,
//! with its reason.

use std::collections::{BTreeMap, BTreeSet};

use super::golden::{Aggregate, Golden};
use super::known::{CONSTANTS, TYPES, enumerations, other_constants};
use super::render::render;
use super::{Layout, Type};
use crate::{_compat_ibv_port_attr, Cm, Verbs, ibv_device, ibv_port_attr, list_node, verbs_device};

/// Structures that grew after rdma-core 44, the number of bytes, and how old and new programs get along.
const GROWN_SINCE_44: &[(&str, usize, &str)] = &[
    ("ibv_port_attr", 4, "active_speed_ex appended; the inline ibv_query_port passes its size"),
    ("ibv_qp_ex", 8, "wr_flush appended; only read if asked for at creation"),
    ("verbs_context", 48, "six operations in front; `sz` tells, offsets count from the end"),
];

/// Members that are new inside a structure whose size did not change.
const ADDED_SINCE_44: &[(&str, &str, &str)] =
    &[("rdma_cm_event", "param.arg", "a smaller member of the union, for events of the program's own")];

/// A member as Rust has it.
struct Found {
    path: String,
    offset: usize,
    size: usize,
    type_name: String,
}

/// Lists the members of `rust` by the paths of C: members of a type without a name in C are listed under the member's
/// path if C names the member, and in its place if C does not.
fn expand(rust: &Type, c: &Aggregate, golden: &Golden, prefix: &str, base: usize, into: &mut Vec<Found>) {
    for field in (rust.fields)() {
        let path = format!("{prefix}{}", field.name.trim_start_matches("r#"));
        let offset = base + field.offset;
        // A type that C does not name; types that only newer headers have are named there.
        let unnamed = field.nested.filter(|nested| {
            !golden.aggregates.contains_key(nested.name)
                && !TYPES.iter().any(|known| known.name == nested.name)
        });
        let in_c = c.members.contains_key(path.as_str());
        if in_c || unnamed.is_none() {
            let type_name = if unnamed.is_some() { "unnamed".to_owned() } else { render(field.type_name) };
            into.push(Found { path: path.clone(), offset, size: field.size, type_name });
        }
        if let Some(nested) = unnamed {
            let prefix = if in_c { format!("{path}.") } else { prefix.to_owned() };
            expand(nested, c, golden, &prefix, offset, into);
        }
    }
}

/// Compares all structures with a golden file; `older` if the file is not of the release that this crate declares.
fn compare_structures(golden: &Golden, older: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    let rust: BTreeMap<&str, &Type> = TYPES.iter().map(|known| (known.name, *known)).collect();
    for (name, c) in &golden.aggregates {
        let Some(rust) = rust.get(name) else {
            wrong.push(format!("{name} is not declared"));
            continue;
        };
        let grown =
            GROWN_SINCE_44.iter().find(|(grown, ..)| older && grown == name).map_or(0, |grown| grown.1);
        if rust.size != c.size + grown || rust.align != c.align {
            wrong.push(format!("{name}: {} {}, in C {} {}", rust.size, rust.align, c.size, c.align));
        }
        // `verbs_context` grows in front; everything else at its end.
        let shift = if *name == "verbs_context" { grown } else { 0 };
        let mut found = Vec::new();
        expand(rust, c, golden, "", 0, &mut found);
        let mut seen = BTreeSet::new();
        for it in &found {
            seen.insert(it.path.as_str());
            match c.members.get(it.path.as_str()) {
                Some(member) => {
                    let of_c = (member.offset + shift, member.size, member.type_name);
                    if (it.offset, it.size, it.type_name.as_str()) != of_c {
                        let of_rust = (it.offset, it.size, &it.type_name);
                        wrong.push(format!("{name}.{}: {of_rust:?}, in C {of_c:?}", it.path));
                    }
                }
                None => {
                    let appended = grown > 0 && (it.offset < shift || it.offset >= c.size + shift);
                    let added = ADDED_SINCE_44.iter().any(|(of, path, _)| of == name && *path == it.path);
                    if !(appended || older && added) {
                        wrong.push(format!("{name}.{} is not in C", it.path));
                    }
                }
            }
        }
        for path in c.members.keys().filter(|path| !seen.contains(**path)) {
            wrong.push(format!("{name}.{path} is missing"));
        }
    }
    wrong
}

fn compare_constants(golden: &Golden) -> Vec<String> {
    let mut wrong = Vec::new();
    let enumerations = enumerations();
    let mut rust: BTreeMap<&str, (i64, Option<&str>)> = BTreeMap::new();
    for (name, value) in CONSTANTS.iter().copied().chain(other_constants()) {
        rust.insert(name, (value, None));
    }
    for enumeration in &enumerations {
        for (name, value) in &enumeration.values {
            rust.insert(name, (*value, Some(enumeration.name)));
        }
    }
    for (name, c) in &golden.constants {
        match rust.get(name) {
            // A macro in C may be an enumerator here, but not the other way round.
            Some(it) if it.0 == c.0 && (c.1.is_none() || it.1 == c.1) => {}
            it => wrong.push(format!("{name}: {it:?}, in C {c:?}")),
        }
    }
    for (name, repr) in &golden.enumerations {
        match enumerations.iter().find(|enumeration| enumeration.name == *name) {
            Some(enumeration) if enumeration.repr == *repr => {}
            Some(enumeration) => wrong.push(format!("{name}: {}, in C {repr}", enumeration.repr)),
            None => wrong.push(format!("{name} is not declared")),
        }
    }
    wrong
}

fn compare_functions(golden: &Golden) -> Vec<String> {
    let mut wrong = Vec::new();
    let rust: BTreeMap<&str, (String, bool)> = Verbs::SYMBOLS
        .iter()
        .chain(Cm::SYMBOLS)
        .map(|(symbol, type_name, required)| (symbol.to_str().unwrap(), (render(type_name()), *required)))
        .collect();
    for (name, c) in &golden.functions {
        let Some((type_name, required)) = rust.get(name) else {
            wrong.push(format!("{name} is in no table"));
            continue;
        };
        if type_name != c.type_name {
            wrong.push(format!("{name}: {type_name}, in C {}", c.type_name));
        }
        if *required != ["IBVERBS_1.0", "IBVERBS_1.1", "RDMACM_1.0"].contains(&c.version) {
            wrong.push(format!("{name} of {}: required is {required}", c.version));
        }
    }
    wrong
}

#[test]
fn structures_are_those_of_the_newest_headers() {
    assert_eq!(compare_structures(&Golden::rdma_core_65(), false), [""; 0]);
}

#[test]
fn structures_agree_with_debian_12_but_for_what_has_grown_since() {
    assert_eq!(compare_structures(&Golden::rdma_core_44(), true), [""; 0]);
}

#[test]
fn constants_and_enumerations_are_those_of_the_headers() {
    assert_eq!(compare_constants(&Golden::rdma_core_65()), [""; 0]);
    assert_eq!(compare_constants(&Golden::rdma_core_44()), [""; 0]);
}

#[test]
fn tables_have_the_prototypes_of_the_headers() {
    assert_eq!(compare_functions(&Golden::rdma_core_65()), [""; 0]);
    assert_eq!(compare_functions(&Golden::rdma_core_44()), [""; 0]);
}

#[test]
fn nothing_is_declared_that_the_newest_headers_do_not_have() {
    let golden = Golden::rdma_core_65();
    for known in TYPES {
        assert!(golden.aggregates.contains_key(known.name), "{}", known.name);
    }
    for enumeration in enumerations() {
        // In C these flags are a macro for an enumeration of the kernel's.
        assert!(golden.enumerations.contains_key(enumeration.name), "{}", enumeration.name);
        for (name, _) in enumeration.values {
            assert!(golden.constants.contains_key(name), "{name}");
        }
    }
    for (name, _) in CONSTANTS {
        assert!(golden.constants.contains_key(name), "{name}");
    }
    for (symbol, ..) in Verbs::SYMBOLS.iter().chain(Cm::SYMBOLS) {
        assert!(golden.functions.contains_key(symbol.to_str().unwrap()), "{symbol:?}");
    }
}

/// The members of a type as (name, offset, size).
fn members<T: Layout>() -> Vec<(&'static str, usize, usize)> {
    (T::LAYOUT.fields)().iter().map(|field| (field.name, field.offset, field.size)).collect()
}

#[test]
fn the_older_port_attributes_are_a_prefix_of_the_newer_ones() {
    let (old, new) = (members::<_compat_ibv_port_attr>(), members::<ibv_port_attr>());
    assert_eq!(old[..], new[..old.len()]);
    assert_eq!(old.last().map(|last| last.0), Some("flags"));
    assert_eq!(new[old.len()].0, "port_cap_flags2");
    // What a program built before `port_cap_flags2` has allocated; a byte more would overwrite something of its own.
    assert_eq!(size_of::<_compat_ibv_port_attr>(), 48);
}

#[test]
fn vendor_libraries_find_their_members_behind_a_device() {
    assert_eq!(size_of::<ibv_device>(), 664);
    assert_eq!(
        members::<verbs_device>(),
        [
            ("device", 0, 664),
            ("ops", 664, 8),
            ("refcount", 672, 4),
            ("entry", 680, 16),
            ("sysfs", 696, 8),
            ("core_support", 704, 8),
        ]
    );
    assert_eq!(members::<list_node>(), [("next", 0, 8), ("prev", 8, 8)]);
}
