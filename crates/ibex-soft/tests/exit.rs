//! The end of a process: what it owes its peer is sent, unless it is killed; nothing is left behind.
#![allow(unsafe_code)]

mod support;

use ibex_sys::*;
use support::*;

/// Messages before the last: enough for the device's thread to leave the sockets to the caller, who spins.
const ROUNDS: u64 = 500;

/// Two processes, each with a queue pair; the second one ends as soon as it has got the last message.
///
/// `timeout` is the queue pair's; 0 is none, so that what is lost stays lost.
fn connect(link: &mut peer::Link, timeout: u8) -> (Qp, Mr) {
    let context = Context::open();
    let pd = Pd::alloc(&context);
    let cq = Cq::create(&context, 64, None);
    // With a timeout of 13 a lost acknowledgement is an error within a quarter of a second.
    let qp = Qp::create(&pd, &cq, &cq, Wish { timeout, retry: 6, ..Wish::default() });
    let memory = Mr::reg(&pd, 4096, ALL);
    let other = link.exchange(qp.endpoint(1));
    qp.recv(1, memory.sge(0, 64));
    qp.connect(other);
    link.meet();
    (qp, memory)
}

/// Waits for a message and makes room for the next.
fn receive(qp: &Qp, memory: &Mr) {
    while qp.recv.success().wr_id != 1 {}
    qp.recv(1, memory.sge(0, 64));
}

/// The second process's part of the conversation, up to the last message, which it does not answer.
fn answer(qp: &Qp, memory: &Mr) {
    for _ in 0..ROUNDS {
        receive(qp, memory);
        qp.send_one(2, memory.sge(64, 64));
    }
    while qp.recv.success().wr_id != 1 {}
}

/// The first process's part of the test `name`, five times: the last message is acknowledged, whatever the second does then.
fn the_last_is_acknowledged(name: &str) {
    for round in 0..5 {
        let mut second = peer::start(name);
        let (qp, memory) = connect(&mut second.link, 13);
        for _ in 0..ROUNDS {
            qp.send_one(2, memory.sge(64, 64));
            receive(&qp, &memory);
        }
        qp.send_one(3, memory.sge(64, 64));
        let last = std::iter::repeat_with(|| qp.send.wait()).find(|wc| wc.wr_id == 3).expect("endless");
        assert_eq!(last.status, IBV_WC_SUCCESS, "process {round}");
        second.join();
    }
}

#[test]
fn a_process_that_exits_after_its_last_receive_has_acknowledged_it() {
    const NAME: &str = "a_process_that_exits_after_its_last_receive_has_acknowledged_it";
    if let Some(mut link) = peer::second() {
        let (qp, memory) = connect(&mut link, 13);
        answer(&qp, &memory);
        std::process::exit(0);
    }
    the_last_is_acknowledged(NAME);
}

/// What was left to travel with the next message was not told, for there was none.
#[test]
fn who_destroys_a_queue_pair_after_its_last_receive_has_acknowledged_it() {
    const NAME: &str = "who_destroys_a_queue_pair_after_its_last_receive_has_acknowledged_it";
    if let Some(mut link) = peer::second() {
        let (qp, memory) = connect(&mut link, 13);
        answer(&qp, &memory);
        let handle = qp.qp;
        std::mem::forget(qp);
        assert_eq!(c!((v().destroy_qp)(handle)), 0);
        // Nothing is told any more.
        c!(libc::_exit(0));
    }
    the_last_is_acknowledged(NAME);
}

#[test]
fn a_caller_that_polls_and_then_blocks_for_something_else_has_acknowledged() {
    const NAME: &str = "a_caller_that_polls_and_then_blocks_for_something_else_has_acknowledged";
    if let Some(mut link) = peer::second() {
        let (qp, memory) = connect(&mut link, 0);
        let channel = Channel::create(&qp.pd.1);
        let wait = v().wait_comp_event.expect("the device's extension");
        // The first wait is what makes the device's thread leave blocking callers alone.
        assert_eq!(c!(wait(channel.0, 1_000_000)), libc::ETIMEDOUT);
        answer(&qp, &memory);
        assert_eq!(c!(wait(channel.0, 3_000_000_000)), libc::ETIMEDOUT);
        return;
    }
    let mut second = peer::start(NAME);
    let (qp, memory) = connect(&mut second.link, 0);
    for _ in 0..ROUNDS {
        qp.send_one(2, memory.sge(64, 64));
        receive(&qp, &memory);
    }
    let start = std::time::Instant::now();
    qp.send_one(3, memory.sge(64, 64));
    while qp.send.success().wr_id != 3 {}
    assert!(start.elapsed().as_secs() < 2, "acknowledged after {:?}", start.elapsed());
    second.join();
}

/// Acknowledgements in a capture, of the packets that `from` sent.
fn acknowledgements(capture: &[u8], from: [u8; 4]) -> usize {
    // Lengths of the headers of a file, a record, IPv4 and UDP; the opcode of RC's acknowledgement, IBTA table 38.
    const FILE: usize = 24;
    const RECORD: usize = 16;
    const IPV4: usize = 20;
    const UDP: usize = 8;
    const RC_ACK: u8 = 0x11;
    let (mut at, mut count) = (FILE, 0);
    while let Some(record) = capture.get(at..at + RECORD) {
        let len = u32::from_ne_bytes(record[8..12].try_into().expect("four bytes")) as usize;
        let packet = &capture[at + RECORD..at + RECORD + len];
        count += usize::from(packet[12..16] == from && packet[IPV4 + UDP] == RC_ACK);
        at += RECORD + len;
    }
    count
}

/// Once, where packets get lost, the peer of a program that leaves after its last receive waited for ever (Linux' rxe), or
/// took its last message for lost: nobody was there to repeat the acknowledgement.
#[test]
fn who_leaves_says_its_last_acknowledgement_twice_to_another_address() {
    const NAME: &str = "who_leaves_says_its_last_acknowledgement_twice_to_another_address";
    const DESTROYS: &str = "destroys";
    const HOW: &str = "IBEX_TEST_HOW";
    if let Some(mut link) = peer::second() {
        let (qp, memory) = connect(&mut link, 13);
        receive(&qp, &memory);
        if std::env::var(HOW).is_ok_and(|how| how == DESTROYS) {
            return;
        }
        std::process::exit(0);
    }
    for how in [DESTROYS, "exits"] {
        for (address, times) in [([127, 0, 0, 1], 1), ([127, 0, 0, 78], 2)] {
            let path =
                std::env::temp_dir().join(format!("ibex-exit-{}-{how}-{times}.pcap", std::process::id()));
            let capture = path.to_string_lossy().into_owned();
            let text = std::net::Ipv4Addr::from(address).to_string();
            let environment = [(HOW, how), ("IBEX_SOFT_ADDR", &text), ("IBEX_SOFT_PCAP", &capture)];
            let mut second = peer::start_with(NAME, &environment);
            let (qp, memory) = connect(&mut second.link, 0);
            qp.send_one(2, memory.sge(64, 64));
            qp.send.success();
            second.join();
            let capture = std::fs::read(&path).expect("a capture");
            std::fs::remove_file(&path).expect("still there");
            assert_eq!(acknowledgements(&capture, address), times, "{how}, at {text}");
        }
    }
}

/// Open descriptors and threads of this process.
fn resources() -> (usize, usize) {
    let count = |path| std::fs::read_dir(path).expect("proc is mounted").count();
    (count("/proc/self/fd"), count("/proc/self/task"))
}

#[test]
fn fifty_openings_leave_no_descriptor_and_no_thread() {
    let round = || {
        let pair = Pair::new();
        pair.b.recv(1, pair.bm.sge(0, 64));
        pair.a.send_one(2, pair.am.sge(0, 64));
        pair.b.recv.success();
        pair.a.send.success();
        let channel = Channel::create(&pair.a.pd.1);
        drop(Cq::create(&pair.a.pd.1, 4, Some(&channel)));
    };
    // In a process of its own, so that other tests' do not count.
    const NAME: &str = "fifty_openings_leave_no_descriptor_and_no_thread";
    if let Some(mut link) = peer::second() {
        round();
        let before = resources();
        (0..50).for_each(|_| round());
        // A thread that was joined may still be listed for an instant.
        let start = std::time::Instant::now();
        while resources() != before && start.elapsed() < LIMIT {
            std::thread::yield_now();
        }
        assert_eq!(resources(), before);
        link.put(1);
        return;
    }
    let mut second = peer::start(NAME);
    assert_eq!(second.link.take(), 1);
    second.join();
}
