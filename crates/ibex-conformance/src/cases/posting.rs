//! Queues through the safe crate: N posted are N completed, each completion ends its own operation, what does not fit comes
//! back with the reason, and a completion queue is leased (I6).

use std::sync::atomic::{AtomicBool, Ordering};

use ibex::{Opcode, PostError, QueueError, Status};

use super::ownership::exposed;
use crate::Outcome;
use crate::lab::safe::{End, EndOptions, Ends, done, open};
use crate::lab::{QUIET, pattern};

crate::group!("posting";
    a_full_send_queue_returns_the_buffer,
    a_full_receive_queue_returns_the_buffer,
    n_posted_are_n_completed,
    completions_come_in_any_order_of_waiting,
    a_lone_completion_ends_its_wait,
    a_completion_of_another_operation_is_handed_on,
    a_completion_of_another_queue_pair_is_handed_on,
    an_exhausted_pool_says_so,
    a_lease_is_refused_with_its_remedy,
    a_lease_is_given_back,
);

pub(super) fn deep(depth: u32) -> EndOptions {
    EndOptions { send: depth, recv: depth, block: 64, blocks: depth as usize + 1, ..EndOptions::default() }
}

fn a_full_send_queue_returns_the_buffer() -> Outcome {
    let Ends { a, b } = Ends::with(&deep(16));
    let mut sent: Vec<_> = (0..16).map(|seed| a.qp.send(a.buf(&pattern(seed, 64))).expect("room")).collect();
    let buf = a.buf(&pattern(99, 64));
    let place = buf.as_ptr();
    let (error, buf) = a.qp.send(buf).expect_err("seventeen in a queue of sixteen").into_parts();
    assert!(
        matches!(error, PostError::QueueFull { queue: "send", capacity: 16, in_flight: 16, .. }),
        "{error}"
    );
    assert_eq!(buf.as_ptr(), place);
    assert!(buf[..] == pattern(99, 64));
    // An inline request takes the same room.
    assert!(matches!(a.qp.send_inline(b"x"), Err(PostError::QueueFull { .. })));
    // One place is enough again.
    let receive = b.qp.recv(b.room()).expect("room");
    done(sent.remove(0));
    sent.push(a.qp.send(buf).expect("room for one"));
    done(receive);
    for sent in sent {
        let receive = b.qp.recv(b.room()).expect("room");
        done(sent);
        done(receive);
    }
    assert_eq!((a.pool.free(), b.pool.free()), (a.pool.blocks(), b.pool.blocks()));
    Outcome::Passed
}

fn a_full_receive_queue_returns_the_buffer() -> Outcome {
    let Ends { a, b } = Ends::with(&deep(16));
    let receives: Vec<_> = (0..16).map(|_| b.qp.recv(b.room()).expect("room")).collect();
    let (error, buf) =
        b.qp.recv(b.buf(&pattern(99, 64))).expect_err("seventeen in a queue of sixteen").into_parts();
    assert!(
        matches!(error, PostError::QueueFull { queue: "receive", capacity: 16, in_flight: 16, .. }),
        "{error}"
    );
    assert!(buf[..] == pattern(99, 64));
    for (seed, receive) in receives.into_iter().enumerate() {
        done(a.qp.send(a.buf(&pattern(seed as u64, 64))).expect("room"));
        assert!(done(receive).0[..] == pattern(seed as u64, 64), "message {seed}");
    }
    Outcome::Passed
}

fn n_posted_are_n_completed() -> Outcome {
    let Ends { a, b } = Ends::with(&deep(64));
    let mut seed = 0;
    for _ in 0..8 {
        let mut receives = Vec::new();
        let mut sends = Vec::new();
        for _ in 0..64 {
            receives.push(b.qp.recv(b.room()).expect("room"));
        }
        for index in 0..64 {
            sends.push(a.qp.send(a.buf(&pattern(seed + index, 64))).expect("room"));
        }
        for (index, send) in sends.into_iter().enumerate() {
            let (buf, wc) = send.wait().unwrap_or_else(|failed| panic!("{failed}"));
            assert!(buf[..] == pattern(seed + index as u64, 64), "SEND {index} gave another buffer back");
            assert_eq!(wc.opcode(), Opcode::SEND);
        }
        for (index, receive) in receives.into_iter().enumerate() {
            let (buf, wc) = done(receive);
            assert!(buf[..] == pattern(seed + index as u64, 64), "message {index} is another");
            assert_eq!((wc.opcode(), wc.byte_len()), (Opcode::RECV, 64));
        }
        seed += 64;
    }
    // And no more than N.
    a.stays_quiet();
    b.stays_quiet();
    assert_eq!((a.pool.free(), b.pool.free()), (a.pool.blocks(), b.pool.blocks()));
    Outcome::Passed
}

fn completions_come_in_any_order_of_waiting() -> Outcome {
    let Ends { a, b } = Ends::with(&deep(16));
    for round in 0..10_u64 {
        let receives: Vec<_> = (0..16).map(|_| b.qp.recv(b.room()).expect("room")).collect();
        let sends: Vec<_> = (0..16).map(|seed| a.qp.send(a.buf(&pattern(seed, 64))).expect("room")).collect();
        // The last first: its completion is behind all others, and each of those finds its operation.
        for (seed, receive) in receives.into_iter().enumerate().rev() {
            assert!(done(receive).0[..] == pattern(seed as u64, 64), "round {round}, message {seed}");
        }
        for (seed, send) in sends.into_iter().enumerate().rev() {
            let (buf, _) = send.wait().unwrap_or_else(|failed| panic!("{failed}"));
            assert!(buf[..] == pattern(seed as u64, 64), "round {round}, SEND {seed}");
        }
    }
    Outcome::Passed
}

fn a_lone_completion_ends_its_wait() -> Outcome {
    let Ends { a, b } = Ends::new();
    let (region, remote) = exposed(&b, &a, 64);
    for round in 0..4 {
        // Waits begin when the completion is there, the only one of its queue.
        let receive = b.qp.recv(b.room()).expect("room");
        let send = a.qp.send_with_imm(a.buf(&pattern(round, 64)), round as u32).expect("room");
        std::thread::sleep(QUIET);
        let (buf, wc) = send.wait().unwrap_or_else(|failed| panic!("{failed}"));
        assert!(buf[..] == pattern(round, 64) && wc.opcode() == Opcode::SEND);
        let (message, wc) = receive.wait().unwrap_or_else(|failed| panic!("{failed}"));
        assert!(message[..] == pattern(round, 64), "round {round}");
        assert_eq!((wc.opcode(), wc.imm(), wc.byte_len()), (Opcode::RECV, Some(round as u32), 64));
        let inline = a.qp.write_inline(&round.to_ne_bytes(), remote.all()).expect("room");
        std::thread::sleep(QUIET);
        assert_eq!(inline.wait().unwrap_or_else(|failed| panic!("{failed}")).opcode(), Opcode::RDMA_WRITE);
        assert_eq!(region.load_u64(0).expect("a word"), round);
    }
    region.withdraw(remote.handle()).expect("exposed");
    let refused = a.qp.write(a.buf(&pattern(9, 64)), remote.all()).expect("room");
    std::thread::sleep(QUIET);
    let refused = refused.wait().expect_err("withdrawn");
    assert_eq!(refused.status(), Status::REM_ACCESS_ERR, "{refused}");
    assert!(refused.into_payload().expect("given back")[..] == pattern(9, 64));
    Outcome::Passed
}

fn a_completion_of_another_operation_is_handed_on() -> Outcome {
    let Ends { a, b } = Ends::new();
    // b's receive has completed and nobody has looked. b's SEND cannot complete, since a has no receive yet: what lies in
    // b's queue, all alone, is not what its wait is for.
    let receive = b.qp.recv(b.room()).expect("room");
    done(a.qp.send(a.buf(&pattern(1, 64))).expect("room"));
    let send = b.qp.send(b.buf(&pattern(2, 64))).expect("room");
    let posted = AtomicBool::new(false);
    let answer = std::thread::scope(|scope| {
        let late = scope.spawn(|| {
            std::thread::sleep(QUIET);
            posted.store(true, Ordering::SeqCst);
            done(a.qp.recv(a.room()).expect("room"))
        });
        let (buf, wc) = send.wait().unwrap_or_else(|failed| panic!("{failed}"));
        assert!(posted.load(Ordering::SeqCst), "the SEND ended with the completion of the receive");
        assert!(buf[..] == pattern(2, 64) && wc.opcode() == Opcode::SEND);
        late.join().expect("no panic").0
    });
    assert!(answer[..] == pattern(2, 64));
    assert!(done(receive).0[..] == pattern(1, 64), "the receive's completion was lost");
    // The other way round: a SEND has completed, and the wait is for a receive.
    let late = a.qp.recv(a.room()).expect("room");
    let send = b.qp.send(b.buf(&pattern(3, 64))).expect("room");
    assert!(done(late).0[..] == pattern(3, 64));
    std::thread::sleep(QUIET);
    let receive = b.qp.recv(b.room()).expect("room");
    posted.store(false, Ordering::SeqCst);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(QUIET);
            posted.store(true, Ordering::SeqCst);
            done(a.qp.send(a.buf(&pattern(4, 64))).expect("room"));
        });
        let (message, wc) = receive.wait().unwrap_or_else(|failed| panic!("{failed}"));
        assert!(posted.load(Ordering::SeqCst), "the receive ended with the completion of the SEND");
        assert!(message[..] == pattern(4, 64) && wc.opcode() == Opcode::RECV);
    });
    assert!(done(send).0[..] == pattern(3, 64), "the SEND's completion was lost");
    Outcome::Passed
}

fn a_completion_of_another_queue_pair_is_handed_on() -> Outcome {
    let context = open();
    let pd = context.alloc_pd().expect("a domain");
    let shared = context.create_cq(4 * 8).expect("a queue");
    let pool = pd.pool().block(64).blocks(8).build().expect("a pool");
    let make = || pd.create_rc(&shared).max_send_wr(4).max_recv_wr(4).build().expect("room");
    let (first, second) = (make(), make());
    let options = EndOptions::default();
    let (left, right) = (End::new(&context, &options), End::new(&context, &options));
    let (to_first, to_second) = (first.endpoint(), second.endpoint());
    let first = first.connect(&left.qp.endpoint()).expect("connects");
    let second = second.connect(&right.qp.endpoint()).expect("connects");
    let (left, right) = (left.connect(&to_first, &options), right.connect(&to_second, &options));
    // Both queue pairs send their first request: the numbers of the two are the same but for the queue they belong to.
    let arrived = left.qp.recv(left.room()).expect("room");
    let early = first.send(pool.take_from(b"early").expect("a buffer")).expect("room");
    assert_eq!(&done(arrived).0[..], b"early");
    std::thread::sleep(QUIET);
    let late = second.send(pool.take_from(b"late").expect("a buffer")).expect("room");
    let posted = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(QUIET);
            posted.store(true, Ordering::SeqCst);
            assert_eq!(&done(right.qp.recv(right.room()).expect("room")).0[..], b"late");
        });
        let (buf, _) = late.wait().unwrap_or_else(|failed| panic!("{failed}"));
        assert!(posted.load(Ordering::SeqCst), "a SEND ended with the completion of another queue pair");
        assert_eq!(&buf[..], b"late");
    });
    assert_eq!(&done(early).0[..], b"early", "the other queue pair's completion was lost");
    Outcome::Passed
}

fn an_exhausted_pool_says_so() -> Outcome {
    let Ends { a, b: _b } = Ends::new();
    let receives: Vec<_> = (0..a.pool.blocks()).map(|_| a.qp.recv(a.room()).expect("room")).collect();
    let error = a.pool.take().expect_err("all buffers are in flight");
    assert!(matches!(error, ibex::MemoryError::PoolExhausted { blocks: 8, .. }), "{error}");
    assert!(a.pool.try_take().is_none());
    drop(receives);
    // Dropping the operations gives nothing back: the device still has the buffers.
    a.stays_at(0);
    Outcome::Passed
}

fn a_lease_is_refused_with_its_remedy() -> Outcome {
    let context = open();
    let pd = context.alloc_pd().expect("a domain");
    let cq = context.create_cq(16).expect("a queue");
    // A device may grant more than was asked for.
    let room = cq.room();
    assert_eq!(room, cq.capacity());
    let first = pd.create_rc(&cq).max_send_wr(4).max_recv_wr(4).build().expect("room for eight");
    assert_eq!(cq.room(), room - 8);
    let wanted = room - 8 + 1;
    let error = pd.create_rc(&cq).max_send_wr(wanted - 1).max_recv_wr(1).build().expect_err("one too many");
    let ibex::Error::Queue(QueueError::NoRoom { room: left, wanted: asked, remedy, .. }) = error else {
        panic!("{error}");
    };
    assert_eq!((left, asked, remedy), (room - 8, wanted, u64::from(room) + 1));
    assert_eq!(cq.room(), room - 8, "a refusal takes nothing");
    // Sends on one queue, receives on another: each is asked for its own part.
    let other = context.create_cq(1).expect("a queue");
    let too_many = other.room() + 1;
    let error = pd.create_rc(&cq).max_send_wr(1).recv_cq(&other).max_recv_wr(too_many).build();
    let error = error.expect_err("no room for the receives");
    assert!(
        matches!(error, ibex::Error::Queue(QueueError::NoRoom { needs: "max_recv_wr", wanted, .. }) if wanted == too_many),
        "{error}"
    );
    assert_eq!(cq.room(), room - 8, "a refusal takes nothing");
    drop(first);
    // The remedy is one.
    let enough = context.create_cq(u32::try_from(remedy).expect("small")).expect("a queue");
    let _one = pd.create_rc(&enough).max_send_wr(4).max_recv_wr(4).build().expect("as the error said");
    assert!(enough.room() >= wanted, "the remedy does not do: room for {} more", enough.room());
    Outcome::Passed
}

fn a_lease_is_given_back() -> Outcome {
    let context = open();
    let pd = context.alloc_pd().expect("a domain");
    let cq = context.create_cq(16).expect("a queue");
    let room = cq.room();
    for round in 0..40 {
        let qp = pd.create_rc(&cq).max_send_wr(8).max_recv_wr(8).build();
        let qp = qp.unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!(cq.room(), room - 16);
        if round % 2 == 0 {
            qp.close().expect("a queue pair closes");
        } else {
            drop(qp);
        }
        assert_eq!(cq.room(), room);
    }
    Outcome::Passed
}
