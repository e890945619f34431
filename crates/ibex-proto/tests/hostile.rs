//! Random scripts against live queue pairs: what the fuzz target `connection` does with chosen bytes.

use ibex_proto::sim::{Rng, play};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_script(script in proptest::collection::vec(any::<u8>(), 0..400)) {
        play(&script);
    }
}

#[test]
fn long_scripts() {
    for seed in 0..1000 {
        let script = Rng::new(seed).bytes(3000);
        if std::panic::catch_unwind(|| play(&script)).is_err() {
            panic!("script of seed {seed}");
        }
    }
}
