//! Rows of results, and `docs/interop.md`, which a complete run writes and every other run compares with.

use std::fmt::{self, Write as _};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::cases::{Case, Check};
use super::link::Link;
use super::process::Outcome;
use crate::util;

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    /// Program and options.
    pub(super) case: String,
    /// The two ends, client first.
    pub(super) link: String,
    /// What was seen when nothing failed.
    pub(super) shown: String,
    /// What failed, with the output's end.
    pub(super) failure: Option<String>,
    /// How long it took; never in the table.
    pub(super) took: Duration,
}

impl Row {
    pub(super) fn new(case: &Case, link: &Link, outcome: &Outcome, took: Duration) -> Row {
        let ends = if case.is_pair() { link.name.clone() } else { link.server.label.to_owned() };
        let failure = outcome.failure.clone();
        Row { case: case.line(), link: ends, shown: shown(&case.check), failure, took }
    }

    /// Its line in the table.
    fn markdown(&self) -> String {
        format!("| `{}` | {} | {} |", self.case, self.link, self.shown)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.failure.is_none() { "ok" } else { "FAILED" };
        write!(f, "{verdict:6} {:5.1} s  {}  [{}]", self.took.as_secs_f64(), self.case, self.link)
    }
}

/// What a passed check means, in the table's words.
fn shown(check: &Check) -> String {
    match check {
        Check::Prints(_) => "ran".to_owned(),
        Check::Refuses(_) => "refused with its message, exit code ≠ 0".to_owned(),
        Check::Pingpong { size, iters } => format!("{iters} exchanges, {} B in all", size * iters * 2),
        Check::Table { sizes, iters } if sizes.len() > 1 => {
            format!("{} sizes, ≥ {iters} iterations each", sizes.len())
        }
        Check::Table { iters, .. } => format!("≥ {iters} iterations"),
        Check::Payload { iters, .. } => format!("≥ {iters} iterations, payload compared"),
        Check::ServerKilled => "client ended with RETRY_EXC_ERR".to_owned(),
        Check::ClientInterrupted => "server ended".to_owned(),
    }
}

fn path() -> PathBuf {
    util::root().join("docs/interop.md")
}

/// The whole file.
fn render(rows: &[Row], versions: &str) -> String {
    let mut text = String::from(
        "# C programs on the software device\n\n\
         Written by `cargo xtask interop`; do not edit. Every line is a program of Debian, unmodified, that ran as two\n\
         processes and passed: exit codes, bytes and iterations as asked for, payload where the program checks it\n\
         (`ibv_rc_pingpong -c`) or lets its buffers be seen (`--mmap`).\n\n\
         - *ibex* is the software device behind the drop-in libraries of `cargo xtask dropin`.\n\
         - *rxe* is the Linux kernel's own software device with the system's libraries, in the virtual machine of\n  \
           `cargo xtask vm`; the two ends are joined by a veth pair, and *loss* drops packets in both directions.\n\
         - A link names the client first. perftest posts by the extended calls where a device has them, and falls back\n  \
           to the classic ones; `--use_old_post_send` asks for these.\n\n",
    );
    let _ = writeln!(text, "Versions: {versions}.\n\n| program | client → server | result |\n|---|---|---|");
    for row in rows {
        let _ = writeln!(text, "{}", row.markdown());
    }
    text
}

/// The packages that the programs came from.
fn versions() -> Result<String> {
    let packages = ["ibverbs-utils", "perftest"];
    let output = Command::new("dpkg-query")
        .args(["-W", "-f=${Package} ${Version}\n"])
        .args(packages)
        .output()
        .context("cannot start dpkg-query")?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().collect::<Vec<_>>().join(", "))
}

/// Writes the table of a complete run.
///
/// # Errors
/// If the file cannot be written.
pub(super) fn write(rows: &[Row]) -> Result<()> {
    let path = path();
    let text = render(rows, &versions()?);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    println!("wrote {}", path.display());
    Ok(())
}

/// Compares an incomplete run with the table: each line that ran must be there.
///
/// # Errors
/// If the table cannot be read or lacks a line.
pub(super) fn compare(rows: &[Row]) -> Result<()> {
    let path = path();
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let missing = missing(rows, &text);
    if !missing.is_empty() {
        bail!(
            "docs/interop.md is older than the list of cases; run `cargo xtask interop`. It lacks:\n{}",
            missing.join("\n")
        );
    }
    Ok(())
}

fn missing(rows: &[Row], text: &str) -> Vec<String> {
    rows.iter().map(Row::markdown).filter(|line| !text.lines().any(|written| written == line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_table_lacks_nothing_and_holds_no_times() {
        let row = Row {
            case: "ibv_rc_pingpong -g 1".to_owned(),
            link: "ibex → ibex".to_owned(),
            shown: "1000 exchanges, 8192000 B in all".to_owned(),
            failure: None,
            took: Duration::from_millis(1234),
        };
        let text = render(std::slice::from_ref(&row), "perftest 1");
        assert!(missing(std::slice::from_ref(&row), &text).is_empty());
        assert!(!text.contains("1.2"), "{text}");
        let other = Row { case: "ibv_rc_pingpong -g 0".to_owned(), ..row };
        assert_eq!(missing(&[other], &text).len(), 1);
    }

    #[test]
    fn rows_survive_the_way_out_of_the_virtual_machine() {
        let row = Row {
            case: "ib_write_bw".to_owned(),
            link: "ibex → rxe (Linux 6.1), 1 % loss".to_owned(),
            shown: "≥ 200 iterations".to_owned(),
            failure: Some("one\ntwo".to_owned()),
            took: Duration::from_millis(1234),
        };
        let line = serde_json::to_string(&row).expect("plain data");
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<Row>(&line).expect("the same data"), row);
    }
}
