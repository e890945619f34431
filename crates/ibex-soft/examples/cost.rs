//! Processor time of one message, both ends in one thread, beside that of a raw UDP datagram.
//!
//! `cargo run --release -p ibex-soft --example cost`. Unlike times on the wall this holds on a busy machine: what is counted is
//! the thread's processor time for SEND, its receipt, the acknowledgement and its receipt.
#![allow(unsafe_code)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::net::UdpSocket;

use ibex_sys::*;
use support::*;

/// The calling thread's processor time in nanoseconds.
fn cpu() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    assert_eq!(c!(libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time)), 0);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn main() {
    const ROUNDS: u64 = 200_000;
    let (one, two) =
        (UdpSocket::bind("127.0.0.1:0").expect("a port"), UdpSocket::bind("127.0.0.1:0").expect("a port"));
    one.connect(two.local_addr().expect("bound")).expect("loopback");
    two.set_nonblocking(true).expect("a socket");
    let mut buffer = [0u8; 64];
    let start = cpu();
    for _ in 0..ROUNDS {
        one.send(&buffer).expect("a peer");
        while two.recv(&mut buffer).is_err() {}
    }
    let udp = (cpu() - start) as f64 / ROUNDS as f64;
    println!("UDP datagram     {udp:8.0} ns");

    let pair = Pair::new();
    // One number alone, for a profiler.
    let only = std::env::args().nth(1);
    let wanted = |what: &str| only.as_deref().is_none_or(|only| only == what);
    let rounds = |what: &str| if wanted(what) { ROUNDS } else { 1 };
    let start = cpu();
    for i in 0..rounds("send") {
        pair.b.recv(i, pair.bm.sge(0, 64));
        pair.a.send_one(i, pair.am.sge(0, 64));
        pair.b.recv.success();
        pair.a.send.success();
    }
    let send = (cpu() - start) as f64 / ROUNDS as f64;
    println!("SEND and its ACK {send:8.0} ns, {:.2} datagrams", send / udp);

    let start = cpu();
    for i in 0..2 * rounds("ping") {
        let (from, to, from_memory, to_memory) = if i % 2 == 0 {
            (&pair.a, &pair.b, &pair.am, &pair.bm)
        } else {
            (&pair.b, &pair.a, &pair.bm, &pair.am)
        };
        to.recv(i, to_memory.sge(0, 64));
        // As latency programs do it: a completion now and then, to know that the queue has room.
        let flags = if i % 32 < 2 { IBV_SEND_SIGNALED.0 } else { 0 };
        from.run(IBV_WR_SEND, i, &mut [from_memory.sge(0, 64)], |wr| wr.send_flags = flags);
        while to.recv.success().opcode != IBV_WC_RECV {}
    }
    let half = (cpu() - start) as f64 / (2 * ROUNDS) as f64;
    println!("ping-pong, half  {half:8.0} ns, {:.2} datagrams", half / udp);

    let start = cpu();
    for i in 0..2 * rounds("lat") {
        let (from, to, from_memory, to_memory) = if i % 2 == 0 {
            (&pair.a, &pair.b, &pair.am, &pair.bm)
        } else {
            (&pair.b, &pair.a, &pair.bm, &pair.am)
        };
        to.recv(i, to_memory.sge(0, 64));
        from.send_one(i, from_memory.sge(0, 64));
        // The other's answer brought the acknowledgement of what it answers.
        if i > 0 {
            to.send.success();
        }
        while to.recv.success().opcode != IBV_WC_RECV {}
    }
    let half = (cpu() - start) as f64 / (2 * ROUNDS) as f64;
    println!("each completing  {half:8.0} ns, {:.2} datagrams", half / udp);

    const MIB: usize = 1 << 20;
    for opcode in [IBV_WR_RDMA_WRITE, IBV_WR_RDMA_READ] {
        let start = cpu();
        for i in 0..if wanted("bulk") { 1000 } else { 1 } {
            pair.a.rdma(opcode, i, pair.am.sge(0, MIB), pair.bm.addr(), pair.bm.rkey());
            while pair.a.send.success().opcode == IBV_WC_SEND {}
        }
        let each = (cpu() - start) as f64 / 1000.0;
        println!("{opcode:16} {:8.2} GB/s of processor time, both ends", MIB as f64 / each);
    }
}
