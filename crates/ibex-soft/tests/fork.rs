//! fork(2): the parent goes on, the child's inherited objects fail at once, and the child can open the device anew.
#![allow(unsafe_code)]

mod support;

use ibex_sys::*;
use support::*;

/// Runs `child` in a child of fork; its panics and hangs fail the test.
fn in_child(child: impl FnOnce()) {
    let pid = c!(libc::fork());
    assert!(pid >= 0);
    if pid == 0 {
        // A hang must not outlive the test.
        c!(libc::alarm(20));
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child));
        c!(libc::_exit(i32::from(result.is_err())));
    }
    let mut status = 0;
    assert_eq!(c!(libc::waitpid(pid, &mut status, 0)), pid);
    assert_eq!(status, 0, "the child failed");
}

fn exchange(pair: &Pair) {
    pair.am.fill(0..64, 5);
    pair.b.recv(1, pair.bm.sge(0, 64));
    pair.a.send_one(2, pair.am.sge(0, 64));
    pair.b.recv.success();
    pair.a.send.success();
    pair.bm.check(0..64, 5, 0);
}

#[test]
fn a_child_gets_errors_and_a_device_of_its_own() {
    let pair = std::mem::ManuallyDrop::new(Pair::new());
    exchange(&pair);
    in_child(|| {
        let mut wc = ibv_wc::default();
        assert!(c!(dispatch::ibv_poll_cq(pair.a.send.0, 1, &mut wc)) < 0);
        let mut sges = [pair.am.sge(0, 64)];
        assert_eq!(pair.a.try_post(&mut wr(IBV_WR_SEND, 1, &mut sges)), libc::EIO);
        assert!(c!((v().alloc_pd)(pair.a.pd.1.0)).is_null());
        let mut event = std::mem::MaybeUninit::uninit();
        assert_eq!(c!((v().get_async_event)(pair.a.pd.1.0, event.as_mut_ptr())), -1);
        assert_eq!(c!((v().destroy_qp)(pair.a.qp)), libc::EIO);
        assert_eq!(c!((v().close_device)(pair.a.pd.1.0)), 0);
        exchange(&Pair::new());
    });
    exchange(&pair);
    drop(std::mem::ManuallyDrop::into_inner(pair));
}
