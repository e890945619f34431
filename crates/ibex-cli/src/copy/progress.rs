//! What the user of `ibex cp` sees while it runs: a progress bar on a terminal, problems as they happen.
//!
//! Owns standard error during a copy. No bar is drawn when standard error is no terminal, or with `--quiet` or `--json`.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::message::Problem;
use super::watch::Watch;
use crate::output;

/// Problems kept for the JSON outcome; those beyond are counted only.
const KEPT: usize = 10_000;

/// The client's view of a copy.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    /// What did not go well, for the outcome.
    pub(crate) problems: Vec<Problem>,
}

impl Progress {
    /// A bar, or none.
    pub(crate) fn new(visible: bool) -> Self {
        let target = if visible && std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(0), target);
        let template = "{bar:30} {percent:>3}%  {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}  {eta}  {msg}";
        // A template that does not parse would only cost its looks; the test below sees to it that it does.
        bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar, problems: Vec::new() }
    }

    /// Takes the bar away.
    pub(crate) fn close(&self) {
        self.bar.finish_and_clear();
    }
}

impl Watch for Progress {
    fn totals(&mut self, files: u64, bytes: u64) {
        self.bar.set_length(bytes);
        self.bar.set_message(if files == 1 { "1 file".to_owned() } else { format!("{files} files") });
    }

    fn advance(&mut self, bytes: u64) {
        self.bar.inc(bytes);
    }

    fn problem(&mut self, problem: &Problem) {
        let kind = if problem.fatal { "not copied" } else { "note" };
        self.bar.suspend(|| output::say(&format!("ibex: {kind}: {problem}")));
        if self.problems.len() < KEPT {
            self.problems.push(problem.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_followed_without_a_terminal() {
        let mut progress = Progress::new(true);
        progress.totals(2, 100);
        progress.advance(60);
        progress.problem(&Problem { path: "a".to_owned(), error: "b".to_owned(), fatal: false });
        assert_eq!((progress.bar.position(), progress.bar.length()), (60, Some(100)));
        assert_eq!(progress.problems.len(), 1);
        progress.close();
    }
}
