//! The C program that is asked, and what its answers are turned into.
//!
//! Owns the source of the probe and the choice of what belongs to rdma-core's interface, by name: everything that its
//! public headers declare under their own prefixes. The kernel's `ib_uverbs_*` names count only where a macro gives them a
//! public name.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::dwarf::{Entry, Tree};
use super::symbols::{Symbol, output};
use crate::util::cmd;

const HEADERS: &str = "\
#include <stdio.h>
#include <infiniband/verbs.h>
#include <infiniband/sa.h>
#include <rdma/rdma_cma.h>
#include <rdma/rdma_verbs.h>
";

/// A structure or union.
pub(super) struct Aggregate {
    pub(super) kind: &'static str,
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) align: u64,
    pub(super) members: Vec<Member>,
}

/// A member, by the path a C program writes: members of unnamed members have their own names only.
pub(super) struct Member {
    pub(super) path: String,
    pub(super) offset: u64,
    pub(super) size: u64,
    pub(super) type_name: String,
}

/// Everything that is known about the headers.
pub(super) struct Facts {
    pub(super) aggregates: Vec<Aggregate>,
    /// Names and integer types.
    pub(super) enumerations: Vec<(String, String)>,
    /// Names, values and, for enumerators, their enumeration.
    pub(super) constants: Vec<(String, String, Option<String>)>,
    pub(super) functions: Vec<(Symbol, String)>,
}

/// A place to compile, and the headers to compile with.
pub(super) struct Probe<'a> {
    work: &'a Path,
    include: Option<&'a Path>,
}

impl<'a> Probe<'a> {
    pub(super) fn new(work: &'a Path, include: Option<&'a Path>) -> Self {
        Self { work, include }
    }

    /// Compiles and runs, and collects what the headers declare. Two rounds: the first one finds the names, the second
    /// asks for constants, alignments and the prototypes of exported functions.
    pub(super) fn ask(&self, symbols: &[Symbol]) -> Result<Facts> {
        let source = self.write("names.c", HEADERS)?;
        let macros = output(self.gcc().args(["-E", "-dM"]).arg(&source))?;
        let declared = output(self.gcc().args(["-E", "-P"]).arg(&source))?;
        let (constants, aliases) = read_macros(&macros);
        let functions: Vec<&Symbol> =
            symbols.iter().filter(|symbol| declares(&declared, &symbol.name)).collect();
        let tree = self.compile(&source, "names.o", &aliases)?;
        let aggregates = aggregates(&tree)?;
        let enumerators = enumerators(&tree)?;

        let names: BTreeSet<&str> =
            constants.iter().map(String::as_str).chain(enumerators.keys().map(String::as_str)).collect();
        let source = self.write("probe.c", &program(&names, &aggregates, &functions)?)?;
        let binary = self.work.join("probe");
        // Nothing is linked against: the program only names functions.
        output(self.gcc().arg("-o").arg(&binary).arg(&source))?;
        let answers = output(&mut cmd(&binary))?;
        let answers: HashMap<&str, &str> = answers.lines().filter_map(|line| line.split_once(' ')).collect();
        let answer = |key: &str| -> Result<String> {
            Ok((*answers.get(key).with_context(|| format!("the probe does not answer {key}"))?).to_owned())
        };

        let tree = self.compile(&source, "probe.o", &aliases)?;
        let mut facts = Facts {
            aggregates,
            enumerations: enumerations(&tree)?,
            constants: Vec::new(),
            functions: Vec::new(),
        };
        for aggregate in &mut facts.aggregates {
            aggregate.align = answer(&format!("align:{}", aggregate.name))?.parse()?;
        }
        for name in names {
            facts.constants.push((name.to_owned(), answer(name)?, enumerators.get(name).cloned().flatten()));
        }
        for symbol in functions {
            let variable = format!("sym_{}", symbol.name);
            let entry = find(&tree, "DW_TAG_variable", &variable)
                .with_context(|| format!("no debugging information about {}", symbol.name))?;
            facts.functions.push((symbol.clone(), tree.render(entry)?));
        }
        Ok(facts)
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.work.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    fn gcc(&self) -> std::process::Command {
        let mut gcc = cmd("gcc");
        gcc.args(["-w", "-D_GNU_SOURCE"]);
        if let Some(include) = self.include {
            gcc.arg("-isystem").arg(include);
        }
        gcc
    }

    /// Compiles with debugging information about everything, used or not.
    fn compile(&self, source: &Path, object: &str, aliases: &HashMap<String, String>) -> Result<Tree> {
        let object = self.work.join(object);
        output(
            self.gcc()
                .args(["-gdwarf-4", "-fno-eliminate-unused-debug-types", "-c", "-o"])
                .arg(&object)
                .arg(source),
        )?;
        let text = output(cmd("readelf").args(["--debug-dump=info", "--wide"]).arg(&object))?;
        Tree::parse(&text, aliases.clone())
    }
}

/// True for the names of types that belong to the interface.
fn is_public_type(name: &str) -> bool {
    ["ibv_", "rdma_", "verbs_", "_ibv_"].iter().any(|prefix| name.starts_with(prefix))
        // The kernel's list of drivers, which no verb mentions.
        && name != "rdma_driver_id"
}

/// True for the names of constants that belong to the interface.
fn is_public_constant(name: &str) -> bool {
    ["IBV_", "RDMA_", "RAI_", "IB_ROCE_", "IB_GRH_", "ETHERNET_LL_SIZE", "__VERBS_ABI_IS_EXTENDED"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
        && !name.starts_with("RDMA_DRIVER_")
}

/// Macros without parameters: public constants, and types renamed (kernel's name to public name).
fn read_macros(text: &str) -> (BTreeSet<String>, HashMap<String, String>) {
    let mut constants = BTreeSet::new();
    let mut aliases = HashMap::new();
    for line in text.lines() {
        let Some((name, body)) = line.strip_prefix("#define ").and_then(|rest| rest.split_once(' ')) else {
            continue;
        };
        let body = body.trim();
        if name.contains('(') || body.is_empty() {
            continue;
        }
        if is_public_constant(name) {
            constants.insert(name.to_owned());
        } else if is_public_type(name) && body.starts_with("ib_uverbs_") {
            aliases.insert(body.to_owned(), name.to_owned());
        }
    }
    (constants, aliases)
}

/// True if the preprocessed headers declare a function of this name.
fn declares(text: &str, name: &str) -> bool {
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + name.len()..].trim_start().chars().next();
        !before.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') && after == Some('(')
    })
}

/// A named entry at the top level.
fn find<'a>(tree: &'a Tree, tag: &str, name: &str) -> Option<&'a Entry> {
    units(tree)
        .filter_map(|at| tree.entries.get(&at))
        .find(|entry| entry.tag == tag && entry.name.as_deref() == Some(name))
}

/// Everything directly inside the compilation units, in order.
fn units(tree: &Tree) -> impl Iterator<Item = u64> + '_ {
    tree.top
        .iter()
        .flat_map(|unit| tree.entries.get(unit).into_iter().flat_map(|entry| entry.children.iter().copied()))
}

fn aggregates(tree: &Tree) -> Result<Vec<Aggregate>> {
    let mut found: BTreeMap<String, Aggregate> = BTreeMap::new();
    for at in units(tree) {
        let entry = tree.entry(at)?;
        let kind = match entry.tag.as_str() {
            "DW_TAG_structure_type" => "struct",
            "DW_TAG_union_type" => "union",
            _ => continue,
        };
        let Some(name) = entry.name.as_deref().map(|name| tree.rename(name)) else { continue };
        if entry.declaration || !is_public_type(name) {
            continue;
        }
        let mut members = Vec::new();
        collect(tree, entry, "", 0, &mut members)?;
        let size = entry.size.with_context(|| format!("{name} has no size"))?;
        found.insert(name.to_owned(), Aggregate { kind, name: name.to_owned(), size, align: 0, members });
    }
    Ok(found.into_values().collect())
}

/// Adds the members of `aggregate`, and those inside members of unnamed types.
fn collect(tree: &Tree, aggregate: &Entry, prefix: &str, base: u64, into: &mut Vec<Member>) -> Result<()> {
    for child in &aggregate.children {
        let member = tree.entry(*child)?;
        if member.tag != "DW_TAG_member" {
            continue;
        }
        let offset = base + member.offset;
        let inner = tree.resolve(member)?.map(|(at, _)| tree.entry(at)).transpose()?;
        let type_name = tree.render(member)?;
        let nested = match &member.name {
            Some(name) => {
                let path = format!("{prefix}{name}");
                let nested = format!("{path}.");
                into.push(Member { path, offset, size: tree.size(member)?, type_name: type_name.clone() });
                nested
            }
            None => prefix.to_owned(),
        };
        if let Some(inner) = inner
            && type_name == "unnamed"
        {
            collect(tree, inner, &nested, offset, into)?;
        }
    }
    Ok(())
}

/// Public enumerators, with the name of their enumeration if it has one.
fn enumerators(tree: &Tree) -> Result<BTreeMap<String, Option<String>>> {
    let mut found = BTreeMap::new();
    for at in units(tree) {
        let entry = tree.entry(at)?;
        if entry.tag != "DW_TAG_enumeration_type" {
            continue;
        }
        for child in &entry.children {
            if let Some(name) = &tree.entry(*child)?.name
                && is_public_constant(name)
            {
                let enumeration = entry.name.as_deref().map(|name| tree.rename(name).to_owned());
                found.insert(name.clone(), enumeration);
            }
        }
    }
    Ok(found)
}

/// Public enumerations and their integer types.
fn enumerations(tree: &Tree) -> Result<Vec<(String, String)>> {
    let mut found = BTreeMap::new();
    for at in units(tree) {
        let entry = tree.entry(at)?;
        if entry.tag == "DW_TAG_enumeration_type"
            && let Some(name) = entry.name.as_deref().map(|name| tree.rename(name))
            && is_public_type(name)
        {
            found.insert(name.to_owned(), tree.underlying(entry)?);
        }
    }
    Ok(found.into_iter().collect())
}

/// The second round's program: a pointer of each function's type, and a `main` that prints constants and alignments.
fn program(names: &BTreeSet<&str>, aggregates: &[Aggregate], functions: &[&Symbol]) -> Result<String> {
    let mut text = HEADERS.to_owned();
    for symbol in functions {
        writeln!(text, "__typeof__(&{0}) sym_{0};", symbol.name)?;
    }
    text.push_str("int main(void)\n{\n");
    for name in names {
        writeln!(text, "\tprintf(\"{name} %lld\\n\", (long long)({name}));")?;
    }
    for Aggregate { kind, name, .. } in aggregates {
        writeln!(text, "\tprintf(\"align:{name} %zu\\n\", _Alignof({kind} {name}));")?;
    }
    text.push_str("\treturn 0;\n}\n");
    Ok(text)
}
