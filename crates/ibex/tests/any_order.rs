//! Dropping everything in every order, on any thread, with operations in flight: nothing is freed early, nothing is lost,
//! nothing blocks for long.
#![cfg(feature = "soft")]
#![allow(clippy::unwrap_used)]

use std::any::Any;
use std::time::{Duration, Instant};

use ibex::mem::RegionSlice;
use ibex::prelude::*;
use ibex::{Inline, Registered};

/// A generator that needs no crate: xorshift of 64 bits.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }
}

/// What a program may hold at its end; operations are waited for, dropped or forgotten.
enum Thing {
    Any(Box<dyn Any + Send>),
    Buf(Op<'static, Buf>),
    Slice(Op<'static, RegionSlice>),
    Owned(Op<'static, Registered<Vec<u8>>>),
    Inline(Op<'static, Inline>),
    Atomic(Op<'static, ibex::Atomic>),
}

fn things(wait: Wait) -> Vec<Thing> {
    let ctx = Provider::Soft.devices().unwrap()[0].open().unwrap();
    let pd = ctx.alloc_pd().unwrap();
    let cq = ctx.cq(128).wait(wait).build().unwrap();
    let pool = pd.pool().block(64 * KIB).blocks(8).build().unwrap();
    let build = || pd.create_rc(&cq).max_send_wr(16).max_recv_wr(16).build().unwrap();
    let (left, right) = (build(), build());
    let incoming = right.recv(pool.take().unwrap()).unwrap();
    let unused = right.recv(pool.take().unwrap()).unwrap();
    let (l, r) = (left.endpoint(), right.endpoint());
    let (left, right) = (left.connect(&r).unwrap(), right.connect(&l).unwrap());
    let region = pd.shared(256 * KIB).unwrap();
    let all = Access::REMOTE_READ | Access::REMOTE_WRITE | Access::REMOTE_ATOMIC;
    let target = left.bind(region.expose(all).unwrap()).unwrap();
    let owned = pd.register(vec![7; 64 * KIB]).unwrap();
    let frozen = pool.take_from(b"shared").unwrap().freeze();
    let operations = [
        Thing::Buf(left.send(pool.take().unwrap()).unwrap().into_static()),
        Thing::Slice(left.read(region.slice(..64 * KIB).unwrap(), target.at(65536)).unwrap().into_static()),
        Thing::Owned(left.write(owned, target.at(1)).unwrap().into_static()),
        Thing::Inline(left.write_inline(b"x", target.at(0)).unwrap().into_static()),
        Thing::Atomic(left.fetch_add(target.u64_at(8).unwrap(), 1).unwrap().into_static()),
        Thing::Buf(incoming),
        Thing::Buf(unused),
    ];
    left.post().unsignalled().write(frozen.clone(), target.at(0)).unwrap();
    let rest: [Box<dyn Any + Send>; 9] = [
        Box::new(ctx),
        Box::new(pd),
        Box::new(cq),
        Box::new(pool),
        Box::new(left),
        Box::new(right),
        Box::new(region),
        Box::new(frozen),
        Box::new(target),
    ];
    operations.into_iter().chain(rest.into_iter().map(Thing::Any)).collect()
}

fn end<T: ibex::Work>(op: Op<'static, T>, how: usize) {
    match how {
        0 => drop(op),
        1 => drop(op.try_wait()),
        2 => drop(op.wait_timeout(Duration::from_micros(200))),
        3 => std::mem::forget(op),
        _ => drop(op.into_static().into_static()),
    }
}

fn finish(thing: Thing, how: usize) {
    match thing {
        Thing::Any(value) => drop(value),
        Thing::Buf(op) => end(op, how),
        Thing::Slice(op) => end(op, how),
        Thing::Owned(op) => end(op, how),
        Thing::Inline(op) => end(op, how),
        Thing::Atomic(op) => end(op, how),
    }
}

#[test]
fn everything_may_go_in_any_order() {
    let began = Instant::now();
    for seed in 1..=60 {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let wait = [Wait::Spin, Wait::Sleep, Wait::default()][dice.roll(3)];
        let mut things = things(wait);
        let mut lots: [Vec<(Thing, usize)>; 2] = [Vec::new(), Vec::new()];
        while !things.is_empty() {
            let thing = things.swap_remove(dice.roll(things.len()));
            lots[dice.roll(2)].push((thing, dice.roll(5)));
        }
        std::thread::scope(|scope| {
            for lot in lots {
                scope.spawn(move || lot.into_iter().for_each(|(thing, how)| finish(thing, how)));
            }
        });
    }
    assert!(began.elapsed() < Duration::from_secs(60), "took {:?}", began.elapsed());
    let leaks = ibex::leaks();
    assert_eq!((leaks.bytes, leaks.objects), (0, 0), "{leaks:?}");
}

/// Operations that are waited for on other threads while their queue pair goes.
#[test]
fn waiters_of_a_queue_pair_that_goes() {
    for round in 0..20 {
        let wait = [Wait::Spin, Wait::Sleep, Wait::default()][round % 3];
        let ctx = Provider::Soft.devices().unwrap()[0].open().unwrap();
        let pd = ctx.alloc_pd().unwrap();
        let cq = ctx.cq(64).wait(wait).build().unwrap();
        let pool = pd.pool().block(64).blocks(8).build().unwrap();
        let qp = pd.create_rc(&cq).max_send_wr(8).max_recv_wr(8).build().unwrap();
        let ops: Vec<_> = (0..4).map(|_| qp.recv(pool.take().unwrap()).unwrap()).collect();
        let began = Instant::now();
        std::thread::scope(|scope| {
            for op in ops {
                scope.spawn(|| assert_eq!(op.wait().unwrap_err().status(), ibex::Status::WR_FLUSH_ERR));
            }
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(round as u64 % 5));
                drop(qp);
            });
        });
        assert!(began.elapsed() < Duration::from_secs(5), "{:?} with {wait:?}", began.elapsed());
        assert_eq!(pool.free(), 8);
    }
}
