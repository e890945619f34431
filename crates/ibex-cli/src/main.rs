//! The `ibex` command: what RDMA devices there are, how fast they are, and files by one-sided operations.
//!
//! Owns the command line, the second process of a benchmark and the file copy protocol; everything that touches a
//! device goes through the safe crate `ibex`. Results go to standard output, everything else to standard error.
//!
//! Exit status: 0 when everything asked for was done, 1 when something failed (the reason is on standard error), 2
//! when the command line is not understood.

#![forbid(unsafe_code)]

mod args;
mod bench;
mod control;
mod copy;
mod device;
mod devices;
mod devinfo;
mod output;

use std::process::ExitCode;

use args::{Cli, Command};
use clap::Parser;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.command {
        Command::Devices(args) => devices::run(args),
        Command::Devinfo(args) => devinfo::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Serve(args) => copy::serve(args),
        Command::Cp(args) => copy::cp(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&error);
            ExitCode::FAILURE
        }
    }
}
