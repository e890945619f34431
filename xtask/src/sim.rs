//! `cargo xtask sim`: random queue pairs of each service over a faulty network, in virtual time, every byte and completion
//! checked; and random connections made and ended.
//!
//! Owns choosing seeds and saying how to repeat one. What a run does is `ibex_proto::sim`'s and
//! `ibex_proto::cm::sim`'s.

use std::panic::catch_unwind;
use std::time::Instant;

use anyhow::{Result, bail};
use ibex_proto::QpType;
use ibex_proto::cm;
use ibex_proto::sim::{self, Limits, Report};

/// Which runs, and how bad the network may be.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many runs [default: 1000, or 1 with --seed].
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed [default: 0].
    #[arg(long)]
    seed: Option<u64>,
    /// The most packets lost, in percent.
    #[arg(long, default_value_t = 20.0)]
    loss: f64,
    /// The most packets delivered twice, in percent.
    #[arg(long, default_value_t = 20.0)]
    duplicate: f64,
    /// The most packets overtaken by later ones, in percent.
    #[arg(long, default_value_t = 20.0)]
    reorder: f64,
    /// The most packets damaged, in percent.
    #[arg(long, default_value_t = 2.0)]
    corrupt: f64,
}

impl Args {
    fn limits(&self) -> Limits {
        let parts = |percent: f64| (percent.clamp(0.0, 100.0) * 10_000.0) as u32;
        Limits {
            loss: parts(self.loss),
            duplicate: parts(self.duplicate),
            reorder: parts(self.reorder),
            corrupt: parts(self.corrupt),
        }
    }

    /// The command that repeats one seed with these limits.
    fn repeat(&self, seed: u64) -> String {
        let mut command = format!("cargo xtask sim --seed {seed}");
        if self.limits() != Limits::default() {
            command += &format!(
                " --loss {} --duplicate {} --reorder {} --corrupt {}",
                self.loss, self.duplicate, self.reorder, self.corrupt
            );
        }
        command
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let count = args.seeds.unwrap_or(if args.seed.is_some() { 1 } else { 1000 });
    let first = args.seed.unwrap_or(0);
    let limits = args.limits();
    let started = Instant::now();
    let mut total = Report::default();
    let (mut calls, mut connected) = (0, 0);
    for seed in first..first.saturating_add(count) {
        let all = || {
            let mut report = sim::run(seed, &limits)?;
            for qp_type in [QpType::Uc, QpType::Ud] {
                let unreliable = sim::run_unreliable(seed, qp_type, &limits);
                report += unreliable.map_err(|what| format!("{qp_type:?}: {what}"))?;
            }
            // It panics at what is wrong, and its network is as bad as the seed says.
            let connections = cm::sim::run(seed);
            Ok::<_, String>((report, connections))
        };
        let what = match catch_unwind(all) {
            Ok(Ok((report, connections))) => {
                total += report;
                calls += connections.calls;
                connected += connections.connected;
                continue;
            }
            Ok(Err(what)) => what,
            Err(_) => "panicked, see above".to_owned(),
        };
        bail!("seed {seed}: {what}\nrepeat it alone: {}", args.repeat(seed));
    }
    println!(
        "{count} runs passed in {:.1} s: {} requests ({} sabotaged), {} messages, {} packets of which {} lost, \
         {} retransmissions, {} waits for receivers, {:.1} s of virtual time",
        started.elapsed().as_secs_f64(),
        total.requests,
        total.sabotaged,
        total.messages,
        total.packets,
        total.lost,
        total.retransmissions,
        total.rnr,
        total.time as f64 / 1e9
    );
    println!("{calls} connections asked for, {connected} established");
    Ok(())
}
