//! Random sequences of calls, sensible and absurd, on the built-in device.

use ibex_conformance::abuse::{self, Tally};
use ibex_conformance::lab::Lab;

/// Sequences; each takes about a millisecond.
const SEQUENCES: u64 = 300;

#[test]
fn random_calls_lose_nothing_and_touch_nothing() {
    let lab = Lab::open();
    let mut sum = Tally::default();
    for seed in 0..SEQUENCES {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut bytes = vec![0; rng.usize(1..1500)];
        rng.fill(&mut bytes);
        let played = std::panic::catch_unwind(|| abuse::play(&lab, &bytes));
        sum += played.unwrap_or_else(|_| panic!("sequence {seed}; the reason is above"));
    }
    // Otherwise the sequences do not get anywhere.
    assert!(sum.succeeded > SEQUENCES / 10 && sum.failed > SEQUENCES && sum.refused > SEQUENCES, "{sum:?}");
}
