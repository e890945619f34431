//! `cargo xtask budget`: the files that allow `unsafe`, against the table in ARCHITECTURE.md.
//!
//! The table is written by this task and compared by `cargo xtask lint`, so that a new file with `unsafe` shows up in
//! review as a change of the document. Tests, benchmarks and examples are left out: they are not what users link.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::util;

const DOCUMENT: &str = "ARCHITECTURE.md";
const BEGIN: &str = "<!-- unsafe budget: written by `cargo xtask budget --write` -->\n";
const END: &str = "<!-- end of the unsafe budget -->\n";

/// Options of the task.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write the table instead of comparing it.
    #[arg(long)]
    write: bool,
}

/// Compares the document's table with the sources.
pub(crate) fn check() -> Result<()> {
    run(&Args { write: false })
}

/// Compares the document's table with the sources, or rewrites it.
pub(crate) fn run(args: &Args) -> Result<()> {
    let path = util::root().join(DOCUMENT);
    let document = fs::read_to_string(&path).with_context(|| format!("cannot read {DOCUMENT}"))?;
    let updated = replace(&document, &table(&sources()?))?;
    if args.write {
        fs::write(&path, updated).with_context(|| format!("cannot write {DOCUMENT}"))?;
    } else {
        ensure!(
            document == updated,
            "the unsafe budget in {DOCUMENT} is out of date: cargo xtask budget --write"
        );
    }
    Ok(())
}

/// Every source file that is part of a library or program, with its text.
fn sources() -> Result<Vec<(String, String)>> {
    let output = Command::new("git")
        .current_dir(util::root())
        .args([
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "crates/*/src/**.rs",
            "xtask/src/**.rs",
        ])
        .output()
        .context("cannot start git")?;
    ensure!(output.status.success(), "git ls-files ended with {}", output.status);
    String::from_utf8(output.stdout)?
        .lines()
        .filter(|path| !path.ends_with("tests.rs") && util::root().join(path).exists())
        .map(|path| {
            let text =
                fs::read_to_string(util::root().join(path)).with_context(|| format!("cannot read {path}"))?;
            Ok((path.to_owned(), text))
        })
        .collect()
}

/// Whether the file opens with the permission.
fn allows(text: &str) -> bool {
    text.lines().any(|line| line.starts_with("#![allow(") && line.contains("unsafe_code"))
}

/// The table: a line for each crate.
fn table(sources: &[(String, String)]) -> String {
    let mut crates: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (path, _) in sources.iter().filter(|(_, text)| allows(text)) {
        let Some((name, file)) = path.trim_start_matches("crates/").split_once("/src/") else { continue };
        crates.entry(name).or_default().push(format!("`{}`", file.trim_end_matches(".rs")));
    }
    let mut table = String::from("| crate | files |\n|---|---|\n");
    for (name, files) in crates {
        writeln!(table, "| `{name}` ({}) | {} |", files.len(), files.join(", "))
            .expect("a String takes everything");
    }
    table
}

/// The document with another table between the marks.
fn replace(document: &str, table: &str) -> Result<String> {
    let (before, rest) =
        document.split_once(BEGIN).with_context(|| format!("{DOCUMENT} has no mark {BEGIN}"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("{DOCUMENT} has no mark {END}"))?;
    Ok(format!("{before}{BEGIN}{table}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_permission_for_the_whole_file_counts() {
        assert!(allows("//! Doc.\n#![allow(unsafe_code)]\n"));
        assert!(!allows("// #![allow(unsafe_code)]\nfn f() {}"));
    }

    #[test]
    fn files_stand_under_their_crate() {
        let allowed = "#![allow(unsafe_code)]\nunsafe { x }".to_owned();
        let sources = [
            ("crates/a/src/x/y.rs".to_owned(), allowed.clone()),
            ("crates/a/src/z.rs".to_owned(), allowed),
            ("crates/b/src/lib.rs".to_owned(), String::new()),
        ];
        assert!(table(&sources).ends_with("| `a` (2) | `x/y`, `z` |\n"));
    }

    #[test]
    fn only_what_stands_between_the_marks_changes() {
        let document = format!("a\n{BEGIN}old\n{END}b\n");
        assert_eq!(replace(&document, "new\n").unwrap(), format!("a\n{BEGIN}new\n{END}b\n"));
        assert!(replace("no marks", "new\n").is_err());
    }
}
