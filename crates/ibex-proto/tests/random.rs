//! Random runs of the simulator: a few hundred seeds of what `cargo xtask sim` runs by the ten thousand.

use ibex_proto::sim::{Limits, Report, run};

#[test]
fn three_hundred_seeds() {
    let mut total = Report::default();
    for seed in 0..300 {
        match run(seed, &Limits::default()) {
            Ok(report) => total += report,
            Err(what) => panic!("{what}\nrepeat it alone: cargo xtask sim --seed {seed}"),
        }
    }
    // A simulator that does nothing finds nothing.
    assert!(total.requests > 5000 && total.retransmissions > 1000 && total.rnr > 100, "{total:?}");
    assert!(total.sabotaged > 20 && total.lost > 1000, "{total:?}");
}
