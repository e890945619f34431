//! Post and poll over verbs that do nothing, to be counted by callgrind: what the layers themselves cost.
//!
//! Run by `cargo xtask cost`, which compiles `noop.c`, names it in `IBEX_COST_NOOP`, and takes the difference between two
//! numbers of iterations. Arguments: the row (`classic_reused`, `classic_built`, `safe`) and the number of iterations.
//! Without arguments it lists the rows, so that `cargo bench` has something to say.
//!
//! # Safety
//! The raw rows use a queue pair and a completion queue that outlive them and that nothing else uses meanwhile (I7).
#![allow(unsafe_code, missing_docs, clippy::unwrap_used)]

#[path = "../../tests/fake/mod.rs"]
mod fake;

use std::ffi::CString;

use ibex::prelude::*;
use ibex::sys::{
    IBV_SEND_SIGNALED, IBV_WC_SUCCESS, IBV_WR_SEND, ibv_cq, ibv_qp, ibv_send_wr, ibv_sge, ibv_wc,
};
use ibex::verbs::raw;

/// Bytes of the message.
const BYTES: usize = 64;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let [row, count] = args.as_slice() else {
        println!("rows: classic_reused classic_built safe; measured by `cargo xtask cost`");
        return;
    };
    let count: u64 = count.parse().unwrap();
    let context = open();
    let pd = context.alloc_pd().unwrap();
    let cq = context.cq(256).wait(Wait::Spin).build().unwrap();
    let qp = pd.create_rc(&cq).max_send_wr(64).max_recv_wr(64).build().unwrap();
    let peer = qp.endpoint();
    let qp = qp.connect(&peer).unwrap();
    let pool = pd.pool().block(BYTES).blocks(8).build().unwrap();
    match row.as_str() {
        // SAFETY: both live to the end of `main`, and no other row or operation uses them meanwhile (I7).
        "classic_reused" => unsafe { classic_reused(qp.as_raw(), cq.as_raw(), count) },
        // SAFETY: as for the row above (I7).
        "classic_built" => unsafe { classic_built(qp.as_raw(), cq.as_raw(), count) },
        "safe" => safe(&qp, pool.take().unwrap(), count),
        other => panic!("no row {other}"),
    }
}

/// A device whose data path is that of `noop.c`.
fn open() -> Context {
    let path = CString::new(std::env::var("IBEX_COST_NOOP").unwrap()).unwrap();
    // SAFETY: dlopen(3) takes a string ended by NUL; the library is compiled from `noop.c`, which has no constructors.
    let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
    assert!(!library.is_null(), "cannot open {path:?}");
    // SAFETY: dlsym(3) takes an open library, checked above, and a string ended by NUL.
    let post_send = unsafe { libc::dlsym(library, c"noop_post_send".as_ptr()) };
    // SAFETY: dlsym(3), as for the line above.
    let poll_cq = unsafe { libc::dlsym(library, c"noop_poll_cq".as_ptr()) };
    assert!(!post_send.is_null() && !poll_cq.is_null());
    // SAFETY: dlsym(3): not null, hence what `noop.c` defines by the name, a function of this type; never closed.
    let post_send = unsafe { std::mem::transmute::<*mut libc::c_void, fake::PostSend>(post_send) };
    // SAFETY: as for posting (dlsym(3)).
    let poll_cq = unsafe { std::mem::transmute::<*mut libc::c_void, fake::PollCq>(poll_cq) };
    fake::open(post_send, poll_cq)
}

fn sge() -> ibv_sge {
    static MEMORY: [u8; BYTES] = [0; BYTES];
    ibv_sge { addr: MEMORY.as_ptr() as u64, length: BYTES as u32, lkey: 1 }
}

/// One completion, checked as a careful program does.
///
/// # Safety
/// The queue is alive and has no other reaper (I7).
#[inline(always)]
unsafe fn reap(cq: *mut ibv_cq, expected: u64) {
    let mut wc = [ibv_wc::default()];
    // SAFETY: the caller's promise (I7), and room for one completion (ibv_poll_cq(3)).
    while unsafe { raw::poll_cq(cq, &mut wc) }.unwrap() == 0 {}
    assert!(wc[0].status == IBV_WC_SUCCESS && wc[0].wr_id == expected);
}

/// The work request is made once and numbered anew each time.
///
/// # Safety
/// Both are alive, are of `open`'s device, and are used by nothing else meanwhile (I7).
#[inline(never)]
unsafe fn classic_reused(qp: *mut ibv_qp, cq: *mut ibv_cq, count: u64) {
    let mut sge = sge();
    let mut wr = ibv_send_wr {
        sg_list: &raw mut sge,
        num_sge: 1,
        opcode: IBV_WR_SEND,
        send_flags: IBV_SEND_SIGNALED.0,
        ..Default::default()
    };
    for i in 0..count {
        wr.wr_id = i;
        // SAFETY: ibv_post_send(3): the caller's promise, a list of one request that is valid for the call, and room,
        // since each completion is taken before the next post. `noop.c` reads only the number, never the memory.
        unsafe { raw::post_send(qp, &raw mut wr) }.unwrap();
        // SAFETY: the caller's promise (I7).
        unsafe { reap(cq, i) };
    }
}

/// The work request is made each time.
///
/// # Safety
/// As for `classic_reused`.
#[inline(never)]
unsafe fn classic_built(qp: *mut ibv_qp, cq: *mut ibv_cq, count: u64) {
    for i in 0..count {
        let mut sge = sge();
        let mut wr = ibv_send_wr {
            wr_id: i,
            sg_list: &raw mut sge,
            num_sge: 1,
            opcode: IBV_WR_SEND,
            send_flags: IBV_SEND_SIGNALED.0,
            ..Default::default()
        };
        // SAFETY: ibv_post_send(3): the caller's promise, a list of one request that is valid for the call, and room,
        // since each completion is taken before the next post. `noop.c` reads only the number, never the memory.
        unsafe { raw::post_send(qp, &raw mut wr) }.unwrap();
        // SAFETY: the caller's promise (I7).
        unsafe { reap(cq, i) };
    }
}

#[inline(never)]
fn safe(qp: &QueuePair, mut buf: Buf, count: u64) {
    for _ in 0..count {
        buf = qp.send(buf).unwrap().wait().unwrap().0;
    }
}
