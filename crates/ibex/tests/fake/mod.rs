//! A device that does nothing: completions appear when a test says so, and destruction fails when a test says so.
//!
//! Owns a table of verbs made of the software device's, with everything this library calls replaced. Nothing moves.
//! Shared by tests and by the cost benchmark, which replaces the data path once more.
//!
//! # Safety
//! Every object is a box made by `give` and freed by `take` when its destroying verb answers 0, after which the manual
//! pages forbid its use. Besides objects, only the places the caller passes for answers are touched.
#![allow(unsafe_code, dead_code, unreachable_pub, clippy::unwrap_used)]

use std::collections::VecDeque;
use std::ffi::{c_char, c_int, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use ibex::sys::*;
use ibex::{Context, Provider};

pub type PostSend = unsafe extern "C" fn(*mut ibv_qp, *mut ibv_send_wr, *mut *mut ibv_send_wr) -> c_int;
pub type PollCq = unsafe extern "C" fn(*mut ibv_cq, c_int, *mut ibv_wc) -> c_int;

/// What the verbs answer, for a test to set. One test at a time: see `lock`.
pub static DESTROY_QP: AtomicI32 = AtomicI32::new(0);
pub static DEREG_MR: AtomicI32 = AtomicI32::new(0);
pub static MODIFY_QP: AtomicI32 = AtomicI32::new(0);
pub static POST: AtomicI32 = AtomicI32::new(0);
/// How many requests of a list are accepted before `POST` is answered.
pub static POST_AFTER: AtomicUsize = AtomicUsize::new(0);
/// Regions alive.
pub static REGIONS: AtomicUsize = AtomicUsize::new(0);

/// What was posted, in order.
pub struct Posted {
    pub wr_id: u64,
    pub flags: u32,
    pub opcode: u32,
    pub num_sge: i32,
}

#[derive(Default)]
struct State {
    posted: Vec<Posted>,
    completions: VecDeque<ibv_wc>,
    doorbells: usize,
}

fn state() -> std::sync::MutexGuard<'static, State> {
    static STATE: OnceLock<Mutex<State>> = OnceLock::new();
    STATE.get_or_init(Mutex::default).lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Takes turns among the tests of a process and starts afresh.
pub fn lock() -> std::sync::MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    *state() = State::default();
    for answer in [&DESTROY_QP, &DEREG_MR, &MODIFY_QP, &POST] {
        answer.store(0, Ordering::Relaxed);
    }
    POST_AFTER.store(0, Ordering::Relaxed);
    turn
}

/// Takes what was posted since the last call.
pub fn take_posted() -> Vec<Posted> {
    std::mem::take(&mut state().posted)
}

/// Calls of post since `lock`.
pub fn doorbells() -> usize {
    state().doorbells
}

/// Lets a completion appear.
pub fn complete(wr_id: u64, status: ibv_wc_status) {
    state().completions.push_back(ibv_wc { wr_id, status, ..Default::default() });
}

/// An open device of this kind, with its own data path.
pub fn open(post_send: PostSend, poll_cq: PollCq) -> Context {
    DATA_PATH.set((post_send, poll_cq)).ok();
    // SAFETY: the functions below and the data paths of this folder's users keep the manual pages' contracts as far as
    // this library uses them, and none touches the memory that a work request names.
    let provider = unsafe { Provider::custom(verbs()) };
    provider.devices().unwrap()[0].open().unwrap()
}

/// An open device whose completions a test makes.
pub fn open_manual() -> Context {
    open(post_send, poll_cq)
}

static DATA_PATH: OnceLock<(PostSend, PollCq)> = OnceLock::new();

fn verbs() -> &'static Verbs {
    static VERBS: OnceLock<Verbs> = OnceLock::new();
    VERBS.get_or_init(|| Verbs {
        get_device_list,
        free_device_list,
        get_device_name,
        get_device_guid,
        open_device,
        close_device,
        query_device,
        query_port,
        query_gid_ex: Some(query_gid_ex),
        query_gid_table: None,
        alloc_pd,
        dealloc_pd,
        reg_mr,
        dereg_mr,
        create_comp_channel,
        destroy_comp_channel,
        create_cq,
        destroy_cq,
        ack_cq_events,
        get_cq_event,
        // The software device's looks into its own channels.
        wait_comp_event: None,
        create_qp,
        modify_qp,
        destroy_qp,
        ..*ibex_soft::verbs()
    })
}

fn give<T>(value: T) -> *mut T {
    Box::into_raw(Box::new(value))
}

/// Frees what `give` made.
///
/// # Safety
/// `value` is from `give`, of the same type, and used by nobody afterwards.
unsafe fn take<T>(value: *mut T) -> c_int {
    // SAFETY: the caller's promise: a box of this type, given up once.
    drop(unsafe { Box::from_raw(value) });
    0
}

unsafe extern "C" fn get_device_list(count: *mut c_int) -> *mut *mut ibv_device {
    // SAFETY: ibv_get_device_list(3): the caller passes a place for the count; this library never passes null.
    unsafe { count.write(1) };
    let device = give(ibv_device::default());
    give([device, null_mut()]).cast()
}
unsafe extern "C" fn free_device_list(list: *mut *mut ibv_device) {
    // SAFETY: ibv_free_device_list(3): a list from `get_device_list`, which has two elements, not freed before.
    let device = unsafe { list.read() };
    // SAFETY: ibv_free_device_list(3): the devices of the list are used no more; this one was made with it.
    unsafe { take(device) };
    // SAFETY: ibv_free_device_list(3): nor is the list, which was made as an array of this type.
    unsafe { take(list.cast::<[*mut ibv_device; 2]>()) };
}
unsafe extern "C" fn get_device_name(_: *mut ibv_device) -> *const c_char {
    c"fake0".as_ptr()
}
unsafe extern "C" fn get_device_guid(_: *mut ibv_device) -> u64 {
    1_u64.to_be()
}
unsafe extern "C" fn open_device(device: *mut ibv_device) -> *mut ibv_context {
    let mut context = ibv_context { device, ..Default::default() };
    let (post_send, poll_cq) = DATA_PATH.get().copied().unwrap_or((self::post_send, self::poll_cq));
    context.ops.post_send = Some(post_send);
    context.ops.post_recv = Some(post_recv);
    context.ops.poll_cq = Some(poll_cq);
    context.ops.req_notify_cq = Some(req_notify_cq);
    give(context)
}
unsafe extern "C" fn close_device(context: *mut ibv_context) -> c_int {
    // SAFETY: ibv_close_device(3): a context from `open_device`, used no more.
    unsafe { take(context) }
}
unsafe extern "C" fn query_device(_: *mut ibv_context, attr: *mut ibv_device_attr) -> c_int {
    let answer = ibv_device_attr {
        max_qp_rd_atom: 16,
        max_qp_init_rd_atom: 16,
        phys_port_cnt: 1,
        ..Default::default()
    };
    // SAFETY: ibv_query_device(3): the caller passes a place for the answer.
    unsafe { attr.write(answer) };
    0
}
unsafe extern "C" fn query_port(_: *mut ibv_context, _: u8, attr: *mut _compat_ibv_port_attr) -> c_int {
    let answer = _compat_ibv_port_attr {
        state: IBV_PORT_ACTIVE,
        max_mtu: IBV_MTU_4096,
        active_mtu: IBV_MTU_4096,
        gid_tbl_len: 1,
        link_layer: IBV_LINK_LAYER_ETHERNET,
        ..Default::default()
    };
    // SAFETY: ibv_query_port(3): the caller passes a place for the answer.
    unsafe { attr.write(answer) };
    0
}
unsafe extern "C" fn query_gid_ex(
    _: *mut ibv_context,
    port_num: u32,
    gid_index: u32,
    entry: *mut ibv_gid_entry,
    _: u32,
    _: usize,
) -> c_int {
    let gid = ibv_gid { raw: [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1] };
    let gid_type = IBV_GID_TYPE_ROCE_V2.0;
    // SAFETY: ibv_query_gid_ex(3): the caller passes a place for the entry.
    unsafe { entry.write(ibv_gid_entry { gid, gid_index, port_num, gid_type, ndev_ifindex: 0 }) };
    0
}
unsafe extern "C" fn alloc_pd(context: *mut ibv_context) -> *mut ibv_pd {
    give(ibv_pd { context, ..Default::default() })
}
unsafe extern "C" fn dealloc_pd(pd: *mut ibv_pd) -> c_int {
    // SAFETY: ibv_dealloc_pd(3): a domain from `alloc_pd`, used no more.
    unsafe { take(pd) }
}
unsafe extern "C" fn reg_mr(pd: *mut ibv_pd, addr: *mut c_void, length: usize, _: c_int) -> *mut ibv_mr {
    static KEY: AtomicU32 = AtomicU32::new(1);
    let key = KEY.fetch_add(1, Ordering::Relaxed);
    REGIONS.fetch_add(1, Ordering::Relaxed);
    give(ibv_mr { pd, addr, length, lkey: key, rkey: key | 0x8000_0000, ..Default::default() })
}
unsafe extern "C" fn dereg_mr(mr: *mut ibv_mr) -> c_int {
    match DEREG_MR.load(Ordering::Relaxed) {
        0 => {
            REGIONS.fetch_sub(1, Ordering::Relaxed);
            // SAFETY: ibv_dereg_mr(3): a region from `reg_mr`, used no more once this answers 0 (I4).
            unsafe { take(mr) }
        }
        code => code,
    }
}
unsafe extern "C" fn create_comp_channel(context: *mut ibv_context) -> *mut ibv_comp_channel {
    // SAFETY: eventfd(2) takes no pointers.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    give(ibv_comp_channel { context, fd, refcnt: 0 })
}
unsafe extern "C" fn destroy_comp_channel(channel: *mut ibv_comp_channel) -> c_int {
    // SAFETY: ibv_destroy_comp_channel(3): a channel from `create_comp_channel`, still alive.
    let fd = unsafe { (*channel).fd };
    // SAFETY: close(2): the channel owns the descriptor, and it is closed here only.
    unsafe { libc::close(fd) };
    // SAFETY: ibv_destroy_comp_channel(3): the channel is used no more.
    unsafe { take(channel) }
}
unsafe extern "C" fn create_cq(
    context: *mut ibv_context,
    cqe: c_int,
    _: *mut c_void,
    channel: *mut ibv_comp_channel,
    _: c_int,
) -> *mut ibv_cq {
    give(ibv_cq { context, cqe, channel, ..Default::default() })
}
unsafe extern "C" fn destroy_cq(cq: *mut ibv_cq) -> c_int {
    // SAFETY: ibv_destroy_cq(3): a queue from `create_cq`, used no more.
    unsafe { take(cq) }
}
unsafe extern "C" fn ack_cq_events(_: *mut ibv_cq, _: u32) {}
unsafe extern "C" fn get_cq_event(
    _: *mut ibv_comp_channel,
    _: *mut *mut ibv_cq,
    _: *mut *mut c_void,
) -> c_int {
    // SAFETY: errno(3): takes nothing, and is there for every thread.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: errno(3): the thread's own `int`, which it may assign.
    unsafe { *errno = libc::EAGAIN };
    -1
}
unsafe extern "C" fn create_qp(pd: *mut ibv_pd, _: *mut ibv_qp_init_attr) -> *mut ibv_qp {
    static NUMBER: AtomicU32 = AtomicU32::new(0x11);
    // SAFETY: ibv_create_qp(3): the caller passes a domain from `alloc_pd` that is alive.
    let context = unsafe { (*pd).context };
    let qp_num = NUMBER.fetch_add(1, Ordering::Relaxed);
    give(ibv_qp { context, pd, qp_num, ..Default::default() })
}
unsafe extern "C" fn modify_qp(qp: *mut ibv_qp, attr: *mut ibv_qp_attr, _: c_int) -> c_int {
    let code = MODIFY_QP.load(Ordering::Relaxed);
    if code == 0 {
        // SAFETY: ibv_modify_qp(3): the caller passes valid attributes.
        let next = unsafe { (*attr).qp_state };
        // SAFETY: ibv_modify_qp(3): the caller passes a queue pair from `create_qp` that is alive.
        unsafe { (*qp).state = next };
    }
    code
}
unsafe extern "C" fn destroy_qp(qp: *mut ibv_qp) -> c_int {
    match DESTROY_QP.load(Ordering::Relaxed) {
        // SAFETY: ibv_destroy_qp(3): a queue pair from `create_qp`, used no more once this answers 0.
        0 => unsafe { take(qp) },
        code => code,
    }
}

unsafe extern "C" fn post_send(
    _: *mut ibv_qp,
    mut wr: *mut ibv_send_wr,
    bad: *mut *mut ibv_send_wr,
) -> c_int {
    let mut state = state();
    state.doorbells += 1;
    let (code, mut room) = (POST.load(Ordering::Relaxed), POST_AFTER.load(Ordering::Relaxed));
    // SAFETY: ibv_post_send(3): the caller's list is valid during the call and ends with null.
    while let Some(request) = unsafe { wr.as_ref() } {
        if code != 0 && room == 0 {
            // SAFETY: ibv_post_send(3): the caller passes a place for the refused request.
            unsafe { bad.write(wr) };
            return code;
        }
        room = room.saturating_sub(1);
        let ibv_send_wr { wr_id, opcode, send_flags: flags, num_sge, .. } = *request;
        state.posted.push(Posted { wr_id, flags, opcode: opcode.0, num_sge });
        wr = request.next;
    }
    0
}
unsafe extern "C" fn post_recv(_: *mut ibv_qp, wr: *mut ibv_recv_wr, _: *mut *mut ibv_recv_wr) -> c_int {
    // SAFETY: ibv_post_recv(3): the caller's list has at least one request, valid during the call.
    let ibv_recv_wr { wr_id, num_sge, .. } = unsafe { *wr };
    state().posted.push(Posted { wr_id, flags: 0, opcode: u32::MAX, num_sge });
    0
}
unsafe extern "C" fn poll_cq(_: *mut ibv_cq, room: c_int, wcs: *mut ibv_wc) -> c_int {
    let mut state = state();
    let count = state.completions.len().min(room as usize);
    for (at, wc) in state.completions.drain(..count).enumerate() {
        // SAFETY: ibv_poll_cq(3): the caller has room for `room` completions, and `at` is below that.
        let place = unsafe { wcs.add(at) };
        // SAFETY: as above (ibv_poll_cq(3)): a place of the caller's array.
        unsafe { place.write(wc) };
    }
    count as c_int
}
unsafe extern "C" fn req_notify_cq(_: *mut ibv_cq, _: c_int) -> c_int {
    0
}
