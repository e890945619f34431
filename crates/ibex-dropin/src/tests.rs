//! The table against itself, and the refusals against their conventions.

use std::collections::{BTreeMap, BTreeSet};

macro_rules! rows {
    ($($version:literal { $($kind:ident $name:ident;)* })*) => {
        [$(($version, vec![$((stringify!($kind), stringify!($name))),*])),*]
    };
}

macro_rules! private_rows {
    (=> $($kind:ident $name:ident;)*) => {
        vec![$((stringify!($kind), stringify!($name))),*]
    };
}

fn number(version: &str) -> (u32, u32) {
    let (_, number) = version.split_once('_').expect("a name, an underscore and a number");
    let (major, minor) = number.split_once('.').expect("major.minor");
    (major.parse().expect("major"), minor.parse().expect("minor"))
}

#[test]
fn each_name_has_one_version_and_versions_rise() {
    for (library, rows) in
        [("IBVERBS_", verbs_symbols!(rows).to_vec()), ("RDMACM_", cm_symbols!(rows).to_vec())]
    {
        let mut seen = BTreeMap::new();
        let mut last = (0, 0);
        for (version, names) in rows {
            assert!(version.starts_with(library), "{version}");
            assert!(number(version) > last, "{version} comes after a later one");
            last = number(version);
            assert!(!names.is_empty(), "{version}");
            for (_, name) in names {
                assert_eq!(seen.insert(name, version), None, "{name} twice");
            }
        }
    }
}

#[test]
fn provider_names_are_unique_and_apart_from_the_public_ones() {
    let private = private_symbols!(private_rows);
    let names: BTreeSet<&str> = private.iter().map(|&(_, name)| name).collect();
    assert_eq!(names.len(), private.len());
    for (_, public) in verbs_symbols!(rows) {
        assert!(public.iter().all(|(_, name)| !names.contains(name)));
    }
}

#[test]
fn refusals_follow_their_convention() {
    fn errno() -> Option<i32> {
        std::io::Error::last_os_error().raw_os_error()
    }
    assert_eq!(crate::stubs::code(), i64::from(libc::EOPNOTSUPP));
    assert_eq!(crate::stubs::minus(), -1);
    assert_eq!(errno(), Some(libc::EOPNOTSUPP));
    assert!(crate::stubs::null().is_null());
    assert_eq!(errno(), Some(libc::EOPNOTSUPP));
    assert_eq!(crate::stubs::zero(), 0);
    crate::stubs::void();
}
