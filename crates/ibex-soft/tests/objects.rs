//! Objects: what is reported about the device, what is refused, what is busy.
#![allow(unsafe_code)]

mod support;

use std::ffi::CStr;
use std::mem::size_of;
use std::ptr::null_mut;

use ibex_sys::*;
use support::*;

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

#[test]
fn the_device_is_listed_and_described() {
    let mut count = 0;
    let list = c!((v().get_device_list)(&mut count));
    assert_eq!(count, 1);
    let device = c!(*list);
    assert!(c!(*list.add(1)).is_null());
    assert_eq!(c!(CStr::from_ptr((v().get_device_name)(device))), c"ibex0");
    // 0200:5efe and the address 127.0.0.1, in network order.
    assert_eq!(c!((v().get_device_guid)(device)), 0x0200_5efe_7f00_0001_u64.to_be());
    c!((v().free_device_list)(list));

    let context = Context::open();
    let mut attr = ibv_device_attr::default();
    assert_eq!(c!((v().query_device)(context.0, &mut attr)), 0);
    assert_eq!(attr.phys_port_cnt, 1);
    assert!(attr.max_srq > 0 && attr.max_srq_wr > 0 && attr.max_srq_sge > 0 && attr.max_ah > 0);
    let mut extended = ibv_device_attr_ex { max_dm_size: 77, ..Default::default() };
    assert_eq!(c!(dispatch::ibv_query_device_ex(v(), context.0, std::ptr::null(), &mut extended)), 0);
    assert_eq!((extended.orig_attr.node_guid, extended.max_dm_size), (attr.node_guid, 0));
}

#[test]
fn the_port_answers_old_and_new_programs() {
    let context = Context::open();
    let mut port = ibv_port_attr { port_cap_flags2: 0xffff, ..Default::default() };
    assert_eq!(c!(dispatch::ibv_query_port(v(), context.0, 1, &mut port)), 0);
    assert_eq!((port.state, port.link_layer), (IBV_PORT_ACTIVE, IBV_LINK_LAYER_ETHERNET));
    assert_eq!((port.active_mtu, port.gid_tbl_len, port.port_cap_flags2), (IBV_MTU_4096, 2, 0));
    assert_eq!(c!(dispatch::ibv_query_port(v(), context.0, 2, &mut port)), libc::EINVAL);

    // The exported function writes the older structure and not a byte more.
    #[repr(C)]
    struct Guarded {
        attr: _compat_ibv_port_attr,
        guard: [u8; 16],
    }
    let mut old = Guarded { attr: Default::default(), guard: [0xaa; 16] };
    assert_eq!(c!((v().query_port)(context.0, 1, &mut old.attr)), 0);
    assert_eq!((old.attr.state, old.guard), (IBV_PORT_ACTIVE, [0xaa; 16]));
}

#[test]
fn the_gid_table_has_both_kinds() {
    let context = Context::open();
    let query = v().query_gid_table.expect("served");
    let mut entries = [ibv_gid_entry::default(); 4];
    let count = c!(query(context.0, entries.as_mut_ptr(), 4, 0, size_of::<ibv_gid_entry>()));
    assert_eq!(count, 2);
    let text: Vec<String> =
        entries[..2].iter().map(|entry| std::net::Ipv6Addr::from(c!(entry.gid.raw)).to_string()).collect();
    assert_eq!(text, ["fe80::200:5efe:7f00:1", "::ffff:127.0.0.1"]);
    assert!(entries[..2].iter().all(|entry| entry.gid_type == IBV_GID_TYPE_ROCE_V2.0 && entry.port_num == 1));
    assert!(c!(query(context.0, entries.as_mut_ptr(), 1, 0, size_of::<ibv_gid_entry>())) < 0, "too small");
    let mut gid = ibv_gid { raw: [0; 16] };
    assert_eq!((c!((v().query_gid)(context.0, 1, 2, &mut gid)), errno()), (-1, libc::EINVAL));
    let mut pkey = 0;
    assert_eq!(c!((v().query_pkey)(context.0, 1, 0, &mut pkey)), 0);
    assert_eq!(pkey, 0xffff);
    assert_eq!(c!((v().query_pkey)(context.0, 1, 1, &mut pkey)), -1);
}

#[test]
fn regions_are_checked_when_registered() {
    let context = Context::open();
    let pd = Pd::alloc(&context);
    let mut byte = 0u8;
    let reg = |addr: *mut u8, length, access| {
        let mr = c!((v().reg_mr)(pd.0, addr.cast(), length, access));
        if mr.is_null() {
            return errno();
        }
        assert_eq!(c!((v().dereg_mr)(mr)), 0);
        0
    };
    assert_eq!(reg(&raw mut byte, 1, 1), 0);
    assert_eq!(reg(&raw mut byte, 1, 2), libc::EINVAL, "remote write without local write");
    assert_eq!(reg(&raw mut byte, 1, 8), libc::EINVAL, "remote atomic without local write");
    assert_eq!(reg(&raw mut byte, 1, 1 << 11), libc::EINVAL, "unknown access");
    assert_eq!(reg(&raw mut byte, 0, 1), libc::EINVAL, "no length");
    assert_eq!(reg(std::ptr::without_provenance_mut(4096), 4096, 1), libc::EFAULT, "not mapped");
    assert_eq!(reg(std::ptr::without_provenance_mut(usize::MAX - 10), 4096, 1), libc::EINVAL, "wraps");
    // Code can be read, and so registered for reading, but not for writing.
    let code = (regions_are_checked_when_registered as fn()) as *mut u8;
    assert_eq!(reg(code, 16, 4), 0);
    assert_eq!(reg(code, 16, 5), libc::EFAULT);
}

#[test]
fn a_region_can_be_changed_and_keeps_its_keys() {
    let pair = Pair::with(Wish::default(), 4096);
    let target = Mr::reg(&pair.b.pd, 4096, LOCAL);
    let change = |flags: ibv_rereg_mr_flags, access| {
        c!((v().rereg_mr)(target.mr, flags.0 as i32, null_mut(), null_mut(), 0, access))
    };
    assert_eq!(change(IBV_REREG_MR_CHANGE_ACCESS, 2), IBV_REREG_MR_ERR_INPUT.0);
    assert_eq!(change(IBV_REREG_MR_CHANGE_ACCESS, ALL), 0);
    pair.am.fill(0..100, 3);
    pair.a.rdma(IBV_WR_RDMA_WRITE, 1, pair.am.sge(0, 100), target.addr(), target.rkey());
    pair.a.send.success();
    target.check(0..100, 3, 0);
    assert_eq!(change(IBV_REREG_MR_CHANGE_ACCESS, LOCAL), 0);
    pair.a.rdma(IBV_WR_RDMA_WRITE, 2, pair.am.sge(0, 100), target.addr(), target.rkey());
    assert_eq!(pair.a.send.wait().status, IBV_WC_REM_ACCESS_ERR);
}

#[test]
fn a_region_at_another_address() {
    let pair = Pair::with(Wish::default(), 4096);
    let memory: &'static mut [u8] = Vec::leak(vec![0u8; 256]);
    let register = v().reg_mr_iova2.expect("served");
    let mr = c!(register(pair.b.pd.0, memory.as_mut_ptr().cast(), 256, 0x7000_0000_0000, ALL as u32));
    assert!(!mr.is_null());
    pair.am.fill(0..256, 3);
    pair.a.rdma(IBV_WR_RDMA_WRITE, 1, pair.am.sge(0, 256), 0x7000_0000_0000, c!((*mr).rkey));
    pair.a.send.success();
    assert_eq!(c!((v().dereg_mr)(mr)), 0);
    assert_eq!(memory[255], pair.am.byte(255).load(std::sync::atomic::Ordering::Relaxed));
}

#[test]
fn what_is_in_use_cannot_be_destroyed() {
    let context = Context::open();
    let pd = Pd::alloc(&context);
    let channel = Channel::create(&context);
    let cq = Cq::create(&context, 16, Some(&channel));
    let busy_pd = || c!((v().dealloc_pd)(pd.0));
    {
        let _memory = Mr::reg(&pd, 64, ALL);
        assert_eq!(busy_pd(), libc::EBUSY);
    }
    {
        let _qp = Qp::create(&pd, &cq, &cq, Wish::default());
        assert_eq!(busy_pd(), libc::EBUSY);
        assert_eq!(c!((v().destroy_cq)(cq.0)), libc::EBUSY);
    }
    assert_eq!(c!((v().destroy_comp_channel)(channel.0)), libc::EBUSY);
}

#[test]
fn sizes_beyond_the_limits_are_refused() {
    let context = Context::open();
    let pd = Pd::alloc(&context);
    let cq = Cq::create(&context, 16, None);
    let create_cq = |cqe, vector| c!((v().create_cq)(context.0, cqe, null_mut(), null_mut(), vector));
    for (cqe, vector) in [(0, 0), (-1, 0), (i32::MAX, 0), (1, 1), (1, -1)] {
        assert!(create_cq(cqe, vector).is_null());
        assert_eq!(errno(), libc::EINVAL, "{cqe} entries, vector {vector}");
    }
    type Change = fn(&mut ibv_qp_init_attr);
    let refused: [(Change, i32); 8] = [
        (|init| init.cap.max_send_wr = 1 << 20, libc::EINVAL),
        (|init| init.cap.max_recv_wr = 1 << 20, libc::EINVAL),
        (|init| init.cap.max_send_sge = 100, libc::EINVAL),
        (|init| init.cap.max_recv_sge = 100, libc::EINVAL),
        (|init| init.cap.max_inline_data = 1 << 20, libc::EINVAL),
        (|init| init.send_cq = null_mut(), libc::EINVAL),
        (|init| init.qp_type = IBV_QPT_RAW_PACKET, libc::EOPNOTSUPP),
        (|init| init.qp_type = ibv_qp_type(99), libc::EOPNOTSUPP),
    ];
    for (change, code) in refused {
        let cap = Wish::default().cap;
        let mut init =
            ibv_qp_init_attr { send_cq: cq.0, recv_cq: cq.0, cap, qp_type: IBV_QPT_RC, ..Default::default() };
        change(&mut init);
        assert!(c!((v().create_qp)(pd.0, &mut init)).is_null());
        assert_eq!(errno(), code);
    }
}

#[test]
fn what_is_not_served_says_so() {
    let context = Context::open();
    let pd = Pd::alloc(&context);
    let mut xrc =
        ibv_srq_init_attr_ex { comp_mask: IBV_SRQ_INIT_ATTR_XRCD.0, pd: pd.0, ..Default::default() };
    assert!(c!(dispatch::ibv_create_srq_ex(v(), context.0, &mut xrc)).is_null());
    assert_eq!(errno(), libc::EOPNOTSUPP);
    let mut table = ibv_qp_init_attr_ex {
        comp_mask: (IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_IND_TABLE).0,
        ..Default::default()
    };
    table.pd = pd.0;
    assert!(c!(dispatch::ibv_create_qp_ex(v(), context.0, &mut table)).is_null());
    assert_eq!(errno(), libc::EOPNOTSUPP);
    assert!(c!(dispatch::ibv_alloc_dm(context.0, &mut ibv_alloc_dm_attr::default())).is_null());
    assert_eq!(errno(), libc::EOPNOTSUPP);
}

#[test]
fn a_query_tells_attributes_and_state() {
    let pair = Pair::new();
    let (attr, init) = pair.a.query();
    assert_eq!((attr.qp_state, attr.cur_qp_state), (IBV_QPS_RTS, IBV_QPS_RTS));
    assert_eq!((attr.dest_qp_num, attr.path_mtu, attr.timeout), (pair.b.num(), IBV_MTU_4096, 14));
    assert_eq!((attr.sq_psn, attr.rq_psn, attr.port_num), (pair.a.psn, pair.b.psn, 1));
    assert_eq!((init.cap.max_send_wr, init.qp_type), (64, IBV_QPT_RC));
    assert_eq!((init.send_cq, attr.ah_attr.is_global), (pair.a.send.0, 1));
    pair.a.rdma(IBV_WR_RDMA_WRITE, 1, pair.am.sge(0, 64), pair.bm.addr(), pair.bm.rkey());
    pair.a.send.success();
    assert_eq!(pair.a.query().0.sq_psn, (pair.a.psn + 1) & 0xff_ffff);
    assert_eq!(pair.b.query().0.rq_psn, (pair.a.psn + 1) & 0xff_ffff);
}

#[test]
fn null_is_refused() {
    assert!(c!((v().alloc_pd)(null_mut())).is_null());
    assert_eq!(errno(), libc::EINVAL);
    assert!(c!((v().reg_mr)(null_mut(), null_mut(), 1, 1)).is_null());
    assert_eq!(c!((v().dereg_mr)(null_mut())), libc::EINVAL);
    assert_eq!(c!((v().destroy_qp)(null_mut())), libc::EINVAL);
    assert_eq!(c!((v().destroy_cq)(null_mut())), libc::EINVAL);
    assert_eq!(c!((v().modify_qp)(null_mut(), null_mut(), 0)), libc::EINVAL);
    let context = Context::open();
    assert_eq!(c!((v().query_device)(context.0, null_mut())), libc::EINVAL);
}

#[test]
fn closing_a_context_makes_what_it_left_unreachable() {
    let pair = Pair::with(Wish { timeout: 12, retry: 2, ..Wish::default() }, 4096);
    // A second context of the same process, closed with everything alive.
    let list = c!((v().get_device_list)(null_mut()));
    let context = c!((v().open_device)(*list));
    let pd = c!((v().alloc_pd)(context));
    let memory: &'static mut [u8] = Vec::leak(vec![0u8; 64]);
    let mr = c!((v().reg_mr)(pd, memory.as_mut_ptr().cast(), 64, ALL));
    let cq = c!((v().create_cq)(context, 16, null_mut(), null_mut(), 0));
    let mut init = ibv_qp_init_attr {
        send_cq: cq,
        recv_cq: cq,
        cap: Wish::default().cap,
        qp_type: IBV_QPT_RC,
        ..Default::default()
    };
    let qp = c!((v().create_qp)(pd, &mut init));
    assert!(!qp.is_null());
    assert_eq!(c!((v().close_device)(context)), 0);
    // Destroying what was left is late, but no harm.
    assert_eq!(c!((v().destroy_qp)(qp)), 0);
    assert_eq!(c!((v().dereg_mr)(mr)), 0);
    assert_eq!(c!((v().destroy_cq)(cq)), 0);
    assert_eq!(c!((v().dealloc_pd)(pd)), 0);
    pair.a.rdma(IBV_WR_RDMA_WRITE, 1, pair.am.sge(0, 64), pair.bm.addr(), pair.bm.rkey());
    pair.a.send.success();
}

#[test]
fn strings_are_those_programs_know() {
    let text = |pointer| c!(CStr::from_ptr(pointer)).to_str().unwrap();
    assert_eq!(text(c!((v().wc_status_str)(IBV_WC_SUCCESS))), "success");
    assert_eq!(text(c!((v().wc_status_str)(IBV_WC_RETRY_EXC_ERR))), "transport retry counter exceeded");
    assert_eq!(text(c!((v().wc_status_str)(ibv_wc_status(1000)))), "unknown");
    assert_eq!(c!((v().rate_to_mbps)(IBV_RATE_100_GBPS)), 103_125);
    assert_eq!(c!((v().mult_to_ibv_rate)(4)), IBV_RATE_10_GBPS);
}
