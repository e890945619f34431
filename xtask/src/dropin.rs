//! `cargo xtask dropin`: builds `target/dropin/{libibverbs.so.1,libibverbs.so,librdmacm.so.1}` and holds their exports
//! against the table and, with `--check`, against what Debian's programs and libraries import.
//!
//! Owns the link step that the crate `ibex-dropin` explains: a version script from the crate's table, the SONAMEs and
//! the trampolines of librdmacm.so.1. The compiler driver (`cc`) and binutils' `readelf` are those that rustc needs to
//! link at all. [`elf`] reads symbols; [`script`] writes the linker's input.

mod elf;
mod script;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::util;
use elf::Symbol;

/// Build the drop-in libraries.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Also compare with what the programs and libraries of Debian's packages import (installs the packages).
    #[arg(long)]
    pub(crate) check: bool,
}

/// Debian's packages whose programs and libraries must find every symbol that they import.
const WITNESSES: [&str; 4] = ["ibverbs-utils", "perftest", "rdmacm-utils", "ibverbs-providers"];

/// The folder to put into `LD_LIBRARY_PATH`.
pub(crate) fn folder() -> PathBuf {
    util::target_dir().join("dropin")
}

/// Builds, checks the exports and says where the libraries are.
///
/// # Errors
/// If a build step fails, or a symbol that is wanted is not exported.
pub(crate) fn run(args: &Args) -> Result<()> {
    build()?;
    let exported = exports()?;
    println!("{}: {} versioned symbols", folder().display(), exported.len());
    if args.check { check(&exported) } else { Ok(()) }
}

/// Builds the three files, with the profile of libraries that others load.
///
/// # Errors
/// If cargo or the linker fails, or the libraries lack a symbol of the table.
pub(crate) fn build() -> Result<()> {
    util::run(util::cmd("cargo").args([
        "rustc",
        "--quiet",
        "--package",
        "ibex-dropin",
        "--lib",
        "--profile",
        "shared",
        "--crate-type",
        "staticlib",
    ]))?;
    let archive = util::target_dir().join("shared/libibex_dropin.a");
    let folder = folder();
    let work = util::target_dir().join("dropin-link");
    for made in [&folder, &work] {
        fs::create_dir_all(made).with_context(|| format!("cannot create {}", made.display()))?;
    }
    let verbs = link_verbs(&archive, &folder, &work)?;
    link_cm(&verbs, &folder, &work)?;
    link_name(&folder)?;
    complete(&exports()?)
}

/// libibverbs.so.1 from the static library. Written beside and renamed, so that a running program keeps its mapping.
fn link_verbs(archive: &Path, folder: &Path, work: &Path) -> Result<PathBuf> {
    let map = work.join("libibverbs.map");
    fs::write(&map, script::verbs_map())?;
    let roots = work.join("libibverbs.roots");
    fs::write(&roots, script::verbs_roots())?;
    let fresh = work.join("libibverbs.so.1");
    util::run(cc(&fresh, "libibverbs.so.1", &map).arg(format!("@{}", roots.display())).arg(archive).args([
        "-Wl,--gc-sections",
        "-Wl,-z,nodelete",
        "-Wl,-S",
        "-lpthread",
        "-ldl",
        "-lm",
    ]))?;
    let library = folder.join("libibverbs.so.1");
    fs::rename(&fresh, &library)?;
    Ok(library)
}

/// librdmacm.so.1: trampolines into `verbs`, which it finds in its own folder.
fn link_cm(verbs: &Path, folder: &Path, work: &Path) -> Result<()> {
    let map = work.join("librdmacm.map");
    fs::write(&map, script::cm_map())?;
    let trampolines = work.join("librdmacm.s");
    fs::write(&trampolines, script::cm_trampolines()?)?;
    let fresh = work.join("librdmacm.so.1");
    util::run(
        cc(&fresh, "librdmacm.so.1", &map)
            .arg("-nostdlib")
            .arg(&trampolines)
            .arg(verbs)
            .args(["-Wl,--enable-new-dtags", "-Wl,-rpath,$ORIGIN"]),
    )?;
    fs::rename(&fresh, folder.join("librdmacm.so.1"))?;
    Ok(())
}

/// The link step that both libraries share.
fn cc(output: &Path, soname: &str, map: &Path) -> std::process::Command {
    let mut cc = util::cmd("cc");
    cc.arg("-shared").arg("-o").arg(output);
    cc.arg(format!("-Wl,-soname,{soname}"));
    cc.arg(format!("-Wl,--version-script={}", map.display()));
    cc.args(["-Wl,-z,defs", "-Wl,-z,now", "-Wl,-z,relro"]);
    cc
}

/// `libibverbs.so`, the name that some programs (NCCL) open before the SONAME.
fn link_name(folder: &Path) -> Result<()> {
    let name = folder.join("libibverbs.so");
    if name.symlink_metadata().is_ok() {
        fs::remove_file(&name)?;
    }
    std::os::unix::fs::symlink("libibverbs.so.1", &name)
        .with_context(|| format!("cannot link {}", name.display()))
}

/// What the two built libraries export.
fn exports() -> Result<BTreeSet<Symbol>> {
    let mut all = BTreeSet::new();
    for library in ["libibverbs.so.1", "librdmacm.so.1"] {
        all.extend(elf::symbols(&folder().join(library))?.exported);
    }
    Ok(all)
}

/// Every row of the table is exported under its version: a linker drops silently what a version script misspells.
fn complete(exported: &BTreeSet<Symbol>) -> Result<()> {
    let missing: Vec<String> = script::expected()
        .iter()
        .filter(|symbol| !exported.contains(symbol))
        .map(Symbol::to_string)
        .collect();
    if !missing.is_empty() {
        bail!("not exported, though in the table of ibex-dropin: {}", missing.join(" "));
    }
    Ok(())
}

/// Every `name@version` of ours that a file of the packages imports is exported.
fn check(exported: &BTreeSet<Symbol>) -> Result<()> {
    util::apt(&WITNESSES)?;
    let mut wanted = BTreeSet::new();
    let mut missing = Vec::new();
    let mut files = 0;
    for package in WITNESSES {
        for file in elf::files_of(package)? {
            files += 1;
            for symbol in elf::symbols(&file)?.imported.into_iter().filter(Symbol::is_rdma) {
                if !exported.contains(&symbol) {
                    missing.push(format!("{symbol} ({})", file.display()));
                }
                wanted.insert(symbol);
            }
        }
    }
    if files == 0 || wanted.is_empty() {
        bail!("no file of {} imports anything: the comparison compared nothing", WITNESSES.join(", "));
    }
    if !missing.is_empty() {
        bail!("{} imports are not served:\n  {}", missing.len(), missing.join("\n  "));
    }
    println!(
        "{files} files of {} import {} symbols of ours, all exported",
        WITNESSES.join(", "),
        wanted.len()
    );
    Ok(())
}
