//! Time of one SEND between two queue pairs of one process: post of the receive and of the send, both polls.
//!
//! `cargo run --release -p ibex-soft --example direct`. One number per operation and size, the least of several runs, and
//! copies of the same size by libc's memcpy beside it. `direct send 64 ROUNDS` runs one operation alone, for a profiler.
#![allow(unsafe_code)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Instant;

use ibex_sys::*;
use support::*;

/// Runs of each measurement, of which the least counts: others disturb, nothing accelerates.
const RUNS: usize = 7;

fn least(rounds: u64, mut round: impl FnMut(u64)) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..RUNS {
        let start = Instant::now();
        for i in 0..rounds {
            round(i);
        }
        best = best.min(start.elapsed().as_nanos() as f64 / rounds as f64);
    }
    best
}

fn send(pair: &Pair, i: u64, len: usize) {
    pair.b.recv(i, pair.bm.sge(0, len));
    pair.a.send_one(i, pair.am.sge(0, len));
    let mut wc = ibv_wc::default();
    assert_eq!(c!(dispatch::ibv_poll_cq(pair.b.recv.0, 1, &mut wc)), 1);
    assert_eq!(c!(dispatch::ibv_poll_cq(pair.a.send.0, 1, &mut wc)), 1);
}

fn rdma(pair: &Pair, opcode: ibv_wr_opcode, i: u64, len: usize) {
    pair.a.rdma(opcode, i, pair.am.sge(0, len), pair.bm.addr(), pair.bm.rkey());
    let mut wc = ibv_wc::default();
    assert_eq!(c!(dispatch::ibv_poll_cq(pair.a.send.0, 1, &mut wc)), 1);
}

fn main() {
    let pair = Pair::new();
    let mut arguments = std::env::args().skip(1);
    if let (Some(what), Some(len), Some(rounds)) = (arguments.next(), arguments.next(), arguments.next()) {
        let (len, rounds) = (len.parse().expect("bytes"), rounds.parse().expect("rounds"));
        for i in 0..rounds {
            match &*what {
                "send" => send(&pair, i, len),
                "read" => rdma(&pair, IBV_WR_RDMA_READ, i, len),
                _ => rdma(&pair, IBV_WR_RDMA_WRITE, i, len),
            }
        }
        return;
    }
    for (len, rounds) in [(64, 200_000), (4096, 50_000), (65536, 5000), (1 << 20, 300)] {
        let copy = least(rounds, |_| {
            let (from, to) = (pair.am.addr() as usize, pair.bm.addr() as usize);
            c!(libc::memcpy(
                std::ptr::with_exposed_provenance_mut(to),
                std::ptr::with_exposed_provenance(from),
                len
            ));
        });
        let send = least(rounds, |i| send(&pair, i, len));
        let write = least(rounds, |i| rdma(&pair, IBV_WR_RDMA_WRITE, i, len));
        let read = least(rounds, |i| rdma(&pair, IBV_WR_RDMA_READ, i, len));
        println!(
            "{len:8} bytes: SEND {send:8.1} ns, WRITE {write:8.1} ns, READ {read:8.1} ns; memcpy {copy:8.1} ns, \
             {:.2} of it by WRITE",
            copy / write
        );
    }
}
