//! Ten thousand queue pairs between two processes: what a SEND costs with all of them in use and with one, and what a queue
//! pair takes of memory.
//!
//! `cargo run --release -p ibex-conformance --example scale [pairs [most]]`; `IBEX_SOFT_LINK` chooses the link. The program
//! starts itself a second time. Each message's content names its number and is checked; a completion with an error ends the
//! run. If a SEND over all pairs in turn costs more than `most` times what it costs over one, the run fails.
//!
//! # What is compared
//!
//! One message of 64 bytes is under way at a time: sent, received, answered over the same pair. Half the time of such a
//! round trip is what a SEND costs, with the posting of the receive and the polling of all completions. The same number
//! of messages goes
//!
//! - over one pair,
//! - over all pairs in turn: each is used again when all others have been, so that what the device keeps for it is no longer
//!   in the nearer caches,
//! - over all pairs in an order without any order, another one each time, in which neighbours in memory are of no help.
//!
//! All three use the same completion queue, with room for the completions of all pairs, and the same memory of the program,
//! a place for each pair, in turn: what that costs is no different with one pair. The program keeps one pointer for each pair.
//! Rounds of the three alternate; each figure is the median of the rounds.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ibex_conformance::lab::{ALL_ACCESS, Cq, Lab, Lane, LinkOptions, Node, Qp, Region, gid_bytes};
use ibex_sys::{IBV_WC_SUCCESS, ibv_gid, ibv_qp_cap, ibv_wc};

/// Messages there and back in a round, for each pair.
const TURNS: usize = 5;
/// Rounds of each kind that count. One more before them makes the links and touches the memory.
const ROUNDS: usize = 5;
/// Bytes of a message.
const BYTES: usize = 64;
/// Acknowledgement timeout 4.096 µs · 2^18 = 1 s: two processes may share one processor.
const TIMEOUT: u8 = 18;
/// `wr_id` of a SEND; that of a receive is its pair.
const SENT: u64 = u64::MAX;
/// What the second process is told that it is.
const CHILD: &str = "child";
/// Completions taken by one call at most.
const POLL: usize = 4;

/// Which pairs the messages of a round go over.
#[derive(Clone, Copy)]
enum Order {
    One,
    Turn,
    Random,
}

const ORDERS: [Order; 3] = [Order::One, Order::Turn, Order::Random];

/// The pair of each message of a round; both processes make the same.
fn pairs_of(order: Order, round: usize, pairs: usize) -> Vec<u32> {
    let in_turn = 0..u32::try_from(pairs).expect("queue pair numbers have 24 bits");
    match order {
        Order::One => vec![0; TURNS * pairs],
        Order::Turn => (0..TURNS).flat_map(|_| in_turn.clone()).collect(),
        Order::Random => {
            let mut state = 0x9e37_79b9_7f4a_7c15 ^ round as u64;
            let mut shuffled = || {
                let mut list: Vec<u32> = in_turn.clone().collect();
                for index in (1..list.len()).rev() {
                    // xorshift64; the bias of the remainder does not matter here.
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    list.swap(index, (state % (index as u64 + 1)) as usize);
                }
                list
            };
            (0..TURNS).flat_map(|_| shuffled()).collect()
        }
    }
}

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
        let region = Region::new(&pd, 2 * BYTES * pairs, ALL_ACCESS);
        Self { nodes, cq, region }
    }
}

/// The end of a round: its messages are numbered.
struct Round<'a> {
    lanes: &'a [Lane<'a>],
    cq: &'a Cq,
    region: &'a Region,
    /// Receives posted.
    places: usize,
    /// Messages received.
    arrived: usize,
    wcs: [ibv_wc; POLL],
}

impl Round<'_> {
    fn at(&self, place: usize, half: usize) -> usize {
        (2 * (place % self.lanes.len()) + half) * BYTES
    }

    /// Posts a receive to `pair`, for the place whose turn it is.
    fn receive(&mut self, pair: u32) {
        let sge = self.region.sge(self.at(self.places, 0) as u64, BYTES as u32);
        self.lanes[pair as usize].receive(self.places as u64, sge);
        self.places += 1;
    }

    fn send(&self, pair: u32, number: usize) {
        let offset = self.at(number, 1);
        self.region.set_word(offset, number as u64);
        self.region.set_word(offset + 8, u64::from(pair));
        self.lanes[pair as usize].send(SENT, self.region.sge(offset as u64, BYTES as u32));
    }

    /// Waits for a message and checks it; completions of sends pass by.
    fn expect(&mut self, pair: u32, number: usize) {
        loop {
            let mut found = None;
            for wc in self.cq.poll_into(&mut self.wcs) {
                assert_eq!(wc.status, IBV_WC_SUCCESS, "{wc:?}");
                if wc.wr_id != SENT {
                    assert!(found.is_none(), "two messages where one was sent");
                    found = Some(wc.wr_id as usize);
                }
            }
            if let Some(place) = found {
                let offset = self.at(place, 0);
                let (told, of) = (self.region.word(offset), self.region.word(offset + 8));
                assert!(
                    told == number as u64 && of == u64::from(pair),
                    "not message {number} of pair {pair}"
                );
                self.arrived += 1;
                return;
            }
        }
    }
}

fn main() {
    let link = LinkOptions { timeout: TIMEOUT, ..LinkOptions::default() };
    let mut arguments = std::env::args().skip(1);
    let pairs: usize = arguments.next().map_or(10_000, |text| text.parse().expect("a number of queue pairs"));
    let last = arguments.next();
    let child = last.as_deref() == Some(CHILD);
    let most: f64 =
        last.filter(|_| !child).map_or(f64::INFINITY, |text| text.parse().expect("a number of times"));
    let lab = Lab::open();
    let before = resident();
    let start = Instant::now();
    let side = Side::new(&lab, pairs, &link);
    let made = start.elapsed();
    let mut other = (!child).then(|| {
        let program = std::env::current_exe().expect("this program has a path");
        let mut command = Command::new(program);
        command.args([pairs.to_string(), CHILD.to_owned()]);
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
    let lanes: Vec<_> = side.nodes.iter().map(|node| node.qp.lane()).collect();
    let (cq, region) = (&side.cq, &side.region);
    let mut round =
        Round { lanes: &lanes, cq, region, places: 0, arrived: 0, wcs: [ibv_wc::default(); POLL] };
    // A receive for each pair stands all the time.
    (0..pairs).for_each(|pair| round.receive(pair as u32));
    let mut times = [const { Vec::<Duration>::new() }; ORDERS.len()];
    for number in 0..=ROUNDS {
        for (order, times) in ORDERS.into_iter().zip(&mut times) {
            let list = pairs_of(order, number, pairs);
            meet("ready");
            let start = Instant::now();
            for (index, &pair) in list.iter().enumerate() {
                if child {
                    round.expect(pair, index);
                    round.receive(pair);
                    round.send(pair, index);
                } else {
                    round.send(pair, index);
                    round.expect(pair, index);
                    round.receive(pair);
                }
            }
            if number > 0 {
                times.push(start.elapsed());
            }
            meet("done");
        }
    }
    assert_eq!(round.arrived, (ROUNDS + 1) * ORDERS.len() * TURNS * pairs, "each message once");
    let memory = (resident() - before) / pairs;
    if child {
        return;
    }
    let [one, turn, random] = times.map(|mut times| {
        times.sort_unstable();
        times[ROUNDS / 2].as_secs_f64() * 1e6 / (2 * TURNS * pairs) as f64
    });
    println!(
        "{pairs} pairs: made in {:.2} s, connected in {:.2} s, {memory} bytes of memory each and side",
        made.as_secs_f64(),
        connected.as_secs_f64()
    );
    println!(
        "SEND 64 B one way: {one:.3} us over one pair, {turn:.3} us over all in turn: {:.2} times; {random:.3} us in \
         any order: {:.2} times",
        turn / one,
        random / one
    );
    let status = other.expect("the parent").wait().expect("a child can be waited for");
    assert!(status.success(), "the second process failed");
    assert!(turn <= most * one, "a SEND costs more than {most} times what it costs over one pair");
}
