//! One-sided operations on the memory of another process: carried out by the process that posts them, while the other one
//! does nothing, or is stopped; taken back by deregistration; over when the other one ends.
//!
//! # Safety
//! Signals go to the child that the test has started and not yet waited for.
#![allow(unsafe_code)]

mod support;

use std::time::{Duration, Instant};

use ibex_sys::*;
use support::*;

/// Bytes of each process's memory.
const BYTES: usize = 1 << 20;

/// If set, the target's memory lies in a file.
const SHARED: &str = "IBEX_TEST_SHARED";

/// Orders to the target.
const DEREGISTER: u64 = 1;
const REGISTER: u64 = 2;
const ERROR: u64 = 3;
const WORD: u64 = 4;
const END: u64 = 5;

/// The target: makes memory and a queue pair, tells of them, and does what it is told.
fn target(mut link: peer::Link) {
    let context = Context::open();
    let pd = Pd::alloc(&context);
    let cq = Cq::create(&context, 64, None);
    let qp = Qp::create(&pd, &cq, &cq, wish());
    let shared = std::env::var_os(SHARED).is_some();
    let memory = if shared { Mr::reg_shared(&pd, BYTES, ALL) } else { Mr::reg(&pd, BYTES, ALL) };
    memory.fill(0..BYTES, 1);
    let peer = link.exchange(qp.endpoint(1));
    qp.connect(peer);
    link.put(memory.addr());
    link.put(u64::from(memory.rkey()));
    let mut memory = Some(memory);
    let mut old = Vec::new();
    loop {
        match link.take() {
            DEREGISTER => {
                // Its memory is leaked, so that a stray write harms nobody but the test.
                drop(memory.take());
                link.put(0);
            }
            REGISTER => {
                let fresh = Mr::reg(&pd, BYTES, ALL);
                fresh.fill(0..BYTES, 1);
                link.put(fresh.addr());
                link.put(u64::from(fresh.rkey()));
                old.extend(memory.replace(fresh));
            }
            ERROR => {
                qp.to(IBV_QPS_ERR);
                link.put(0);
            }
            WORD => {
                let at = link.take() as usize;
                link.put(
                    memory.as_ref().expect("registered").word(at).load(std::sync::atomic::Ordering::SeqCst),
                );
            }
            END => return,
            order => panic!("order {order}"),
        }
    }
}

/// Packets end within a quarter of a second if nobody answers.
fn wish() -> Wish {
    Wish { timeout: 13, retry: 6, ..Wish::default() }
}

/// This process's end, and the other one.
struct Near {
    qp: Qp,
    memory: Mr,
    peer: peer::Peer,
    addr: u64,
    rkey: u32,
}

impl Near {
    fn start(test: &str) -> Near {
        Near::start_with(test, &[])
    }

    fn start_with(test: &str, environment: &[(&str, &str)]) -> Near {
        let mut peer = peer::start_with(test, environment);
        let context = Context::open();
        let pd = Pd::alloc(&context);
        let cq = Cq::create(&context, 64, None);
        let qp = Qp::create(&pd, &cq, &cq, wish());
        let memory = Mr::reg(&pd, BYTES, ALL);
        let theirs = peer.link.exchange(qp.endpoint(1));
        qp.connect(theirs);
        let (addr, rkey) = (peer.link.take(), peer.link.take() as u32);
        Near { qp, memory, peer, addr, rkey }
    }

    fn rdma(&self, opcode: ibv_wr_opcode, at: usize, len: usize) {
        self.qp.rdma(opcode, 7, self.memory.sge(at, len), self.addr + at as u64, self.rkey);
    }

    /// Has operations go to the other process's memory without its help; they take other ways until it has attached.
    fn attach(&self) {
        let start = Instant::now();
        loop {
            // Nothing that comes as packets is answered meanwhile: a process that runs may answer within one poll.
            self.signal(libc::SIGSTOP);
            self.await_stop();
            self.rdma(IBV_WR_RDMA_READ, 0, 8);
            let reached = self.qp.send.poll().is_some_and(|wc| wc.status == IBV_WC_SUCCESS);
            self.signal(libc::SIGCONT);
            if reached {
                return;
            }
            self.qp.send.success();
            assert!(start.elapsed() < LIMIT, "the other process's memory is not reached");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Until the kernel says that the other process has stopped, `proc_pid_stat(5)`.
    fn await_stop(&self) {
        let stat = format!("/proc/{}/stat", self.peer.child.id());
        let start = Instant::now();
        while !std::fs::read_to_string(&stat).expect("procfs").contains(") T ") {
            assert!(start.elapsed() < LIMIT, "the other process does not stop");
            std::thread::yield_now();
        }
    }

    fn order(&mut self, order: u64) {
        self.peer.link.put(order);
        assert_eq!(self.peer.link.take(), 0);
    }

    fn signal(&self, signal: i32) {
        assert_eq!(c!(libc::kill(self.peer.child.id() as i32, signal)), 0);
    }
}

#[test]
fn a_stopped_process_is_read_and_written() {
    if let Some(link) = peer::second() {
        return target(link);
    }
    let mut near = Near::start("a_stopped_process_is_read_and_written");
    near.attach();
    near.signal(libc::SIGSTOP);
    near.rdma(IBV_WR_RDMA_READ, 0, BYTES);
    assert_eq!(near.qp.send.success().byte_len as usize, BYTES);
    near.memory.check(0..BYTES, 1, 0);
    // Several pieces, and lengths that are no multiple of anything.
    near.memory.fill(0..BYTES, 2);
    let mut sges = [near.memory.sge(8, 100), near.memory.sge(500, 0), near.memory.sge(108, 5001)];
    let (addr, rkey) = (near.addr + 8, near.rkey);
    near.qp.run(IBV_WR_RDMA_WRITE, 8, &mut sges, |wr| {
        wr.wr.rdma = ibv_send_wr_rdma { remote_addr: addr, rkey };
    });
    near.qp.send.success();
    near.memory.clear();
    near.rdma(IBV_WR_RDMA_READ, 0, 8192);
    near.qp.send.success();
    near.memory.check(0..8, 1, 0);
    near.memory.check(8..5109, 2, 8);
    near.memory.check(5109..8192, 1, 5109);
    near.signal(libc::SIGCONT);
    near.peer.link.put(END);
    near.peer.join();
}

/// Once a stream of which the first had to go as packets went as packets to its end.
#[test]
fn a_stream_that_began_as_packets_goes_on_without_them() {
    if let Some(link) = peer::second() {
        return target(link);
    }
    let mut near = Near::start("a_stream_that_began_as_packets_goes_on_without_them");
    near.attach();
    near.memory.fill(0..BYTES, 3);
    // Nothing is a packet's to carry. From here on some are always outstanding, as far as the program knows.
    near.rdma(IBV_WR_RDMA_WRITE, 0, 0);
    near.rdma(IBV_WR_RDMA_WRITE, 0, 0);
    let outstanding = 6;
    (2..outstanding).for_each(|at| near.rdma(IBV_WR_RDMA_WRITE, at * 4096, 4096));
    let go_on = |turns: usize| {
        for turn in 0..turns {
            near.rdma(IBV_WR_RDMA_WRITE, turn % 200 * 4096, 4096);
            near.qp.send.success();
        }
    };
    go_on(1000);
    near.signal(libc::SIGSTOP);
    near.await_stop();
    go_on(300);
    (0..outstanding).for_each(|_| {
        near.qp.send.success();
    });
    near.memory.clear();
    near.rdma(IBV_WR_RDMA_READ, 0, 200 * 4096);
    near.qp.send.success();
    near.memory.check(0..200 * 4096, 3, 0);
    near.signal(libc::SIGCONT);
    near.peer.link.put(END);
    near.peer.join();
}

/// What waits behind a message of which a part is on its way waits for all of it.
#[test]
fn what_is_behind_half_a_message_waits_for_the_whole() {
    if let Some(link) = peer::second() {
        return target(link);
    }
    let mut near = Near::start("what_is_behind_half_a_message_waits_for_the_whole");
    near.attach();
    for round in 0..20 {
        near.memory.fill(0..BYTES, round);
        near.rdma(IBV_WR_RDMA_WRITE, 0, 0);
        // More than a ring takes; those behind it are more than is carried out at a time.
        (0..6).for_each(|_| near.rdma(IBV_WR_RDMA_WRITE, 0, BYTES));
        (0..7).for_each(|_| {
            near.qp.send.success();
        });
        near.memory.clear();
        near.rdma(IBV_WR_RDMA_READ, 0, BYTES);
        near.qp.send.success();
        near.memory.check(0..BYTES, round, 0);
    }
    near.peer.link.put(END);
    near.peer.join();
}

#[test]
fn what_was_taken_back_is_out_of_reach() {
    if let Some(link) = peer::second() {
        return target(link);
    }
    let mut near = Near::start("what_was_taken_back_is_out_of_reach");
    near.attach();
    near.order(DEREGISTER);
    near.rdma(IBV_WR_RDMA_WRITE, 0, 64);
    assert_eq!(near.qp.send.wait().status, IBV_WC_REM_ACCESS_ERR);
    near.peer.link.put(END);
    near.peer.join();
}

#[test]
fn a_queue_pair_in_error_serves_nobody() {
    if let Some(link) = peer::second() {
        return target(link);
    }
    let mut near = Near::start("a_queue_pair_in_error_serves_nobody");
    near.attach();
    near.order(ERROR);
    near.rdma(IBV_WR_RDMA_WRITE, 0, 64);
    assert_eq!(near.qp.send.wait().status, IBV_WC_RETRY_EXC_ERR);
    near.peer.link.put(END);
    near.peer.join();
}

#[test]
fn bounds_and_rights_are_checked() {
    if let Some(link) = peer::second() {
        return target(link);
    }
    let mut near = Near::start("bounds_and_rights_are_checked");
    near.attach();
    let outside = near.addr + BYTES as u64 - 63;
    near.qp.rdma(IBV_WR_RDMA_WRITE, 1, near.memory.sge(0, 64), outside, near.rkey);
    assert_eq!(near.qp.send.wait().status, IBV_WC_REM_ACCESS_ERR);
    near.peer.link.put(END);
    near.peer.join();
}

#[test]
fn writes_end_with_the_process_they_go_to() {
    if let Some(link) = peer::second() {
        return target(link);
    }
    let near = Near::start("writes_end_with_the_process_they_go_to");
    near.attach();
    near.memory.fill(0..BYTES, 3);
    let start = Instant::now();
    let mut killed = false;
    loop {
        near.rdma(IBV_WR_RDMA_WRITE, 0, BYTES);
        let status = near.qp.send.wait().status;
        if status != IBV_WC_SUCCESS {
            assert!(killed);
            assert_eq!(status, IBV_WC_RETRY_EXC_ERR);
            break;
        }
        if !killed && start.elapsed() > Duration::from_millis(20) {
            // While another process copies to it, as like as not.
            near.signal(libc::SIGKILL);
            killed = true;
        }
        assert!(start.elapsed() < LIMIT);
    }
}

#[test]
fn deregistration_waits_for_copies() {
    if let Some(link) = peer::second() {
        return target(link);
    }
    let mut near = Near::start("deregistration_waits_for_copies");
    near.attach();
    // A region is taken back and made anew again and again, under writes that go on.
    for round in 0..20 {
        near.peer.link.put(REGISTER);
        (near.addr, near.rkey) = (near.peer.link.take(), near.peer.link.take() as u32);
        for _ in 0..round % 4 {
            near.rdma(IBV_WR_RDMA_WRITE, 0, BYTES);
            near.qp.send.success();
        }
    }
    near.peer.link.put(WORD);
    near.peer.link.put(1);
    assert_eq!(near.peer.link.take(), near.memory.word(1).load(std::sync::atomic::Ordering::SeqCst));
    near.peer.link.put(END);
    near.peer.join();
}

#[test]
fn atomics_of_two_processes_are_atomic() {
    if let Some(link) = peer::second() {
        return target(link);
    }
    let mut near = Near::start("atomics_of_two_processes_are_atomic");
    near.attach();
    let (addr, rkey) = (near.addr + 64, near.rkey);
    near.memory.word(8).store(0, std::sync::atomic::Ordering::SeqCst);
    near.rdma(IBV_WR_RDMA_WRITE, 64, 8);
    near.qp.send.success();
    for round in 0..100 {
        near.qp.run(IBV_WR_ATOMIC_FETCH_AND_ADD, 1, &mut [near.memory.sge(0, 8)], |wr| {
            wr.wr.atomic = ibv_send_wr_atomic { remote_addr: addr, compare_add: 3, swap: 0, rkey };
        });
        near.qp.send.success();
        assert_eq!(near.memory.word(0).load(std::sync::atomic::Ordering::SeqCst), 3 * round);
    }
    near.peer.link.put(WORD);
    near.peer.link.put(8);
    assert_eq!(near.peer.link.take(), 300);
    near.peer.link.put(END);
    near.peer.join();
}

#[test]
fn atomics_reach_a_stopped_process_whose_memory_lies_in_a_file() {
    if let Some(link) = peer::second() {
        return target(link);
    }
    let test = "atomics_reach_a_stopped_process_whose_memory_lies_in_a_file";
    let mut near = Near::start_with(test, &[(SHARED, "1")]);
    near.attach();
    near.signal(libc::SIGSTOP);
    near.memory.word(8).store(5, std::sync::atomic::Ordering::SeqCst);
    near.rdma(IBV_WR_RDMA_WRITE, 64, 8);
    near.qp.send.success();
    let (addr, rkey) = (near.addr + 64, near.rkey);
    // The kernel has no atomics between processes, and the other one does nothing.
    near.qp.run(IBV_WR_ATOMIC_CMP_AND_SWP, 1, &mut [near.memory.sge(0, 8)], |wr| {
        wr.wr.atomic = ibv_send_wr_atomic { remote_addr: addr, compare_add: 5, swap: 9, rkey };
    });
    near.qp.send.success();
    assert_eq!(near.memory.word(0).load(std::sync::atomic::Ordering::SeqCst), 5);
    near.rdma(IBV_WR_RDMA_READ, 0, BYTES);
    assert_eq!(near.qp.send.success().byte_len as usize, BYTES);
    assert_eq!(near.memory.word(8).load(std::sync::atomic::Ordering::SeqCst), 9);
    near.memory.check(72..BYTES, 1, 72);
    near.signal(libc::SIGCONT);
    near.order(DEREGISTER);
    near.rdma(IBV_WR_RDMA_WRITE, 0, 64);
    assert_eq!(near.qp.send.wait().status, IBV_WC_REM_ACCESS_ERR);
    near.peer.link.put(END);
    near.peer.join();
}

/// A WRITE that answers a message is no packet, and once overtook the acknowledgement of the message, which waited for one: a
/// program that goes on when it sees the answer had no room to send.
#[test]
fn an_answer_that_is_written_comes_after_the_acknowledgement_of_what_it_answers() {
    use std::sync::atomic::Ordering::SeqCst;

    const NAME: &str = "an_answer_that_is_written_comes_after_the_acknowledgement_of_what_it_answers";
    const ROUNDS: u64 = 5000;
    /// Far more than it takes if it is there, far less than it takes the device's thread to see to it.
    const AT_ONCE: usize = 1000;
    /// Where the answer is, and the word that answers it, with which nobody polls.
    const ANSWER: usize = 0;
    const SEEN: usize = 8;
    const FROM: usize = 16;

    let seen = |memory: &Mr, at: usize, number: u64| {
        let start = Instant::now();
        while memory.word(at / 8).load(SeqCst) != number {
            assert!(start.elapsed() < LIMIT, "nothing is written");
            std::thread::yield_now();
        }
    };
    let tell = |qp: &Qp, memory: &Mr, at: usize, number: u64, (addr, rkey): (u64, u32)| {
        memory.word(FROM / 8).store(number, SeqCst);
        qp.rdma(IBV_WR_RDMA_WRITE, 7, memory.sge(FROM, 8), addr + at as u64, rkey);
        while qp.send.success().wr_id != 7 {}
    };
    let connect = |link: &mut peer::Link| {
        let context = Context::open();
        let pd = Pd::alloc(&context);
        let (sends, recvs) = (Cq::create(&context, 64, None), Cq::create(&context, 64, None));
        let qp = Qp::create(&pd, &sends, &recvs, wish());
        let memory = Mr::reg(&pd, BYTES, ALL);
        memory.clear();
        qp.recv(1, memory.sge(64, 64));
        let theirs = link.exchange(qp.endpoint(1));
        qp.connect(theirs);
        link.put(memory.addr());
        link.put(u64::from(memory.rkey()));
        let target = (link.take(), link.take() as u32);
        (qp, memory, target)
    };
    if let Some(mut link) = peer::second() {
        let (qp, memory, target) = connect(&mut link);
        // A conversation, in which acknowledgements wait for answers.
        for number in 1..=2 * ROUNDS {
            qp.recv.success();
            qp.recv(1, memory.sge(64, 64));
            if number <= ROUNDS {
                qp.send_one(2, memory.sge(64, 64));
                qp.send.success();
            } else {
                tell(&qp, &memory, ANSWER, number, target);
                seen(&memory, SEEN, number);
            }
        }
        link.meet();
        return;
    }
    let mut second = peer::start(NAME);
    let (qp, memory, target) = connect(&mut second.link);
    let mut late = 0;
    for number in 1..=2 * ROUNDS {
        qp.send_one(2, memory.sge(64, 64));
        if number <= ROUNDS {
            qp.recv.success();
            qp.recv(1, memory.sge(64, 64));
            assert_eq!(qp.send.success().wr_id, 2);
            continue;
        }
        seen(&memory, ANSWER, number);
        let done = (0..AT_ONCE).find_map(|_| qp.send.poll());
        late += u64::from(done.is_none());
        let done = done.unwrap_or_else(|| qp.send.wait());
        assert_eq!((done.wr_id, done.status), (2, IBV_WC_SUCCESS));
        tell(&qp, &memory, SEEN, number, target);
    }
    second.link.meet();
    second.join();
    // Some may be: threads lose their processor.
    assert!(late < 5, "{late} of {ROUNDS} acknowledgements came after the answer");
}
