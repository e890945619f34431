//! `cargo xtask ci`: every check in the order in which a failure is cheapest to learn.

use std::time::Instant;

use anyhow::{Context, Result};

use crate::util;

/// What continuous integration runs.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave out `cargo test`, for a caller that has just run it.
    #[arg(long)]
    skip_test: bool,
    /// Leave out everything that boots a virtual machine.
    #[arg(long)]
    no_vm: bool,
}

/// One step: its name and the cargo arguments that run it.
struct Step {
    name: &'static str,
    args: Vec<&'static str>,
    /// The best link of the built-in device that the step may use.
    link: Option<&'static str>,
}

fn steps(args: &Args) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut step = |name, args: &[&'static str]| steps.push(Step { name, args: args.to_vec(), link: None });
    if !args.skip_test {
        step("tests", &["test"]);
    }
    step("lints and documentation", &["xtask", "lint"]);
    step("tests of xtask", &["test", "--package", "xtask"]);
    step("C layouts against the installed headers", &["xtask", "abi", "--check"]);
    step("benchmark on the built-in device", &["xtask", "bench-check"]);
    step("simulated network", &["xtask", "sim", "--seeds", "2000"]);
    step("fuzzing, a smoke", &["xtask", "fuzz", "--seconds", "30"]);
    step("random operations, processes killed", &["xtask", "soak", "--seconds", "120"]);
    step("the device's links, measured", &["xtask", "bench-device", "--quick"]);
    step("instructions per operation", &["xtask", "cost"]);
    step("serve and cp", &["xtask", "copy-test"]);
    // `cargo test` has run the suite with every link allowed.
    let suite = ["test", "--package", "ibex-conformance", "--test", "conformance"];
    for (name, link) in [
        ("conformance, everything through shared memory", "host"),
        ("conformance, everything through UDP", "wire"),
    ] {
        steps.push(Step { name, args: suite.to_vec(), link: Some(link) });
    }
    let mut step = |name, args: &[&'static str]| steps.push(Step { name, args: args.to_vec(), link: None });
    if args.no_vm {
        step("C programs on the drop-in libraries", &["xtask", "interop", "--quick", "--no-vm"]);
    } else {
        step("C programs on the drop-in libraries, and against rxe", &["xtask", "interop", "--quick"]);
        step("conformance on the kernel's rxe", &["xtask", "vm", "--kernel", "all"]);
    }
    steps
}

/// Runs the steps; stops at the first failure; ends with how long each took.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut table = Vec::new();
    for step in steps(args) {
        println!("\n=== {} (cargo {})", step.name, step.args.join(" "));
        let start = Instant::now();
        let mut command = util::cmd("cargo");
        command.args(&step.args);
        if let Some(link) = step.link {
            command.env("IBEX_SOFT_LINK", link);
        }
        util::run(&mut command).with_context(|| format!("failed: {}", step.name))?;
        table.push((step.name, start.elapsed()));
    }
    println!("\n=== all green");
    for (name, took) in table {
        println!("{:>6.1} s  {name}", took.as_secs_f64());
    }
    Ok(())
}
