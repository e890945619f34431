//! Whoever makes the promises that soundness rests on must say `unsafe`.
use ibex::mem::{StableMem, StableMemMut};
use ibex::{Provider, Source, sys};

fn main() {}

struct Mine(Vec<u8>);

impl StableMem for Mine {
    const WRITABLE: bool = true;

    fn region(&self) -> (*const u8, usize) {
        (self.0.as_ptr(), self.0.len())
    }
}

impl StableMemMut for Mine {
    fn region_mut(&mut self) -> *mut u8 {
        self.0.as_mut_ptr()
    }
}

impl Source for Mine {
    fn bytes(&self) -> usize {
        self.0.len()
    }

    fn gather(&self, _: &mut [sys::ibv_sge]) -> usize {
        0
    }
}

fn table(verbs: &'static sys::Verbs) -> Provider {
    Provider::custom(verbs)
}
