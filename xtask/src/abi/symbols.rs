//! Exported symbols and their versions, from a shared library or from a linker's version map.
//!
//! Man pages: `readelf(1)`, `ld(1)` (VERSION).

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::util::cmd;

/// A public symbol in its default version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Symbol {
    pub(super) name: String,
    pub(super) version: String,
}

/// The public functions of the library with this soname, and the release of rdma-core that its file name ends in.
pub(super) fn library(soname: &str) -> Result<(Vec<Symbol>, String)> {
    // The loader's cache knows where the library is, on every distribution.
    let cache = output(cmd("/sbin/ldconfig").arg("-p"))?;
    let path = cache
        .lines()
        .find(|line| line.trim_start().starts_with(&format!("{soname} ")))
        .and_then(|line| line.split(" => ").nth(1))
        .with_context(|| format!("{soname} is not installed"))?;
    let file = fs::canonicalize(path).with_context(|| format!("cannot resolve {path}"))?;
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // libibverbs.so.1.14.44.0: interface 1, its revision 14, release 44.0.
    let release = name.rsplit('.').take(2).collect::<Vec<_>>();
    let release = release.into_iter().rev().collect::<Vec<_>>().join(".");
    let table = output(cmd("readelf").args(["--dyn-syms", "--wide"]).arg(&file))?;
    let mut symbols: Vec<Symbol> = table
        .lines()
        .filter(|line| line.contains(" FUNC "))
        .filter_map(|line| line.split_whitespace().nth(7)?.split_once("@@"))
        .filter(|(_, version)| !version.contains("PRIVATE"))
        .map(|(name, version)| Symbol { name: name.to_owned(), version: version.to_owned() })
        .collect();
    symbols.sort();
    Ok((symbols, release))
}

/// The public symbols of a version map; a symbol in several versions has the last one.
pub(super) fn map(file: &Path) -> Result<Vec<Symbol>> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut symbols: Vec<Symbol> = Vec::new();
    let mut version = String::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_suffix('{') {
            version = name.trim().to_owned();
        } else if let Some(name) = line.strip_suffix(';') {
            let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if is_name && !version.contains("PRIVATE") {
                symbols.retain(|symbol| symbol.name != name);
                symbols.push(Symbol { name: name.to_owned(), version: version.clone() });
            }
        }
    }
    if symbols.is_empty() {
        bail!("{} names no symbol", file.display());
    }
    symbols.sort();
    Ok(symbols)
}

/// A command's standard output; its failure is an error.
pub(super) fn output(command: &mut std::process::Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    String::from_utf8(output.stdout).with_context(|| format!("{command:?} wrote something that is not UTF-8"))
}
