//! Memory in flight belongs to the device: dropped, forgotten and late operations neither free it nor give it back early
//! (the fences F1 and F2).
//!
//! Operations are held in flight by a peer that has posted no receive: a SEND waits for it, and everything posted behind
//! the SEND waits with it.

use std::time::Instant;

use ibex::{Access, RemoteRegion, SharedRegion, Unfinished};

use crate::Outcome;
use crate::lab::safe::{End, EndOptions, Ends, done, ended, pending};
use crate::lab::{QUIET, Tracked, pattern};

crate::group!("ownership";
    a_dropped_send_keeps_its_buffer,
    a_dropped_receive_keeps_its_buffer,
    a_dropped_read_keeps_its_buffer,
    dropped_writes_and_atomics_run_to_their_end,
    a_dropped_operation_keeps_registered_memory,
    an_operation_dropped_after_its_end_gives_back_at_once,
    a_forgotten_send_costs_its_slot,
    a_forgotten_receive_costs_its_slot,
    a_forgotten_static_operation_frees_nothing,
    forgotten_operations_fill_the_queue,
    an_operation_that_times_out_goes_on,
    a_late_receive_takes_the_message,
    a_time_out_turned_into_an_error_keeps_the_buffer,
    a_dropped_pool_serves_what_is_in_flight,
);

/// Bytes of most messages here: several packets, so that a buffer given back too early is caught in the middle.
pub(super) const MESSAGE: usize = 4096;

/// Memory at an end that its peer may use in every way, bound for the peer.
pub(super) fn exposed(owner: &End, user: &End, len: usize) -> (SharedRegion, RemoteRegion) {
    let region = owner.pd.shared(len).expect("memory");
    let access = Access::REMOTE_READ | Access::REMOTE_WRITE | Access::REMOTE_ATOMIC;
    let handle = region.expose(access).expect("a registration");
    let remote = user.qp.bind(handle).expect("a handle");
    (region, remote)
}

/// The bytes of a region.
pub(super) fn content(region: &SharedRegion, offset: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    region.read_at(offset, &mut bytes).expect("within the region");
    bytes
}

fn a_dropped_send_keeps_its_buffer() -> Outcome {
    let Ends { a, b } = Ends::new();
    drop(a.qp.send(a.buf(&pattern(1, MESSAGE))).expect("room"));
    let rest = a.spoil();
    assert_eq!(rest.count(), a.pool.blocks() - 1, "the pool gave a buffer in flight away");
    a.stays_at(0);
    let (message, _) = done(b.qp.recv(b.room()).expect("room"));
    assert!(message[..] == pattern(1, MESSAGE), "the message is not what was sent");
    a.until_free(1);
    rest.untouched();
    assert_eq!(a.pool.free(), a.pool.blocks());
    Outcome::Passed
}

fn a_dropped_receive_keeps_its_buffer() -> Outcome {
    let Ends { a, b } = Ends::new();
    drop(b.qp.recv(b.room()).expect("room"));
    let rest = b.spoil();
    assert_eq!(rest.count(), b.pool.blocks() - 1, "the pool gave a buffer in flight away");
    b.stays_at(0);
    done(a.qp.send(a.buf(&pattern(2, MESSAGE))).expect("room"));
    b.until_free(1);
    // A buffer holds what its last user left in it: here the device.
    let message = b.room();
    assert!(message[..] == pattern(2, MESSAGE), "the message did not go where the receive said");
    drop(message);
    rest.untouched();
    Outcome::Passed
}

fn a_dropped_read_keeps_its_buffer() -> Outcome {
    let Ends { a, b } = Ends::new();
    let (region, remote) = exposed(&b, &a, MESSAGE);
    region.write_at(0, &pattern(3, MESSAGE)).expect("within the region");
    drop(a.qp.send(a.buf(b"first")).expect("room"));
    drop(a.qp.read(a.room(), remote.all()).expect("room"));
    let rest = a.spoil();
    assert_eq!(rest.count(), a.pool.blocks() - 2, "the pool gave a buffer in flight away");
    a.stays_at(0);
    done(b.qp.recv(b.room()).expect("room"));
    a.until("both buffers", |a| a.pool.free() == 2);
    let bufs = [a.room(), a.room()];
    let read = bufs.iter().filter(|buf| buf[..] == pattern(3, MESSAGE)).count();
    assert_eq!(read, 1, "the READ did not go where it was posted to");
    rest.untouched();
    Outcome::Passed
}

fn dropped_writes_and_atomics_run_to_their_end() -> Outcome {
    let Ends { a, b } = Ends::new();
    if !has_atomics(&a) {
        return no_atomics();
    }
    let (region, remote) = exposed(&b, &a, 2 * MESSAGE);
    drop(a.qp.send(a.buf(b"first")).expect("room"));
    drop(a.qp.write(a.buf(&pattern(4, MESSAGE)), remote.at(8)).expect("room"));
    drop(a.qp.fetch_add(remote.u64_at(0).expect("a word"), 41).expect("room"));
    drop(a.qp.fetch_add(remote.u64_at(0).expect("a word"), 1).expect("room"));
    a.qp.write_inline(b"inline", remote.at(8 + MESSAGE as u64)).expect("room").detach();
    let rest = a.spoil();
    assert_eq!(rest.count(), a.pool.blocks() - 2);
    assert_eq!(region.load_u64(0).expect("a word"), 0, "something overtook the SEND");
    done(b.qp.recv(b.room()).expect("room"));
    a.until("both buffers", |a| a.pool.free() == 2);
    rest.untouched();
    // It completes after all of them.
    let old = done(a.qp.fetch_add(remote.u64_at(0).expect("a word"), 0).expect("room"));
    assert_eq!((old, region.load_u64(0).expect("a word")), (42, 42));
    assert!(content(&region, 8, MESSAGE) == pattern(4, MESSAGE));
    assert_eq!(content(&region, 8 + MESSAGE, 6), b"inline");
    Outcome::Passed
}

/// Whether the device has atomics.
pub(super) fn has_atomics(end: &End) -> bool {
    end.pd.context().query_device().expect("attributes").atomic_cap != ibex::AtomicCap::None
}

/// The outcome of a case about atomics where there are none.
pub(super) fn no_atomics() -> Outcome {
    Outcome::Skipped("the device reports atomic_cap NONE".to_owned())
}

fn a_dropped_operation_keeps_registered_memory() -> Outcome {
    let Ends { a, b } = Ends::new();
    let (source, source_freed) = Tracked::new(pattern(5, MESSAGE));
    let (target, target_freed) = Tracked::new(vec![0; MESSAGE]);
    let last = std::sync::Arc::new(std::sync::Mutex::new(None));
    drop(a.qp.send(a.pd.register(source).expect("a registration")).expect("room"));
    a.stays_quiet();
    assert!(!source_freed.get(), "memory was freed while the device may read it");
    // Nobody waits for the receive either: what it got is seen by a second message into ordinary memory.
    drop(b.qp.recv(b.pd.register(target).expect("a registration")).expect("room"));
    a.until("the end of the SEND", |_| source_freed.get());
    b.until("the end of the receive", |_| target_freed.get());
    // The same with the message looked at: the source is overwritten when freed, and that must not arrive.
    let (source, freed) = Tracked::new(pattern(6, MESSAGE));
    let note = last.clone();
    let source = source.and_then(move || *note.lock().expect("no panic") = Some(Instant::now()));
    drop(a.qp.send(a.pd.register(source).expect("a registration")).expect("room"));
    a.stays_quiet();
    assert!(!freed.get());
    let posted = Instant::now();
    let (message, _) = done(b.qp.recv(b.room()).expect("room"));
    assert!(message[..] == pattern(6, MESSAGE), "the message is not what was sent");
    a.until("the end of the SEND", |_| freed.get());
    let freed_at = last.lock().expect("no panic").expect("noted when it was freed");
    assert!(freed_at >= posted, "freed before the receive was posted");
    Outcome::Passed
}

fn an_operation_dropped_after_its_end_gives_back_at_once() -> Outcome {
    let Ends { a, b } = Ends::new();
    let free = a.pool.blocks();
    let receive = b.qp.recv(b.room()).expect("room");
    let send = a.qp.send(a.buf(b"hello")).expect("room");
    a.until("the end of the SEND", |_| send.poll());
    b.until("the end of the receive", |_| receive.poll());
    // Its result lies there, unclaimed: the buffer is still the operation's.
    assert_eq!((a.pool.free(), b.pool.free()), (free - 1, free - 1));
    drop(send);
    drop(receive);
    assert_eq!((a.pool.free(), b.pool.free()), (free, free));
    Outcome::Passed
}

fn a_forgotten_send_costs_its_slot() -> Outcome {
    let Ends { a, b } = Ends::new();
    let leaks = ibex::leaks();
    std::mem::forget(a.qp.send(a.buf(&pattern(7, MESSAGE))).expect("room"));
    let rest = a.spoil();
    assert_eq!(rest.count(), a.pool.blocks() - 1);
    let (message, _) = done(b.qp.recv(b.room()).expect("room"));
    assert!(message[..] == pattern(7, MESSAGE));
    // It has ended, and nobody can ask for it: the buffer stays where it is.
    a.stays_at(0);
    rest.untouched();
    // The queue works on, around the slot.
    for round in 0..100 {
        let receive = b.qp.recv(b.room()).expect("room");
        done(a.qp.send(a.buf(&pattern(round, 64))).expect("room"));
        assert!(done(receive).0[..] == pattern(round, 64), "round {round}");
    }
    let End { qp, pool, .. } = a;
    assert_eq!(pool.free(), pool.blocks() - 1);
    drop(qp);
    assert_eq!(pool.free(), pool.blocks(), "the end of the queue pair gives everything back");
    assert_eq!(ibex::leaks(), leaks);
    Outcome::Passed
}

fn a_forgotten_receive_costs_its_slot() -> Outcome {
    let Ends { a, b } = Ends::new();
    std::mem::forget(b.qp.recv(b.room()).expect("room"));
    let rest = b.spoil();
    assert_eq!(rest.count(), b.pool.blocks() - 1);
    done(a.qp.send(a.buf(&pattern(8, MESSAGE))).expect("room"));
    b.stays_at(0);
    rest.untouched();
    for round in 0..100 {
        let receive = b.qp.recv(b.room()).expect("room");
        done(a.qp.send(a.buf(&pattern(round, 64))).expect("room"));
        assert!(done(receive).0[..] == pattern(round, 64), "round {round}");
    }
    let End { qp, pool, .. } = b;
    drop(qp);
    assert_eq!(pool.free(), pool.blocks());
    Outcome::Passed
}

fn a_forgotten_static_operation_frees_nothing() -> Outcome {
    let Ends { a, b } = Ends::new();
    // Nothing can ever end these as far as the library knows, not even the queue pair: the memory is gone, and unharmed.
    std::mem::forget(a.qp.send(a.buf(&pattern(9, MESSAGE))).expect("room").into_static());
    let (source, freed) = Tracked::new(pattern(10, MESSAGE));
    std::mem::forget(a.qp.send(a.pd.register(source).expect("a registration")).expect("room").into_static());
    let rest = a.spoil();
    assert_eq!(rest.count(), a.pool.blocks() - 1);
    for seed in [9, 10] {
        let (message, _) = done(b.qp.recv(b.room()).expect("room"));
        assert!(message[..] == pattern(seed, MESSAGE), "message {seed}");
    }
    a.stays_at(0);
    rest.untouched();
    let End { qp, pool, .. } = a;
    drop(qp);
    assert!(!freed.get());
    assert_eq!(pool.free(), pool.blocks() - 1);
    Outcome::Passed
}

fn forgotten_operations_fill_the_queue() -> Outcome {
    let Ends { a, b } = Ends::with(&EndOptions { send: 4, ..EndOptions::default() });
    for _ in 0..4 {
        let receive = b.qp.recv(b.room()).expect("room");
        std::mem::forget(a.qp.send_inline(b"x").expect("room"));
        done(receive);
    }
    // All have ended and none is claimed. The refusal comes as an error, with the buffer, and not as a hang.
    let receive = b.qp.recv(b.room()).expect("room");
    let refused = a.qp.send(a.buf(b"fifth")).expect_err("a queue full of forgotten operations");
    assert!(
        matches!(refused.error(), ibex::PostError::QueueFull { queue: "send", capacity: 4, .. }),
        "{refused}"
    );
    assert_eq!(&refused.into_payload()[..], b"fifth");
    assert!(matches!(receive.try_wait(), Err(Unfinished::Pending(_))));
    Outcome::Passed
}

fn an_operation_that_times_out_goes_on() -> Outcome {
    let Ends { a, b } = Ends::new();
    let buf = a.buf(&pattern(11, MESSAGE));
    let place = buf.as_ptr();
    let send = a.qp.send(buf).expect("room");
    let send = pending(send, QUIET);
    let Err(Unfinished::Pending(send)) = send.wait_deadline(Instant::now()) else { panic!("it ended") };
    let Err(Unfinished::Pending(send)) = send.try_wait() else { panic!("it ended") };
    assert!(!send.poll());
    let rest = a.spoil();
    assert_eq!(rest.count(), a.pool.blocks() - 1, "the pool gave a buffer in flight away");
    let (message, _) = done(b.qp.recv(b.room()).expect("room"));
    assert!(message[..] == pattern(11, MESSAGE));
    let (buf, wc) = done(send);
    assert_eq!((buf.as_ptr(), wc.opcode()), (place, ibex::Opcode::SEND));
    assert!(buf[..] == pattern(11, MESSAGE));
    rest.untouched();
    Outcome::Passed
}

fn a_late_receive_takes_the_message() -> Outcome {
    let Ends { a, b } = Ends::new();
    let receive = pending(b.qp.recv(b.room()).expect("room"), QUIET);
    let rest = b.spoil();
    done(a.qp.send(a.buf(&pattern(12, 100))).expect("room"));
    let (message, wc) = done(receive);
    assert!(message[..] == pattern(12, 100));
    assert_eq!((wc.byte_len(), wc.opcode()), (100, ibex::Opcode::RECV));
    rest.untouched();
    Outcome::Passed
}

fn a_time_out_turned_into_an_error_keeps_the_buffer() -> Outcome {
    let Ends { a, b } = Ends::new();
    // What `?` does with a wait that ran out of time: the operation is lost, the memory is not.
    let attempt = |a: &End| -> ibex::Result<()> {
        a.qp.send(a.pool.take_from(&pattern(13, MESSAGE))?)?.wait_timeout(QUIET)?;
        Ok(())
    };
    assert!(matches!(attempt(&a), Err(ibex::Error::TimedOut)));
    let rest = a.spoil();
    assert_eq!(rest.count(), a.pool.blocks() - 1);
    let (message, _) = done(b.qp.recv(b.room()).expect("room"));
    assert!(message[..] == pattern(13, MESSAGE));
    a.until_free(1);
    rest.untouched();
    Outcome::Passed
}

fn a_dropped_pool_serves_what_is_in_flight() -> Outcome {
    let Ends { a, b } = Ends::new();
    let leaks = ibex::leaks();
    let End { qp, pool, cq, pd } = a;
    let kept = qp.send(pool.take_from(&pattern(14, MESSAGE)).expect("a buffer")).expect("room");
    drop(qp.send(pool.take_from(&pattern(15, MESSAGE)).expect("a buffer")).expect("room"));
    let receives: Vec<_> = (0..2).map(|_| qp.recv(pool.take().expect("a buffer")).expect("room")).collect();
    // The last handles of pool and domain: what is in flight keeps the slab registered and mapped.
    drop((pool, pd));
    for seed in [14, 15] {
        let (message, _) = done(b.qp.recv(b.room()).expect("room"));
        assert!(message[..] == pattern(seed, MESSAGE), "message {seed}");
    }
    let (buf, _) = done(kept);
    assert!(buf[..] == pattern(14, MESSAGE));
    for (seed, receive) in receives.into_iter().enumerate() {
        done(b.qp.send(b.buf(&pattern(seed as u64, MESSAGE))).expect("room"));
        let (message, _) = ended(receive).unwrap_or_else(|failed| panic!("{failed}"));
        assert!(message[..] == pattern(seed as u64, MESSAGE), "message {seed} back");
    }
    drop((buf, qp, cq));
    assert_eq!(ibex::leaks(), leaks);
    Outcome::Passed
}
