//! Dynamic symbols of an ELF file with their versions, as `readelf --dyn-syms` lists them.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A symbol and its version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Symbol {
    /// Its name, for example `ibv_open_device`.
    pub(super) name: String,
    /// Its version, for example `IBVERBS_1.1`.
    pub(super) version: String,
}

impl Symbol {
    pub(super) fn new(name: &str, version: &str) -> Symbol {
        Symbol { name: name.to_owned(), version: version.to_owned() }
    }

    /// Whether libibverbs or librdmacm is to define it, by its version.
    pub(super) fn is_rdma(&self) -> bool {
        self.version.starts_with("IBVERBS_") || self.version.starts_with("RDMACM_")
    }
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

/// The versioned dynamic symbols of one file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Symbols {
    /// Those that it defines.
    pub(super) exported: BTreeSet<Symbol>,
    /// Those that it needs.
    pub(super) imported: BTreeSet<Symbol>,
}

/// Reads `file`.
pub(super) fn symbols(file: &Path) -> Result<Symbols> {
    let output = Command::new("readelf")
        .args(["--dyn-syms", "--wide"])
        .arg(file)
        .output()
        .context("cannot start readelf; it is in the package binutils")?;
    if !output.status.success() {
        bail!("readelf {}: {}", file.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(parse(&String::from_utf8_lossy(&output.stdout)))
}

/// Reads the table of `readelf --dyn-syms --wide`: number, value, size, type, binding, visibility, section, then
/// `name@version` (needed, or defined and not the default) or `name@@version` (the default definition).
fn parse(text: &str) -> Symbols {
    let mut symbols = Symbols::default();
    for line in text.lines() {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [number, _, _, kind, _, _, section, name, ..] = columns[..] else { continue };
        // Each version is also listed as a symbol of its own, absolute and of size 0.
        if !number.ends_with(':') || section == "ABS" || !matches!(kind, "FUNC" | "OBJECT" | "NOTYPE") {
            continue;
        }
        let Some((name, version)) = name.split_once('@') else { continue };
        let symbol = Symbol::new(name, version.trim_start_matches('@'));
        if section == "UND" {
            symbols.imported.insert(symbol)
        } else {
            symbols.exported.insert(symbol)
        };
    }
    symbols
}

/// The ELF files of an installed Debian package.
pub(super) fn files_of(package: &str) -> Result<Vec<PathBuf>> {
    let output = Command::new("dpkg").args(["-L", package]).output().context("cannot start dpkg")?;
    if !output.status.success() {
        bail!("dpkg does not know the files of {package}");
    }
    let list = String::from_utf8_lossy(&output.stdout);
    Ok(list.lines().map(PathBuf::from).filter(|path| path.is_file() && is_elf(path)).collect())
}

fn is_elf(path: &Path) -> bool {
    let mut magic = [0; 4];
    File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"\x7fELF"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readelf_table_is_read() {
        let text = "\nSymbol table '.dynsym' contains 5 entries:\n   \
            Num:    Value          Size Type    Bind   Vis      Ndx Name\n     \
            0: 0000000000000000     0 NOTYPE  LOCAL  DEFAULT  UND \n     \
            1: 0000000000000000     0 FUNC    GLOBAL DEFAULT  UND ibv_open_device@IBVERBS_1.1 (4)\n     \
            2: 0000000000000000     0 OBJECT  GLOBAL DEFAULT  ABS RDMACM_1.0\n     \
            3: 0000000000001130     5 FUNC    GLOBAL DEFAULT   12 rdma_listen@@RDMACM_1.0\n     \
            4: 0000000000001140     1 OBJECT  GLOBAL DEFAULT   13 flag@IBVERBS_PRIVATE_57\n     \
            5: 0000000000000000     0 NOTYPE  WEAK   DEFAULT  UND __gmon_start__\n";
        let symbols = parse(text);
        assert_eq!(symbols.imported, [Symbol::new("ibv_open_device", "IBVERBS_1.1")].into());
        let exported = [Symbol::new("rdma_listen", "RDMACM_1.0"), Symbol::new("flag", "IBVERBS_PRIVATE_57")];
        assert_eq!(symbols.exported, exported.into());
    }
}
