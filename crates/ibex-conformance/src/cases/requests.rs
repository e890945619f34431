//! Kinds of requests through the safe crate: batches, inline data, lists of buffers, immediate data, requests that nobody
//! waits for, and messages that fail.

use ibex::{Opcode, PostError, QpState, RcOptions, Status};

use super::ownership::{MESSAGE, content, exposed};
use super::posting::deep;
use crate::Outcome;
use crate::lab::safe::{End, EndOptions, Ends, done, ended, failed};
use crate::lab::{QUIET, pattern};

crate::group!("requests";
    unsignalled_operations_are_reclaimed,
    unsignalled_operations_alone_do_not_fill_the_queue,
    a_failed_unsignalled_operation_shows_in_the_next,
    a_dropped_batch_posts_nothing,
    a_batch_is_posted_in_order,
    a_batch_that_does_not_fit_is_not_posted,
    inline_data_is_copied_at_once,
    too_much_inline_data_is_refused,
    one_payload_is_sent_many_times,
    a_message_is_gathered_and_scattered,
    immediate_data_and_lengths_arrive,
    a_message_longer_than_the_receive_fails_on_both_sides,
    a_receiver_that_is_never_ready_is_an_error,
);

fn unsignalled_operations_are_reclaimed() -> Outcome {
    let Ends { a, b } = Ends::with(&deep(16));
    let (region, remote) = exposed(&b, &a, MESSAGE);
    // Five that nobody waits for, then one: its completion gives all of them back.
    for seed in 0..5 {
        a.qp.post().unsignalled().write(a.buf(&pattern(seed, 64)), remote.at(seed * 64)).expect("room");
    }
    assert_eq!(a.pool.free(), a.pool.blocks() - 5);
    let watched = a.qp.write(a.buf(&pattern(5, 64)), remote.at(5 * 64)).expect("room");
    // Most likely it lies there, alone, when it is waited for.
    std::thread::sleep(QUIET);
    watched.wait().unwrap_or_else(|failed| panic!("{failed}"));
    a.until_free(a.pool.blocks());
    for seed in 0..6 {
        assert!(content(&region, seed * 64, 64) == pattern(seed as u64, 64), "WRITE {seed}");
    }
    Outcome::Passed
}

fn unsignalled_operations_alone_do_not_fill_the_queue() -> Outcome {
    let Ends { a, b } = Ends::with(&deep(16));
    let (region, remote) = exposed(&b, &a, MESSAGE);
    for seed in 0..500 {
        // Neither the pool nor the queue runs dry, although nobody ever waits for anything.
        a.until("a free buffer", |a| a.pool.free() > 0);
        let mut buf = Some(a.buf(&pattern(seed, 64)));
        a.until("room in the queue", |a| {
            let Some(taken) = buf.take() else { return true };
            match a.qp.post().unsignalled().write(taken, remote.at(seed % 64 * 64)) {
                Ok(()) => true,
                Err(rejected) => {
                    assert!(matches!(rejected.error(), PostError::QueueFull { .. }), "{rejected}");
                    buf = Some(rejected.into_payload());
                    false
                }
            }
        });
    }
    done(a.qp.write_inline(b"", remote.all()).expect("room"));
    a.until_free(a.pool.blocks());
    for seed in 436..500_u64 {
        assert!(content(&region, (seed % 64 * 64) as usize, 64) == pattern(seed, 64), "WRITE {seed}");
    }
    Outcome::Passed
}

fn a_failed_unsignalled_operation_shows_in_the_next() -> Outcome {
    let Ends { a, b } = Ends::with(&deep(16));
    let (region, remote) = exposed(&b, &a, 64);
    let stale = remote.all();
    region.withdraw(remote.handle()).expect("exposed");
    a.qp.post().unsignalled().write(a.buf(&pattern(1, 64)), stale).expect("room");
    a.qp.post().unsignalled().write(a.buf(&pattern(2, 64)), stale).expect("room");
    let watched = failed(a.qp.write(a.buf(&pattern(3, 64)), stale).expect("room"));
    assert_eq!(watched.status(), Status::WR_FLUSH_ERR, "{watched}");
    drop(watched);
    a.until_free(a.pool.blocks());
    assert_eq!(a.qp.query_state().expect("a state"), QpState::ERR);
    assert_eq!(content(&region, 0, 64), [0; 64]);
    Outcome::Passed
}

fn a_dropped_batch_posts_nothing() -> Outcome {
    let Ends { a, b } = Ends::new();
    let (region, remote) = exposed(&b, &a, MESSAGE);
    let receive = b.qp.recv(b.room()).expect("room");
    let mut batch = a.qp.batch();
    batch.send(a.buf(b"a message")).expect("short");
    batch.write(a.buf(b"a write"), remote.all()).expect("inside");
    assert_eq!((batch.len(), a.pool.free()), (2, a.pool.blocks() - 2));
    drop(batch);
    assert_eq!(a.pool.free(), a.pool.blocks());
    a.stays_quiet();
    assert!(!receive.poll(), "a message of a batch that was dropped");
    assert_eq!(content(&region, 0, 8), [0; 8]);
    assert!(a.qp.batch::<ibex::Buf>().post().expect("nothing to refuse").is_empty());
    // The receive is still there for a message that is sent.
    done(a.qp.send(a.buf(b"sent")).expect("room"));
    assert_eq!(&done(receive).0[..], b"sent");
    Outcome::Passed
}

fn a_batch_is_posted_in_order() -> Outcome {
    let Ends { a, b } = Ends::with(&EndOptions { block: 64, blocks: 32, ..EndOptions::default() });
    let (region, remote) = exposed(&b, &a, MESSAGE);
    for round in 0..5 {
        let receives: Vec<_> = (0..4).map(|_| b.qp.recv(b.room()).expect("room")).collect();
        let mut batch = a.qp.batch();
        for seed in 0..4 {
            batch.write(a.buf(&pattern(round + seed, 64)), remote.at(64 * seed)).expect("inside");
            batch.send_with_imm(a.buf(&pattern(100 + seed, 32)), seed as u32).expect("short");
        }
        let posted = batch.post().expect("room for eight");
        let opcodes: Vec<_> = posted.into_iter().map(|op| done(op).1.opcode()).collect();
        assert_eq!(opcodes, [Opcode::RDMA_WRITE, Opcode::SEND].repeat(4));
        for (seed, receive) in receives.into_iter().enumerate() {
            let (message, wc) = done(receive);
            assert!(message[..] == pattern(100 + seed as u64, 32), "round {round}, message {seed}");
            assert_eq!(wc.imm(), Some(seed as u32));
            assert!(content(&region, 64 * seed, 64) == pattern(round + seed as u64, 64));
        }
    }
    assert_eq!(a.pool.free(), a.pool.blocks());
    Outcome::Passed
}

fn a_batch_that_does_not_fit_is_not_posted() -> Outcome {
    let Ends { a, b } = Ends::with(&EndOptions { send: 4, block: 64, ..EndOptions::default() });
    let receive = b.qp.recv(b.room()).expect("room");
    let mut batch = a.qp.batch();
    for seed in 0..5 {
        batch.send(a.buf(&pattern(seed, 64))).expect("short");
    }
    let error = batch.post().expect_err("five in a queue of four");
    assert!(matches!(error.error, PostError::QueueFull { capacity: 4, .. }), "{error}");
    assert!(error.posted.is_empty());
    assert_eq!(error.rest.len(), 5);
    for (seed, buf) in error.rest.iter().enumerate() {
        assert!(buf[..] == pattern(seed as u64, 64), "buffer {seed}");
    }
    assert!(!receive.poll());
    // Four of them fit.
    let mut batch = a.qp.batch();
    for buf in error.rest.into_iter().take(4) {
        batch.send(buf).expect("short");
    }
    let posted = batch.post().expect("room for four");
    assert!(done(receive).0[..] == pattern(0, 64));
    let receives: Vec<_> = (0..3).map(|_| b.qp.recv(b.room()).expect("room")).collect();
    for (seed, receive) in receives.into_iter().enumerate() {
        assert!(done(receive).0[..] == pattern(1 + seed as u64, 64));
    }
    posted.into_iter().for_each(|op| drop(done(op)));
    Outcome::Passed
}

fn inline_data_is_copied_at_once() -> Outcome {
    let Ends { a, b } = Ends::new();
    let max = a.qp.caps().max_inline as usize;
    if max < 8 {
        return Outcome::Skipped(format!("the device grants max_inline {max}"));
    }
    let (region, remote) = exposed(&b, &a, MESSAGE);
    let mut bytes = pattern(1, max);
    let send = a.qp.send_inline(&bytes).expect("room");
    bytes.fill(0);
    drop(bytes);
    let mut bytes = pattern(2, max);
    let write = a.qp.write_inline(&bytes, remote.at(16)).expect("room");
    bytes.fill(0);
    let empty = a.qp.send_inline(b"").expect("room");
    for (seed, len) in [(1, max), (0, 0)] {
        let (message, wc) = done(b.qp.recv(b.room()).expect("room"));
        assert!(message[..] == pattern(seed, len), "a message of {len} bytes");
        assert_eq!(wc.byte_len() as usize, len);
    }
    assert_eq!(done(send).opcode(), Opcode::SEND);
    assert_eq!(done(write).opcode(), Opcode::RDMA_WRITE);
    done(empty);
    assert!(content(&region, 16, max) == pattern(2, max));
    Outcome::Passed
}

fn too_much_inline_data_is_refused() -> Outcome {
    let Ends { a, b } = Ends::new();
    let (_region, remote) = exposed(&b, &a, MESSAGE);
    let max = a.qp.caps().max_inline as usize;
    let bytes = vec![0; max + 1];
    for error in [a.qp.send_inline(&bytes).map(drop), a.qp.write_inline(&bytes, remote.all()).map(drop)] {
        let error = error.expect_err("one byte too many");
        assert!(
            matches!(error, PostError::InlineTooLong { bytes, max: allowed, .. } if (bytes, allowed) == (max + 1, max)),
            "{error}"
        );
    }
    a.stays_quiet();
    Outcome::Passed
}

fn one_payload_is_sent_many_times() -> Outcome {
    let Ends { a, b } = Ends::with(&deep(16));
    let frozen = a.buf(&pattern(1, 64)).freeze();
    let sends: Vec<_> = (0..8).map(|_| a.qp.send(frozen.clone()).expect("room")).collect();
    let part = a.qp.send(frozen.slice(8..24)).expect("room");
    let frozen = frozen.thaw().expect_err("the device has clones");
    for seed in 0..8 {
        assert!(done(b.qp.recv(b.room()).expect("room")).0[..] == pattern(1, 64), "message {seed}");
    }
    assert!(done(b.qp.recv(b.room()).expect("room")).0[..] == pattern(1, 64)[8..24]);
    sends.into_iter().for_each(|send| drop(done(send)));
    done(part);
    let mut buf = frozen.thaw().expect("the last clone");
    buf.fill(0);
    drop(buf);
    assert_eq!(a.pool.free(), a.pool.blocks());
    Outcome::Passed
}

fn a_message_is_gathered_and_scattered() -> Outcome {
    let options = EndOptions { pieces: 4, block: 100, blocks: 16, ..EndOptions::default() };
    let Ends { a, b } = Ends::with(&options);
    let payload = pattern(1, 250);
    let receive = b.qp.recv(vec![b.room(), b.room(), b.room(), b.room()]).expect("room");
    let pieces = [&payload[..100], &payload[100..101], &payload[101..101], &payload[101..200]];
    let (bufs, _) = done(a.qp.send_vectored(pieces.map(|piece| a.buf(piece))).expect("room"));
    assert_eq!(bufs.iter().map(|buf| buf.len()).collect::<Vec<_>>(), [100, 1, 0, 99]);
    let (bufs, wc) = done(receive);
    assert_eq!(wc.byte_len(), 200);
    assert_eq!(bufs.iter().map(|buf| buf.len()).collect::<Vec<_>>(), [100, 100, 0, 0]);
    let message: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
    assert!(message == payload[..200]);
    // One piece more than the queue pair was built for.
    let five: Vec<_> = (0..5).map(|_| a.room()).collect();
    let refused = a.qp.send(five).expect_err("five pieces");
    assert!(matches!(refused.error(), PostError::TooManyPieces { pieces: 5, .. }), "{refused}");
    assert_eq!(refused.into_payload().len(), 5);
    Outcome::Passed
}

fn immediate_data_and_lengths_arrive() -> Outcome {
    let Ends { a, b } = Ends::new();
    let (region, remote) = exposed(&b, &a, MESSAGE);
    let receive = b.qp.recv(b.room()).expect("room");
    done(a.qp.send_with_imm(a.buf(b"four"), 0x0102_0304).expect("room"));
    let (message, wc) = done(receive);
    assert_eq!((&message[..], wc.imm(), wc.byte_len()), (&b"four"[..], Some(0x0102_0304), 4));
    let receive = b.qp.recv(b.buf(b"untouched")).expect("room");
    done(a.qp.write_with_imm(a.buf(b"sevenby"), remote.at(9), 0xfefd_fcfb).expect("room"));
    let (message, wc) = done(receive);
    // The bytes went to the region; the receive gave only its place in the queue.
    assert_eq!((wc.opcode(), wc.imm()), (Opcode::RECV_RDMA_WITH_IMM, Some(0xfefd_fcfb)));
    assert_eq!(message.len(), 0);
    assert_eq!(content(&region, 9, 7), b"sevenby");
    let receive = b.qp.recv(b.room()).expect("room");
    done(a.qp.send(a.buf(b"")).expect("room"));
    let (message, wc) = done(receive);
    assert_eq!((message.len(), wc.imm(), wc.byte_len()), (0, None, 0));
    Outcome::Passed
}

fn a_message_longer_than_the_receive_fails_on_both_sides() -> Outcome {
    let Ends { a, b } = Ends::with(&EndOptions { block: 64, ..EndOptions::default() });
    let pool = a.pd.pool().block(MESSAGE).blocks(2).build().expect("a pool");
    let long = pool.take_from(&pattern(1, MESSAGE)).expect("a buffer");
    let receive = b.qp.recv(b.room()).expect("room");
    let later = b.qp.recv(b.room()).expect("room");
    let sent = failed(a.qp.send(long).expect("room"));
    assert!(sent.into_payload().expect("given back")[..] == pattern(1, MESSAGE));
    // Which status each side reports differs from device to device (the C cases judge that); both get their buffers.
    assert_eq!(failed(receive).into_payload().expect("given back").len(), 64);
    assert_eq!(failed(later).status(), Status::WR_FLUSH_ERR);
    assert_eq!((a.pool.free(), b.pool.free(), pool.free()), (a.pool.blocks(), b.pool.blocks(), 2));
    Outcome::Passed
}

fn a_receiver_that_is_never_ready_is_an_error() -> Outcome {
    let options = EndOptions { link: RcOptions::default().rnr_retry(2), ..EndOptions::default() };
    let Ends { a, b: _b } = Ends::with(&options);
    let first = a.qp.send(a.buf(&pattern(1, 64))).expect("room");
    let second = a.qp.send(a.buf(&pattern(2, 64))).expect("room");
    let first = failed(first);
    let error = first.error();
    assert_eq!((error.status, error.opcode, error.bytes), (Status::RNR_RETRY_EXC_ERR, Opcode::SEND, 64));
    assert_eq!(error.flushed, 1, "the one behind it");
    assert!(first.into_payload().expect("given back")[..] == pattern(1, 64));
    let second = ended(second).expect_err("flushed");
    assert_eq!(second.status(), Status::WR_FLUSH_ERR);
    assert!(second.into_payload().expect("given back")[..] == pattern(2, 64));
    let End { qp, pool, .. } = a;
    assert_eq!(qp.query_state().expect("a state"), QpState::ERR);
    assert_eq!(pool.free(), pool.blocks());
    Outcome::Passed
}
