//! Completion channels, arming, asynchronous events, waiting.

#![allow(unsafe_code)]

mod support;

use std::ptr::null_mut;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ibex_sys::*;
use support::*;

/// A pair whose second end has a completion channel.
struct Rig {
    a: Qp,
    b: Qp,
    am: Mr,
    bm: Mr,
    bcq: Arc<Cq>,
    channel: Arc<Channel>,
}

fn rig() -> Rig {
    let context = Context::open();
    let pd = Pd::alloc(&context);
    let channel = Channel::create(&context);
    let acq = Cq::create(&context, 256, None);
    let bcq = Cq::create(&context, 256, Some(&channel));
    let a = Qp::create(&pd, &acq, &acq, Wish::default());
    let b = Qp::create(&pd, &bcq, &bcq, Wish::default());
    a.connect(b.endpoint(1));
    b.connect(a.endpoint(0));
    let (am, bm) = (Mr::reg(&pd, 65536, ALL), Mr::reg(&pd, 65536, ALL));
    Rig { a, b, am, bm, bcq, channel }
}

impl Rig {
    fn send(&self, solicited: bool) {
        self.b.recv(1, self.bm.sge(0, 64));
        self.a.run(IBV_WR_SEND, 1, &mut [self.am.sge(0, 64)], |wr| {
            if solicited {
                wr.send_flags |= IBV_SEND_SOLICITED.0;
            }
        });
        self.a.send.success();
    }

    fn drain(&self) -> usize {
        std::iter::from_fn(|| self.bcq.poll()).count()
    }
}

#[test]
fn a_blocked_thread_is_woken_by_the_completion() {
    let rig = rig();
    rig.bcq.arm(false);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| rig.channel.get().map(<*mut _>::addr));
        std::thread::sleep(Duration::from_millis(20));
        assert!(!waiter.is_finished());
        rig.send(false);
        assert_eq!(waiter.join().unwrap(), Some(rig.bcq.0.addr()));
    });
    assert_eq!(rig.drain(), 1);
}

#[test]
fn the_descriptor_can_be_polled_with_nobody_in_the_library() {
    let rig = rig();
    rig.channel.set_nonblocking();
    assert!(rig.channel.get().is_none());
    assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EAGAIN));
    for round in 0..50 {
        rig.bcq.arm(false);
        rig.b.recv(1, rig.bm.sge(0, 64));
        rig.a.send_one(1, rig.am.sge(0, 64));
        assert!(readable(rig.channel.fd(), 5000), "round {round}");
        assert!(rig.channel.get().is_some());
        assert!(!readable(rig.channel.fd(), 0));
        assert_eq!(rig.drain(), 1);
        rig.a.send.success();
    }
}

#[test]
fn solicited_events_and_armings() {
    let rig = rig();
    rig.channel.set_nonblocking();
    let event = || readable(rig.channel.fd(), 30) && rig.channel.get().is_some();
    rig.send(true);
    assert!(!event(), "never armed");
    rig.bcq.arm(true);
    rig.send(false);
    assert!(!event(), "an unsolicited completion");
    rig.send(true);
    assert!(event(), "a solicited one");
    rig.send(true);
    assert!(!event(), "one arming, one event");
    rig.bcq.arm(false);
    rig.bcq.arm(true);
    rig.send(false);
    assert!(event(), "armed for any, and never downgraded");
    assert_eq!(rig.drain(), 5);
}

#[test]
fn an_error_counts_as_solicited() {
    let rig = rig();
    rig.channel.set_nonblocking();
    rig.bcq.arm(true);
    rig.b.recv(9, rig.bm.sge(0, 64));
    rig.b.to(IBV_QPS_ERR);
    assert!(readable(rig.channel.fd(), 1000));
    assert!(rig.channel.get().is_some());
    assert_eq!(rig.bcq.wait().status, IBV_WC_WR_FLUSH_ERR);
}

#[test]
fn wait_comp_event_times_out_and_wakes() {
    let rig = rig();
    let wait = v().wait_comp_event.expect("the device's extension");
    let start = Instant::now();
    assert_eq!(c!(wait(rig.channel.0, 30_000_000)), libc::ETIMEDOUT);
    assert!(start.elapsed() >= Duration::from_millis(30));
    rig.bcq.arm(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(20));
            rig.send(false);
        });
        assert_eq!(c!(wait(rig.channel.0, 10_000_000_000)), 0);
    });
    assert!(rig.channel.get().is_some());
    assert_eq!(c!(wait(rig.channel.0, 0)), libc::ETIMEDOUT);
}

#[test]
fn destroying_a_queue_waits_for_the_acknowledgement() {
    let context = Context::open();
    let pd = Pd::alloc(&context);
    let channel = Channel::create(&context);
    let cq = Cq::create(&context, 16, Some(&channel));
    let qp = Qp::create(&pd, &cq, &cq, Wish::default());
    let memory = Mr::reg(&pd, 64, ALL);
    cq.arm(false);
    qp.recv(1, memory.sge(0, 64));
    qp.to(IBV_QPS_ERR);
    let (mut event, mut its) = (null_mut(), null_mut());
    assert_eq!(c!((v().get_cq_event)(channel.0, &mut event, &mut its)), 0);
    drop(qp);
    std::thread::scope(|scope| {
        let destroyer = scope.spawn(move || drop(cq));
        std::thread::sleep(Duration::from_millis(30));
        assert!(!destroyer.is_finished());
        c!((v().ack_cq_events)(event, 1));
        destroyer.join().unwrap();
    });
}

#[test]
fn several_threads_block_on_channels_of_their_own() {
    let rigs: Vec<Rig> = (0..4).map(|_| rig()).collect();
    std::thread::scope(|scope| {
        for rig in &rigs {
            scope.spawn(|| {
                rig.b.recv(1, rig.bm.sge(0, 64));
                for _ in 0..200 {
                    let mut received = false;
                    while !received {
                        rig.bcq.arm(false);
                        let mut seen = 0;
                        while let Some(wc) = rig.bcq.poll() {
                            received |= wc.opcode == IBV_WC_RECV;
                            seen += 1;
                        }
                        if seen == 0 {
                            assert!(rig.channel.get().is_some());
                        }
                    }
                    rig.b.recv(1, rig.bm.sge(0, 64));
                    rig.b.send_one(2, rig.bm.sge(64, 64));
                }
            });
            scope.spawn(|| {
                for _ in 0..200 {
                    rig.a.recv(1, rig.am.sge(0, 64));
                    rig.a.send_one(2, rig.am.sge(64, 64));
                    let mut seen = [false; 2];
                    while seen != [true; 2] {
                        seen[usize::from(rig.a.send.success().wr_id == 2)] = true;
                    }
                }
            });
        }
    });
}

/// The next asynchronous event, acknowledged.
fn async_event(context: &Context) -> (ibv_event_type, usize) {
    assert!(readable(c!((*context.0).async_fd), 5000), "no asynchronous event");
    let mut event = ibv_async_event::default();
    assert_eq!(c!((v().get_async_event)(context.0, &mut event)), 0);
    c!((v().ack_async_event)(&mut event));
    (event.event_type, c!(event.element.qp).addr())
}

#[test]
fn a_forbidden_access_is_reported_asynchronously_at_the_responder() {
    let pair = Pair::new();
    let context = &pair.b.pd.1;
    set_nonblocking(c!((*context.0).async_fd));
    pair.a.rdma(IBV_WR_RDMA_WRITE, 1, pair.am.sge(0, 8), pair.bm.addr(), pair.bm.rkey() ^ 0x100);
    assert_eq!(pair.a.send.wait().status, IBV_WC_REM_ACCESS_ERR);
    assert_eq!(async_event(context), (IBV_EVENT_QP_ACCESS_ERR, pair.b.qp.addr()));
}

#[test]
fn an_overflown_completion_queue_is_reported_and_ends_its_queue_pair() {
    let context = Context::open();
    let pd = Pd::alloc(&context);
    let small = Cq::create(&context, 2, None);
    let other = Cq::create(&context, 64, None);
    let a = Qp::create(&pd, &small, &other, Wish::default());
    let b = Qp::create(&pd, &other, &other, Wish::default());
    a.connect(b.endpoint(1));
    b.connect(a.endpoint(1));
    let memory = Mr::reg(&pd, 4096, ALL);
    for i in 0..4 {
        a.rdma(IBV_WR_RDMA_WRITE, i, memory.sge(0, 8), memory.addr() + 64, memory.rkey());
    }
    let first = async_event(&context);
    assert_eq!(first, (IBV_EVENT_CQ_ERR, small.0.addr()));
    assert_eq!(async_event(&context), (IBV_EVENT_QP_FATAL, a.qp.addr()));
    assert_eq!(a.state(), IBV_QPS_ERR);
}
