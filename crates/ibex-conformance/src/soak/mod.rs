//! Random operations between processes, over every link of the built-in device, with faults and with processes killed or
//! stopped at random: no wrong byte, no lost or doubled completion, no hang, nothing left behind.
//!
//! Owns rounds: a seed decides everything that is decided (`plan`); the parent starts the processes, introduces their
//! queue pairs to each other, kills and stops (`parent`); each process drives its ends (`worker`), each of which keeps a
//! model of what must be in whose memory and which completion must come next (`end`). Timing is the machine's, so a
//! seed repeats the work and not the interleaving.

mod end;
mod leaks;
mod parent;
mod plan;
mod worker;

use std::time::{Duration, Instant};

/// The environment variable by which the parent tells a process which one it is.
const WORKER: &str = "IBEX_SOAK_WORKER";

/// What a soak is asked to do.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// The first round's seed; each later one is one more.
    pub seed: u64,
    /// No round is begun after this long; at least one is.
    pub time: Duration,
    /// Print every round, not only those that fail.
    pub verbose: bool,
}

impl Options {
    /// From `IBEX_SOAK_SEED` (default 0), `IBEX_SOAK_SECONDS` (default 0: one round) and `IBEX_SOAK_VERBOSE`.
    ///
    /// # Panics
    /// When one is no number.
    pub fn from_env() -> Self {
        let number = |name: &str| {
            std::env::var(name)
                .map_or(0, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
        };
        Self {
            seed: number("IBEX_SOAK_SEED"),
            time: Duration::from_secs(number("IBEX_SOAK_SECONDS")),
            verbose: std::env::var_os("IBEX_SOAK_VERBOSE").is_some(),
        }
    }
}

/// Sums over all rounds.
#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    rounds: u64,
    operations: u64,
    broken: u64,
    killed: u64,
    stopped: u64,
}

/// Runs rounds until the time is up; in a process started by one, plays its part instead. True if nothing failed.
pub fn run(options: &Options) -> bool {
    if let Ok(worker) = std::env::var(WORKER) {
        worker::run(&worker);
        return true;
    }
    let start = Instant::now();
    let mut totals = Totals::default();
    let mut seed = options.seed;
    loop {
        let plan = plan::Plan::new(seed);
        match parent::round(&plan) {
            Ok(round) => {
                totals.rounds += 1;
                totals.operations += round.operations;
                totals.broken += round.broken;
                totals.killed += u64::from(plan.kills());
                totals.stopped += u64::from(plan.stops());
                if options.verbose {
                    println!("{plan}: {} operations, {} connections broken", round.operations, round.broken);
                }
            }
            Err(failure) => {
                println!("FAILED {plan}\n{failure}\nagain: cargo xtask soak --seed {seed} --seconds 0");
                return false;
            }
        }
        seed += 1;
        if start.elapsed() >= options.time {
            break;
        }
    }
    println!(
        "soak: {} rounds from seed {} in {:.0} s: {} operations verified, {} processes killed, {} stopped, {} connections \
         broken by that and by nothing else",
        totals.rounds,
        options.seed,
        start.elapsed().as_secs_f64(),
        totals.operations,
        totals.killed,
        totals.stopped,
        totals.broken
    );
    true
}
