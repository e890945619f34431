//! Random runs of the simulator: a few hundred seeds of what `cargo xtask sim` runs by the ten thousand.

use ibex_proto::QpType;
use ibex_proto::sim::{Limits, Report, run, run_unreliable};

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

#[test]
fn unreliable_services() {
    for qp_type in [QpType::Uc, QpType::Ud] {
        let mut total = Report::default();
        for seed in 0..500 {
            match run_unreliable(seed, qp_type, &Limits::default()) {
                Ok(report) => total += report,
                Err(what) => panic!("{qp_type:?} seed {seed}: {what}"),
            }
        }
        assert!(total.messages > 5000 && total.lost > 1000 && total.messages < total.requests, "{total:?}");
    }
}
