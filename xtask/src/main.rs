//! The project's front door: `cargo xtask <task>`. Each task is a module with a `Args` (clap) and a `run`.

use clap::{Parser, Subcommand};

mod util;

/// Tasks of the ibex repository.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Formatting, clippy and documentation, with warnings as errors.
    Lint,
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().task {
        Task::Lint => util::lint(),
    }
}
