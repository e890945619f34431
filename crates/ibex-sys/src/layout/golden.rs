//! Reading the golden files that `cargo xtask abi` writes from the C headers.

use std::collections::BTreeMap;

/// A structure or union of C.
pub(super) struct Aggregate {
    pub(super) size: usize,
    pub(super) align: usize,
    /// Members by the path that a C program writes.
    pub(super) members: BTreeMap<&'static str, Member>,
}

pub(super) struct Member {
    pub(super) offset: usize,
    pub(super) size: usize,
    pub(super) type_name: &'static str,
}

pub(super) struct Function {
    pub(super) version: &'static str,
    pub(super) type_name: &'static str,
}

/// One file.
pub(super) struct Golden {
    pub(super) aggregates: BTreeMap<&'static str, Aggregate>,
    /// Integer types by name.
    pub(super) enumerations: BTreeMap<&'static str, &'static str>,
    /// Values and, for enumerators, their enumeration.
    pub(super) constants: BTreeMap<&'static str, (i64, Option<&'static str>)>,
    pub(super) functions: BTreeMap<&'static str, Function>,
}

impl Golden {
    /// Debian 12's, which is what is installed on most machines today.
    pub(super) fn rdma_core_44() -> Self {
        Self::parse(include_str!("../../tests/golden/abi-rdma-core-44.txt"))
    }

    /// The newest one, whose layouts this crate declares.
    pub(super) fn rdma_core_65() -> Self {
        Self::parse(include_str!("../../tests/golden/abi-rdma-core-65.txt"))
    }

    fn parse(text: &'static str) -> Self {
        let mut golden = Self {
            aggregates: BTreeMap::new(),
            enumerations: BTreeMap::new(),
            constants: BTreeMap::new(),
            functions: BTreeMap::new(),
        };
        let mut current = "";
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let mut words = line.trim_start().splitn(4, ' ');
            let mut word = || words.next().unwrap_or_else(|| panic!("a word is missing in `{line}`"));
            if line.starts_with("  ") {
                let (path, offset, size) = (word(), number(word()), number(word()));
                let member = Member { offset, size, type_name: word() };
                golden.aggregates.get_mut(current).unwrap().members.insert(path, member);
                continue;
            }
            match (word(), word()) {
                ("struct" | "union", name) => {
                    current = name;
                    let (size, align) = (number(word()), number(word()));
                    golden.aggregates.insert(name, Aggregate { size, align, members: BTreeMap::new() });
                }
                ("enum", name) => {
                    golden.enumerations.insert(name, word());
                }
                ("const", name) => {
                    let value = word().parse().unwrap();
                    golden.constants.insert(name, (value, Some(word()).filter(|name| *name != "-")));
                }
                ("fn", name) => {
                    let function = Function { version: word(), type_name: word() };
                    golden.functions.insert(name, function);
                }
                _ => panic!("`{line}` is not understood"),
            }
        }
        assert!(golden.aggregates.len() > 100, "{} structures", golden.aggregates.len());
        assert!(golden.constants.len() > 400, "{} constants", golden.constants.len());
        assert!(golden.functions.len() > 100, "{} functions", golden.functions.len());
        golden
    }
}

fn number(word: &str) -> usize {
    word.parse().unwrap_or_else(|_| panic!("`{word}` is not a number"))
}
