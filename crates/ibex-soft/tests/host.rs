//! Processes that share memory, or must not: attaching, other users, other networks, peers that are killed or stopped, and
//! what is left of them.
//!
//! The test only gives orders, or is one of the two; all run on ports of their own, so that nothing else takes part.
#![allow(unsafe_code)]

mod support;

use std::net::UdpSocket;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use ibex_sys::*;
use support::*;

/// Orders to a worker. Each is followed by its arguments and answered by one number at least.
const MAKE: u64 = 1;
const CONNECT: u64 = 2;
const SEND: u64 = 3;
const CHECK: u64 = 4;
const FLOOD: u64 = 5;

/// Bytes of a worker's memory, half for sending and half for receiving.
const BYTES: usize = 1 << 20;
const HALF: usize = BYTES / 2;

/// Half a second without an answer is the end.
const WISH: fn() -> Wish = || Wish { timeout: 14, retry: 7, ..Wish::default() };

/// Not a test but what the workers do; passes at once where nobody gives orders.
#[test]
fn worker() {
    let Some(mut link) = peer::second() else { return };
    if let Ok(uid) = std::env::var("IBEX_TEST_UID") {
        let uid = uid.parse().expect("a number");
        assert_eq!(c!(libc::setresuid(uid, uid, uid)), 0, "setresuid");
    }
    if std::env::var_os("IBEX_TEST_NETNS").is_some() {
        assert_eq!(c!(libc::unshare(libc::CLONE_NEWNET)), 0, "unshare");
        let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status();
        assert!(up.expect("iproute2").success());
    }
    let context = Context::open();
    let pd = Pd::alloc(&context);
    let memory = Mr::reg(&pd, BYTES, ALL);
    let mut qps = Vec::new();
    loop {
        match link.take() {
            MAKE => {
                let cq = Cq::create(&context, 1024, None);
                let qp = Qp::create(&pd, &cq, &cq, WISH());
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
                link.put(u64::from(qp.send.wait().status.0));
            }
            CHECK => {
                let (qp, size, seed) = (&qps[link.take() as usize], link.take() as usize, link.take());
                let got = qp.recv.success();
                assert_eq!((got.wr_id, got.byte_len as usize), (1, size));
                memory.check(HALF..HALF + size, seed, 0);
                qp.recv(1, memory.sge(HALF, HALF));
                link.put(0);
            }
            // Writes without end, so that it can be killed in the middle.
            FLOOD => {
                let (qp, to, rkey) = (&qps[link.take() as usize], link.take(), link.take() as u32);
                link.put(0);
                for i in 0.. {
                    qp.run(IBV_WR_RDMA_WRITE_WITH_IMM, i, &mut [memory.sge(0, 3000)], |wr| {
                        wr.wr.rdma = ibv_send_wr_rdma { remote_addr: to, rkey };
                    });
                    if i >= 32 {
                        qp.send.wait();
                    }
                }
            }
            order => panic!("order {order}"),
        }
    }
}

/// What a process says of its links.
fn links(context: &Context) -> Vec<String> {
    let mut text = vec![0u8; 1 << 16];
    let describe = v().describe_links.expect("the device's extension");
    let len = c!(describe(context.0, text.as_mut_ptr().cast(), text.len()));
    text.truncate(usize::try_from(len).expect("a length"));
    String::from_utf8(text).expect("text").lines().map(str::to_owned).collect()
}

/// This process, and a worker it is connected to.
struct Bench {
    context: std::sync::Arc<Context>,
    pd: std::sync::Arc<Pd>,
    memory: Mr,
}

impl Bench {
    /// The device of this test process, the same for all its tests: workers are on the same port.
    fn new() -> Bench {
        let context = Context::open();
        let pd = Pd::alloc(&context);
        let memory = Mr::reg(&pd, BYTES, ALL);
        Bench { context, pd, memory }
    }

    fn connect(&self, worker: &mut Worker) -> (u64, Qp) {
        let cq = Cq::create(&self.context, 1024, None);
        let qp = Qp::create(&self.pd, &cq, &cq, WISH());
        qp.recv(1, self.memory.sge(HALF, HALF));
        let (number, end) = worker.make();
        qp.connect(end);
        worker.connect(number, qp.endpoint(1));
        (number, qp)
    }

    /// A message each way.
    fn talk(&self, worker: &mut Worker, (number, qp): &(u64, Qp), size: usize) {
        self.memory.fill(0..size, 5);
        qp.send_one(2, self.memory.sge(0, size));
        assert_eq!(qp.send.wait().status, IBV_WC_SUCCESS);
        worker.check(*number, size, 5);
        worker.order(&[SEND, *number, size as u64, 6]);
        let got = qp.recv.success();
        assert_eq!((got.wr_id, got.byte_len as usize), (1, size));
        self.memory.check(HALF..HALF + size, 6, 0);
        qp.recv(1, self.memory.sge(HALF, HALF));
        // Its acknowledgement leaves with this process's next look at the device.
        worker.taken(&qp.send);
    }
}

/// A worker and what it was told to make.
struct Worker {
    peer: peer::Peer,
    qps: u64,
}

impl Worker {
    fn start(environment: &[(&str, &str)]) -> Worker {
        Worker { peer: peer::start_with("worker", environment), qps: 0 }
    }

    fn order(&mut self, words: &[u64]) {
        words.iter().for_each(|&word| self.peer.link.put(word));
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

    fn check(&mut self, qp: u64, size: usize, seed: u64) {
        self.order(&[CHECK, qp, size as u64, seed]);
        assert_eq!(self.peer.link.take(), 0);
    }

    /// The end of a send of the worker's, while this process looks at its device.
    fn taken(&mut self, cq: &Cq) {
        assert!(cq.poll().is_none());
        assert_eq!(ibv_wc_status(self.peer.link.take() as u32), IBV_WC_SUCCESS);
    }

    fn signal(&self, signal: i32) {
        assert_eq!(c!(libc::kill(self.peer.child.id() as i32, signal)), 0);
    }
}

/// The environment of all processes of a test: a port of their own. Set before the first context is opened, by the only
/// test that runs in this process.
fn alone() -> String {
    let start = (std::process::id() as u16).wrapping_mul(67);
    let free = |port: &u16| {
        let name =
            SocketAddr::from_abstract_name(format!("ibex-soft-test-port/{port}")).expect("a short name");
        let lock = UnixDatagram::bind_addr(&name);
        lock.map(std::mem::forget).is_ok() && UdpSocket::bind(("127.0.0.1", *port)).is_ok()
    };
    let port = (0..10_000).map(|offset| 20_000 + start.wrapping_add(offset) % 10_000).find(free);
    port.expect("a free port").to_string()
}

/// Runs the body of a test in a process of its own, whose environment it may choose.
fn apart(name: &str, body: impl FnOnce()) {
    const INSIDE: &str = "IBEX_TEST_INSIDE";
    if std::env::var(INSIDE).is_ok_and(|inside| inside == name) {
        return body();
    }
    let status = std::process::Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, name)
        .env("IBEX_SOFT_PORT", alone())
        .status();
    assert!(status.expect("this binary runs").success());
}

/// What the kernel counts as this process's: open descriptors, and shared mappings.
fn belongings() -> (usize, usize) {
    let fds = std::fs::read_dir("/proc/self/fd").expect("procfs").count();
    let maps = std::fs::read_to_string("/proc/self/maps").expect("procfs");
    (fds, maps.lines().filter(|line| line.contains("memfd:ibex-soft")).count())
}

/// Looks at the device until something is so.
fn until(bench: &Bench, what: &str, mut so: impl FnMut() -> bool) {
    let cq = Cq::create(&bench.context, 1, None);
    let start = Instant::now();
    while !so() {
        cq.poll();
        assert!(start.elapsed() < LIMIT, "{what}");
    }
}

#[test]
fn processes_of_one_user_attach() {
    apart("processes_of_one_user_attach", || {
        let bench = Bench::new();
        let mut worker = Worker::start(&[]);
        let pair = bench.connect(&mut worker);
        for size in [1, 64, 4096, HALF] {
            bench.talk(&mut worker, &pair, size);
        }
        let said = links(&bench.context);
        let way = if wire_only() { ": wire" } else { ": host (" };
        assert!(said.len() == 2 && said[1].contains(way), "{said:?}");
    });
}

#[test]
fn a_process_of_another_user_stays_on_the_wire() {
    apart("a_process_of_another_user_stays_on_the_wire", || {
        if c!(libc::geteuid()) != 0 {
            println!("skipped: only root can start a process of another user");
            return;
        }
        let bench = Bench::new();
        let before = belongings();
        // Nobody's own number, and one without a meaning: neither is ours.
        let mut workers = ["65534", "12345"].map(|uid| Worker::start(&[("IBEX_TEST_UID", uid)]));
        for worker in &mut workers {
            let pair = bench.connect(worker);
            for size in [1, 64, 4096, HALF] {
                bench.talk(worker, &pair, size);
            }
        }
        let said = links(&bench.context);
        assert!(said.len() == 3 && said[1..].iter().all(|line| line.ends_with(": wire")), "{said:?}");
        assert_eq!(belongings().1, before.1, "nothing of theirs is mapped");
    });
}

/// Once the socket for a peer was made wherever the thread that posted was.
#[test]
fn a_thread_that_went_into_another_namespace_reaches_its_peer() {
    apart("a_thread_that_went_into_another_namespace_reaches_its_peer", || {
        if c!(libc::geteuid()) != 0 {
            println!("skipped: only root can start a process of another user, and make a namespace");
            return;
        }
        let bench = Bench::new();
        // Of another user, so that it is met on the wire.
        let mut worker = Worker::start(&[("IBEX_TEST_UID", "65534")]);
        let pair = bench.connect(&mut worker);
        assert_eq!(c!(libc::unshare(libc::CLONE_NEWNET)), 0, "unshare");
        let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status();
        assert!(up.expect("iproute2").success());
        for size in [1, 64, 4096, HALF] {
            bench.talk(&mut worker, &pair, size);
        }
    });
}

#[test]
fn a_killed_peer_ends_its_own_connections_only() {
    apart("a_killed_peer_ends_its_own_connections_only", || {
        let bench = Bench::new();
        let (mut one, mut other) = (Worker::start(&[]), Worker::start(&[]));
        let (doomed, idle, stays) =
            (bench.connect(&mut one), bench.connect(&mut one), bench.connect(&mut other));
        bench.talk(&mut one, &doomed, 4096);
        bench.talk(&mut one, &idle, 64);
        bench.talk(&mut other, &stays, 4096);
        // Killed while it writes into the ring.
        for i in 0..60 {
            idle.1.recv(i, bench.memory.sge(HALF, HALF));
        }
        let key = u64::from(bench.memory.rkey());
        one.order(&[FLOOD, idle.0, bench.memory.addr(), key]);
        assert_eq!(one.peer.link.take(), 0);
        for _ in 0..30 {
            idle.1.recv.success();
        }
        one.signal(libc::SIGKILL);
        let start = Instant::now();
        doomed.1.send_one(9, bench.memory.sge(0, 64));
        assert_eq!(doomed.1.send.wait().status, IBV_WC_RETRY_EXC_ERR);
        // Eight times 4.096 µs times 2^14, which the transport may stretch fourfold.
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
        bench.talk(&mut other, &stays, 4096);
        until(&bench, "the link goes", || links(&bench.context).len() == 2);
    });
}

#[test]
fn a_stopped_peer_ends_its_own_connections_only_and_can_be_met_again() {
    apart("a_stopped_peer_ends_its_own_connections_only_and_can_be_met_again", || {
        let bench = Bench::new();
        let (mut one, mut other) = (Worker::start(&[]), Worker::start(&[]));
        let (doomed, stays) = (bench.connect(&mut one), bench.connect(&mut other));
        bench.talk(&mut one, &doomed, 4096);
        bench.talk(&mut other, &stays, 4096);
        one.signal(libc::SIGSTOP);
        // More than a ring holds, of messages that are not carried out on its memory.
        let pairs: Vec<_> = (0..8).map(|_| bench.connect(&mut other)).collect();
        for i in 0..2 {
            doomed.1.send_one(i, bench.memory.sge(0, HALF));
        }
        let start = Instant::now();
        for pair in &pairs {
            bench.talk(&mut other, pair, 4096);
        }
        assert_eq!(doomed.1.send.wait().status, IBV_WC_RETRY_EXC_ERR);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        bench.talk(&mut other, &stays, 4096);
        one.signal(libc::SIGCONT);
        let again = bench.connect(&mut one);
        bench.talk(&mut one, &again, HALF);
    });
}

#[test]
fn nothing_is_left_of_peers_that_are_gone() {
    apart("nothing_is_left_of_peers_that_are_gone", || {
        let bench = Bench::new();
        let mut before = None;
        for _ in 0..50 {
            let mut worker = Worker::start(&[]);
            {
                let pair = bench.connect(&mut worker);
                bench.talk(&mut worker, &pair, 64);
            }
            let during = belongings().1;
            drop(worker);
            // What the first peer brought once and for all does not count.
            let (fds, maps) = *before.get_or_insert_with(|| {
                until(&bench, "the link goes", || wire_only() || belongings().1 < during);
                belongings()
            });
            until(&bench, "everything is given back", || {
                let now = belongings();
                now.0 <= fds && now.1 <= maps
            });
        }
    });
}

/// Whether the environment forbids shared memory.
fn wire_only() -> bool {
    std::env::var("IBEX_SOFT_LINK").is_ok_and(|choice| choice == "wire")
}

#[test]
fn other_network_namespaces_are_other_hosts() {
    apart("other_network_namespaces_are_other_hosts", || {
        if c!(libc::geteuid()) != 0 {
            println!("skipped: only root can make a network namespace");
            return;
        }
        let bench = Bench::new();
        // It has a device at the same address and port, and does not meet this one.
        let mut worker = Worker::start(&[("IBEX_TEST_NETNS", "1")]);
        worker.make();
        assert_eq!(links(&bench.context).len(), 1);
    });
}

#[test]
fn a_full_ring_delays_and_loses_nothing() {
    apart("a_full_ring_delays_and_loses_nothing", || {
        let bench = Bench::new();
        let mut worker = Worker::start(&[]);
        // Together they have eight times in flight what a ring holds, while nobody receives.
        let pairs: Vec<_> = (0..8).map(|_| bench.connect(&mut worker)).collect();
        bench.memory.fill(0..HALF / 2, 5);
        for pair in &pairs {
            pair.1.send_one(2, bench.memory.sge(0, HALF / 2));
        }
        for pair in &pairs {
            assert_eq!(pair.1.send.wait().status, IBV_WC_SUCCESS);
            worker.check(pair.0, HALF / 2, 5);
        }
    });
}
