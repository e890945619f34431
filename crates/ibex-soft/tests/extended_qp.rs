//! Extended queue pairs through the C interface: building requests in place, on each service.
#![allow(unsafe_code)]

mod support;

use std::ptr::null_mut;
use std::sync::Arc;

use ibex_sys::*;
use support::*;

const RC: ibv_qp_create_send_ops_flags = ibv_qp_create_send_ops_flags(0x3ff);

/// `ibv_qp_to_qp_ex`.
fn to_ex() -> unsafe extern "C" fn(*mut ibv_qp) -> *mut ibv_qp_ex {
    v().qp_to_qp_ex.expect("the device's table is of the newest version")
}

/// Attributes of a queue pair with these operations.
fn attributes(
    pd: &Arc<Pd>,
    cq: &Arc<Cq>,
    service: ibv_qp_type,
    ops: ibv_qp_create_send_ops_flags,
) -> ibv_qp_init_attr_ex {
    ibv_qp_init_attr_ex {
        send_cq: cq.0,
        recv_cq: cq.0,
        cap: Wish::default().cap,
        qp_type: service,
        comp_mask: (IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS).0,
        pd: pd.0,
        send_ops_flags: u64::from(ops.0),
        ..Default::default()
    }
}

fn create(
    pd: &Arc<Pd>,
    cq: &Arc<Cq>,
    service: ibv_qp_type,
    ops: ibv_qp_create_send_ops_flags,
) -> *mut ibv_qp {
    let mut attr = attributes(pd, cq, service, ops);
    let qp = c!(dispatch::ibv_create_qp_ex(v(), pd.1.0, &mut attr));
    assert!(!qp.is_null(), "create_qp_ex: {}", std::io::Error::last_os_error());
    qp
}

/// Two connected reliable queue pairs with the extended interface, in RTS.
struct Ends {
    a: Qp,
    b: Qp,
    am: Mr,
    bm: Mr,
}

fn ends(ops: ibv_qp_create_send_ops_flags) -> Ends {
    let context = Context::open();
    let pd = Pd::alloc(&context);
    let end = || {
        let cq = Cq::create(&context, 256, None);
        let qp = create(&pd, &cq, IBV_QPT_RC, ops);
        let qp = Qp {
            qp,
            pd: pd.clone(),
            send: cq.clone(),
            recv: cq,
            wish: Wish::default(),
            psn: 0xff_fff0,
            srq: None,
        };
        qp.init();
        qp
    };
    let (a, b) = (end(), end());
    a.connect(b.endpoint(1));
    b.connect(a.endpoint(1));
    Ends { a, b, am: Mr::reg(&pd, 1 << 16, ALL), bm: Mr::reg(&pd, 1 << 16, ALL) }
}

/// The extended view of a queue pair.
struct Builder(*mut ibv_qp_ex);

fn builder(qp: &Qp) -> Builder {
    let ex = c!((to_ex())(qp.qp));
    assert!(!ex.is_null());
    Builder(ex)
}

impl Builder {
    fn start(&self) {
        c!(dispatch::ibv_wr_start(self.0));
    }

    /// Names the next request.
    fn next(&self, wr_id: u64) -> *mut ibv_qp_ex {
        c!((*self.0).wr_id = wr_id);
        c!((*self.0).wr_flags = IBV_SEND_SIGNALED.0);
        self.0
    }

    fn sge(&self, sge: ibv_sge) {
        c!(dispatch::ibv_wr_set_sge(self.0, sge.lkey, sge.addr, sge.length));
    }

    fn complete(&self) -> i32 {
        c!(dispatch::ibv_wr_complete(self.0))
    }
}

#[test]
fn every_operation_of_a_connection_in_one_batch() {
    let Ends { a, b, am, bm } = ends(RC);
    let qp = builder(&a);
    am.fill(0..4096, 1);
    bm.word(1024).store(40, std::sync::atomic::Ordering::Relaxed);
    for wr_id in 0..4 {
        b.recv(wr_id, bm.sge(1000 * wr_id as usize, 1000));
    }
    let (to, rkey) = (bm.addr() + 16384, bm.rkey());
    qp.start();
    c!(dispatch::ibv_wr_send(qp.next(1)));
    qp.sge(am.sge(0, 600));
    c!(dispatch::ibv_wr_send_imm(qp.next(2), 0x0102_0304));
    let mut list = [am.sge(600, 10), am.sge(610, 20), am.sge(630, 30)];
    c!(dispatch::ibv_wr_set_sge_list(qp.0, 3, list.as_mut_ptr()));
    c!(dispatch::ibv_wr_rdma_write(qp.next(3), rkey, to));
    let mut inline = *b"eight by";
    c!(dispatch::ibv_wr_set_inline_data(qp.0, inline.as_mut_ptr().cast(), 8));
    inline.fill(0);
    c!(dispatch::ibv_wr_rdma_write_imm(qp.next(4), rkey, to + 8, 5));
    let mut parts = [*b"one.", *b"two."];
    let bufs = parts.each_mut().map(|part| ibv_data_buf { addr: part.as_mut_ptr().cast(), length: 4 });
    c!(dispatch::ibv_wr_set_inline_data_list(qp.0, 2, bufs.as_ptr()));
    c!(dispatch::ibv_wr_rdma_read(qp.next(5), rkey, to));
    qp.sge(am.sge(5000, 16));
    c!(dispatch::ibv_wr_atomic_fetch_add(qp.next(6), rkey, bm.addr() + 8192, 2));
    qp.sge(am.sge(5600, 8));
    c!(dispatch::ibv_wr_atomic_cmp_swp(qp.next(7), rkey, bm.addr() + 8192, 42, 7));
    qp.sge(am.sge(5608, 8));
    // Nothing in it, and no setter.
    c!(dispatch::ibv_wr_send(qp.next(8)));
    assert!(a.send.poll().is_none(), "nothing starts before the batch is complete");
    assert_eq!(qp.complete(), 0);
    let opcodes = [
        IBV_WC_SEND,
        IBV_WC_SEND,
        IBV_WC_RDMA_WRITE,
        IBV_WC_RDMA_WRITE,
        IBV_WC_RDMA_READ,
        IBV_WC_FETCH_ADD,
        IBV_WC_COMP_SWAP,
        IBV_WC_SEND,
    ];
    for (wr_id, opcode) in (1..).zip(opcodes) {
        let wc = a.send.success();
        assert_eq!((wc.wr_id, wc.opcode), (wr_id, opcode));
    }
    assert!(a.send.poll().is_none());
    bm.check(0..600, 1, 0);
    bm.check(1000..1060, 1, 600);
    let read: Vec<u8> =
        (5000..5016).map(|at| am.byte(at).load(std::sync::atomic::Ordering::Relaxed)).collect();
    assert_eq!(read, b"eight byone.two.");
    assert_eq!([700, 701].map(|word| am.word(word).load(std::sync::atomic::Ordering::Relaxed)), [40, 42]);
    assert_eq!(bm.word(1024).load(std::sync::atomic::Ordering::Relaxed), 7);
    let arrived: Vec<(u64, u32, u32)> =
        (0..4).map(|_| b.recv.success()).map(|wc| (wc.wr_id, wc.byte_len, c!(wc.imm.imm_data))).collect();
    assert_eq!(arrived, [(0, 600, 0), (1, 60, 0x0102_0304), (2, 8, 5), (3, 0, 0)]);
}

#[test]
fn a_batch_with_a_mistake_posts_nothing() {
    let Ends { a, b, am, bm } = ends(RC);
    let qp = builder(&a);
    let mistakes: [(&dyn Fn(), i32); 9] = [
        (&|| c!(dispatch::ibv_wr_set_sge_list(qp.0, 5, [am.sge(0, 1); 5].as_mut_ptr())), libc::EINVAL),
        (&|| c!(dispatch::ibv_wr_set_inline_data(qp.0, 64 as *mut _, 129)), libc::EINVAL),
        (&|| c!(dispatch::ibv_wr_send_tso(qp.0, null_mut(), 0, 0)), libc::EOPNOTSUPP),
        (&|| c!(dispatch::ibv_wr_flush(qp.0, 0, 0, 0, 0, 0)), libc::EOPNOTSUPP),
        (&|| c!(dispatch::ibv_wr_atomic_write(qp.0, 0, 0, null_mut())), libc::EOPNOTSUPP),
        (&|| c!(dispatch::ibv_wr_set_xrc_srqn(qp.0, 0)), libc::EOPNOTSUPP),
        (&|| c!(dispatch::ibv_wr_set_ud_addr(qp.0, null_mut(), 1, 1)), libc::EINVAL),
        (&|| c!(dispatch::ibv_wr_bind_mw(qp.0, null_mut(), 1, null_mut())), libc::EINVAL),
        (
            // Room for less than the original value.
            &|| {
                c!(dispatch::ibv_wr_atomic_fetch_add(qp.0, bm.rkey(), bm.addr(), 1));
                qp.sge(am.sge(0, 7));
            },
            libc::EINVAL,
        ),
    ];
    for (mistake, code) in mistakes {
        qp.start();
        c!(dispatch::ibv_wr_rdma_write(qp.next(1), bm.rkey(), bm.addr()));
        qp.sge(am.sge(0, 8));
        c!(dispatch::ibv_wr_rdma_write(qp.next(2), bm.rkey(), bm.addr()));
        mistake();
        assert_eq!(qp.complete(), code);
    }
    // More than fit, though the first would have.
    qp.start();
    for wr_id in 0..65 {
        c!(dispatch::ibv_wr_rdma_write(qp.next(wr_id), bm.rkey(), bm.addr()));
        qp.sge(am.sge(0, 8));
    }
    assert_eq!(qp.complete(), libc::ENOMEM);
    // Data for no request, and a setter before any.
    qp.start();
    qp.sge(am.sge(0, 8));
    assert_eq!(qp.complete(), libc::EINVAL);
    // Given up.
    qp.start();
    c!(dispatch::ibv_wr_rdma_write(qp.next(3), bm.rkey(), bm.addr()));
    c!(dispatch::ibv_wr_abort(qp.0));
    assert!(a.send.poll().is_none());
    // As many as fit, after all that; then not one more until they are polled.
    let write = |count: u64| {
        qp.start();
        for wr_id in 0..count {
            c!(dispatch::ibv_wr_rdma_write(qp.next(wr_id), bm.rkey(), bm.addr()));
            qp.sge(am.sge(0, 8));
        }
        qp.complete()
    };
    assert_eq!(write(64), 0);
    assert_eq!(write(1), libc::ENOMEM);
    for wr_id in 0..64 {
        assert_eq!(a.send.success().wr_id, wr_id);
    }
    assert_eq!(write(0), 0, "an empty batch");
    // In ERR requests are flushed, in RESET refused: as by ibv_post_send.
    a.to(IBV_QPS_ERR);
    assert_eq!(write(2), 0);
    assert_eq!([a.send.wait(), a.send.wait()].map(|wc| wc.status), [IBV_WC_WR_FLUSH_ERR; 2]);
    a.to(IBV_QPS_RESET);
    assert_eq!(write(1), libc::EINVAL);
    drop(b);
}

#[test]
fn operations_not_asked_for_are_refused_safely() {
    let Ends { a, b, am, bm } = ends(IBV_QP_EX_WITH_SEND);
    let qp = builder(&a);
    let others: [&dyn Fn(); 9] = [
        &|| c!(dispatch::ibv_wr_send_imm(qp.0, 0)),
        &|| c!(dispatch::ibv_wr_send_inv(qp.0, 0)),
        &|| c!(dispatch::ibv_wr_rdma_write(qp.0, 0, 0)),
        &|| c!(dispatch::ibv_wr_rdma_write_imm(qp.0, 0, 0, 0)),
        &|| c!(dispatch::ibv_wr_rdma_read(qp.0, 0, 0)),
        &|| c!(dispatch::ibv_wr_atomic_cmp_swp(qp.0, 0, 0, 0, 0)),
        &|| c!(dispatch::ibv_wr_atomic_fetch_add(qp.0, 0, 0, 0)),
        &|| c!(dispatch::ibv_wr_local_inv(qp.0, 0)),
        &|| c!(dispatch::ibv_wr_bind_mw(qp.0, null_mut(), 0, null_mut())),
    ];
    for other in others {
        qp.start();
        other();
        assert_eq!(qp.complete(), libc::EOPNOTSUPP);
    }
    b.recv(1, bm.sge(0, 8));
    qp.start();
    c!(dispatch::ibv_wr_send(qp.next(1)));
    qp.sge(am.sge(0, 8));
    assert_eq!(qp.complete(), 0);
    assert_eq!((a.send.success().wr_id, b.recv.success().wr_id), (1, 1));
    // The classic way works beside it.
    b.recv(2, bm.sge(0, 8));
    a.send_one(2, am.sge(0, 8));
    assert_eq!((a.send.success().wr_id, b.recv.success().wr_id), (2, 2));
}

#[test]
fn creation_takes_what_is_served_and_says_no_to_the_rest() {
    let context = Context::open();
    let pd = Pd::alloc(&context);
    let cq = Cq::create(&context, 16, None);
    let refused = |attr: &mut ibv_qp_init_attr_ex| {
        let qp = c!(dispatch::ibv_create_qp_ex(v(), context.0, attr));
        assert!(qp.is_null());
        std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
    };
    let services = [
        (IBV_QPT_RC, 0x3ff),
        (
            IBV_QPT_UC,
            (IBV_QP_EX_WITH_SEND
                | IBV_QP_EX_WITH_SEND_WITH_IMM
                | IBV_QP_EX_WITH_RDMA_WRITE
                | IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM
                | IBV_QP_EX_WITH_BIND_MW
                | IBV_QP_EX_WITH_LOCAL_INV)
                .0,
        ),
        (IBV_QPT_UD, (IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_SEND_WITH_IMM).0),
    ];
    for (service, ops) in services {
        let qp = create(&pd, &cq, service, ibv_qp_create_send_ops_flags(ops));
        assert!(!c!((to_ex())(qp)).is_null());
        assert_eq!(c!((v().destroy_qp)(qp)), 0);
        for bit in (0..13).map(|bit| 1 << bit).filter(|bit| ops & bit == 0) {
            let mut attr = attributes(&pd, &cq, service, ibv_qp_create_send_ops_flags(bit));
            assert_eq!(refused(&mut attr), libc::EOPNOTSUPP, "operation {bit:#x}");
        }
    }
    let good = || attributes(&pd, &cq, IBV_QPT_RC, RC);
    let without_pd = &mut ibv_qp_init_attr_ex { comp_mask: IBV_QP_INIT_ATTR_SEND_OPS_FLAGS.0, ..good() };
    assert_eq!(refused(without_pd), libc::EINVAL);
    assert_eq!(refused(&mut ibv_qp_init_attr_ex { comp_mask: 1 << 9 | 1, ..good() }), libc::EINVAL);
    let with = |bit: ibv_qp_init_attr_mask| good().comp_mask | bit.0;
    for bit in [IBV_QP_INIT_ATTR_XRCD, IBV_QP_INIT_ATTR_IND_TABLE, IBV_QP_INIT_ATTR_RX_HASH] {
        assert_eq!(refused(&mut ibv_qp_init_attr_ex { comp_mask: with(bit), ..good() }), libc::EOPNOTSUPP);
    }
    let comp_mask = with(IBV_QP_INIT_ATTR_CREATE_FLAGS);
    let flags = IBV_QP_CREATE_BLOCK_SELF_MCAST_LB.0;
    let asks = &mut ibv_qp_init_attr_ex { comp_mask, create_flags: flags, ..good() };
    assert_eq!(refused(asks), libc::EOPNOTSUPP);
    let qp = c!(dispatch::ibv_create_qp_ex(v(), context.0, &mut ibv_qp_init_attr_ex { comp_mask, ..good() }));
    assert_eq!(c!((v().destroy_qp)(qp)), 0);
    // Without operations, and by the classic call, there is no extended interface.
    let plain = Qp::create(&pd, &cq, &cq, Wish::default());
    assert!(c!((to_ex())(plain.qp)).is_null());
}

#[test]
fn datagrams_name_their_destination() {
    let context = Context::open();
    let pd = Pd::alloc(&context);
    let cq = Cq::create(&context, 64, None);
    let ops = IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_SEND_WITH_IMM;
    let up = || {
        let qp = create(&pd, &cq, IBV_QPT_UD, ops);
        let modify = |attr: &mut ibv_qp_attr, mask: ibv_qp_attr_mask| {
            assert_eq!(c!((v().modify_qp)(qp, attr, mask.0 as i32)), 0);
        };
        let mut attr =
            ibv_qp_attr { qp_state: IBV_QPS_INIT, port_num: 1, qkey: 0x1111_1111, ..Default::default() };
        modify(&mut attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY);
        attr.qp_state = IBV_QPS_RTR;
        modify(&mut attr, IBV_QP_STATE);
        attr.qp_state = IBV_QPS_RTS;
        modify(&mut attr, IBV_QP_STATE | IBV_QP_SQ_PSN);
        qp
    };
    let (from, to) = (up(), up());
    let mut gid = ibv_gid { raw: [0; 16] };
    assert_eq!(c!((v().query_gid)(context.0, 1, 1, &mut gid)), 0);
    let mut address = ibv_ah_attr { is_global: 1, port_num: 1, ..Default::default() };
    address.grh.dgid = gid;
    address.grh.sgid_index = 1;
    address.grh.hop_limit = 64;
    let ah = c!((v().create_ah)(pd.0, &mut address));
    assert!(!ah.is_null());
    let memory = Mr::reg(&pd, 8192, ALL);
    let mut sge = memory.sge(0, 2048);
    let mut recv = ibv_recv_wr { wr_id: 9, next: null_mut(), sg_list: &mut sge, num_sge: 1 };
    let mut bad = null_mut();
    assert_eq!(c!(dispatch::ibv_post_recv(to, &mut recv, &mut bad)), 0);
    let qp = Builder(c!((to_ex())(from)));
    memory.fill(4096..4196, 5);
    let (num, qkey) = (c!((*to).qp_num), 0x1111_1111);
    // Without a destination, to none, longer than a datagram can be: nothing is posted.
    qp.start();
    c!(dispatch::ibv_wr_send(qp.next(1)));
    assert_eq!(qp.complete(), libc::EINVAL);
    qp.start();
    c!(dispatch::ibv_wr_send(qp.next(1)));
    c!(dispatch::ibv_wr_set_ud_addr(qp.0, null_mut(), num, qkey));
    assert_eq!(qp.complete(), libc::EINVAL);
    qp.start();
    for length in [8, 4097] {
        c!(dispatch::ibv_wr_send(qp.next(1)));
        c!(dispatch::ibv_wr_set_ud_addr(qp.0, ah, num, qkey));
        qp.sge(memory.sge(0, length));
    }
    assert_eq!(qp.complete(), libc::EINVAL);
    assert!(cq.poll().is_none());
    qp.start();
    c!(dispatch::ibv_wr_send_imm(qp.next(2), 77));
    c!(dispatch::ibv_wr_set_ud_addr(qp.0, ah, num, qkey));
    qp.sge(memory.sge(4096, 100));
    assert_eq!(qp.complete(), 0);
    let mut seen = [cq.success(), cq.success()];
    seen.sort_by_key(|wc| wc.wr_id);
    assert_eq!((seen[0].wr_id, seen[0].opcode), (2, IBV_WC_SEND));
    assert_eq!((seen[1].wr_id, seen[1].byte_len, c!(seen[1].imm.imm_data)), (9, 140, 77));
    assert_eq!(seen[1].src_qp, c!((*from).qp_num));
    memory.check(40..140, 5, 4096);
    for qp in [from, to] {
        assert_eq!(c!((v().destroy_qp)(qp)), 0);
    }
    assert_eq!(c!((v().destroy_ah)(ah)), 0);
}

#[test]
fn threads_take_turns_at_building() {
    let Ends { a, b, am, bm } = ends(RC);
    let each = 100;
    std::thread::scope(|scope| {
        for thread in 0..3u64 {
            let (a, am, bm) = (&a, &am, &bm);
            scope.spawn(move || {
                let qp = builder(a);
                let mut done = 0;
                while done < each {
                    qp.start();
                    for half in 0..2 {
                        c!(dispatch::ibv_wr_rdma_write(
                            qp.next(thread << 32 | (2 * done + half)),
                            bm.rkey(),
                            bm.addr()
                        ));
                        qp.sge(am.sge(0, 8));
                    }
                    match qp.complete() {
                        0 => done += 1,
                        code => assert_eq!(code, libc::ENOMEM),
                    }
                }
            });
        }
        let mut next = [0; 3];
        for _ in 0..3 * each {
            let (first, second) = (a.send.success(), a.send.success());
            let thread = (first.wr_id >> 32) as usize;
            assert_eq!(first.wr_id as u32, next[thread]);
            assert_eq!(second.wr_id, first.wr_id + 1, "a batch is posted as one");
            next[thread] += 2;
        }
    });
    assert!(a.send.poll().is_none());
    drop(b);
}
