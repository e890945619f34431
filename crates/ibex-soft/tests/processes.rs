//! Several processes on one host, one of which is killed: the others go on, and foreigners still reach them.
//!
//! The test only gives orders; all devices are in processes of their own, on a port of their own, so that nothing else
//! on the host takes part.

mod support;

use std::net::UdpSocket;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use ibex_sys::*;
use support::*;

/// Orders to a worker. Each is followed by its arguments and answered by one number at least.
const MAKE: u64 = 1;
const CONNECT: u64 = 2;
const SEND: u64 = 3;
const CHECK: u64 = 4;
const PLAY: u64 = 5;

/// Bytes of a worker's memory, half for sending and half for receiving.
const BYTES: usize = 1 << 20;
const HALF: usize = BYTES / 2;

/// Not a test but what the workers do; passes at once where nobody gives orders.
#[test]
fn worker() {
    let Some(mut link) = peer::second() else { return };
    let context = Context::open();
    let pd = Pd::alloc(&context);
    let memory = Mr::reg(&pd, BYTES, ALL);
    let mut qps = Vec::new();
    // A quarter of a second without an answer is the end: nothing else is on this machine's loopback.
    let wish = Wish { timeout: 13, retry: 6, ..Wish::default() };
    loop {
        match link.take() {
            MAKE => {
                let cq = Cq::create(&context, 64, None);
                let qp = Qp::create(&pd, &cq, &cq, wish);
                qp.recv(1, memory.sge(HALF, HALF));
                link.tell(qp.endpoint(1));
                qps.push(qp);
            }
            CONNECT => {
                let qp = &qps[link.take() as usize];
                qp.connect(link.hear());
                link.put(0);
            }
            SEND => {
                let (qp, size, seed) = (&qps[link.take() as usize], link.take() as usize, link.take());
                memory.fill(0..size, seed);
                qp.send_one(2, memory.sge(0, size));
                let status = qp.send.wait().status;
                link.put(u64::from(status.0));
            }
            CHECK => {
                let (qp, size, seed) = (&qps[link.take() as usize], link.take() as usize, link.take());
                let got = qp.recv.success();
                assert_eq!((got.wr_id, got.byte_len as usize), (1, size));
                memory.check(HALF..HALF + size, seed, 0);
                qp.recv(1, memory.sge(HALF, HALF));
                link.put(0);
            }
            PLAY => {
                let (qp, rounds, serves) = (&qps[link.take() as usize], link.take(), link.take() == 1);
                play(qp, &memory, rounds, serves);
                link.put(0);
            }
            order => panic!("order {order}"),
        }
    }
}

/// Messages in turn; each is answered.
fn play(qp: &Qp, memory: &Mr, rounds: u64, serves: bool) {
    const SENT: u64 = 2;
    // Completions of sending and receiving share a queue, and come in any order when something was lost.
    let (mut sent, mut got) = (true, None);
    for round in 0..rounds {
        let size = 4 + (round as usize * 44) % 500;
        let (asked, answer) = (round, round ^ u64::from(u32::MAX));
        for sends in if serves { [false, true] } else { [true, false] } {
            while if sends { !sent } else { got.is_none() } {
                let done = qp.recv.success();
                if done.wr_id == SENT { sent = true } else { got = Some(done.byte_len as usize) }
            }
            if sends {
                memory.fill(0..size, if serves { answer } else { asked });
                qp.send_one(SENT, memory.sge(0, size));
                sent = false;
            } else {
                assert_eq!(got.take(), Some(size));
                memory.check(HALF..HALF + size, if serves { asked } else { answer }, 0);
                qp.recv(1, memory.sge(HALF, HALF));
            }
        }
    }
    if !sent {
        assert_eq!(qp.send.success().wr_id, SENT);
    }
}

/// A worker and what it was told to make.
struct Worker {
    peer: peer::Peer,
    qps: u64,
}

impl Worker {
    fn start(port: u16, address: &str) -> Worker {
        Worker::start_with(port, address, &[])
    }

    fn start_with(port: u16, address: &str, more: &[(&str, &str)]) -> Worker {
        let port = port.to_string();
        let own = [("IBEX_SOFT_PORT", &*port), ("IBEX_SOFT_ADDR", address)];
        let peer = peer::start_with("worker", &[&own, more].concat());
        let mut worker = Worker { peer, qps: 0 };
        // Its device is open once it can make something.
        worker.make();
        worker
    }

    fn order(&mut self, words: &[u64]) {
        for &word in words {
            self.peer.link.put(word);
        }
    }

    fn make(&mut self) -> (u64, Endpoint) {
        self.order(&[MAKE]);
        self.qps += 1;
        (self.qps - 1, self.peer.link.hear())
    }

    fn connect(&mut self, qp: u64, to: Endpoint) {
        self.order(&[CONNECT, qp]);
        self.peer.link.tell(to);
        assert_eq!(self.peer.link.take(), 0);
    }

    fn send(&mut self, qp: u64, size: usize, seed: u64) -> ibv_wc_status {
        self.order(&[SEND, qp, size as u64, seed]);
        ibv_wc_status(self.peer.link.take() as u32)
    }

    fn check(&mut self, qp: u64, size: usize, seed: u64) {
        self.order(&[CHECK, qp, size as u64, seed]);
        assert_eq!(self.peer.link.take(), 0);
    }
}

/// A connection between two workers: its queue pair on each side.
fn join(a: &mut Worker, b: &mut Worker) -> (u64, u64) {
    let ((a_qp, a_end), (b_qp, b_end)) = (a.make(), b.make());
    a.connect(a_qp, b_end);
    b.connect(b_qp, a_end);
    (a_qp, b_qp)
}

/// Messages both ways over one connection.
fn talk(a: &mut Worker, b: &mut Worker, (a_qp, b_qp): (u64, u64), seed: u64) {
    for size in [1, 4096, HALF] {
        let seed = seed + size as u64;
        assert_eq!(a.send(a_qp, size, seed), IBV_WC_SUCCESS);
        b.check(b_qp, size, seed);
        assert_eq!(b.send(b_qp, size, !seed >> 1), IBV_WC_SUCCESS);
        a.check(a_qp, size, !seed >> 1);
    }
}

/// A UDP port below the ephemeral ones that no other test takes while this process lives.
fn private_port() -> u16 {
    let start = (std::process::id() as u16).wrapping_mul(67);
    let free = |port: &u16| {
        let name =
            SocketAddr::from_abstract_name(format!("ibex-soft-test-port/{port}")).expect("a short name");
        let lock = UnixDatagram::bind_addr(&name);
        lock.map(std::mem::forget).is_ok() && UdpSocket::bind(("127.0.0.1", *port)).is_ok()
    };
    (0..10_000).map(|offset| 20_000 + start.wrapping_add(offset) % 10_000).find(free).expect("a free port")
}

#[test]
fn three_processes_survive_a_killed_holder_of_the_port() {
    let port = private_port();
    // The first to open holds the port.
    let mut holder = Worker::start(port, "127.0.0.1");
    let (mut left, mut right) = (Worker::start(port, "127.0.0.1"), Worker::start(port, "127.0.0.1"));
    let to_left = join(&mut holder, &mut left);
    let to_right = join(&mut holder, &mut right);
    let across = join(&mut left, &mut right);
    talk(&mut holder, &mut left, to_left, 1);
    talk(&mut holder, &mut right, to_right, 2);
    talk(&mut left, &mut right, across, 3);

    // A device on another address of the host reaches everybody through the holder.
    let mut foreign = Worker::start(port, "127.0.0.2");
    let from_abroad = join(&mut foreign, &mut left);
    talk(&mut foreign, &mut left, from_abroad, 4);

    drop(holder);

    // Connections to it end, others do not notice, and its heir forwards for foreigners.
    assert_eq!(left.send(to_left.1, 64, 5), IBV_WC_RETRY_EXC_ERR);
    talk(&mut left, &mut right, across, 6);
    talk(&mut foreign, &mut left, from_abroad, 7);
    let from_abroad = join(&mut foreign, &mut right);
    talk(&mut foreign, &mut right, from_abroad, 8);

    let mut late = Worker::start(port, "127.0.0.1");
    let to_late = join(&mut right, &mut late);
    talk(&mut right, &mut late, to_late, 9);
    let from_abroad = join(&mut foreign, &mut late);
    talk(&mut foreign, &mut late, from_abroad, 10);
}

/// Messages that carry the acknowledgement of the one before, as devices of one kind send them to each other.
#[test]
fn short_messages_between_two_addresses_meet_faults_and_arrive_once() {
    let lossy = [
        ("IBEX_SOFT_LOSS", "0.01"),
        ("IBEX_SOFT_DUP", "0.01"),
        ("IBEX_SOFT_REORDER", "0.01"),
        ("IBEX_SOFT_CORRUPT", "0.01"),
    ];
    // Nothing, at one end, at both.
    for faults in [[&[][..], &[]], [&lossy, &[]], [&lossy, &lossy]] {
        let port = private_port();
        let mut a = Worker::start_with(port, "127.0.0.1", faults[0]);
        let mut b = Worker::start_with(port, "127.0.0.2", faults[1]);
        let (a_qp, b_qp) = join(&mut a, &mut b);
        const ROUNDS: u64 = 3000;
        b.order(&[PLAY, b_qp, ROUNDS, 1]);
        a.order(&[PLAY, a_qp, ROUNDS, 0]);
        assert_eq!((a.peer.link.take(), b.peer.link.take()), (0, 0));
    }
}
