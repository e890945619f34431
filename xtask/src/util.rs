//! What every task needs: the repository's root, running a command with its failure explained, apt packages.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The repository's root folder.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies one level below the root").to_owned()
}

/// The target directory in force.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// A command that starts in the repository's root.
pub(crate) fn cmd(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// Runs a command to its end and turns a non-zero exit into an error that names it.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}

/// Installs the Debian packages that are missing. Needs root; says what to install otherwise.
pub(crate) fn apt(packages: &[&str]) -> Result<()> {
    let missing: Vec<&str> = packages
        .iter()
        .copied()
        .filter(|package| {
            let output = Command::new("dpkg-query").args(["-W", "-f=${Status}", package]).output();
            !output
                .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("install ok installed"))
        })
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("installing {}", missing.join(" "));
    let install = || {
        run(cmd("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["install", "-y", "-q", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120"])
            .args(&missing))
    };
    run(cmd("apt-get").args(["update", "-q"])).and_then(|()| install()).with_context(|| {
        format!("cannot install {}; as root: apt-get install {}", missing.join(", "), missing.join(" "))
    })
}

/// Builds a benchmark of a crate, in release, and returns where it is.
pub(crate) fn bench_binary(package: &str, name: &str) -> Result<PathBuf> {
    let output = cmd("cargo")
        .args(["build", "--release", "-p", package, "--bench", name, "--message-format=json"])
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!("the benchmark {name} does not build");
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .with_context(|| format!("cargo did not say where the benchmark {name} is"))
}

/// Formatting, clippy and documentation with warnings as errors.
pub(crate) fn lint() -> Result<()> {
    run(cmd("cargo").args(["fmt", "--all", "--check"]))?;
    crate::budget::check()?;
    run(cmd("cargo").args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    run(cmd("cargo").args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
}
