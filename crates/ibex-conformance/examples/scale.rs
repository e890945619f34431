//! Ten thousand queue pairs between two processes: what a SEND costs with all of them in use and with one, and what a queue
//! pair takes of memory.
//!
//! `cargo run --release -p ibex-conformance --example scale [pairs]`; `IBEX_SOFT_LINK` chooses the link. The program starts itself
//! a second time. Each message's content names pair and turn and is checked; a completion with an error ends the run.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ibex_conformance::lab::{Cq, Lab, LinkOptions, Node, Qp, Recv, Region, Send, gid_bytes};
use ibex_sys::{IBV_WC_SUCCESS, ibv_gid, ibv_qp_cap};

/// Messages there and back of one measurement, per turn: one over each pair, or as many over one.
const TURNS: usize = 5;
/// Bytes of a message.
const BYTES: usize = 64;
/// Acknowledgement timeout 4.096 µs · 2^18 = 1 s: two processes may share one processor.
const TIMEOUT: u8 = 18;

struct Side {
    nodes: Vec<Node>,
    cq: Cq,
    region: Region,
}

/// Resident memory of this process, bytes.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").expect("proc is mounted");
    let pages: usize = text.split(' ').nth(1).expect("statm(5)").parse().expect("a number");
    pages * 4096
}

impl Side {
    fn new(lab: &Lab, pairs: usize, link: &LinkOptions) -> Self {
        let cap = ibv_qp_cap {
            max_send_wr: 4,
            max_recv_wr: 4,
            max_send_sge: 1,
            max_recv_sge: 1,
            ..Default::default()
        };
        let depth = i32::try_from(pairs * 8).expect("small");
        let cq = Cq::try_new(lab, depth, false).expect("a completion queue");
        let pd = lab.pd();
        let node = || {
            let qp = Qp::try_new(&pd, &cq, &cq, cap, false).expect("a queue pair");
            Node { lab: lab.clone(), qp, cq: cq.clone(), pd: pd.clone() }
        };
        let nodes: Vec<_> = (0..pairs).map(|_| node()).collect();
        nodes.iter().for_each(|node| node.to_init(link));
        let region = Region::new(&pd, 2 * BYTES * pairs, ibex_conformance::lab::ALL_ACCESS);
        Self { nodes, cq, region }
    }

    fn receive(&self, pair: usize) {
        let sge = self.region.sge((2 * pair * BYTES) as u64, BYTES as u32);
        self.nodes[pair].qp.post_recv(&[Recv::new(pair as u64, &[sge])]);
    }

    fn send(&self, pair: usize, turn: u64) {
        let offset = (2 * pair + 1) * BYTES;
        self.region.write(offset, &turn.to_ne_bytes());
        self.region.write(offset + 8, &(pair as u64).to_ne_bytes());
        let sge = self.region.sge(offset as u64, BYTES as u32);
        self.nodes[pair].qp.post(&[Send::message(u64::MAX, &[sge])]);
    }

    /// Waits for a message and checks it; completions of sends pass by.
    fn expect(&self, pair: usize, turn: u64) {
        loop {
            for wc in self.cq.poll(1) {
                assert_eq!(wc.status, IBV_WC_SUCCESS, "{wc:?}");
                if wc.wr_id == u64::MAX {
                    continue;
                }
                let bytes = self.region.read(2 * pair * BYTES, 16);
                let expected = [turn.to_ne_bytes(), (pair as u64).to_ne_bytes()].concat();
                assert!(wc.wr_id == pair as u64 && bytes == expected, "not message {turn} of pair {pair}");
                return;
            }
        }
    }
}

/// The order in which pairs are used: `width` of them in turn.
fn order(pairs: usize, width: usize) -> impl Iterator<Item = (usize, u64)> {
    (0..TURNS * pairs).map(move |index| (index % width, index as u64))
}

fn main() {
    let link = LinkOptions { timeout: TIMEOUT, ..LinkOptions::default() };
    let mut arguments = std::env::args().skip(1);
    let pairs: usize = arguments.next().map_or(10_000, |text| text.parse().expect("a number of queue pairs"));
    let child = arguments.next().is_some();
    let lab = Lab::open();
    let before = resident();
    let start = Instant::now();
    let side = Side::new(&lab, pairs, &link);
    let made = start.elapsed();
    let mut other = (!child).then(|| {
        let program = std::env::current_exe().expect("this program has a path");
        let mut command = Command::new(program);
        command.args([pairs.to_string(), "child".to_owned()]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program can be started again")
    });
    let (mut output, mut input): (Box<dyn std::io::Write>, Box<dyn std::io::BufRead>) = match &mut other {
        Some(other) => (
            Box::new(other.stdin.take().expect("piped")),
            Box::new(BufReader::new(other.stdout.take().expect("piped"))),
        ),
        None => (Box::new(std::io::stdout()), Box::new(BufReader::new(std::io::stdin()))),
    };
    let mut line = String::new();
    // One side at a time: a line of ten thousand numbers is more than a pipe holds.
    let mut meet = |words: &str| {
        let mut speak = || {
            writeln!(output, "{words}").and_then(|()| output.flush()).expect("the other process reads");
        };
        if !child {
            speak();
        }
        line.clear();
        input.read_line(&mut line).expect("the other process writes");
        if child {
            speak();
        }
        line.trim_end().to_owned()
    };
    let numbers: Vec<_> = side.nodes.iter().map(|node| node.qp.num().to_string()).collect();
    let gid = u128::from_be_bytes(gid_bytes(lab.gid().1));
    let peer = meet(&format!("{gid:x} {}", numbers.join(" ")));
    let mut words = peer.split(' ');
    let gid = u128::from_str_radix(words.next().expect("a gid"), 16).expect("a gid");
    let start = Instant::now();
    for (node, number) in side.nodes.iter().zip(words) {
        node.to_rts(&link, number.parse().expect("a number"), ibv_gid { raw: gid.to_be_bytes() });
    }
    let connected = start.elapsed();
    let memory = (resident() - before) / pairs;
    let mut times: Vec<(usize, Duration)> = Vec::new();
    // Twice each: the first makes the links and touches the memory.
    for width in [pairs, 1, pairs, 1] {
        (0..width).for_each(|pair| side.receive(pair));
        meet("ready");
        let start = Instant::now();
        for (pair, turn) in order(pairs, width) {
            if child {
                side.expect(pair, turn);
                side.receive(pair);
                side.send(pair, turn);
            } else {
                side.send(pair, turn);
                side.expect(pair, turn);
                side.receive(pair);
            }
        }
        times.push((width, start.elapsed()));
        meet("done");
    }
    if child {
        return;
    }
    let cost = |at: usize| times[at].1.as_secs_f64() * 1e6 / (2 * TURNS * pairs) as f64;
    let (all, one) = (cost(2), cost(3));
    println!(
        "{pairs} pairs: made in {:.2} s, connected in {:.2} s, {memory} bytes of memory each and side",
        made.as_secs_f64(),
        connected.as_secs_f64()
    );
    println!(
        "SEND 64 B one way: {one:.2} us over one pair, {all:.2} us over all in turn: {:.2} times",
        all / one
    );
    let status = other.expect("the parent").wait().expect("a child can be waited for");
    assert!(status.success(), "the second process failed");
}
