//! Every kind of memory in every kind of operation, on the built-in device.
#![cfg(feature = "soft")]
#![allow(clippy::unwrap_used, reason = "a test may fail where it likes")]

use std::sync::Arc;

use ibex::prelude::*;
use ibex::{MemoryError, Opcode, PostError, Status};

struct Rig {
    pd: ProtectionDomain,
    left: QueuePair,
    right: QueuePair,
    pool: Pool,
}

fn rig() -> Rig {
    let ctx = Device::by_name("soft").unwrap().open().unwrap();
    let pd = ctx.alloc_pd().unwrap();
    let cq = ctx.create_cq(256).unwrap();
    let build = || pd.create_rc(&cq).max_send_sge(3).max_recv_sge(3).max_inline(32).build().unwrap();
    let (left, right) = (build(), build());
    let (l, r) = (left.endpoint(), right.endpoint());
    let (left, right) = (left.connect(&r).unwrap(), right.connect(&l).unwrap());
    let pool = pd.pool().block(64).blocks(16).build().unwrap();
    Rig { pd, left, right, pool }
}

#[test]
fn registered_memory_is_sent_and_received_in_place() {
    let Rig { pd, left, right, .. } = rig();
    let mut vec = pd.register((0..200).collect::<Vec<u8>>()).unwrap();
    vec.set_window(100..).unwrap();
    let incoming = right.recv(pd.register(vec![0_u8; 300].into_boxed_slice()).unwrap()).unwrap();
    let (vec, _) = left.send(vec).unwrap().wait().unwrap();
    assert_eq!(vec[0], 100);
    let (mut message, wc) = incoming.wait().unwrap();
    assert_eq!((message.len(), wc.byte_len(), message[99]), (100, 100, 199));
    message[0] = 1;
    assert_eq!(message.into_inner().unwrap().len(), 300);
    assert_eq!(vec.into_inner().unwrap().len(), 200);

    let incoming = right.recv(pd.register(vec![0_u8; 300]).unwrap()).unwrap();
    left.send(pd.register(Arc::<[u8]>::from(&b"shared"[..])).unwrap()).unwrap().wait().unwrap();
    let (message, _) = incoming.wait().unwrap();
    assert_eq!(&message[..], b"shared");
    // A short message leaves the room for the next.
    let incoming = right.recv(message).unwrap();
    left.send(pd.register(&[7_u8; 300][..]).unwrap()).unwrap().wait().unwrap();
    assert_eq!(incoming.wait().unwrap().0[..], [7; 300]);
}

#[test]
fn shared_regions_are_ends_of_transfers() {
    let Rig { pd, left, pool, right: _right } = rig();
    let (here, there) = (pd.shared(8192).unwrap(), pd.shared(8192).unwrap());
    let handle = there.expose(Access::REMOTE_READ | Access::REMOTE_WRITE | Access::REMOTE_ATOMIC).unwrap();
    let target = left.bind(RemoteHandle::from_bytes(&handle.to_bytes()).unwrap()).unwrap();
    here.write_at(1, b"from a region").unwrap();
    left.write(here.slice(1..14).unwrap(), target.at(100)).unwrap().wait().unwrap();
    let mut copy = [0; 13];
    there.read_at(100, &mut copy).unwrap();
    assert_eq!(&copy, b"from a region");
    left.read(here.slice(4000..4004).unwrap(), target.at(105)).unwrap().wait().unwrap();
    here.read_at(4000, &mut copy[..4]).unwrap();
    assert_eq!(&copy[..4], b"a re");

    there.store_u64(8, 40).unwrap();
    let word = target.u64_at(8).unwrap();
    assert_eq!(left.fetch_add(word, 2).unwrap().wait().unwrap(), 40);
    assert_eq!(left.compare_swap(word, 1, 7).unwrap().wait().unwrap(), 42);
    assert_eq!(left.compare_swap(word, 42, 7).unwrap().wait().unwrap(), 42);
    assert_eq!(there.load_u64(8).unwrap(), 7);

    left.write_inline(&5_u64.to_ne_bytes(), target.at(16)).unwrap().wait().unwrap();
    assert_eq!(there.load_u64(16).unwrap(), 5);
    let mut buf = pool.take().unwrap();
    buf.set_len(8);
    let (buf, _) = left.read(buf, target.at(16)).unwrap().wait().unwrap();
    assert_eq!(buf[..], 5_u64.to_ne_bytes());
}

#[test]
fn what_a_handle_does_not_grant_is_refused_before_it_is_posted() {
    let Rig { pd, left, pool, right: _right } = rig();
    let region = pd.shared(100).unwrap();
    let target = left.bind(region.expose(Access::REMOTE_READ).unwrap()).unwrap();
    let refused = left.write(pool.take().unwrap(), target.at(0)).unwrap_err();
    assert!(matches!(refused.error(), PostError::NoRight { .. }), "{refused}");
    let refused = left.read(pool.take().unwrap(), target.at(60)).unwrap_err();
    assert_eq!(refused.to_string(), "64 bytes do not fit the 40 bytes of the remote range");
    assert!(matches!(left.fetch_add(target.u64_at(0).unwrap(), 1), Err(PostError::NoRight { .. })));
    assert_eq!(pool.free(), 14);
    drop(refused);
}

#[test]
fn a_withdrawn_handle_fails_at_the_peer() {
    let Rig { pd, left, pool, right: _right } = rig();
    let region = pd.shared(4096).unwrap();
    let (kept, gone) =
        (region.expose(Access::REMOTE_WRITE).unwrap(), region.expose(Access::REMOTE_WRITE).unwrap());
    region.withdraw(&gone).unwrap();
    assert!(matches!(region.withdraw(&gone), Err(MemoryError::NotExposed { .. })));
    let kept = left.bind(kept).unwrap();
    left.write(pool.take().unwrap(), kept.at(0)).unwrap().wait().unwrap();
    let gone = left.bind(gone).unwrap();
    let failed = left.write(pool.take().unwrap(), gone.at(0)).unwrap().wait().unwrap_err();
    assert_eq!(failed.status(), Status::REM_ACCESS_ERR);
    assert_eq!(failed.into_payload().unwrap().len(), 64);
    assert_eq!(left.query_state().unwrap(), ibex::QpState::ERR);
}

#[test]
fn pieces_immediate_data_and_inline() {
    let Rig { left, right, pool, pd } = rig();
    let take = |bytes: &[u8]| pool.take_from(bytes).unwrap();
    // Room for 4, 64 and 64 bytes.
    let small = pd.pool().block(4).blocks(1).build().unwrap();
    let room = vec![small.take().unwrap(), pool.take().unwrap(), pool.take().unwrap()];
    let incoming = right.recv(room).unwrap();
    left.send_vectored([take(b"one"), take(b"two"), take(b"three")]).unwrap().wait().unwrap();
    let (pieces, wc) = incoming.wait().unwrap();
    let lengths: Vec<_> = pieces.iter().map(|piece| piece.len()).collect();
    assert_eq!((lengths, wc.byte_len(), wc.imm()), (vec![4, 7, 0], 11, None));
    assert_eq!([&pieces[0][..], &pieces[1][..]].concat(), b"onetwothree");
    drop(pieces);
    let refused = left.send_vectored((0..40).filter_map(|_| pool.try_take())).unwrap_err();
    assert!(matches!(refused.error(), PostError::TooManyPieces { pieces: 16, .. }), "{refused}");
    drop(refused);

    let incoming = right.recv(pool.take().unwrap()).unwrap();
    left.send_with_imm(take(b"x"), 0xdead_beef).unwrap().wait().unwrap();
    assert_eq!(incoming.wait().unwrap().1.imm(), Some(0xdead_beef));

    let region = pd.shared(64).unwrap();
    let target = left.bind(region.expose(Access::REMOTE_WRITE).unwrap()).unwrap();
    let incoming = right.recv(pool.take().unwrap()).unwrap();
    left.write_with_imm(take(b"placed"), target.at(3), 9).unwrap().wait().unwrap();
    let (buf, wc) = incoming.wait().unwrap();
    assert_eq!((wc.opcode(), wc.imm(), wc.byte_len()), (Opcode::RECV_RDMA_WITH_IMM, Some(9), 6));
    assert!(buf.is_empty(), "the bytes are in the region");

    let incoming = right.recv(pool.take().unwrap()).unwrap();
    left.send_inline(b"small").unwrap().wait().unwrap();
    assert_eq!(&incoming.wait().unwrap().0[..], b"small");
    let max = left.caps().max_inline as usize;
    assert!(matches!(left.send_inline(&vec![0; max + 1]), Err(PostError::InlineTooLong { .. })));
    // Nothing is something too.
    let incoming = right.recv(pool.take().unwrap()).unwrap();
    left.send(take(b"")).unwrap().wait().unwrap();
    assert_eq!(incoming.wait().unwrap().0.len(), 0);
}

#[test]
fn a_fenced_send_carries_what_a_read_brought() {
    let Rig { pd, left, right, pool } = rig();
    let region = pd.shared(4096).unwrap();
    region.write_at(0, b"read me").unwrap();
    let source = left.bind(region.expose(Access::REMOTE_READ).unwrap()).unwrap();
    let local = pd.shared(64).unwrap();
    let incoming = right.recv(pool.take().unwrap()).unwrap();
    let read = left.read(local.slice(..7).unwrap(), source.at(0)).unwrap();
    let sent = left.post().fence().solicited().send(local.slice(..7).unwrap()).unwrap();
    read.wait().unwrap();
    sent.wait().unwrap();
    assert_eq!(&incoming.wait().unwrap().0[..], b"read me");
}

#[test]
fn pools_run_out_with_a_remedy_and_fill_again() {
    let Rig { pool, .. } = rig();
    let all: Vec<_> = std::iter::from_fn(|| pool.try_take()).collect();
    assert_eq!(all.len(), 16);
    let error = pool.take().unwrap_err();
    assert!(error.to_string().starts_with("the pool's 16 buffers are all in use; drop some"), "{error}");
    drop(all);
    assert_eq!(pool.free(), 16);
    assert!(matches!(pool.take_from(&[0; 65]), Err(MemoryError::TooLong { bytes: 65, capacity: 64 })));
}
