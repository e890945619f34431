//! Ends with work in flight: queue pairs, queues, domains and contexts dropped in any order, threads that panic,
//! destructors that do as they please. Destruction is the fence F2: what comes back is the program's alone.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ibex::mem::MIB;
use ibex::{QpState, Status, Wait};

use super::ownership::{MESSAGE, content, exposed};
use crate::Outcome;
use crate::lab::safe::{End, EndOptions, Ends, done, failed, open, pending, poll_until};
use crate::lab::{PATIENCE, QUIET, Tracked, pattern};

crate::group!("teardown";
    a_dropped_queue_pair_gives_everything_back,
    a_closed_queue_pair_gives_everything_back,
    an_error_state_flushes_everything,
    a_dropped_queue_pair_sends_no_more,
    a_dropped_queue_pair_reads_no_more,
    a_dropped_queue_pair_writes_no_more,
    a_dropped_receiver_writes_no_more,
    a_waiter_outlives_its_queue_pair,
    handles_may_be_dropped_in_any_order,
    everything_may_be_closed,
    a_panicking_thread_loses_nothing,
    a_panicking_thread_disturbs_no_other,
    a_panic_of_the_program_is_no_failure_of_the_device,
    a_destructor_may_use_the_queue_pair,
    a_destructor_may_end_the_queue_pair,
    a_panicking_destructor_breaks_nothing,
);

/// Operations that are in flight for ever: three messages nobody receives, and three receives nobody sends to.
fn in_flight(end: &End) -> Vec<ibex::Op<'static, ibex::Buf>> {
    let send = |seed| end.qp.send(end.buf(&pattern(seed, MESSAGE))).expect("room").into_static();
    let recv = |seed| end.qp.recv(end.buf(&pattern(seed, MESSAGE))).expect("room").into_static();
    vec![send(0), send(1), send(2), recv(3), recv(4), recv(5)]
}

/// They end as flushed, each with the buffer it was given, which still holds what the program had put there.
fn all_flushed(operations: Vec<ibex::Op<'static, ibex::Buf>>) {
    for (seed, operation) in operations.into_iter().enumerate() {
        let failed = failed(operation);
        assert_eq!(failed.status(), Status::WR_FLUSH_ERR, "{failed}");
        let buf = failed.into_payload().expect("flushed: the device is done with it");
        assert!(buf[..] == pattern(seed as u64, MESSAGE), "operation {seed} gave another buffer back");
    }
}

fn a_dropped_queue_pair_gives_everything_back() -> Outcome {
    let Ends { a, b: _b } = Ends::new();
    let leaks = ibex::leaks();
    let kept = in_flight(&a);
    a.qp.send(a.buf(b"nobody waits")).expect("room").detach();
    a.qp.post().unsignalled().send(a.buf(b"nobody could")).expect("room");
    let End { qp, pool, .. } = a;
    assert_eq!(pool.free(), pool.blocks() - 8);
    drop(qp);
    assert_eq!(pool.free(), pool.blocks() - 6, "what nobody waits for comes back with the end");
    all_flushed(kept);
    assert_eq!((pool.free(), ibex::leaks()), (pool.blocks(), leaks));
    Outcome::Passed
}

fn a_closed_queue_pair_gives_everything_back() -> Outcome {
    let Ends { a, b: _b } = Ends::new();
    let leaks = ibex::leaks();
    let kept = in_flight(&a);
    a.qp.send(a.buf(b"nobody waits")).expect("room").detach();
    let End { qp, pool, .. } = a;
    qp.close().expect("a queue pair closes");
    assert_eq!(pool.free(), pool.blocks() - 6);
    all_flushed(kept);
    assert_eq!((pool.free(), ibex::leaks()), (pool.blocks(), leaks));
    Outcome::Passed
}

fn an_error_state_flushes_everything() -> Outcome {
    let Ends { a, b: _b } = Ends::new();
    let kept = in_flight(&a);
    a.qp.to_err().expect("RTS to ERR");
    assert_eq!(a.qp.query_state().expect("a state"), QpState::ERR);
    all_flushed(kept);
    // What is posted now ends the same way.
    let late = failed(a.qp.send(a.buf(&pattern(9, 8))).expect("room"));
    assert_eq!(late.status(), Status::WR_FLUSH_ERR);
    assert!(late.into_payload().expect("flushed")[..] == pattern(9, 8));
    assert_eq!(a.pool.free(), a.pool.blocks());
    Outcome::Passed
}

/// Messages of this size take many packets and several round trips: the end falls into the middle of them.
fn large() -> EndOptions {
    EndOptions { block: MIB, blocks: 4, ..EndOptions::default() }
}

/// How often the races are run.
const ROUNDS: u64 = 4;

fn a_dropped_queue_pair_sends_no_more() -> Outcome {
    let context = open();
    for _ in 0..ROUNDS {
        let Ends { a, b } = Ends::on(&context, &large());
        // Sent again and again until there is a receive, which comes too late.
        a.qp.send(a.buf(&pattern(1, MIB))).expect("room").detach();
        a.stays_quiet();
        let End { qp, pool, .. } = a;
        drop(qp);
        assert_eq!(pool.free(), pool.blocks());
        let receive = pending(b.qp.recv(b.room()).expect("room"), QUIET);
        drop(receive);
        gone_and_quiet(b, "a receive of nothing");
    }
    Outcome::Passed
}

fn a_dropped_queue_pair_reads_no_more() -> Outcome {
    let context = open();
    for round in 0..ROUNDS {
        let Ends { a, b } = Ends::on(&context, &large());
        let (region, remote) = exposed(&b, &a, 4 * MIB);
        let payload = pattern(round, MIB);
        for at in 0..4 {
            a.qp.write(a.buf(&payload), remote.at(at * MIB as u64)).expect("room").detach();
        }
        let End { qp, pool, .. } = a;
        drop(qp);
        // F2: the program may do with them what it likes.
        let mut bufs: Vec<_> = std::iter::from_fn(|| pool.try_take()).collect();
        assert_eq!(bufs.len(), 4);
        bufs.iter_mut().for_each(|buf| buf.fill(0xe7));
        std::thread::sleep(QUIET);
        for at in 0..4 {
            let arrived = content(&region, at * MIB, MIB);
            // A prefix of the message, and zeros where nothing came any more.
            let end = arrived.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            assert!(arrived[..end] == payload[..end], "round {round}, WRITE {at}: sent after the end");
        }
    }
    Outcome::Passed
}

fn a_dropped_queue_pair_writes_no_more() -> Outcome {
    let context = open();
    for round in 0..ROUNDS {
        let Ends { a, b } = Ends::on(&context, &large());
        let (region, remote) = exposed(&b, &a, MIB);
        region.write_at(0, &pattern(round, MIB)).expect("within the region");
        for _ in 0..4 {
            a.qp.read(a.room(), remote.all()).expect("room").detach();
        }
        gone_and_quiet(a, &format!("round {round}"));
    }
    Outcome::Passed
}

fn a_dropped_receiver_writes_no_more() -> Outcome {
    let context = open();
    for round in 0..ROUNDS {
        let options = EndOptions { link: ibex::RcOptions::default().retry_cnt(1).timeout(12), ..large() };
        let Ends { a, b } = Ends::on(&context, &options);
        for seed in 0..4 {
            b.qp.recv(b.room()).expect("room").detach();
            a.qp.send(a.buf(&pattern(seed, MIB))).expect("room").detach();
        }
        gone_and_quiet(b, &format!("round {round}"));
    }
    Outcome::Passed
}

/// Drops the queue pair of an end, takes its buffers, and watches that nobody writes to them.
fn gone_and_quiet(end: End, what: &str) {
    let End { qp, pool, .. } = end;
    drop(qp);
    let mut bufs: Vec<_> = std::iter::from_fn(|| pool.try_take()).collect();
    assert_eq!(bufs.len(), pool.blocks(), "{what}");
    bufs.iter_mut().for_each(|buf| buf.fill(0xe7));
    std::thread::sleep(QUIET);
    for buf in bufs {
        assert!(buf.iter().all(|byte| *byte == 0xe7), "{what}: written to after the end");
    }
}

fn a_waiter_outlives_its_queue_pair() -> Outcome {
    let spin = Duration::from_micros(20);
    for wait in [Wait::Adaptive { spin }, Wait::Sleep, Wait::Spin] {
        let Ends { a, b: _b } = Ends::with(&EndOptions { wait, ..EndOptions::default() });
        let receive = a.qp.recv(a.room()).expect("room").into_static();
        let waiter = std::thread::spawn(move || receive.wait().expect_err("nobody sends").status());
        // Most likely it sleeps by now; right either way.
        std::thread::sleep(QUIET);
        let End { qp, pool, .. } = a;
        drop(qp);
        let end = Instant::now() + PATIENCE;
        while !waiter.is_finished() {
            assert!(Instant::now() < end, "{wait:?}: the waiter was not told");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(waiter.join().expect("no panic"), Status::WR_FLUSH_ERR);
        assert_eq!(pool.free(), pool.blocks());
    }
    Outcome::Passed
}

/// A permutation of `0..len` that depends on the seed.
fn order(seed: u64, len: usize) -> Vec<usize> {
    let draws = pattern(seed, len);
    let mut order: Vec<_> = (0..len).collect();
    for at in (1..len).rev() {
        order.swap(at, usize::from(draws[at]) % (at + 1));
    }
    order
}

fn handles_may_be_dropped_in_any_order() -> Outcome {
    let leaks = ibex::leaks();
    for seed in 0..24 {
        let context = open();
        let Ends { a, b } = Ends::on(&context, &EndOptions::default());
        let (region, _) = exposed(&a, &b, MESSAGE);
        let over = a.qp.recv(a.room()).expect("room").into_static();
        done(b.qp.send(b.buf(b"unclaimed")).expect("room"));
        let frozen = a.buf(b"shared").freeze();
        let shared = a.qp.send(frozen.clone()).expect("room").into_static();
        let (kept, gone) = (in_flight_few(&a), in_flight_few(&a));
        let slice = a.qp.send(region.slice(..8).expect("inside")).expect("room").into_static();
        drop(gone);
        let End { qp, pool, cq, pd } = a;
        let mut handles: Vec<Option<Box<dyn Any>>> = vec![
            Some(Box::new(context)),
            Some(Box::new(qp)),
            Some(Box::new(pool)),
            Some(Box::new(cq)),
            Some(Box::new(pd)),
            Some(Box::new(region)),
            Some(Box::new((over, shared))),
            Some(Box::new(kept)),
            Some(Box::new(slice)),
            Some(Box::new(frozen)),
            Some(Box::new(b)),
        ];
        for index in order(seed, handles.len()) {
            drop(handles[index].take());
        }
        assert_eq!(ibex::leaks(), leaks, "order {seed}: {:?}", order(seed, handles.len()));
    }
    // And the device is as good as new.
    let Ends { a, b } = Ends::new();
    let receive = b.qp.recv(b.room()).expect("room");
    done(a.qp.send(a.buf(b"still up")).expect("room"));
    assert_eq!(&done(receive).0[..], b"still up");
    Outcome::Passed
}

/// A message nobody receives and a receive nobody sends to.
fn in_flight_few(end: &End) -> Vec<ibex::Op<'static, ibex::Buf>> {
    vec![
        end.qp.send(end.buf(b"in flight")).expect("room").into_static(),
        end.qp.recv(end.room()).expect("room").into_static(),
    ]
}

fn everything_may_be_closed() -> Outcome {
    let context = open();
    let Ends { a, b } = Ends::on(&context, &EndOptions::default());
    let kept = in_flight_few(&a);
    // Too early for these, which is no error: it happens with the last user.
    context.clone().close().expect("other clones exist");
    a.cq.clone().close().expect("other clones exist");
    for End { qp, pool, cq, pd } in [a, b] {
        qp.close().expect("a queue pair");
        drop((pool, pd));
        cq.close().expect("a completion queue");
    }
    drop(kept);
    context.close().expect("a context");
    Outcome::Passed
}

/// Panics without a word: the panic is the case's, and nobody needs to read of it.
fn panic_silently() -> ! {
    resume_unwind(Box::new("on purpose"))
}

fn a_panicking_thread_loses_nothing() -> Outcome {
    let Ends { a, b } = Ends::new();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let _send = a.qp.send(a.buf(&pattern(1, MESSAGE))).expect("room");
            let _receive = a.qp.recv(a.room()).expect("room");
            let mut batch = a.qp.batch();
            batch.send(a.buf(b"never posted")).expect("a short message");
            panic_silently();
        });
        assert!(thread.join().is_err());
    });
    let rest = a.spoil();
    assert_eq!(rest.count(), a.pool.blocks() - 2, "the pool gave a buffer in flight away");
    let (message, _) = done(b.qp.recv(b.room()).expect("room"));
    assert!(message[..] == pattern(1, MESSAGE), "the message is not what was sent");
    drop(message);
    done(b.qp.send(b.buf(&pattern(2, MESSAGE))).expect("room"));
    a.until_free(2);
    rest.untouched();
    // Nothing is poisoned.
    let receive = b.qp.recv(b.room()).expect("room");
    done(a.qp.send(a.buf(b"goes on")).expect("room"));
    assert_eq!(&done(receive).0[..], b"goes on");
    Outcome::Passed
}

fn a_panicking_thread_disturbs_no_other() -> Outcome {
    let Ends { a, b } = Ends::with(&EndOptions { blocks: 32, ..EndOptions::default() });
    let (_region, remote) = exposed(&b, &a, MESSAGE);
    std::thread::scope(|scope| {
        let calm = scope.spawn(|| {
            for round in 0..200 {
                let (buf, _) = done(a.qp.write(a.buf(&pattern(round, 64)), remote.all()).expect("room"));
                assert!(buf[..] == pattern(round, 64));
            }
        });
        for _ in 0..20 {
            let thread = scope.spawn(|| {
                let _write = a.qp.write(a.buf(&pattern(1, MESSAGE)), remote.all());
                panic_silently();
            });
            assert!(thread.join().is_err());
        }
        calm.join().expect("the other thread is not concerned");
    });
    a.until_free(a.pool.blocks());
    Outcome::Passed
}

fn a_panic_of_the_program_is_no_failure_of_the_device() -> Outcome {
    let context = open();
    let leaks = ibex::leaks();
    let Ends { a, b } = Ends::on(&context, &EndOptions::default());
    for round in 0..4 {
        // Verbs run while the thread unwinds: its queue pairs are destroyed, its memory is deregistered, a queue is polled.
        let Ends { a: doomed, b: other } = Ends::on(&context, &EndOptions::default());
        let thread = std::thread::spawn(move || {
            let _kept = in_flight(&doomed);
            let _later = (round % 2 == 0).then(|| Polls(doomed.cq.clone()));
            let _both = (doomed, other);
            panic_silently();
        });
        assert!(thread.join().is_err());
        let receive = b.qp.recv(b.room()).expect("room");
        done(a.qp.send(a.buf(b"goes on")).expect("room"));
        assert_eq!(&done(receive).0[..], b"goes on", "round {round}");
    }
    assert_eq!(ibex::leaks(), leaks);
    Outcome::Passed
}

/// Polls a queue when dropped.
struct Polls(ibex::CompletionQueue);

impl Drop for Polls {
    fn drop(&mut self) {
        // In the middle of a panic there is nobody to tell.
        let _ = self.0.poll();
    }
}

fn a_destructor_may_use_the_queue_pair() -> Outcome {
    let Ends { a, b } = Ends::new();
    let receives = [b.qp.recv(b.room()), b.qp.recv(b.room())].map(|posted| posted.expect("room"));
    let End { qp, cq, pd, .. } = a;
    let qp = Arc::new(qp);
    let (memory, freed) = Tracked::new(b"first".to_vec());
    let (poster, poller) = (Arc::clone(&qp), cq.clone());
    let memory = memory.and_then(move || {
        // It runs inside somebody's poll, and would hang if that held a lock.
        poster.send_inline(b"second").expect("room").wait().expect("sent");
        poller.poll().expect("a queue");
    });
    qp.send(pd.register(memory).expect("a registration")).expect("room").detach();
    poll_until(&cq, "the end of the SEND", || freed.get());
    let messages = receives.map(|receive| done(receive).0.to_vec());
    assert_eq!(messages, [b"first".to_vec(), b"second".to_vec()]);
    Outcome::Passed
}

fn a_destructor_may_end_the_queue_pair() -> Outcome {
    let Ends { a, b } = Ends::new();
    let leaks = ibex::leaks();
    let receive = b.qp.recv(b.room()).expect("room");
    let End { qp, cq, pd, pool } = a;
    let qp = Arc::new(qp);
    let (memory, freed) = Tracked::new(b"the last".to_vec());
    let last = Arc::clone(&qp);
    let memory = memory.and_then(move || drop(last));
    qp.send(pd.register(memory).expect("a registration")).expect("room").detach();
    let kept = qp.recv(pool.take().expect("a buffer")).expect("room").into_static();
    drop(qp);
    poll_until(&cq, "the end of the SEND", || freed.get());
    // The queue pair was destroyed in the middle of that poll.
    assert_eq!(failed(kept).status(), Status::WR_FLUSH_ERR);
    assert_eq!(&done(receive).0[..], b"the last");
    assert_eq!((pool.free(), cq.room(), ibex::leaks()), (pool.blocks(), cq.capacity(), leaks));
    Outcome::Passed
}

fn a_panicking_destructor_breaks_nothing() -> Outcome {
    let Ends { a, b } = Ends::new();
    let (first, first_freed) = Tracked::new(b"first".to_vec());
    let (second, second_freed) = Tracked::new(b"second".to_vec());
    let first = first.and_then(|| panic_silently());
    a.qp.send(a.pd.register(first).expect("a registration")).expect("room").detach();
    a.qp.send(a.pd.register(second).expect("a registration")).expect("room").detach();
    let receives = [b.qp.recv(b.room()), b.qp.recv(b.room())].map(|posted| posted.expect("room"));
    assert_eq!(receives.map(|receive| done(receive).0.to_vec()), [b"first".to_vec(), b"second".to_vec()]);
    let mut panics = 0;
    let end = Instant::now() + PATIENCE;
    while !(first_freed.get() && second_freed.get()) {
        assert!(Instant::now() < end, "memory did not come back");
        // The panic goes to whoever polls, as it would to whoever drops.
        panics += u32::from(catch_unwind(AssertUnwindSafe(|| a.cq.poll())).is_err());
    }
    assert_eq!(panics, 1);
    let receive = b.qp.recv(b.room()).expect("room");
    done(a.qp.send(a.buf(b"goes on")).expect("room"));
    assert_eq!(&done(receive).0[..], b"goes on");
    Outcome::Passed
}
