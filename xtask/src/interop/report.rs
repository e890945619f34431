//! Rows of results, and `docs/interop.md`, which a complete run writes and every other run compares with.
//!
//! One table for each direction: a line for each case, a column for each link, `✓` where the case ran and passed.

use std::fmt::{self, Write as _};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::PACKAGES;
use super::cases::{Case, Check};
use super::link::{Link, Table};
use super::process::Outcome;
use crate::util;

/// One case over one link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    /// Program and options.
    pub(super) case: String,
    /// The direction, client first.
    pub(super) table: Table,
    /// The link's column in the table.
    pub(super) column: String,
    /// What was seen when nothing failed.
    pub(super) shown: String,
    /// What failed, with the output's end.
    pub(super) failure: Option<String>,
    /// Runs before this one in which rxe left and its last word was lost; never in the table.
    pub(super) repeated: u32,
    /// How long it took, with those; never in the table.
    pub(super) took: Duration,
}

impl Row {
    pub(super) fn new(case: &Case, link: &Link, outcome: &Outcome, took: Duration) -> Row {
        Row {
            case: case.line(),
            table: link.table,
            column: link.column.clone(),
            shown: shown(&case.check),
            failure: outcome.failure.clone(),
            repeated: outcome.repeated,
            took,
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.failure.is_none() { "ok" } else { "FAILED" };
        let seconds = self.took.as_secs_f64();
        write!(f, "{verdict:6} {seconds:5.1} s  {}  [{}, {}]", self.case, self.table.name(), self.column)?;
        match self.repeated {
            0 => Ok(()),
            runs => write!(f, "  run again {runs} ×: rxe left, its last word was lost"),
        }
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
        Check::Rping { count } => format!("{count} exchanges, payload compared"),
        Check::BothSay(text) => format!("both say \"{text}\""),
        Check::Steps => "every step, at the client".to_owned(),
        Check::ServerKilled => "client ended with RETRY_EXC_ERR".to_owned(),
        Check::ClientInterrupted => "server ended".to_owned(),
    }
}

fn path() -> PathBuf {
    util::root().join("docs/interop.md")
}

const HEAD: &str = "# C programs on the software device\n\n\
    Written by `cargo xtask interop`; do not edit. Every `✓` is a program of Debian, unmodified, that ran as two\n\
    processes and passed: exit codes, bytes and iterations as asked for, payload where the program checks it (`-c` of the\n\
    exchanges, `-V` of `rping`) or lets its buffers be seen (`--mmap`). A point: not tried over this link.\n\n\
    - *ibex* is the software device behind the drop-in libraries of `cargo xtask dropin`.\n\
    - *rxe* is the Linux kernel's own software device with the system's libraries and the kernel's rdma_cm, in the\n  \
      virtual machine of `cargo xtask vm`; the two ends are joined by a veth pair, and a share of loss drops packets in\n  \
      both directions.\n\
    - The exchanges do not part: who has everything leaves. Where rxe left and its last acknowledgement was lost, so that the\n  \
      device was told of an unanswered SEND, the case is run once more, and the run says so. So it is where `rping` left rxe\n  \
      and the one packet that says so was lost, or `udaddy`'s server and its last answer: the kernel does not repeat it. A\n  \
      loss of this kind on the device's side is no excuse.\n\
    - Device, GID, port and addresses are added to each line as the link needs them.\n\
    - perftest uses the extended calls (`ibv_wr_*`) with devices of three vendors only, and elsewhere the classic ones\n  \
      with or without `--use_old_post_send`; `ibv_rc_pingpong -N` uses the extended ones.\n\n";

/// The links of a table, in words.
fn legend(table: Table) -> &'static str {
    match table {
        Table::Ibex => {
            "Two processes with the software device at both ends. *host*: one address, everything by default, which is \
             shared memory between the processes. *wire*: the same with `IBEX_SOFT_LINK=wire`, UDP. *namespaces*: two \
             network namespaces joined by a veth pair. *addresses*: 127.0.0.2 and 127.0.0.3. *IPv6*: ::1."
        }
        Table::IbexToRxe => {
            "The client on the software device, the server on the kernel's. Columns: the kernel's series, and the \
             share of lost packets."
        }
        Table::RxeToIbex => "The client on the kernel's device, the server on the software device.",
    }
}

/// Every column that a table has, in the order of the rows.
fn columns<'a>(rows: &[&'a Row]) -> Vec<&'a str> {
    let mut columns = Vec::new();
    for row in rows {
        if !columns.contains(&row.column.as_str()) {
            columns.push(row.column.as_str());
        }
    }
    columns
}

/// The whole file.
fn render(rows: &[Row], versions: &str) -> String {
    let mut text = HEAD.to_owned();
    let _ = writeln!(text, "Versions: {versions}.");
    for table in [Table::Ibex, Table::IbexToRxe, Table::RxeToIbex] {
        let rows: Vec<&Row> = rows.iter().filter(|row| row.table == table).collect();
        if !rows.is_empty() {
            let _ = write!(text, "\n## {}\n\n{}\n\n{}", table.name(), legend(table), render_table(&rows));
        }
    }
    text
}

fn render_table(rows: &[&Row]) -> String {
    let columns = columns(rows);
    let mut text = format!("| program | {} | result |\n|---|", columns.join(" | "));
    text.push_str(&":-:|".repeat(columns.len()));
    text.push_str("---|\n");
    let mut done: Vec<(&str, &str)> = Vec::new();
    for row in rows {
        let key = (row.case.as_str(), row.shown.as_str());
        if done.contains(&key) {
            continue;
        }
        done.push(key);
        let marks: Vec<&str> = columns
            .iter()
            .map(|column| {
                let ran = rows.iter().any(|other| {
                    (other.case.as_str(), other.shown.as_str()) == key && other.column == *column
                });
                if ran { "✓" } else { "·" }
            })
            .collect();
        let _ = writeln!(text, "| `{}` | {} | {} |", row.case, marks.join(" | "), row.shown);
    }
    text
}

/// The packages that the programs came from.
fn versions() -> Result<String> {
    let output = Command::new("dpkg-query")
        .args(["-W", "-f=${Package} ${Version}\n"])
        .args(PACKAGES)
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

/// Compares an incomplete run with the table: each case that ran must have its mark there.
///
/// # Errors
/// If the table cannot be read or lacks a mark.
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

/// The rows that have no mark in the text, as they are printed.
fn missing(rows: &[Row], text: &str) -> Vec<String> {
    rows.iter().filter(|row| !has_mark(text, row)).map(Row::to_string).collect()
}

fn has_mark(text: &str, row: &Row) -> bool {
    let title = format!("## {}", row.table.name());
    let section: Vec<&str> = text
        .lines()
        .skip_while(|line| *line != title)
        .skip(1)
        .take_while(|line| !line.starts_with("## "))
        .collect();
    let cells = |line: &str| -> Vec<String> { line.split('|').map(|cell| cell.trim().to_owned()).collect() };
    let Some(head) = section.iter().find(|line| line.starts_with("| program |")) else { return false };
    let Some(at) = cells(head).iter().position(|cell| *cell == row.column) else { return false };
    let case = format!("`{}`", row.case);
    section.iter().map(|line| cells(line)).any(|line| {
        line.get(1) == Some(&case)
            && line.get(at).is_some_and(|mark| mark == "✓")
            && line.get(line.len().saturating_sub(2)) == Some(&row.shown)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(case: &str, column: &str) -> Row {
        Row {
            case: case.to_owned(),
            table: Table::Ibex,
            column: column.to_owned(),
            shown: "1000 exchanges, 8192000 B in all".to_owned(),
            failure: None,
            repeated: 0,
            took: Duration::from_millis(1234),
        }
    }

    #[test]
    fn a_written_table_lacks_nothing_and_holds_no_times() {
        let rows = [row("ibv_rc_pingpong", "host"), row("ibv_rc_pingpong", "wire"), row("rping", "host")];
        let text = render(&rows, "perftest 1");
        assert!(missing(&rows, &text).is_empty(), "{text}");
        assert!(text.contains("| `ibv_rc_pingpong` | ✓ | ✓ | 1000 exchanges"), "{text}");
        assert!(!text.contains("1.2"), "{text}");
        assert_eq!(missing(&[row("rping", "wire"), row("udaddy", "host")], &text).len(), 2);
        let other = Row { table: Table::IbexToRxe, ..row("rping", "host") };
        assert_eq!(missing(&[other], &text).len(), 1);
    }

    #[test]
    fn rows_survive_the_way_out_of_the_virtual_machine() {
        let row = Row {
            table: Table::RxeToIbex,
            failure: Some("one\ntwo".to_owned()),
            repeated: 1,
            ..row("ib_write_bw", "6.1, 1 %")
        };
        let line = serde_json::to_string(&row).expect("plain data");
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<Row>(&line).expect("the same data"), row);
        assert!(row.to_string().contains("run again 1 ×"), "{row}");
    }
}
