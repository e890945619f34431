//! Random operations between processes that fail at random; `cargo xtask soak` is its front door.

fn main() {
    if !ibex_conformance::soak::run(&ibex_conformance::soak::Options::from_env()) {
        std::process::exit(1);
    }
}
