//! What many operations may be reading cannot be changed.
use ibex::FrozenBuf;

fn main() {}

fn change(mut frozen: FrozenBuf) {
    frozen[0] = 1;
}
