//! `cargo xtask abi`: what the C compiler says about rdma-core's headers, as golden files for `ibex-sys`.
//!
//! Owns the choice of headers and libraries and the golden files `crates/ibex-sys/tests/golden/abi-rdma-core-N.txt`. The
//! tests of `ibex-sys` compare the Rust types with these files; nothing in the files comes from the Rust side: structures,
//! members, enumerations and prototypes are read from the debugging information of a C program that includes the headers,
//! constants from running it, symbol versions from the libraries.
//!
//! Without options the headers installed on this machine are used; `--source` takes those of an rdma-core source tree,
//! whose version maps stand in for the libraries.

mod dwarf;
mod probe;
mod symbols;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::util;

/// Options of `cargo xtask abi`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Compare with the golden file instead of writing it.
    #[arg(long)]
    check: bool,
    /// An rdma-core source tree to take headers and version maps from, instead of the installed ones.
    #[arg(long, value_name = "DIR")]
    source: Option<PathBuf>,
}

/// Headers to look at, and what the libraries behind them export.
struct Input {
    /// Version of rdma-core, such as `44.0`.
    release: String,
    /// Folder with `infiniband/` and `rdma/`, if it is not the compiler's own.
    include: Option<PathBuf>,
    /// Public symbols of both libraries.
    symbols: Vec<symbols::Symbol>,
}

/// Writes the golden file, or compares it.
pub(crate) fn run(args: &Args) -> Result<()> {
    let work = util::target_dir().join("abi");
    fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
    let input = match &args.source {
        Some(source) => from_source(source, &work)?,
        None => installed()?,
    };
    let text = describe(&input, &work)?;
    let major = input.release.split('.').next().unwrap_or(&input.release);
    let golden = util::root().join("crates/ibex-sys/tests/golden").join(format!("abi-rdma-core-{major}.txt"));
    if args.check { compare(&golden, &text) } else { write(&golden, &text) }
}

/// The headers and libraries installed on this machine.
fn installed() -> Result<Input> {
    util::apt(&["gcc", "libc6-dev", "binutils", "libibverbs-dev", "librdmacm-dev"])?;
    let (verbs, release) = symbols::library("libibverbs.so.1")?;
    let (cm, _) = symbols::library("librdmacm.so.1")?;
    Ok(Input { release, include: None, symbols: verbs.into_iter().chain(cm).collect() })
}

/// The headers of a source tree, gathered into the folders that they include each other from.
fn from_source(source: &Path, work: &Path) -> Result<Input> {
    let include = work.join("include");
    if include.exists() {
        fs::remove_dir_all(&include)?;
    }
    for (folder, into) in [
        ("libibverbs", "infiniband"),
        ("kernel-headers/rdma", "rdma"),
        ("librdmacm", "rdma"),
        ("kernel-headers/rdma", "infiniband"),
    ] {
        let into = include.join(into);
        fs::create_dir_all(&into)?;
        let folder = source.join(folder);
        let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            let to = into.join(path.file_name().context("an entry of a folder has a name")?);
            if path.extension().is_some_and(|extension| extension == "h") && !to.exists() {
                fs::copy(&path, &to).with_context(|| format!("cannot copy {}", path.display()))?;
            }
        }
    }
    let cmake = source.join("CMakeLists.txt");
    let cmake = fs::read_to_string(&cmake).with_context(|| format!("cannot read {}", cmake.display()))?;
    let release = cmake
        .lines()
        .find_map(|line| line.strip_prefix("set(PACKAGE_VERSION \"")?.strip_suffix("\")"))
        .context("the source tree's CMakeLists.txt sets no PACKAGE_VERSION")?;
    let mut symbols = symbols::map(&source.join("libibverbs/libibverbs.map.in"))?;
    symbols.extend(symbols::map(&source.join("librdmacm/librdmacm.map"))?);
    Ok(Input { release: release.to_owned(), include: Some(include), symbols })
}

/// The golden text for these headers.
fn describe(input: &Input, work: &Path) -> Result<String> {
    let probe = probe::Probe::new(work, input.include.as_deref());
    let facts = probe.ask(&input.symbols)?;
    let mut text = format!(
        "# Layout of rdma-core {}, x86_64 Linux. Written by `cargo xtask abi`; not to be edited.\n",
        input.release
    );
    for aggregate in &facts.aggregates {
        writeln!(text, "\n{} {} {} {}", aggregate.kind, aggregate.name, aggregate.size, aggregate.align)?;
        for member in &aggregate.members {
            writeln!(text, "  {} {} {} {}", member.path, member.offset, member.size, member.type_name)?;
        }
    }
    text.push('\n');
    for (name, type_name) in &facts.enumerations {
        writeln!(text, "enum {name} {type_name}")?;
    }
    text.push('\n');
    for (name, value, enumeration) in &facts.constants {
        writeln!(text, "const {name} {value} {}", enumeration.as_deref().unwrap_or("-"))?;
    }
    text.push('\n');
    for (symbol, type_name) in &facts.functions {
        writeln!(text, "fn {} {} {type_name}", symbol.name, symbol.version)?;
    }
    Ok(text)
}

/// Writes a golden file.
fn write(golden: &Path, text: &str) -> Result<()> {
    let folder = golden.parent().context("the golden file lies in a folder")?;
    fs::create_dir_all(folder)?;
    fs::write(golden, text).with_context(|| format!("cannot write {}", golden.display()))?;
    println!("wrote {} ({} lines)", golden.display(), text.lines().count());
    Ok(())
}

/// Compares a golden file with what the compiler says now.
fn compare(golden: &Path, text: &str) -> Result<()> {
    let Ok(old) = fs::read_to_string(golden) else {
        bail!(
            "there is no {}: these headers are of another rdma-core; `cargo xtask abi` writes the file, and \
             crates/ibex-sys/src/layout/golden.rs is where the tests learn of it",
            golden.display()
        );
    };
    if old == text {
        println!("{} agrees with the C compiler", golden.display());
        return Ok(());
    }
    for (number, (is, was)) in text.lines().zip(old.lines()).enumerate() {
        if is != was {
            bail!("{}:{}: is `{was}`, the compiler says `{is}`", golden.display(), number + 1);
        }
    }
    bail!(
        "{}: has {} lines, the compiler gives {}",
        golden.display(),
        old.lines().count(),
        text.lines().count()
    )
}
