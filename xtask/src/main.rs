//! The project's front door: `cargo xtask <task>`. Each task is a module with a `Args` (clap) and a `run`.

use clap::{Parser, Subcommand};

mod abi;
mod bench_check;
mod bench_device;
mod budget;
mod ci;
mod copy_test;
mod cost;
mod dropin;
mod fuzz;
mod interop;
mod scale;
mod sim;
mod soak;
mod util;
mod vm;

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
    /// What the C compiler says about rdma-core's headers, as golden files for ibex-sys.
    Abi(abi::Args),
    /// Everything that continuous integration runs.
    Ci(ci::Args),
    /// Build the drop-in libibverbs.so.1 and librdmacm.so.1 into target/dropin.
    Dropin(dropin::Args),
    /// Debian's unmodified C programs over the drop-in libraries, and against the kernel's rxe.
    Interop(interop::Args),
    /// Copies files with `ibex serve` and `ibex cp`, with a server that is killed on the way.
    CopyTest(copy_test::Args),
    /// Instructions per post and poll, over verbs that do nothing, beside C's.
    Cost(cost::Args),
    /// The files that allow unsafe code, against the table in ARCHITECTURE.md.
    Budget(budget::Args),
    /// Holds the figures of `ibex bench --quick` against the project's limits.
    BenchCheck(bench_check::Args),
    /// The software device between two spinning processes, beside memcpy, UDP and UCX.
    BenchDevice(bench_device::Args),
    /// The fuzz targets, for a while.
    Fuzz(fuzz::Args),
    /// Random connections over a simulated, faulty network.
    Sim(sim::Args),
    /// Ten thousand queue pairs between two processes: memory each, cost of a SEND against one pair's.
    Scale(scale::Args),
    /// Random operations between processes on every link, with faults, processes killed and stopped.
    Soak(soak::Args),
    /// The conformance suite on the kernel's rxe device, in a virtual machine.
    Vm(vm::Args),
    /// perftest on the software device and on the kernel's rxe, in one boot of the virtual machine.
    VmBench(vm::bench::Args),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().task {
        Task::Lint => util::lint(),
        Task::Abi(args) => abi::run(&args),
        Task::Ci(args) => ci::run(&args),
        Task::Dropin(args) => dropin::run(&args),
        Task::Interop(args) => interop::run(&args),
        Task::CopyTest(args) => copy_test::run(&args),
        Task::Cost(args) => cost::run(&args),
        Task::Budget(args) => budget::run(&args),
        Task::BenchCheck(args) => bench_check::run(&args),
        Task::BenchDevice(args) => bench_device::run(&args),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Sim(args) => sim::run(&args),
        Task::Scale(args) => scale::run(&args),
        Task::Soak(args) => soak::run(&args),
        Task::Vm(args) => vm::run(args),
        Task::VmBench(args) => vm::bench::run(&args),
    }
}
