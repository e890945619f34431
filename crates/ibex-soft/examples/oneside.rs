//! WRITE between two processes: one way of 64 bytes, seen by the receiver in its memory, and bandwidth beside memcpy.
//!
//! `cargo run --release -p ibex-soft --example oneside`. The program starts itself a second time. Each number twice: with memory
//! that both processes map, and with memory of which only the kernel copies.
#![allow(unsafe_code)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::sync::atomic::Ordering;
use std::time::Instant;

use ibex_sys::*;
use support::*;

const BYTES: usize = 4 << 20;
/// Round trips.
const ROUNDS: u64 = 50_000;
/// Runs of every other measurement, of which the least counts.
const RUNS: usize = 5;

struct Rig {
    qp: Qp,
    memory: Mr,
    addr: u64,
    rkey: u32,
}

fn rig(link: &mut peer::Link, mapped: bool) -> Rig {
    let context = Context::open();
    let pd = Pd::alloc(&context);
    let cq = Cq::create(&context, 256, None);
    let qp = Qp::create(&pd, &cq, &cq, Wish::default());
    let memory = if mapped { Mr::reg_shared(&pd, BYTES, ALL) } else { Mr::reg(&pd, BYTES, ALL) };
    let theirs = link.exchange(qp.endpoint(1));
    qp.connect(theirs);
    link.put(memory.addr());
    link.put(u64::from(memory.rkey()));
    let (addr, rkey) = (link.take(), link.take() as u32);
    let rig = Rig { qp, memory, addr, rkey };
    link.meet();
    // Until the processes have attached.
    let start = Instant::now();
    while start.elapsed().as_millis() < 50 {
        rig.write(BYTES - 64, 8);
        rig.qp.send.success();
    }
    link.meet();
    rig
}

impl Rig {
    fn write(&self, at: usize, len: usize) {
        self.qp.rdma(IBV_WR_RDMA_WRITE, 1, self.memory.sge(at, len), self.addr + at as u64, self.rkey);
    }

    /// Half a round trip, in nanoseconds: the median, since others disturb.
    fn one_way(&self, link: &mut peer::Link, first: bool) -> f64 {
        // What is sent from the second line of 64 bytes arrives in the third, its last word last.
        let (out, seen) = (self.memory.word(15), self.memory.word(23));
        let mut samples = Vec::with_capacity(ROUNDS as usize);
        link.meet();
        for count in 1..=ROUNDS {
            let start = Instant::now();
            out.store(count, Ordering::Release);
            let send = || {
                self.qp.rdma(IBV_WR_RDMA_WRITE, 1, self.memory.sge(64, 64), self.addr + 128, self.rkey);
                self.qp.send.success();
            };
            if first {
                send();
            }
            while seen.load(Ordering::Acquire) != count {
                std::hint::spin_loop();
            }
            if !first {
                send();
            }
            samples.push(start.elapsed().as_nanos() as u64);
        }
        samples.sort_unstable();
        samples[samples.len() / 2] as f64 / 2.0
    }

    /// Nanoseconds of one WRITE of so many bytes.
    fn bulk(&self, len: usize) -> f64 {
        least((16 << 20) / len as u64, || {
            self.write(0, len);
            self.qp.send.success();
        })
    }
}

fn least(rounds: u64, mut round: impl FnMut()) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..RUNS {
        let start = Instant::now();
        for _ in 0..rounds.max(20) {
            round();
        }
        best = best.min(start.elapsed().as_nanos() as f64 / rounds.max(20) as f64);
    }
    best
}

fn main() {
    let second = peer::second();
    let mut other = second.is_none().then(|| peer::start("main"));
    let mut second = second;
    for mapped in [true, false] {
        let (link, first) = match (&mut other, &mut second) {
            (Some(peer), _) => (&mut peer.link, true),
            (None, Some(link)) => (link, false),
            (None, None) => return,
        };
        let rig = rig(link, mapped);
        let way = rig.one_way(link, first);
        if first {
            println!("{}", if mapped { "mapped by both" } else { "copied by the kernel" });
            println!("  64 B WRITE, one way  {way:8.1} ns");
            for len in [64, 4096, 65536, 1 << 20] {
                let write = rig.bulk(len);
                let copy = least((16 << 20) / len as u64, || {
                    let (from, to) = (rig.memory.addr() as usize, rig.memory.addr() as usize + BYTES / 2);
                    let from = std::ptr::with_exposed_provenance(from);
                    c!(libc::memcpy(std::ptr::with_exposed_provenance_mut(to), from, len));
                });
                println!(
                    "  {len:8} B WRITE     {write:8.1} ns; memcpy {copy:8.1} ns, {:.2} of it",
                    copy / write
                );
            }
        }
        link.meet();
    }
    if let Some(peer) = other {
        peer.join();
    }
}
