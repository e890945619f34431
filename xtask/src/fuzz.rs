//! `cargo xtask fuzz`: the fuzz targets of `fuzz/`, with libFuzzer, for a while.
//!
//! Owns building with coverage instrumentation on the stable toolchain, and where corpus and findings lie. The targets,
//! and the properties they share with plain tests, are in `fuzz/targets`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::util;

/// Every target, in the order run.
const TARGETS: [&str; 4] = ["packet", "connection", "cm", "verbs"];

/// What SanitizerCoverage needs; libFuzzer reads counters, the table of places, and compared values. Memory errors are
/// not looked for: the crates under test have no unsafe code.
const FLAGS: &str = "--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module \
     -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
     -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Which targets, and for how long.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The target; all of them one after the other if none is named.
    #[arg(value_parser = TARGETS)]
    target: Option<String>,
    /// Seconds for each target.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Only run this input, such as a finding.
    #[arg(long, requires = "target")]
    input: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let build = util::target_dir().join("fuzz");
    let triple = host()?;
    // A named target triple keeps the instrumentation out of build scripts and procedural macros.
    util::run(
        util::cmd("cargo")
            .args([
                "build",
                "--quiet",
                "--release",
                "--manifest-path",
                "fuzz/Cargo.toml",
                "--target",
                &triple,
            ])
            .env("CARGO_TARGET_DIR", &build)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("RUSTFLAGS", FLAGS),
    )
    .context("cannot build the fuzz targets; a C++ compiler is needed (apt-get install g++)")?;
    let targets = match &args.target {
        Some(target) => vec![target.as_str()],
        None => TARGETS.to_vec(),
    };
    for target in targets {
        let program = build.join(&triple).join("release").join(target);
        let mut command = util::cmd(&program);
        if let Some(input) = &args.input {
            util::run(command.arg(std::path::absolute(input)?))?;
            continue;
        }
        let corpus = util::root().join("fuzz/corpus").join(target);
        let findings = util::root().join("fuzz/artifacts").join(target);
        std::fs::create_dir_all(&corpus)?;
        std::fs::create_dir_all(&findings)?;
        println!("fuzzing {target} for {} s", args.seconds);
        let output = command
            .arg(format!("-max_total_time={}", args.seconds))
            .arg(format!("-artifact_prefix={}/", findings.display()))
            // Longer scripts say nothing new; a slow one is a finding too.
            .args([
                "-max_len=2048",
                "-timeout=10",
                "-rss_limit_mb=1024",
                "-print_final_stats=1",
                "-verbosity=0",
            ])
            .arg(&corpus)
            .output()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            eprintln!("{said}");
            bail!(
                "{target} found something; repeat it: cargo xtask fuzz {target} --input fuzz/artifacts/{target}/<file named above>"
            );
        }
        // The rest is a dictionary that libFuzzer recommends, hundreds of lines long.
        for line in said.lines().filter_map(|line| line.strip_prefix("stat::")) {
            println!("  {line}");
        }
    }
    Ok(())
}

/// The triple this machine compiles for.
fn host() -> Result<String> {
    let output = util::cmd("rustc").arg("-vV").output().context("cannot start rustc")?;
    let text = String::from_utf8(output.stdout).context("rustc -vV is not text")?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    Ok(host.to_owned())
}
