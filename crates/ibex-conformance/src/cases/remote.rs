//! Remote memory through the safe crate: what a handle allows and what it does not, refused here where that can be known
//! and at the peer where not; and what a failure gives back.

use ibex::{
    Access, Fault, MemoryError, Opcode, PostError, QpState, RemoteHandle, RemoteRegion, Rkey, Status,
};

use super::ownership::{MESSAGE, content, exposed, has_atomics, no_atomics};
use crate::Outcome;
use crate::lab::safe::{End, EndOptions, Ends, done, failed, poll_until};
use crate::lab::{QUIET, pattern};

crate::group!("remote";
    regions_are_written_and_read,
    words_are_added_to_and_swapped,
    regions_are_sources_and_targets_themselves,
    bounds_are_refused_without_posting,
    rights_are_refused_without_posting,
    a_range_of_a_region_is_all_that_is_exposed,
    handles_come_back_as_they_were,
    hostile_handles_are_refused,
    a_forged_key_is_an_error_with_its_buffer,
    a_forged_range_is_an_error_with_its_buffer,
    a_forged_right_is_an_error_with_its_buffer,
    a_key_of_another_domain_is_an_error,
    a_withdrawn_handle_is_an_error,
    a_withdrawn_region_is_left_alone,
    operations_behind_a_failure_are_flushed,
    a_failure_at_one_queue_pair_leaves_others_alone,
);

fn regions_are_written_and_read() -> Outcome {
    let Ends { a, b } = Ends::with(&EndOptions { block: 1 << 16, ..EndOptions::default() });
    let (region, remote) = exposed(&b, &a, 1 << 17);
    for (seed, len) in [0, 1, 7, 4095, 4096, 4097, 1 << 16].into_iter().enumerate() {
        let payload = pattern(seed as u64, len);
        let offset = 3 + seed as u64;
        let (buf, wc) = done(a.qp.write(a.buf(&payload), remote.at(offset)).expect("room"));
        assert_eq!((buf.len(), wc.opcode()), (len, Opcode::RDMA_WRITE));
        assert!(content(&region, offset as usize, len) == payload, "{len} bytes written");
        let mut target = a.room();
        target.fill(0);
        target.set_len(len);
        let (target, wc) = done(a.qp.read(target, remote.at(offset)).expect("room"));
        assert_eq!((target.len(), wc.opcode()), (len, Opcode::RDMA_READ));
        assert!(target[..] == payload, "{len} bytes read");
    }
    // To the last byte, and none behind it.
    done(a.qp.write(a.buf(b"end"), remote.at((1 << 17) - 3)).expect("room"));
    assert_eq!(content(&region, (1 << 17) - 3, 3), b"end");
    Outcome::Passed
}

fn words_are_added_to_and_swapped() -> Outcome {
    let Ends { a, b } = Ends::new();
    if !has_atomics(&a) {
        return no_atomics();
    }
    let (region, remote) = exposed(&b, &a, 4096);
    let last = remote.u64_at(4088).expect("the last word");
    region.store_u64(4088, 40).expect("inside");
    assert_eq!(done(a.qp.fetch_add(last, 2).expect("room")), 40);
    assert_eq!(done(a.qp.compare_swap(last, 42, u64::MAX).expect("room")), 42);
    assert_eq!(done(a.qp.compare_swap(last, 42, 0).expect("room")), u64::MAX, "compared in vain");
    assert_eq!(done(a.qp.fetch_add(last, 1).expect("room")), u64::MAX, "wraps");
    assert_eq!(region.load_u64(4088).expect("inside"), 0);
    // Many at once: each result lands in its own place.
    let word = remote.u64_at(8).expect("a word");
    let ops: Vec<_> = (0..16).map(|_| a.qp.fetch_add(word, 1).expect("room")).collect();
    assert_eq!(ops.into_iter().map(done).collect::<Vec<_>>(), (0..16).collect::<Vec<_>>());
    Outcome::Passed
}

fn regions_are_sources_and_targets_themselves() -> Outcome {
    let Ends { a, b } = Ends::new();
    let (region, remote) = exposed(&b, &a, 3 * MESSAGE);
    let own = a.pd.shared(2 * MESSAGE).expect("memory");
    own.write_at(0, &pattern(1, MESSAGE)).expect("inside");
    let (slice, _) =
        done(a.qp.write(own.slice(..MESSAGE).expect("inside"), remote.at(MESSAGE as u64)).expect("room"));
    assert_eq!(slice.len(), MESSAGE);
    let back = own.slice(MESSAGE..).expect("inside");
    done(a.qp.read(back, remote.at(MESSAGE as u64)).expect("room"));
    assert!(content(&own, MESSAGE, MESSAGE) == pattern(1, MESSAGE));
    assert!(content(&region, MESSAGE, MESSAGE) == pattern(1, MESSAGE));
    assert_eq!(content(&region, 0, MESSAGE), vec![0; MESSAGE]);
    // And of messages.
    let receive = b.qp.recv(region.slice(2 * MESSAGE..).expect("inside")).expect("room");
    done(a.qp.send(own.slice(..MESSAGE).expect("inside")).expect("room"));
    assert_eq!(done(receive).1.byte_len() as usize, MESSAGE);
    assert!(content(&region, 2 * MESSAGE, MESSAGE) == pattern(1, MESSAGE));
    Outcome::Passed
}

/// Nothing was posted, the buffer came back as it was, and the queue pair works.
fn nothing_happened(a: &End, remote: &RemoteRegion) {
    a.stays_quiet();
    assert_eq!(a.pool.free(), a.pool.blocks());
    assert_eq!(a.qp.query_state().expect("a state"), QpState::RTS);
    done(a.qp.write(a.buf(b"works"), remote.all()).expect("room"));
}

fn bounds_are_refused_without_posting() -> Outcome {
    let Ends { a, b } = Ends::new();
    let (region, remote) = exposed(&b, &a, 100);
    for (offset, len) in [(0, 101), (99, 2), (100, 1), (5_000, 1), (u64::MAX, 1), (1, 4096)] {
        let room = 100_u64.saturating_sub(offset);
        let beyond = |error: &PostError| matches!(error, PostError::BeyondRemote { bytes, room: left, .. } if (*bytes, *left) == (len, room));
        let rejected = a.qp.write(a.buf(&pattern(offset, len)), remote.at(offset)).expect_err("beyond");
        assert!(beyond(rejected.error()), "{offset}+{len}: {rejected}");
        assert!(rejected.into_payload()[..] == pattern(offset, len));
        let rejected = a.qp.read(a.buf(&pattern(offset, len)), remote.at(offset)).expect_err("beyond");
        assert!(beyond(rejected.error()), "{offset}+{len}: {rejected}");
        assert!(rejected.into_payload()[..] == pattern(offset, len));
        let quiet = a.qp.post().unsignalled().write(a.buf(&pattern(offset, len)), remote.at(offset));
        assert!(beyond(quiet.expect_err("beyond").error()));
    }
    let inline = a.qp.write_inline(b"xy", remote.at(99)).expect_err("beyond");
    assert!(matches!(inline, PostError::BeyondRemote { .. }), "{inline}");
    assert!(matches!(remote.slice(90..101), Err(MemoryError::OutOfBounds { start: 90, end: 101, len: 100 })));
    assert!(matches!(remote.slice(101..), Err(MemoryError::OutOfBounds { .. })));
    assert!(matches!(remote.u64_at(96), Err(MemoryError::OutOfBounds { .. })));
    assert!(matches!(remote.u64_at(u64::MAX), Err(MemoryError::OutOfBounds { .. })));
    assert!(matches!(remote.u64_at(4), Err(MemoryError::Misaligned { .. })));
    // The same on the owner's side.
    let mut bytes = [0; 8];
    assert!(matches!(region.read_at(93, &mut bytes), Err(MemoryError::OutOfBounds { .. })));
    assert!(matches!(region.write_at(usize::MAX, &bytes), Err(MemoryError::OutOfBounds { .. })));
    assert!(matches!(region.load_u64(96), Err(MemoryError::OutOfBounds { .. })));
    assert!(matches!(region.store_u64(4, 1), Err(MemoryError::Misaligned { .. })));
    assert!(matches!(region.slice(99..101), Err(MemoryError::OutOfBounds { .. })));
    assert!(matches!(region.expose_range(..101, Access::REMOTE_READ), Err(MemoryError::OutOfBounds { .. })));
    assert_eq!(content(&region, 0, 100), [0; 100]);
    nothing_happened(&a, &remote);
    Outcome::Passed
}

fn rights_are_refused_without_posting() -> Outcome {
    let Ends { a, b } = Ends::new();
    let (_region, open) = exposed(&b, &a, 64);
    let region = b.pd.shared(64).expect("memory");
    let bind = |access| a.qp.bind(region.expose(access).expect("a registration")).expect("a handle");
    let (read, write) = (bind(Access::REMOTE_READ), bind(Access::REMOTE_WRITE));
    let rejected = a.qp.write(a.buf(b"no"), read.all()).expect_err("read only");
    assert!(
        matches!(rejected.error(), PostError::NoRight { needs, has, .. } if (*needs, *has) == (Access::REMOTE_WRITE, Access::REMOTE_READ)),
        "{rejected}"
    );
    assert_eq!(&rejected.into_payload()[..], b"no");
    let rejected = a.qp.read(a.buf(b"no"), write.all()).expect_err("write only");
    assert!(matches!(rejected.error(), PostError::NoRight { needs: Access::REMOTE_READ, .. }), "{rejected}");
    drop(rejected);
    for remote in [read, write] {
        let word = remote.u64_at(0).expect("a word");
        let refused = [a.qp.fetch_add(word, 1).map(drop), a.qp.compare_swap(word, 0, 1).map(drop)];
        for refused in refused {
            assert!(matches!(refused, Err(PostError::NoRight { needs: Access::REMOTE_ATOMIC, .. })));
        }
    }
    assert!(matches!(a.qp.write_inline(b"no", read.all()), Err(PostError::NoRight { .. })));
    nothing_happened(&a, &open);
    Outcome::Passed
}

fn a_range_of_a_region_is_all_that_is_exposed() -> Outcome {
    let Ends { a, b } = Ends::new();
    let region = b.pd.shared(MESSAGE).expect("memory");
    region.write_at(0, &pattern(1, MESSAGE)).expect("inside");
    let handle =
        region.expose_range(100..200, Access::REMOTE_READ | Access::REMOTE_WRITE).expect("a registration");
    let remote = a.qp.bind(handle).expect("a handle");
    assert_eq!(remote.len(), 100);
    let mut buf = a.room();
    buf.set_len(100);
    assert!(done(a.qp.read(buf, remote.all()).expect("room")).0[..] == pattern(1, MESSAGE)[100..200]);
    // The byte in front of it belongs to the same page and to nobody else.
    let forged = RemoteHandle::from_parts(handle.addr() - 1, 101, handle.rkey(), Access::REMOTE_WRITE);
    let refused = failed(a.qp.write(a.buf(b"x"), a.qp.bind(forged).expect("a range").all()).expect("room"));
    assert_eq!(refused.status(), Status::REM_ACCESS_ERR, "{refused}");
    assert!(content(&region, 0, MESSAGE) == pattern(1, MESSAGE));
    Outcome::Passed
}

fn handles_come_back_as_they_were() -> Outcome {
    let Ends { a, b } = Ends::new();
    let (region, _) = exposed(&b, &a, MESSAGE);
    let handle = region.expose(Access::REMOTE_READ | Access::REMOTE_WRITE).expect("a registration");
    let bytes = handle.to_bytes();
    let back = RemoteHandle::from_bytes(&bytes).expect("as it was");
    assert_eq!((back, back.to_bytes()), (handle, bytes));
    assert_eq!((back.len(), back.access()), (MESSAGE as u64, Access::REMOTE_READ | Access::REMOTE_WRITE));
    done(a.qp.write(a.buf(b"by bytes"), a.qp.bind(back).expect("a handle").all()).expect("room"));
    assert_eq!(content(&region, 0, 8), b"by bytes");
    // Another exposure of the same memory is another handle.
    let other = region.expose(Access::REMOTE_READ).expect("a registration");
    assert_ne!((other.rkey(), other.generation()), (handle.rkey(), handle.generation()));
    Outcome::Passed
}

fn hostile_handles_are_refused() -> Outcome {
    let Ends { a, b } = Ends::new();
    let (region, remote) = exposed(&b, &a, MESSAGE);
    let good = remote.handle().to_bytes();
    for at in 0..RemoteHandle::SIZE {
        for bit in 0..8 {
            let mut bad = good;
            bad[at] ^= 1 << bit;
            let refused = RemoteHandle::from_bytes(&bad);
            assert!(matches!(refused, Err(MemoryError::BadHandle { .. })), "bit {bit} of byte {at}");
        }
    }
    for bytes in [[0; RemoteHandle::SIZE], [0xff; RemoteHandle::SIZE]] {
        assert!(RemoteHandle::from_bytes(&bytes).is_err());
    }
    for seed in 0..1_000 {
        let bytes = pattern(seed, RemoteHandle::SIZE).try_into().expect("as long as that");
        assert!(RemoteHandle::from_bytes(&bytes).is_err(), "noise {seed}");
    }
    // Well-formed and impossible: a range around the end of the address space.
    let wraps = RemoteHandle::from_parts(u64::MAX - 9, 11, Rkey(1), Access::REMOTE_WRITE);
    assert!(RemoteHandle::from_bytes(&wraps.to_bytes()).is_err());
    assert!(a.qp.bind(wraps).is_err());
    assert_eq!(content(&region, 0, MESSAGE), vec![0; MESSAGE]);
    nothing_happened(&a, &remote);
    Outcome::Passed
}

/// A WRITE and a READ by a forged handle fail at the peer as remote access errors, each on a connection of its own; the
/// buffer comes back, the memory is untouched.
fn is_refused_by_the_peer(forge: impl Fn(&RemoteHandle) -> RemoteHandle) {
    for write in [true, false] {
        let Ends { a, b } = Ends::new();
        let (region, remote) = exposed(&b, &a, MESSAGE);
        region.write_at(0, &pattern(1, MESSAGE)).expect("inside");
        let forged = forge(remote.handle());
        let target = a.qp.bind(forged).expect("a well-formed handle").all();
        let buf = a.buf(&pattern(2, 64));
        let op = if write { a.qp.write(buf, target) } else { a.qp.read(buf, target) };
        let refused = failed(op.expect("room"));
        let error = refused.error();
        assert_eq!(error.status, Status::REM_ACCESS_ERR, "{error}");
        assert_eq!(error.status.fault(), Fault::Peer);
        assert_eq!(error.opcode, if write { Opcode::RDMA_WRITE } else { Opcode::RDMA_READ });
        assert_eq!((error.bytes, error.rkey, error.qpn), (64, Some(forged.rkey()), a.qp.qpn()));
        assert!(error.to_string().contains("remote access error"), "{error}");
        assert!(refused.into_payload().expect("given back")[..] == pattern(2, 64));
        assert_eq!(a.pool.free(), a.pool.blocks());
        assert_eq!(a.qp.query_state().expect("a state"), QpState::ERR);
        assert!(content(&region, 0, MESSAGE) == pattern(1, MESSAGE), "memory was written to");
    }
}

fn a_forged_key_is_an_error_with_its_buffer() -> Outcome {
    is_refused_by_the_peer(|good| {
        RemoteHandle::from_parts(good.addr(), good.len(), Rkey(good.rkey().0 ^ 0x5500), good.access())
    });
    Outcome::Passed
}

fn a_forged_range_is_an_error_with_its_buffer() -> Outcome {
    // One byte beyond the end.
    is_refused_by_the_peer(|good| {
        let last = good.addr() + good.len() - 63;
        RemoteHandle::from_parts(last, 64, good.rkey(), good.access())
    });
    // Somewhere else altogether.
    is_refused_by_the_peer(|good| RemoteHandle::from_parts(4096, 64, good.rkey(), good.access()));
    Outcome::Passed
}

fn a_forged_right_is_an_error_with_its_buffer() -> Outcome {
    let Ends { a, b } = Ends::new();
    let region = b.pd.shared(MESSAGE).expect("memory");
    let handle = region.expose(Access::REMOTE_READ).expect("a registration");
    let forged = RemoteHandle::from_parts(handle.addr(), handle.len(), handle.rkey(), Access::REMOTE_WRITE);
    let refused =
        failed(a.qp.write(a.buf(&pattern(1, 64)), a.qp.bind(forged).expect("a handle").all()).expect("room"));
    assert_eq!(refused.status(), Status::REM_ACCESS_ERR, "{refused}");
    assert!(refused.into_payload().expect("given back")[..] == pattern(1, 64));
    assert_eq!(content(&region, 0, 64), [0; 64]);
    Outcome::Passed
}

fn a_key_of_another_domain_is_an_error() -> Outcome {
    let context = crate::lab::safe::open();
    let Ends { a, b } = Ends::on(&context, &EndOptions::default());
    let other = context.alloc_pd().expect("a domain");
    let region = other.shared(MESSAGE).expect("memory");
    let handle = region.expose(Access::REMOTE_WRITE).expect("a registration");
    let refused = failed(a.qp.write(a.buf(b"x"), a.qp.bind(handle).expect("a handle").all()).expect("room"));
    assert_eq!(refused.status(), Status::REM_ACCESS_ERR, "{refused}");
    assert_eq!(content(&region, 0, 1), [0]);
    drop(b);
    Outcome::Passed
}

fn a_withdrawn_handle_is_an_error() -> Outcome {
    let Ends { a, b } = Ends::new();
    let (region, remote) = exposed(&b, &a, MESSAGE);
    done(a.qp.write(a.buf(b"while exposed"), remote.all()).expect("room"));
    region.withdraw(remote.handle()).expect("exposed");
    assert!(matches!(region.withdraw(remote.handle()), Err(MemoryError::NotExposed { .. })));
    let refused = failed(a.qp.write(a.buf(b"afterwards, no"), remote.all()).expect("room"));
    assert_eq!(refused.status(), Status::REM_ACCESS_ERR, "{refused}");
    assert_eq!(content(&region, 0, 13), b"while exposed");
    Outcome::Passed
}

fn a_withdrawn_region_is_left_alone() -> Outcome {
    // A peer that writes without pause: once `withdraw` has returned, not one byte of it arrives (F3).
    for round in 0..4 {
        let Ends { a, b } = Ends::with(&EndOptions { block: 1 << 16, ..EndOptions::default() });
        let (region, remote) = exposed(&b, &a, 1 << 16);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut buf = a.buf(&vec![0xaa; 1 << 16]);
                loop {
                    match crate::lab::safe::ended(a.qp.write(buf, remote.all()).expect("room")) {
                        Ok((back, _)) => buf = back,
                        Err(failed) => return failed.status(),
                    }
                }
            });
            poll_until(&b.cq, "the first WRITE", || content(&region, (1 << 16) - 1, 1) == [0xaa]);
            region.withdraw(remote.handle()).expect("exposed");
            region.write_at(0, &vec![0x11; 1 << 16]).expect("inside");
            std::thread::sleep(QUIET);
            assert!(content(&region, 0, 1 << 16) == [0x11; 1 << 16], "round {round}: written to afterwards");
            assert_eq!(writer.join().expect("no panic"), Status::REM_ACCESS_ERR);
        });
    }
    Outcome::Passed
}

fn operations_behind_a_failure_are_flushed() -> Outcome {
    let Ends { a, b } = Ends::with(&EndOptions { blocks: 16, ..EndOptions::default() });
    let (region, remote) = exposed(&b, &a, MESSAGE);
    let bogus = RemoteHandle::from_parts(remote.handle().addr(), 64, Rkey(0x00de_ad00), Access::REMOTE_WRITE);
    let bogus = a.qp.bind(bogus).expect("a well-formed handle").all();
    let receives: Vec<_> = (0..3).map(|_| b.qp.recv(b.room()).expect("room")).collect();
    let own = a.qp.recv(a.buf(&pattern(50, 64))).expect("room");
    let good = a.qp.write(a.buf(&pattern(0, 64)), remote.all()).expect("room");
    let bad = a.qp.write(a.buf(&pattern(1, 64)), bogus).expect("room");
    let later: Vec<_> = (2..6)
        .map(|seed| a.qp.write(a.buf(&pattern(seed, 64)), remote.at(seed * 64)).expect("room"))
        .collect();
    let message = a.qp.send(a.buf(&pattern(6, 64))).expect("room");
    assert!(done(good).0[..] == pattern(0, 64));
    let bad = failed(bad);
    assert_eq!((bad.status(), bad.error().flushed), (Status::REM_ACCESS_ERR, 5), "{bad}");
    assert!(bad.into_payload().expect("given back")[..] == pattern(1, 64));
    for (seed, op) in (2..).zip(later) {
        let flushed = failed(op);
        assert_eq!(flushed.status(), Status::WR_FLUSH_ERR, "{flushed}");
        assert_eq!(flushed.status().fault(), Fault::Flushed);
        assert!(flushed.into_payload().expect("given back")[..] == pattern(seed, 64), "operation {seed}");
    }
    for (seed, op) in [(6, message), (50, own)] {
        let flushed = failed(op);
        assert_eq!(flushed.status(), Status::WR_FLUSH_ERR, "{flushed}");
        assert!(flushed.into_payload().expect("given back")[..] == pattern(seed, 64), "operation {seed}");
    }
    // The peer's queue pair refused and is in error too: its receives are flushed with their buffers.
    for receive in receives {
        let flushed = failed(receive);
        assert_eq!(flushed.status(), Status::WR_FLUSH_ERR, "{flushed}");
        assert!(flushed.into_payload().is_some());
    }
    assert_eq!((a.pool.free(), b.pool.free()), (a.pool.blocks(), b.pool.blocks()));
    assert!(content(&region, 0, 64) == pattern(0, 64));
    assert_eq!(content(&region, 64, MESSAGE - 64), vec![0; MESSAGE - 64]);
    Outcome::Passed
}

fn a_failure_at_one_queue_pair_leaves_others_alone() -> Outcome {
    let context = crate::lab::safe::open();
    let (bad, good) =
        (Ends::on(&context, &EndOptions::default()), Ends::on(&context, &EndOptions::default()));
    let (region, remote) = exposed(&bad.b, &bad.a, 64);
    let stale = remote.all();
    drop(region);
    let receive = good.b.qp.recv(good.b.room()).expect("room");
    assert_eq!(
        failed(bad.a.qp.write(bad.a.buf(b"x"), stale).expect("room")).status(),
        Status::REM_ACCESS_ERR
    );
    done(good.a.qp.send(good.a.buf(b"unharmed")).expect("room"));
    assert_eq!(&done(receive).0[..], b"unharmed");
    Outcome::Passed
}
