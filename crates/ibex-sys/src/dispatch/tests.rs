//! Dispatch over a device made by hand: which function is called with what, and what is said when there is none.
#![allow(unsafe_code)]

use core::ffi::{c_int, c_uint, c_void};
use core::mem::offset_of;
use core::ptr::{null, null_mut};
use std::sync::Mutex;

use super::*;
use crate::verbs::*;
use crate::{Errno, Verbs, convention, zeroed};

/// What was called, in the order of calls; one test at a time.
static CALLS: Mutex<Vec<String>> = Mutex::new(Vec::new());
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn called(text: String) {
    CALLS.lock().unwrap().push(text);
}

/// Runs `test` alone and gives back what was called.
fn calls(test: impl FnOnce()) -> Vec<String> {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    CALLS.lock().unwrap().clear();
    test();
    core::mem::take(&mut *CALLS.lock().unwrap())
}

unsafe extern "C" fn nothing() {}

/// A table in which every function is there but must not be called, but for those that the tests replace.
fn table() -> Verbs {
    // SAFETY: only functions with their right type, set below, are called.
    let mut table = unsafe { Verbs::from_static(|_| nothing as *mut c_void) }.unwrap();
    table.query_port = exported_query_port;
    table.query_device = exported_query_device;
    table.create_qp = exported_create_qp;
    table.create_srq = exported_create_srq;
    table.reg_mr = exported_reg_mr;
    table.reg_mr_iova = Some(exported_reg_mr_iova);
    table.reg_mr_iova2 = Some(exported_reg_mr_iova2);
    table.query_gid_ex = Some(exported_query_gid_ex);
    table
}

unsafe extern "C" fn exported_query_port(
    _: *mut ibv_context,
    port: u8,
    attr: *mut _compat_ibv_port_attr,
) -> c_int {
    called(format!("exported query_port {port}"));
    let mut short: _compat_ibv_port_attr = zeroed();
    short.state = IBV_PORT_ACTIVE;
    short.flags = 0xff;
    // SAFETY: the caller gave at least this much.
    unsafe { attr.write(short) };
    0
}

unsafe extern "C" fn exported_query_device(_: *mut ibv_context, attr: *mut ibv_device_attr) -> c_int {
    called("exported query_device".into());
    // SAFETY: writable.
    unsafe { (*attr).max_qp = 17 };
    0
}

unsafe extern "C" fn exported_create_qp(_: *mut ibv_pd, _: *mut ibv_qp_init_attr) -> *mut ibv_qp {
    called("exported create_qp".into());
    null_mut()
}

unsafe extern "C" fn exported_create_srq(_: *mut ibv_pd, _: *mut ibv_srq_init_attr) -> *mut ibv_srq {
    called("exported create_srq".into());
    null_mut()
}

unsafe extern "C" fn exported_reg_mr(_: *mut ibv_pd, _: *mut c_void, _: usize, access: c_int) -> *mut ibv_mr {
    called(format!("reg_mr {access:#x}"));
    null_mut()
}

unsafe extern "C" fn exported_reg_mr_iova(
    _: *mut ibv_pd,
    _: *mut c_void,
    _: usize,
    iova: u64,
    access: c_int,
) -> *mut ibv_mr {
    called(format!("reg_mr_iova {iova:#x} {access:#x}"));
    null_mut()
}

unsafe extern "C" fn exported_reg_mr_iova2(
    _: *mut ibv_pd,
    _: *mut c_void,
    _: usize,
    iova: u64,
    access: c_uint,
) -> *mut ibv_mr {
    called(format!("reg_mr_iova2 {iova:#x} {access:#x}"));
    null_mut()
}

unsafe extern "C" fn exported_query_gid_ex(
    _: *mut ibv_context,
    port: u32,
    index: u32,
    _: *mut ibv_gid_entry,
    _: u32,
    size: usize,
) -> c_int {
    called(format!("query_gid_ex {port} {index} {size}"));
    0
}

unsafe extern "C" fn query_port(_: *mut ibv_context, port: u8, _: *mut ibv_port_attr, len: usize) -> c_int {
    called(format!("query_port {port} {len}"));
    0
}

unsafe extern "C" fn query_device_ex(
    _: *mut ibv_context,
    _: *const ibv_query_device_ex_input,
    _: *mut ibv_device_attr_ex,
    _: usize,
) -> c_int {
    called("query_device_ex".into());
    libc::EOPNOTSUPP
}

unsafe extern "C" fn create_qp_ex(_: *mut ibv_context, _: *mut ibv_qp_init_attr_ex) -> *mut ibv_qp {
    called("create_qp_ex".into());
    null_mut()
}

unsafe extern "C" fn create_srq_ex(_: *mut ibv_context, _: *mut ibv_srq_init_attr_ex) -> *mut ibv_srq {
    called("create_srq_ex".into());
    null_mut()
}

unsafe extern "C" fn poll_cq(_: *mut ibv_cq, entries: c_int, _: *mut ibv_wc) -> c_int {
    called(format!("poll_cq {entries}"));
    entries
}

unsafe extern "C" fn bind_mw(_: *mut ibv_qp, _: *mut ibv_mw, _: *mut ibv_mw_bind) -> c_int {
    called("bind_mw".into());
    0
}

/// A device context with extended operations, of the newest layout.
fn extended_context() -> Box<verbs_context> {
    let mut extended = Box::new(verbs_context::default());
    extended.sz = size_of::<verbs_context>();
    extended.context.abi_compat = __VERBS_ABI_IS_EXTENDED;
    extended.query_port = Some(query_port);
    extended.query_device_ex = Some(query_device_ex);
    extended.create_qp_ex = Some(create_qp_ex);
    extended.create_srq_ex = Some(create_srq_ex);
    extended
}

/// The embedded context, with the right to reach the members before it.
fn inner(extended: &mut verbs_context) -> *mut ibv_context {
    let whole: *mut verbs_context = extended;
    whole.wrapping_byte_add(offset_of!(verbs_context, context)).cast()
}

#[test]
fn without_an_extended_context_every_verb_says_not_supported() {
    let mut context = ibv_context::default();
    let context = &raw mut context;
    let mut attr = ibv_cq_init_attr_ex::default();
    // SAFETY: the context is live, and no function is there to be called.
    let cq = unsafe { ibv_create_cq_ex(context, &raw mut attr) };
    assert_eq!(convention::pointer(cq), Err(Errno::EOPNOTSUPP));

    let mut cq = ibv_cq { context, ..Default::default() };
    let mut attr = ibv_modify_cq_attr::default();
    // SAFETY: as above.
    assert_eq!(unsafe { ibv_modify_cq(&raw mut cq, &raw mut attr) }, libc::EOPNOTSUPP);
    // SAFETY: as above.
    let polled = unsafe { ibv_poll_cq(&raw mut cq, 1, null_mut()) };
    assert_eq!(convention::count(polled), Err(Errno::EOPNOTSUPP));

    let mut pd = ibv_pd { context, handle: 0 };
    // SAFETY: as above.
    let mw = unsafe { ibv_alloc_mw(&raw mut pd, IBV_MW_TYPE_1) };
    assert_eq!(convention::pointer(mw), Err(Errno::EOPNOTSUPP));
    let mut mw = ibv_mw { context, pd: &raw mut pd, r#type: IBV_MW_TYPE_1, ..Default::default() };
    // SAFETY: as above; C would jump to address 0 here.
    assert_eq!(unsafe { ibv_dealloc_mw(&raw mut mw) }, libc::EOPNOTSUPP);

    let mut srq = ibv_srq { context, ..Default::default() };
    let (mut op, mut bad) = (ibv_ops_wr::default(), null_mut());
    // SAFETY: as above.
    let ret = unsafe { ibv_post_srq_ops(&raw mut srq, &raw mut op, &raw mut bad) };
    assert_eq!((ret, bad), (libc::EOPNOTSUPP, &raw mut op));
}

#[test]
fn the_classic_path_calls_the_context() {
    let mut context = ibv_context::default();
    context.ops.poll_cq = Some(poll_cq);
    let mut cq = ibv_cq { context: &raw mut context, ..Default::default() };
    let calls = calls(|| {
        // SAFETY: the function made for this test ignores the completions.
        assert_eq!(unsafe { ibv_poll_cq(&raw mut cq, 5, null_mut()) }, 5);
    });
    assert_eq!(calls, ["poll_cq 5"]);
}

#[test]
fn a_port_is_queried_through_the_device_with_the_callers_size() {
    let (verbs, mut extended) = (table(), extended_context());
    let mut attr = ibv_port_attr::default();
    let calls = calls(|| {
        // SAFETY: live and writable.
        assert_eq!(unsafe { ibv_query_port(&verbs, inner(&mut extended), 2, &raw mut attr) }, 0);
    });
    assert_eq!(calls, ["query_port 2 56"]);
}

#[test]
fn a_port_of_an_older_library_leaves_the_newer_members_zero() {
    let (verbs, mut context) = (table(), ibv_context::default());
    let mut attr = ibv_port_attr { port_cap_flags2: 0xffff, active_speed_ex: 0xffff, ..Default::default() };
    let calls = calls(|| {
        // SAFETY: live and writable.
        assert_eq!(unsafe { ibv_query_port(&verbs, &raw mut context, 1, &raw mut attr) }, 0);
    });
    assert_eq!(calls, ["exported query_port 1"]);
    assert_eq!((attr.state, attr.flags), (IBV_PORT_ACTIVE, 0xff));
    assert_eq!((attr.port_cap_flags2, attr.active_speed_ex), (0, 0));
}

#[test]
fn members_in_front_of_an_older_context_are_not_read() {
    let verbs = table();
    // The context of a library that knew only what lies behind `query_port`; before it something else altogether.
    let distance = size_of::<verbs_context>() - offset_of!(verbs_context, query_port);
    for (sz, expected) in [(distance, "query_port 1 56"), (distance - 8, "exported query_port 1")] {
        let mut extended = extended_context();
        extended.sz = sz;
        let mut attr = ibv_port_attr::default();
        let calls = calls(|| {
            // SAFETY: live and writable.
            assert_eq!(unsafe { ibv_query_port(&verbs, inner(&mut extended), 1, &raw mut attr) }, 0);
        });
        assert_eq!(calls, [expected], "sz {sz}");
    }
}

#[test]
fn a_shorter_allocation_is_enough_for_an_older_context() {
    // Exactly what rdma-core 44 allocates: a tool that watches memory would see any access before it.
    const SIZE: usize = 648;
    let mut memory = vec![0u64; SIZE / 8];
    memory[(SIZE - size_of::<ibv_context>()) / 8 - 1] = SIZE as u64;
    let context: *mut ibv_context =
        memory.as_mut_ptr().wrapping_byte_add(SIZE - size_of::<ibv_context>()).cast();
    // SAFETY: inside the allocation and aligned.
    unsafe { (*context).abi_compat = __VERBS_ABI_IS_EXTENDED };
    let mut attr = ibv_td_init_attr::default();
    // SAFETY: the member is inside, and null.
    let td = unsafe { ibv_alloc_td(context, &raw mut attr) };
    assert_eq!(convention::pointer(td), Err(Errno::EOPNOTSUPP));
}

#[test]
fn a_device_query_falls_back_and_clears_what_it_cannot_fill() {
    let (verbs, mut extended) = (table(), extended_context());
    let mut attr = ibv_device_attr_ex { max_dm_size: 9, ..Default::default() };
    let calls = calls(|| {
        // SAFETY: live and writable.
        let ret = unsafe { ibv_query_device_ex(&verbs, inner(&mut extended), null(), &raw mut attr) };
        assert_eq!(ret, 0);
        let input = ibv_query_device_ex_input { comp_mask: 1 };
        // SAFETY: live and writable.
        let ret =
            unsafe { ibv_query_device_ex(&verbs, inner(&mut extended), &raw const input, &raw mut attr) };
        assert_eq!(ret, libc::EINVAL);
    });
    assert_eq!(calls, ["query_device_ex", "exported query_device"]);
    assert_eq!((attr.orig_attr.max_qp, attr.max_dm_size), (17, 0));
}

#[test]
fn queue_pairs_with_a_domain_only_are_classic() {
    let (verbs, mut extended) = (table(), extended_context());
    let both = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
    for (mask, expected) in [(IBV_QP_INIT_ATTR_PD, "exported create_qp"), (both, "create_qp_ex")] {
        let mut attr = ibv_qp_init_attr_ex { comp_mask: mask.0, ..Default::default() };
        let calls = calls(|| {
            // SAFETY: the functions made for this test look at nothing.
            unsafe { ibv_create_qp_ex(&verbs, inner(&mut extended), &raw mut attr) };
        });
        assert_eq!(calls, [expected], "{mask:?}");
    }
}

#[test]
fn basic_shared_receive_queues_are_classic() {
    let (verbs, mut extended) = (table(), extended_context());
    let (pd, of_type) = (IBV_SRQ_INIT_ATTR_PD, IBV_SRQ_INIT_ATTR_TYPE);
    for (mask, srq_type, expected) in [
        (pd, IBV_SRQT_XRC, "exported create_srq"),
        (pd | of_type, IBV_SRQT_BASIC, "exported create_srq"),
        (pd | of_type, IBV_SRQT_XRC, "create_srq_ex"),
        (pd | of_type | IBV_SRQ_INIT_ATTR_CQ, IBV_SRQT_BASIC, "create_srq_ex"),
        (of_type, IBV_SRQT_BASIC, "create_srq_ex"),
    ] {
        let mut attr = ibv_srq_init_attr_ex { comp_mask: mask.0, srq_type, ..Default::default() };
        let calls = calls(|| {
            // SAFETY: the functions made for this test look at nothing.
            unsafe { ibv_create_srq_ex(&verbs, inner(&mut extended), &raw mut attr) };
        });
        assert_eq!(calls, [expected], "{mask:?} {srq_type:?}");
    }
}

#[test]
fn optional_access_flags_choose_the_function() {
    let mut verbs = table();
    let plain = IBV_ACCESS_LOCAL_WRITE.0 as c_int;
    let relaxed = (IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_RELAXED_ORDERING).0 as c_int;
    let reg = |verbs: &Verbs, access| {
        calls(|| {
            // SAFETY: the functions made for this test look at nothing.
            unsafe { ibv_reg_mr(verbs, null_mut(), 0x1000 as *mut c_void, 64, access) };
            // SAFETY: as above.
            unsafe { ibv_reg_mr_iova(verbs, null_mut(), null_mut(), 64, 0x20, access) };
        })
    };
    assert_eq!(reg(&verbs, plain), ["reg_mr 0x1", "reg_mr_iova 0x20 0x1"]);
    assert_eq!(reg(&verbs, relaxed), ["reg_mr_iova2 0x1000 0x100001", "reg_mr_iova2 0x20 0x100001"]);
    // An older library is not asked for what it may not understand.
    verbs.reg_mr_iova2 = None;
    assert_eq!(reg(&verbs, relaxed), ["reg_mr 0x1", "reg_mr_iova 0x20 0x1"]);
    verbs.reg_mr_iova = None;
    assert_eq!(reg(&verbs, plain), ["reg_mr 0x1"]);
}

#[test]
fn a_gid_is_queried_with_the_callers_size() {
    let mut verbs = table();
    let mut entry = ibv_gid_entry::default();
    let seen = calls(|| {
        // SAFETY: the function made for this test looks at nothing.
        assert_eq!(unsafe { ibv_query_gid_ex(&verbs, null_mut(), 1, 3, &raw mut entry, 0) }, 0);
    });
    assert_eq!(seen, ["query_gid_ex 1 3 32"]);
    (verbs.query_gid_ex, verbs.query_gid_table) = (None, None);
    // SAFETY: there is no function to be called.
    let ret = unsafe { ibv_query_gid_ex(&verbs, null_mut(), 1, 3, &raw mut entry, 0) };
    assert_eq!(ret, libc::EOPNOTSUPP);
    // SAFETY: there is no function to be called.
    let ret = unsafe { ibv_query_gid_table(&verbs, null_mut(), &raw mut entry, 1, 0) };
    assert_eq!(convention::long_count(ret), Err(Errno::EOPNOTSUPP));
}

#[test]
fn binding_checks_its_arguments_before_the_device() {
    let mut context = ibv_context::default();
    context.ops.bind_mw = Some(bind_mw);
    let mut pds = [ibv_pd::default(), ibv_pd::default()];
    let (mine, other) = (&raw mut pds[0], &raw mut pds[1]);
    let mut mr = ibv_mr { pd: mine, ..Default::default() };
    let mr = &raw mut mr;
    let bind = |r#type, pd, mr, length| {
        let mut mw = ibv_mw { context: &raw const context as *mut _, pd, r#type, ..Default::default() };
        let bind_info = ibv_mw_bind_info { mr, length, ..Default::default() };
        let mut bind = ibv_mw_bind { bind_info, ..Default::default() };
        // SAFETY: all objects are live; the function made for this test looks at nothing.
        unsafe { ibv_bind_mw(null_mut(), &raw mut mw, &raw mut bind) }
    };
    let seen = calls(|| {
        assert_eq!(bind(IBV_MW_TYPE_2, mine, mr, 8), libc::EINVAL);
        assert_eq!(bind(IBV_MW_TYPE_1, mine, null_mut(), 8), libc::EINVAL);
        assert_eq!(bind(IBV_MW_TYPE_1, other, mr, 8), libc::EPERM);
        assert_eq!(bind(IBV_MW_TYPE_1, mine, mr, 8), 0);
        assert_eq!(bind(IBV_MW_TYPE_1, mine, null_mut(), 0), 0);
    });
    assert_eq!(seen, ["bind_mw", "bind_mw"]);
}

#[test]
#[should_panic(expected = "ibv_wr_rdma_read is not among the send_ops_flags")]
fn an_operation_that_was_not_asked_for_panics() {
    let mut qp = ibv_qp_ex::default();
    // SAFETY: the queue pair is live.
    unsafe { ibv_wr_rdma_read(&raw mut qp, 1, 2) };
}

#[test]
fn helpers_without_a_device() {
    assert_eq!(ibv_inc_rkey(0x1234_56ff), 0x1234_5600);
    assert_eq!(ibv_inc_rkey(0x1234_5600), 0x1234_5601);
    assert!(ibv_is_qpt_supported(1 << 2, IBV_QPT_RC));
    assert!(!ibv_is_qpt_supported(1 << 2, IBV_QPT_UC));
    assert!(!ibv_is_qpt_supported(u32::MAX, IBV_QPT_DRIVER));
    // The low 14 bits of the label are XORed with the high 6, and the two upper bits of a port set.
    assert_eq!(ibv_flow_label_to_udp_sport(0), 0xC000);
    assert_eq!(ibv_flow_label_to_udp_sport(0xF_FFFF), 0xC000 | (0x3FFF ^ 0x3F));
    assert_eq!(ibv_flow_label_to_udp_sport(0x0_4001), 0xC000);
}
