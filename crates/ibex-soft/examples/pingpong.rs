//! Latency and bandwidth between two processes, with raw UDP beside them.
//!
//! `cargo run --release -p ibex-soft --example pingpong [iterations]`. The program starts itself a second time. Spinning
//! latency is half a round trip of 64 bytes; bandwidth is that of 1 MiB messages, sixteen outstanding.
#![allow(unsafe_code)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::net::UdpSocket;
use std::time::Instant;

use ibex_sys::*;
use support::*;

const BYTES: usize = 64;
const MIB: usize = 1 << 20;
const WINDOW: u64 = 16;

/// Half round trips in nanoseconds, sorted.
fn report(what: &str, mut samples: Vec<u64>) -> f64 {
    samples.sort_unstable();
    let at = |share: f64| samples[((samples.len() - 1) as f64 * share) as usize] as f64 / 2000.0;
    println!("{what:24} p50 {:8.2} us   p99 {:8.2} us", at(0.5), at(0.99));
    at(0.5)
}

fn udp(link: &mut peer::Link, first: bool, iterations: u64, blocking: bool) -> Option<f64> {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    link.put(u64::from(socket.local_addr().expect("bound").port()));
    let port = link.take() as u16;
    socket.connect(("127.0.0.1", port)).expect("loopback");
    socket.set_nonblocking(!blocking).expect("a socket");
    link.meet();
    let mut buffer = [0u8; BYTES];
    let mut samples = Vec::new();
    let receive = |buffer: &mut [u8]| while socket.recv(buffer).is_err() {};
    for _ in 0..iterations {
        if first {
            let start = Instant::now();
            socket.send(&buffer).expect("a peer");
            receive(&mut buffer);
            samples.push(start.elapsed().as_nanos() as u64);
        } else {
            receive(&mut buffer);
            socket.send(&buffer).expect("a peer");
        }
    }
    let what = if blocking { "UDP blocking" } else { "UDP spinning" };
    first.then(|| report(what, samples))
}

struct Rig {
    qp: Qp,
    memory: Mr,
    addr: u64,
    rkey: u32,
    channel: std::sync::Arc<Channel>,
}

fn rig(link: &mut peer::Link) -> Rig {
    let context = Context::open();
    let pd = Pd::alloc(&context);
    let channel = Channel::create(&context);
    let cq = Cq::create(&context, 1024, Some(&channel));
    let qp = Qp::create(&pd, &cq, &cq, Wish::default());
    let memory = Mr::reg(&pd, 4 * MIB, ALL);
    let other = link.exchange(qp.endpoint(1));
    link.put(memory.addr());
    link.put(u64::from(memory.rkey()));
    let (addr, rkey) = (link.take(), link.take() as u32);
    qp.connect(other);
    Rig { qp, memory, addr, rkey, channel }
}

/// Waits for a receive; send completions are taken in passing.
fn receive(rig: &Rig, blocking: bool) {
    loop {
        let wc = match rig.qp.send.poll() {
            Some(wc) => wc,
            None if blocking => {
                rig.qp.send.arm(false);
                match rig.qp.send.poll() {
                    Some(wc) => wc,
                    None => {
                        rig.channel.get();
                        continue;
                    }
                }
            }
            None => continue,
        };
        assert_eq!(wc.status, IBV_WC_SUCCESS);
        if wc.opcode == IBV_WC_RECV {
            return;
        }
    }
}

fn send_latency(
    rig: &Rig,
    link: &mut peer::Link,
    first: bool,
    iterations: u64,
    blocking: bool,
) -> Option<f64> {
    let mut samples = Vec::new();
    for i in 0..8 {
        rig.qp.recv(i, rig.memory.sge(4096, BYTES));
    }
    link.meet();
    for i in 0..iterations {
        let start = Instant::now();
        if first {
            rig.qp.send_one(i, rig.memory.sge(0, BYTES));
        }
        receive(rig, blocking);
        rig.qp.recv(i, rig.memory.sge(4096, BYTES));
        if !first {
            rig.qp.send_one(i, rig.memory.sge(0, BYTES));
        }
        samples.push(start.elapsed().as_nanos() as u64);
    }
    // What the last exchange left.
    link.meet();
    while rig.qp.send.poll().is_some() {}
    let what = if blocking { "SEND blocking" } else { "SEND spinning" };
    first.then(|| report(what, samples))
}

/// The second process polls its memory and the device not at all.
fn write_latency(rig: &Rig, link: &mut peer::Link, first: bool, iterations: u64) {
    use std::sync::atomic::Ordering;
    let mut samples = Vec::new();
    rig.memory.clear();
    link.meet();
    let target = rig.memory.word(0);
    let mut outstanding = 0;
    for i in 1..=iterations {
        let start = Instant::now();
        let mut write = || {
            rig.memory.word(512).store(i, Ordering::Relaxed);
            rig.qp.rdma(IBV_WR_RDMA_WRITE, i, rig.memory.sge(4096, BYTES), rig.addr, rig.rkey);
            outstanding += 1;
        };
        if first {
            write();
            while target.load(Ordering::Acquire) < i {
                std::hint::spin_loop();
            }
        } else {
            while target.load(Ordering::Acquire) < i {
                std::hint::spin_loop();
            }
            write();
        }
        samples.push(start.elapsed().as_nanos() as u64);
        while outstanding > 16 {
            outstanding -= u64::from(rig.qp.send.poll().is_some());
        }
    }
    while outstanding > 0 {
        outstanding -= u64::from(rig.qp.send.poll().is_some());
    }
    link.meet();
    if first {
        report("WRITE, memory polled", samples);
    }
}

fn bandwidth(rig: &Rig, link: &mut peer::Link, first: bool, opcode: ibv_wr_opcode, messages: u64) {
    link.meet();
    if first {
        let start = Instant::now();
        for i in 0..messages + WINDOW {
            if i >= WINDOW {
                assert_eq!(rig.qp.send.success().wr_id, i - WINDOW);
            }
            if i < messages {
                rig.qp.rdma(opcode, i, rig.memory.sge(0, MIB), rig.addr, rig.rkey);
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        println!("{opcode:24} {:.2} GB/s", messages as f64 * MIB as f64 / seconds / 1e9);
    }
    link.meet();
}

fn run(link: &mut peer::Link, first: bool, iterations: u64) {
    let raw = udp(link, first, iterations, false);
    let raw_blocking = udp(link, first, iterations / 10, true);
    let rig = rig(link);
    let send = send_latency(&rig, link, first, iterations, false);
    let send_blocking = send_latency(&rig, link, first, iterations / 10, true);
    if let (Some(raw), Some(send), Some(raw_blocking), Some(send_blocking)) =
        (raw, send, raw_blocking, send_blocking)
    {
        println!("SEND / UDP: spinning {:.2}, blocking {:.2}", send / raw, send_blocking / raw_blocking);
    }
    write_latency(&rig, link, first, iterations / 10);
    for opcode in [IBV_WR_RDMA_WRITE, IBV_WR_RDMA_READ] {
        bandwidth(&rig, link, first, opcode, 2000);
    }
}

fn main() {
    let iterations = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(100_000);
    match peer::second() {
        Some(mut link) => {
            let iterations = link.take();
            run(&mut link, false, iterations);
        }
        None => {
            let mut other = peer::start("pingpong");
            other.link.put(iterations);
            run(&mut other.link, true, iterations);
            other.join();
        }
    }
}
