//! What the layers cost: instructions per post and poll over verbs that do nothing, counted by callgrind.
//!
//! Instructions are exact where times are not: each row runs twice, with different numbers of iterations, and the
//! difference divided by the difference is the cost of one. The rows of C are compiled and counted the same way.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::util;

/// The two numbers of iterations: far enough apart that start-up vanishes, few enough for callgrind.
const ITERATIONS: (u64, u64) = (1_000, 11_000);

/// Limits of the project, in instructions.
const LIMITS: &[(&str, f64)] = &[("classic_reused", 60.0), ("safe", 130.0)];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    util::apt(&["valgrind", "gcc", "libc6-dev", "libibverbs-dev"])?;
    let built = Built::new()?;
    let mut rows = Vec::new();
    for row in ["classic_reused", "classic_built", "safe"] {
        rows.push((row.to_owned(), built.count(&built.rust, row)?));
    }
    for row in ["reused", "built"] {
        rows.push((format!("c_classic_{row}"), built.count(&built.c, row)?));
    }
    report(&rows, args.json);
    let above: Vec<String> = LIMITS
        .iter()
        .filter_map(|&(row, limit)| {
            let (_, cost) = rows.iter().find(|(name, _)| name == row)?;
            (*cost > limit).then(|| format!("{row} costs {cost} instructions, limit {limit}"))
        })
        .collect();
    if !above.is_empty() {
        bail!("{}", above.join("; "));
    }
    Ok(())
}

fn report(rows: &[(String, f64)], json: bool) {
    if json {
        let object: serde_json::Map<String, serde_json::Value> =
            rows.iter().map(|(row, cost)| (row.clone(), (*cost).into())).collect();
        println!("{}", serde_json::Value::Object(object));
        return;
    }
    println!("{:18} {:>12} {:>6}", "post + poll", "instructions", "limit");
    for (row, cost) in rows {
        let limit = LIMITS.iter().find(|(name, _)| name == row);
        println!("{row:18} {cost:>12.1} {:>6}", limit.map_or(String::new(), |(_, limit)| limit.to_string()));
    }
}

/// The programs to count.
struct Built {
    dir: PathBuf,
    noop: PathBuf,
    rust: PathBuf,
    c: PathBuf,
}

impl Built {
    fn new() -> Result<Self> {
        let dir = util::target_dir().join("cost");
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let source = util::root().join("crates/ibex/benches/cost");
        let (noop, c) = (dir.join("libnoop.so"), dir.join("classic"));
        util::run(
            util::cmd("cc")
                .args(["-O2", "-Wall", "-shared", "-fPIC", "-o"])
                .arg(&noop)
                .arg(source.join("noop.c")),
        )?;
        util::run(
            util::cmd("cc")
                .args(["-O2", "-Wall", "-o"])
                .arg(&c)
                .arg(source.join("classic.c"))
                .arg(&noop)
                .arg(format!("-Wl,-rpath,{}", dir.display())),
        )?;
        let rust = util::bench_binary("ibex", "cost")?;
        Ok(Self { dir, noop, rust, c })
    }

    /// Instructions per iteration of a row.
    fn count(&self, program: &Path, row: &str) -> Result<f64> {
        let (few, many) = ITERATIONS;
        let (low, high) = (self.total(program, row, few)?, self.total(program, row, many)?);
        let cost = high.saturating_sub(low) as f64 / (many - few) as f64;
        // Tenths: what is left of the start-up is noise.
        Ok((cost * 10.0).round() / 10.0)
    }

    /// All instructions of a run.
    fn total(&self, program: &Path, row: &str, iterations: u64) -> Result<u64> {
        let out = self.dir.join("callgrind.out");
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--quiet"])
            .arg(format!("--callgrind-out-file={}", out.display()))
            .arg(program)
            .args([row, &iterations.to_string()])
            .env("IBEX_COST_NOOP", &self.noop)
            .output()
            .context("cannot start valgrind")?;
        if !output.status.success() {
            bail!(
                "{} {row} failed under valgrind: {}",
                program.display(),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        let profile =
            std::fs::read_to_string(&out).with_context(|| format!("cannot read {}", out.display()))?;
        let total = profile.lines().find_map(|line| line.strip_prefix("totals: "));
        let total = total.and_then(|total| total.trim().parse().ok());
        total.with_context(|| format!("no totals in {}", out.display()))
    }
}
