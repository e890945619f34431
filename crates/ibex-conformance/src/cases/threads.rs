//! Threads that post on one queue pair and wait for their own operations: each gets exactly its own completion, whoever
//! reaps it (I7).

use std::collections::{BTreeSet, VecDeque};
use std::sync::mpsc;
use std::time::Duration;

use ibex::{Buf, Op, Opcode, RemoteRegion, Wait};

use super::ownership::{content, exposed, has_atomics, no_atomics};
use crate::Outcome;
use crate::lab::pattern;
use crate::lab::safe::{End, EndOptions, Ends, done, ended, open};

crate::group!("threads";
    two_threads_wait_for_their_own,
    four_threads_wait_for_their_own,
    sleeping_threads_are_woken_for_their_own,
    spinning_threads_find_their_own,
    atomics_of_all_threads_count_once,
    one_thread_posts_and_another_waits,
    senders_and_receivers_share_a_queue_pair,
    queue_pairs_share_a_completion_queue,
    a_full_queue_makes_threads_wait_and_lose_nothing,
);

/// Bytes that belong to each thread, here and at the peer.
const SHARE: usize = 512;

/// Ends for some threads with a few operations each in flight.
fn ends(threads: usize, wait: Wait) -> Ends {
    let options = EndOptions {
        send: 64,
        recv: 64,
        block: SHARE,
        blocks: threads * (WINDOW + 1),
        wait,
        ..EndOptions::default()
    };
    Ends::with(&options)
}

/// Operations that a thread keeps in flight.
const WINDOW: usize = 4;

/// Operations of a thread.
const ROUNDS: u64 = 300;

/// Each thread writes and reads its share in turn. Buffers, opcodes and bytes tell whose completion it was.
fn write_and_read(end: &End, remote: &RemoteRegion, thread: usize, rounds: u64) {
    let share = remote.at((thread * SHARE) as u64).slice(..SHARE as u64).expect("inside");
    let check = |(seed, place, op): (u64, usize, Op<'_, Buf>)| {
        // Both ways of waiting, at once.
        let result = if thread.is_multiple_of(2) { op.wait() } else { ended(op) };
        let (buf, wc) = result.unwrap_or_else(|failed| panic!("{failed}"));
        assert_eq!(buf.as_ptr().addr(), place, "thread {thread} got a buffer of another operation");
        let expected = if seed % 2 == 0 { Opcode::RDMA_WRITE } else { Opcode::RDMA_READ };
        assert_eq!(wc.opcode(), expected, "thread {thread} got a completion of another operation");
        // A READ follows the WRITE of the round before it, and finds what that wrote.
        assert!(buf[..] == pattern(tag(thread, seed & !1), SHARE), "thread {thread}, operation {seed}");
    };
    let mut window = VecDeque::new();
    for seed in 0..rounds {
        let op = if seed % 2 == 0 {
            let buf = end.buf(&pattern(tag(thread, seed), SHARE));
            (seed, buf.as_ptr().addr(), end.qp.write(buf, share).expect("room"))
        } else {
            let buf = end.room();
            (seed, buf.as_ptr().addr(), end.qp.read(buf, share).expect("room"))
        };
        window.push_back(op);
        // A READ must be over before its share is written again (no fence orders a WRITE behind it).
        while window.len() >= WINDOW || (seed % 2 == 1 && !window.is_empty()) {
            check(window.pop_front().expect("not empty"));
        }
    }
    window.into_iter().for_each(check);
}

/// A seed that no other thread uses.
fn tag(thread: usize, seed: u64) -> u64 {
    (thread as u64 + 1) * 1_000_000 + seed
}

fn all_get_their_own(threads: usize, wait: Wait, rounds: u64) -> Outcome {
    let Ends { a, b } = ends(threads, wait);
    let (region, remote) = exposed(&b, &a, threads * SHARE);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (a, remote) = (&a, &remote);
            scope.spawn(move || write_and_read(a, remote, thread, rounds));
        }
    });
    for thread in 0..threads {
        let last = pattern(tag(thread, (rounds - 1) & !1), SHARE);
        assert!(content(&region, thread * SHARE, SHARE) == last, "thread {thread}");
    }
    assert_eq!(a.pool.free(), a.pool.blocks());
    a.stays_quiet();
    Outcome::Passed
}

fn two_threads_wait_for_their_own() -> Outcome {
    all_get_their_own(2, Wait::default(), ROUNDS)
}

fn four_threads_wait_for_their_own() -> Outcome {
    all_get_their_own(4, Wait::default(), ROUNDS)
}

fn sleeping_threads_are_woken_for_their_own() -> Outcome {
    all_get_their_own(4, Wait::Sleep, ROUNDS / 3)
}

fn spinning_threads_find_their_own() -> Outcome {
    all_get_their_own(2, Wait::Spin, ROUNDS / 3)
}

fn atomics_of_all_threads_count_once() -> Outcome {
    let Ends { a, b } = ends(4, Wait::default());
    if !has_atomics(&a) {
        return no_atomics();
    }
    let (region, remote) = exposed(&b, &a, 64);
    let word = remote.u64_at(0).expect("a word");
    let per_thread = 200;
    let former: Vec<u64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    (0..per_thread)
                        .map(|_| a.qp.fetch_add(word, 1).expect("room").wait().expect("added"))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    // Every former value once: no operation ran twice, none took the result of another.
    assert_eq!(former.iter().copied().collect::<BTreeSet<_>>(), (0..4 * per_thread).collect());
    assert_eq!((former.len() as u64, region.load_u64(0).expect("a word")), (4 * per_thread, 4 * per_thread));
    Outcome::Passed
}

fn one_thread_posts_and_another_waits() -> Outcome {
    let Ends { a, b } = ends(2, Wait::default());
    let (_region, remote) = exposed(&b, &a, SHARE);
    let (sender, receiver) = mpsc::sync_channel::<(u64, Op<'static, Buf>)>(WINDOW);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for (seed, op) in receiver {
                assert!(done(op).0[..] == pattern(seed, 64), "operation {seed} gave another buffer back");
            }
        });
        for seed in 0..ROUNDS {
            a.until("a free buffer", |a| a.pool.free() > 0);
            let op = a.qp.write(a.buf(&pattern(seed, 64)), remote.all()).expect("room");
            sender.send((seed, op.into_static())).expect("the other thread lives");
        }
        drop(sender);
    });
    assert_eq!(a.pool.free(), a.pool.blocks());
    Outcome::Passed
}

fn senders_and_receivers_share_a_queue_pair() -> Outcome {
    // Both ends send and receive at once, each direction with a thread for either part, on one queue each.
    let Ends { a, b } = ends(2, Wait::default());
    let receive = |end: &End, from: u64| {
        // Taken in order, so posted in order: by this thread alone.
        let mut posted: VecDeque<_> = (0..WINDOW).map(|_| end.qp.recv(end.room()).expect("room")).collect();
        for seed in 0..ROUNDS {
            let (message, wc) = done(posted.pop_front().expect("as many as in the window"));
            assert_eq!(wc.imm(), Some(seed as u32));
            assert!(message[..] == pattern(from + seed, 64), "message {seed}");
            if seed + (WINDOW as u64) < ROUNDS {
                posted.push_back(end.qp.recv(message).expect("room"));
            }
        }
        assert!(posted.is_empty());
    };
    let send = |end: &End, from: u64| {
        for seed in 0..ROUNDS {
            let op = end.qp.send_with_imm(end.buf(&pattern(from + seed, 64)), seed as u32).expect("room");
            let (buf, _) = op.wait().unwrap_or_else(|failed| panic!("{failed}"));
            assert!(buf[..] == pattern(from + seed, 64), "SEND {seed} gave another buffer back");
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| receive(&a, 2_000));
        scope.spawn(|| receive(&b, 1_000));
        scope.spawn(|| send(&a, 1_000));
        scope.spawn(|| send(&b, 2_000));
    });
    assert_eq!((a.pool.free(), b.pool.free()), (a.pool.blocks(), b.pool.blocks()));
    Outcome::Passed
}

fn queue_pairs_share_a_completion_queue() -> Outcome {
    let context = open();
    let pd = context.alloc_pd().expect("a domain");
    let cq = context.create_cq(4 * 2 * 16).expect("a queue");
    let pool = pd.pool().block(SHARE).blocks(16).build().expect("a pool");
    let make = || pd.create_rc(&cq).max_send_wr(8).max_recv_wr(8).build().expect("room for all");
    let region = pd.shared(4 * SHARE).expect("memory");
    let handle =
        region.expose(ibex::Access::REMOTE_WRITE | ibex::Access::REMOTE_READ).expect("a registration");
    let pairs: Vec<_> = (0..4)
        .map(|_| {
            let (left, right) = (make(), make());
            let (to_left, to_right) = (left.endpoint(), right.endpoint());
            (left.connect(&to_right).expect("connects"), right.connect(&to_left).expect("connects"))
        })
        .collect();
    std::thread::scope(|scope| {
        for (thread, (left, right)) in pairs.iter().enumerate() {
            let pool = pool.clone();
            scope.spawn(move || {
                let remote = left.bind(handle).expect("a handle").at((thread * SHARE) as u64);
                let share = remote.slice(..64).expect("inside");
                for seed in 0..ROUNDS / 3 {
                    let receive = right.recv(pool.take().expect("a buffer")).expect("room");
                    let payload = pattern(tag(thread, seed), 64);
                    let write = left.write(pool.take_from(&payload).expect("a buffer"), share).expect("room");
                    let send = left.send(pool.take_from(&payload).expect("a buffer")).expect("room");
                    for (name, buf) in
                        [("SEND", done(send).0), ("RECV", done(receive).0), ("WRITE", done(write).0)]
                    {
                        assert!(buf[..] == payload, "pair {thread}, {name} {seed} is another's");
                    }
                }
            });
        }
    });
    assert_eq!(pool.free(), pool.blocks());
    Outcome::Passed
}

fn a_full_queue_makes_threads_wait_and_lose_nothing() -> Outcome {
    // Four threads and room for two requests: most posts are refused, and come back until they are not.
    let options = EndOptions { send: 2, block: SHARE, ..EndOptions::default() };
    let Ends { a, b } = Ends::with(&options);
    let (region, remote) = exposed(&b, &a, 4 * SHARE);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (a, remote) = (&a, &remote);
            scope.spawn(move || {
                for seed in 0..ROUNDS / 3 {
                    let mut buf = a.buf(&pattern(tag(thread, seed), SHARE));
                    let op = loop {
                        match a.qp.write(buf, remote.at((thread * SHARE) as u64)) {
                            Ok(op) => break op,
                            Err(rejected) => {
                                assert!(
                                    matches!(rejected.error(), ibex::PostError::QueueFull { .. }),
                                    "{rejected}"
                                );
                                buf = rejected.into_payload();
                                std::thread::sleep(Duration::from_micros(20));
                            }
                        }
                    };
                    assert!(done(op).0[..] == pattern(tag(thread, seed), SHARE), "thread {thread}");
                }
            });
        }
    });
    for thread in 0..4 {
        let last = pattern(tag(thread, ROUNDS / 3 - 1), SHARE);
        assert!(content(&region, thread * SHARE, SHARE) == last, "thread {thread}");
    }
    assert_eq!(a.pool.free(), a.pool.blocks());
    Outcome::Passed
}
