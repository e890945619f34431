//! What a message costs between two processes that share memory: latency and rate of 64-byte SENDs, bandwidth of long ones.
//!
//! `cargo run --release -p ibex-soft --example host [rounds]`. The program starts itself a second time. On a crowded machine the
//! two seldom run at once, so that what is told is the best of many short runs.
#![allow(unsafe_code)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Instant;

use ibex_sys::*;
use support::*;

const BYTES: usize = 64;
const MIB: usize = 1 << 20;
/// Round trips in a run: about 20 µs.
const PINGS: u64 = 32;
/// Messages in a run, and in a list.
const MESSAGES: u64 = 8192;
const LIST: usize = 32;

struct Rig {
    qp: Qp,
    memory: Mr,
}

fn rig(link: &mut peer::Link) -> Rig {
    let context = Context::open();
    let pd = Pd::alloc(&context);
    let cq = Cq::create(&context, 8192, None);
    let cap = ibv_qp_cap { max_send_wr: 1024, max_recv_wr: 4096, ..Wish::default().cap };
    let qp = Qp::create(&pd, &cq, &cq, Wish { cap, ..Wish::default() });
    let memory = Mr::reg(&pd, 4 * MIB, ALL);
    let other = link.exchange(qp.endpoint(1));
    qp.connect(other);
    // The peers have met when a message went each way.
    qp.recv(1, memory.sge(4096, BYTES));
    link.meet();
    qp.send_one(9, memory.sge(0, BYTES));
    for _ in 0..2 {
        qp.send.success();
    }
    std::thread::sleep(std::time::Duration::from_millis(20));
    link.meet();
    Rig { qp, memory }
}

fn receive(rig: &Rig) {
    loop {
        if let Some(wc) = rig.qp.send.poll() {
            assert_eq!(wc.status, IBV_WC_SUCCESS);
            if wc.opcode == IBV_WC_RECV {
                return;
            }
        }
    }
}

/// Half a round trip, nanoseconds.
fn latency(rig: &Rig, first: bool) -> f64 {
    let start = Instant::now();
    for i in 0..PINGS {
        if first {
            rig.qp.send_one(i, rig.memory.sge(0, BYTES));
        }
        receive(rig);
        rig.qp.recv(i, rig.memory.sge(4096, BYTES));
        if !first {
            rig.qp.send_one(i, rig.memory.sge(0, BYTES));
        }
    }
    start.elapsed().as_nanos() as f64 / PINGS as f64 / 2.0
}

/// Posts a list of requests with one call, the last signalled.
fn post_list(rig: &Rig) {
    let mut sge = rig.memory.sge(0, BYTES);
    let mut list: Vec<ibv_send_wr> =
        (0..LIST).map(|i| wr(IBV_WR_SEND, i as u64, std::slice::from_mut(&mut sge))).collect();
    for i in 0..LIST - 1 {
        list[i].next = &raw mut list[i + 1];
        list[i].send_flags = 0;
    }
    rig.qp.post(&mut list[0]);
}

fn recv_list(rig: &Rig, count: usize) {
    let mut sge = rig.memory.sge(4096, BYTES);
    let mut list: Vec<ibv_recv_wr> = (0..count)
        .map(|i| ibv_recv_wr { wr_id: i as u64, sg_list: &raw mut sge, num_sge: 1, ..Default::default() })
        .collect();
    for i in 0..count - 1 {
        list[i].next = &raw mut list[i + 1];
    }
    let mut bad = std::ptr::null_mut();
    assert_eq!(c!(dispatch::ibv_post_recv(rig.qp.qp, &mut list[0], &mut bad)), 0);
}

fn poll_list(rig: &Rig, entries: &mut [ibv_wc]) -> usize {
    let count = c!(dispatch::ibv_poll_cq(rig.qp.send.0, entries.len() as i32, entries.as_mut_ptr()));
    let count = usize::try_from(count).expect("a count");
    assert!(entries[..count].iter().all(|wc| wc.status == IBV_WC_SUCCESS));
    count
}

/// Messages a second, of a receiver that has receives enough.
fn rate(rig: &Rig, link: &mut peer::Link, first: bool) -> f64 {
    let mut entries = [ibv_wc::default(); LIST];
    if first {
        link.meet();
        let lists = MESSAGES / LIST as u64;
        let (mut posted, mut done) = (0, 0);
        while done < lists {
            // As many as the queue holds, the receiver's queue being four times as long; less one list, since the completion of
            // an earlier message may come only now and be counted here.
            while posted < lists && posted - done < 1024 / LIST as u64 - 1 {
                post_list(rig);
                posted += 1;
            }
            done += poll_list(rig, &mut entries) as u64;
        }
        link.meet();
        return 0.0;
    }
    let mut receives = 0;
    while receives < 2048 {
        recv_list(rig, 64);
        receives += 64;
    }
    link.meet();
    let (mut got, mut start) = (0, None);
    while got < MESSAGES as usize {
        let count = poll_list(rig, &mut entries);
        got += count;
        if count > 0 && start.is_none() {
            start = Some((Instant::now(), got));
        }
        if receives < MESSAGES as usize && receives < got + 2048 {
            recv_list(rig, 64);
            receives += 64;
        }
    }
    let (start, before) = start.expect("some came");
    let rate = (got - before) as f64 / start.elapsed().as_secs_f64();
    link.meet();
    rate
}

/// SENDs of so many bytes, GB/s.
fn bandwidth(rig: &Rig, link: &mut peer::Link, first: bool, size: usize) -> f64 {
    const COUNT: u64 = 32;
    if !first {
        for i in 0..COUNT {
            rig.qp.recv(i, rig.memory.sge(2 * MIB, size));
        }
    }
    link.meet();
    let start = Instant::now();
    if first {
        for i in 0..COUNT {
            rig.qp.send_one(i, rig.memory.sge(0, size));
        }
    }
    for _ in 0..COUNT {
        rig.qp.send.success();
    }
    let rate = COUNT as f64 * size as f64 / start.elapsed().as_nanos() as f64;
    link.meet();
    rate
}

fn run(link: &mut peer::Link, first: bool, rounds: u64) {
    let rig = rig(link);
    let mut best = f64::MAX;
    for _ in 0..rounds {
        for i in 0..4 {
            rig.qp.recv(i, rig.memory.sge(4096, BYTES));
        }
        link.meet();
        for _ in 0..4 {
            best = best.min(latency(&rig, first));
        }
        link.meet();
        while rig.qp.send.poll().is_some() {}
        // What remains of the receives goes with the next messages.
        link.meet();
        for i in 0..4 {
            rig.qp.send_one(i, rig.memory.sge(0, BYTES));
        }
        for _ in 0..8 {
            rig.qp.send.success();
        }
        link.meet();
    }
    if first {
        println!("64 B SEND one way      {best:8.0} ns");
    }
    let mut most = 0.0f64;
    for _ in 0..rounds / 4 {
        most = most.max(rate(&rig, link, first));
    }
    if !first {
        println!("64 B SEND, lists of {LIST}  {:8.2} M/s", most / 1e6);
    }
    link.meet();
    for size in [4096, 65_536, MIB] {
        let mut most = 0.0f64;
        for _ in 0..rounds / 10 {
            most = most.max(bandwidth(&rig, link, first, size));
        }
        if first {
            println!("SEND of {size:8} bytes {most:8.2} GB/s");
        }
    }
}

fn main() {
    let rounds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(200);
    match peer::second() {
        Some(mut link) => {
            let rounds = link.take();
            run(&mut link, false, rounds);
        }
        None => {
            let mut other = peer::start("host");
            other.link.put(rounds);
            run(&mut other.link, true, rounds);
            other.join();
        }
    }
}
