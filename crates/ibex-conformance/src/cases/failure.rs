//! The other end is late, gone or killed: requests end with the right status, and nothing hangs.

use std::time::{Duration, Instant};

use ibex_sys::{
    IBV_QPS_ERR, IBV_QPS_RESET, IBV_WC_RDMA_WRITE, IBV_WC_RECV, IBV_WC_RETRY_EXC_ERR,
    IBV_WC_RNR_RETRY_EXC_ERR, IBV_WC_SEND, IBV_WC_WR_FLUSH_ERR, ibv_gid,
};

use super::data::succeeded;
use crate::Outcome;
use crate::child::{Peer, hear, say};
use crate::lab::{Lab, LinkOptions, Node, NodeOptions, Pair, Recv, Send, gid_bytes, pattern};

crate::group!("failure";
    a_receiver_that_is_not_ready_is_waited_for,
    a_receiver_that_is_never_ready_ends_the_retries,
    a_pair_that_was_destroyed_is_given_up,
    a_pair_that_was_reset_is_given_up,
    another_process_answers,
    a_killed_process_is_given_up,
    a_killed_process_takes_no_other_pair_with_it,
    a_stopped_reader_does_not_stop_writes,
);

/// What a second process can be asked to do.
pub(crate) fn roles() -> Vec<(&'static str, fn())> {
    vec![("responder", responder)]
}

fn a_receiver_that_is_not_ready_is_waited_for() -> Outcome {
    let lab = Lab::open();
    let pair = Pair::new(&lab);
    let (source, target) = (pair.a.open_region(8192), pair.b.open_region(8192));
    source.write(0, &pattern(1, 8192));
    pair.a.qp.post(&[Send::message(1, &[source.sge(0, 8192)])]);
    pair.a.cq.stays_empty();
    pair.b.qp.post_recv(&[Recv::new(2, &[target.sge(0, 8192)])]);
    succeeded(&pair.b.cq.wait_one(), 2, IBV_WC_RECV);
    succeeded(&pair.a.cq.wait_one(), 1, IBV_WC_SEND);
    assert!(target.read(0, 8192) == pattern(1, 8192));
    Outcome::Passed
}

fn a_receiver_that_is_never_ready_ends_the_retries() -> Outcome {
    let lab = Lab::open();
    for rnr_retry in [0, 2] {
        let link = LinkOptions { rnr_retry, ..LinkOptions::default() };
        let pair = Pair::with(&lab, &NodeOptions::default(), &link);
        let source = pair.a.open_region(8);
        pair.a.qp.post(&[Send::message(1, &[source.sge(0, 8)]), Send::message(2, &[source.sge(0, 8)])]);
        let wcs = pair.a.cq.wait(2);
        assert_eq!((wcs[0].wr_id, wcs[0].status), (1, IBV_WC_RNR_RETRY_EXC_ERR));
        assert_eq!((wcs[1].wr_id, wcs[1].status), (2, IBV_WC_WR_FLUSH_ERR));
        assert_eq!(pair.a.qp.state(), IBV_QPS_ERR);
    }
    Outcome::Passed
}

/// Posts a WRITE towards somebody who is not there any more, and expects the retries to end.
fn is_given_up(node: &Node, link: &LinkOptions, addr: u64, rkey: u32) {
    let source = node.open_region(8);
    let start = Instant::now();
    let target = node.open_region(8);
    node.qp.post(&[
        Send::write(1, &[source.sge(0, 8)], &target, 0).remote(addr, rkey),
        Send::write(2, &[source.sge(0, 8)], &target, 0).remote(addr, rkey),
    ]);
    let wcs = node.cq.wait(2);
    assert_eq!((wcs[0].wr_id, wcs[0].status), (1, IBV_WC_RETRY_EXC_ERR));
    assert_eq!((wcs[1].wr_id, wcs[1].status), (2, IBV_WC_WR_FLUSH_ERR));
    assert_eq!(node.qp.state(), IBV_QPS_ERR);
    // Not before the retries could have run: half of their time, since timers may be coarse.
    assert!(start.elapsed() >= link.gives_up_after() / 2, "given up after {:?}", start.elapsed());
}

fn a_pair_that_was_destroyed_is_given_up() -> Outcome {
    let lab = Lab::open();
    let link = LinkOptions::impatient();
    let Pair { a, b } = Pair::with(&lab, &NodeOptions::default(), &link);
    let target = b.open_region(8);
    let (addr, rkey) = (target.addr(), target.rkey());
    drop(target);
    drop(b);
    is_given_up(&a, &link, addr, rkey);
    Outcome::Passed
}

fn a_pair_that_was_reset_is_given_up() -> Outcome {
    let lab = Lab::open();
    let link = LinkOptions::impatient();
    let Pair { a, b } = Pair::with(&lab, &NodeOptions::default(), &link);
    let target = b.open_region(8);
    b.qp.to_state(IBV_QPS_RESET).expect("RTS to RESET");
    is_given_up(&a, &link, target.addr(), target.rkey());
    assert_eq!(target.read(0, 8), [0; 8]);
    Outcome::Passed
}

/// The second process: connects, exposes a page, then does what it is told.
fn responder() {
    let lab = Lab::open();
    let node = lab.node(&NodeOptions::default());
    let link = LinkOptions::impatient();
    let region = node.open_region(1 << 16);
    node.to_init(&link);
    say(&format!("{} {} {} {}", node.qp.num(), hex(&gid_bytes(lab.gid().1)), region.addr(), region.rkey()));
    let (qpn, gid) = endpoint(&hear());
    node.to_rts(&link, qpn, gid);
    for id in 0..16 {
        node.qp.post_recv(&[Recv::new(id, &[region.sge(id * 4096, 4096)])]);
    }
    say("ready");
    // Ends with the parent, or by being killed.
    loop {
        match hear().as_str() {
            "echo" => {
                let wc = node.cq.wait_one();
                let sge = region.sge(wc.wr_id * 4096, wc.byte_len);
                node.qp.post(&[Send::message(100, &[sge])]);
                succeeded(&node.cq.wait_one(), 100, IBV_WC_SEND);
                say("echoed");
            }
            "end" => return,
            other => panic!("what is {other}?"),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn endpoint(line: &str) -> (u32, ibv_gid) {
    let mut words = line.split(' ');
    let qpn = words.next().and_then(|word| word.parse().ok()).expect("a queue pair number");
    let text = words.next().expect("a GID");
    let mut raw = [0; 16];
    for (index, byte) in raw.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).expect("hexadecimal digits");
    }
    (qpn, ibv_gid { raw })
}

/// A second process connected to a node of this one, and where its memory is.
struct Remote {
    peer: Peer,
    addr: u64,
    rkey: u32,
}

fn connect(node: &Node, link: &LinkOptions) -> Remote {
    let mut peer = Peer::start("responder");
    node.to_init(link);
    let line = peer.hear();
    let (qpn, gid) = endpoint(&line);
    let mut words = line.split(' ').skip(2);
    let mut number = || words.next().and_then(|word| word.parse::<u64>().ok()).expect("a number");
    let (addr, rkey) = (number(), number() as u32);
    peer.say(&format!("{} {}", node.qp.num(), hex(&gid_bytes(node.lab.gid().1))));
    node.to_rts(link, qpn, gid);
    assert_eq!(peer.hear(), "ready");
    Remote { peer, addr, rkey }
}

fn another_process_answers() -> Outcome {
    let lab = Lab::open();
    let node = lab.node(&NodeOptions::default());
    let mut remote = connect(&node, &LinkOptions::default());
    let (source, target) = (node.open_region(4096), node.open_region(4096));
    for round in 0..10u64 {
        let size = (1 + round * 450) as u32;
        source.write(0, &pattern(round, size as usize));
        node.qp.post_recv(&[Recv::new(1, &[target.sge(0, 4096)])]);
        node.qp.post(&[Send::message(2, &[source.sge(0, size)])]);
        remote.peer.say("echo");
        assert_eq!(remote.peer.hear(), "echoed");
        let mut wcs = node.cq.wait(2);
        wcs.sort_by_key(|wc| wc.wr_id);
        succeeded(&wcs[0], 1, IBV_WC_RECV);
        succeeded(&wcs[1], 2, IBV_WC_SEND);
        assert_eq!(wcs[0].byte_len, size);
        assert!(target.read(0, size as usize) == pattern(round, size as usize), "round {round}");
    }
    remote.peer.say("end");
    Outcome::Passed
}

fn a_killed_process_is_given_up() -> Outcome {
    let lab = Lab::open();
    let node = lab.node(&NodeOptions::default());
    let link = LinkOptions::impatient();
    let remote = connect(&node, &link);
    let source = node.open_region(8);
    // It lives: a WRITE arrives, with nobody at the other end looking.
    let anywhere = node.open_region(8);
    node.qp.post(&[Send::write(9, &[source.sge(0, 8)], &anywhere, 0).remote(remote.addr, remote.rkey)]);
    succeeded(&node.cq.wait_one(), 9, IBV_WC_RDMA_WRITE);
    remote.peer.kill();
    is_given_up(&node, &link, remote.addr, remote.rkey);
    Outcome::Passed
}

fn a_killed_process_takes_no_other_pair_with_it() -> Outcome {
    let lab = Lab::open();
    let (doomed, well) = (lab.node(&NodeOptions::default()), lab.node(&NodeOptions::default()));
    let link = LinkOptions::impatient();
    let first = connect(&doomed, &link);
    let mut second = connect(&well, &link);
    let (source, target) = (well.open_region(64), well.open_region(64));
    first.peer.kill();
    is_given_up(&doomed, &link, first.addr, first.rkey);
    for round in 0..5 {
        source.write(0, &pattern(round, 64));
        well.qp.post_recv(&[Recv::new(1, &[target.sge(0, 64)])]);
        well.qp.post(&[Send::message(2, &[source.sge(0, 64)])]);
        second.peer.say("echo");
        assert_eq!(second.peer.hear(), "echoed");
        for wc in well.cq.wait(2) {
            succeeded(&wc, wc.wr_id, if wc.wr_id == 1 { IBV_WC_RECV } else { IBV_WC_SEND });
        }
        assert_eq!(target.read(0, 64), pattern(round, 64));
    }
    second.peer.say("end");
    Outcome::Passed
}

fn a_stopped_reader_does_not_stop_writes() -> Outcome {
    let lab = Lab::open();
    let node = lab.node(&NodeOptions::default());
    let remote = connect(&node, &LinkOptions::default());
    let source = node.open_region(1 << 16);
    // The other process waits in read(2) of its standard input: only its device serves these.
    let end = Instant::now() + Duration::from_millis(300);
    let mut rounds = 0u64;
    while Instant::now() < end || rounds < 3 {
        let payload = pattern(rounds, 1 << 16);
        source.write(0, &payload);
        let anywhere = Send::write(1, &[source.sge(0, 1 << 16)], &source, 0).remote(remote.addr, remote.rkey);
        node.qp.post(&[anywhere]);
        succeeded(&node.cq.wait_one(), 1, IBV_WC_RDMA_WRITE);
        source.fill(0);
        let back = Send::read(2, &[source.sge(0, 1 << 16)], &source, 0).remote(remote.addr, remote.rkey);
        node.qp.post(&[back]);
        node.cq.wait_one();
        assert!(source.read(0, 1 << 16) == payload, "round {rounds}");
        rounds += 1;
    }
    Outcome::Passed
}
