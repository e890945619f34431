//! Random connections between up to three engines over faulty networks; each seed is a world of its own. `cargo xtask sim`
//! plays more of them, and one alone.

use ibex_proto::cm::sim;

#[test]
fn every_connection_comes_to_one_outcome() {
    let mut total = sim::Report::default();
    for seed in 0..400 {
        // The seed is named when it fails.
        let report = std::panic::catch_unwind(|| sim::run(seed)).unwrap_or_else(|_| panic!("seed {seed}"));
        total.calls += report.calls;
        total.connected += report.connected;
        total.rejected += report.rejected;
        total.unreachable += report.unreachable;
    }
    // The worlds are such that all of it happens.
    assert!(total.connected * 2 > total.calls, "{total:?}");
    assert!(total.rejected > 0 && total.unreachable > 0, "{total:?}");
}

/// Reply, refusal and, the engine remembering few, the end of TIMEWAIT at the same instant: the host reads the first when
/// all is over.
#[test]
fn a_reply_and_its_withdrawal_at_the_same_instant() {
    sim::run(40_617);
}

#[test]
fn a_seed_repeats_itself() {
    for seed in 0..20 {
        assert_eq!(sim::run(seed), sim::run(seed));
    }
}

/// Scripts of random bytes; the fuzz target `cm` chooses them better.
#[test]
fn scripts() {
    let mut rng = ibex_proto::sim::Rng::new(7);
    for _ in 0..3000 {
        let len = rng.range(1, 400) as usize;
        sim::play(&rng.bytes(len));
    }
}
