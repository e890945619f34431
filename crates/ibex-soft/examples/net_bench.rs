//! Measures the wire link against bare UDP sockets: 64-byte round trips, and bulk in 4 KiB packets.
//!
//! `cargo run --release -p ibex-soft --example net_bench`. Two links in one process stand for two
//! processes; both sides spin, so it wants two idle cores. Every packet's ICRC is made and verified
//! and the bulk is flow-controlled, so a lost packet would hang it: it counts them instead and fails.

#[path = "../src/net/mod.rs"]
#[allow(dead_code, unused_imports, unreachable_pub)]
mod net;

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use ibex_wire::{Bth, Opcode, Psn, Qpn};
use net::{Config, Peer, RxRing, Scan, TxBatch, Wire};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Round trips measured.
const ROUNDS: usize = 20_000;
/// Bytes of the small packet: BTH and payload.
const SMALL: usize = 64;
/// Payload of the large ones.
const LARGE: usize = 4096;
/// Bytes sent in bulk.
const BULK: u64 = 2 << 30;
/// Bytes in flight at most, below what any receive buffer holds by default.
const WINDOW: u64 = 1 << 20;

fn main() {
    // Outside of the ephemeral ports, so that no link's own socket can take it.
    let config = Config { port: 20_000 + (std::process::id() % 10_000) as u16, ..Config::new(LOOPBACK) };
    let raw = raw_round_trips();
    let wire = wire_round_trips(&config);
    println!("raw UDP, {SMALL} B round trip: p50 {} ns, p99 {} ns", raw.0, raw.1);
    println!(
        "wire,    {SMALL} B round trip: p50 {} ns, p99 {} ns ({:.2}x)",
        wire.0,
        wire.1,
        wire.0 as f64 / raw.0 as f64
    );
    println!("wire,    {LARGE} B packets: {:.2} GB/s", bulk(&config));
}

/// Median and 99th percentile.
fn percentiles(mut times: Vec<u64>) -> (u64, u64) {
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

fn raw_round_trips() -> (u64, u64) {
    let sockets = [(); 2].map(|()| UdpSocket::bind((LOOPBACK, 0)).expect("bind"));
    let [near, far] = sockets;
    for socket in [&near, &far] {
        socket.set_nonblocking(true).expect("non-blocking");
    }
    let to = far.local_addr().expect("bound");
    let receive = |socket: &UdpSocket, buffer: &mut [u8]| loop {
        if let Ok(got) = socket.recv_from(buffer) {
            return got;
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = [0; 2048];
            for _ in 0..ROUNDS {
                let (length, from) = receive(&far, &mut buffer);
                far.send_to(&buffer[..length], from).expect("send");
            }
        });
        let mut buffer = [0; 2048];
        let round = || {
            let start = Instant::now();
            near.send_to(&[1; SMALL], to).expect("send");
            receive(&near, &mut buffer);
            start.elapsed().as_nanos() as u64
        };
        percentiles(std::iter::repeat_with(round).take(ROUNDS).collect())
    })
}

/// Two links that know each other, and a queue pair number on each.
fn pair(config: &Config) -> [(Wire, Peer); 2] {
    let open = || {
        let wire = Wire::open(config).expect("open");
        let peer = Peer { address: LOOPBACK, qpn: wire.alloc_qpn().expect("a number") };
        (wire, peer)
    };
    let (near, far) = (open(), open());
    near.0.hello(far.1);
    let mut ring = RxRing::new();
    for wire in [&far.0, &near.0] {
        wire.recv(&mut ring, Scan::Full, 1, |_| ());
    }
    [near, far]
}

fn write(buffer: &mut [u8], to: Peer, payload: usize) -> usize {
    if let Some(bth) = buffer.first_chunk_mut() {
        Bth::new(Opcode::RC_SEND_ONLY, Qpn::new(to.qpn), Psn::new(0)).emit(bth);
    }
    Bth::LEN + payload
}

fn wire_round_trips(config: &Config) -> (u64, u64) {
    let [(near, to_near), (far, to_far)] = pair(config);
    let send = |wire: &Wire, batch: &mut TxBatch, to| {
        batch.push(wire, to, |buffer| write(buffer, to, SMALL - Bth::LEN));
        batch.flush(wire);
    };
    let receive =
        |wire: &Wire, ring: &mut RxRing| while wire.recv(ring, Scan::Quick, 1, |_| ()).packets == 0 {};
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut ring, mut batch) = (RxRing::new(), TxBatch::new());
            for _ in 0..ROUNDS {
                receive(&far, &mut ring);
                send(&far, &mut batch, to_near);
            }
        });
        let (mut ring, mut batch) = (RxRing::new(), TxBatch::new());
        let round = || {
            let start = Instant::now();
            send(&near, &mut batch, to_far);
            receive(&near, &mut ring);
            start.elapsed().as_nanos() as u64
        };
        percentiles(std::iter::repeat_with(round).take(ROUNDS).collect())
    })
}

fn bulk(config: &Config) -> f64 {
    let [(near, _), (far, to)] = pair(config);
    let arrived = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let source = [7u8; LARGE];
    let mut elapsed = 0.0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut ring = RxRing::new();
            let mut target = vec![0u8; LARGE];
            while !stop.load(Ordering::Relaxed) {
                // The copy to its place is part of what a transport does.
                let received = far.recv(&mut ring, Scan::Quick, 64, |datagram| {
                    target.copy_from_slice(&datagram.packet[Bth::LEN..]);
                    arrived.fetch_add(LARGE as u64, Ordering::Relaxed);
                });
                if received.packets == 0 {
                    std::thread::yield_now();
                }
            }
        });
        let mut batch = TxBatch::new();
        let start = Instant::now();
        let mut sent = 0;
        while sent < BULK {
            while sent - arrived.load(Ordering::Relaxed) > WINDOW {
                // On a busy machine the receiver may be waiting for this processor.
                std::thread::yield_now();
                if start.elapsed().as_secs() > 60 {
                    stop.store(true, Ordering::Relaxed);
                    panic!("packets were lost: {:?}", far.snapshot());
                }
            }
            batch.push(&near, to, |buffer| {
                buffer[Bth::LEN..][..LARGE].copy_from_slice(&source);
                write(buffer, to, LARGE)
            });
            sent += LARGE as u64;
        }
        batch.flush(&near);
        while arrived.load(Ordering::Relaxed) < BULK && start.elapsed().as_secs() < 60 {
            std::thread::yield_now();
        }
        elapsed = start.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(arrived.load(Ordering::Relaxed), BULK, "{:?}", far.snapshot());
    BULK as f64 / elapsed / 1e9
}
