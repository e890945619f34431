//! How results and errors are printed: aligned tables, units, JSON, error chains.
//!
//! Owns formatting only. Standard output carries the result and nothing else; a reader that goes away (a closed pipe) is
//! an error like any other and no panic.

use std::io::Write;

use anyhow::{Context, Result};
use serde::Serialize;

/// A table whose columns are as wide as their widest cell.
#[derive(Debug)]
pub(crate) struct Table {
    /// Right-aligned columns hold numbers.
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

/// Where a column's cells sit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

impl Table {
    /// An empty table with these headings.
    pub(crate) fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Appends a row; missing cells are empty.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The lines, headings first, each ending with a newline.
    pub(crate) fn render(&self) -> String {
        let width = |index: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(index)).map(|cell| cell.chars().count());
            cells.chain([self.columns[index].0.chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let headings: Vec<String> = self.columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        let mut text = String::new();
        for row in std::iter::once(&headings).chain(&self.rows) {
            let mut line = String::new();
            for (index, (_, align)) in self.columns.iter().enumerate() {
                let cell = row.get(index).map_or("", String::as_str);
                let pad = widths[index].saturating_sub(cell.chars().count());
                if index > 0 {
                    line.push_str("  ");
                }
                if *align == Align::Right {
                    line.push_str(&" ".repeat(pad));
                }
                line.push_str(cell);
                if *align == Align::Left {
                    line.push_str(&" ".repeat(pad));
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Writes text to standard output.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write to standard output")
}

/// Writes a value as indented JSON to standard output.
pub(crate) fn print_json(value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value).context("cannot express the result as JSON")?;
    text.push('\n');
    print(&text)
}

/// Writes a value as one line of JSON to standard output.
pub(crate) fn print_json_line(value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string(value).context("cannot express the result as JSON")?;
    text.push('\n');
    print(&text)
}

/// An error and its causes on one line, each cause once.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Typed errors often end with their source's text already.
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// Writes an error and its causes to standard error.
pub(crate) fn complain(error: &anyhow::Error) {
    say(&format!("ibex: {}", one_line(error)));
}

/// Writes a line to standard error; there is nobody to tell if that fails.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Nanoseconds for people: three significant digits in the unit that fits.
pub(crate) fn nanos(ns: u64) -> String {
    // Rounding to a digit must not leave four of them: 999.96 µs is 1.00 ms.
    let value = ns as f64;
    match ns {
        0..=999 => format!("{ns} ns"),
        1_000..=999_499 => format!("{} µs", digits(value / 1e3)),
        999_500..=999_499_999 => format!("{} ms", digits(value / 1e6)),
        _ => format!("{} s", digits(value / 1e9)),
    }
}

/// A size in bytes for people, in powers of two.
pub(crate) fn bytes(count: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1023.5 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value.fract() == 0.0 {
        format!("{value} {}", units[unit])
    } else {
        format!("{} {}", digits(value), units[unit])
    }
}

/// A rate for people: 1.23 M, 45.6 k.
pub(crate) fn rate(per_second: f64) -> String {
    match per_second {
        r if r >= 1e6 => format!("{} M", digits(r / 1e6)),
        r if r >= 1e3 => format!("{} k", digits(r / 1e3)),
        r => digits(r),
    }
}

/// Three significant digits, at least.
pub(crate) fn digits(value: f64) -> String {
    match value {
        v if v < 9.995 => format!("{v:.2}"),
        v if v < 99.95 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&[("op", Align::Left), ("µs", Align::Right)]);
        table.row(vec!["send_lat".to_owned(), "1.5".to_owned()]);
        table.row(vec!["x".to_owned(), "10.25".to_owned()]);
        assert_eq!(table.render(), "op           µs\nsend_lat    1.5\nx         10.25\n");
    }

    #[test]
    fn units_fit() {
        assert_eq!(nanos(999), "999 ns");
        assert_eq!(nanos(1_500), "1.50 µs");
        assert_eq!(nanos(999_600), "1.00 ms");
        assert_eq!(nanos(12_000_000), "12.0 ms");
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1 << 20), "1 MiB");
        assert_eq!(bytes(1_500_000), "1.43 MiB");
        assert_eq!(rate(1_234_567.0), "1.23 M");
        assert_eq!(rate(12.0), "12.0");
    }
}
